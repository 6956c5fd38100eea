//! So much a minute, counted exactly: a leaky bucket in whole units, with debt, in two atomics and without a lock.
//!
//! The bucket holds one number, its *line*: the units that were ever charged, pushed forward over the time in which it
//! was empty. What drains is a line of its own, `limit` units a minute since the bucket's start. What stands between
//! the two lines is used. Requests and tokens are the same bucket with other numbers. Why it is not governor's stands
//! in
//! `docs/decisions/rates.md`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// The nanoseconds in which a whole limit drains.
const MINUTE: i128 = 60_000_000_000;

/// Limits are cut to this, so that the lines of ten years fit an `i64`. Nobody uses a million million tokens a minute.
const MOST: i64 = 1_000_000_000_000;

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: i64,
    start: Instant,
    line: AtomicI64,
    /// Where the drain was when the bucket was last found empty by a charge.
    emptied: AtomicI64,
}

impl Bucket {
    /// A bucket of `limit` units a minute of which `used` are used.
    pub(super) fn new(limit: u64, used: i64, now: Instant) -> Self {
        let limit = i64::try_from(limit).unwrap_or(MOST).min(MOST);
        Self { limit, start: now, line: AtomicI64::new(used.max(0)), emptied: AtomicI64::new(0) }
    }

    /// Units a minute; also the most at once.
    pub(super) fn limit(&self) -> i64 {
        self.limit
    }

    /// What is used at `now`; more than the limit is debt.
    pub(super) fn used(&self, now: Instant) -> i64 {
        self.line.load(Ordering::Relaxed).saturating_sub(self.drained(now)).max(0)
    }

    /// What can still be charged at `now`.
    pub(super) fn left(&self, now: Instant) -> i64 {
        self.limit.saturating_sub(self.used(now)).max(0)
    }

    /// When nothing is used any more, unless something is charged.
    pub(super) fn empty_in(&self, now: Instant) -> Duration {
        self.drains_to(self.line.load(Ordering::Relaxed), now)
    }

    /// When a unit can be charged, unless something else is.
    pub(super) fn room_in(&self, now: Instant) -> Duration {
        let drained = self.drained(now);
        let (line, room) = (self.line.load(Ordering::Relaxed), self.room(1, drained));
        if line <= room { Duration::ZERO } else { self.until(line, room, now) }
    }

    /// Up to where the line may be for `units` more.
    fn room(&self, units: i64, drained: i64) -> i64 {
        self.limit.saturating_sub(units.min(self.limit)).saturating_add(drained)
    }

    /// How long until a `line` that is over the `room` of now is not.
    fn until(&self, line: i64, room: i64, now: Instant) -> Duration {
        self.drains_to(line.saturating_sub(room).saturating_add(self.drained(now)), now)
    }

