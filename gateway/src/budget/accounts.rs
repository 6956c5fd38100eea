//! The accounts that one request is charged to: it is admitted by all of them or by none.

use std::sync::Arc;

use jiff::Timestamp;

use crate::budget::account::{Account, Left};
use crate::budget::reservation::{Charge, Exhausted, Reservation};

/// Accounts that a request is charged to.
#[derive(Clone, Debug)]
pub struct Accounts(Arc<[Arc<Account>]>);

impl Default for Accounts {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl FromIterator<Arc<Account>> for Accounts {
    fn from_iter<I: IntoIterator<Item = Arc<Account>>>(accounts: I) -> Self {
        Self(accounts.into_iter().collect())
    }
}

impl Accounts {
    /// Holds `worst` in every account.
    ///
    /// # Errors
    /// The first that has not so much left; then nothing is held.
    pub async fn reserve(&self, worst: i64, now: Timestamp) -> Result<Reservations, Exhausted> {
        let mut reserved = Vec::with_capacity(self.0.len());
        for account in self.0.iter() {
            match account.reserve(worst, now).await {
                Ok(reservation) => reserved.push(reservation),
                Err(exhausted) => {
                    let instead = exhausted.instead.or_else(|| self.instead_of(worst, now).cloned());
                    return Err(Exhausted { instead, ..exhausted });
                }
            }
        }
        Ok(Reservations(reserved))
    }

    /// The model that is to answer instead of one that may cost `worst`, which an account cannot pay.
    fn instead_of(&self, worst: i64, now: Timestamp) -> Option<&Arc<str>> {
        let short = |account: &&Arc<Account>| account.reading(now).left() < worst;
        self.0.iter().filter(short).find_map(|account| account.terms().instead.as_ref())
    }

    /// The least that any of them has left: what a request's worst case may be cut to.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Left {
        self.0.iter().map(|account| account.left(now)).min().unwrap_or(Left::UNLIMITED)
    }

    /// The model that is to answer instead, since an account is at its soft limit or spent.
    #[must_use]
    pub fn instead(&self, now: Timestamp) -> Option<&Arc<str>> {
        let mut named = self.0.iter().filter(|account| account.terms().instead.is_some());
        named.find(|account| account.is_low(now)).and_then(|account| account.terms().instead.as_ref())
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.iter()
    }
}

/// What is held for a request in each of its accounts. Dropped, all of it is given back.
#[derive(Debug, Default)]
#[must_use]
pub struct Reservations(Vec<Reservation>);

impl Reservations {
    /// No more than so much is needed any more; the rest is free for others.
    pub fn shrink(&mut self, to: i64) {
        self.0.iter_mut().for_each(|reservation| reservation.shrink(to));
    }

    /// What each account would be charged if so much was used.
    pub fn due(&self, used: i64) -> impl Iterator<Item = (&str, i64, i64)> {
        self.0.iter().map(move |reservation| reservation.due(used))
    }

    /// Replaces what is held by what was used.
    pub fn settle(self, used: i64) -> Vec<Charge> {
        self.0.into_iter().map(|reservation| reservation.settle(used)).collect()
    }
}
