//! The cooldown of one credential, or of one credential with one model.
//!
//! A failure that says enough cools at once (a rate limit, a refused credential, no connection); a failing server cools
//! when its share of failures in a window is too large. A cooldown ends on probation: one attempt at a time, until one
//! succeeds. Each cooldown in a row is longer than the one before.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Moment;
use super::notes::Word;
use crate::error::Cause;

/// Failures and successes count between one and two of these.
const WINDOW: Duration = Duration::from_secs(30);

/// A cooldown doubles at most so often; by then it is the longest anyway, or as good as none.
const MOST_DOUBLINGS: u32 = 16;

/// When a target is held to be ill, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many attempts before a share of failures counts.
    pub min_samples: u64,
    /// The share of failures that is too large, in hundredths of a percent.
    pub error_rate: u16,
    /// After a rate limit, or without credit.
    pub rate_limit: Duration,
    /// After a credential was refused.
    pub auth: Duration,
    /// After a connection failed.
    pub connection: Duration,
    /// After the provider failed.
    pub server: Duration,
    /// The longest, whatever the provider asks for.
    pub longest: Duration,
}

impl Rules {
    fn first(&self, cause: Cause) -> Duration {
        match cause {
            Cause::RateLimit | Cause::Credit => self.rate_limit,
            Cause::Auth => self.auth,
            Cause::Connection => self.connection,
            Cause::Server => self.server,
        }
    }

    /// How long to cool after a number of cooldowns in a row. What the provider asked for is kept to exactly; without
    /// that the time doubles, with up to a quarter more, so that not all come back at once.
    fn length(&self, failure: Failure, row: u32, chance: u64) -> Duration {
        let first = self.first(failure.cause);
        if first.is_zero() {
            return first;
        }
        let length = failure.retry_after.filter(|_| failure.cause != Cause::Auth).unwrap_or_else(|| {
            let doubled = first.saturating_mul(1 << row.min(MOST_DOUBLINGS));
            let more = if row == 0 { 0 } else { u32::try_from(chance % 256).unwrap_or_default() };
            doubled.saturating_add(doubled / 1024 * more)
        });
        length.min(self.longest)
    }
}

/// What a failed attempt says of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it was.
    pub cause: Cause,
    /// When the provider asked to come again.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Whether the provider itself said so of the credential, and would say it to every gateway. What else fails may
    /// lie between this gateway and the provider.
    pub(super) const fn is_said(self) -> bool {
        match self.cause {
            Cause::RateLimit | Cause::Credit | Cause::Auth => true,
            Cause::Connection | Cause::Server => self.retry_after.is_some(),
        }
    }
}

/// Whether one more attempt may go somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It may.
    Ready,
    /// One may, to see whether it is well again.
    Probe,
    /// One is under way to see that.
    Probing,
    /// Not before then.
    Cooling(Moment),
}

/// A cooldown as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// What the last failure was.
    pub cause: Cause,
    /// When it began.
    pub since: Moment,
    /// When the cooldown ends, or ended: after that it is on probation.
    pub until: Moment,
    /// Whether another gateway found it.
    pub elsewhere: bool,
}

/// The health of one credential, or of one credential with one model.
#[derive(Debug, Default)]
pub struct Health {
    /// When the last cooldown ends; [`Moment::NEVER`] for what is well. Picking reads nothing else.
    until: AtomicU64,
    probing: AtomicBool,
    /// Elsewhere, so that what picking reads of a thousand targets is close together.
    history: Box<Mutex<History>>,
}

#[derive(Debug, Default)]
struct History {
    window: Window,
    cooldowns_in_a_row: u32,
    /// When the last one began: an attempt from before it has nothing new to tell.
    cooled: Moment,
    cause: Option<Cause>,
    /// Whether the deadline is another gateway's.
    elsewhere: bool,
}

impl History {
    /// The row of cooldowns is over.
    fn end(&mut self) {
        self.cooldowns_in_a_row = 0;
        self.cause = None;
        self.elsewhere = false;
    }
}

impl Health {
    /// Whether one more attempt may go here.
    #[must_use]
    pub fn availability(&self, now: Moment) -> Availability {
        match self.until() {
            Moment::NEVER => Availability::Ready,
            until if until > now => Availability::Cooling(until),
            _ if self.probing.load(Ordering::Relaxed) => Availability::Probing,
            _ => Availability::Probe,
        }
    }

