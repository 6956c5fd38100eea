//! What is done to a store that nobody serves from: read to its end, and made anew of what can be read.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use super::backend::{Backend as _, Batch, Direction, Span};
use super::sled::salvage::Salvaged;
use super::sled::{self, Embedded};
use super::{StoreFault, failed, format, seal};

/// How many pairs are read at a time.
const PAGE: usize = 64;

/// How many bytes are written at a time.
const MOST_BATCH: usize = 1 << 20;

/// What a repair kept, and where the old files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// How many values were kept.
    pub kept: u64,
    /// In how many places something could not be read.
    pub holes: u64,
    /// How many of the newest commits are gone, as far as that is known.
    pub cut: Option<u64>,
    /// Where the old files were moved.
    pub aside: PathBuf,
}

/// Gives `visit` each pair of the store in the folder `path`, in order, with what is wrong with it.
///
/// # Errors
/// There is no store, it cannot be opened, or it cannot be read any further.
pub fn walk(path: &Path, mut visit: impl FnMut(&[u8], Result<Vec<u8>, StoreFault>)) -> Result<(), StoreFault> {
    there(path)?;
    let backend = Embedded::open(path)?;
    format::known(&backend)?;
    let mut span = Span { from: Vec::new(), to: vec![u8::MAX] };
    loop {
        let page = backend.range(&span, Direction::Up, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        span = span.after(last);
        for (key, value) in page {
            if key != format::KEY {
                visit(&key, seal::open(&key, value));
            }
        }
    }
}

/// Makes the store in the folder `path` anew of what can be read of its files, which are moved aside.
///
/// # Errors
/// There is no store, it is open elsewhere, or the new one cannot be written. Then nothing was moved.
pub fn repair(path: &Path) -> Result<Repaired, StoreFault> {
    there(path)?;
    let _lock = locked(&sled::files(path))?;
    let salvaged = Salvaged::read(&sled::files(path))?;
    let marked = sled::marked(path)?;
    let journaled = sled::journaled(path)?;
    let new = path.join("repaired");
    // A repair that was broken off may have left one.
    drop(fs::remove_dir_all(&new));
    let kept = rewrite(&new, &salvaged, &journaled)?;
    let aside = aside(path)?;
    fs::rename(sled::files(path), &aside)?;
    fs::rename(sled::files(&new), sled::files(path))?;
    fs::rename(sled::mark(&new), sled::mark(path))?;
    fs::rename(sled::journal(&new), sled::journal(path))?;
    fs::remove_dir(&new)?;
    let newest = salvaged.newest();
    Ok(Repaired { kept, holes: salvaged.holes, cut: marked.map(|marked| marked.saturating_sub(newest)), aside })
}

/// Writes a new store of what was salvaged.
fn rewrite(new: &Path, salvaged: &Salvaged, journaled: &[Batch]) -> Result<u64, StoreFault> {
    let backend = Embedded::open(new)?;
    format::settle(&backend)?;
    let (mut kept, mut length, mut batch) = (0, 0, Batch::default());
    for (key, sealed) in salvaged.pairs().filter(|(key, _)| *key != sled::NEWEST) {
        kept += 1;
        length += sealed.len();
        batch.put_bare(key, sealed);
        if length >= MOST_BATCH {
            backend.apply(&std::mem::take(&mut batch))?;
            length = 0;
        }
    }
    backend.apply(&batch)?;
    for batch in journaled {
        backend.apply(&behind(batch))?;
    }
    backend.flush()?;
    Ok(kept)
}

/// A batch of the journal without its number: that of the new store is another.
fn behind(batch: &Batch) -> Batch {
    let changes = batch.changes.iter().filter(|(key, _)| key.as_slice() != sled::NEWEST);
    Batch { changes: changes.cloned().collect() }
}

/// Whether there is a store in the folder `path`.
///
/// # Errors
/// There is none.
pub fn there(path: &Path) -> Result<(), StoreFault> {
    if sled::files(path).is_dir() { Ok(()) } else { Err(StoreFault::Missing) }
}

/// Nobody else opens the store while this lives.
fn locked(files: &Path) -> Result<File, StoreFault> {
    let log = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(files.join("db"))?;
    match log.try_lock() {
        Ok(()) => Ok(log),
        Err(TryLockError::WouldBlock) => Err(StoreFault::Busy),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// A name that is not taken.
fn aside(path: &Path) -> Result<PathBuf, StoreFault> {
    let names = (1..1_000).map(|number| path.join(format!("store.damaged-{number}")));
    names.into_iter().find(|name| !name.exists()).ok_or_else(|| failed("too many damaged stores are kept beside it"))
}
