//! One account: what may be spent in a window, what was, and what is held for requests under way.
//!
//! Amounts are nano-dollars for budgets, plain counts for quotas. What is used and what is reserved never pass the
//! limit together when a reservation is made, whatever the concurrency, since both change under one lock that is held
//! for a few nanoseconds. Only a request that uses more than its own reservation can pass it, by that much.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::budget::alert::{Alert, Listener, Threshold};
use crate::budget::desk::{Claimant, Desk};
use crate::budget::lease::{Amount, Answer, Beside, Claim, LONGEST_WAIT, Lease, Need, Reason, Verdict};
use crate::budget::raises;
use crate::budget::reservation::{Cause, Exhausted, Held, Reservation};
use crate::budget::window::{Calendar, Window};
use crate::config::Every;

/// Whose an account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A tenant's.
    Tenant(Arc<str>),
    /// A key's: its tenant and its id.
    Key(Arc<str>, Arc<str>),
    /// A limit's: what several nodes share of its rate.
    Limit,
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

/// An account.
#[derive(Debug)]
pub struct Account {
    id: Arc<str>,
    owner: Owner,
    terms: Terms,
    listener: Listener,
    counter: Arc<Mutex<Counter>>,
    /// Where slices come from, when it is shared with other nodes.
    desk: Option<Arc<Desk>>,
}

/// What changes of an account; shared by all that a reload makes of it.
#[derive(Debug)]
struct Counter {
    window: Window,
    used: i64,
    reserved: i64,
    /// The alerts of this window that were given.
    told: Told,
    /// Whether what was kept of it has been added: of former runs, or of the time before a reload took it away.
    restored: bool,
    /// Boxed, since it is rare and accounts are many.
    raise: Option<Box<Raise>>,
    lease: Option<Box<Lease>>,
}

/// Which alerts a window has had: of each threshold the highest limit that it was told of.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    soft: Option<i64>,
    spent: Option<i64>,
}

impl Told {
    /// Whether it is time to tell of this threshold of `limit`, which then is told.
    fn tell(&mut self, threshold: Threshold, limit: i64) -> bool {
        let told = match threshold {
            Threshold::Soft => &mut self.soft,
            Threshold::Spent => &mut self.spent,
        };
        let is_new = told.is_none_or(|told| told < limit);
        if is_new {
            *told = Some(limit);
        }
        is_new
    }
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
    /// What other nodes have used, hold or keep in hand, when they were last seen.
    pub elsewhere: i64,
    /// What of that they have used, as far as they say.
    pub used_elsewhere: i64,
}

impl Terms {
    /// The soft limit while `limit` holds in the place of the configured one: as large a part of it.
    fn soft_of(&self, limit: i64) -> Option<i64> {
        let soft = self.soft?;
        if limit == self.limit || self.limit == 0 {
            return Some(soft);
        }
        i64::try_from(i128::from(soft) * i128::from(limit) / i128::from(self.limit)).ok()
    }
}

impl Reading {
    /// What is used, here and elsewhere.
    #[must_use]
    pub fn spent(&self) -> i64 {
        self.used.saturating_add(self.used_elsewhere)
    }

    /// Whether so much could not be reserved though nothing was held or in hand anywhere.
    #[must_use]
    pub fn is_spent(&self, worst: i64) -> bool {
        worst > self.limit.saturating_sub(self.spent())
    }

    /// What can still be reserved.
    #[must_use]
    pub fn left(&self) -> i64 {
        let claimed = self.used.saturating_add(self.reserved).saturating_add(self.elsewhere);
        self.limit.saturating_sub(claimed).max(0)
    }
}

/// What can still be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// All of it.
    pub all: i64,
    /// What of it each node could have.
    pub share: i64,
}

impl Left {
    /// Of nothing.
    pub const NONE: Self = Self { all: 0, share: 0 };
    /// Of what has no end.
    pub const UNLIMITED: Self = Self { all: i64::MAX, share: i64::MAX };
}

/// What an account is made of.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: Arc<str>,
    pub(super) owner: Owner,
    pub(super) terms: Terms,
    pub(super) listener: Listener,
    pub(super) desk: Option<Arc<Desk>>,
}

impl Account {
    /// An account that takes over what the one before it has counted.
    pub(super) fn new(made: Made, before: Option<&Self>) -> Self {
        let Made { id, owner, terms, listener, desk } = made;
        let counter = before.map_or_else(|| Arc::new(Mutex::new(Counter::default())), |it| Arc::clone(&it.counter));
        // What is unlimited needs no shares.
        let desk = desk.filter(|_| terms.limit < i64::MAX);
        Self { id, owner, terms, listener, counter, desk }
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
        counter.reading(counter.limit(&self.terms, now))
    }

