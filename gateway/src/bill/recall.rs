//! What other gateways have in hand of a budget or a quota comes back as soon as one says that it lacks it: a request
//! tries again until then.

use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Cause;

/// How long a request tries: the others look once a second, and then it is there.
const LONGEST: Duration = Duration::from_millis(1500);

/// How long it waits between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// An attempt's tries at its quotas and budgets.
pub(super) struct Recall {
    until: Instant,
    has_paused: bool,
}

impl Recall {
    pub(super) fn new() -> Self {
        Self { until: Instant::now() + LONGEST, has_paused: false }
    }

    /// None but the first.
    pub(super) fn none() -> Self {
        Self { until: Instant::now(), has_paused: false }
    }

    /// Whether to try again after this refusal: at once where `less` would do; after a pause for what others have in
    /// hand, and once for what they held when they last told, since their requests may have ended just then.
    pub(super) async fn goes_on(&mut self, cause: Cause, less: bool) -> bool {
        let may_be_there = match cause {
            _ if Instant::now() >= self.until => false,
            Cause::NoStore => false,
            Cause::InHandElsewhere => true,
            Cause::HeldElsewhere => less || !self.has_paused,
            Cause::Held | Cause::Spent => less,
        };
        if may_be_there && !less {
            self.has_paused = true;
            tokio::time::sleep(PAUSE).await;
        }
        may_be_there
    }
}
