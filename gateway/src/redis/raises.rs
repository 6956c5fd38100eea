//! The raised limits that gateways tell each other: one hash, with a field for each account. What was said last of an
//! account holds, so it matters not in which order it is written, heard and written again after Redis lost it.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use redis::Pipeline;

use crate::budget::{MOST_RAISES, Raise, Registry};

/// Where they are.
const KEY: &str = "weir:{raises}";

/// How long a field stays after its time, for clocks that are not quite the same.
const AFTERWARDS: SignedDuration = SignedDuration::from_hours(1);

/// Who keeps what was heard over a restart, on a thread that may block.
pub type Keep = Arc<dyn Fn(&[Raise]) + Send + Sync>;

/// What this gateway tells and hears of raised limits.
pub struct Raised {
    accounts: Arc<Registry>,
    keep: Keep,
}

impl Raised {
    /// The raises of these accounts are told, and they hear those of others, which `keep` is given.
    #[must_use]
    pub fn new(accounts: Arc<Registry>, keep: Keep) -> Self {
        Self { accounts, keep }
    }

    /// Waits until there is something to tell.
    pub(super) async fn said(&self) {
        self.accounts.said().await;
    }

    /// What asks for all that is told.
    pub(super) fn asking() -> Pipeline {
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(KEY);
        pipeline
    }

    /// Hears what was told. Gives what tells that which is not there, and takes away that which is over.
    pub(super) fn hear(&self, fields: Vec<(String, String)>, now: Timestamp) -> Option<Pipeline> {
        let (mut over, mut told, mut news) = (Vec::new(), Vec::new(), Vec::new());
        for (field, value) in fields.into_iter().take(MOST_RAISES) {
            match serde_json::from_str::<Raise>(&value) {
                Ok(raise) if raise.account == field && raise.limit >= 0 && !is_over(&raise, now) => told.push(raise),
                // What no gateway wrote goes as well.
                _ => over.push(field),
            }
        }
        for raise in &told {
            if self.accounts.learn(raise, now) {
                news.push(raise.clone());
            }
        }
        let pipeline = self.telling(&told, &over, now);
        if !news.is_empty() {
            tracing::info!(raises = news.len(), "another gateway raised limits, or ended that");
            let keep = Arc::clone(&self.keep);
            drop(tokio::task::spawn_blocking(move || keep(&news)));
        }
        (!pipeline.is_empty()).then_some(pipeline)
    }

    fn telling(&self, told: &[Raise], over: &[String], now: Timestamp) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let known = self.accounts.raises(now);
        let is_told = |raise: &Raise| told.iter().any(|told| told.account == raise.account && !raise.is_after(told));
        for raise in known.iter().filter(|raise| !is_told(raise)) {
            if let Ok(text) = serde_json::to_string(raise) {
                pipeline.hset(KEY, &raise.account, text).ignore();
            }
        }
        if !over.is_empty() {
            pipeline.hdel(KEY, over).ignore();
        }
        let last = known.iter().chain(told).map(|raise| raise.until).max();
        if let Some(last) = last.filter(|_| !pipeline.is_empty()) {
            pipeline.expire_at(KEY, last.saturating_add(AFTERWARDS).unwrap_or(last).as_second()).ignore();
        }
        pipeline
    }
}

fn is_over(raise: &Raise, now: Timestamp) -> bool {
    raise.until.saturating_add(AFTERWARDS).is_ok_and(|gone| gone <= now)
}

impl fmt::Debug for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raised")
    }
}
