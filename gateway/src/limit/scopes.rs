//! Several scopes that admit a request together or not at all, with what it holds of them and those who wait for a
//! slot.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::budget::{Account, Cause, Exhausted, Reservation};
use crate::limit::scope::{Refused, Rejection, SLOT_RETRY, Scope, Shared, What};
use crate::limit::slots::{Asker, Wait};
use crate::limit::standing::Standing;

/// How long an admission waits for slots to be claimed. The link answers, or cuts off, before.
const CLAIMED_WITHIN: Duration = Duration::from_millis(100);

/// Scopes that admit a request together or not at all.
#[derive(Clone, Debug)]
pub struct Scopes(Arc<[Arc<Scope>]>);

impl Default for Scopes {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl FromIterator<Arc<Scope>> for Scopes {
    /// Scopes without limits are left out: they have nothing to say.
    fn from_iter<I: IntoIterator<Item = Arc<Scope>>>(scopes: I) -> Self {
        Self(scopes.into_iter().filter(|scope| !scope.limits().is_empty()).collect())
    }
}

impl Scopes {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Scope>> {
        self.0.iter()
    }

    /// Counts one request, and takes a slot, in every scope. Waits a moment where what is shared with other gateways is
    /// to be claimed first.
    ///
    /// # Errors
    /// The first scope that is full; then nothing was counted.
    pub async fn admit(&self, now: Instant) -> Result<Permit, Rejection> {
        match self.try_admit(Waited::default(), now) {
            Ok(permit) => permit.shared(now).await,
            Err(stop) if !stop.is_claiming => Err(stop.rejection),
            Err(stop) => {
                let queue = Queue { patience: CLAIMED_WITHIN, most: usize::MAX };
                Box::pin(self.wait_in_turn(queue, Wait::Claim, stop)).await?.shared(Instant::now()).await
            }
        }
    }

    /// As [`Scopes::admit`], but waits in a fair queue while slots are what is missing.
    ///
    /// # Errors
    /// As [`Scopes::admit`], when the wait was in vain or its queue was full. Dropped while it waits, it leaves the queue.
    pub async fn admit_in_turn(&self, queue: Queue) -> Result<Permit, Rejection> {
        self.turn(queue).await?.shared(Instant::now()).await
    }

