//! The ledger's tables, as the one who writes them sees them: rows by commit, requests that are still open, the index
//! of ids and the accounts' counters.
//!
//! A commit is one batch: its rows in as few values as may be, each under a number that is also its time; what is newly
//! open; and the counters that it moves. What is open is noted in groups and never taken out one by one: a row bears
//! the number of its admission, so what is open at a start is what is in a group and in no row behind it. Every few
//! seconds one group takes the place of all of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::frame::{self, Form, Frame, Frames};
use super::id;
use super::intent::Cut;
use super::row::Charge;
use super::waiting::{Note, Taken, added_up};
use crate::store::backend::{Batch, Direction, Pair, Span};
use crate::store::{Disk, StoreFault};

/// Rows, under the number of their commit.
pub(super) const ROWS: &[u8] = b"r";
/// Groups of requests that were open, under numbers of the same kind.
pub(super) const OPEN: &[u8] = b"o";
/// Numbers of commits, under ids that do not lead there.
pub(super) const IDS: &[u8] = b"i";
/// Counters, under their account and window.
pub(super) const COUNTERS: &[u8] = b"c";

/// How large a value becomes: sled keeps those over 128 KiB in files of their own, each with a flush of its own.
const MOST_VALUE: usize = 64 << 10;

/// How far behind its id's time a row may be and be found without an entry of its own: so many commits are looked
/// through.
const NEAR: Duration = Duration::from_secs(1);

/// How often one group takes the place of all.
const REGROUP: Duration = Duration::from_secs(10);

/// How many windows of an account are kept: a request settles in the window that it began in, which may be over.
const MOST_WINDOWS: usize = 4;

/// How long after its start a window is surely over and settled: the longest is a month.
const LONGEST_WINDOW: Duration = Duration::from_secs(62 * 86_400);

/// How many values are read at a time.
pub(super) const PAGE: usize = 64;

/// What each account was charged with, by window.
pub(super) type Counters = HashMap<Arc<str>, BTreeMap<i64, i64>>;

/// The tables.
pub(super) struct Books {
    disk: Arc<Disk>,
    /// The number given last.
    last: u64,
    groups: Vec<Vec<u8>>,
    regrouped: Instant,
    pub(super) counters: Arc<Mutex<Counters>>,
}

impl Books {
    /// Reads what a start needs, and writes rows for what was open when the process before ended.
    pub(super) fn open(disk: Arc<Disk>, counters: Arc<Mutex<Counters>>, now: Timestamp) -> Result<Self, StoreFault> {
        let last = [ROWS, OPEN].into_iter().map(|table| newest(&disk, table)).collect::<Result<Vec<_>, _>>()?;
        let last = last.into_iter().max().unwrap_or(0);
        *counters.lock().unwrap_or_else(PoisonError::into_inner) = read_counters(&disk)?;
        let mut books = Self { disk, last, groups: Vec::new(), regrouped: Instant::now(), counters };
        books.recover(now)?;
        books.forget_windows(now)?;
        Ok(books)
    }

    /// What the next commit should note of what is open.
    pub(super) fn note(&self) -> Note {
        if self.groups.len() > 1 && self.regrouped.elapsed() >= REGROUP { Note::All } else { Note::New }
    }

    /// One commit of what was `taken`; the same as `apply` wants it.
    pub(super) fn prepare(&mut self, taken: &mut Taken, note: Note, now: Timestamp) -> Prepared {
        let mut batch = Batch::default();
        if note == Note::All || taken.quiet {
            self.groups.drain(..).for_each(|group| batch.delete(group));
            self.regrouped = Instant::now();
        }
        for part in parts(&taken.intents) {
            let key = key(OPEN, self.number(now));
            batch.put(key.clone(), frame::value(Form::Note, part));
            self.groups.push(key);
        }
        self.put_rows(&mut batch, &taken.rows, now);
        let counted = self.count(&mut batch, added_up(mem::take(&mut taken.charges)));
        Prepared { batch, counted }
    }

    /// Writes it out. After an error the same may be written again.
    pub(super) fn commit(&self, prepared: &mut Prepared) -> Result<(), StoreFault> {
        if prepared.batch.is_empty() {
            return Ok(());
        }
        self.disk.commit(&prepared.batch)?;
        self.counters().extend(mem::take(&mut prepared.counted));
        Ok(())
    }

    /// Whether nothing was ever written.
    pub(super) fn is_new(&self) -> Result<bool, StoreFault> {
        Ok(newest(&self.disk, ROWS)? == 0)
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&mut self, now: Timestamp) -> u64 {
        self.last = micros(now).max(self.last.saturating_add(1));
        self.last
    }

    fn put_rows(&mut self, batch: &mut Batch, rows: &[u8], now: Timestamp) {
        for part in parts(rows) {
            let number = self.number(now);
            put_ids(batch, Frames::bare(Form::Row, part), number);
            batch.put(key(ROWS, number), frame::value(Form::Row, part));
        }
    }

