//! A second target is asked when the first is slow; the first good answer wins, and the other request ends at once.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::attempt::{self, Begun, Errand, Patience};
use crate::config;
use crate::either::{Either, either};
use crate::error::Fault;
use crate::net::upstream::Upstreams;
use crate::timer::{Due, FIRST_BYTE, IDLE, Timer};

/// When a model's requests are asked twice, and how many were.
#[derive(Debug)]
pub struct Hedge {
    /// How long the first target has alone.
    pub after: Duration,
    /// The share of requests that may be asked twice, in ten thousandths.
    most: u64,
    counts: Arc<Counts>,
}

/// How many requests came, and how many of them were asked twice; kept over reloads.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    hedged: AtomicU64,
}

/// One of two attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that began first.
    First,
    /// The other.
    Second,
}

impl Hedge {
    /// As it is written; it goes on counting where `kept`, the one before it, stopped.
    #[must_use]
    pub fn new(written: &config::Hedge, kept: Option<&Self>) -> Self {
        let counts = kept.map_or_else(Arc::default, |kept| Arc::clone(&kept.counts));
        Self { after: written.after.get(), most: u64::from(written.max_extra.hundredths()), counts }
    }

    /// One more request has come.
    pub fn count(&self) {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more may be asked twice; it is counted then. The first may always be, where any may.
    pub fn spend(&self) -> bool {
        let share = self.counts.requests.load(Ordering::Relaxed).saturating_mul(self.most) / 10_000;
        let most = share.max(self.most.min(1));
        let may = |hedged: u64| (hedged < most).then_some(hedged + 1);
        self.counts.hedged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may).is_ok()
    }

    /// The one that was counted last was not asked twice: nothing was there to ask.
    pub fn give_back(&self) {
        self.counts.hedged.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An attempt's own clocks, while another one runs beside it. Its caller is watched by whoever waits for both.
struct Alone {
    timer: Timer,
    idle: Option<Duration>,
}

impl Patience for Alone {
    async fn wait<T: Send>(&mut self, mut what: impl Future<Output = T> + Send + Unpin) -> Result<T, Fault> {
        loop {
            match either(&mut what, pin!(self.timer.due())).await {
                Either::First(done) => return Ok(done),
                Either::Second(Due::Timeout(name)) => return Err(Fault::timeout(name)),
                Either::Second(Due::KeepAlive) => {}
            }
        }
    }

    fn begins(&mut self, limit: Option<Duration>) {
        self.timer.phase(limit, FIRST_BYTE);
    }

    fn goes_on(&mut self) {
        self.timer.phase(self.idle, IDLE);
    }
}

/// As [`attempt::run`], without a caller to watch.
///
/// # Errors
/// What went wrong with this attempt.
pub async fn alone(upstreams: &Upstreams, errand: &Errand<'_, '_>) -> Result<Begun, Fault> {
    let idle = errand.instance.model().timeouts.idle;
    attempt::run(upstreams, &mut Alone { timer: Timer::start(Instant::now(), None, None), idle }, errand).await
}

/// How a race of two ended.
pub struct Raced {
    /// The one that ended it.
    pub won: Which,
    /// With what: a failure only when both failed.
    pub answer: Result<Begun, Fault>,
    /// What the other failed with before, if it did not lose for being slower.
    pub failed: Option<Fault>,
}

impl Which {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// The first good answer of two, or the second failure.
pub async fn race(
    mut first: Pin<&mut (impl Future<Output = Result<Begun, Fault>> + Send)>,
    mut second: Pin<&mut (impl Future<Output = Result<Begun, Fault>> + Send)>,
) -> Raced {
    let (won, answer) = tokio::select! {
        done = &mut first => (Which::First, done),
        done = &mut second => (Which::Second, done),
    };
    match (won, answer) {
        (won, Ok(begun)) => Raced { won, answer: Ok(begun), failed: None },
        (Which::First, Err(fault)) => Raced { won: Which::Second, answer: second.await, failed: Some(fault) },
        (Which::Second, Err(fault)) => Raced { won: Which::First, answer: first.await, failed: Some(fault) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_its_share_is_asked_twice() {
        let written = config::Hedge { after: config::Duration::secs(1), max_extra: config::Percent::of(5) };
        let mut hedge = Hedge::new(&written, None);
        let asked_twice = (0..1_000).filter(|number| {
            // A reload in between is no new beginning.
            if number % 100 == 0 {
                hedge = Hedge::new(&written, Some(&hedge));
            }
            hedge.count();
            hedge.spend()
        });
        assert_eq!(asked_twice.count(), 50);
    }

    #[test]
    fn a_share_of_none_is_none_and_of_any_other_the_first_may_be_asked_twice() {
        let of = |max_extra| Hedge::new(&config::Hedge { after: config::Duration::secs(1), max_extra }, None);
        let (none, some) = (of(config::Percent::of(0)), of(config::Percent::of(1)));
        (0..200).for_each(|_| none.count());
        assert!(!none.spend());
        some.count();
        assert!(some.spend() && !some.spend());
        some.give_back();
        assert!(some.spend(), "what found no target is still to be had");
    }
}
