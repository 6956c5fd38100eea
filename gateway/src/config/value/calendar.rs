//! Dates, and the time zones that they are meant in.

use std::fmt;

use jiff::civil;
use jiff::tz::{Offset, TimeZone};
use serde_json::json;

use super::scalar::{Scalar, scalar};
use crate::config::read::nearest;

scalar!(Expiry, Zone);

/// The moment from which something is no longer valid: a date (from its first moment on, UTC) or a date with a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(jiff::Timestamp);

impl Expiry {
    /// The moment.
    #[must_use]
    pub const fn timestamp(self) -> jiff::Timestamp {
        self.0
    }

    /// Whether it lies behind `now`.
    #[must_use]
    pub fn is_past(self, now: std::time::SystemTime) -> bool {
        std::time::SystemTime::from(self.0) <= now
    }
}

impl Scalar for Expiry {
    const WANTED: &'static str = "a date such as `2027-01-01` or `2027-01-01T12:00:00Z`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(moment));
        }
        // jiff reads many spellings; only the plain one is meant here.
        let date = text.parse::<civil::Date>().ok().filter(|_| text.len() == 10).ok_or(None)?;
        Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).map(Self).map_err(|_| None)
    }

    fn stand_in() -> Self {
        Self(jiff::Timestamp::MAX)
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}(T.+)?$", "description": "A date `2027-01-01` (its first moment in UTC) or a time `2027-01-01T12:00:00Z`."})
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A time zone by its IANA name: `Europe/Berlin`, `UTC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// Coordinated universal time.
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(&self) -> &TimeZone {
        &self.zone
    }
}

impl Scalar for Zone {
    const WANTED: &'static str = "a time zone such as `Europe/Berlin` or `UTC`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.eq_ignore_ascii_case("utc") {
            return Ok(Self::utc());
        }
        if let Ok(zone) = TimeZone::get(text) {
            return Ok(Self { name: text.to_owned(), zone });
        }
        let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        Err(nearest(text, known.iter().map(String::as_str)).map(|name| format!("did you mean `{name}`?")))
    }

    fn stand_in() -> Self {
        Self::utc()
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "minLength": 1, "description": "A time zone by its IANA name: `Europe/Berlin`."})
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
