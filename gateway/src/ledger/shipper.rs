//! The thread that copies what is committed to where the other gateways read it, in order and some commits at a time.
//!
//! How far it came stands in the copy itself, in a mark that is written with the rows: a copy that was lost, or fell
//! back, is filled again from there with what the ledger has, and what is copied twice is written once. One that was
//! lost between a look at it and a write has a mark but no format: that mark says nothing of what was lost.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::books::{self, ROWS};
use super::fleet::{Fleet, State};
use super::frame;
use crate::store::backend::{Backend, Batch, Direction, Span};
use crate::store::{Disk, StoreFault, format, unsealed};
use crate::vital;

/// Where the copy has the number of its newest commit.
const SHIPPED: &[u8] = b"shipped";

/// How many commits are copied at a time, each of 64 KiB at most: this is all the memory that copying takes.
const PAGE: usize = 16;

/// How long commits are gathered before they are copied together.
const GATHER: Duration = Duration::from_millis(50);

/// How often a copy is looked at when nothing is to be copied: it may have been lost.
const LOOK: Duration = Duration::from_secs(2);

/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the copy is said to be there, and what is too old is taken out of it.
const TEND: Duration = Duration::from_secs(60);

/// For how long a refusal is not told: a Redis that starts refuses for a while.
const SILENT: Duration = Duration::from_secs(10);

/// How long the end of the process waits for what is left to be copied.
const FAREWELL: Duration = Duration::from_secs(2);

/// Copies a ledger.
pub(super) struct Shipper {
    disk: Arc<Disk>,
    fleet: Arc<dyn Fleet>,
    retention: Duration,
    bell: Arc<Bell>,
    /// The number of the newest commit in the copy; `None` while that has not been looked at.
    shipped: Option<u64>,
    tended: Option<Instant>,
    health: Health,
}

/// A thread that copies.
#[derive(Debug)]
pub(super) struct Shipping {
    bell: Arc<Bell>,
    ended: Receiver<()>,
}

/// Wakes the thread.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Rung {
    #[default]
    Not,
    /// Something was committed.
    Committed,
    /// The ledger is closed.
    Closing,
}

impl Bell {
    /// Something was committed.
    pub(super) fn ring(&self) {
        self.be(Rung::Committed);
    }

    fn be(&self, rung: Rung) {
        let mut now = self.rung();
        *now = rung.max(*now);
        drop(now);
        self.changed.notify_one();
    }

    /// Waits for it to be rung, so long at most; how it was then.
    fn wait(&self, most: Duration) -> Rung {
        let waited = self.changed.wait_timeout_while(self.rung(), most, |rung| *rung == Rung::Not);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let was = *rung;
        if was == Rung::Committed {
            *rung = Rung::Not;
        }
        was
    }

