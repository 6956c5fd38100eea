//! The embedded backend: sled in a folder, all of it in one tree, since a batch is atomic within one tree.

mod journal;
mod look;
mod mark;
pub(super) mod salvage;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sled::{Config, Db};

use self::journal::Journal;
use self::mark::Mark;
use super::backend::{Backend, Batch, Change, Direction, Pair, Span};
use super::{StoreFault, failed, seal};

/// What sled may cache; its own default is a gigabyte.
const CACHE: u64 = 8 * 1024 * 1024;

/// How long the journal may become before sled writes everything out.
const MOST_JOURNAL: u64 = 4 << 20;

/// Where the number of the newest batch is, behind all that may be asked for.
pub(super) const NEWEST: &[u8] = b"\xffnewest";

/// Lets sled make its counters, which nobody reads, of memory that was never written to: it stays the kernel's. Of
/// memory that was in use before they would be wiped first, and 4 MB then belong to the process for good.
pub(crate) fn prepare() {
    // Only what prints the counters makes them without opening a database; they are switched off, so nothing is
    // printed.
    drop(Config::new().print_profile_on_drop(true));
}

/// The folder of sled's files.
pub(super) fn files(folder: &Path) -> PathBuf {
    folder.join("store")
}

/// The file of the mark.
pub(super) fn mark(folder: &Path) -> PathBuf {
    folder.join("store.mark")
}

/// The file of the journal.
pub(super) fn journal(folder: &Path) -> PathBuf {
    folder.join("store.journal")
}

/// The batches of the journal that are behind the mark.
pub(super) fn journaled(folder: &Path) -> Result<Vec<Batch>, StoreFault> {
    let marked = marked(folder)?.unwrap_or(0);
    let batches = journal::batches(&journal(folder))?.into_iter().filter(|(number, _)| *number > marked);
    Ok(batches.map(|(_, batch)| batch).collect())
}

/// The number of the newest batch that was safe when the mark was written.
pub(super) fn marked(folder: &Path) -> Result<Option<u64>, StoreFault> {
    Ok(Mark::open(&mark(folder))?.1)
}

/// sled in a folder.
#[derive(Debug)]
pub(super) struct Embedded {
    db: Db,
    log: PathBuf,
    written: Mutex<Written>,
}

/// What was written, and how far sled has it.
#[derive(Debug)]
struct Written {
    /// The number of the newest batch.
    newest: u64,
    journal: Journal,
    mark: Mark,
}

impl Embedded {
    /// Opens the database in the folder `path`, which is made when it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, StoreFault> {
        fs::create_dir_all(path)?;
        let files = files(path);
        let (mark, marked) = Mark::open(&mark(path))?;
        let marked = marked.unwrap_or(0);
        if files.is_dir() {
            look_first(path, marked)?;
        }
        let (db, newest) = opened(&files, marked)?;
        let (journal, batches) = Journal::open(&journal(path)).map_err(unread)?;
        let written = Mutex::new(Written { newest, journal, mark });
        let embedded = Self { db, log: files.join("db"), written };
        embedded.do_again(batches.into_iter().filter(|(number, _)| *number > marked))?;
        Ok(embedded)
    }

    /// sled may have all of these batches, some, or parts of them.
    fn do_again(&self, batches: impl Iterator<Item = (u64, Batch)>) -> Result<(), StoreFault> {
        let mut written = self.written();
        for (number, batch) in batches {
            self.change(batch.changes.iter())?;
            written.newest = written.newest.max(number);
        }
        if written.journal.length() > 0 { self.write_out(&mut written) } else { Ok(()) }
    }

    /// The pairs of a tree of format 1, which had one for each table; `None` when there is no such tree.
    pub(super) fn tree(&self, name: &str) -> Result<Option<Vec<Pair>>, StoreFault> {
        if !self.db.tree_names().iter().any(|tree| tree.as_ref() == name.as_bytes()) {
            return Ok(None);
        }
        guarded(|| self.db.open_tree(name)?.iter().map(|pair| pair.map(owned)).collect()).map(Some)
    }

    /// Takes a tree of format 1 away.
    pub(super) fn drop_tree(&self, name: &str) -> Result<(), StoreFault> {
        guarded(|| self.db.drop_tree(name)).map(drop)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes sled's pages in memory; it writes them when it likes.
    fn change<'b>(&self, batch: impl Iterator<Item = &'b Change>) -> Result<(), StoreFault> {
        guarded(|| {
            for (key, value) in batch {
                match value {
                    Some(value) => self.db.insert(key, value.as_slice())?,
                    None => self.db.remove(key)?,
                };
            }
            Ok(())
        })
    }

    /// Has sled write everything out, so that the journal can begin anew.
    fn write_out(&self, written: &mut Written) -> Result<(), StoreFault> {
        guarded(|| self.db.flush())?;
        File::open(&self.log)?.sync_data()?;
        written.mark.write(written.newest)?;
        written.journal.clear()?;
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Whoever wrote something that matters has it in the journal, or heard of the error.
        drop(self.write_out(&mut self.written()));
    }
}

