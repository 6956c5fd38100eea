//! Limits in the place of the configured ones, for a while: what is known of them, in whatever order it is heard.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// How many are known: raises are made by hand.
pub const MOST_RAISES: usize = 10_000;

/// A limit in the place of the configured one, or word that it ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// The account's id.
    pub account: String,
    /// The limit, in nano-dollars.
    pub limit: i64,
    /// Until when.
    pub until: Timestamp,
    /// When this was said, in microseconds of Unix time: what was said last holds.
    #[serde(default)]
    pub said: i64,
    /// Whether it ended before its time.
    #[serde(default)]
    pub ended: bool,
}

impl Raise {
    /// Whether it is to hold in the place of `other`. Of two that were said at once one is chosen, the same one
    /// everywhere.
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        let order = |raise: &Self| (raise.said, raise.ended, raise.limit, raise.until);
        order(self) > order(other)
    }
}

/// The newest that is known of each account.
#[derive(Debug, Default)]
pub(super) struct Raises {
    known: Mutex<HashMap<String, Raise>>,
    pub(super) said: Notify,
}

impl Raises {
    /// Takes it over if it is news; `false`: it is none, or too many are known.
    pub(super) fn learn(&self, raise: &Raise, now: Timestamp) -> bool {
        let mut known = self.known();
        if known.len() >= MOST_RAISES {
            known.retain(|_, raise| raise.until > now);
        }
        let is_news = match known.get(&raise.account) {
            Some(before) => raise.is_after(before),
            None => known.len() < MOST_RAISES,
        };
        if is_news {
            known.insert(raise.account.clone(), raise.clone());
        }
        is_news
    }

    /// All whose time is not over.
    pub(super) fn all(&self, now: Timestamp) -> Vec<Raise> {
        self.known().values().filter(|raise| raise.until > now).cloned().collect()
    }

    /// What holds of an account.
    pub(super) fn lasting(&self, account: &str, now: Timestamp) -> Option<Raise> {
        self.known().get(account).filter(|raise| raise.until > now && !raise.ended).cloned()
    }

    /// The time of what is said now of an account: after all that is known, also where another gateway's clock is
    /// ahead.
    pub(super) fn time(&self, account: &str, now: Timestamp) -> i64 {
        let before = self.known().get(account).map_or(i64::MIN, |raise| raise.said);
        now.as_microsecond().max(before.saturating_add(1))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Raise>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use proptest::prelude::*;

    use super::*;

    fn raise(said: i64, limit: i64, ended: bool) -> Raise {
        Raise { account: "a".to_owned(), limit, until: Timestamp::UNIX_EPOCH + 1.hour(), said, ended }
    }

    proptest! {
        /// Gateways that hear the same in another order, and some of it twice, agree.
        #[test]
        fn what_was_said_last_holds_in_whatever_order_it_is_heard(
            said in prop::collection::vec((0_i64..5, 0_i64..3, any::<bool>()), 1..12),
            turn in any::<prop::sample::Index>(),
        ) {
            let (one, two, now) = (Raises::default(), Raises::default(), Timestamp::UNIX_EPOCH);
            let all: Vec<_> = said.into_iter().map(|(said, limit, ended)| raise(said, limit, ended)).collect();
            for raise in &all {
                one.learn(raise, now);
            }
            let (first, last) = all.split_at(turn.index(all.len()));
            for raise in last.iter().rev().chain(first).chain(&all) {
                two.learn(raise, now);
            }
            prop_assert_eq!(one.all(now), two.all(now));
            let next = one.time("a", now);
            prop_assert!(all.iter().all(|raise| raise.said < next));
        }
    }

    #[test]
    fn no_more_are_known_than_are_kept() {
        let (raises, now) = (Raises::default(), Timestamp::UNIX_EPOCH);
        let of = |number: usize, hours: i64| Raise {
            account: number.to_string(),
            until: now + hours.hours(),
            ..raise(1, 1, false)
        };
        assert!((0..MOST_RAISES).all(|number| raises.learn(&of(number, 1), now)));
        assert!(!raises.learn(&of(MOST_RAISES, 1), now));
        assert!(raises.learn(&of(MOST_RAISES, 3), now + 2.hours()), "those that are over make room");
        assert_eq!(raises.all(now + 2.hours()).len(), 1);
    }
}
