//! How busy and how fast a target is: attempts in flight, and a peak-sensitive moving average of the time to the first
//! content (peak EWMA): a slow answer counts at once, a fast one little by little, and an old one fades.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Moment;

/// After so long without an answer a measured time counts for 1/e; a slow target is asked again some day.
const FADES_IN: Duration = Duration::from_secs(30);

/// The load of one target.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// Microseconds; 0 where nothing was measured.
    latency: AtomicU64,
    measured: AtomicU64,
}

impl Load {
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Attempts under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes one measured time into the average. Of two at the same time one may be lost, which an average bears.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an average of what fitted fits")]
    pub fn measure(&self, latency: Duration, now: Moment) {
        let latency = micros(latency).max(1);
        let known = self.latency.load(Ordering::Relaxed);
        let kept = self.kept(now);
        let next = if known <= latency { latency } else { latency + ((known - latency) as f64 * kept) as u64 };
        self.latency.store(next, Ordering::Relaxed);
        self.measured.store(now.to_bits(), Ordering::Relaxed);
    }

    /// The average; `None` where nothing was measured.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        let latency = self.latency.load(Ordering::Relaxed);
        (latency != 0).then(|| Duration::from_micros(latency))
    }

    /// What one more attempt would wait, about, for comparing: the faded average times those that would share it.
    pub(super) fn cost(&self, now: Moment) -> f64 {
        let faded = self.latency.load(Ordering::Relaxed) as f64 * self.kept(now);
        (faded + 1.0) * (f64::from(self.in_flight()) + 1.0)
    }

    /// How much of the last measured time still counts.
    fn kept(&self, now: Moment) -> f64 {
        let age = now.since(Moment::from_bits(self.measured.load(Ordering::Relaxed)));
        (-age.as_secs_f64() / FADES_IN.as_secs_f64()).exp()
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_bits(1_000_000);

    fn at(seconds: f64) -> Moment {
        START.plus(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fast_ones_little_by_little() {
        let load = Load::default();
        assert_eq!(load.latency(), None);
        load.measure(Duration::from_millis(100), at(0.0));
        load.measure(Duration::from_secs(4), at(1.0));
        assert_eq!(load.latency(), Some(Duration::from_secs(4)));
        load.measure(Duration::from_millis(100), at(2.0));
        assert!(load.latency() > Some(Duration::from_secs(3)), "{load:?}");
        (3..300).for_each(|second| load.measure(Duration::from_millis(100), at(f64::from(second))));
        assert!(load.latency() < Some(Duration::from_millis(101)), "{load:?}");
    }

    #[test]
    fn what_was_measured_long_ago_fades_so_that_a_slow_target_is_asked_again() {
        let (slow, fast) = (Load::default(), Load::default());
        slow.measure(Duration::from_secs(9), at(0.0));
        fast.measure(Duration::from_secs(1), at(0.0));
        assert!(slow.cost(at(0.0)) > fast.cost(at(0.0)));
        fast.measure(Duration::from_secs(1), at(120.0));
        assert!(slow.cost(at(120.0)) < fast.cost(at(120.0)));
    }

    #[test]
    fn what_is_in_flight_shares_the_time() {
        let load = Load::default();
        load.measure(Duration::from_secs(1), at(0.0));
        let alone = load.cost(at(0.0));
        load.begin();
        load.begin();
        assert!((load.cost(at(0.0)) / alone - 3.0).abs() < 1e-9);
        load.end();
        assert_eq!(load.in_flight(), 1);
    }
}
