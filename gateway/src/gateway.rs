//! What all requests share: one value for the process, that survives reloads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::access_log::{AccessLog, Writer};
use crate::alerts::Alerts;
use crate::budget::Registry;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::model::ModelManager;
use crate::net::upstream::Upstreams;
use crate::reasons::Reasons;
use crate::sharing::Sharing;
use crate::store::Store;

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
    /// Who writes those lines.
    pub log_writer: Mutex<Option<Writer>>,
    /// What outlives the process.
    pub store: Store,
    /// One row a request, in the store.
    pub ledger: Ledger,
    /// What keys and tenants have used of their budgets.
    pub budgets: Arc<Registry>,
    /// Who is told of budgets that run low.
    pub alerts: Arc<Alerts>,
    /// Why requests went where they went.
    pub reasons: Reasons,
    /// The link to the Redis that is shared with other gateways.
    pub sharing: Mutex<Option<Sharing>>,
    /// Set once the process is to end.
    pub draining: AtomicBool,
}

impl Gateway {
    /// Whether new requests should go elsewhere.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Writes out what waits; called once, at the process's end.
    pub fn close(&self) {
        let writer = self.log_writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.close();
        }
        let sharing = self.sharing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sharing) = sharing {
            sharing.close();
        }
        self.alerts.close();
        self.ledger.close();
        self.store.close();
    }
}
