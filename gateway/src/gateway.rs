//! What all requests share: one value for the process, that survives reloads.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::access_log::AccessLog;
use crate::metrics::Metrics;
use crate::model::ModelManager;
use crate::net::upstream::Upstreams;

/// The process's shared parts.
pub struct Gateway {
    /// What callers may ask for.
    pub models: ModelManager,
    /// The connections to providers.
    pub upstreams: Upstreams,
    /// What is counted.
    pub metrics: Metrics,
    /// One line a request.
    pub access_log: AccessLog,
    /// Set once the process is to end.
    pub draining: AtomicBool,
}

impl Gateway {
    /// Whether new requests should go elsewhere.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
