//! The first of two that is ready.
//!
//! In the place of tokio's `select!` wherever one of the two is a stream's next piece: once a task has used up its
//! budget, that macro asks none of its branches, and is first asked again with a full one. A sender that always has one
//! more byte ready would so keep every other branch from being asked at all, whatever clock it is.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::task::coop::unconstrained;

/// Which of two was ready, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The one that is asked first.
    First(A),
    /// The other one.
    Second(B),
}

/// Waits for two; `second` is asked whenever `first` is not ready, whatever that has used of the task's budget. Both
/// pinned by the caller: taken by value they would be there twice.
pub async fn either<A, B>(
    mut first: impl Future<Output = A> + Unpin,
    second: impl Future<Output = B> + Unpin,
) -> Either<A, B> {
    let mut second = unconstrained(second);
    poll_fn(|cx| match Pin::new(&mut first).poll(cx) {
        Poll::Ready(ready) => Poll::Ready(Either::First(ready)),
        Poll::Pending => Pin::new(&mut second).poll(cx).map(Either::Second),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::time::Duration;

    use tokio::task::coop::consume_budget;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn the_second_is_asked_though_the_first_always_has_more() {
        let mut second = pin!(sleep(Duration::from_millis(20)));
        let both = async { while either(pin!(consume_budget()), second.as_mut()).await == Either::First(()) {} };
        assert_eq!(timeout(Duration::from_secs(20), both).await, Ok(()));
    }

    #[tokio::test]
    async fn the_first_is_preferred() {
        assert_eq!(either(ready(1), ready(2)).await, Either::First(1));
        assert_eq!(either(pending::<()>(), ready(2)).await, Either::Second(2));
    }
}
