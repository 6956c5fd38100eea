//! What an account tells of itself: that its soft limit is reached, or its end.

use std::fmt;
use std::sync::Arc;

use crate::budget::account::Owner;
use crate::budget::window::Window;
use crate::config::Every;

/// An account of money came to a threshold of its limit: told once a window, and again only of a higher limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// To which.
    pub threshold: Threshold,
    /// Which account.
    pub account: Arc<str>,
    /// Whose.
    pub owner: Owner,
    /// How long its windows are.
    pub every: Every,
    /// The one in which it happened.
    pub window: Window,
    /// What was used, here and by other nodes.
    pub used: i64,
    /// What may be.
    pub limit: i64,
}

/// What an account can come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// Its soft limit.
    Soft,
    /// Its end: all of it is used, or an attempt was refused since its worst case had no room left.
    Spent,
}

impl Threshold {
    /// Its word in alerts, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Spent => "spent",
        }
    }
}

/// Who is told of alerts.
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(&Alert) + Send + Sync>);

impl Listener {
    /// Calls `told` for each alert, on a request's path: it must not wait.
    pub fn new(told: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    /// Tells it of an alert.
    pub(super) fn tell(&self, alert: &Alert) {
        (self.0)(alert);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
