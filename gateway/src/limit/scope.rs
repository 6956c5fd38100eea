//! One scope of limits: a key, a tenant, one of their models, a credential.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Account;
use crate::config;
use crate::limit::rate::Bucket;
use crate::limit::slots::{Asker, Full, Slots};
use crate::limit::standing::{Left, Standing};
use crate::shelf::part;

/// When to come again while all slots are taken: nobody knows when one is freed.
pub(super) const SLOT_RETRY: Duration = Duration::from_secs(1);

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
    pub(super) slots: Option<Arc<Slots>>,
    pub(super) shared: Shared,
}

/// What several gateways count together: an account a minute beside each bucket. The bucket stays, so that no gateway
/// lets through more than the limit in any minute, however the minutes of the accounts lie.
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
    pub(super) fn room_in(&self, now: Instant) -> Duration {
        let rates = [&self.requests, &self.tokens].into_iter().flatten().map(|rate| rate.room_in(now));
        let is_full =
            self.slots.as_ref().zip(self.limits.concurrent).is_some_and(|(slots, limit)| slots.load(limit) >= 1.0);
        rates.chain(is_full.then_some(SLOT_RETRY)).max().unwrap_or_default()
    }

    pub(super) fn admit(&self, asker: Asker, now: Instant) -> Result<(), Refused> {
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

    pub(super) fn leave(&self) {
        if let Some(slots) = &self.slots {
            slots.give_back();
        }
    }

    pub(super) fn uncount(&self, then: Instant, now: Instant) {
        if let Some(requests) = &self.requests {
            requests.correct(1, 0, then, now);
        }
    }

    pub(super) fn charge(&self, tokens: i64, now: Instant) -> Result<(), Refused> {
        let charged = self.tokens.as_ref().map_or(Ok(()), |bucket| bucket.charge(estimate(tokens, bucket), now));
        charged.map_err(|retry_after| Refused { what: What::Tokens, retry_after, is_claiming: false })
    }

    pub(super) fn correct(&self, tokens: i64, actual: i64, then: Instant, now: Instant) {
        if let Some(bucket) = &self.tokens {
            bucket.correct(estimate(tokens, bucket), actual, then, now);
        }
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        let left = |bucket: &Option<Arc<Bucket>>| {
            let bucket = bucket.as_ref()?;
            Some(Left { limit: bucket.limit(), remaining: bucket.left(now), reset: bucket.empty_in(now) })
        };
        Standing { requests: left(&self.requests), tokens: left(&self.tokens) }
    }

    pub(super) fn limit_of(&self, what: What) -> u64 {
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

/// What is only estimated takes no more than all that there is: whoever allows an endless answer would else leave a
/// debt to everybody for as long as it runs.
fn estimate(tokens: i64, bucket: &Bucket) -> i64 {
    tokens.min(bucket.limit())
}

fn share(used: i64, limit: i64) -> f64 {
    used as f64 / limit.max(1) as f64
}

/// Why it refuses.
pub(super) struct Refused {
    pub(super) what: What,
    pub(super) retry_after: Duration,
    /// Whether more slots may come at once.
    pub(super) is_claiming: bool,
}

impl From<Full> for Refused {
    fn from(full: Full) -> Self {
        let what = if full == Full::NoStore { What::Store } else { What::Slots };
        Self { what, retry_after: SLOT_RETRY, is_claiming: full == Full::Claiming }
    }
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
