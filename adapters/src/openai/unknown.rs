//! Fields that nobody here knows, by their names, so that what can't be carried can be named. Serde's `flatten` would
//! find them too, but it keeps each with its value, as a tree, until all are there: up to 16 times their bytes.

use std::fmt;

use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::text::Text;

/// How many names are kept of one object; whoever is told of so many is not told all of them.
const MOST: usize = 64;

/// The names of an object's fields that are left over and say something: a `null` says nothing.
#[derive(Debug, Default)]
pub struct Unknown(pub Vec<String>);

impl Unknown {
    /// A deserializer of a struct that notes here what the struct does not know.
    pub(super) fn of<D>(&mut self, deserializer: D) -> Noting<'_, D> {
        Noting { deserializer, unknown: self }
    }

    fn note(&mut self, name: &str) {
        if self.0.len() < MOST && !self.0.iter().any(|noted| noted == name) {
            self.0.push(name.to_owned());
        }
    }
}

/// A deserializer of a struct, or its visitor or its fields, that notes what the struct does not know.
pub(super) struct Noting<'u, D> {
    deserializer: D,
    unknown: &'u mut Unknown,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Noting<'_, D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_map(Fields { inner: visitor, known, unknown: self.unknown })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A struct's visitor, or an object's fields, of which it is given those that it knows.
struct Fields<'u, I> {
    inner: I,
    known: &'static [&'static str],
    unknown: &'u mut Unknown,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Fields { inner: map, known: self.known, unknown: self.unknown })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.inner.next_key::<Text<'de>>()? {
            if self.known.contains(&&*name) {
                return seed.deserialize(CowStrDeserializer::new(name.0)).map(Some);
            }
            if self.inner.next_value::<Option<IgnoredAny>>()?.is_some() {
                self.unknown.note(&name);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

/// Reads a struct that has `#[serde(remote = "Self")]` and a skipped field `unknown`.
macro_rules! note_unknown {
    ($name:ident) => {
        impl<'de: 'a, 'a> Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut unknown = $crate::openai::unknown::Unknown::default();
                let known = Self::deserialize(unknown.of(deserializer))?;
                Ok(Self { unknown, ..known })
            }
        }
    };
}

pub(super) use note_unknown;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    #[serde(remote = "Self")]
    struct Thing<'a> {
        #[serde(borrow)]
        known: Option<&'a RawValue>,
        #[serde(skip)]
        unknown: Unknown,
    }

    note_unknown!(Thing);

    #[test]
    fn what_is_left_over_is_named_and_what_is_known_stays_raw() {
        let thing: Thing<'_> =
            serde_json::from_str(r#"{"a":{"b":1},"kn\u006fwn":[ 1.00 ],"c":null,"d":7,"d":8}"#).unwrap();
        assert_eq!(thing.unknown.0, ["a", "d"]);
        assert_eq!(thing.known.unwrap().get(), "[ 1.00 ]");
        assert!(serde_json::from_str::<Thing<'_>>("[[1]]").is_err(), "fields have names");
    }

    #[test]
    fn so_many_names_are_kept() {
        let fields: Vec<String> = (0..1000).map(|name| format!(r#""{name}":1"#)).collect();
        let json = format!("{{{}}}", fields.join(","));
        let thing: Thing<'_> = serde_json::from_str(&json).unwrap();
        assert_eq!(thing.unknown.0.len(), MOST);
    }
}
