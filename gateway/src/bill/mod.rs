//! What one request takes and pays: its place under limits, what it may cost at most, and its row in the ledger. Part
//! of the request's record, so whatever ends the request gives back what is held and writes what was used.

mod call;
mod hold;
mod recall;
mod spent;
mod worst;

use std::time::{Instant, SystemTime};

use adapters::{Operation, Request, Usage};
use jiff::Timestamp;

use self::call::Call;
use self::hold::{GivenUp, Hold, amount};
use self::recall::Recall;
pub use self::spent::Spent;
pub use self::worst::Payable;
use self::worst::Worst;
use crate::access::Key;
use crate::budget::Left;
use crate::config::{CredentialSource, Unpriced};
use crate::error::Fault;
use crate::hedge::Which;
use crate::ledger::{Accuracy, Charge};
use crate::limit::{self, Admission, Queue, Scopes, Standing};
use crate::model::{Model, ModelInstance, Picked};
use crate::price::{Nanos, most_tokens};

/// What a model may answer with at most when neither the caller nor the catalog says: it is only reserved, not asked
/// for.
const OUTPUT_TOKENS: u64 = 16_384;

/// The limits of a model that were [waited for](Bill::queue_of), if any were, and what came of it.
pub type ModelTurn = Option<(Scopes, Result<limit::Permit, limit::Rejection>)>;

/// A request's bill.
#[derive(Debug, Default)]
pub struct Bill {
    admission: Option<Admission>,
    /// The limits that did not admit it, for its headers.
    refused_by: Option<Scopes>,
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

impl Bill {
    /// Counts the request under the limits of its key and tenant.
    ///
    /// # Errors
    /// One of them is reached.
    pub async fn admit(&mut self, key: &Key, now: Instant) -> Result<(), Fault> {
        match key.limited.admit(now).await {
            Ok(admission) => self.admission = Some(admission),
            Err(rejection) => {
                self.refused_by = Some(key.limited.base.clone());
                return Err(Fault::limited(rejection));
            }
        }
        Ok(())
    }

    /// The limits that are to be waited for before the model is asked, and how long. What was asked before it is left.
    pub fn queue_of(&mut self, instance: &ModelInstance<'_>, now: Instant) -> Option<(Scopes, Queue)> {
        let admission = self.admission.as_mut()?;
        admission.settle(amount(std::mem::take(&mut self.given_up_tokens)), now);
        Some((admission.limits_of(instance.limited_as())?, instance.model().queue?))
    }

    /// Counts the request and its tokens, as far as they can be told, under the limits that hold for the model, where
    /// it has had its `turn` at those that are waited for.
    ///
    /// # Errors
    /// One of them is reached; then another model may be asked for, else the request counts nowhere.
    pub async fn for_model(
        &mut self,
        instance: &ModelInstance<'_>,
        request: &Request,
        turn: ModelTurn,
        now: Instant,
    ) -> Result<(), Fault> {
        self.request_bytes = request.body().len();
        self.input_bound = None;
        self.input_tokens = u64::try_from(instance.model().ratio.estimate(self.request_bytes)).unwrap_or_default();
        let Some(admission) = &mut self.admission else {
            return Ok(());
        };
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
        self.hold_all(key, picked, request, Recall::new()).await
    }

