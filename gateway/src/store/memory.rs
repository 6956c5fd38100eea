//! A backend for tests: it forgets what was not flushed when it is killed, and refuses when it is told to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::backend::{Backend, Batch, Direction, Pair, Span};
use super::{Disk, Patience, StoreFault, failed};

/// What a disk keeps of what is written to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    safe: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
    refuses: Arc<AtomicBool>,
}

impl Memory {
    /// A process that opens it.
    pub(crate) fn disk(&self) -> Arc<Disk> {
        let memory = self.clone();
        let open = move || Ok(memory.backend());
        Arc::new(Disk::with(open, Patience::None).unwrap())
    }

    /// The backend of such a process.
    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Opened::of(self.clone()))
    }

    /// From now on nothing can be written, or again.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }
}

struct Opened {
    memory: Memory,
    seen: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Opened {
    fn of(memory: Memory) -> Self {
        let seen = memory.safe.lock().unwrap().clone();
        Self { memory, seen: Mutex::new(seen) }
    }
}

impl Backend for Opened {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.seen.lock().unwrap().get(key).cloned())
    }

    fn range(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<Pair>, StoreFault> {
        if span.is_empty() {
            return Ok(Vec::new());
        }
        let seen = self.seen.lock().unwrap();
        let range = seen.range(span.from.clone()..span.to.clone()).map(|(key, value)| (key.clone(), value.clone()));
        Ok(match direction {
            Direction::Up => range.take(limit).collect(),
            Direction::Down => range.rev().take(limit).collect(),
        })
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreFault> {
        let mut seen = self.seen.lock().unwrap();
        for (key, value) in batch.changes.clone() {
            match value {
                Some(value) => drop(seen.insert(key, value)),
                None => drop(seen.remove(&key)),
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreFault> {
        if self.memory.refuses.load(Ordering::SeqCst) {
            return Err(failed("no space left on device"));
        }
        self.memory.safe.lock().unwrap().clone_from(&self.seen.lock().unwrap());
        Ok(())
    }
}
