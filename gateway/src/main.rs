//! The command `weir`.

use std::process::ExitCode;

// A faster allocator than the system's, linked in the place of `malloc`: 9 % less CPU for a small request. As a global
// allocator it would be asked for each block's alignment, which takes five times the instructions.
use mimalloc as _;

fn main() -> ExitCode {
    // With huge pages the allocator's sparse blocks weigh 45 MB more; they gain nothing that could be measured. A
    // kernel that cannot do without them is none that has them.
    let _none_to_disable = rustix::thread::disable_transparent_huge_pages(true);
    gateway::cli::run()
}
