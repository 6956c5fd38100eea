//! A ledger as lines of JSON, out and in: to look at, to keep, to carry to another store.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::books::{self, Books, Prepared, ROWS};
use super::row::{Charge, Row};
use super::volumes::commits;
use super::waiting::{Note, Taken};
use super::{flat, frame};
use crate::budget::Raise;
use crate::store::backend::{Direction, Span};
use crate::store::{Served, Store, StoreFault};

/// How many bytes of rows are written at a time.
const MOST_BYTES: usize = 1 << 20;

/// Why a ledger cannot be written out or read in.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The other end.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line that is none of a ledger.
    #[error("line {line}: {error}")]
    Line {
        /// Which one, from 1 on.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The store holds a ledger.
    #[error("it has a ledger already; import into a new one")]
    NotEmpty,
}

/// One line. It has one of these.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    row: Option<Row<'a>>,
    /// When the row was written, which is what questions of a time go by.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_at: Option<Timestamp>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    counter: Option<Counter<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    served: Option<Served>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raise: Option<Raise>,
}

/// What an account is charged with in one window.
#[derive(Debug, Serialize, Deserialize)]
struct Counter<'a> {
    account: Cow<'a, str>,
    window: i64,
    amount: i64,
}

/// Writes everything out, the oldest first. What was open when the process before ended has its row after that.
///
/// # Errors
/// The store cannot be read, or `out` not be written.
pub fn export(store: &Store, out: &mut impl Write) -> Result<(), ArchiveFault> {
    let counters = Arc::default();
    Books::open(Arc::clone(store.disk()), Arc::clone(&counters), Timestamp::now())?;
    let mut line = |line: &Line<'_>| -> io::Result<()> {
        serde_json::to_writer(&mut *out, line)?;
        out.write_all(b"\n")
    };
    for served in store.history()?.into_iter().rev() {
        line(&Line { served: Some(served), ..Line::default() })?;
    }
    for raise in store.disk().raises(Timestamp::now())? {
        line(&Line { raise: Some(raise), ..Line::default() })?;
    }
    let mut charges = flat(&counters);
    charges.sort_unstable_by(|a, b| (&a.account, a.window).cmp(&(&b.account, b.window)));
    for Charge { account, window, amount } in charges {
        let counter = Counter { account: Cow::Borrowed(&account), window, amount };
        line(&Line { counter: Some(counter), ..Line::default() })?;
    }
    let broken = commits(store.disk(), Span::under(ROWS), Direction::Up, |number, value| {
        let written_at = books::moment(number);
        for frame in frame::decode(value)? {
            let row = Some(frame.row()?);
            if let Err(error) = line(&Line { row, written_at, ..Line::default() }) {
                return Ok(ControlFlow::Break(error));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    broken.map_or_else(|| Ok(out.flush()?), |error| Err(error.into()))
}

/// Reads such lines into a store that holds no ledger; how many rows there were.
///
/// # Errors
/// A line is none of a ledger, the store is not empty, or cannot be written. What came before is in it then.
pub fn import(store: &Store, lines: impl BufRead) -> Result<u64, ArchiveFault> {
    let counters = Arc::default();
    let books = Books::open(Arc::clone(store.disk()), Arc::clone(&counters), Timestamp::now())?;
    if !books.is_new()? || !flat(&counters).is_empty() {
        return Err(ArchiveFault::NotEmpty);
    }
    let mut import =
        Import { books, taken: Taken::default(), at: Timestamp::UNIX_EPOCH, prepared: Prepared::default(), length: 0 };
    let (mut rows, mut charges) = (0, Vec::new());
    for (number, text) in lines.lines().enumerate() {
        let text = text?;
        let line: Line<'_> =
            serde_json::from_str(&text).map_err(|error| ArchiveFault::Line { line: number + 1, error })?;
        if let Some(row) = line.row {
            import.row(&row, line.written_at.unwrap_or(row.started_at))?;
            rows += 1;
        }
        charges.extend(line.counter.map(|Counter { account, window, amount }| Charge {
            account: account.into(),
            window,
            amount,
        }));
        if let Some(raise) = line.raise {
            store.disk().keep_raise(&raise, Timestamp::now())?;
        }
        line.served.into_iter().for_each(|served| store.served(served));
    }
    import.end(charges)?;
    Ok(rows)
}

/// Rows on their way in.
struct Import {
    books: Books,
    /// Rows of one commit, and its time.
    taken: Taken,
    at: Timestamp,
    /// Commits that wait to be written together.
    prepared: Prepared,
    length: usize,
}

impl Import {
    fn row(&mut self, row: &Row<'_>, at: Timestamp) -> Result<(), StoreFault> {
        if at != self.at {
            self.prepare();
            self.at = at;
        }
        let frame = frame::encode(frame::NO_NUMBER, row);
        self.length += frame.len();
        self.taken.rows.extend_from_slice(&frame);
        if self.length >= MOST_BYTES {
            self.prepare();
            self.write()?;
        }
        Ok(())
    }

    fn prepare(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.prepared.join(self.books.prepare(&mut taken, Note::New, self.at));
    }

    fn write(&mut self) -> Result<(), StoreFault> {
        self.length = 0;
        self.books.commit(&mut std::mem::take(&mut self.prepared))
    }

    fn end(mut self, charges: Vec<Charge>) -> Result<(), StoreFault> {
        self.taken.charges = charges;
        self.prepare();
        self.write()
    }
}
