//! What a tenant may use of the operator's credentials at one provider: several quotas, used in order.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::budget::account::{Account, Left};
use crate::budget::reservation::{Cause, Charge, Reservation};
use crate::config::{QuotaType, QuotaUnit};
use crate::model::pattern::Patterns;

/// The quotas of a tenant at a provider, in the order of use: paid, free, trial, and within a type the soonest to
/// expire.
#[derive(Clone, Debug, Default)]
pub struct Quotas(Arc<[Quota]>);

/// One quota.
#[derive(Debug)]
pub struct Quota {
    /// What counts it.
    pub account: Arc<Account>,
    /// How it was come by.
    pub quota_type: QuotaType,
    /// What it counts.
    pub unit: QuotaUnit,
    /// When nothing is left of it.
    pub expires: Option<Timestamp>,
    /// The provider's names of the models that it is for; `None`: all.
    pub(super) models: Option<Patterns>,
    /// The credits of one call; 1 for models that are not named.
    pub(super) credits: HashMap<String, i64>,
}

/// How quotas stand for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaState {
    /// The tenant has no quotas here: its limits and budgets alone hold.
    Unlimited,
    /// One of them has something left, or others hold it and may give it back.
    Valid,
    /// All that are for this model are spent or expired.
    Exceeded,
    /// None of them is for this model.
    NotForModel,
}

impl FromIterator<Quota> for Quotas {
    fn from_iter<I: IntoIterator<Item = Quota>>(quotas: I) -> Self {
        let mut quotas: Vec<_> = quotas.into_iter().collect();
        // What never expires comes last within its type.
        quotas.sort_by_key(|quota| (quota.quota_type, Reverse(quota.expires.map(Reverse))));
        Self(quotas.into())
    }
}

impl Quotas {
    /// How they stand for the provider's `model`.
    #[must_use]
    pub fn state(&self, model: &str, now: Timestamp) -> QuotaState {
        if self.0.is_empty() {
            return QuotaState::Unlimited;
        }
        let mut fitting = self.0.iter().filter(|quota| quota.is_for(model)).peekable();
        if fitting.peek().is_none() {
            return QuotaState::NotForModel;
        }
        let least = |quota: &Quota| quota.amount(model, 1);
        let valid = fitting.any(|quota| !quota.account.reading(now).is_spent(least(quota).max(1)));
        if valid { QuotaState::Valid } else { QuotaState::Exceeded }
    }

    /// Holds one call of `model` with at most `tokens` in the first quota that has so much left; in none where there
    /// are none. Waits for a slice of what is shared with other nodes, as [`Account::reserve`] does.
    ///
    /// # Errors
    /// No quota for this model has so much left, or nobody knows without the shared store.
    pub async fn reserve(&self, model: &str, tokens: i64, now: Timestamp) -> Result<QuotaReservation, Cause> {
        if self.0.is_empty() {
            return Ok(QuotaReservation(None));
        }
        let mut cause = Cause::Spent;
        for quota in self.0.iter().filter(|quota| quota.is_for(model)) {
            match quota.account.reserve(quota.amount(model, tokens), now).await {
                Ok(reservation) => {
                    let call = quota.amount(model, 0);
                    return Ok(QuotaReservation(Some(Held { reservation, unit: quota.unit, call })));
                }
                Err(exhausted) => cause = cause.max(exhausted.cause),
            }
        }
        Err(cause)
    }

    /// The most tokens that a call of `model` may have in any quota of tokens.
    #[must_use]
    pub fn tokens_left(&self, model: &str, now: Timestamp) -> Left {
        let of_tokens = self.0.iter().filter(|quota| quota.unit == QuotaUnit::Tokens && quota.is_for(model));
        of_tokens.map(|quota| quota.account.left(now)).max().unwrap_or(Left::NONE)
    }

    /// Each, in the order of use.
    pub fn iter(&self) -> impl Iterator<Item = &Quota> {
        self.0.iter()
    }

    /// Each account.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.iter().map(|quota| &quota.account)
    }
}

impl Quota {
    fn is_for(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.has(model))
    }

    fn amount(&self, model: &str, tokens: i64) -> i64 {
        match self.unit {
            QuotaUnit::Times => 1,
            QuotaUnit::Credits => self.credits.get(model).copied().unwrap_or(1),
            QuotaUnit::Tokens => tokens,
        }
    }
}

/// A call that is held in a quota, or in none where there are none. Dropped, it is given back.
#[derive(Debug)]
#[must_use]
pub struct QuotaReservation(Option<Held>);

#[derive(Debug)]
struct Held {
    reservation: Reservation,
    unit: QuotaUnit,
    /// What a call costs, whatever its tokens.
    call: i64,
}

impl QuotaReservation {
    /// Whether it is held in a quota of tokens.
    #[must_use]
    pub fn is_of_tokens(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.unit == QuotaUnit::Tokens)
    }

    /// What would be charged if the call was made and used so many tokens.
    #[must_use]
    pub fn due(&self, tokens: i64) -> Option<(&str, i64, i64)> {
        let held = self.0.as_ref()?;
        Some(held.reservation.due(held.used(tokens)))
    }

    /// The call was made and used so many tokens.
    pub fn settle(self, tokens: i64) -> Option<Charge> {
        let held = self.0?;
        let used = held.used(tokens);
        Some(held.reservation.settle(used))
    }
}

impl Held {
    fn used(&self, tokens: i64) -> i64 {
        match self.unit {
            QuotaUnit::Tokens => tokens,
            QuotaUnit::Times | QuotaUnit::Credits => self.call,
        }
    }
}
