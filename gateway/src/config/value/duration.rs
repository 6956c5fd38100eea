//! Spans of time: one, or one between two bounds.

use std::fmt;

use serde_json::json;

use super::scalar::{Scalar, scalar};
use super::unit::{scaled, split_unit};

scalar!(Duration, DurationRange);

/// A span of time: `250ms`, `30s`, `15m`, `1h`, `7d`; `0s` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(std::time::Duration::ZERO);

    /// So many milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// So many seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// The span itself.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// True for `0s`.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self(duration)
    }
}

/// The units of time with their length in microseconds, the longest first.
const TIMES: &[(&str, u64)] =
    &[("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// No span in a configuration is longer than ten years: a longer one is a slip, and clocks overflow on it.
const LONGEST_MICROS: u64 = 3_650 * 86_400_000_000;

impl Scalar for Duration {
    const WANTED: &'static str = "a span of time such as `30s`, `250ms` or `15m`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (number, unit) = split_unit(text);
        if unit.is_empty() && !number.is_empty() {
            return Err(Some(format!("write the unit: `{number}s`")));
        }
        let Some((_, micros)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            return Err(Some("the units are us, ms, s, m, h and d".to_owned()));
        };
        match scaled(number, *micros) {
            Some(micros) if micros <= LONGEST_MICROS => Ok(Self(std::time::Duration::from_micros(micros))),
            Some(_) => Err(Some("the longest span is 3650d".to_owned())),
            None => Err(None),
        }
    }

    fn stand_in() -> Self {
        Self::ZERO
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h|d)$", "description": "A span of time: `250ms`, `30s`, `15m`, `1h`; `0s` is none."})
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        match TIMES.iter().find(|(_, unit)| micros.is_multiple_of(u128::from(*unit))) {
            // A day is easily misread for anything under two of them.
            Some(("d", unit)) if micros / u128::from(*unit) < 2 => {
                write!(f, "{}h", micros / 3_600_000_000)
            }
            Some((name, unit)) => write!(f, "{}{name}", micros / u128::from(*unit)),
            None => write!(f, "{micros}us"),
        }
    }
}

/// A span of time between two bounds: `250ms..5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationRange {
    /// The shortest.
    pub from: Duration,
    /// The longest.
    pub to: Duration,
}

impl Scalar for DurationRange {
    const WANTED: &'static str = "two spans of time such as `250ms..5s`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let range = Self { from: Duration::parse(from.trim())?, to: Duration::parse(to.trim())? };
        if range.from > range.to {
            return Err(Some(format!("the shorter one first: `{}..{}`", range.to, range.from)));
        }
        Ok(range)
    }

    fn stand_in() -> Self {
        Self { from: Duration::ZERO, to: Duration::ZERO }
    }

    fn schema() -> serde_json::Value {
        let span = r"[0-9]+(\.[0-9]+)?(us|ms|s|m|h|d)";
        json!({"type": "string", "pattern": format!(r"^{span}(\.\.{span})?$"), "description": "Two spans of time: `250ms..5s`."})
    }
}

impl fmt::Display for DurationRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_span_of_time_reads_back_as_it_is_shown(micros in 0..=LONGEST_MICROS) {
            let span = Duration(std::time::Duration::from_micros(micros));
            prop_assert_eq!(Duration::parse(&span.to_string()), Ok(span));
        }
    }
}
