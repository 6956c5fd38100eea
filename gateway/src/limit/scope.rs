//! One scope of limits (a key, a tenant, one of their models, a credential), and several that admit together or not at all.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::budget::lease::LONGEST_WAIT;
use crate::budget::{Account, Cause, Exhausted, Reservation};
use crate::config;
use crate::limit::rate::Bucket;
use crate::limit::slots::{Asker, Full, Slots};
use crate::limit::standing::{Left, Standing};
use crate::shelf::part;

/// When to come again while all slots are taken: nobody knows when one is freed.
const SLOT_RETRY: Duration = Duration::from_secs(1);

/// Limits, each its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests a minute, which may come at once.
    pub rpm: Option<u64>,
    /// Tokens a minute.
    pub tpm: Option<u64>,
    /// Requests at once.
    pub concurrent: Option<u64>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&config::Limits> for Limits {
    fn from(written: &config::Limits) -> Self {
        let count = |count: Option<config::Count>| count.map(config::Count::get);
        Self { rpm: count(written.rpm), tpm: count(written.tpm), concurrent: count(written.concurrent) }
    }
}

impl From<&config::RateLimits> for Limits {
    fn from(written: &config::RateLimits) -> Self {
        let count = |count: Option<config::Count>| count.map(config::Count::get);
        Self { rpm: count(written.rpm), tpm: count(written.tpm), concurrent: count(written.concurrent) }
    }
}

/// What a scope is of: the label of `weir_limit_rejections_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeKind {
    /// A key.
    Key,
    /// A tenant.
    Tenant,
    /// One model for a key or a tenant.
    Model,
    /// A credential.
    Credential,
}

impl ScopeKind {
    /// Its word in metrics and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tenant => "tenant",
            Self::Model => "model",
            Self::Credential => "credential",
        }
    }
}

/// A scope's stable name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScopeId {
    kind: ScopeKind,
    text: Arc<str>,
}

impl ScopeId {
    /// `key/acme/ci`
    #[must_use]
    pub fn key(tenant: &str, key: &str) -> Self {
        Self { kind: ScopeKind::Key, text: format!("key/{}/{}", part(tenant), part(key)).into() }
    }

    /// `tenant/acme`
    #[must_use]
    pub fn tenant(tenant: &str) -> Self {
        Self { kind: ScopeKind::Tenant, text: format!("tenant/{}", part(tenant)).into() }
    }

    /// `tenant/acme/model/gpt-main`
    #[must_use]
    pub fn of_model(&self, model: &str) -> Self {
        Self { kind: ScopeKind::Model, text: format!("{}/model/{model}", self.text).into() }
    }

    /// `credential/openai/oa-1`
    #[must_use]
    pub fn credential(provider: &str, credential: &str) -> Self {
        Self { kind: ScopeKind::Credential, text: format!("credential/{}/{}", part(provider), part(credential)).into() }
    }

    /// What it is of.
    #[must_use]
    pub fn kind(&self) -> ScopeKind {
        self.kind
    }

    /// The name.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }
}

/// One scope with its limits and what is used of them.
#[derive(Debug)]
pub struct Scope {
    id: ScopeId,
    limits: Limits,
    requests: Option<Arc<Bucket>>,
    tokens: Option<Arc<Bucket>>,
    slots: Option<Arc<Slots>>,
    shared: Shared,
}

/// What several gateways count together: an account a minute beside each bucket. The bucket stays, so that no gateway lets
/// through more than the limit in any minute, however the minutes of the accounts lie.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    pub(super) requests: Option<Arc<Account>>,
    pub(super) tokens: Option<Arc<Account>>,
    /// Those of a scope that had none before.
    pub(super) slots: Option<Arc<Slots>>,
}

