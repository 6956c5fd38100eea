//! What callers may ask for and where it can go: `ModelManager` holds one immutable [`Snapshot`] behind an `ArcSwap`; a
//! request loads it once and ends on it, whatever is reloaded meanwhile.

mod affinity;
mod balancing;
mod credentials;
mod direct;
mod instance;
mod names;
pub mod pattern;
mod provider;
mod provider_manager;
mod snapshot;
pub mod source;

use std::sync::Arc;

use adapters::Operation;
use arc_swap::ArcSwap;

pub use crate::config::ModelType as Type;
pub use affinity::{Affinity, Relation};
pub use balancing::OwnModels;
pub use instance::{ModelInstance, Picked};
pub use names::Names;
pub use provider::{Credential, Provider};
pub use provider_manager::ProviderManager;
pub use snapshot::{Model, Snapshot, Target, UpstreamName};

/// The type of model that an operation needs.
#[must_use]
pub fn type_of(operation: Operation) -> Type {
    match operation {
        Operation::Chat | Operation::Completions => Type::Llm,
        Operation::Embeddings => Type::TextEmbedding,
    }
}

/// The current snapshot, swapped by a reload.
#[derive(Debug)]
pub struct ModelManager {
    current: ArcSwap<Snapshot>,
}

impl ModelManager {
    /// Starts with `snapshot`.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot) }
    }

    /// The snapshot for one request, to be loaded once.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts `snapshot` in the place of the current one. Requests in flight end on what they began with.
    pub fn replace(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }
}
