//! What all requests share: one value for the process, that survives reloads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::access_log::{AccessLog, Writer};
use crate::alerts::Alerts;
use crate::budget::Registry;
use crate::ledger::{Charge, Ledger};
use crate::metrics::Metrics;
use crate::model::ModelManager;
use crate::net::upstream::Upstreams;
use crate::reasons::Reasons;
use crate::sharing::Sharing;
use crate::store::{Disk, Store};

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

    /// Gives accounts that a reload brings, and that were there before another took them away, what they had used and
    /// how far they were raised. Blocks.
    pub fn recall(&self, now: Timestamp) {
        // Until then the ledger itself will, once it is open.
        if self.ledger.is_open() {
            restore(&self.budgets, self.store.disk(), &self.ledger.counters(), now);
        }
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

/// Gives new accounts what is kept of them: what they used, and limits that were raised.
pub fn restore(budgets: &Registry, disk: &Disk, charges: &[Charge], now: Timestamp) {
    match disk.raises(now) {
        Ok(raises) => {
            for raise in &raises {
                budgets.learn(raise, now);
            }
        }
        Err(error) => tracing::error!(%error, "limits that were raised cannot be read, and hold as configured"),
    }
    budgets.raise_again(now);
    let counters = charges.iter().map(|charge| (charge.account.as_ref(), charge.window, charge.amount));
    budgets.restore(counters, now);
}
