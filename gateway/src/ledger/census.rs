//! What a store holds of a ledger, counted, each value read as those read it who need it.

use jiff::Timestamp;

use super::books::{self, COUNTERS, IDS, OPEN, ROWS};
use super::frame;
use super::intent::Cut;
use crate::store::StoreFault;

/// How much there is of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Rows.
    pub rows: u64,
    /// The commits that they are in.
    pub commits: u64,
    /// When the first of them was written, and the last.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Requests that were noted as open.
    pub open: u64,
    /// Entries of the index of ids.
    pub ids: u64,
    /// Counters of accounts.
    pub counters: u64,
}

impl Census {
    /// Counts one value; whether it is the ledger's.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn count(&mut self, key: &[u8], value: &[u8]) -> Result<bool, StoreFault> {
        let damaged = || StoreFault::Damaged(format!("what is under {} cannot be understood", key.escape_ascii()));
        match key.get(..1) {
            Some(ROWS) => self.rows += self.commit(books::number_of(key), value)?,
            Some(OPEN) => self.open += notes(value)?,
            Some(IDS) => self.ids += <[u8; 8]>::try_from(value).map(|_| 1).map_err(|_| damaged())?,
            Some(COUNTERS) => self.counters += books::counter(key, value).map(|_| 1).ok_or_else(damaged)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn commit(&mut self, number: u64, value: &[u8]) -> Result<u64, StoreFault> {
        self.commits += 1;
        if let Some(at) = books::moment(number) {
            self.span = Some(self.span.map_or((at, at), |(first, _)| (first, at)));
        }
        rows(value)
    }
}

/// How many open requests a value notes; each is read.
fn notes(value: &[u8]) -> Result<u64, StoreFault> {
    frame::decode_notes(value)?.try_fold(0, |count, frame| Cut::read(&frame, Timestamp::UNIX_EPOCH).map(|_| count + 1))
}

/// How many rows a value holds; each is read.
fn rows(value: &[u8]) -> Result<u64, StoreFault> {
    frame::decode(value)?.try_fold(0, |count, frame| frame.row().map(|_| count + 1))
}