    /// As [`Scopes::admit_in_turn`], at whichever of `all` comes first, none of them before a delay of its own: a place
    /// in the queue of each, of which those that are not needed are left. `None` where the wait was in vain at all of
    /// them.
    pub async fn admit_at_first<'a>(all: &[(&'a Self, Duration)], queue: Queue) -> Option<(&'a Self, Permit)> {
        let turns = all.iter().filter_map(|(scopes, delay)| {
            let queue = queue.after(*delay)?;
            let turn = async move {
                tokio::time::sleep(*delay).await;
                Some((*scopes, scopes.turn(queue).await.ok()?))
            };
            Some(Box::pin(turn) as Pin<Box<dyn Future<Output = Option<(&'a Self, Permit)>> + Send>>)
        });
        let (scopes, permit) = first_of(turns.collect()).await?;
        Some((scopes, permit.shared(Instant::now()).await.ok()?))
    }

    /// A turn here, which is not yet counted in what is shared with other gateways.
    async fn turn(&self, queue: Queue) -> Result<Permit, Rejection> {
        match self.try_admit(Waited::default(), Instant::now()) {
            Ok(permit) => Ok(permit),
            Err(stop) => self.wait_in_turn(queue, Wait::Slot, stop).await,
        }
    }

    async fn wait_in_turn(&self, queue: Queue, wait: Wait, mut stop: Stop) -> Result<Permit, Rejection> {
        let until = Instant::now() + queue.patience;
        let mut waited = Waited::default();
        loop {
            let Stop { place, rejection, .. } = stop;
            waited.add(place);
            let slots = self.0.get(place).filter(|_| rejection.what == What::Slots);
            let slots = slots.and_then(|scope| scope.slots.as_deref());
            let Some(queued) = slots.and_then(|slots| slots.queue(queue.most)) else {
                return Err(rejection);
            };
            let turn = || match self.try_admit(waited, Instant::now()) {
                Err(again) if again.is_at(place) && (wait == Wait::Slot || again.is_claiming) => None,
                done => Some(done),
            };
            let Some(done) = queued.until(wait, until.saturating_duration_since(Instant::now()), turn).await else {
                return Err(rejection);
            };
            stop = match done {
                Ok(permit) => return Ok(permit),
                Err(stop) => stop,
            };
            queued.pass_on();
            if (wait == Wait::Claim && !stop.is_claiming) || Instant::now() >= until {
                return Err(stop.rejection);
            }
        }
    }

    /// Admits whoever has `waited` at some. An error says where it came to a stop.
    fn try_admit(&self, waited: Waited, now: Instant) -> Result<Permit, Stop> {
        for (place, scope) in self.0.iter().enumerate() {
            let asker = if waited.was_at(place) { Asker::Waiting } else { Asker::New };
            if let Err(refused) = scope.admit(asker, now) {
                for taken in self.0.iter().take(place) {
                    taken.leave();
                    taken.uncount(now, now);
                }
                return Err(Stop { place, rejection: rejection(scope, &refused), is_claiming: refused.is_claiming });
            }
        }
        Ok(Permit { scopes: self.clone(), at: now, shared: Vec::new() })
    }

    fn shared<'s>(
        &'s self,
        which: impl Fn(&Shared) -> &Option<Arc<Account>> + 's,
    ) -> impl Iterator<Item = (&'s Scope, &'s Arc<Account>)> {
        self.0.iter().filter_map(move |scope| Some((scope.as_ref(), which(&scope.shared).as_ref()?)))
    }

    /// Charges an estimate of tokens to every scope, to be settled with what they were.
    ///
    /// # Errors
    /// The first scope that is full; then nothing was charged.
    pub async fn charge(&self, tokens: i64, now: Instant) -> Result<Charge, Rejection> {
        let mut charge = self.try_charge(tokens, now)?;
        for (scope, account) in self.shared(|shared| &shared.tokens) {
            match account.reserve(charge.tokens.min(account.terms().limit), Timestamp::now()).await {
                Ok(reservation) => charge.shared.push(reservation),
                Err(exhausted) => {
                    charge.settle(0, now);
                    return Err(spent(scope, What::Tokens, &exhausted));
                }
            }
        }
        Ok(charge)
    }

    fn try_charge(&self, tokens: i64, now: Instant) -> Result<Charge, Rejection> {
        let tokens = tokens.max(0);
        for (place, scope) in self.0.iter().enumerate() {
            if let Err(refused) = scope.charge(tokens, now) {
                self.0.iter().take(place).for_each(|taken| taken.correct(tokens, 0, now, now));
                return Err(rejection(scope, &refused));
            }
        }
        Ok(Charge { scopes: self.clone(), tokens, at: now, shared: Vec::new() })
    }

    /// These and those of `more` that are not among them.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        let is_new = |scope: &&Arc<Scope>| !self.iter().any(|known| Arc::ptr_eq(known, scope));
        self.iter().chain(more.iter().filter(is_new)).cloned().collect()
    }

    /// What is left of the tightest of the scopes.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        self.0.iter().fold(Standing::default(), |standing, scope| standing.tighter(scope.standing(now)))
    }

    /// The load of the fullest of the scopes, as [`Scope::load`] tells it.
    #[must_use]
    pub fn load(&self, now: Instant) -> f64 {
        self.0.iter().map(|scope| scope.load(now)).fold(0.0, f64::max)
    }

    /// When all of them have room for a little more.
    #[must_use]
    pub fn room_in(&self, now: Instant) -> Duration {
        self.0.iter().map(|scope| scope.room_in(now)).max().unwrap_or_default()
    }

    /// Whether these are the same, and not only alike.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A request that was admitted. Its slots are given back when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    scopes: Scopes,
    at: Instant,
    shared: Vec<Reservation>,
}

impl Permit {
    /// Leaves as if the request had never come: it counts in no rate.
    pub fn withdraw(mut self, now: Instant) {
        self.shared.clear();
        self.scopes.0.iter().for_each(|scope| scope.uncount(self.at, now));
    }