    /// What can still be reserved of it, and how much of that would be this node's if all had as much.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Left {
        let all = self.reading(now).left();
        Left { all, share: all / self.desk.as_ref().map_or(1, |desk| desk.nodes()) }
    }

    /// Whether [`Terms::instead`] holds: its soft limit is reached, or nothing is left.
    #[must_use]
    pub fn is_low(&self, now: Timestamp) -> bool {
        let reading = self.reading(now);
        reading.is_spent(1) || self.terms.soft_of(reading.limit).is_some_and(|soft| reading.spent() >= soft)
    }

    /// Holds `worst` for a request. Nothing can always be held: what costs nothing needs no money. Waits for a slice
    /// where the account is shared and this node has none in hand: until the store has answered, or is held to be away.
    ///
    /// # Errors
    /// So much is not left, or the shared store does not answer and the configuration refuses then.
    pub async fn reserve(self: &Arc<Self>, worst: i64, now: Timestamp) -> Result<Reservation, Exhausted> {
        match self.hold(worst, now) {
            Ok(reservation) => Ok(reservation),
            Err(Short::No(exhausted)) => Err(exhausted),
            Err(Short::Wait(waiting)) => self.hold_in_turn(waiting, now).await,
        }
    }

    async fn hold_in_turn(self: &Arc<Self>, mut waiting: Waiting, now: Timestamp) -> Result<Reservation, Exhausted> {
        let until = tokio::time::Instant::now() + LONGEST_WAIT;
        let (worst, turn) = (waiting.worst, Arc::clone(&waiting.turn));
        loop {
            let mut called = std::pin::pin!(turn.notified());
            // From here on a call is noticed, so none is missed between the look and the wait.
            called.as_mut().enable();
            waiting = match self.hold(worst, now) {
                Ok(reservation) => return Ok(reservation),
                Err(Short::No(exhausted)) => return Err(exhausted),
                Err(Short::Wait(waiting)) => waiting,
            };
            if tokio::time::timeout_at(until, called).await.is_err() {
                drop(waiting);
                return Err(self.exhausted(Cause::NoStore, worst, now));
            }
        }
    }

    fn hold(self: &Arc<Self>, worst: i64, now: Timestamp) -> Result<Reservation, Short> {
        let worst = worst.max(0);
        let mut counter = self.counter(now);
        let verdict = if worst == 0 { Verdict::Yes } else { counter.verdict(self, worst, now) };
        let reservation =
            matches!(verdict, Verdict::Yes | Verdict::YesAndAsk).then(|| self.held(&mut counter, worst, now));
        drop(counter);
        if let (Verdict::YesAndAsk | Verdict::Wait { ask: true, .. }, Some(desk)) = (&verdict, &self.desk)
            && !desk.wish(Arc::<Self>::clone(self))
        {
            self.unanswered();
        }
        reservation.ok_or_else(|| match verdict {
            Verdict::Wait { turn, .. } => Short::Wait(Waiting { account: Arc::clone(self), worst, turn }),
            Verdict::NoStore => Short::No(self.exhausted(Cause::NoStore, worst, now)),
            Verdict::Yes | Verdict::YesAndAsk | Verdict::No => {
                Short::No(self.exhausted(self.cause(worst, now), worst, now))
            }
        })
    }

    fn held(self: &Arc<Self>, counter: &mut Counter, worst: i64, now: Timestamp) -> Reservation {
        counter.reserved = counter.reserved.saturating_add(worst);
        let held = Held { window: counter.window.start, worst, limit: counter.limit(&self.terms, now) };
        Reservation { account: Arc::clone(self), held }
    }

    /// Why so much cannot be held where the store is no matter.
    fn cause(&self, worst: i64, now: Timestamp) -> Cause {
        let counter = self.counter(now);
        let limit = counter.limit(&self.terms, now);
        let lacks_with = |elsewhere: i64| worst > limit.saturating_sub(counter.taken().saturating_add(elsewhere));
        // While the store is away nothing comes from others.
        let others = self.desk.as_ref().filter(|desk| desk.is_linked()).and(counter.lease.as_ref());
        match others {
            _ if counter.reading(limit).is_spent(worst) => Cause::Spent,
            Some(lease) if !lacks_with(lease.spent_elsewhere()) => Cause::InHandElsewhere,
            Some(_) if !lacks_with(0) => Cause::HeldElsewhere,
            _ => Cause::Held,
        }
    }

    fn exhausted(self: &Arc<Self>, cause: Cause, worst: i64, now: Timestamp) -> Exhausted {
        let reading = self.reading(now);
        let is_for_long = matches!(self.terms.span, Span::Every(..)) && !cause.is_passing();
        let resets_at = is_for_long.then(|| reading.window.ends_at()).flatten();
        let instead = self.terms.instead.clone();
        Exhausted { account: Arc::clone(self), worst, cause, resets_at, instead }
    }

    fn claim_of(&self, amount: Amount, window: Window, beside: Option<Beside>) -> Claim {
        Claim { key: format!("weir:{{{}}}:{}", self.id, window.start), window: Some(window), amount, beside }
    }

    /// Lets another limit hold in the place of the configured one, or that one again. Kept over reloads; whoever raises
    /// it keeps it over restarts.
    pub fn raise(&self, raise: &raises::Raise, now: Timestamp) {
        let lasts = !raise.ended && raise.until > now;
        self.locked().raise = lasts.then(|| Box::new(Raise { limit: raise.limit, until: raise.until }));
    }

    /// Until when another limit than the configured one holds, if it does.
    #[must_use]
    pub fn raised_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.locked().raise.as_ref().map(|raise| raise.until).filter(|until| now < *until)
    }

    /// What of this counts in the window around `now`: windows by their first second, of whatever calendar, and what
    /// was used of each.
    #[must_use]
    pub(super) fn used_of(&self, windows: &[(i64, i64)], now: Timestamp) -> i64 {
        let current = self.counter(now).window;
        let is_current = |start: i64| match &self.terms.span {
            Span::Every(every, calendar) => calendar.counts_in(*every, start, current),
            Span::Until(_) | Span::Always => start == current.start,
        };
        let used = windows.iter().filter(|(start, _)| is_current(*start)).map(|(_, used)| (*used).max(0));
        used.fold(0, i64::saturating_add)
    }

    /// Adds what was used of the window around `now` before this process began, once. The figure must hold nothing that
    /// this process has charged. Where this process takes over from another node, that one's claims in the shared store
    /// hold it already.
    pub fn restore(&self, used: i64, now: Timestamp) {
        let claimed = self.desk.as_ref().is_some_and(|desk| desk.heir_of().is_some());
        let mut counter = self.counter(now);
        if counter.restored {
            return;
        }
        let before = counter.used.saturating_add(used);
        if !claimed {
            (counter.used, counter.restored) = (before, true);
        }
        // What this node's own use had come to was told before the restart. That a request was refused, or that others'
        // use had come to it too, is not known any more, and is told again: as the same event to those who receive it.
        let limit = counter.limit(&self.terms, now);
        let told = |threshold: i64| (before >= threshold).then_some(limit);
        let Told { soft, spent } = counter.told;
        counter.told = Told { soft: self.terms.soft_of(limit).and_then(told).max(soft), spent: told(limit).max(spent) };
    }

    /// Nothing of before this moment is to be added any more: from here on the ledger holds what this account was
    /// charged.
    pub(super) fn restored(&self) {
        self.locked().restored = true;
    }

    pub(super) fn settle(self: &Arc<Self>, held: Held, used: i64) {
        let mut counter = self.locked();
        if counter.window.start != held.window {
            return;
        }
        counter.reserved = counter.reserved.saturating_sub(held.worst);
        counter.used = counter.used.saturating_add(used);
        let reading = counter.reading(held.limit);
        self.give_back(counter, held.limit);
        if used > 0 && self.terms.soft_of(held.limit).is_some_and(|soft| reading.spent() >= soft) {
            self.come_to(Threshold::Soft, reading);
        }
        if used > 0 && reading.spent() >= held.limit {
            self.come_to(Threshold::Spent, reading);
        }
    }

    /// Has what is in hand now and was held for the worst go back to all, where it is much.
    fn give_back(self: &Arc<Self>, mut counter: MutexGuard<'_, Counter>, limit: i64) {
        let Some(desk) = self.desk.as_ref().filter(|desk| desk.is_linked()) else {
            return;
        };
        let need = Need { limit, used: counter.used, taken: counter.taken(), nodes: desk.nodes(), now: Timestamp::MIN };
        let asks = counter.lease.as_mut().is_some_and(|lease| lease.asks_to_give_back(need));
        drop(counter);
        if asks && !desk.wish(Arc::<Self>::clone(self)) {
            self.unanswered();
        }
    }

    /// Tells of a threshold once a window. Only who spends money in windows has somebody who waits for that.
    pub(super) fn come_to(&self, threshold: Threshold, reading: Reading) {
        let (Span::Every(every, _), Owner::Tenant(_) | Owner::Key(..)) = (&self.terms.span, &self.owner) else {
            return;
        };
        let mut counter = self.locked();
        let tells = counter.window == reading.window && counter.told.tell(threshold, reading.limit);
        drop(counter);
        if tells {
            self.listener.tell(&self.alert(threshold, *every, reading));
        }
    }

    fn alert(&self, threshold: Threshold, every: Every, reading: Reading) -> Alert {
        let (account, owner) = (Arc::clone(&self.id), self.owner.clone());
        Alert { threshold, account, owner, every, window: reading.window, used: reading.spent(), limit: reading.limit }
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

impl Claimant for Account {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What this node has used of the window.
    fn legacy(&self, now: Timestamp) -> Option<Claim> {
        let counter = self.counter(now);
        let taken = counter.taken();
        let told = self.desk.is_some() && counter.lease.as_ref().is_some_and(|lease| lease.is_told());
        (told && taken > 0).then(|| self.claim_of(Amount::More(taken), counter.window, None))
    }

    fn claim(&self, reason: Reason, now: Timestamp) -> Option<Claim> {
        let desk = self.desk.as_ref()?;
        let mut counter = self.counter(now);
        let need = counter.need(self, desk, now);
        let lease = counter.lease.get_or_insert_default();
        let (amount, beside) = (lease.claim(reason, need)?, lease.beside(need));
        Some(self.claim_of(amount, counter.window, Some(beside)))
    }

    fn answered(&self, claim: &Claim, answer: &Answer, now: Timestamp) -> Option<Claim> {
        let desk = self.desk.as_ref()?;
        let mut counter = self.counter(now);
        if Some(counter.window) != claim.window {
            // The window is over: what was claimed of it is nothing to the next one, but somebody may wait for that.
            counter.lease.get_or_insert_default().unanswered();
            return None;
        }
        let need = counter.need(self, desk, now);
        let lease = counter.lease.get_or_insert_default();
        let (amount, beside) = (lease.answered(desk, answer, need)?, lease.beside(need));
        Some(self.claim_of(amount, counter.window, Some(beside)))
    }

    fn unanswered(&self) {
        if let Some(lease) = &mut self.locked().lease {
            lease.unanswered();
        }
    }
}

impl Default for Counter {
    /// Before the first window.
    fn default() -> Self {
        let window = Window { start: i64::MIN, end: i64::MIN };
        Self { window, used: 0, reserved: 0, told: Told::default(), restored: false, raise: None, lease: None }
    }
}

impl Counter {
    /// Begins a window. Requests under way settle in the one in which they were admitted, and are nothing to this one.
    fn open(&mut self, window: Window) {
        let lease = self.lease.as_ref().map(|lease| Box::new(lease.renewed()));
        *self = Self { window, lease, raise: self.raise.take(), restored: self.restored, ..Self::default() };
    }

    fn verdict(&mut self, account: &Account, worst: i64, now: Timestamp) -> Verdict {
        let limit = self.limit(&account.terms, now);
        if worst > limit.saturating_sub(self.taken()) {
            return Verdict::No;
        }
        let Some(desk) = &account.desk else {
            return Verdict::Yes;
        };
        let need = self.need(account, desk, now);
        self.lease.get_or_insert_default().verdict(worst, desk.mode(), need)
    }

    fn need(&self, account: &Account, desk: &Desk, now: Timestamp) -> Need {
        Need { limit: self.limit(&account.terms, now), used: self.used, taken: self.taken(), nodes: desk.nodes(), now }
    }

    /// What is used and held.
    fn taken(&self) -> i64 {
        self.used.saturating_add(self.reserved)
    }

    fn reading(&self, limit: i64) -> Reading {
        let (elsewhere, used_elsewhere) =
            self.lease.as_ref().map_or((0, 0), |lease| (lease.elsewhere(), lease.used_elsewhere()));
        Reading { window: self.window, limit, used: self.used, reserved: self.reserved, elsewhere, used_elsewhere }
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

/// Why nothing was held.
enum Short {
    /// There is nothing to wait for.
    No(Exhausted),
    /// A slice may come.
    Wait(Waiting),
}

/// Somebody who waits for a slice, and counts as one for as long as this lives.
struct Waiting {
    account: Arc<Account>,
    worst: i64,
    turn: Arc<Notify>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(lease) = &mut self.account.locked().lease {
            lease.waits_no_more(self.worst);
        }
    }
}
