//! The thread that commits: as a group, every so often, and as long as it takes when the disk refuses.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::books::{Books, Counters, Prepared};
use super::shipper::Bell;
use super::waiting::{Waiting, Woken};
use super::{Lost, Settings};
use crate::store::{Disk, StoreFault};

/// How long to wait before a disk that refused is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often rows that are too old are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// What the thread works with.
pub(super) struct Writer {
    pub(super) disk: Arc<Disk>,
    pub(super) waiting: Arc<Waiting>,
    pub(super) counters: Arc<Mutex<Counters>>,
    pub(super) lost: Arc<Lost>,
    pub(super) bell: Arc<Bell>,
    pub(super) settings: Settings,
}

impl Writer {
    /// Opens the tables, and has `restore` read what the accounts were charged with: at once, or, while another process
    /// still has the store, as the first part of the thread's work, which this gives.
    pub(super) fn begin(self, restore: impl FnOnce() + Send + 'static) -> Result<Box<dyn FnOnce() + Send>, StoreFault> {
        match self.open() {
            Ok(books) => {
                restore();
                Ok(Box::new(move || self.run(books)))
            }
            Err(StoreFault::Away) => Ok(Box::new(move || match self.open_when_free() {
                Ok(books) => {
                    restore();
                    self.run(books);
                }
                Err(error) => tracing::error!(%error, "the ledger cannot be opened; nothing is kept"),
            })),
            Err(error) => Err(error),
        }
    }

    fn open(&self) -> Result<Books, StoreFault> {
        Books::open(Arc::clone(&self.disk), Arc::clone(&self.counters), Timestamp::now())
    }

    /// Once the process before has let the store go.
    fn open_when_free(&self) -> Result<Books, StoreFault> {
        self.disk.wait_until_open()?;
        self.open()
    }

    /// Commits until the ledger is closed.
    fn run(&self, mut books: Books) {
        let mut took = Duration::ZERO;
        let mut pruned: Option<Instant> = None;
        loop {
            let woken = self.waiting.wait(PRUNE_EVERY);
            let woken = match woken {
                // The time that a commit takes is part of the time that is promised.
                Woken::Since(since) => self.waiting.pause(self.rest(since, took)),
                other => other,
            };
            let begun = Instant::now();
            self.commit(&mut books);
            took = begun.elapsed();
            if woken == Woken::Closing {
                return;
            }
            if pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNE_EVERY) {
                pruned = self.prune(&books).then(Instant::now);
            }
        }
    }

    fn rest(&self, since: Instant, took: Duration) -> Duration {
        self.settings.commit_within.saturating_sub(took).saturating_sub(since.elapsed())
    }

    fn commit(&self, books: &mut Books) {
        let note = books.note();
        let mut taken = self.waiting.take(note);
        self.lost.add(taken.lost);
        let mut prepared = books.prepare(&mut taken, note, Timestamp::now());
        self.waiting.reuse(taken.rows);
        if self.write(books, &mut prepared) {
            self.waiting.committed();
            self.bell.ring();
        }
    }

    /// Writes until it is written; at the end of the process a refusal is final.
    fn write(&self, books: &Books, prepared: &mut Prepared) -> bool {
        loop {
            // The store has said what is wrong.
            let Err(_said) = books.commit(prepared) else { return true };
            if self.waiting.pause(AGAIN) == Woken::Closing {
                let last = books.commit(prepared);
                return last.inspect_err(|error| tracing::error!(%error, "the last rows are lost")).is_ok();
            }
        }
    }

    /// Takes a page of what is too old away; whether that was all.
    fn prune(&self, books: &Books) -> bool {
        let Ok(before) = Timestamp::now().checked_sub(self.settings.retention) else { return true };
        match books.prune(before) {
            Ok(more) => !more,
            Err(error) => {
                tracing::warn!(%error, "old rows of the ledger cannot be taken away");
                true
            }
        }
    }
}
