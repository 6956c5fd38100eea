//! Limits of budgets that were raised for a while, until that is over. Whoever raises one waits for the disk, so that
//! what was promised outlives a crash.

use jiff::Timestamp;

use super::backend::{Batch, Direction, Span};
use super::disk::Disk;
use super::{StoreFault, failed};
use crate::budget::{MOST_RAISES, Raise};

/// The table's prefix.
const TABLE: &[u8] = b"b";

/// The raise that is kept under `key`, if it is one.
///
/// # Errors
/// It cannot be understood.
pub fn kept_raise(key: &[u8], value: &[u8]) -> Result<Option<Raise>, StoreFault> {
    if key.starts_with(TABLE) { read(value).map(Some) } else { Ok(None) }
}

impl Disk {
    /// Keeps a raise, in the place of what was kept for its account; those that are over go. Blocks.
    ///
    /// # Errors
    /// It cannot be written, or there are too many.
    pub fn keep_raise(&self, raise: &Raise, now: Timestamp) -> Result<(), StoreFault> {
        let own = [TABLE, raise.account.as_bytes()].concat();
        let mut batch = Batch::default();
        let mut others = 0;
        for (key, value) in self.range(&Span::under(TABLE), Direction::Up, usize::MAX)? {
            match read(&value) {
                Ok(kept) if kept.until > now => others += usize::from(key != own),
                Ok(_) | Err(_) => batch.delete(key),
            }
        }
        if others >= MOST_RAISES {
            return Err(failed(format!("it keeps {MOST_RAISES} raised limits already")));
        }
        batch.put(own, serde_json::to_vec(raise).map_err(failed)?);
        self.commit(&batch)
    }

    /// The raises whose time is not over, those that ended before it too. Blocks.
    ///
    /// # Errors
    /// The store is not there, or cannot be read.
    pub fn raises(&self, now: Timestamp) -> Result<Vec<Raise>, StoreFault> {
        let kept = self.range(&Span::under(TABLE), Direction::Up, MOST_RAISES)?;
        let mut kept = kept.iter().map(|(_, value)| read(value)).collect::<Result<Vec<_>, _>>()?;
        kept.retain(|raise| raise.until > now);
        Ok(kept)
    }
}

fn read(value: &[u8]) -> Result<Raise, StoreFault> {
    serde_json::from_slice(value).map_err(|error| StoreFault::Damaged(format!("a raised limit: {error}")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use jiff::ToSpan as _;

    use super::*;
    use crate::store::memory::Memory;

    #[test]
    fn a_raise_is_kept_over_a_crash_until_it_is_over_and_a_later_one_replaces_it() {
        let (memory, now) = (Memory::default(), Timestamp::UNIX_EPOCH);
        let raise = |account: &str, limit, hours: i64| Raise {
            account: account.to_owned(),
            limit,
            until: now + hours.hours(),
            said: 1,
            ended: false,
        };
        let disk = memory.disk();
        for raise in [raise("a", 1, 1), raise("b", 2, 3), raise("a", 3, 2)] {
            disk.keep_raise(&raise, now).unwrap();
        }
        let after = memory.disk();
        assert_eq!(after.raises(now).unwrap(), [raise("a", 3, 2), raise("b", 2, 3)]);
        assert_eq!(after.raises(now + 2.hours()).unwrap(), [raise("b", 2, 3)]);
        after.keep_raise(&raise("c", 4, 9), now + 2.hours()).unwrap();
        assert_eq!(after.raises(now).unwrap(), [raise("b", 2, 3), raise("c", 4, 9)]);
    }

    #[test]
    fn one_of_very_many_can_still_be_ended() {
        let (disk, now) = (Memory::default().disk(), Timestamp::UNIX_EPOCH);
        let raise = |account: usize, limit| Raise {
            account: account.to_string(),
            limit,
            until: now + 1.hours(),
            said: 1,
            ended: false,
        };
        let mut batch = Batch::default();
        for account in 0..MOST_RAISES {
            batch
                .put([TABLE, account.to_string().as_bytes()].concat(), serde_json::to_vec(&raise(account, 1)).unwrap());
        }
        disk.commit(&batch).unwrap();
        assert!(disk.keep_raise(&raise(MOST_RAISES, 1), now).is_err());
        disk.keep_raise(&Raise { ended: true, ..raise(7, 1) }, now).unwrap();
        assert_eq!(disk.raises(now).unwrap().iter().filter(|raise| raise.ended).count(), 1);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let memory = Memory::default();
        let disk = memory.disk();
        memory.refuse(true);
        let raise = Raise { account: "a".to_owned(), limit: 1, until: Timestamp::MAX, said: 1, ended: false };
        assert!(disk.keep_raise(&raise, Timestamp::UNIX_EPOCH).is_err());
        memory.refuse(false);
        assert_eq!(memory.disk().raises(Timestamp::UNIX_EPOCH).unwrap(), []);
    }
}
