//! Amounts of money.

use std::fmt;

use serde_json::json;

use super::scalar::{Scalar, scalar};
use super::unit::scaled;

scalar!(Money);

/// An amount of money in nano-units (a thousand millionth of a dollar), never a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    nanos: u64,
}

/// Nano-units in one unit.
const NANOS: u64 = 1_000_000_000;

impl Money {
    /// In nano-units: 1.25 is 1 250 000 000.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.nanos
    }
}

impl Scalar for Money {
    const WANTED: &'static str = "an amount of money such as `1.25`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.starts_with('-') {
            return Err(Some("it may not be negative".to_owned()));
        }
        if text.bytes().any(|b| matches!(b, b'e' | b'E')) {
            return Err(Some("write it without an exponent; `per: 1M` gives the price of a million".to_owned()));
        }
        match scaled(text, NANOS) {
            Some(nanos) => Ok(Self { nanos }),
            None => Err(Some("at most nine digits after the point; `per: 1M` gives the price of a million".to_owned())),
        }
    }

    fn stand_in() -> Self {
        Self { nanos: NANOS }
    }

    fn schema() -> serde_json::Value {
        json!({
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,9})?$"}],
            "description": "An amount of money, exact to nine digits after the point.",
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.nanos / NANOS, self.nanos % NANOS);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{rest:09}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn money_reads_back_exactly(nanos: u64) {
            let money = Money { nanos };
            prop_assert_eq!(Money::parse(&money.to_string()), Ok(money));
            prop_assert_eq!(Money::parse(&format!("{}.{:09}", nanos / NANOS, nanos % NANOS)), Ok(money));
        }
    }
}
