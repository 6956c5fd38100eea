//! How much tenants and keys may use: limits, budgets and quotas.

use indexmap::IndexMap;

use crate::config::read::{choices, section};
use crate::config::value::{Count, Expiry, Money, Percent};

section! {
    /// Limits, each its own.
    pub struct Limits {
        /// Requests a minute.
        rpm: Option<Count> = None;
        /// Tokens a minute.
        tpm: Option<Count> = None;
        /// Requests at once.
        concurrent: Option<Count> = None;
        /// Limits for single models by their names here.
        per_model: IndexMap<String, RateLimits> = IndexMap::new();
    }
}

section! {
    /// Limits for one model.
    pub struct RateLimits {
        /// Requests a minute.
        rpm: Option<Count> = None;
        /// Tokens a minute.
        tpm: Option<Count> = None;
        /// Requests at once.
        concurrent: Option<Count> = None;
    }
}

section! {
    /// Money for a span of time.
    pub struct Budget {
        /// How much, in dollars.
        usd: Money;
        /// For how long; a window begins at midnight in the tenant's time zone.
        every: Every;
        /// The share at which a warning is logged, counted and told to `observability.alerts`, and `on_exhaust` begins to hold.
        soft: Option<Percent> = None;
        /// What happens when it is low or spent, or has not enough left for a request; by default that is a 429.
        on_exhaust: Option<OnExhaust> = None;
    }
}

choices! {
    /// The window of a budget.
    pub enum Every {
        /// A minute.
        Minute = "minute",
        /// An hour.
        Hour = "hour",
        /// A day.
        Day = "day",
        /// A week.
        Week = "week",
        /// A month.
        Month = "month",
    }
}

section! {
    /// What happens when a budget is spent.
    pub struct OnExhaust {
        /// The model that answers instead.
        model: String;
    }
}

section! {
    /// What a tenant may use of the operator's credentials.
    pub struct Quota {
        /// The provider.
        provider: String;
        /// Its type; paid is used before free, free before trial.
        quota_type as "type": QuotaType;
        /// What is counted.
        unit: QuotaUnit;
        /// How much; -1 is unlimited.
        limit: QuotaLimit;
        /// Until when; the soonest to expire is used first within a type.
        expires: Option<Expiry> = None;
        /// The models that it is for, by the provider's names; by default all.
        restrict_models: Vec<String> = Vec::new();
        /// The credits of one call by the provider's model name; 1 for others.
        credits: IndexMap<String, Count> = IndexMap::new();
    }
}

choices! {
    /// The type of a quota, in the order of use.
    pub enum QuotaType {
        /// Paid for.
        Paid = "paid",
        /// Given for good.
        Free = "free",
        /// Given to try.
        Trial = "trial",
    }
}

choices! {
    /// What a quota counts.
    pub enum QuotaUnit {
        /// Calls.
        Times = "times",
        /// Tokens.
        Tokens = "tokens",
        /// Credits, as many for a call as its model says.
        Credits = "credits",
    }
}

/// How much a quota holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaLimit {
    /// Without end, written -1.
    Unlimited,
    /// So much.
    Of(Count),
}