    /// Takes part in it: `None` where no attempt may go; where it has to be the only one, it is that until the claim is
    /// given up.
    #[must_use]
    pub(super) fn claim(&self, now: Moment) -> Option<Claim> {
        match self.availability(now) {
            Availability::Ready => Some(Claim::Shared),
            Availability::Probe => (!self.probing.swap(true, Ordering::AcqRel)).then_some(Claim::Probe),
            Availability::Probing | Availability::Cooling(_) => None,
        }
    }

    pub(super) fn give_up(&self, claim: Claim) {
        if claim == Claim::Probe {
            self.probing.store(false, Ordering::Release);
        }
    }

    /// An attempt that began at `begun` has its first content: probation is over. Gives whether a cooldown ended with
    /// that before its time.
    pub fn answered(&self, begun: Moment, now: Moment) -> bool {
        let until = self.until();
        let ends = until != Moment::NEVER && begun >= self.history().cooled;
        if ends {
            self.set_until(Moment::NEVER);
        }
        ends && until > now
    }

    /// An attempt that began at `begun` went well to its end.
    pub fn succeeded(&self, begun: Moment, now: Moment) {
        let mut history = self.history();
        history.window.add(now, 0);
        if begun >= history.cooled && history.cause.is_some() {
            history.end();
            self.set_until(Moment::NEVER);
        }
    }

    /// An attempt that began at `begun` failed. Gives the cooldown's length where one begins.
    pub fn failed(&self, failure: Failure, begun: Moment, now: Moment, rules: &Rules) -> Option<Duration> {
        let mut history = self.history();
        let is_news = begun >= history.cooled;
        if failure.cause == Cause::Server {
            history.window.add(now, 1);
            let on_probation = self.until() != Moment::NEVER;
            let asked = failure.retry_after.is_some();
            if !asked && !(is_news && (on_probation || history.window.is_ill(rules))) {
                return None;
            }
        }
        let row = if is_news { history.cooldowns_in_a_row } else { history.cooldowns_in_a_row.saturating_sub(1) };
        let length = rules.length(failure, row, spread(now));
        if length.is_zero() {
            return None;
        }
        history.cause = Some(failure.cause);
        if now.plus(length) > self.until() {
            history.elsewhere = false;
            self.set_until(now.plus(length));
        }
        if !is_news {
            return None;
        }
        history.cooldowns_in_a_row = row.saturating_add(1);
        history.cooled = now.plus(TICK);
        history.window = Window::default();
        Some(length)
    }

    /// Forgets everything: it is well. Gives whether it was not.
    pub fn reset(&self) -> bool {
        *self.history() = History::default();
        Moment::from_bits(self.until.swap(Moment::NEVER.to_bits(), Ordering::Relaxed)) != Moment::NEVER
    }

    /// Another gateway says how this stands.
    pub(super) fn hear(&self, word: Word, now: Moment) {
        match word {
            Word::Cools { until, cause } => self.hear_cooldown(until, cause, now),
            Word::Well => self.hear_well(now),
            Word::Reset => drop(self.reset()),
        }
    }

    /// The later deadline wins. One that begins a cooldown is one more in the row, so that the next one here is longer.
    fn hear_cooldown(&self, until: Moment, cause: Cause, now: Moment) {
        let mut history = self.history();
        let known = self.until();
        if until <= now || until <= known.plus(SAME) {
            return;
        }
        if known <= now {
            history.cooldowns_in_a_row = history.cooldowns_in_a_row.saturating_add(1);
        }
        history.cause = Some(cause);
        history.cooled = now.plus(TICK);
        history.elsewhere = true;
        self.set_until(until);
    }

    /// Another gateway was answered. What this one found itself stays, and so does a probation.
    fn hear_well(&self, now: Moment) {
        let mut history = self.history();
        if history.elsewhere && self.until() > now {
            history.end();
            self.set_until(Moment::NEVER);
        }
    }

    /// The cooldown that it is in, or on probation after.
    #[must_use]
    pub fn cooldown(&self) -> Option<Cooldown> {
        let History { cause, cooled: since, elsewhere, .. } = *self.history();
        let cooldown = Cooldown { cause: cause?, since, until: self.until(), elsewhere };
        Some(cooldown).filter(|cooldown| cooldown.until != Moment::NEVER)
    }

    pub(super) fn until(&self) -> Moment {
        Moment::from_bits(self.until.load(Ordering::Relaxed))
    }