    /// Counts the request in what is shared with other gateways too.
    async fn shared(mut self, now: Instant) -> Result<Self, Rejection> {
        let scopes = self.scopes.clone();
        for (scope, account) in scopes.shared(|shared| &shared.requests) {
            match account.reserve(1, Timestamp::now()).await {
                Ok(reservation) => self.shared.push(reservation),
                Err(exhausted) => {
                    self.withdraw(now);
                    return Err(spent(scope, What::Requests, &exhausted));
                }
            }
        }
        Ok(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.drain(..).for_each(|reservation| drop(reservation.settle(1)));
        self.scopes.0.iter().for_each(|scope| scope.leave());
    }
}

/// Tokens that were charged by an estimate. Dropped without being settled the estimate stays: nothing is known of what
/// was used, callers that leave early would else use tokens for nothing, and the minute that follows forgets it anyway.
#[derive(Debug)]
#[must_use]
pub struct Charge {
    scopes: Scopes,
    tokens: i64,
    at: Instant,
    shared: Vec<Reservation>,
}

impl Charge {
    /// Replaces the estimate with what was used.
    pub fn settle(mut self, actual: i64, now: Instant) {
        let actual = actual.max(0);
        self.shared.drain(..).for_each(|reservation| drop(reservation.settle(actual)));
        self.scopes.0.iter().for_each(|scope| scope.correct(self.tokens, actual, self.at, now));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shared.drain(..).for_each(|reservation| drop(reservation.settle(self.tokens)));
    }
}

/// A wait for a slot: how long, and with how many others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The longest wait.
    pub patience: Duration,
    /// How many may wait in one scope.
    pub most: usize,
}

impl Queue {
    /// What is left of the patience after so long; `None` when it is over.
    #[must_use]
    pub fn after(self, waited: Duration) -> Option<Self> {
        let patience = self.patience.checked_sub(waited).filter(|left| !left.is_zero())?;
        Some(Self { patience, ..self })
    }
}

/// At which scopes somebody has waited: they are no newcomer there, where two that wait for each other's slot would
/// else both leave it to the other.
#[derive(Clone, Copy, Default)]
struct Waited(u32);

impl Waited {
    fn add(&mut self, place: usize) {
        self.0 |= Self::bit(place);
    }

    fn was_at(self, place: usize) -> bool {
        self.0 & Self::bit(place) != 0
    }

    fn bit(place: usize) -> u32 {
        u32::try_from(place).ok().and_then(|place| 1_u32.checked_shl(place)).unwrap_or_default()
    }
}

/// Where an admission came to a stop.
struct Stop {
    place: usize,
    rejection: Rejection,
    is_claiming: bool,
}

impl Stop {
    /// Whether a slot is all that is missing, of the scope at that place.
    fn is_at(&self, place: usize) -> bool {
        self.place == place && self.rejection.what == What::Slots
    }
}

/// What the first of them comes to that comes to something. The others are dropped then, wherever they are: a slot that
/// one of them was just told of is told to the next who waits.
async fn first_of<T>(mut all: Vec<Pin<Box<dyn Future<Output = Option<T>> + Send + '_>>>) -> Option<T> {
    poll_fn(|context| {
        let mut first = None;
        all.retain_mut(|one| first.is_some() || one.as_mut().poll(context).map(|done| first = done).is_pending());
        if first.is_none() && !all.is_empty() { Poll::Pending } else { Poll::Ready(first) }
    })
    .await
}

fn rejection(scope: &Scope, refused: &Refused) -> Rejection {
    Rejection {
        scope: scope.id().clone(),
        what: refused.what,
        limit: scope.limit_of(refused.what),
        retry_after: refused.retry_after,
    }
}

fn spent(scope: &Scope, what: What, exhausted: &Exhausted) -> Rejection {
    let what = if exhausted.cause == Cause::NoStore { What::Store } else { what };
    let wait = exhausted.resets_at.map(|at| at.duration_since(Timestamp::now()));
    let retry_after = wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or(SLOT_RETRY);
    rejection(scope, &Refused { what, retry_after, is_claiming: false })
}
