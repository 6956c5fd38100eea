//! Whether a failed attempt is tried again. Pure: it knows no socket and no clock.

use crate::error::Fault;

/// How often a model's requests are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts after the first.
    pub max: u32,
}

/// What to do after an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try the next target.
    Next,
    /// Tell the caller.
    GiveUp,
}

impl Policy {
    /// What follows `fault` in attempt number `attempt` (from 1).
    #[must_use]
    pub fn next(self, attempt: u32, fault: &Fault) -> Step {
        if attempt > self.max || !fault.may_retry_elsewhere() { Step::GiveUp } else { Step::Next }
    }
}
