//! What one request takes and pays: its place under limits, what it may cost at most, and its row in the ledger. Part of
//! the request's record, so whatever ends the request gives back what is held and writes what was used.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use adapters::{Operation, Request, ServiceTier, Usage};
use jiff::Timestamp;

use crate::access::Key;
use crate::budget::{self, QuotaReservation, Reservations};
use crate::config::{CredentialSource, Unpriced};
use crate::error::Fault;
use crate::hedge::Which;
use crate::ledger::{Accuracy, Charge};
use crate::limit::{self, Admission, Queue, Scopes, Standing};
use crate::model::{Model, ModelInstance, Picked};
use crate::price::{Nanos, Price, most_tokens};

/// What a model may answer with at most when neither the caller nor the catalog says: it is only reserved, not asked for.
const OUTPUT_TOKENS: u64 = 16_384;

/// A budget that pays for fewer tokens than this is spent: an answer cut so short helps nobody.
const LEAST_OUTPUT: u64 = 16;

/// The limits of a model that were [waited for](Bill::queue_of), if any were, and what came of it.
pub type ModelTurn = Option<(Scopes, Result<limit::Permit, limit::Rejection>)>;

/// A request's bill.
#[derive(Debug, Default)]
pub struct Bill {
    admission: Option<Admission>,
    /// For the attempt under way.
    hold: Hold,
    /// For the one beside it.
    beside: Hold,
    /// A credential's slot that was waited for.
    queued: Option<(Scopes, limit::Permit)>,
    /// Of attempts that did not answer and may have to be paid for: as many as were begun at most.
    given_up: Vec<GivenUp>,
    /// The tokens of those since the last time that a model was asked for.
    given_up_tokens: u64,
    input_tokens: u64,
    /// The most that they can be.
    input_bound: Option<u64>,
    request_bytes: usize,
}

/// What is held for one attempt. Dropped, all of it is given back.
#[derive(Debug, Default)]
struct Hold {
    reservations: Option<Reservations>,
    quota: Option<QuotaReservation>,
    credential: Option<(limit::Permit, limit::Charge)>,
}

/// What an attempt that did not answer is charged when the request has ended.
#[derive(Debug)]
struct GivenUp {
    reservations: Option<(Reservations, Nanos)>,
    quota: Option<(QuotaReservation, i64)>,
}

/// What an attempt used, and what that costs at its own price, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// What it used.
    pub usage: Usage,
    /// How far that is to be relied on.
    pub accuracy: Accuracy,
    /// What it costs.
    pub cost: Option<Nanos>,
}

impl Spent {
    /// This and another one together, as far as to be relied on as the less reliable of the two; costs that are not known are
    /// left out.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let cost = match (self.cost, other.cost) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self { usage: self.usage.and(&other.usage), accuracy: self.accuracy.max(other.accuracy), cost }
    }
}

impl Hold {
    /// The attempt is over: its slot is free, and no more stays held than what it is to be charged.
    fn given_up(mut self, spent: &Spent) -> GivenUp {
        let tokens = amount(spent.usage.total_tokens());
        self.leave_credential(tokens);
        let reservations = self.reservations.take().zip(spent.cost).map(|(mut held, cost)| {
            held.shrink(cost);
            (held, cost)
        });
        GivenUp { reservations, quota: self.quota.take().map(|held| (held, tokens)) }
    }

    /// The credential is free for others, and has been used so much.
    fn leave_credential(&mut self, tokens: i64) {
        if let Some((_permit, charge)) = self.credential.take() {
            charge.settle(tokens, Instant::now());
        }
    }
}

impl Drop for Hold {
    /// What was not charged cost nothing, the credential's tokens too: an estimate that stayed there would be everybody's.
    fn drop(&mut self) {
        self.leave_credential(0);
    }
}

impl GivenUp {
    fn settle(self, priced: bool) -> impl Iterator<Item = budget::Charge> {
        let money = self.reservations.filter(|_| priced).map(|(held, cost)| held.settle(cost));
        let quota = self.quota.and_then(|(held, tokens)| held.settle(tokens));
        money.into_iter().flatten().chain(quota)
    }
}

