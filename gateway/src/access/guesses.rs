//! How often an address may guess: wrong keys a minute, by governor's GCRA over a map of our own, which is bounded and
//! can be looked at without counting. An address that has used its guesses up is refused before its key is looked at.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

/// So many addresses are remembered, about 4 MiB; when all of them guess at once, others are not counted.
const MOST_ADDRESSES: usize = 65_536;

/// Guesses are forgotten after this at the latest: as long as it takes until all are given back.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The guesses of all addresses.
#[derive(Debug)]
pub struct Guesses<C: Clock = Uptime> {
    a_minute: NonZeroU32,
    limiter: RateLimiter<Guess, Addresses, C, NoOpMiddleware<C::Instant>>,
}

/// The process's own clock.
#[derive(Debug)]
pub struct Uptime(Instant);

impl Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Guesses {
    /// So many wrong keys a minute for each address.
    #[must_use]
    pub fn new(a_minute: NonZeroU32) -> Self {
        Self::with_clock(a_minute, Uptime(Instant::now()))
    }
}

impl<C: Clock> Guesses<C> {
    fn with_clock(a_minute: NonZeroU32, clock: C) -> Self {
        let quota = Quota::per_minute(a_minute);
        Self { a_minute, limiter: RateLimiter::new(quota, Addresses::default(), clock) }
    }

    /// How many each address has.
    #[must_use]
    pub fn a_minute(&self) -> NonZeroU32 {
        self.a_minute
    }

    /// Whether a key from `address` may be looked at.
    ///
    /// # Errors
    /// How long not.
    pub fn look(&self, address: IpAddr) -> Result<(), Duration> {
        self.check(Guess::Next(network(address)))
    }

    /// A key from `address` was wrong.
    pub fn wrong(&self, address: IpAddr) {
        let _refused_from_now_on = self.check(Guess::Wrong(network(address)));
    }

    fn check(&self, guess: Guess) -> Result<(), Duration> {
        self.limiter.check_key(&guess).map_err(|not_until| not_until.wait_time_from(self.limiter.clock().now()))
    }
}

/// What is asked of the limiter: whether there may be another guess, or to count one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Guess {
    Next(IpAddr),
    Wrong(IpAddr),
}

/// A client has as many IPv6 addresses as it likes, of one network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// A full map is looked through for what may be forgotten no more often than this, however many guess.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Addresses(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When all guesses of an address are given back, by governor's reckoning.
    given_back: HashMap<IpAddr, Nanos>,
    /// The newest of those when the last sweep was made.
    swept: Nanos,
}

impl StateStore for Addresses {
    type Key = Guess;

    fn measure_and_replace<T, F, E>(&self, guess: &Guess, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut known = self.known();
        match guess {
            Guess::Next(address) => decide(known.given_back.get(address).copied()).map(|(allowed, _)| allowed),
            Guess::Wrong(address) => {
                let (counted, given_back) = decide(known.given_back.get(address).copied())?;
                known.note(*address, given_back);
                Ok(counted)
            }
        }
    }
}

impl Addresses {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn note(&mut self, address: IpAddr, given_back: Nanos) {
        if self.given_back.len() >= MOST_ADDRESSES {
            self.sweep(given_back);
        }
        if self.given_back.len() < MOST_ADDRESSES || self.given_back.contains_key(&address) {
            self.given_back.insert(address, given_back);
        }
    }

    /// Forgets those whose guesses are all given back. `newest` is at most a minute ahead of now.
    fn sweep(&mut self, newest: Nanos) {
        if newest.saturating_sub(self.swept) < BETWEEN_SWEEPS.into() {
            return;
        }
        self.swept = newest;
        let past = newest.saturating_sub(FORGOTTEN_AFTER.into());
        self.given_back.retain(|_, given_back| *given_back > past);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::Ipv4Addr;

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    fn guesses(a_minute: u32) -> (Guesses<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Guesses::with_clock(a_minute.try_into().unwrap(), clock.clone()), clock)
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn an_address_that_guessed_too_often_waits_and_others_do_not() {
        let (guesses, clock) = guesses(3);
        for _ in 0..3 {
            assert_eq!(guesses.look(v4(1)), Ok(()));
            guesses.wrong(v4(1));
        }
        assert_eq!(guesses.look(v4(1)), Err(Duration::from_secs(20)));
        assert_eq!(guesses.look(v4(2)), Ok(()));
        clock.advance(Duration::from_secs(20));
        assert_eq!(guesses.look(v4(1)), Ok(()));
        guesses.wrong(v4(1));
        assert_eq!(guesses.look(v4(1)), Err(Duration::from_secs(20)));
        clock.advance(Duration::from_secs(60));
        assert!((0..3).all(|_| {
            guesses.wrong(v4(1));
            true
        }));
        assert!(guesses.look(v4(1)).is_err());
    }

    #[test]
    fn looking_counts_nothing() {
        let (guesses, _) = guesses(1);
        assert!((0..100).all(|_| guesses.look(v4(1)).is_ok()));
        assert!(guesses.limiter.into_state_store().known().given_back.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_ipv4_its_own() {
        let (guesses, _) = guesses(1);
        guesses.wrong("2001:db8::1".parse().unwrap());
        assert!(guesses.look("2001:db8::ffff:2".parse().unwrap()).is_err());
        assert!(guesses.look("2001:db8:0:1::1".parse().unwrap()).is_ok());
        guesses.wrong("::ffff:10.0.0.1".parse().unwrap());
        assert!(guesses.look("10.0.0.1".parse().unwrap()).is_err());
        assert!(guesses.look("10.0.0.2".parse().unwrap()).is_ok());
    }

    #[test]
    fn the_memory_has_a_bound_and_makes_room_for_whoever_guesses_now() {
        let (guesses, clock) = guesses(1);
        let most = u32::try_from(MOST_ADDRESSES).unwrap();
        (0..most + 10).for_each(|number| guesses.wrong(v4(number)));
        assert!(guesses.look(v4(0)).is_err() && guesses.look(v4(most + 1)).is_ok());
        clock.advance(Duration::from_secs(121));
        guesses.wrong(v4(most + 1));
        assert!(guesses.look(v4(most + 1)).is_err());
        assert_eq!(guesses.limiter.into_state_store().known().given_back.len(), 1);
    }

    proptest! {
        /// However guesses and pauses follow each other, no minute has more than twice the guesses: those at once, and
        /// those that are given back meanwhile.
        #[test]
        fn no_minute_has_more_guesses_than_those_at_once_and_those_given_back(
            a_minute in 1_u32..20,
            pauses in prop::collection::vec(0_u64..20_000, 1..200),
        ) {
            let (guesses, clock) = guesses(a_minute);
            let (mut now, mut seen) = (0, Vec::new());
            for pause in pauses {
                clock.advance(Duration::from_millis(pause));
                now += pause;
                if guesses.look(v4(1)).is_ok() {
                    guesses.wrong(v4(1));
                    seen.push(now);
                }
            }
            for first in &seen {
                let minute = seen.iter().filter(|at| (*first..*first + 60_000).contains(*at)).count();
                prop_assert!(minute <= usize::try_from(2 * a_minute).unwrap());
            }
        }
    }
}
