//! Memory that was freed goes back to the system. The allocator keeps it for a second, as it may be wanted again, and
//! looks whether that second is over when something large is freed: in a gateway that has fallen silent, never.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use crate::vital;

/// How often the allocator looks.
const EVERY: Duration = Duration::from_secs(5);

/// What the allocator gives a place of its own. It is never written to, so it takes no memory.
const LARGE: usize = 4 << 20;

/// Has the allocator look from time to time, for as long as the process runs.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn give_back() -> io::Result<()> {
    let look = || {
        loop {
            std::thread::sleep(EVERY);
            drop(black_box(Vec::<u8>::with_capacity(LARGE)));
        }
    };
    vital::tireless("memory", look).map(drop)
}
