//! The embedded backend: sled in a folder, all of it in one tree, since a batch is atomic within one tree.

mod mark;
pub(super) mod salvage;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sled::{Config, Db};

use self::mark::Mark;
use super::backend::{Backend, Batch, Direction, Pair, Span};
use super::{StoreFault, failed, seal};

/// What sled may cache; its own default is a gigabyte.
const CACHE: u64 = 8 * 1024 * 1024;

/// Where the number of the newest batch is, behind all that may be asked for.
pub(super) const NEWEST: &[u8] = b"\xffnewest";

/// The folder of sled's files.
pub(super) fn files(folder: &Path) -> PathBuf {
    folder.join("store")
}

/// The file of the mark.
pub(super) fn mark(folder: &Path) -> PathBuf {
    folder.join("store.mark")
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
    /// The number of the newest batch.
    newest: Mutex<u64>,
    mark: Mutex<Mark>,
}

impl Embedded {
    /// Opens the database in the folder `path`, which is made when it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, StoreFault> {
        std::fs::create_dir_all(path)?;
        let files = files(path);
        // Whoever writes flushes, and waits for it; a flush of sled's own every half second would do so again.
        let config = Config::new().path(&files).cache_capacity(CACHE).flush_every_ms(None);
        let db = guarded(|| config.open())?;
        let newest = newest(&db)?;
        let (mark, marked) = Mark::open(&mark(path))?;
        match marked {
            Some(marked) if newest < marked => Err(cut(newest, marked)),
            _ => Ok(Self { db, log: files.join("db"), newest: Mutex::new(newest), mark: Mutex::new(mark) }),
        }
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

    fn newest(&self) -> MutexGuard<'_, u64> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_to(&self, due: impl FnOnce(&Mark) -> bool) -> Result<(), StoreFault> {
        let newest = *self.newest();
        guarded(|| self.db.flush())?;
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        if due(&mark) {
            File::open(&self.log)?.sync_data()?;
            mark.write(newest)?;
        }
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Whoever wrote something that matters has flushed it, and heard of the error.
        drop(self.flush_to(|_| true));
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
        let mut changes = sled::Batch::default();
        for (key, value) in &batch.changes {
            match value {
                Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                None => changes.remove(key.as_slice()),
            }
        }
        let mut newest = self.newest();
        let next = newest.saturating_add(1);
        changes.insert(NEWEST, seal::close(NEWEST, next.to_be_bytes().to_vec()));
        guarded(|| self.db.apply_batch(changes))?;
        *newest = next;
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreFault> {
        self.flush_to(Mark::is_due)
    }
}

/// The number of the newest batch; 0 where there is none.
fn newest(db: &Db) -> Result<u64, StoreFault> {
    let value = guarded(|| db.get(NEWEST))?.map(|sealed| seal::open(NEWEST, sealed.to_vec())).transpose()?;
    Ok(value.map_or(0, number))
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
