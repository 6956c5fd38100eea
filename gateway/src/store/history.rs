//! The configurations that were served. A thread of its own writes them, so that whoever reloads does not wait for a disk.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backend::{Batch, Direction, Span};
use super::disk::Disk;
use super::{StoreFault, failed};
use crate::vital;

/// How many writes may wait for the disk.
const MOST_WAITING: usize = 1024;

/// How many configurations are remembered.
const MOST: usize = 1_000;

/// How long someone who asks waits for those who wrote before.
const PATIENCE: Duration = Duration::from_secs(5);

/// The table's prefix.
const TABLE: &[u8] = b"h";

/// A configuration that was served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Served {
    /// From when on.
    #[schemars(with = "String")]
    pub at: jiff::Timestamp,
    /// Its hash.
    pub hash: String,
    /// What was other than before.
    pub changed: Vec<String>,
}

enum Command {
    Served(Served),
    Read(SyncSender<Result<Vec<Served>, StoreFault>>),
    Close,
}

/// The history, and the thread that writes it.
#[derive(Debug)]
pub(super) struct History {
    commands: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl History {
    pub(super) fn start(disk: Arc<Disk>) -> Result<Self, StoreFault> {
        let (commands, waiting) = sync_channel(MOST_WAITING);
        let work = move || match disk.wait_until_open() {
            Ok(()) => serve(&disk, &waiting),
            Err(error) => tracing::error!(%error, "the store cannot be opened; nothing is kept"),
        };
        let thread = vital::tireless("history", work)?;
        Ok(Self { commands, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn served(&self, served: Served) {
        match self.commands.try_send(Command::Served(served)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                tracing::error!("the store takes no more; a configuration is not in its history");
            }
        }
    }

    pub(super) fn read(&self) -> Result<Vec<Served>, StoreFault> {
        let (answer, answered) = sync_channel(1);
        self.commands.try_send(Command::Read(answer)).map_err(failed)?;
        answered.recv_timeout(PATIENCE).map_err(failed)?
    }

    pub(super) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closing = self.commands.try_send(Command::Close).is_ok();
        if let (Some(thread), true) = (thread, closing)
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
    }
}

/// The key of the configuration with this number, which is eight bytes.
pub(super) fn key(number: &[u8]) -> Vec<u8> {
    [TABLE, number].concat()
}

fn serve(disk: &Disk, commands: &Receiver<Command>) {
    while let Ok(command) = commands.recv() {
        match command {
            Command::Served(served) => {
                if let Err(error) = add(disk, &served) {
                    tracing::error!(%error, "a configuration is not in the history");
                }
            }
            // The asker may have given up.
            Command::Read(answer) => drop(answer.send(read(disk))),
            Command::Close => return,
        }
    }
}

fn add(disk: &Disk, served: &Served) -> Result<(), StoreFault> {
    let kept = disk.range(&Span::under(TABLE), Direction::Up, usize::MAX)?;
    let last = kept.last().and_then(|(key, _)| key.last_chunk()).map_or(0, |number| u64::from_be_bytes(*number));
    let mut batch = Batch::default();
    batch.put(key(&last.saturating_add(1).to_be_bytes()), serde_json::to_vec(served).map_err(failed)?);
    let over = (kept.len() + 1).saturating_sub(MOST);
    kept.into_iter().take(over).for_each(|(key, _)| batch.delete(key));
    disk.commit(&batch)
}

fn read(disk: &Disk) -> Result<Vec<Served>, StoreFault> {
    let newest_first = disk.range(&Span::under(TABLE), Direction::Down, MOST)?;
    newest_first.iter().map(|(_, value)| serde_json::from_slice(value).map_err(failed)).collect()
}
