//! The command `weir`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::run()
}
