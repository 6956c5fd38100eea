//! What a ledger needs of the place where the gateways that share a Redis keep copies of their ledgers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::budget::lease::NodeId;
use crate::store::StoreFault;
use crate::store::backend::Backend;

/// The copies of all gateways' ledgers. All of it may block.
pub trait Fleet: fmt::Debug + Send + Sync {
    /// Whose ledger this process writes.
    fn node(&self) -> NodeId;

    /// Where the copy of this process's ledger is.
    fn own(&self) -> Arc<dyn Backend>;

    /// The copies of the others' ledgers.
    ///
    /// # Errors
    /// Nobody can be asked.
    fn others(&self) -> Result<Others, StoreFault>;

    /// Says that this process's copy is there, and how; copies of which that was not said for as long as rows are
    /// `kept` go.
    ///
    /// # Errors
    /// It cannot be said.
    fn note(&self, state: State, kept: Duration, now: Timestamp) -> Result<(), StoreFault>;
}

/// The others' ledgers.
#[derive(Clone)]
pub struct Others {
    /// Those of which it is known.
    pub members: Vec<Member>,
    /// Whether these are all: where the store lost what it held, each has to say anew that it is there.
    pub state: State,
}

/// Another gateway's ledger.
#[derive(Clone)]
pub struct Member {
    /// The gateway.
    pub node: NodeId,
    /// Whether all of it is there.
    pub state: State,
    /// Where it is.
    pub backend: Arc<dyn Backend>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was all there, and what is new comes within a moment.
    Whole,
    /// It is being copied from its beginning.
    Filling,
}
