//! One account: what may be spent in a window, what was, and what is held for requests under way.
//!
//! Amounts are nano-dollars for budgets, plain counts for quotas. What is used and what is reserved never pass the limit
//! together when a reservation is made, whatever the concurrency, since both change under one lock that is held for a few
//! nanoseconds. Only a request that uses more than its own reservation can pass it, by that much.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::budget::window::{Calendar, Window};
use crate::config::Every;

/// Whose an account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A tenant's.
    Tenant(Arc<str>),
    /// A key's: its tenant and its id.
    Key(Arc<str>, Arc<str>),
}

/// The windows of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// One after the other.
    Every(Every, Arc<Calendar>),
    /// One that begins never anew, and after which nothing is left.
    Until(Timestamp),
    /// One without an end.
    Always,
}

/// What an account allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The most that may be used in a window; [`i64::MAX`] is as good as unlimited.
    pub limit: i64,
    /// From how much on a warning is given, and `instead` holds.
    pub soft: Option<i64>,
    /// The model that answers when the account is at `soft` or spent.
    pub instead: Option<Arc<str>>,
    /// Its windows.
    pub span: Span,
}

/// An account came to its soft limit: told once a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Which.
    pub account: Arc<str>,
    /// Whose.
    pub owner: Owner,
    /// What was used.
    pub used: i64,
    /// What may be.
    pub limit: i64,
}

/// Who is told of alerts.
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(&Alert) + Send + Sync>);

impl Listener {
    /// Calls `told` for each alert, on a request's path: it must not wait.
    pub fn new(told: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// An account.
#[derive(Debug)]
pub struct Account {
    id: Arc<str>,
    owner: Owner,
    terms: Terms,
    listener: Listener,
    counter: Arc<Mutex<Counter>>,
}

/// What changes of an account; shared by all that a reload makes of it.
#[derive(Debug)]
struct Counter {
    window: Window,
    used: i64,
    reserved: i64,
    /// Whether the alert of this window was given.
    told: bool,
    /// Whether what was kept of former runs has been added, or is no longer to be, since this run has begun to count.
    restored: bool,
    /// Boxed, since it is rare and accounts are many.
    raise: Option<Box<Raise>>,
}

/// A limit in the place of the configured one.
#[derive(Clone, Copy, Debug)]
struct Raise {
    limit: i64,
    until: Timestamp,
}

/// An account at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its window.
    pub window: Window,
    /// What may be used in it.
    pub limit: i64,
    /// What was used.
    pub used: i64,
    /// What is held for requests under way.
    pub reserved: i64,
}

impl Reading {
    /// What can still be reserved.
    #[must_use]
    pub fn left(&self) -> i64 {
        self.limit.saturating_sub(self.used.saturating_add(self.reserved)).max(0)
    }
}

impl Account {
    /// An account that takes over what the one before it has counted.
    pub(super) fn new(id: Arc<str>, owner: Owner, terms: Terms, listener: Listener, before: Option<&Self>) -> Self {
        let counter = before.map_or_else(|| Arc::new(Mutex::new(Counter::default())), |it| Arc::clone(&it.counter));
        Self { id, owner, terms, listener, counter }
    }

    /// Its stable name.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What it allows.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How it stands.
    #[must_use]
    pub fn reading(&self, now: Timestamp) -> Reading {
        let counter = self.counter(now);
        let limit = counter.limit(&self.terms, now);
        Reading { window: counter.window, limit, used: counter.used, reserved: counter.reserved }
    }

    /// Whether [`Terms::instead`] holds: its soft limit is reached, or nothing is left.
    #[must_use]
    pub fn is_low(&self, now: Timestamp) -> bool {
        let reading = self.reading(now);
        reading.left() == 0 || self.terms.soft.is_some_and(|soft| reading.used >= soft)
    }

    /// Holds `worst` for a request. Nothing can always be held: what costs nothing needs no money.
    ///
    /// # Errors
    /// So much is not left.
    pub fn reserve(self: &Arc<Self>, worst: i64, now: Timestamp) -> Result<Reservation, Exhausted> {
        let worst = worst.max(0);
        let mut counter = self.counter(now);
        let limit = counter.limit(&self.terms, now);
        let taken = counter.used.saturating_add(counter.reserved);
        if worst > 0 && worst > limit.saturating_sub(taken) {
            let left = limit.saturating_sub(taken).max(0);
            let resets_at = matches!(self.terms.span, Span::Every(..)).then(|| counter.window.ends_at()).flatten();
            drop(counter);
            return Err(Exhausted { account: Arc::clone(self), left, resets_at });
        }
        counter.reserved = counter.reserved.saturating_add(worst);
        counter.restored = true;
        Ok(Reservation { account: Arc::clone(self), window: counter.window.start, worst })
    }

