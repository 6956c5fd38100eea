//! Money and quotas: what may be spent in a window of time, held before a request goes out and settled when it has
//! ended.
//!
//! A [`Registry`] hands out accounts by stable ids, so that what they have counted outlives a reload. A key's
//! [`Accounts`] are put together when the snapshot is built. What is held is given back however a request ends, since
//! it is a guard's; what was used goes to the ledger as [`Charge`]s, from which the counters are read back at the next
//! start.

mod account;
mod accounts;
mod alert;
pub mod desk;
pub mod lease;
pub mod peers;
mod quota;
mod raises;
mod reservation;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config;
use crate::model::pattern::Patterns;
use crate::shelf::{Shelf, part};

use account::Made;
use desk::{Claimant, Claimants, Desk};

pub use account::{Account, Left, Owner, Reading, Span, Terms};
pub use accounts::{Accounts, Reservations};
pub use alert::{Alert, Listener, Threshold};
pub use quota::{Quota, QuotaReservation, QuotaState, Quotas};
pub use raises::{MOST_RAISES, Raise};
pub use reservation::{Cause, Charge, Exhausted, Reservation};
pub use window::{Calendar, Window};

/// All accounts that some snapshot holds.
#[derive(Debug)]
pub struct Registry {
    accounts: Shelf<Account>,
    raises: raises::Raises,
    listener: Listener,
    desk: Option<Arc<Desk>>,
}

impl Registry {
    /// Tells `listener` when an account comes to its soft limit, and when it is spent.
    #[must_use]
    pub fn new(listener: Listener) -> Self {
        Self { accounts: Shelf::default(), raises: raises::Raises::default(), listener, desk: None }
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

    /// Takes over a limit that was raised for a while, or word that this ended, unless something newer is known;
    /// whether it is news. Whoever says it keeps it over restarts.
    pub fn learn(&self, raise: &Raise, now: Timestamp) -> bool {
        let is_news = self.raises.learn(raise, now);
        if is_news && let Some(account) = self.accounts.get(&raise.account) {
            account.raise(raise, now);
        }
        is_news
    }

    /// As [`Registry::learn`], for what was said here: those who tell the other gateways are called.
    pub fn say(&self, raise: &Raise, now: Timestamp) -> bool {
        let is_news = self.learn(raise, now);
        self.raises.said.notify_one();
        is_news
    }

    /// Waits until something is said.
    pub async fn said(&self) {
        self.raises.said.notified().await;
    }

    /// What is known of raised limits, those that ended before their time too.
    #[must_use]
    pub fn raises(&self, now: Timestamp) -> Vec<Raise> {
        self.raises.all(now)
    }

    /// The raise of an account that holds.
    #[must_use]
    pub fn lasting_raise(&self, account: &str, now: Timestamp) -> Option<Raise> {
        self.raises.lasting(account, now)
    }

    /// The time of what is said now of an account's raise.
    #[must_use]
    pub fn time_of_raise(&self, account: &str, now: Timestamp) -> i64 {
        self.raises.time(account, now)
    }

    /// Gives accounts that were made since the last time the limits that are known to be raised.
    pub fn raise_again(&self, now: Timestamp) {
        for raise in self.raises.all(now) {
            if let Some(account) = self.accounts.get(&raise.account) {
                account.raise(&raise, now);
            }
        }
    }

    /// Gives accounts that were made since the last time what they had used before: before this process began, or
    /// before a reload took them away. What is of another window, or of an account that is no more, is passed over. An
    /// owner's budgets for the same time are charged the same, so one that is new has used what the others have,
    /// whichever stood first before.
    pub fn restore<'c>(&self, counters: impl IntoIterator<Item = (&'c str, i64, i64)>, now: Timestamp) {
        let mut kept: HashMap<&str, Counted<'c>> = HashMap::new();
        for (id, window, used) in counters {
            kept.entry(family(id)).or_default().entry(id).or_default().push((window, used));
        }
        for account in self.accounts.all() {
            let same = kept.get(family(account.id())).into_iter().flat_map(HashMap::values);
            let used = same.map(|windows| account.used_of(windows, now)).max();
            if let Some(used) = used.filter(|used| *used > 0) {
                account.restore(used, now);
            }
            account.restored();
        }
    }

    /// The account of that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Account>> {
        self.accounts.get(id)
    }

    /// The tenants' budgets as they stand, for the metrics: `(tenant, window, reading)`. Keys' are left out, since
    /// there may be very many.
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

    fn newest(&self, id: &str) -> Option<Arc<dyn Claimant>> {
        self.get(id).map(|account| account as Arc<dyn Claimant>)
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

/// What accounts of one family have used, by their ids: each window's first second, and how much.
type Counted<'c> = HashMap<&'c str, Vec<(i64, i64)>>;

/// An id without the number that tells an owner's budgets for the same time apart.
fn family(id: &str) -> &str {
    let numbered = id.rsplit_once('/').filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()));
    let of_money = |(id, _): &(&str, &str)| id.rsplit_once('/').is_some_and(|(owner, _)| owner.ends_with("/usd"));
    numbered.filter(of_money).map_or(id, |(id, _)| id)
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
