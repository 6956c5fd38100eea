//! Sizes in bytes.

use std::fmt;

use serde_json::json;

use super::scalar::{Scalar, scalar};
use super::unit::{scaled, split_unit};

scalar!(ByteSize);

/// A size in bytes: `512KiB`, `64MiB`, `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// The units of size, the largest first.
const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// So many mebibytes.
    #[must_use]
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// In bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Scalar for ByteSize {
    const WANTED: &'static str = "a size such as `64MiB`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (number, unit) = split_unit(text);
        let Some((_, bytes)) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
            return Err(Some("the units are B, KiB, MiB, GiB, kB, MB and GB".to_owned()));
        };
        scaled(number, *bytes).map(Self).ok_or(None)
    }

    fn stand_in() -> Self {
        Self(0)
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KMG]iB|kB|MB|GB|B)$", "description": "A size: `512KiB`, `64MiB`."})
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_size_reads_back_as_it_is_shown(count: u64) {
            prop_assert_eq!(ByteSize::parse(&ByteSize(count).to_string()), Ok(ByteSize(count)));
        }
    }
}
