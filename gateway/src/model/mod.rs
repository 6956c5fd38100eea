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

use std::borrow::Cow;
use std::sync::Arc;

use adapters::{Operation, Request};
use arc_swap::ArcSwap;
use http::StatusCode;

use crate::config::LONGEST_NAME;
pub use crate::config::ModelType as Type;
use crate::error::Fault;
pub use affinity::{Affinity, Relation};
pub use balancing::OwnModels;
pub use instance::{ModelInstance, Picked};
pub use names::Names;
pub use provider::{Credential, Provider};
pub use provider_manager::ProviderManager;
pub use snapshot::{Listed, Model, Snapshot, Target, UpstreamName};

/// The type of model that an operation needs.
#[must_use]
pub fn type_of(operation: Operation) -> Type {
    match operation {
        Operation::Chat | Operation::Completions => Type::Llm,
        Operation::Embeddings => Type::TextEmbedding,
    }
}

/// The name of the model that is asked for. Where it stands for a `*` it goes into headers, logs and rows as it is.
///
/// # Errors
/// It is no text, longer than a name may be, or has characters that cannot stand there.
pub fn asked(request: &Request) -> Result<Option<Cow<'_, str>>, Fault> {
    let asked = request.model()?;
    let is_odd = |name: &Cow<'_, str>| name.len() > LONGEST_NAME || name.contains(char::is_control);
    if asked.as_ref().is_some_and(is_odd) {
        let message = format!("No model has a name of more than {LONGEST_NAME} bytes, or with control characters.");
        return Err(Fault::request(StatusCode::NOT_FOUND, "model_not_found", message).of_param("model"));
    }
    Ok(asked)
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
