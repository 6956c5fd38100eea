//! Money and quotas: what may be spent in a window of time, held before a request goes out and settled when it has ended.
//!
//! A [`Registry`] hands out accounts by stable ids, so that what they have counted outlives a reload. A key's [`Accounts`]
//! are put together when the snapshot is built. What is held is given back however a request ends, since it is a guard's; what
//! was used goes to the ledger as [`Charge`]s, from which the counters are read back at the next start.

mod account;
mod accounts;
pub mod lease;
mod quota;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use jiff::Timestamp;

use crate::config;
use crate::model::pattern::Patterns;
use crate::shelf::{Shelf, part};

use account::Made;
use lease::{Claimant, Claimants, Desk};

pub use account::{
    Account, Alert, Cause, Charge, Exhausted, Listener, Owner, Reading, Reservation, Span, Terms, Threshold,
};
pub use accounts::{Accounts, Reservations};
pub use quota::{Quota, QuotaReservation, QuotaState, Quotas};
pub use window::{Calendar, Window};

/// All accounts that some snapshot holds.
#[derive(Debug)]
pub struct Registry {
    accounts: Shelf<Account>,
    listener: Listener,
    desk: Option<Arc<Desk>>,
}

impl Registry {
    /// Tells `listener` when an account comes to its soft limit.
    #[must_use]
    pub fn new(listener: Listener) -> Self {
        Self { accounts: Shelf::default(), listener, desk: None }
    }

    /// A registry whose accounts are shared with other nodes, by way of `desk`.
    #[must_use]
    pub fn shared(listener: Listener, desk: Arc<Desk>) -> Self {
        Self { desk: Some(desk), ..Self::new(listener) }
    }

    /// Where slices come from, where its accounts are shared with other nodes.
    #[must_use]
    pub fn desk(&self) -> Option<&Arc<Desk>> {
        self.desk.as_ref()
    }

    /// Every account.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.accounts.all()
    }

    /// The account of that id, with what was counted under that id before.
    #[must_use]
    pub fn account(&self, id: &Arc<str>, owner: Owner, terms: Terms) -> Arc<Account> {
        self.accounts.renew(id, |before| match before {
            Some(same) if *same.terms() == terms => same,
            before => {
                let (id, listener, desk) = (Arc::clone(id), self.listener.clone(), self.desk.clone());
                Arc::new(Account::new(Made { id, owner, terms, listener, desk }, before.as_deref()))
            }
        })
    }

    /// The accounts of an owner's budgets.
    #[must_use]
    pub fn budgets(&self, owner: &Owner, written: &[config::Budget], calendar: &Arc<Calendar>) -> Vec<Arc<Account>> {
        let named = written.iter().enumerate().map(|(place, budget)| {
            let same = |other: &&config::Budget| other.every == budget.every;
            let number = written.iter().take(place).filter(same).count();
            let mut id = format!("{}/usd/{}", owner.id(), budget.every);
            // A second budget for the same time counts on its own.
            if number > 0 {
                id = format!("{id}/{}", number + 1);
            }
            self.account(&id.into(), owner.clone(), terms(budget, calendar))
        });
        named.collect()
    }

    /// A tenant's quotas at a provider.
    #[must_use]
    pub fn quotas(&self, tenant: &Arc<str>, provider: &str, written: &[config::Quota]) -> Quotas {
        let mut seen = Vec::new();
        let quotas = written.iter().filter(|quota| quota.provider == provider).map(|quota| {
            let kind = (quota.quota_type, quota.unit);
            let number = seen.iter().filter(|seen| **seen == kind).count();
            seen.push(kind);
            let mut id = format!("quota/{}/{}/{}/{}", part(tenant), part(provider), kind.0, kind.1);
            if number > 0 {
                id = format!("{id}/{}", number + 1);
            }
            self.quota(&id.into(), tenant, quota)
        });
        quotas.collect()
    }

    fn quota(&self, id: &Arc<str>, tenant: &Arc<str>, written: &config::Quota) -> quota::Quota {
        let expires = written.expires.map(config::Expiry::timestamp);
        let limit = match written.limit {
            config::QuotaLimit::Unlimited => i64::MAX,
            config::QuotaLimit::Of(count) => amount(count.get()),
        };
        let span = expires.map_or(Span::Always, Span::Until);
        let terms = Terms { limit, soft: None, instead: None, span };
        let models = &written.restrict_models;
        quota::Quota {
            account: self.account(id, Owner::Tenant(Arc::clone(tenant)), terms),
            quota_type: written.quota_type,
            unit: written.unit,
            expires,
            models: (!models.is_empty()).then(|| models.iter().collect::<Patterns>()),
            credits: written.credits.iter().map(|(model, count)| (model.clone(), amount(count.get()))).collect(),
        }
    }

    /// Gives accounts that were made since the last time what they had used before: before this process began, or before a
    /// reload took them away. What is of another window, or of an account that is no more, is passed over.
    pub fn restore<'c>(&self, counters: impl IntoIterator<Item = (&'c str, i64, i64)>, now: Timestamp) {
        for (id, window, used) in counters {
            if let Some(account) = self.accounts.get(id) {
                account.restore(window, used, now);
            }
        }
        self.accounts.all().iter().for_each(|account| account.restored());
    }

    /// The account of that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Account>> {
        self.accounts.get(id)
    }

    /// The tenants' budgets as they stand, for the metrics: `(tenant, window, reading)`. Keys' are left out, since there may
    /// be very many.
    #[must_use]
    pub fn tenants(&self, now: Timestamp) -> Vec<(Arc<str>, config::Every, Reading)> {
        let all = self.accounts.all();
        let of_tenants = all.iter().filter_map(|account| match (account.owner(), &account.terms().span) {
            (Owner::Tenant(tenant), Span::Every(every, _)) => Some((Arc::clone(tenant), *every, account.reading(now))),
            _ => None,
        });
        of_tenants.collect()
    }
}

impl Claimants for Registry {
    fn claimants(&self) -> Vec<Arc<dyn Claimant>> {
        self.all().into_iter().map(|account| account as Arc<dyn Claimant>).collect()
    }
}

impl Owner {
    /// `tenant/acme` or `key/acme/ci`
    fn id(&self) -> String {
        match self {
            Self::Tenant(tenant) => format!("tenant/{}", part(tenant)),
            Self::Key(tenant, key) => format!("key/{}/{}", part(tenant), part(key)),
            Self::Limit => "limit".to_owned(),
        }
    }
}

fn terms(budget: &config::Budget, calendar: &Arc<Calendar>) -> Terms {
    let limit = amount(budget.usd.nanos());
    let share = |soft: config::Percent| {
        let soft = i128::from(limit) * i128::from(soft.hundredths()) / 10_000;
        i64::try_from(soft).unwrap_or(limit)
    };
    Terms {
        limit,
        soft: budget.soft.map(share),
        instead: budget.on_exhaust.as_ref().map(|instead| instead.model.as_str().into()),
        span: Span::Every(budget.every, Arc::clone(calendar)),
    }
}

fn amount(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