    /// The accounts that are charged, as they will be; their oldest windows make room for new ones.
    fn count(&self, batch: &mut Batch, charges: Vec<Charge>) -> Counters {
        let mut counted = Counters::new();
        for Charge { account, window, amount } in charges {
            let kept = || self.counters().get(&account).cloned().unwrap_or_default();
            let windows = counted.entry(Arc::clone(&account)).or_insert_with(kept);
            let used = windows.entry(window).or_insert(0);
            *used = used.saturating_add(amount);
            batch.put(counter_key(&account, window), used.to_le_bytes());
            while windows.len() > MOST_WINDOWS
                && let Some((over, _)) = windows.pop_first()
            {
                batch.delete(counter_key(&account, over));
            }
        }
        counted
    }

    /// Rows for what was open when the process before ended without a word, and their charges. Of when that was no more
    /// is known than that it still wrote its newest commit.
    fn recover(&mut self, now: Timestamp) -> Result<(), StoreFault> {
        let groups = all(&self.disk, &Span::under(OPEN))?;
        let Some((first, _)) = groups.first() else { return Ok(()) };
        let ended = numbers_behind(&self.disk, number_of(first))?;
        let mut open = BTreeMap::new();
        for (_, value) in &groups {
            let frames = frame::decode_notes(value)?.filter(|frame| !ended.contains(&frame.number));
            open.extend(frames.map(|frame| (frame.number, frame)));
        }
        let mut batch = Batch::default();
        let ended = moment(self.last).unwrap_or(now);
        let (rows, charges): (Vec<_>, Vec<_>) = open.into_values().map(|noted| cut(&noted, ended)).unzip();
        self.put_rows(&mut batch, &rows.concat(), now);
        let counted = self.count(&mut batch, added_up(charges.concat()));
        groups.iter().for_each(|(key, _)| batch.delete(key.clone()));
        if !rows.is_empty() {
            tracing::warn!(
                requests = rows.len(),
                "these were open when the process before ended; each has its row now"
            );
        }
        // Rows, charges and the end of the notes are one batch, so nothing is charged twice, however often this is
        // tried.
        self.commit(&mut Prepared { batch, counted })
    }

    /// Takes windows away that are surely over. Windows of accounts that are charged make room for each other; this is
    /// for the accounts that no longer are.
    fn forget_windows(&self, now: Timestamp) -> Result<(), StoreFault> {
        let past = now.as_second().saturating_sub(i64::try_from(LONGEST_WINDOW.as_secs()).unwrap_or(i64::MAX));
        let mut batch = Batch::default();
        let mut counters = self.counters();
        for (account, windows) in &mut *counters {
            let over = |window: &i64| *window != 0 && *window < past;
            windows.keys().filter(|window| over(window)).for_each(|window| batch.delete(counter_key(account, *window)));
            windows.retain(|window, _| !over(window));
        }
        counters.retain(|_, windows| !windows.is_empty());
        drop(counters);
        if batch.is_empty() { Ok(()) } else { self.disk.commit(&batch) }
    }

    /// Takes rows away that were written before `before`, at most a page of them; whether there may be more.
    pub(super) fn prune(&self, before: Timestamp) -> Result<bool, StoreFault> {
        match old(&self.disk, before)? {
            Some(batch) => self.disk.commit(&batch).map(|()| true),
            None => Ok(false),
        }
    }
}

/// What an open request comes to: its row, framed, and its charges. A note that cannot be read, whose checksum is
/// right, is a mistake in this room; a start does not fail for it.
pub(super) fn cut(noted: &Frame<'_>, ended: Timestamp) -> (Vec<u8>, Vec<Charge>) {
    match Cut::read(noted, ended) {
        Ok(cut) => (cut.framed(noted.number), cut.charges),
        Err(error) => {
            tracing::error!(%error, "a request that was open has no row");
            Default::default()
        }
    }
}

/// A commit that is ready to be written.
#[derive(Default)]
pub(super) struct Prepared {
    batch: Batch,
    /// The accounts that it charges, as they will be.
    counted: Counters,
}

impl Prepared {
    /// Both in one. They charge no account in common.
    pub(super) fn join(&mut self, other: Self) {
        self.batch.changes.extend(other.batch.changes);
        self.counted.extend(other.counted);
    }
}

/// The key of the value with this number.
pub(super) fn key(table: &[u8], number: u64) -> Vec<u8> {
    [table, &number.to_be_bytes()].concat()
}

/// The number in such a key.
pub(super) fn number_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

/// Entries for the ids in the commit with this number that do not lead to it.
pub(super) fn put_ids(batch: &mut Batch, frames: Frames<'_>, number: u64) {
    for row in frames.filter(|frame| !leads_to(frame, number)).filter_map(|frame| frame.row().ok()) {
        batch.put(id_key(&row.request_id, &row.tenant), number.to_be_bytes());
    }
}

