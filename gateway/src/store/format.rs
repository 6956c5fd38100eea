//! The format of a store, and how an older one is carried over. The number itself is kept as format 1 kept it, so that
//! an older Weir reads it and refuses.

use super::backend::{Backend, Batch, Direction, Span};
use super::sled::Embedded;
use super::{StoreFault, history};

/// The format that this program writes: one tree, a table for each first letter, each value sealed.
const FORMAT: u32 = 2;

/// Where the format is written.
pub(super) const KEY: &[u8] = b"format";

/// Where format 1 kept the configurations that were served.
const OLD_HISTORY: &str = "config-history";

/// Makes a new store ready, carries an old one over, and refuses what this program cannot read.
pub(super) fn settle(backend: &Embedded) -> Result<(), StoreFault> {
    match written(backend)? {
        None => begin(backend)?,
        Some(1) => carry_over(backend)?,
        Some(FORMAT) => {}
        Some(found) => return Err(StoreFault::Format { found, known: FORMAT }),
    }
    // A crash may have come between the carrying over and this.
    if backend.tree(OLD_HISTORY)?.is_some() {
        backend.drop_tree(OLD_HISTORY)?;
    }
    Ok(())
}

/// Makes a new copy of a store ready, and refuses what this program does not write.
pub(crate) fn begun(backend: &dyn Backend) -> Result<(), StoreFault> {
    match written(backend)? {
        None => begin(backend),
        Some(_) => known(backend),
    }
}

/// Whether a copy was made ready.
pub(crate) fn is_begun(backend: &dyn Backend) -> Result<bool, StoreFault> {
    Ok(written(backend)?.is_some())
}

/// Refuses what this program cannot read, and changes nothing.
pub(crate) fn known(backend: &dyn Backend) -> Result<(), StoreFault> {
    match written(backend)? {
        Some(FORMAT) => Ok(()),
        Some(1) => Err(StoreFault::Old),
        Some(found) => Err(StoreFault::Format { found, known: FORMAT }),
        None => Err(StoreFault::Damaged("it has no format".to_owned())),
    }
}

fn written(backend: &dyn Backend) -> Result<Option<u32>, StoreFault> {
    let Some(value) = backend.get(KEY)? else { return Ok(None) };
    let damaged = || StoreFault::Damaged("its format is not a number".to_owned());
    value.as_slice().try_into().map(u32::from_be_bytes).map(Some).map_err(|_| damaged())
}

fn begin(backend: &dyn Backend) -> Result<(), StoreFault> {
    let everything = Span { from: Vec::new(), to: vec![u8::MAX] };
    if !backend.range(&everything, Direction::Up, 1)?.is_empty() {
        return Err(StoreFault::Damaged("it has values but no format".to_owned()));
    }
    commit(backend, Batch::default())
}

fn carry_over(backend: &Embedded) -> Result<(), StoreFault> {
    let mut batch = Batch::default();
    for (key, value) in backend.tree(OLD_HISTORY)?.unwrap_or_default() {
        batch.put(history::key(&key), value);
    }
    commit(backend, batch)
}

fn commit(backend: &dyn Backend, mut batch: Batch) -> Result<(), StoreFault> {
    batch.put_bare(KEY, FORMAT.to_be_bytes());
    backend.apply(&batch)?;
    backend.flush()
}
