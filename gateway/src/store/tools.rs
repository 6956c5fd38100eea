//! What is done to a store that nobody serves from: read to its end, and made anew of what can be read.

use std::collections::BTreeMap;
use std::fs;
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

/// Gives `visit` each pair of the store in the folder `path` with what is wrong with it: in order, or, where it is so
/// damaged that it cannot be opened, what a repair would keep of it. Of a damaged store nothing is changed.
///
/// # Errors
/// There is no store, it cannot be opened, or it cannot be read any further.
pub fn walk(path: &Path, mut visit: impl FnMut(&[u8], Result<Vec<u8>, StoreFault>)) -> Result<(), StoreFault> {
    there(path)?;
    match Embedded::open(path) {
        Ok(backend) => walk_open(&backend, visit),
        Err(damaged @ StoreFault::Damaged(_)) => {
            Kept::read(path)?.each(|key, sealed| visit(key, seal::open(key, sealed)));
            Err(damaged)
        }
        Err(other) => Err(other),
    }
}

fn walk_open(backend: &Embedded, mut visit: impl FnMut(&[u8], Result<Vec<u8>, StoreFault>)) -> Result<(), StoreFault> {
    format::known(backend)?;
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
    let _lock = sled::locked(&sled::files(path))?;
    let all = Kept::read(path)?;
    let marked = sled::marked(path)?;
    let new = path.join("repaired");
    // A repair that was broken off may have left one.
    drop(fs::remove_dir_all(&new));
    let kept = all.rewrite(&new)?;
    let aside = aside(path)?;
    fs::rename(sled::files(path), &aside)?;
    fs::rename(sled::files(&new), sled::files(path))?;
    fs::rename(sled::mark(&new), sled::mark(path))?;
    fs::rename(sled::journal(&new), sled::journal(path))?;
    fs::remove_dir(&new)?;
    let newest = all.salvaged.newest();
    Ok(Repaired { kept, holes: all.salvaged.holes, cut: marked.map(|marked| marked.saturating_sub(newest)), aside })
}

/// What can be read of the files of a store.
struct Kept {
    salvaged: Salvaged,
    /// What the journal changes of that.
    journaled: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Kept {
    fn read(path: &Path) -> Result<Self, StoreFault> {
        let batches = sled::journaled(path)?;
        let journaled = batches.into_iter().flat_map(|batch| batch.changes).collect();
        Ok(Self { salvaged: Salvaged::read(&sled::files(path))?, journaled })
    }

    /// Gives `visit` each value, sealed. Its format and the number of its newest batch are none: those of a new store
    /// are its own.
    fn each(&self, mut visit: impl FnMut(&[u8], Vec<u8>)) {
        let salvaged = self.salvaged.pairs().filter(|(key, _)| !self.journaled.contains_key(*key));
        let journaled = self.journaled.iter().filter_map(|(key, sealed)| Some((key.as_slice(), sealed.clone()?)));
        let values = salvaged.chain(journaled).filter(|(key, _)| ![format::KEY, sled::NEWEST].contains(key));
        values.for_each(|(key, sealed)| visit(key, sealed));
    }

    /// Writes a new store of it; how many values there are.
    fn rewrite(&self, new: &Path) -> Result<u64, StoreFault> {
        let backend = Embedded::open(new)?;
        format::settle(&backend)?;
        let (mut kept, mut length, mut batch, mut applied) = (0, 0, Batch::default(), Ok(()));
        self.each(|key, sealed| {
            kept += 1;
            length += sealed.len();
            batch.put_bare(key, sealed);
            if length >= MOST_BATCH && applied.is_ok() {
                length = 0;
                applied = backend.apply(&std::mem::take(&mut batch));
            }
        });
        applied?;
        backend.apply(&batch)?;
        backend.flush()?;
        Ok(kept)
    }
}

/// Whether there is a store in the folder `path`.
///
/// # Errors
/// There is none.
pub fn there(path: &Path) -> Result<(), StoreFault> {
    if sled::files(path).is_dir() { Ok(()) } else { Err(StoreFault::Missing) }
}

/// A name that is not taken.
fn aside(path: &Path) -> Result<PathBuf, StoreFault> {
    let names = (1..1_000).map(|number| path.join(format!("store.damaged-{number}")));
    names.into_iter().find(|name| !name.exists()).ok_or_else(|| failed("too many damaged stores are kept beside it"))
}
