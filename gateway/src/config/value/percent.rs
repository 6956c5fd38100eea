//! Shares.

use std::fmt;

use serde_json::json;

use super::scalar::{Scalar, scalar};
use super::unit::scaled;

scalar!(Percent);

/// A share from `0%` to `100%`, exact to a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    hundredths: u16,
}

impl Percent {
    /// So many percent, at most a hundred.
    #[must_use]
    pub const fn of(percent: u8) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Self { hundredths: percent as u16 * 100 }
    }

    /// In hundredths of a percent: `50%` is 5000.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.hundredths
    }
}

impl Scalar for Percent {
    const WANTED: &'static str = "a share from `0%` to `100%`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let Some(number) = text.strip_suffix('%') else {
            return Err(Some("write the percent sign: `5%`".to_owned()));
        };
        let hundredths = scaled(number.trim_end(), 100).and_then(|h| u16::try_from(h).ok());
        hundredths.filter(|h| *h <= 10_000).map(|hundredths| Self { hundredths }).ok_or(None)
    }

    fn stand_in() -> Self {
        Self { hundredths: 0 }
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,2})?%$", "description": "A share: `5%`, `0.5%`."})
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.hundredths) / 100.0)
    }
}