    async fn hold_all<'r>(
        &mut self,
        key: &Key,
        picked: &Picked<'_>,
        request: &'r Request,
        recall: Recall,
    ) -> Result<Payable<'r>, Fault> {
        self.hold = Hold::default();
        self.take(picked, request).await?;
        let payable = self.reserve(key, picked, request, recall).await?;
        self.hold.most_output = payable.most_output();
        Ok(payable)
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
        // The first one's answer does not wait for what others have in hand.
        let payable = self.hold_all(key, picked, request, Recall::none()).await;
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
        let queued = self.queued.take().filter(|(waited_for, _)| waited_for.is_same(scopes));
        if scopes.is_empty() {
            return Ok(());
        }
        let limited = |rejection: limit::Rejection| Fault::unavailable(rejection.retry_after, true);
        let now = Instant::now();
        let tokens = self.input_tokens.saturating_add(request.output_limit().unwrap_or_default());
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
        mut recall: Recall,
    ) -> Result<Payable<'r>, Fault> {
        let wanted = self.output_bound(picked, request);
        let by_quota = match self.quota_call(key, picked, request, wanted) {
            Some(call) => self.hold_quota(&call, &mut recall).await?,
            None => None,
        };
        let wanted = by_quota.map_or(wanted, |each| each.saturating_mul(request.choices()));
        if key.accounts.is_empty() {
            return Payable::cut(request, by_quota);
        }
        let (input_tokens, web_searches) = (self.input_bound(request), request.web_searches());
        let usage = Usage { input_tokens, web_searches, in_us: request.may_be_in_us(), ..Usage::default() };
        let worst = Worst { usage, tiers: request.service_tiers() };
        let price = picked.price(SystemTime::now());
        let Some((price, whole)) = price.and_then(|price| Some((price, worst.cost(price, wanted)?))) else {
            return unpriced(key, request, by_quota);
        };
        let fit = |left: Left| worst.fit(price, whole, left, request);
        let cut = self.hold_money(key, fit, &mut recall).await?;
        Payable::cut(request, cut.or(by_quota))
    }

    /// Holds in every budget what is right for what is left, and again where that was not what this gateway believed:
    /// what others took, or gave back, is known then. Gives to how many tokens each answer is cut.
    async fn hold_money(
        &mut self,
        key: &Key,
        fit: impl Fn(Left) -> (Option<u64>, Nanos),
        recall: &mut Recall,
    ) -> Result<Option<u64>, Fault> {
        loop {
            let now = Timestamp::now();
            let (cut, held) = fit(key.accounts.left(now));
            let exhausted = match key.accounts.reserve(held, now).await {
                Ok(reserved) => {
                    self.hold.reservations = Some(reserved);
                    return Ok(cut);
                }
                Err(exhausted) => exhausted,
            };
            let (_, again) = fit(key.accounts.left(now));
            if !recall.goes_on(exhausted.cause, again < held).await {
                exhausted.tell(now);
                return Err(Fault::exhausted(exhausted));
            }
        }
    }

    /// The most tokens that the request can have in all likelihood. Looked for once, and only where money is held for
    /// it.
    fn input_bound(&mut self, request: &Request) -> u64 {
        let (tokens, all) = (u128::from(self.input_tokens), self.request_bytes.max(1) as u128);
        let learned = |bytes: usize| u64::try_from(tokens * bytes as u128 / all).unwrap_or(u64::MAX);
        *self.input_bound.get_or_insert_with(|| most_tokens(request.body(), learned))
    }

    /// The call as a quota counts it, where there are any: they are of what the operator pays for.
    fn quota_call<'c>(
        &self,
        key: &'c Key,
        picked: &'c Picked<'_>,
        request: &'c Request,
        output: u64,
    ) -> Option<Call<'c>> {
        let is_systems = picked.target.credential.source == CredentialSource::System;
        let quotas = key.tenant.quotas.get(&picked.target.provider.name).filter(|_| is_systems)?;
        Some(Call { quotas, model: &picked.upstream_model, request, input: self.input_tokens, output })
    }

    /// Holds the call in a quota. Gives to how many tokens each answer is cut, so that one has enough left.
    async fn hold_quota(&mut self, call: &Call<'_>, recall: &mut Recall) -> Result<Option<u64>, Fault> {
        loop {
            let cause = match call.hold().await {
                Ok((cut, held)) => {
                    self.hold.quota = Some(held);
                    return Ok(cut);
                }
                Err(cause) => cause,
            };
            if !recall.goes_on(cause, false).await {
                return Err(Fault::quota_exceeded(cause));
            }
        }
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

    /// Where it has a slot that it waited for: whether that is one of these.
    #[must_use]
    pub fn has_turn_at(&self, scopes: &Scopes) -> Option<bool> {
        self.queued.as_ref().map(|(waited_for, _)| waited_for.is_same(scopes))
    }

    /// The slot that it waited for is of no use to it.
    pub fn pass_turn(&mut self) {
        self.queued = None;
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

    /// The most tokens that the answer was allowed, where that was said.
    #[must_use]
    pub fn most_output(&self) -> Option<u64> {
        self.hold.most_output
    }

    /// What each account is charged if the request ends now, and the attempts under way have used so much: the
    /// account's id, the window, and the amount.
    pub fn due(&self, [first, beside]: [Option<Spent>; 2]) -> impl Iterator<Item = (&str, i64, i64)> {
        let under_way = [(&self.hold, first), (&self.beside, beside)].into_iter();
        let under_way = under_way.filter_map(|(hold, spent)| Some(hold.due(&spent?)));
        self.given_up.iter().flat_map(GivenUp::due).chain(under_way.flatten())
    }

    /// What is left of the caller's limits, for its headers.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Option<Standing> {
        let admitted = self.admission.as_ref().map(|admission| admission.standing(now));
        admitted.or_else(|| Some(self.refused_by.as_ref()?.standing(now)))
    }

    /// The request has ended: what was held is replaced by what the attempt that answered used, and by what those used
    /// that did not answer; no money is charged unless the row tells it too. Gives what each account is charged with.
    pub fn settle(
        &mut self,
        model: Option<&Model>,
        answered: Option<&Spent>,
        row: Option<Nanos>,
        now: Instant,
    ) -> Vec<Charge> {
        let answer = answered.map(|spent| spent.usage.total_tokens());
        let tokens = answer.unwrap_or_default();
        if let (Some(model), Some(spent)) = (model, answered.filter(|spent| spent.accuracy != Accuracy::Estimated)) {
            model.ratio.learn(self.request_bytes, spent.usage.input_tokens);
        }
        if let Some(admission) = &mut self.admission {
            admission.settle(amount(tokens.saturating_add(self.given_up_tokens)), now);
        }
        self.hold.leave_credential(amount(tokens));
        self.charges(answer.map(amount), answered.and_then(|spent| spent.cost), row.is_some())
    }

    fn charges(&mut self, tokens: Option<i64>, cost: Option<Nanos>, priced: bool) -> Vec<Charge> {
        let money = self.hold.reservations.take().zip(cost).map(|(held, cost)| held.settle(cost));
        let quota = self.hold.quota.take().zip(tokens).and_then(|(held, tokens)| held.settle(tokens));
        let given_up = self.given_up.drain(..).flat_map(|given_up| given_up.settle(priced));
        let charges = money.into_iter().flatten().chain(quota).chain(given_up);
        charges.map(|charge| Charge { account: charge.account, window: charge.window, amount: charge.amount }).collect()
    }
}

/// No budget can count what the request costs.
fn unpriced<'r>(key: &Key, request: &'r Request, limited_to: Option<u64>) -> Result<Payable<'r>, Fault> {
    match key.tenant.unpriced {
        Unpriced::Allow => Payable::cut(request, limited_to),
        Unpriced::Refuse => Err(Fault::unpriced()),
    }
}

/// A queue of `on_busy`, as the limits know it.
#[must_use]
pub fn queue(written: &crate::config::OnBusy) -> Queue {
    Queue { patience: written.queue.get(), most: usize::try_from(written.max.get()).unwrap_or(usize::MAX) }
}
