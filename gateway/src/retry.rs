//! Whether a failed attempt is tried again. Pure: it knows no socket and no clock.

use adapters::Class;

use crate::config::Fallbacks;
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

/// The models that take over after `fault`: those named for a prompt that is too long or for content that was refused, or
/// those for every failure that another model may mend.
#[must_use]
pub fn takes_over<'f>(fallbacks: &'f Fallbacks, fault: &Fault) -> &'f [String] {
    match fault.refused {
        Some((_, Class::ContextLength)) => &fallbacks.context_window,
        Some((_, Class::ContentPolicy)) => &fallbacks.content_policy,
        _ if fault.may_retry_elsewhere() => &fallbacks.any,
        _ => &[],
    }
}

impl Policy {
    /// What follows `fault` in attempt number `attempt` (from 1).
    #[must_use]
    pub fn next(self, attempt: u32, fault: &Fault) -> Step {
        if attempt > self.max || !fault.may_retry_elsewhere() { Step::GiveUp } else { Step::Next }
    }
}
