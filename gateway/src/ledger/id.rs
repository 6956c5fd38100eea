//! Ids of requests: they begin with their time, so that an id leads to the commits in which its row can be.

use std::fmt::Write as _;

use jiff::Timestamp;

/// What every id of ours begins with.
const PREFIX: &str = "req_";

/// How many hexadecimal digits the microseconds since 1970 take: enough until the year 4253.
const TIME_DIGITS: usize = 14;

/// How many there are in all: a `u128` has as many.
const DIGITS: usize = 32;

/// How many random ones follow the time.
const RANDOM_DIGITS: usize = DIGITS - TIME_DIGITS;

/// A new id for a request that begins `now`: `req_`, its microseconds since 1970, and 72 random bits.
#[must_use]
pub fn new(now: Timestamp) -> String {
    let micros = u128::try_from(now.as_microsecond()).unwrap_or(0);
    let random = rand::random::<u128>() >> (TIME_DIGITS * 4);
    let mut id = String::with_capacity(PREFIX.len() + DIGITS);
    let _infallible = write!(id, "{PREFIX}{:0DIGITS$x}", micros << (RANDOM_DIGITS * 4) | random);
    id
}

/// The microseconds since 1970 that an id of this form holds; a caller's own may have any form, and say any time.
#[must_use]
pub(super) fn micros(id: &str) -> Option<u64> {
    let digits = id.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS)?;
    digits.get(..TIME_DIGITS).and_then(|time| u64::from_str_radix(time, 16).ok())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_id_holds_its_time_and_two_of_one_moment_differ() {
        let now: Timestamp = "2026-11-23T04:00:00.123456Z".parse().unwrap();
        let (one, other) = (new(now), new(now));
        assert_eq!((one.len(), one == other), (36, false));
        assert_eq!(micros(&one), Some(1_795_406_400_123_456));
    }

    #[test]
    fn a_callers_own_id_holds_no_time() {
        for id in ["", "req_", "my-id", "req_000652d14fd2c0zz0123456789abcdef01234", "req_00é0"] {
            assert_eq!(micros(id), None, "{id}");
        }
    }
}