impl Backend for Embedded {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        guarded(|| self.db.get(key)).map(|value| value.map(|value| value.to_vec()))
    }

    fn range(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<Pair>, StoreFault> {
        if span.is_empty() {
            return Ok(Vec::new());
        }
        let range = || self.db.range(span.from.as_slice()..span.to.as_slice()).map(|pair| pair.map(owned));
        guarded(|| match direction {
            Direction::Up => range().take(limit).collect(),
            Direction::Down => range().rev().take(limit).collect(),
        })
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreFault> {
        let mut written = self.written();
        let next = written.newest.saturating_add(1);
        let newest = (NEWEST.to_vec(), Some(seal::close(NEWEST, next.to_be_bytes().to_vec())));
        let changes = || batch.changes.iter().chain([&newest]);
        written.journal.write(next, changes())?;
        written.newest = next;
        self.change(changes())
    }

    fn flush(&self) -> Result<(), StoreFault> {
        let mut written = self.written();
        let full = written.journal.length() >= MOST_JOURNAL;
        if full || written.mark.is_due() { self.write_out(&mut written) } else { Ok(()) }
    }
}

/// sled's database in the folder `files`, and the number of its newest batch, which is `marked` or more.
fn opened(files: &Path, marked: u64) -> Result<(Db, u64), StoreFault> {
    // Whoever writes flushes, and waits for it; a flush of sled's own every half second would do so again.
    let config = Config::new().path(files).cache_capacity(CACHE).flush_every_ms(None);
    let db = guarded(|| config.open())?;
    let newest = newest(&db)?;
    if newest < marked { Err(cut(newest, marked)) } else { Ok((db, newest)) }
}

/// Refuses a store that sled would cut, before sled could. Where that is not sure, sled is tried with a copy.
fn look_first(path: &Path, marked: u64) -> Result<(), StoreFault> {
    let files = files(path);
    let _lock = locked(&files)?;
    if look::newest(&files)? >= marked {
        return Ok(());
    }
    let copy = path.join("store.tried");
    // A process that was killed may have left one.
    drop(fs::remove_dir_all(&copy));
    let tried = copied(&files, &copy).map_err(StoreFault::from).and_then(|()| opened(&copy, marked).map(drop));
    drop(fs::remove_dir_all(&copy));
    tried
}

fn copied(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copied(&entry.path(), &copy)?,
            false => drop(fs::copy(entry.path(), copy)?),
        }
    }
    Ok(())
}

/// Nobody else opens the database in the folder `files` while this lives.
pub(super) fn locked(files: &Path) -> Result<Option<File>, StoreFault> {
    let log = match OpenOptions::new().read(true).write(true).open(files.join("db")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match log.try_lock() {
        Ok(()) => Ok(Some(log)),
        Err(TryLockError::WouldBlock) => Err(StoreFault::Busy),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The number of the newest batch; 0 where there is none.
fn newest(db: &Db) -> Result<u64, StoreFault> {
    let value = guarded(|| db.get(NEWEST))?.map(|sealed| seal::open(NEWEST, sealed.to_vec())).transpose()?;
    Ok(value.map_or(0, number))
}

fn unread(error: std::io::Error) -> StoreFault {
    match error.kind() {
        std::io::ErrorKind::InvalidData => StoreFault::Damaged("its journal is not what was written".to_owned()),
        _ => error.into(),
    }
}

fn number(value: Vec<u8>) -> u64 {
    value.try_into().map_or(0, u64::from_be_bytes)
}

fn cut(newest: u64, marked: u64) -> StoreFault {
    StoreFault::Damaged(match newest {
        0 => "what was written to it is gone".to_owned(),
        _ => format!("its newest {} commits are gone", marked - newest),
    })
}

fn owned((key, value): (sled::IVec, sled::IVec)) -> Pair {
    (key.to_vec(), value.to_vec())
}

/// What `call` comes to. sled panics at some kinds of damage, and that is an error like the others.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreFault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(called) => called.map_err(fault),
        Err(_told_by_the_panic_hook) => Err(StoreFault::Damaged("sled panicked at what it found".to_owned())),
    }
}

/// What it means; sled tells a lock that another process holds only in words.
fn fault(error: sled::Error) -> StoreFault {
    match &error {
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => StoreFault::Busy,
        sled::Error::Io(_) => failed(error),
        // Damage looks like a file of another version, or like a mistake of its own, just as well.
        _ => StoreFault::Damaged("sled cannot read its files".to_owned()),
    }
}
