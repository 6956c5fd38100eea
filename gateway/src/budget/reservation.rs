//! What is held of an account for a request, until it is settled or given back; and why nothing can be held.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::budget::account::{Account, Owner, Span};
use crate::budget::alert::Threshold;

/// What is held for a request. Dropped, all of it is given back.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    pub(super) account: Arc<Account>,
    pub(super) held: Held,
}

/// How much, in which window, under which limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) window: i64,
    pub(super) worst: i64,
    pub(super) limit: i64,
}

impl Reservation {
    /// No more than so much is needed any more; the rest is free for others.
    pub fn shrink(&mut self, to: i64) {
        let (held, to) = (self.held, to.clamp(0, self.held.worst));
        self.held.worst = to;
        self.account.settle(Held { worst: held.worst - to, ..held }, 0);
    }

    /// What it would be charged if so much was used: the account's id, the window, and the amount.
    #[must_use]
    pub fn due(&self, used: i64) -> (&str, i64, i64) {
        (self.account.id(), self.held.window, used.max(0))
    }

    /// Replaces what is held by what was used, in the window in which it was held.
    pub fn settle(self, used: i64) -> Charge {
        let (_, window, used) = self.due(used);
        let charge = Charge { account: Arc::clone(self.account.id()), window, amount: used };
        self.end(used);
        charge
    }

    fn end(mut self, used: i64) {
        let held = self.held;
        self.held.worst = 0;
        self.account.settle(held, used);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held.worst > 0 {
            self.account.settle(self.held, 0);
        }
    }
}

/// A part of what an account's window used: what the ledger adds to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The account's id.
    pub account: Arc<str>,
    /// The first second of its window.
    pub window: i64,
    /// How much.
    pub amount: i64,
}

/// Why an account is of no use; of several accounts the last of these says what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It is spent.
    Spent,
    /// It is not, but what is lacking is held for requests under way here: some of it will be there for somebody.
    Held,
    /// It is held for requests under way at other nodes, when they last told.
    HeldElsewhere,
    /// Other nodes have it in hand, and give it back in a moment.
    InHandElsewhere,
    /// The shared store is away, and the configuration says `reject`; or it did not come to an answer in time.
    NoStore,
}

impl Cause {
    /// Whether there may be more in a moment, though nobody knows when.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Held | Self::HeldElsewhere | Self::InHandElsewhere)
    }
}

/// An account has not enough left.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Exhausted {
    /// Which.
    pub account: Arc<Account>,
    /// What was to be held.
    pub worst: i64,
    /// Why it was not.
    pub cause: Cause,
    /// When there is more, if ever; nobody knows when what is held is free.
    pub resets_at: Option<Timestamp>,
    /// The model that may be cheap enough, as an account names it that has not enough left.
    pub instead: Option<Arc<str>>,
}

impl Exhausted {
    /// An attempt is refused for it: whoever waits for that hears that the account is spent.
    pub fn tell(&self, now: Timestamp) {
        if self.cause == Cause::Spent {
            self.account.come_to(Threshold::Spent, self.account.reading(now));
        }
    }
}

impl fmt::Display for Exhausted {
    /// For the caller, who knows its key and its tenant's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cause == Cause::NoStore {
            return f.write_str("The store that holds the limits cannot be reached.");
        }
        let of = match self.account.owner() {
            Owner::Tenant(_) => "this tenant",
            Owner::Key(..) => "this key",
            Owner::Limit => "this limit",
        };
        match &self.account.terms().span {
            Span::Every(every, _) => write!(f, "The budget of {of} for this {every} has not enough left")?,
            Span::Until(_) | Span::Always => write!(f, "The quota of {of} has not enough left")?,
        }
        if self.cause.is_passing() {
            write!(f, " while other requests are under way")?;
        }
        self.resets_at.map_or(Ok(()), |at| write!(f, "; it begins anew at {at}"))?;
        f.write_str(".")
    }
}