/// What takes away a page of rows that were written before `before`; `None` when there are none.
pub(super) fn old(disk: &Disk, before: Timestamp) -> Result<Option<Batch>, StoreFault> {
    let span = Span { from: ROWS.to_vec(), to: key(ROWS, micros(before)) };
    let mut batch = Batch::default();
    for (key, value) in disk.readable(&span, Direction::Up, PAGE)? {
        if let Ok(frames) = value.as_deref().map_err(drop).and_then(|value| frame::decode(value).map_err(drop)) {
            delete_ids(disk, &mut batch, number_of(&key), frames)?;
        }
        batch.delete(key);
    }
    Ok((!batch.is_empty()).then_some(batch))
}

fn delete_ids(disk: &Disk, batch: &mut Batch, number: u64, frames: Frames<'_>) -> Result<(), StoreFault> {
    for row in frames.filter(|frame| !leads_to(frame, number)).filter_map(|frame| frame.row().ok()) {
        // A caller may have used the id again, and the entry is the later one's then.
        let key = id_key(&row.request_id, &row.tenant);
        if disk.get(&key)?.as_deref() == Some(&number.to_be_bytes()) {
            batch.delete(key);
        }
    }
    Ok(())
}

/// Whether a row with this id is found by its id's time.
fn leads_to(frame: &Frame<'_>, number: u64) -> bool {
    let near = u64::try_from(NEAR.as_micros()).unwrap_or(u64::MAX);
    frame.begun.and_then(|begun| number.checked_sub(begun)).is_some_and(|behind| behind <= near)
}

/// Where the rows with this id may be, if it is of our own form.
pub(super) fn near(id: &str) -> Option<Span> {
    let begun = id::micros(id)?;
    let near = u64::try_from(NEAR.as_micros()).unwrap_or(u64::MAX);
    Some(Span { from: key(ROWS, begun), to: key(ROWS, begun.saturating_add(near).saturating_add(1)) })
}

/// The key of an id's entry. Ids that callers choose hold no byte 0.
pub(super) fn id_key(id: &str, tenant: &str) -> Vec<u8> {
    [id_prefix(id).as_slice(), tenant.as_bytes()].concat()
}

/// What the keys of an id's entries begin with.
pub(super) fn id_prefix(id: &str) -> Vec<u8> {
    [IDS, id.as_bytes(), &[0]].concat()
}

fn counter_key(account: &str, window: i64) -> Vec<u8> {
    [COUNTERS, account.as_bytes(), &[0], &window.to_be_bytes()].concat()
}

/// The time that a commit's number stands for.
pub(super) fn moment(number: u64) -> Option<Timestamp> {
    i64::try_from(number).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok())
}

pub(super) fn micros(now: Timestamp) -> u64 {
    u64::try_from(now.as_microsecond()).unwrap_or(0)
}

fn newest(disk: &Disk, table: &[u8]) -> Result<u64, StoreFault> {
    // Damage is met by those who read the value; its key is enough here.
    let newest = disk.readable(&Span::under(table), Direction::Down, 1)?;
    Ok(newest.first().map_or(0, |(key, _)| number_of(key)))
}

/// All pairs of `span`.
fn all(disk: &Disk, span: &Span) -> Result<Vec<Pair>, StoreFault> {
    disk.range(span, Direction::Up, usize::MAX)
}

/// The numbers of admissions that have rows in commits from `first` on.
fn numbers_behind(disk: &Disk, first: u64) -> Result<HashSet<u64>, StoreFault> {
    let mut numbers = HashSet::new();
    let mut span = Span { from: key(ROWS, first), ..Span::under(ROWS) };
    loop {
        let page = disk.range(&span, Direction::Up, PAGE)?;
        for (_, value) in &page {
            numbers.extend(frame::decode(value)?.map(|frame| frame.number));
        }
        match page.last() {
            Some((last, _)) => span = span.after(last),
            None => return Ok(numbers),
        }
    }
}

fn read_counters(disk: &Disk) -> Result<Counters, StoreFault> {
    let mut counters = Counters::new();
    for (key, value) in all(disk, &Span::under(COUNTERS))? {
        let (account, window, amount) = counter(&key, &value)
            .ok_or_else(|| StoreFault::Damaged(format!("{} is no counter", key.escape_ascii())))?;
        counters.entry(account.into()).or_default().insert(window, amount);
    }
    Ok(counters)
}

pub(super) fn counter<'k>(key: &'k [u8], value: &[u8]) -> Option<(&'k str, i64, i64)> {
    let (name, window) = key.strip_prefix(COUNTERS)?.split_last_chunk()?;
    let account = std::str::from_utf8(name.strip_suffix(&[0])?).ok()?;
    Some((account, i64::from_be_bytes(*window), i64::from_le_bytes(value.try_into().ok()?)))
}

/// Frames cut into parts of about the size that a value may have.
fn parts(frames: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut rest, mut length) = (frames, 0);
    for frame in Frames::bare(Form::Row, frames) {
        if length > 0 && length + frame.whole.len() > MOST_VALUE {
            let (part, behind) = rest.split_at(length);
            parts.push(part);
            (rest, length) = (behind, 0);
        }
        length += frame.whole.len();
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}
