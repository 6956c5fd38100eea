//! One attempt's hold on a target: it counts as in flight, and tells what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Moment;
use super::health::{Failure, Rules};
use super::registry::{Claims, Part, Standing};
use crate::error::Cause;

/// A target that one attempt has taken; given back when this is dropped, with or without a word of how it went.
#[derive(Debug)]
#[must_use]
pub struct Held {
    standing: Arc<Standing>,
    rules: Arc<Rules>,
    claims: Claims,
    begun: Moment,
    answered: AtomicBool,
}

/// What became of an attempt, as far as it concerns its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered to the end.
    Success,
    /// The target failed.
    Failure(Failure),
    /// It says nothing of the target: the request was wrong, or its caller left or would not wait.
    Nothing,
}

/// A cooldown that began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooled {
    /// Why.
    pub cause: Cause,
    /// For how long.
    pub length: Duration,
}

impl Held {
    /// A hold on `standing`; `None` where no attempt may go there now.
    pub(super) fn take(standing: &Arc<Standing>, rules: &Arc<Rules>, now: Moment) -> Option<Self> {
        let claims = standing.claim(now)?;
        Some(Self::begin(standing, rules, claims, now))
    }

    /// A hold on `standing`, however it stands: it is one of many there, and no probe.
    pub(super) fn force(standing: &Arc<Standing>, rules: &Arc<Rules>, now: Moment) -> Self {
        Self::begin(standing, rules, Claims::SHARED, now)
    }

    fn begin(standing: &Arc<Standing>, rules: &Arc<Rules>, claims: Claims, now: Moment) -> Self {
        standing.load.begin();
        Self {
            standing: Arc::clone(standing),
            rules: Arc::clone(rules),
            claims,
            begun: now,
            answered: AtomicBool::new(false),
        }
    }

    /// How the target stands.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The first content has come, or the whole answer: what the latency is measured by, and the end of a probation.
    pub fn answers(&self, now: Moment) {
        if self.answered.swap(true, Ordering::Relaxed) {
            return;
        }
        self.standing.load.measure(now.since(self.begun), now);
        self.standing.parts().iter().for_each(|part| part.answered(self.begun, now));
    }

    /// Tells how it went; to be called once, at the attempt's end. Gives the cooldown that begins with that.
    pub fn record(&self, outcome: Outcome, now: Moment) -> Option<Cooled> {
        match outcome {
            Outcome::Success => {
                self.answers(now);
                self.standing.credential().health.succeeded(self.begun, now);
                self.standing.health.succeeded(self.begun, now);
                None
            }
            Outcome::Failure(failure) => {
                let length = self.concerned(failure.cause).failed(failure, self.begun, now, &self.rules)?;
                Some(Cooled { cause: failure.cause, length })
            }
            Outcome::Nothing => None,
        }
    }

    /// A refused or spent credential and a provider that cannot be reached are so for all models; a limit and a failure
    /// are one model's.
    fn concerned(&self, cause: Cause) -> Part<'_> {
        let [credential, own] = self.standing.parts();
        match cause {
            Cause::Auth | Cause::Credit | Cause::Connection => credential,
            Cause::RateLimit | Cause::Server => own,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.standing.load.end();
        self.standing.give_up(self.claims);
    }
}
