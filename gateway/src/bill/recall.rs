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
    is_patient: bool,
    /// Since its first pause: until when it tries.
    until: Option<Instant>,
}

impl Recall {
    pub(super) fn new() -> Self {
        Self { is_patient: true, until: None }
    }

    /// None but the first.
    pub(super) fn none() -> Self {
        Self { is_patient: false, until: None }
    }

    /// Whether to try again after this refusal: at once where `less` would do; after a pause for what others have in
    /// hand, and once for what they held when they last told, since their requests may have ended just then.
    pub(super) async fn goes_on(&mut self, cause: Cause, less: bool) -> bool {
        let may_be_there = match cause {
            _ if self.is_over() => false,
            Cause::NoStore => false,
            Cause::InHandElsewhere => true,
            Cause::HeldElsewhere => less || self.until.is_none(),
            Cause::Held | Cause::Spent => less,
        };
        if may_be_there && !less {
            self.until.get_or_insert_with(|| Instant::now() + LONGEST);
            tokio::time::sleep(PAUSE).await;
        }
        may_be_there
    }

    fn is_over(&self) -> bool {
        !self.is_patient || self.until.is_some_and(|until| until <= Instant::now())
    }
}