    fn set_until(&self, until: Moment) {
        self.until.store(until.to_bits(), Ordering::Relaxed);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another gateway's deadline that is later by less is the same: clocks differ, and this one's own comes back too.
const SAME: Duration = Duration::from_secs(1);

/// An attempt that began in the same moment in which another one's failure was seen began before it.
const TICK: Duration = Duration::from_micros(1);

/// A share in a target that may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Shared,
    Probe,
}

/// Attempts and failures of the last while: two tallies, of which the older is forgotten whole.
#[derive(Debug, Default)]
struct Window {
    began: Moment,
    current: Tally,
    before: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    attempts: u64,
    failures: u64,
}

impl Window {
    fn add(&mut self, now: Moment, failures: u64) {
        let age = now.since(self.began);
        if age >= WINDOW {
            self.before = if age < WINDOW * 2 { self.current } else { Tally::default() };
            self.current = Tally::default();
            self.began = now;
        }
        self.current.attempts += 1;
        self.current.failures += failures;
    }

    fn is_ill(&self, rules: &Rules) -> bool {
        let attempts = self.current.attempts + self.before.attempts;
        let failures = self.current.failures + self.before.failures;
        attempts >= rules.min_samples
            && failures.saturating_mul(10_000) >= attempts.saturating_mul(rules.error_rate.into())
    }
}

/// An arbitrary number that differs from moment to moment (the mix of splitmix64).
fn spread(now: Moment) -> u64 {
    let mut mixed = now.to_bits().wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const START: Moment = Moment::from_bits(1_000_000);

    fn rules() -> Rules {
        Rules {
            min_samples: 5,
            error_rate: 5_000,
            rate_limit: secs(60),
            auth: secs(10),
            connection: secs(10),
            server: secs(10),
            longest: secs(600),
        }
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(seconds: u64) -> Moment {
        START.plus(secs(seconds))
    }

    fn of(cause: Cause) -> Failure {
        Failure { cause, retry_after: None }
    }

    fn asking(cause: Cause, seconds: u64) -> Failure {
        Failure { cause, retry_after: Some(secs(seconds)) }
    }

    #[test]
    fn a_limit_a_refused_credential_and_no_connection_cool_at_once_for_the_time_of_their_cause() {
        for (cause, length) in [(Cause::RateLimit, 60), (Cause::Credit, 60), (Cause::Auth, 10), (Cause::Connection, 10)]
        {
            let health = Health::default();
            assert_eq!(health.failed(of(cause), at(0), at(1), &rules()), Some(secs(length)), "{cause:?}");
            assert_eq!(health.availability(at(1)), Availability::Cooling(at(1 + length)));
            assert_eq!(health.availability(at(1 + length)), Availability::Probe);
            let since = at(1).plus(TICK);
            let until = at(1 + length);
            assert_eq!(health.cooldown(), Some(Cooldown { cause, since, until, elsewhere: false }));
        }
    }

    #[test]
    fn a_failing_server_cools_only_when_enough_attempts_failed() {
        let health = Health::default();
        for second in 0..4 {
            assert_eq!(health.failed(of(Cause::Server), at(second), at(second), &rules()), None);
            assert_eq!(health.availability(at(second)), Availability::Ready);
        }
        assert_eq!(health.failed(of(Cause::Server), at(4), at(4), &rules()), Some(secs(10)));
    }

    #[test]
    fn a_share_of_failures_under_the_rate_never_cools() {
        let health = Health::default();
        for second in 0..1000 {
            health.succeeded(at(second), at(second));
            health.succeeded(at(second), at(second));
            assert_eq!(health.failed(of(Cause::Server), at(second), at(second), &rules()), None, "{second}");
        }
    }

    #[test]
    fn failures_of_long_ago_are_forgotten() {
        let health = Health::default();
        for minute in 0..60 {
            let now = at(minute * 60);
            assert_eq!(health.failed(of(Cause::Server), now, now, &rules()), None);
        }
    }

    #[test]
    fn what_the_provider_asks_for_is_kept_to_up_to_the_longest() {
        for (asked, length) in [(1, 1), (90, 90), (600, 600), (86_400, 600)] {
            let health = Health::default();
            let cooled = health.failed(asking(Cause::RateLimit, asked), at(0), at(0), &rules());
            assert_eq!(cooled, Some(secs(length)));
        }
        let health = Health::default();
        assert_eq!(health.failed(asking(Cause::Server, 7), at(0), at(0), &rules()), Some(secs(7)));
    }

    #[test]
    fn the_later_deadline_wins() {
        let health = Health::default();
        health.failed(asking(Cause::RateLimit, 100), at(0), at(1), &rules());
        health.failed(asking(Cause::RateLimit, 5), at(0), at(2), &rules());
        assert_eq!(health.availability(at(3)), Availability::Cooling(at(101)));
        health.failed(asking(Cause::RateLimit, 200), at(0), at(2), &rules());
        assert_eq!(health.availability(at(3)), Availability::Cooling(at(202)));
    }

    #[test]
    fn attempts_that_fail_together_are_one_cooldown() {
        let health = Health::default();
        let begun = (0..50).filter_map(|_| health.failed(of(Cause::RateLimit), at(0), at(1), &rules()));
        assert_eq!(begun.collect::<Vec<_>>(), [secs(60)]);
        assert_eq!(health.availability(at(2)), Availability::Cooling(at(61)));
    }

    #[test]
    fn each_cooldown_in_a_row_is_longer_with_some_jitter_until_a_success_ends_the_row() {
        let health = Health::default();
        let mut now = START;
        let mut lengths = Vec::new();
        for _ in 0..12 {
            let length = health.failed(of(Cause::Connection), now, now, &rules()).unwrap();
            lengths.push(length);
            now = now.plus(length);
        }
        for (row, length) in lengths.iter().enumerate() {
            let least = secs(10 << row).min(secs(600));
            assert!((least..=(least + least / 4).min(secs(600))).contains(length), "{lengths:?}");
        }
        assert_ne!(lengths.get(1), Some(&secs(20)), "no jitter");
        health.succeeded(now, now);
        assert_eq!(health.availability(now), Availability::Ready);
        assert_eq!(health.failed(of(Cause::Connection), now, now, &rules()), Some(secs(10)));
    }

    #[test]
    fn after_a_cooldown_there_is_one_probe_at_a_time_until_one_succeeds() {
        let health = Health::default();
        health.failed(of(Cause::Auth), at(0), at(0), &rules());
        assert_eq!(health.claim(at(9)), None);
        assert_eq!(health.claim(at(10)), Some(Claim::Probe));
        assert_eq!((health.claim(at(11)), health.availability(at(11))), (None, Availability::Probing));
        health.give_up(Claim::Probe);
        assert_eq!(health.claim(at(12)), Some(Claim::Probe));
        assert!(!health.answered(at(12), at(12)));
        assert_eq!(health.claim(at(13)), Some(Claim::Shared));
        health.give_up(Claim::Probe);
        assert_eq!(health.claim(at(14)), Some(Claim::Shared));
    }

    #[test]
    fn a_probe_that_fails_cools_again_whatever_the_samples() {
        let health = Health::default();
        for _ in 0..5 {
            health.failed(of(Cause::Server), at(0), at(0), &rules());
        }
        assert_eq!(health.availability(at(10)), Availability::Probe);
        let again = health.failed(of(Cause::Server), at(10), at(11), &rules()).unwrap();
        assert!(again >= secs(20));
    }

    #[test]
    fn a_success_of_an_attempt_from_before_a_cooldown_does_not_end_it() {
        let health = Health::default();
        health.failed(of(Cause::RateLimit), at(0), at(5), &rules());
        health.answered(at(4), at(4));
        health.succeeded(at(4), at(6));
        assert_eq!(health.availability(at(7)), Availability::Cooling(at(65)));
        health.succeeded(at(65), at(66));
        assert_eq!((health.availability(at(66)), health.cooldown()), (Availability::Ready, None));
    }

    #[test]
    fn a_cooldown_of_no_time_is_none_whatever_the_provider_asks_for() {
        let rules = Rules { rate_limit: Duration::ZERO, server: Duration::ZERO, ..rules() };
        let health = Health::default();
        for _ in 0..50 {
            assert_eq!(health.failed(asking(Cause::RateLimit, 30), at(0), at(0), &rules), None);
            assert_eq!(health.failed(of(Cause::Server), at(0), at(0), &rules), None);
        }
        assert_eq!(health.availability(at(0)), Availability::Ready);
    }

    #[test]
    fn a_reset_forgets_everything() {
        let health = Health::default();
        health.failed(of(Cause::RateLimit), at(0), at(0), &rules());
        health.failed(of(Cause::RateLimit), at(60), at(60), &rules());
        health.reset();
        assert_eq!((health.availability(at(61)), health.cooldown()), (Availability::Ready, None));
        assert_eq!(health.failed(of(Cause::RateLimit), at(61), at(61), &rules()), Some(secs(60)));
    }

    fn cools(until: Moment) -> Word {
        Word::Cools { until, cause: Cause::RateLimit }
    }

    #[test]
    fn the_later_deadline_wins_whoever_found_it() {
        let health = Health::default();
        health.failed(asking(Cause::RateLimit, 100), at(0), at(0), &rules());
        for same_or_earlier in [50, 100, 101] {
            health.hear(cools(at(same_or_earlier)), at(1));
            let cooldown = health.cooldown().unwrap();
            assert_eq!((cooldown.until, cooldown.elsewhere), (at(100), false));
        }
        health.hear(cools(at(200)), at(1));
        health.failed(asking(Cause::RateLimit, 100), at(0), at(2), &rules());
        let cooldown = health.cooldown().unwrap();
        assert_eq!((cooldown.until, cooldown.elsewhere), (at(200), true));
        health.failed(asking(Cause::RateLimit, 300), at(0), at(2), &rules());
        let cooldown = health.cooldown().unwrap();
        assert_eq!((cooldown.until, cooldown.elsewhere), (at(302), false));
    }

    #[test]
    fn what_was_heard_ends_on_probation_like_any_other_and_counts_in_the_row() {
        let health = Health::default();
        health.hear(cools(at(10)), at(0));
        health.hear(cools(at(20)), at(5));
        assert_eq!((health.claim(at(19)), health.claim(at(20))), (None, Some(Claim::Probe)));
        health.hear(cools(at(20)), at(21));
        health.hear(Word::Well, at(21));
        assert_eq!(health.availability(at(21)), Availability::Probing);
        let length = health.failed(of(Cause::Auth), at(20), at(22), &rules()).unwrap();
        assert!((secs(20)..=secs(25)).contains(&length), "{length:?}");
    }

    #[test]
    fn anothers_answer_ends_what_was_heard_and_not_what_was_found_here() {
        let health = Health::default();
        health.hear(cools(at(10)), at(0));
        health.hear(Word::Well, at(1));
        assert_eq!((health.availability(at(1)), health.cooldown()), (Availability::Ready, None));
        health.failed(of(Cause::Auth), at(2), at(2), &rules());
        health.hear(Word::Well, at(3));
        assert_eq!(health.availability(at(3)), Availability::Cooling(at(12)));
        health.hear(Word::Reset, at(4));
        assert_eq!((health.availability(at(4)), health.cooldown()), (Availability::Ready, None));
    }

    #[test]
    fn only_an_attempt_that_began_after_it_was_heard_ends_it() {
        let health = Health::default();
        health.hear(cools(at(10)), at(5));
        assert!(!health.answered(at(4), at(6)));
        health.succeeded(at(4), at(6));
        assert_eq!(health.availability(at(6)), Availability::Cooling(at(10)));
        assert!(health.answered(at(6), at(7)), "before its time");
        assert_eq!(health.availability(at(7)), Availability::Ready);
    }

    /// One thing that happens to a target: how it went, how long the attempt took, and the time until the next.
    fn events() -> impl Strategy<Value = Vec<(Option<Failure>, u64, u64)>> {
        let cause = proptest::sample::select(&Cause::ALL[..]);
        let asked = proptest::option::of(0_u64..2_000);
        let failure =
            (cause, asked).prop_map(|(cause, asked)| Failure { cause, retry_after: asked.map(Duration::from_secs) });
        proptest::collection::vec((proptest::option::of(failure), 0_u64..100, 0_u64..100), 0..60)
    }

    proptest! {
        #[test]
        fn whatever_is_heard_only_a_later_deadline_that_is_to_come_changes_one(heard in proptest::collection::vec((0_u64..400, 0_u64..50), 0..60)) {
            let health = Health::default();
            let mut now = START;
            for (until, pause) in heard {
                let before = health.until();
                health.hear(cools(at(until)), now);
                let counts = at(until) > now && at(until) > before.plus(SAME);
                prop_assert_eq!(health.until(), if counts { at(until) } else { before });
                now = now.plus(secs(pause));
            }
        }

        #[test]
        fn whatever_happens_a_cooldown_ends_within_the_longest_and_only_a_success_shortens_it(events in events()) {
            let health = Health::default();
            let mut now = at(1_000);
            for (failure, took, pause) in events {
                let begun = now;
                now = now.plus(secs(took));
                let before = health.until();
                match failure {
                    Some(failure) => {
                        health.failed(failure, begun, now, &rules());
                        prop_assert!(health.until() >= before);
                    }
                    None => health.succeeded(begun, now),
                }
                prop_assert!(health.until().since(now) <= rules().longest);
                let later = now.plus(rules().longest);
                prop_assert!(matches!(health.availability(later), Availability::Ready | Availability::Probe));
                now = now.plus(secs(pause));
            }
        }
    }
}