/// What a request is cut to, so that it can be paid.
pub struct Payable<'r> {
    /// The request, with a lower limit of its answer where the budget needs that.
    pub request: Cow<'r, Request>,
    /// That limit.
    pub limited_to: Option<u64>,
}

impl<'r> Payable<'r> {
    fn whole(request: &'r Request) -> Self {
        Self { request: Cow::Borrowed(request), limited_to: None }
    }
}

/// The worst that a request can be.
struct Worst {
    /// All of it but the output.
    usage: Usage,
    /// How it may be served.
    tiers: &'static [ServiceTier],
}

impl Worst {
    /// What it costs with so many tokens of an answer; `None` where that cannot be known.
    fn cost(&self, price: &Price, output_tokens: u64) -> Option<Nanos> {
        price.bound(&Usage { output_tokens, ..self.usage }, self.tiers)
    }

    /// How many tokens each answer may have for what is left; `None` where that is too few, or the answer's length changes
    /// nothing.
    fn cut(&self, price: &Price, left: Nanos, request: &Request) -> Option<u64> {
        match request.operation() {
            Operation::Embeddings => None,
            Operation::Chat | Operation::Completions => {
                let all = price.affordable_output(left, &self.usage, self.tiers)?;
                Some(all / request.choices()).filter(|each| *each >= LEAST_OUTPUT)
            }
        }
    }
}

impl Bill {
    /// Counts the request under the limits of its key and tenant.
    ///
    /// # Errors
    /// One of them is reached.
    pub async fn admit(&mut self, key: &Key) -> Result<(), Fault> {
        self.admission = Some(key.limited.admit(Instant::now()).await.map_err(Fault::limited)?);
        Ok(())
    }

    /// The limits that are to be waited for before the model is asked, and how long. What was asked before it is left.
    pub fn queue_of(&mut self, instance: &ModelInstance<'_>) -> Option<(Scopes, Queue)> {
        let admission = self.admission.as_mut()?;
        admission.settle(amount(std::mem::take(&mut self.given_up_tokens)), Instant::now());
        Some((admission.limits_of(instance.limited_as())?, instance.model().queue?))
    }

    /// Counts the request and its tokens, as far as they can be told, under the limits that hold for the model, where it has
    /// had its `turn` at those that are waited for.
    ///
    /// # Errors
    /// One of them is reached; then another model may be asked for, else the request counts nowhere.
    pub async fn for_model(
        &mut self,
        instance: &ModelInstance<'_>,
        request: &Request,
        turn: ModelTurn,
    ) -> Result<(), Fault> {
        self.request_bytes = request.body().len();
        self.input_bound = None;
        self.input_tokens = u64::try_from(instance.model().ratio.estimate(self.request_bytes)).unwrap_or_default();
        let Some(admission) = &mut self.admission else {
            return Ok(());
        };
        let now = Instant::now();
        let admitted = match turn {
            Some((scopes, permit)) => admission.admitted(scopes, permit, now),
            None => admission.for_model(instance.limited_as(), now).await,
        };
        admitted.map_err(Fault::limited)?;
        let tokens = self.input_tokens.saturating_add(request.output_limit().unwrap_or_default());
        admission.charge(amount(tokens), now).await.map_err(Fault::limited)
    }

