//! The embedded backend: sled in a folder.

use std::path::Path;

use sled::{Config, Db, Tree};

use super::{MOST_HISTORY, Served, StoreFault};

/// The format that this program writes.
const FORMAT: u32 = 1;

/// What sled may cache; its own default is a gigabyte.
const CACHE: u64 = 8 * 1024 * 1024;

/// sled in a folder.
#[derive(Debug)]
pub(super) struct Embedded {
    database: Db,
    history: Tree,
}

impl Embedded {
    pub(super) fn open(path: &Path) -> Result<Self, StoreFault> {
        std::fs::create_dir_all(path)?;
        let database = Config::new().path(path.join("store")).cache_capacity(CACHE).open().map_err(opening)?;
        check_format(&database)?;
        Ok(Self { history: database.open_tree("config-history").map_err(failed)?, database })
    }

    pub(super) fn add(&self, served: &Served) -> Result<(), StoreFault> {
        let key = self.database.generate_id().map_err(failed)?.to_be_bytes();
        let value = serde_json::to_vec(served).map_err(super::backend)?;
        self.history.insert(key, value).map_err(failed)?;
        while self.history.len() > MOST_HISTORY {
            self.history.pop_min().map_err(failed)?;
        }
        self.database.flush().map_err(failed).map(drop)
    }

    pub(super) fn history(&self) -> Result<Vec<Served>, StoreFault> {
        let newest_first = self.history.iter().values().rev();
        newest_first.map(|value| serde_json::from_slice(&value.map_err(failed)?).map_err(super::backend)).collect()
    }
}

fn check_format(database: &Db) -> Result<(), StoreFault> {
    let Some(written) = database.get("format").map_err(failed)? else {
        return database.insert("format", &FORMAT.to_be_bytes()).map_err(failed).map(drop);
    };
    let found = written.as_ref().try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX);
    if found > FORMAT { Err(StoreFault::Format { found, known: FORMAT }) } else { Ok(()) }
}

/// sled tells a lock that another process holds only in words.
fn opening(error: sled::Error) -> StoreFault {
    match &error {
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => StoreFault::Busy,
        _ => failed(error),
    }
}

fn failed(error: sled::Error) -> StoreFault {
    super::backend(error)
}