    /// Lets `limit` hold in the place of the configured one until `until`. Kept over reloads, not over restarts.
    pub fn raise(&self, limit: i64, until: Timestamp) {
        self.locked().raise = Some(Box::new(Raise { limit, until }));
    }

    /// Adds what was used of `window` before this process began. It does nothing once something was reserved: the ledger from
    /// which the figure comes may hold that already.
    pub fn restore(&self, window: i64, used: i64, now: Timestamp) {
        let mut counter = self.counter(now);
        if counter.window.start != window || std::mem::replace(&mut counter.restored, true) {
            return;
        }
        counter.used = counter.used.saturating_add(used.max(0));
        // Who was told before the restart is not told again.
        counter.told = self.terms.soft.is_some_and(|soft| counter.used >= soft);
    }

    fn settle(&self, window: i64, worst: i64, used: i64) {
        let mut counter = self.locked();
        if counter.window.start != window {
            return;
        }
        counter.reserved = counter.reserved.saturating_sub(worst);
        counter.used = counter.used.saturating_add(used);
        let alert = self.terms.soft.is_some_and(|soft| counter.used >= soft) && !counter.told;
        counter.told |= alert;
        let used = counter.used;
        drop(counter);
        if alert {
            let (account, owner) = (Arc::clone(&self.id), self.owner.clone());
            (self.listener.0)(&Alert { account, owner, used, limit: self.terms.limit });
        }
    }

    /// The counter, in the window around `now`.
    fn counter(&self, now: Timestamp) -> MutexGuard<'_, Counter> {
        let mut counter = self.locked();
        if !counter.window.lasts(now) {
            counter.open(self.terms.span.window(now));
        }
        counter
    }

    fn locked(&self) -> MutexGuard<'_, Counter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Counter {
    /// Before the first window.
    fn default() -> Self {
        let window = Window { start: i64::MIN, end: i64::MIN };
        Self { window, used: 0, reserved: 0, told: false, restored: false, raise: None }
    }
}

impl Counter {
    /// Begins a window. Requests under way settle in the one in which they were admitted, and are nothing to this one.
    fn open(&mut self, window: Window) {
        *self = Self { window, raise: self.raise.take(), restored: self.restored, ..Self::default() };
    }

    fn limit(&self, terms: &Terms, now: Timestamp) -> i64 {
        let over = matches!(terms.span, Span::Until(end) if end <= now);
        let raised = self.raise.as_ref().filter(|raise| now < raise.until);
        if over { 0 } else { raised.map_or(terms.limit, |raise| raise.limit) }
    }
}

impl Span {
    fn window(&self, now: Timestamp) -> Window {
        match self {
            Self::Every(every, calendar) => calendar.window(*every, now),
            Self::Until(_) | Self::Always => Window::ALWAYS,
        }
    }
}

/// An account has not enough left.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Exhausted {
    /// Which.
    pub account: Arc<Account>,
    /// What it has.
    pub left: i64,
    /// When there is more, if ever.
    pub resets_at: Option<Timestamp>,
}

impl fmt::Display for Exhausted {
    /// For the caller, who knows its key and its tenant's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.account.owner {
            Owner::Tenant(_) => "this tenant",
            Owner::Key(..) => "this key",
        };
        match &self.account.terms.span {
            Span::Every(every, _) => write!(f, "The budget of {of} for this {every} has not enough left")?,
            Span::Until(_) | Span::Always => write!(f, "The quota of {of} has not enough left")?,
        }
        self.resets_at.map_or(Ok(()), |at| write!(f, "; it begins anew at {at}"))?;
        f.write_str(".")
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

/// What is held for a request. Dropped, all of it is given back.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    account: Arc<Account>,
    window: i64,
    worst: i64,
}

impl Reservation {
    /// Replaces what is held by what was used, in the window in which it was held.
    pub fn settle(self, used: i64) -> Charge {
        let used = used.max(0);
        let charge = Charge { account: Arc::clone(self.account.id()), window: self.window, amount: used };
        self.end(used);
        charge
    }

    fn end(mut self, used: i64) {
        let worst = std::mem::take(&mut self.worst);
        self.account.settle(self.window, worst, used);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.worst > 0 {
            self.account.settle(self.window, self.worst, 0);
        }
    }
}