    /// Takes for an attempt what its credential allows and its caller can pay.
    ///
    /// # Errors
    /// One or the other has not enough left.
    pub async fn afford<'r>(
        &mut self,
        key: &Key,
        picked: &Picked<'_>,
        request: &'r Request,
    ) -> Result<Payable<'r>, Fault> {
        self.hold = Hold::default();
        self.take(picked, request).await?;
        self.reserve(key, picked, request).await
    }

    /// As [`Bill::afford`], for a second attempt beside the one under way.
    ///
    /// # Errors
    /// As there; the first attempt keeps what it has.
    pub async fn afford_beside<'r>(
        &mut self,
        key: &Key,
        picked: &Picked<'_>,
        request: &'r Request,
    ) -> Result<Payable<'r>, Fault> {
        let first = std::mem::take(&mut self.hold);
        let payable = self.afford(key, picked, request).await;
        let second = std::mem::replace(&mut self.hold, first);
        self.beside = if payable.is_ok() { second } else { Hold::default() };
        payable
    }

    /// Of two attempts this one has lost, having used so much, if anything.
    pub fn lose(&mut self, which: Which, spent: Option<&Spent>) {
        if which == Which::First {
            std::mem::swap(&mut self.hold, &mut self.beside);
        }
        let lost = std::mem::take(&mut self.beside);
        self.give_up(lost, spent);
    }

    fn give_up(&mut self, hold: Hold, spent: Option<&Spent>) {
        if let Some(spent) = spent {
            self.given_up_tokens = self.given_up_tokens.saturating_add(spent.usage.total_tokens());
            self.given_up.push(hold.given_up(spent));
        }
    }

    /// Counts an attempt under the limits of its credential.
    ///
    /// # Errors
    /// One of them is reached, by another request since the credential was picked.
    async fn take(&mut self, picked: &Picked<'_>, request: &Request) -> Result<(), Fault> {
        let scopes = &picked.target.credential.scopes;
        if scopes.is_empty() {
            return Ok(());
        }
        let limited = |rejection: limit::Rejection| Fault::unavailable(rejection.retry_after, true);
        let now = Instant::now();
        let tokens = self.input_tokens.saturating_add(request.output_limit().unwrap_or_default());
        let queued = self.queued.take().filter(|(waited_for, _)| waited_for.is_same(scopes));
        let permit = match queued {
            Some((_, permit)) => permit,
            None => scopes.admit(now).await.map_err(limited)?,
        };
        match scopes.charge(amount(tokens), now).await {
            Ok(charge) => self.hold.credential = Some((permit, charge)),
            Err(rejection) => {
                permit.withdraw(now);
                return Err(limited(rejection));
            }
        }
        Ok(())
    }

    /// Holds the most that an attempt at this target can cost, at its price, and cuts the answer to what can be paid.
    ///
    /// # Errors
    /// A budget or a quota has not enough left, or nobody knows what a request would cost that is to be known.
    async fn reserve<'r>(
        &mut self,
        key: &Key,
        picked: &Picked<'_>,
        request: &'r Request,
    ) -> Result<Payable<'r>, Fault> {
        let wanted = self.output_bound(picked, request);
        self.reserve_quota(key, picked, wanted)?;
        if key.accounts.is_empty() {
            return Ok(Payable::whole(request));
        }
        let (input_tokens, web_searches) = (self.input_bound(request), request.web_searches());
        let usage = Usage { input_tokens, web_searches, in_us: request.may_be_in_us(), ..Usage::default() };
        let worst = Worst { usage, tiers: request.service_tiers() };
        let price = picked.price(SystemTime::now());
        let Some((price, whole)) = price.and_then(|price| Some((price, worst.cost(price, wanted)?))) else {
            return unpriced(key, request);
        };
        let now = Timestamp::now();
        let left = key.accounts.left(now).unwrap_or(Nanos::MAX);
        let cut = if whole <= left { None } else { worst.cut(price, left, request) };
        let held = cut.and_then(|each| worst.cost(price, each.saturating_mul(request.choices()))).unwrap_or(whole);
        self.hold.reservations = Some(key.accounts.reserve(held, now).await.map_err(Fault::exhausted)?);
        match cut {
            Some(each) => Ok(Payable { request: Cow::Owned(request.limited_to(each)?), limited_to: Some(each) }),
            None => Ok(Payable::whole(request)),
        }
    }

    /// The most tokens that the request can have in all likelihood. Looked for once, and only where money is held for it.
    fn input_bound(&mut self, request: &Request) -> u64 {
        let (tokens, all) = (u128::from(self.input_tokens), self.request_bytes.max(1) as u128);
        let learned = |bytes: usize| u64::try_from(tokens * bytes as u128 / all).unwrap_or(u64::MAX);
        *self.input_bound.get_or_insert_with(|| most_tokens(request.body(), learned))
    }

    fn reserve_quota(&mut self, key: &Key, picked: &Picked<'_>, output: u64) -> Result<(), Fault> {
        // Quotas are of what the operator pays for.
        let is_systems = picked.target.credential.source == CredentialSource::System;
        let Some(quotas) = key.tenant.quotas.get(&picked.target.provider.name).filter(|_| is_systems) else {
            return Ok(());
        };
        let tokens = amount(self.input_tokens.saturating_add(output));
        let reserved = quotas.reserve(&picked.upstream_model, tokens, Timestamp::now());
        self.hold.quota = Some(reserved.map_err(|_| Fault::quota_exceeded())?);
        Ok(())
    }

    /// The most tokens that the answer can have.
    fn output_bound(&self, picked: &Picked<'_>, request: &Request) -> u64 {
        if request.operation() == Operation::Embeddings {
            return 0;
        }
        let provider = &picked.target.provider;
        let told = || provider.adapter.default_output(&picked.upstream_model, &provider.options);
        let known = || told().or_else(|| picked.entry()?.output).unwrap_or(OUTPUT_TOKENS);
        request.output_limit().unwrap_or_else(|| known().saturating_mul(request.choices()))
    }

    /// The slot of a credential that was waited for is this request's.
    pub fn queued(&mut self, scopes: &Scopes, permit: limit::Permit) {
        self.queued = Some((scopes.clone(), permit));
    }

    /// Whether it has a slot of these.
    #[must_use]
    pub fn has_turn_at(&self, scopes: &Scopes) -> bool {
        self.queued.as_ref().is_some_and(|(waited_for, _)| waited_for.is_same(scopes))
    }

    /// The attempt for which it was held has failed, having used so much, if anything.
    pub fn fail(&mut self, spent: Option<&Spent>) {
        let failed = std::mem::take(&mut self.hold);
        self.give_up(failed, spent);
    }

    /// What the request's input is estimated at.
    #[must_use]
    pub fn input_tokens(&self) -> u64 {
        self.input_tokens
    }

    /// What is left of the caller's limits, for its headers.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        Some(self.admission.as_ref()?.standing(Instant::now()))
    }

    /// The request has ended: what was held is replaced by what the attempt that answered used, and by what those used that
    /// did not answer; no money is charged unless the row tells it too. Gives what each account is charged with.
    pub fn settle(&mut self, model: Option<&Model>, answered: Option<&Spent>, row: Option<Nanos>) -> Vec<Charge> {
        let now = Instant::now();
        let tokens = answered.map_or(0, |spent| spent.usage.total_tokens());
        if let (Some(model), Some(spent)) = (model, answered.filter(|spent| spent.accuracy != Accuracy::Estimated)) {
            model.ratio.learn(self.request_bytes, spent.usage.input_tokens);
        }
        if let Some(admission) = &mut self.admission {
            admission.settle(amount(tokens.saturating_add(self.given_up_tokens)), now);
        }
        self.hold.leave_credential(amount(tokens));
        self.charges(amount(tokens), answered.and_then(|spent| spent.cost), row.is_some())
    }

    fn charges(&mut self, tokens: i64, cost: Option<Nanos>, priced: bool) -> Vec<Charge> {
        let money = self.hold.reservations.take().zip(cost).map(|(held, cost)| held.settle(cost));
        let quota = self.hold.quota.take().filter(|_| tokens > 0).and_then(|held| held.settle(tokens));
        let given_up = self.given_up.drain(..).flat_map(|given_up| given_up.settle(priced));
        let charges = money.into_iter().flatten().chain(quota).chain(given_up);
        charges.map(|charge| Charge { account: charge.account, window: charge.window, amount: charge.amount }).collect()
    }
}

/// No budget can count what the request costs.
fn unpriced<'r>(key: &Key, request: &'r Request) -> Result<Payable<'r>, Fault> {
    match key.tenant.unpriced {
        Unpriced::Allow => Ok(Payable::whole(request)),
        Unpriced::Refuse => Err(Fault::unpriced()),
    }
}

/// A queue of `on_busy`, as the limits know it.
#[must_use]
pub fn queue(written: &crate::config::OnBusy) -> Queue {
    Queue { patience: written.queue.get(), most: usize::try_from(written.max.get()).unwrap_or(usize::MAX) }
}

fn amount(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
