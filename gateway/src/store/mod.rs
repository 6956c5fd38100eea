//! What outlives the process: an ordered map of sealed bytes on a disk, and the tables in it. Whoever serves requests
//! never waits for it; those who do are threads of their own.

pub mod backend;
#[cfg(test)]
mod damage;
mod disk;
pub(crate) mod format;
mod history;
#[cfg(test)]
pub(crate) mod memory;
mod raises;
mod seal;
mod sled;
pub mod tools;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use self::disk::Disk;
pub(crate) use self::disk::unsealed;
use self::history::History;
pub use self::history::Served;
pub use self::raises::kept_raise;
pub(crate) use self::sled::prepare;

/// Why the store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// Another process has it open.
    #[error("another Weir has it open")]
    Busy,
    /// It was written by a newer Weir.
    #[error("it has format {found}; this Weir reads formats up to {known}")]
    Format {
        /// What is written in it.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// It was written by an older Weir.
    #[error("it was written by an older Weir; the next start carries it over")]
    Old,
    /// There is none.
    #[error("there is no store")]
    Missing,
    /// What it holds is not what was written.
    #[error("it is damaged: {0}; `weir store check` tells how much, `weir store repair` keeps what can be read")]
    Damaged(String),
    /// It failed and is not open again yet, or another process has not yet let it go.
    #[error("it is not open yet")]
    Away,
    /// A Redis cannot be reached.
    #[error("redis cannot be reached: {0}")]
    Unreached(String),
    /// The process ends.
    #[error("it is closed")]
    Closed,
    /// The backend failed.
    #[error("{0}")]
    Backend(String),
}

/// Whether another process that has the store open is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It is an error.
    None,
    /// Writes wait until it ends: it has handed its sockets over.
    UntilFree,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    disk: Arc<Disk>,
    history: History,
}

impl Store {
    /// Opens the store in the folder `path`.
    ///
    /// # Errors
    /// It cannot be opened, and waiting would not help.
    pub fn open(path: &Path, patience: Patience) -> Result<Self, StoreFault> {
        let disk = Arc::new(Disk::open(path, patience)?);
        Ok(Self { history: History::start(Arc::clone(&disk))?, disk })
    }

    /// Where rooms with tables of their own keep them.
    #[must_use]
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Whether something waits in memory since it cannot be written.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.disk.is_degraded()
    }

    /// Remembers that a configuration is served. Never waits.
    pub fn served(&self, served: Served) {
        self.history.served(served);
    }

    /// The configurations that were served, the newest first. Blocks.
    ///
    /// # Errors
    /// The store is not there, or cannot be read.
    pub fn history(&self) -> Result<Vec<Served>, StoreFault> {
        self.history.read()
    }

    /// Writes out what waits and closes the backend.
    pub fn close(&self) {
        self.history.close();
        self.disk.close();
    }
}

fn failed(error: impl std::fmt::Display) -> StoreFault {
    StoreFault::Backend(error.to_string())
}

impl From<io::Error> for StoreFault {
    fn from(error: io::Error) -> Self {
        failed(error)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn served(hash: &str) -> Served {
        Served { at: jiff::Timestamp::UNIX_EPOCH, hash: hash.to_owned(), changed: vec!["server".to_owned()] }
    }

    fn is_busy(opened: &Result<Store, StoreFault>) -> bool {
        matches!(opened, Err(StoreFault::Busy))
    }

    /// What `make` gives within some seconds.
    fn in_time<T>(make: impl Fn() -> Option<T>) -> T {
        let tries = (0..500).map(|_| std::thread::sleep(std::time::Duration::from_millis(10)));
        make().or_else(|| tries.into_iter().find_map(|()| make())).unwrap()
    }

    #[test]
    fn what_was_served_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Patience::None).unwrap();
        store.served(served("a"));
        store.served(served("b"));
        store.close();
        let again = Store::open(folder.path(), Patience::None).unwrap();
        assert_eq!(again.history().unwrap(), [served("b"), served("a")]);
        again.close();
    }

    #[test]
    fn a_store_that_is_open_elsewhere_is_refused_or_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path(), Patience::None).unwrap();
        assert!(matches!(Store::open(folder.path(), Patience::None), Err(StoreFault::Busy)));
        let second = Store::open(folder.path(), Patience::UntilFree).unwrap();
        second.served(served("later"));
        first.close();
        assert_eq!(second.history().unwrap(), [served("later")]);
        second.close();
    }

    #[test]
    fn a_store_of_format_1_is_carried_over_and_one_of_the_future_refused() {
        let folder = tempfile::tempdir().unwrap();
        // sled's threads hold the lock for a moment longer than its handles live.
        let format_1 = || in_time(|| ::sled::open(folder.path().join("store")).ok());
        let opened = || in_time(|| Some(Store::open(folder.path(), Patience::None)).filter(|it| !is_busy(it)));
        {
            let old = format_1();
            old.insert("format", &1_u32.to_be_bytes()).unwrap();
            let tree = old.open_tree("config-history").unwrap();
            for (number, hash) in [(7_u64, "a"), (3_000_000, "b")] {
                tree.insert(number.to_be_bytes(), serde_json::to_vec(&served(hash)).unwrap()).unwrap();
            }
        }
        for _ in 0..2 {
            let store = opened().unwrap();
            assert_eq!(store.history().unwrap(), [served("b"), served("a")]);
            store.close();
        }
        assert!(!format_1().tree_names().iter().any(|name| name.as_ref() == b"config-history"));
        format_1().insert("format", &9_u32.to_be_bytes()).unwrap();
        assert!(matches!(opened(), Err(StoreFault::Format { found: 9, known: 2 })));
    }
}