    /// Lets time pass, but no more once the ledger is closed.
    fn pause(&self, most: Duration) {
        let waited = self.changed.wait_timeout_while(self.rung(), most, |rung| *rung != Rung::Closing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn is_closing(&self) -> bool {
        *self.rung() == Rung::Closing
    }

    fn rung(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shipping {
    /// Copies what is left, for a moment at most: what does not come through is copied after the next start.
    pub(super) fn close(self) {
        self.bell.be(Rung::Closing);
        if self.ended.recv_timeout(FAREWELL).is_err() {
            tracing::debug!("the last rows are not copied yet");
        }
    }
}

impl Shipper {
    pub(super) fn new(disk: Arc<Disk>, fleet: Arc<dyn Fleet>, retention: Duration, bell: Arc<Bell>) -> Self {
        Self { disk, fleet, retention, bell, shipped: None, tended: None, health: Health::default() }
    }

    /// Copies on a thread of its own.
    pub(super) fn start(mut self) -> Result<Shipping, StoreFault> {
        let (end, ended): (SyncSender<()>, _) = sync_channel(1);
        let bell = Arc::clone(&self.bell);
        let run = move || {
            self.run();
            let _nobody_may_wait = end.try_send(());
        };
        vital::tireless("shipper", run)?;
        Ok(Shipping { bell, ended })
    }

    fn run(&mut self) {
        loop {
            let done = self.round(Timestamp::now());
            if self.bell.is_closing() {
                return;
            }
            self.health.judge(&done);
            let (look, gather) = if done.is_ok() { (LOOK, GATHER) } else { (AGAIN, AGAIN) };
            if self.bell.wait(look) != Rung::Not {
                self.bell.pause(gather);
            }
        }
    }

    /// Copies all that is not in the copy.
    pub(super) fn round(&mut self, now: Timestamp) -> Result<(), StoreFault> {
        if !self.disk.is_open() {
            // The process before still writes this ledger, and copies it.
            return Err(StoreFault::Away);
        }
        let copy = self.fleet.own();
        let marked = whole_mark(&*copy)?;
        match (self.shipped, marked) {
            // An answer that did not come may have been of a batch that was written.
            (Some(shipped), Some(marked)) if marked >= shipped => self.shipped = Some(marked),
            _ => self.begin(&*copy, marked, now)?,
        }
        loop {
            let begun = Instant::now();
            if !self.ship(&*copy)? {
                break;
            }
            // A copy that is filled from its beginning leaves half of the time to others.
            self.bell.pause(begun.elapsed());
        }
        if self.tended.is_none_or(|tended| tended.elapsed() >= TEND) {
            self.tend(copy, now)?;
        }
        Ok(())
    }

    /// What was copied before is there, or some of it, or nothing.
    fn begin(&mut self, copy: &dyn Backend, marked: Option<u64>, now: Timestamp) -> Result<(), StoreFault> {
        format::begun(copy)?;
        self.fleet.note(State::Filling, self.retention, now)?;
        if marked.is_none() {
            let mut batch = Batch::default();
            batch.put(SHIPPED, 0_u64.to_be_bytes());
            copy.apply(&batch)?;
        }
        (self.shipped, self.tended) = (Some(marked.unwrap_or(0)), None);
        Ok(())
    }

    /// Copies the next commits; whether there may be more.
    fn ship(&mut self, copy: &dyn Backend) -> Result<bool, StoreFault> {
        let next = self.shipped.map_or(0, |shipped| shipped.saturating_add(1));
        let page =
            self.disk.readable(&Span { from: books::key(ROWS, next), ..Span::under(ROWS) }, Direction::Up, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(false) };
        let (newest, more) = (books::number_of(last), page.len() == PAGE);
        let mut batch = Batch::default();
        // What is damaged cannot be copied; those who read it here say so.
        for (key, value) in page.into_iter().filter_map(|(key, value)| Some((key, value.ok()?))) {
            if let Ok(frames) = frame::decode(&value) {
                books::put_ids(&mut batch, frames, books::number_of(&key));
            }
            batch.put(key, value);
        }
        batch.put(SHIPPED, newest.to_be_bytes());
        copy.apply(&batch)?;
        self.shipped = Some(newest);
        Ok(more)
    }

    fn tend(&mut self, copy: Arc<dyn Backend>, now: Timestamp) -> Result<(), StoreFault> {
        self.fleet.note(State::Whole, self.retention, now)?;
        if let Ok(before) = now.checked_sub(self.retention) {
            let old = Disk::reading(Arc::clone(&copy));
            while let Some(batch) = books::old(&old, before)? {
                copy.apply(&batch)?;
            }
        }
        self.tended = Some(Instant::now());
        Ok(())
    }
}

/// How far a copy came that has lost nothing; one that has is emptied.
fn whole_mark(copy: &dyn Backend) -> Result<Option<u64>, StoreFault> {
    let marked = marked(copy)?;
    if marked.is_none() || format::is_begun(copy)? {
        return Ok(marked);
    }
    empty(copy)?;
    Ok(None)
}

fn empty(copy: &dyn Backend) -> Result<(), StoreFault> {
    let everything = Span { from: Vec::new(), to: vec![u8::MAX] };
    loop {
        let page = copy.range(&everything, Direction::Up, PAGE)?;
        if page.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        page.into_iter().for_each(|(key, _)| batch.delete(key));
        copy.apply(&batch)?;
    }
}

fn marked(copy: &dyn Backend) -> Result<Option<u64>, StoreFault> {
    Ok(unsealed(copy, SHIPPED)?.and_then(|number| number.try_into().ok()).map(u64::from_be_bytes))
}

/// Tells, once, that copies are refused, and once that they no longer are. That a Redis cannot be reached is told by
/// those who share limits by it.
#[derive(Debug, Default)]
struct Health {
    refused: Option<Instant>,
    told: bool,
}

impl Health {
    fn judge(&mut self, done: &Result<(), StoreFault>) {
        match done {
            Ok(()) => {
                if std::mem::take(self).told {
                    tracing::warn!("the other gateways see this one's rows again");
                }
            }
            Err(StoreFault::Unreached(_) | StoreFault::Away | StoreFault::Closed) => {}
            Err(error) => {
                let since = *self.refused.get_or_insert_with(Instant::now);
                if since.elapsed() >= SILENT && !std::mem::replace(&mut self.told, true) {
                    tracing::error!(%error, "redis does not take this gateway's rows: the others do not see them");
                }
            }
        }
    }
}
