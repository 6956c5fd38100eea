//! JSON strings without copies: as text, borrowed where they have no escapes, or raw with their quotes, to be passed
//! on.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A string's text. (Serde borrows a `Cow` only where it stands alone: inside of an `Option` it copies. This one never
/// does.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text)))
    }
}

/// Whether a raw value is a string.
#[must_use]
pub fn is_string(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

/// Whether a raw string has nothing to read in it: empty, or white space only, escaped or not.
#[must_use]
pub fn is_blank(raw: &RawValue) -> bool {
    trimmed_end(inside(raw)).is_empty()
}

/// A raw string without the white space at its end; `None` where there is none.
#[must_use]
pub fn without_trailing_space(raw: &RawValue) -> Option<Box<RawValue>> {
    let inside = inside(raw);
    let trimmed = trimmed_end(inside);
    if trimmed.len() == inside.len() { None } else { RawValue::from_string(format!("\"{trimmed}\"")).ok() }
}

/// Several raw strings as one; the one itself where there is only one.
#[must_use]
pub fn joined<'a>(pieces: &[&'a RawValue]) -> Option<Cow<'a, RawValue>> {
    match pieces {
        [] => None,
        [one] => Some(Cow::Borrowed(one)),
        many => {
            let text: String = many.iter().map(|piece| inside(piece)).collect();
            RawValue::from_string(format!("\"{text}\"")).ok().map(Cow::Owned)
        }
    }
}

/// Raw values as a raw array.
#[must_use]
pub fn array(items: &[&RawValue]) -> Box<RawValue> {
    serde_json::value::to_raw_value(items).unwrap_or_default()
}

/// A text as a raw string.
#[must_use]
pub fn raw_string(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(text).unwrap_or_default()
}

/// What stands between a raw string's quotes.
fn inside(raw: &RawValue) -> &str {
    let raw = raw.get();
    raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw)
}

fn trimmed_end(mut text: &str) -> &str {
    loop {
        let shorter = text.trim_end();
        let space = ["\\n", "\\t", "\\r"].iter().find_map(|escape| shorter.strip_suffix(escape));
        match space.filter(|before| backslashes_at_end(before).is_multiple_of(2)) {
            Some(before) => text = before,
            None => return shorter,
        }
    }
}

fn backslashes_at_end(text: &str) -> usize {
    text.bytes().rev().take_while(|byte| *byte == b'\\').count()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_text_is_borrowed_unless_it_has_escapes() {
        let borrowed =
            |json| matches!(serde_json::from_str::<Option<Text<'_>>>(json).unwrap(), Some(Text(Cow::Borrowed(_))));
        assert!(borrowed(r#""plain""#));
        assert!(!borrowed(r#""a\nb""#));
    }

    #[test]
    fn white_space_is_seen_through_its_escapes_and_an_escaped_backslash_is_none() {
        assert!(is_blank(raw(r#"" \n\t ""#)));
        assert!(is_blank(raw(r#""""#)));
        assert!(!is_blank(raw(r#""\\n""#)));
        assert_eq!(without_trailing_space(raw(r#""a\\n \n""#)).unwrap().get(), r#""a\\n""#);
        assert!(without_trailing_space(raw(r#""a\\n""#)).is_none());
    }

    #[test]
    fn pieces_are_joined_as_they_are_written() {
        assert_eq!(joined(&[raw(r#""a\u00e9""#), raw(r#""b\"""#)]).unwrap().get(), r#""a\u00e9b\"""#);
        assert!(matches!(joined(&[raw(r#""a""#)]), Some(Cow::Borrowed(_))));
        assert!(joined(&[]).is_none());
    }
}
