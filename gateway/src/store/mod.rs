//! What outlives the process. A thread of its own owns the backend: nobody who serves requests waits for a disk.

mod sled;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::sled::Embedded;

/// How many writes may wait for the disk.
const MOST_WAITING: usize = 1024;

/// How long to wait before the backend is opened again, while another process still has it.
const AGAIN: Duration = Duration::from_millis(100);

/// How many configurations are remembered.
const MOST_HISTORY: usize = 1_000;

/// A configuration that was served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// From when on.
    pub at: jiff::Timestamp,
    /// Its hash.
    pub hash: String,
    /// What was other than before.
    pub changed: Vec<String>,
}

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
    /// The backend failed.
    #[error("{0}")]
    Backend(String),
}

enum Command {
    Served(Served),
    History(SyncSender<Result<Vec<Served>, StoreFault>>),
    Close,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    commands: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Whether another process that has the store open is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It is an error.
    None,
    /// Writes wait until it ends: it has handed its sockets over.
    UntilFree,
}

impl Store {
    /// Opens the store in the folder `path`.
    ///
    /// # Errors
    /// It cannot be opened, and waiting would not help.
    pub fn open(path: &Path, patience: Patience) -> Result<Self, StoreFault> {
        let opened = match (Embedded::open(path), patience) {
            (Err(StoreFault::Busy), Patience::UntilFree) => None,
            (opened, _) => Some(opened?),
        };
        let (commands, waiting) = sync_channel(MOST_WAITING);
        let path = path.to_owned();
        let work = move || match opened.map_or_else(|| open_when_free(&path), Ok) {
            Ok(backend) => serve(&backend, &waiting),
            Err(error) => tracing::error!(%error, "the store cannot be opened; nothing is kept"),
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(work).map_err(backend)?;
        Ok(Self { commands, thread: Mutex::new(Some(thread)) })
    }

    /// Remembers that a configuration is served. Never waits.
    pub fn served(&self, served: Served) {
        match self.commands.try_send(Command::Served(served)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                tracing::error!("the store takes no more; a configuration is not in its history");
            }
        }
    }

    /// The configurations that were served, the newest first. Blocks.
    ///
    /// # Errors
    /// The store is not there, or cannot be read.
    pub fn history(&self) -> Result<Vec<Served>, StoreFault> {
        let (answer, answered) = sync_channel(1);
        self.commands.try_send(Command::History(answer)).map_err(backend)?;
        answered.recv_timeout(Duration::from_secs(5)).map_err(backend)?
    }

    /// Writes out what waits and closes the backend.
    pub fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closing = self.commands.try_send(Command::Close).is_ok();
        if let (Some(thread), true) = (thread, closing)
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
    }
}

fn backend(error: impl std::fmt::Display) -> StoreFault {
    StoreFault::Backend(error.to_string())
}

impl From<io::Error> for StoreFault {
    fn from(error: io::Error) -> Self {
        backend(error)
    }
}

fn open_when_free(path: &Path) -> Result<Embedded, StoreFault> {
    loop {
        match Embedded::open(path) {
            Err(StoreFault::Busy) => std::thread::sleep(AGAIN),
            opened => return opened,
        }
    }
}

fn serve(backend: &Embedded, commands: &Receiver<Command>) {
    while let Ok(command) = commands.recv() {
        match command {
            Command::Served(served) => {
                if let Err(error) = backend.add(&served) {
                    tracing::error!(%error, "the store cannot be written");
                }
            }
            // The asker may have given up.
            Command::History(answer) => drop(answer.send(backend.history())),
            Command::Close => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn served(hash: &str) -> Served {
        Served { at: jiff::Timestamp::UNIX_EPOCH, hash: hash.to_owned(), changed: vec!["server".to_owned()] }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("weir-store-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        path
    }

    #[test]
    fn what_was_served_is_known_after_a_restart() {
        let path = folder("restart");
        let store = Store::open(&path, Patience::None).unwrap();
        store.served(served("a"));
        store.served(served("b"));
        store.close();
        let again = Store::open(&path, Patience::None).unwrap();
        assert_eq!(again.history().unwrap(), [served("b"), served("a")]);
        again.close();
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_store_that_is_open_elsewhere_is_refused_or_waited_for() {
        let path = folder("busy");
        let first = Store::open(&path, Patience::None).unwrap();
        assert!(matches!(Store::open(&path, Patience::None), Err(StoreFault::Busy)));
        let second = Store::open(&path, Patience::UntilFree).unwrap();
        second.served(served("later"));
        first.close();
        assert_eq!(second.history().unwrap(), [served("later")]);
        second.close();
        std::fs::remove_dir_all(path).unwrap();
    }
}
