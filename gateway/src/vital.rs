//! Threads that the process cannot do without. One that panicked and stayed away would leave a gateway that answers and
//! neither keeps nor tells what it should; so either it begins anew, or the process ends, with a word why.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::cli::INTERNAL_FAULT;

/// How long a thread that panicked rests, so that one that panics at once does not fill the log.
const REST: Duration = Duration::from_secs(1);

/// Starts a thread that does `work` again whenever it panicked.
///
/// # Errors
/// The system gives no thread.
pub fn tireless(name: &'static str, mut work: impl FnMut() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let tried = move || {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut work)) {
            tracing::error!(thread = name, panic = told(&*panic), "a thread panicked; it begins anew");
            std::thread::sleep(REST);
        }
    };
    Builder::new().name(name.to_owned()).spawn(tried)
}

/// Starts a thread whose panic ends the process: what it had in hand cannot be told, and whoever starts Weir again
/// starts from what is on the disk.
///
/// # Errors
/// The system gives no thread.
pub fn vital(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let tried = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            tracing::error!(thread = name, panic = told(&*panic), "a thread panicked; the process ends");
            std::process::exit(INTERNAL_FAULT.into());
        }
    };
    Builder::new().name(name.to_owned()).spawn(tried)
}

fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of an unknown kind")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn work_that_panics_is_begun_anew_until_it_ends() {
        let (begun, begins) = sync_channel(3);
        let mut tries = 0;
        let thread = tireless("tired", move || {
            tries += 1;
            begun.send(tries).unwrap();
            assert!(tries > 1, "at first");
        });
        thread.unwrap().join().unwrap();
        assert_eq!(begins.iter().collect::<Vec<_>>(), [1, 2]);
    }
}
