//! Whether a failed request is tried again, and when. Pure: it knows no socket, and time and chance are handed in.
//!
//! A target that was not tried yet is tried at once. When all were, a new round begins after a wait, where another try
//! may help and does no harm: nothing goes a second time to a target that may have done what was asked. New rounds have
//! a budget over all requests, so that they cannot make an outage worse.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adapters::Class;

use crate::config::Fallbacks;
use crate::error::{Cause, Fault, Kind};

/// How often and how fast a model's requests are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts after the first.
    pub max: u32,
    /// The wait before the second round; it doubles from round to round.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

/// What to do after an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try a target that was not tried yet.
    Next,
    /// Tell the caller.
    GiveUp,
}

/// One request's tries.
#[derive(Clone, Copy, Debug)]
pub struct Tries {
    policy: Policy,
    attempts: u32,
    rounds: u32,
}

/// What bounds a wait before a new round.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// How long until the first target may be used again.
    pub ready: Duration,
    /// How much time the request has left; `None`: any.
    pub left: Option<Duration>,
    /// A random number.
    pub chance: u32,
}

/// The models that take over after `fault`: those named for a prompt that is too long or for content that was refused,
/// or those for every failure that another model may mend.
#[must_use]
pub fn takes_over<'f>(fallbacks: &'f Fallbacks, fault: &Fault) -> &'f [String] {
    match fault.refused {
        Some((_, Class::ContextLength)) => &fallbacks.context_window,
        Some((_, Class::ContentPolicy)) => &fallbacks.content_policy,
        _ if fault.may_retry_elsewhere() => &fallbacks.any,
        _ => &[],
    }
}

impl Policy {
    /// Never again.
    pub const NONE: Self = Self { max: 0, first: Duration::ZERO, longest: Duration::ZERO };

    /// The tries of one request.
    #[must_use]
    pub const fn begin(self) -> Tries {
        Tries { policy: self, attempts: 0, rounds: 0 }
    }

    /// The wait before the round after so many: doubled for each, the later half of it by chance.
    fn backoff(&self, rounds: u32, chance: u32) -> Duration {
        let longest = self.first.saturating_mul(1_u32.checked_shl(rounds).unwrap_or(u32::MAX)).min(self.longest);
        longest / 2 + (longest / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }
}

impl Tries {
    /// What follows the failure of one more attempt, if there is a target that was not tried.
    #[must_use]
    pub fn after(&mut self, fault: &Fault) -> Step {
        self.count();
        if self.attempts > self.policy.max || !fault.may_retry_elsewhere() { Step::GiveUp } else { Step::Next }
    }

    /// One more attempt was made.
    pub fn count(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Whether one more attempt may follow the one that is under way.
    #[must_use]
    pub fn are_left(&self) -> bool {
        self.attempts < self.policy.max
    }

    /// Whether no attempt is left.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.attempts > self.policy.max
    }

    /// How long to wait before all targets are tried once more after `fault`; `None`: not again.
    #[must_use]
    pub fn again(&mut self, fault: &Fault, circumstances: Circumstances) -> Option<Duration> {
        let Circumstances { ready, left, chance } = circumstances;
        if self.are_over() || self.rounds >= self.policy.max || !may_go_there_again(fault) {
            return None;
        }
        let asked = fault.retry_after.unwrap_or_default().max(ready);
        if asked > self.policy.longest {
            return None;
        }
        let wait = self.policy.backoff(self.rounds, chance).max(asked);
        self.rounds = self.rounds.saturating_add(1);
        Some(wait).filter(|wait| left.is_none_or(|left| *wait < left))
    }
}

/// Whether the same target may do better later, and surely has not done yet what was asked.
fn may_go_there_again(fault: &Fault) -> bool {
    let may = match fault.cause {
        Some(Cause::Connection | Cause::RateLimit | Cause::Server) => true,
        Some(Cause::Auth | Cause::Credit) | None => false,
    };
    // Whoever waited for a silent provider once has waited long enough.
    may && !fault.begun && fault.kind != Kind::ProviderTimeout
}

/// So many new rounds are free in each span: with few requests, a share of them would be none.
const FLOOR: u64 = 10;

/// Beside those, one new round for so many requests: 20 %.
const REQUESTS_A_ROUND: u64 = 5;

/// The span in which requests and rounds are counted.
const SPAN: Duration = Duration::from_secs(10);

/// How many new rounds all requests together may begin: a share of them.
#[derive(Debug, Default)]
pub struct Budget {
    span: AtomicU64,
    requests: AtomicU64,
    requests_before: AtomicU64,
    rounds: AtomicU64,
}

impl Budget {
    /// One more request has come, `now` after the process's start.
    pub fn count(&self, now: Duration) {
        self.turn_to(now);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more round may begin; it is counted if so.
    #[must_use]
    pub fn spend(&self, now: Duration) -> bool {
        self.turn_to(now);
        let requests = self.requests.load(Ordering::Relaxed).max(self.requests_before.load(Ordering::Relaxed));
        let most = FLOOR + requests / REQUESTS_A_ROUND;
        self.rounds
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rounds| (rounds < most).then_some(rounds + 1))
            .is_ok()
    }

