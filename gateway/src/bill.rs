//! What one request takes and pays: its place under limits, what it may cost at most, and its row in the ledger. Part of
//! the request's record, so whatever ends the request gives back what is held and writes what was used.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use adapters::{Operation, Request, Usage};
use jiff::Timestamp;

use crate::access::Key;
use crate::budget::{QuotaReservation, Reservations};
use crate::config::{CredentialSource, Unpriced};
use crate::error::Fault;
use crate::hedge::Which;
use crate::ledger::Charge;
use crate::limit::{self, Admission, Queue, Scopes, Standing};
use crate::model::{Model, Picked};
use crate::price::{Nanos, Price};

/// What a model may answer with at most when neither the caller nor the catalog says: it is only reserved, not asked for.
const OUTPUT_TOKENS: u64 = 16_384;

/// A budget that pays for fewer tokens than this is spent: an answer cut so short helps nobody.
const LEAST_OUTPUT: u64 = 16;

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
    input_tokens: u64,
    request_bytes: usize,
}

/// What is held for one attempt. Dropped, all of it is given back.
#[derive(Debug, Default)]
struct Hold {
    reservations: Option<Reservations>,
    quota: Option<QuotaReservation>,
    credential: Option<(limit::Permit, limit::Charge)>,
}

/// What a request is cut to, so that it can be paid.
pub struct Payable<'r> {
    /// The request, with a lower limit of its answer where the budget needs that.
    pub request: Cow<'r, Request>,
    /// That limit.
    pub limited_to: Option<u64>,
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

    /// Counts the request and its tokens, as far as they can be told, under the limits that hold for the model.
    ///
    /// # Errors
    /// One of them is reached; then the request counts nowhere.
    pub async fn for_model(&mut self, model: &Model, request: &Request) -> Result<(), Fault> {
        self.request_bytes = request.body().len();
        self.input_tokens = u64::try_from(model.ratio.estimate(self.request_bytes)).unwrap_or_default();
        let Some(admission) = &mut self.admission else {
            return Ok(());
        };
        let now = Instant::now();
        // Another model may have been asked for before this one.
        admission.settle(0, now);
        admission.for_model(&model.name, model.queue, now).await.map_err(Fault::limited)?;
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
        self.give_back();
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

    /// Of two attempts this one has lost, and costs nothing.
    pub fn lose(&mut self, which: Which) {
        let beside = std::mem::take(&mut self.beside);
        if which == Which::First {
            self.hold = beside;
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
        let whole = Payable { request: Cow::Borrowed(request), limited_to: None };
        if key.accounts.is_empty() {
            return Ok(whole);
        }
        let tiers = request.service_tiers();
        let price = picked.price(SystemTime::now());
        let Some((price, worst)) = price.and_then(|price| Some((price, price.bound(&self.worst(wanted), tiers)?)))
        else {
            return match key.tenant.unpriced {
                Unpriced::Allow => Ok(whole),
                Unpriced::Refuse => Err(Fault::unpriced()),
            };
        };
        let now = Timestamp::now();
        let left = key.accounts.left(now).unwrap_or(Nanos::MAX);
        if worst <= left {
            self.hold.reservations = Some(key.accounts.reserve(worst, now).await.map_err(Fault::exhausted)?);
            return Ok(whole);
        }
        let cut = self.cut(price, left, request);
        let payable = cut.filter(|each| *each >= LEAST_OUTPUT);
        let output = payable.map_or(wanted, |each| each.saturating_mul(request.choices()));
        let worst = price.bound(&self.worst(output), tiers).unwrap_or_default();
        self.hold.reservations = Some(key.accounts.reserve(worst, now).await.map_err(Fault::exhausted)?);
        match payable {
            Some(each) => Ok(Payable { request: Cow::Owned(request.limited_to(each)?), limited_to: Some(each) }),
            None => Ok(whole),
        }
    }

    /// How many tokens each answer may have for what is left; `None` where the answer's length changes nothing.
    fn cut(&self, price: &Price, left: Nanos, request: &Request) -> Option<u64> {
        match request.operation() {
            Operation::Embeddings => None,
            Operation::Chat | Operation::Completions => {
                let all = price.affordable_output(left, self.input_bound(), request.service_tiers())?;
                Some(all / request.choices())
            }
        }
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

    /// The most tokens that the request can have in all likelihood: no more than bytes, or than twice the estimate.
    fn input_bound(&self) -> u64 {
        let bytes = u64::try_from(self.request_bytes).unwrap_or(u64::MAX);
        self.input_tokens.saturating_mul(2).min(bytes)
    }

    /// What the request can use at most, with so many tokens of an answer.
    fn worst(&self, output_tokens: u64) -> Usage {
        Usage { input_tokens: self.input_bound(), output_tokens, ..Usage::default() }
    }

    /// The most tokens that the answer can have.
    fn output_bound(&self, picked: &Picked<'_>, request: &Request) -> u64 {
        if request.operation() == Operation::Embeddings {
            return 0;
        }
        let known = || picked.entry().and_then(|entry| entry.output).unwrap_or(OUTPUT_TOKENS);
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

    /// The attempt for which it was held failed, and costs nothing.
    pub fn give_back(&mut self) {
        self.hold = Hold::default();
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

    /// The request has ended: what was held is replaced by what was used. Gives what each account is charged with.
    pub fn settle(&mut self, model: Option<&Model>, used: Option<&Usage>, cost: Option<Nanos>) -> Vec<Charge> {
        let now = Instant::now();
        let tokens = amount(used.map_or(0, Usage::total_tokens));
        if let (Some(model), Some(used)) = (model, used) {
            model.ratio.learn(self.request_bytes, used.input_tokens);
        }
        if let Some(admission) = &mut self.admission {
            admission.settle(tokens, now);
        }
        if let Some((_permit, charge)) = self.hold.credential.take() {
            charge.settle(tokens, now);
        }
        self.charges(tokens, used.and(cost))
    }

    fn charges(&mut self, tokens: i64, cost: Option<Nanos>) -> Vec<Charge> {
        let money = self.hold.reservations.take().zip(cost).map(|(held, cost)| held.settle(cost));
        let quota = self.hold.quota.take().filter(|_| tokens > 0).and_then(|held| held.settle(tokens));
        let charges = money.into_iter().flatten().chain(quota);
        charges.map(|charge| Charge { account: charge.account, window: charge.window, amount: charge.amount }).collect()
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
