//! Numbers of things.

use std::fmt;

use serde_json::json;

use super::scalar::{Scalar, scalar};
use super::unit::{scaled, split_unit};

scalar!(Count);

/// A number of things: `600`, `400k`, `2m` (two million), `1.5M`, `3b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(u64);

const COUNTS: &[(&str, u64)] = &[("b", 1_000_000_000), ("m", 1_000_000), ("k", 1_000), ("", 1)];

impl Count {
    /// So many.
    #[must_use]
    pub const fn of(count: u64) -> Self {
        Self(count)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Scalar for Count {
    const WANTED: &'static str = "a number such as `600`, `400k` or `2m` (million)";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.starts_with('-') {
            return Err(Some("it may not be negative".to_owned()));
        }
        let (number, unit) = split_unit(text);
        let Some((_, factor)) = COUNTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
            return Err(Some("the units are k (thousand), m (million) and b (billion)".to_owned()));
        };
        scaled(number, *factor).map(Self).ok_or(None)
    }

    fn stand_in() -> Self {
        Self(1)
    }

    fn schema() -> serde_json::Value {
        json!({
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?[kKmMbB]?$"}],
            "description": "A number: `600`, `400k`, `2m` (two million).",
        })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match COUNTS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_count_reads_back_as_it_is_shown(count: u64) {
            prop_assert_eq!(Count::parse(&Count(count).to_string()), Ok(Count(count)));
        }
    }
}
