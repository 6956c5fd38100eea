//! Fields that nobody here knows, by their names, so that what can't be carried can be named.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The names of an object's fields that are left over and say something: a `null` says nothing.
#[derive(Debug, Default)]
pub struct Unknown(pub Vec<String>);

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Unknown;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unknown, A::Error> {
        let mut names = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Option<IgnoredAny>>()? {
            names.extend(value.map(|_| name));
        }
        Ok(Unknown(names))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    struct Thing<'a> {
        #[serde(borrow)]
        known: Option<&'a RawValue>,
        #[serde(flatten)]
        unknown: Unknown,
    }

    #[test]
    fn what_is_left_over_is_named_and_what_is_known_stays_raw() {
        let thing: Thing<'_> = serde_json::from_str(r#"{"a":{"b":1},"known":[ 1.00 ],"c":null,"d":7}"#).unwrap();
        assert_eq!(thing.unknown.0, ["a", "d"]);
        assert_eq!(thing.known.unwrap().get(), "[ 1.00 ]");
    }
}
