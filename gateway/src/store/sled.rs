//! The embedded backend: sled in a folder, all of it in one tree, since a batch is atomic within one tree.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sled::{Config, Db};

use super::backend::{Backend, Batch, Direction, Pair, Span};
use super::{StoreFault, failed};

/// What sled may cache; its own default is a gigabyte.
const CACHE: u64 = 8 * 1024 * 1024;

/// sled in a folder.
#[derive(Debug)]
pub(super) struct Embedded(Db);

impl Embedded {
    /// Opens the database in the folder `path`, which is made when it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, StoreFault> {
        std::fs::create_dir_all(path)?;
        // Whoever writes flushes, and waits for it; a flush of sled's own every half second would do so again.
        let config = Config::new().path(path.join("store")).cache_capacity(CACHE).flush_every_ms(None);
        guarded(|| config.open()).map(Self)
    }

    /// The pairs of a tree of format 1, which had one for each table; `None` when there is no such tree.
    pub(super) fn tree(&self, name: &str) -> Result<Option<Vec<Pair>>, StoreFault> {
        if !self.0.tree_names().iter().any(|tree| tree.as_ref() == name.as_bytes()) {
            return Ok(None);
        }
        guarded(|| self.0.open_tree(name)?.iter().map(|pair| pair.map(owned)).collect()).map(Some)
    }

    /// Takes a tree of format 1 away.
    pub(super) fn drop_tree(&self, name: &str) -> Result<(), StoreFault> {
        guarded(|| self.0.drop_tree(name)).map(drop)
    }
}

impl Backend for Embedded {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        guarded(|| self.0.get(key)).map(|value| value.map(|value| value.to_vec()))
    }

    fn range(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<Pair>, StoreFault> {
        if span.is_empty() {
            return Ok(Vec::new());
        }
        let range = || self.0.range(span.from.as_slice()..span.to.as_slice()).map(|pair| pair.map(owned));
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
        guarded(|| self.0.apply_batch(changes))
    }

    fn flush(&self) -> Result<(), StoreFault> {
        guarded(|| self.0.flush()).map(drop)
    }
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

/// sled tells a lock that another process holds only in words.
fn fault(error: sled::Error) -> StoreFault {
    match &error {
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => StoreFault::Busy,
        sled::Error::Corruption { .. } => StoreFault::Damaged(error.to_string()),
        _ => failed(error),
    }
}
