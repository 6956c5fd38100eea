//! What waits for the next commit: one bounded buffer behind one short lock.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::frame;
use super::overflow::Overflow;
use super::row::Charge;

/// How many bytes of rows may wait: some 300,000 rows, so minutes of a disk that is full. Those behind are added up.
const MOST_BYTES: usize = 64 << 20;

/// How large a buffer is kept for the next rows.
const MOST_SPARE: usize = 4 << 20;

/// From how many charges on those of one account are added up.
const MANY_CHARGES: usize = 16_384;

/// The buffer, and the bell that wakes who commits it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Buffer {
    /// The number of the next admission.
    next: u64,
    /// What is open, by its number, as the row that it becomes if nothing more is heard of it. Each is held by a
    /// request that is being served, so there are no more than those.
    open: BTreeMap<u64, Vec<u8>>,
    /// The first number that no commit has noted yet.
    unnoted: u64,
    /// What is open and was noted, but otherwise than it is now.
    renewed: BTreeSet<u64>,
    rows: Vec<u8>,
    /// What rows were in before the last commit, empty.
    spare: Vec<u8>,
    charges: Vec<Charge>,
    /// From how many charges on they are added up next.
    many: usize,
    /// Rows that the buffer had no room for.
    overflow: Overflow,
    since: Option<Instant>,
    /// From when on what is being committed has waited.
    committing: Option<Instant>,
    closing: bool,
}

/// What goes into one commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Framed rows.
    pub(super) rows: Vec<u8>,
    pub(super) charges: Vec<Charge>,
    /// Framed rows of requests that are still open.
    pub(super) intents: Vec<u8>,
    /// Whether nothing is open.
    pub(super) quiet: bool,
    /// How many requests have no row of their own.
    pub(super) lost: u64,
}

/// Which of the open requests a commit notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Those that no commit has noted as they are now.
    New,
    /// All of them.
    All,
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something waits since then.
    Since(Instant),
    /// Nothing came.
    Idle,
    /// The ledger is to be closed.
    Closing,
}

impl Waiting {
    /// Something begins; `frame` is what is written of it if nothing more is heard.
    pub(super) fn open(&self, mut frame: Vec<u8>) -> u64 {
        let mut buffer = self.buffer();
        let number = buffer.next;
        buffer.next += 1;
        frame::renumber(&mut frame, number);
        buffer.open.insert(number, frame);
        self.ring(buffer);
        number
    }

    /// Of what is open, `frame` is written if nothing more is heard.
    pub(super) fn renew(&self, number: u64, mut frame: Vec<u8>) {
        frame::renumber(&mut frame, number);
        let mut buffer = self.buffer();
        let Some(intent) = buffer.open.get_mut(&number) else { return };
        *intent = frame;
        if number < buffer.unnoted {
            buffer.renewed.insert(number);
            self.ring(buffer);
        }
    }

    /// It has ended as `frame` says.
    pub(super) fn finish(&self, number: u64, frame: &[u8], charges: impl IntoIterator<Item = Charge>) {
        let mut buffer = self.buffer();
        let _intent = buffer.open.remove(&number);
        buffer.renewed.remove(&number);
        buffer.charge(charges);
        buffer.add(frame);
        self.ring(buffer);
    }

    /// What would be written of `number`.
    pub(super) fn intent(&self, number: u64) -> Option<Vec<u8>> {
        self.buffer().open.get(&number).cloned()
    }

    fn ring(&self, mut buffer: MutexGuard<'_, Buffer>) {
        if buffer.since.is_none() {
            buffer.since = Some(Instant::now());
            drop(buffer);
            self.changed.notify_one();
        }
    }

    /// Waits until something waits, at most so long.
    pub(super) fn wait(&self, most: Duration) -> Woken {
        let idle = |buffer: &mut Buffer| buffer.since.is_none() && !buffer.closing;
        let waited = self.changed.wait_timeout_while(self.buffer(), most, idle);
        let (buffer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (buffer.closing, buffer.since) {
            (true, _) => Woken::Closing,
            (false, Some(since)) => Woken::Since(since),
            (false, None) => Woken::Idle,
        }
    }

    /// Lets time pass, but no more once the ledger is to be closed.
    pub(super) fn pause(&self, most: Duration) -> Woken {
        let waited = self.changed.wait_timeout_while(self.buffer(), most, |buffer| !buffer.closing);
        let (buffer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if buffer.closing { Woken::Closing } else { Woken::Idle }
    }

    /// Takes what waits. It counts as waiting until [`committed`](Self::committed).
    pub(super) fn take(&self, note: Note) -> Taken {
        self.buffer().take(note)
    }

    /// What was taken is safe.
    pub(super) fn committed(&self) {
        self.buffer().committing = None;
    }

    /// Gives `rows` back, to be filled again: a buffer that grows anew for each commit costs more than all else.
    pub(super) fn reuse(&self, mut rows: Vec<u8>) {
        if rows.capacity() <= MOST_SPARE {
            rows.clear();
            self.buffer().spare = rows;
        }
    }

    /// For how long the oldest that waits has waited.
    pub(super) fn lag(&self) -> Duration {
        let buffer = self.buffer();
        buffer.committing.or(buffer.since).map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(super) fn close(&self) {
        self.buffer().closing = true;
        self.changed.notify_all();
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    fn add(&mut self, frame: &[u8]) {
        if self.rows.len() + frame.len() > MOST_BYTES {
            self.overflow.add(frame);
        } else {
            self.rows.extend_from_slice(frame);
        }
    }

    /// Charges are kept whatever becomes of the rows: a budget must not grow because a disk is full.
    fn charge(&mut self, charges: impl IntoIterator<Item = Charge>) {
        self.charges.extend(charges);
        if self.charges.len() >= self.many.max(MANY_CHARGES) {
            self.charges = added_up(mem::take(&mut self.charges));
            // So that many accounts are not added up for each charge again.
            self.many = 2 * self.charges.len();
        }
    }

    /// What is to be noted of what is open.
    fn intents(&self, note: Note) -> Vec<u8> {
        let (from, renewed) = match note {
            Note::All => (0, None),
            Note::New => (self.unnoted, Some(&self.renewed)),
        };
        let renewed = renewed.into_iter().flatten().filter_map(|number| self.open.get(number));
        let new = self.open.range(from..).map(|(_, intent)| intent);
        renewed.chain(new).map(Vec::as_slice).collect::<Vec<_>>().concat()
    }

    fn take(&mut self, note: Note) -> Taken {
        let intents = self.intents(note);
        self.unnoted = self.next;
        self.renewed.clear();
        self.committing = self.since.take();
        let (lost, sums) = self.overflow.take();
        self.rows.extend_from_slice(&sums);
        Taken {
            rows: mem::replace(&mut self.rows, mem::take(&mut self.spare)),
            charges: mem::take(&mut self.charges),
            intents,
            quiet: self.open.is_empty(),
            lost,
        }
    }
}

/// One charge for each account and window.
pub(super) fn added_up(mut charges: Vec<Charge>) -> Vec<Charge> {
    charges.sort_unstable_by(|a, b| (&a.account, a.window).cmp(&(&b.account, b.window)));
    charges.dedup_by(|next, kept| {
        let same = (&next.account, next.window) == (&kept.account, kept.window);
        if same {
            kept.amount = kept.amount.saturating_add(next.amount);
        }
        same
    });
    charges
}