    /// Begins a new span where one is over. Of two threads at the turn, what one counts may fall into the other span.
    fn turn_to(&self, now: Duration) {
        let (known, span) = (self.span.load(Ordering::Relaxed), now.as_secs() / SPAN.as_secs());
        let is_turn =
            span > known && self.span.compare_exchange(known, span, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_turn {
            let requests = self.requests.swap(0, Ordering::Relaxed);
            self.requests_before.store(if span == known + 1 { requests } else { 0 }, Ordering::Relaxed);
            self.rounds.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy { max: 3, first: Duration::from_millis(250), longest: Duration::from_secs(5) };

    fn fault(kind: Kind, cause: Option<Cause>) -> Fault {
        Fault { cause, ..Fault::new(kind, StatusCode::BAD_GATEWAY, "c", "m") }
    }

    fn failed() -> Fault {
        fault(Kind::ProviderError, Some(Cause::Server))
    }

    fn now() -> Circumstances {
        Circumstances { ready: Duration::ZERO, left: None, chance: u32::MAX }
    }

    #[test]
    fn there_are_as_many_attempts_as_the_policy_says_wherever_they_go() {
        let mut tries = POLICY.begin();
        let steps: Vec<_> = (0..5).map(|_| tries.after(&failed())).collect();
        assert_eq!(steps, [Step::Next, Step::Next, Step::Next, Step::GiveUp, Step::GiveUp]);
        assert_eq!(tries.again(&failed(), now()), None);
        assert_eq!(Policy::NONE.begin().after(&failed()), Step::GiveUp);
    }

    #[test]
    fn the_wait_doubles_from_round_to_round_up_to_the_longest() {
        let mut tries = Policy { max: 99, ..POLICY }.begin();
        let waits: Vec<_> = (0..7).map(|_| tries.again(&failed(), now()).unwrap().as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        let soonest = POLICY.begin().again(&failed(), Circumstances { chance: 0, ..now() });
        assert_eq!(soonest, Some(Duration::from_millis(125)));
    }

    #[test]
    fn each_class_of_failure_has_its_own_rule() {
        use Kind::{
            CallerGone, CallerRequest, ProviderAuth, ProviderError, ProviderLimit, ProviderTimeout, ProviderUnreachable,
        };
        for (kind, cause, elsewhere, there_again) in [
            (ProviderError, Some(Cause::Server), true, true),
            (ProviderUnreachable, Some(Cause::Connection), true, true),
            (ProviderUnreachable, Some(Cause::Server), true, true),
            (ProviderLimit, Some(Cause::RateLimit), true, true),
            (ProviderLimit, Some(Cause::Credit), true, false),
            (ProviderAuth, Some(Cause::Auth), true, false),
            (ProviderTimeout, Some(Cause::Server), true, false),
            (ProviderTimeout, Some(Cause::Connection), true, false),
            (CallerRequest, None, false, false),
            (CallerGone, None, false, false),
        ] {
            let fault = fault(kind, cause);
            let mut tries = POLICY.begin();
            assert_eq!(tries.after(&fault) == Step::Next, elsewhere, "{fault:?}");
            assert_eq!(tries.again(&fault, now()).is_some(), there_again, "{fault:?}");
        }
    }

    #[test]
    fn what_began_to_be_answered_never_goes_to_the_same_target_again() {
        let fault = Fault { begun: true, ..failed() };
        let mut tries = POLICY.begin();
        assert_eq!((tries.after(&fault), tries.again(&fault, now())), (Step::Next, None));
    }

    #[test]
    fn a_wait_is_as_long_as_the_provider_asks_and_none_is_longer_than_the_longest_or_the_time_left() {
        let asking = |seconds| Fault { retry_after: Some(Duration::from_secs(seconds)), ..failed() };
        let again = |fault: &Fault, circumstances| POLICY.begin().again(fault, circumstances);
        assert_eq!(again(&asking(3), now()), Some(Duration::from_secs(3)));
        assert_eq!(again(&asking(6), now()), None);
        let ready = |seconds| Circumstances { ready: Duration::from_secs(seconds), ..now() };
        assert_eq!(again(&asking(1), ready(2)), Some(Duration::from_secs(2)));
        assert_eq!(again(&failed(), ready(60)), None);
        let left = |millis| Circumstances { left: Some(Duration::from_millis(millis)), ..now() };
        assert_eq!(again(&failed(), left(250)), None);
        assert_eq!(again(&failed(), left(251)), Some(Duration::from_millis(250)));
    }

    #[test]
    fn new_rounds_are_a_share_of_the_requests() {
        let budget = Budget::default();
        let spent = |now| (0..10_000).filter(|_| budget.spend(now)).count();
        (0..1_000).for_each(|_| budget.count(Duration::from_secs(1)));
        assert_eq!(spent(Duration::from_secs(2)), 210);
        assert_eq!(spent(Duration::from_secs(9)), 0);
        assert_eq!(spent(Duration::from_secs(10)), 210);
        assert_eq!(spent(Duration::from_secs(20)), 10);
        assert_eq!(spent(Duration::from_secs(3_000)), 10);
    }

    proptest! {
        #[test]
        fn rounds_never_storm(events in proptest::collection::vec((0_u64..1_500, any::<bool>()), 0..2_000)) {
            let budget = Budget::default();
            let (mut millis, mut requests, mut rounds) = (0, 0_u64, 0_u64);
            let mut spans = 1;
            for (pause, is_request) in events {
                let before = millis / 10_000;
                millis += pause;
                spans += u64::from(millis / 10_000 > before);
                let now = Duration::from_millis(millis);
                if is_request {
                    budget.count(now);
                    requests += 1;
                } else {
                    rounds += u64::from(budget.spend(now));
                }
            }
            prop_assert!(rounds <= FLOOR * spans + 2 * requests / REQUESTS_A_ROUND);
        }
    }
}