    /// Charges `units`, or says how long to wait for room. More than the limit waits for an empty bucket and leaves a
    /// debt, so that what is only estimated is not refused for ever.
    pub(super) fn charge(&self, units: i64, now: Instant) -> Result<(), Duration> {
        let drained = self.drained(now);
        let room = self.room(units, drained);
        let charged = self.line.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |line| {
            let fits = line <= room && self.limit >= units.min(1);
            fits.then(|| line.max(drained).saturating_add(units))
        });
        match charged {
            Ok(before) => {
                self.note_empty(before, drained);
                Ok(())
            }
            Err(line) => Err(self.until(line, room, now)),
        }
    }

    /// Makes a charge of `units` at `then` one of `actual`. More is charged now, into debt. Less is given back, unless
    /// the bucket was empty in the meantime: then those units have drained, and giving them back would erase somebody
    /// else's.
    pub(super) fn correct(&self, units: i64, actual: i64, then: Instant, now: Instant) {
        let more = actual.saturating_sub(units);
        if more > 0 {
            self.force(more, now);
        } else if self.emptied.load(Ordering::Relaxed) <= self.drained(then) {
            self.line.fetch_add(more, Ordering::Relaxed);
        }
    }

    fn force(&self, units: i64, now: Instant) {
        let drained = self.drained(now);
        let raised = |line: i64| Some(line.max(drained).saturating_add(units));
        if let Ok(before) = self.line.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised) {
            self.note_empty(before, drained);
        }
    }

    fn note_empty(&self, line: i64, drained: i64) {
        if line <= drained {
            self.emptied.fetch_max(drained, Ordering::Relaxed);
        }
    }

    /// The units that have drained since the start.
    fn drained(&self, now: Instant) -> i64 {
        let nanos = now.saturating_duration_since(self.start).as_nanos();
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX / i128::from(MOST));
        i64::try_from(nanos * i128::from(self.limit) / MINUTE).unwrap_or(i64::MAX)
    }

    /// How long until the drain has come to `line`.
    fn drains_to(&self, line: i64, now: Instant) -> Duration {
        if self.limit == 0 {
            return Duration::from_secs(60);
        }
        let limit = i128::from(self.limit);
        let nanos = (i128::from(line) * MINUTE + limit - 1) / limit;
        let nanos = u64::try_from(nanos.max(0)).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos).saturating_sub(now.saturating_duration_since(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_whole_minute_may_come_at_once_and_then_one_by_one() {
        let now = Instant::now();
        let bucket = Bucket::new(60, 0, now);
        for _ in 0..60 {
            assert_eq!(bucket.charge(1, now), Ok(()));
        }
        assert_eq!(bucket.charge(1, now), Err(SECOND));
        assert_eq!(bucket.charge(1, now + SECOND), Ok(()));
        assert_eq!(bucket.charge(1, now + SECOND), Err(SECOND));
        assert_eq!(bucket.left(now + 31 * SECOND), 30);
        assert_eq!(bucket.empty_in(now + 31 * SECOND), 30 * SECOND);
    }

    #[test]
    fn a_limit_of_nothing_lets_nothing_through() {
        let now = Instant::now();
        let bucket = Bucket::new(0, 0, now);
        assert!(bucket.charge(1, now).is_err());
        assert!(bucket.charge(1, now + 1000 * SECOND).is_err());
    }

    #[test]
    fn more_than_the_limit_waits_for_an_empty_bucket_and_leaves_a_debt() {
        let now = Instant::now();
        let bucket = Bucket::new(600, 0, now);
        assert_eq!(bucket.charge(10, now), Ok(()));
        assert_eq!(bucket.charge(900, now), Err(SECOND));
        assert_eq!(bucket.charge(900, now + SECOND), Ok(()));
        assert_eq!((bucket.used(now + SECOND), bucket.left(now + SECOND)), (900, 0));
        assert_eq!(bucket.charge(1, now + SECOND), Err(30 * SECOND + SECOND / 10));
    }

    #[test]
    fn an_estimate_is_replaced_by_exactly_what_was_used() {
        let now = Instant::now();
        for (estimate, actual) in [(500, 20), (20, 500), (7, 7), (600, 0), (1, 5000)] {
            let bucket = Bucket::new(600, 0, now);
            assert_eq!(bucket.charge(estimate, now), Ok(()));
            bucket.correct(estimate, actual, now, now);
            assert_eq!(bucket.used(now), actual);
        }
    }

    #[test]
    fn what_has_drained_is_not_given_back_at_the_cost_of_others() {
        let now = Instant::now();
        let bucket = Bucket::new(600, 0, now);
        assert_eq!(bucket.charge(600, now), Ok(()));
        let later = now + 61 * SECOND;
        assert_eq!(bucket.charge(600, later), Ok(()));
        bucket.correct(600, 0, now, later);
        assert_eq!(bucket.used(later), 600);
    }

    #[test]
    fn a_clock_that_stands_behind_charges_all_the_same() {
        let now = Instant::now();
        let bucket = Bucket::new(60, 0, now + SECOND);
        assert_eq!(bucket.charge(60, now), Ok(()));
        assert!(bucket.charge(1, now).is_err());
    }

    proptest! {
        /// Whatever is charged when, no stretch of time has more than the limit and what drained in it.
        #[test]
        fn no_stretch_of_time_holds_more_than_the_limit_and_what_drained(
            limit in 1_u64..1000,
            charges in prop::collection::vec((0_u64..20_000, 1_i64..50), 1..100),
        ) {
            let start = Instant::now();
            let bucket = Bucket::new(limit, 0, start);
            let limit = i64::try_from(limit).unwrap_or(0);
            let mut at = 0;
            let mut admitted: Vec<(u64, i64)> = Vec::new();
            for (pause, units) in charges {
                at += pause;
                let units = units.min(limit);
                if bucket.charge(units, start + Duration::from_millis(at)).is_ok() {
                    admitted.push((at, units));
                }
            }
            for (first, (from, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (to, units) in admitted.iter().skip(first) {
                    sum += units;
                    // One more unit, since a stretch may begin and end within a unit's time.
                    let drained = i64::try_from(to - from).unwrap_or(0) * limit / 60_000 + 1;
                    prop_assert!(sum <= limit + drained, "{sum} in {}ms of {limit}", to - from);
                }
            }
        }

        /// A refusal tells the truth: then there is room, and a millisecond before there was none.
        #[test]
        fn a_refusal_says_when_there_is_room(limit in 1_u64..100_000, used in 0_i64..200_000, units in 1_i64..200_000) {
            let now = Instant::now();
            let bucket = Bucket::new(limit, used, now);
            let room_in = bucket.room_in(now);
            prop_assert_eq!(room_in.is_zero(), bucket.left(now) > 0);
            if let Err(wait) = bucket.charge(units, now) {
                prop_assert!(wait > Duration::ZERO);
                prop_assert!(room_in <= wait && bucket.left(now + room_in) > 0);
                let early = now + wait.saturating_sub(Duration::from_nanos(1));
                prop_assert!(bucket.charge(units, early).is_err());
                prop_assert!(bucket.charge(units, now + wait).is_ok());
            }
        }

        /// Estimates that are settled leave what a reference that knew the truth all along has.
        #[test]
        fn settled_estimates_leave_what_was_used(charges in prop::collection::vec((0_i64..500, 0_i64..500), 1..50)) {
            let now = Instant::now();
            let (guessing, knowing) = (Bucket::new(1_000_000, 0, now), Bucket::new(1_000_000, 0, now));
            for (estimate, _) in &charges {
                prop_assert!(guessing.charge(*estimate, now).is_ok());
            }
            for (estimate, actual) in &charges {
                guessing.correct(*estimate, *actual, now, now);
                prop_assert!(knowing.charge(*actual, now).is_ok());
            }
            prop_assert_eq!(guessing.used(now + SECOND), knowing.used(now + SECOND));
        }
    }
}
