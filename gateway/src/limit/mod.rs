//! Limits of rate and number: requests a minute, tokens a minute, requests at once.
//!
//! A [`Registry`] hands out scopes by stable ids, so that what they have counted outlives a reload. A key's [`Limited`]
//! holds the scopes that apply to its requests, looked up when the snapshot is built and never by a request. What is
//! counted is counted in atomics. A request waits in the queue that is asked for by name; and, where several gateways
//! share a scope of which this one has nothing in hand, for one claim.

mod admission;
mod rate;
mod ratio;
mod scope;
mod scopes;
mod slots;
mod standing;
mod stock;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::budget::desk::{Claimant, Claimants};
use crate::budget::{self, Calendar, Owner, Span, Terms};
use crate::config::{self, Every};
use crate::shelf::Shelf;

pub use admission::{Admission, Limited};
pub use ratio::Ratio;
use scope::Shared;
use slots::Slots;

pub use scope::{Limits, Rejection, Scope, ScopeId, ScopeKind, What};
pub use scopes::{Charge, Permit, Queue, Scopes};
pub use standing::{Left, Reset, Standing};

/// All scopes that some snapshot holds.
#[derive(Debug, Default)]
pub struct Registry {
    scopes: Shelf<Scope>,
    accounts: Option<Arc<budget::Registry>>,
}

impl Registry {
    /// A registry whose limits are shared with other gateways, by way of accounts of `accounts` and its desk.
    #[must_use]
    pub fn shared(accounts: Arc<budget::Registry>) -> Self {
        Self { accounts: Some(accounts), ..Self::default() }
    }

    /// The scope of that id. With the same limits as before it is the same one; with others a new one that knows what
    /// was used, and shares the slots.
    #[must_use]
    pub fn scope(&self, id: ScopeId, limits: Limits, now: Instant) -> Arc<Scope> {
        let text = Arc::clone(id.text());
        self.scopes.renew(&text, |before| match before {
            Some(same) if same.limits() == limits => same,
            before => {
                let shared = self.share(&text, limits);
                Arc::new(Scope::new(id, limits, before.as_deref(), shared, now))
            }
        })
    }

    fn share(&self, id: &str, limits: Limits) -> Shared {
        let account = |what: &str, limit: Option<u64>| {
            let limit = i64::try_from(limit?).unwrap_or(i64::MAX);
            let span = Span::Every(Every::Minute, Arc::new(Calendar::utc()));
            let terms = Terms { limit, soft: None, instead: None, span };
            Some(self.accounts.as_ref()?.account(&format!("{id}/{what}").into(), Owner::Limit, terms))
        };
        let slots = || {
            let desk = self.accounts.as_ref()?.desk()?;
            Some(Slots::shared(format!("{id}/concurrent").into(), Arc::clone(desk)))
        };
        let slots = limits.concurrent.map(|_| Arc::new(slots().unwrap_or_default()));
        Shared { requests: account("rpm", limits.rpm), tokens: account("tpm", limits.tpm), slots }
    }

    /// The limits of a tenant, from which those of its keys are made.
    #[must_use]
    pub fn tenant(&self, tenant: &str, written: &config::Limits, now: Instant) -> TenantLimits {
        let id = ScopeId::tenant(tenant);
        let models = written.per_model.iter();
        let models = models.map(|(name, limits)| (name.clone(), self.scope(id.of_model(name), limits.into(), now)));
        let models: HashMap<_, _> = models.collect();
        let alone = models.iter().map(|(name, scope)| (name.clone(), Scopes::from_iter([Arc::clone(scope)])));
        TenantLimits {
            tenant: tenant.to_owned(),
            alone: Arc::new(alone.collect()),
            base: Scopes::from_iter([self.scope(id, written.into(), now)]),
            models,
        }
    }

    /// The limits of a key and of its tenant.
    #[must_use]
    pub fn key(&self, of: &TenantLimits, key: &str, written: Option<&config::Limits>, now: Instant) -> Limited {
        let Some(written) = written else {
            return Limited { base: of.base.clone(), models: Arc::clone(&of.alone) };
        };
        let id = ScopeId::key(&of.tenant, key);
        let mut models = Arc::clone(&of.alone);
        let own = self.scope(id.clone(), written.into(), now);
        for (name, limits) in &written.per_model {
            let scope = self.scope(id.of_model(name), limits.into(), now);
            let both = [Some(scope), of.models.get(name).cloned()].into_iter().flatten().collect();
            Arc::make_mut(&mut models).insert(name.clone(), both);
        }
        Limited { base: std::iter::once(own).chain(of.base.iter().cloned()).collect(), models }
    }
}

impl Claimants for Registry {
    fn claimants(&self) -> Vec<Arc<dyn Claimant>> {
        self.scopes.all().iter().filter_map(|scope| scope.slots()).map(|slots| slots as Arc<dyn Claimant>).collect()
    }
}

/// The limits of a tenant.
#[derive(Debug)]
pub struct TenantLimits {
    tenant: String,
    /// For whatever it calls, as keys have them that have none of their own.
    base: Scopes,
    models: HashMap<String, Arc<Scope>>,
    /// The same, as they are for keys without limits of their own for a model.
    alone: Arc<HashMap<String, Scopes>>,
}
