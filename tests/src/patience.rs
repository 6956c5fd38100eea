//! The bound on every wait: long enough for a busy machine, short enough for a hang to be told from slowness.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::future::Future;
use std::time::Duration;

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `what`; panics, naming it, when it takes longer than [`PATIENCE`].
pub async fn within<T>(what: &str, waited: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, waited).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Looks again and again whether `holds`, for what nobody tells of, such as a process's memory; false when it never
/// came to hold within [`PATIENCE`].
pub async fn until(mut holds: impl FnMut() -> bool) -> bool {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.is_ok()
}