impl Scope {
    /// A scope that takes over what the one before it has counted, under limits of its own.
    pub(super) fn new(id: ScopeId, limits: Limits, before: Option<&Self>, mut shared: Shared, now: Instant) -> Self {
        let new = shared.slots.take();
        let slots = limits.concurrent.and_then(|_| before.and_then(|before| before.slots.clone()).or(new));
        if let (Some(slots), Some(limit)) = (&slots, limits.concurrent) {
            slots.set_limit(limit);
        }
        Self {
            id,
            limits,
            requests: limits.rpm.map(|rpm| renewed(rpm, before.and_then(|before| before.requests.as_ref()), now)),
            tokens: limits.tpm.map(|tpm| renewed(tpm, before.and_then(|before| before.tokens.as_ref()), now)),
            slots,
            shared,
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &ScopeId {
        &self.id
    }

    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The share of its limits that is used, of the tightest one: 0 is idle, 1 and more is full.
    #[must_use]
    pub fn load(&self, now: Instant) -> f64 {
        let rates = [&self.requests, &self.tokens];
        let rates = rates.into_iter().flatten().map(|rate| share(rate.used(now), rate.limit()));
        let slots = self.slots.as_ref().zip(self.limits.concurrent);
        let slots = slots.map(|(slots, limit)| slots.load(limit));
        rates.chain(slots).fold(0.0, f64::max)
    }

    pub(super) fn slots(&self) -> Option<Arc<Slots>> {
        self.slots.clone()
    }

    /// When it has room for a little more, as far as that can be told.
    fn room_in(&self, now: Instant) -> Duration {
        let rates = [&self.requests, &self.tokens].into_iter().flatten().map(|rate| rate.room_in(now));
        let is_full =
            self.slots.as_ref().zip(self.limits.concurrent).is_some_and(|(slots, limit)| slots.load(limit) >= 1.0);
        rates.chain(is_full.then_some(SLOT_RETRY)).max().unwrap_or_default()
    }

    fn admit(&self, asker: Asker, now: Instant) -> Result<(), Refused> {
        if let (Some(slots), Some(limit)) = (&self.slots, self.limits.concurrent)
            && let Err(full) = slots.take(limit, asker)
        {
            return Err(full.into());
        }
        if let Some(requests) = &self.requests
            && let Err(retry_after) = requests.charge(1, now)
        {
            self.leave();
            return Err(Refused { what: What::Requests, retry_after, is_claiming: false });
        }
        Ok(())
    }

    fn leave(&self) {
        if let Some(slots) = &self.slots {
            slots.give_back();
        }
    }

    fn uncount(&self, then: Instant, now: Instant) {
        if let Some(requests) = &self.requests {
            requests.correct(1, 0, then, now);
        }
    }

    fn charge(&self, tokens: i64, now: Instant) -> Result<(), Refused> {
        let charged = self.tokens.as_ref().map_or(Ok(()), |bucket| bucket.charge(estimate(tokens, bucket), now));
        charged.map_err(|retry_after| Refused { what: What::Tokens, retry_after, is_claiming: false })
    }

    fn correct(&self, tokens: i64, actual: i64, then: Instant, now: Instant) {
        if let Some(bucket) = &self.tokens {
            bucket.correct(estimate(tokens, bucket), actual, then, now);
        }
    }

    fn standing(&self, now: Instant) -> Standing {
        let left = |bucket: &Option<Arc<Bucket>>| {
            let bucket = bucket.as_ref()?;
            Some(Left { limit: bucket.limit(), remaining: bucket.left(now), reset: bucket.empty_in(now) })
        };
        Standing { requests: left(&self.requests), tokens: left(&self.tokens) }
    }

    fn limit_of(&self, what: What) -> u64 {
        let limit = match what {
            What::Requests => self.limits.rpm,
            What::Tokens => self.limits.tpm,
            What::Slots => self.limits.concurrent,
            What::Store => None,
        };
        limit.unwrap_or_default()
    }
}

/// The bucket before, where the limit is the same; else a new one with what was used of that.
fn renewed(limit: u64, before: Option<&Arc<Bucket>>, now: Instant) -> Arc<Bucket> {
    let used = before.map_or(0, |bucket| bucket.used(now));
    let new = Bucket::new(limit, used, now);
    before.filter(|bucket| bucket.limit() == new.limit()).cloned().unwrap_or_else(|| new.into())
}

/// What is only estimated takes no more than all that there is: whoever allows an endless answer would else leave a debt to
/// everybody for as long as it runs.
fn estimate(tokens: i64, bucket: &Bucket) -> i64 {
    tokens.min(bucket.limit())
}

fn share(used: i64, limit: i64) -> f64 {
    used as f64 / limit.max(1) as f64
}

struct Refused {
    what: What,
    retry_after: Duration,
    /// Whether more slots may come at once.
    is_claiming: bool,
}

impl From<Full> for Refused {
    fn from(full: Full) -> Self {
        let what = if full == Full::NoStore { What::Store } else { What::Slots };
        Self { what, retry_after: SLOT_RETRY, is_claiming: full == Full::Claiming }
    }
}

/// At which scopes somebody has waited: they are no newcomer there, where two that wait for each other's slot would else
/// both leave it to the other.
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

/// For how long somebody waits for a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// As long as more may be claimed.
    Claim,
    /// Until one comes free.
    Slot,
}

/// Which of a scope's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
    /// Requests at once.
    Slots,
    /// None of them: the store that several gateways share is away, and the configuration refuses then.
    Store,
}

/// A scope is full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Rejection {
    /// Which scope.
    pub scope: ScopeId,
    /// Which of its limits.
    pub what: What,
    /// How much that is.
    pub limit: u64,
    /// When to come again.
    pub retry_after: Duration,
}

impl fmt::Display for Rejection {
    /// For the caller, who knows its key and its tenant's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.what {
            What::Requests => "requests a minute",
            What::Tokens => "tokens a minute",
            What::Slots => "requests at once",
            What::Store => return f.write_str("The store that holds the limits cannot be reached."),
        };
        let of = match self.scope.kind() {
            ScopeKind::Key => "this key",
            ScopeKind::Tenant => "this tenant",
            ScopeKind::Model => "this model",
            ScopeKind::Credential => "the provider's credential",
        };
        write!(f, "The limit of {of}, {} {unit}, is reached.", self.limit)
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
        Self(scopes.into_iter().filter(|scope| !scope.limits.is_empty()).collect())
    }
}

impl Scopes {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Scope>> {
        self.0.iter()
    }

    /// Counts one request, and takes a slot, in every scope. Waits a moment where what is shared with other gateways is to be
    /// claimed first.
    ///
    /// # Errors
    /// The first scope that is full; then nothing was counted.
    pub async fn admit(&self, now: Instant) -> Result<Permit, Rejection> {
        match self.try_admit(Waited::default(), now) {
            Ok(permit) => permit.shared(now).await,
            Err(stop) if !stop.is_claiming => Err(stop.rejection),
            Err(stop) => {
                let queue = Queue { patience: LONGEST_WAIT, most: usize::MAX };
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

    /// As [`Scopes::admit_in_turn`], at whichever of `all` comes first, none of them before a delay of its own: a place in the
    /// queue of each, of which those that are not needed are left. `None` where the wait was in vain at all of them.
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
            let Some(done) = queued.until(until.saturating_duration_since(Instant::now()), turn).await else {
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

/// What the first of them comes to that comes to something. The others are dropped then, wherever they are: a slot that one
/// of them was just told of is told to the next who waits.
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
        scope: scope.id.clone(),
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

/// Tokens that were charged by an estimate. Dropped without being settled the estimate stays: nothing is known of what was
/// used, callers that leave early would else use tokens for nothing, and the minute that follows forgets it anyway.
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
