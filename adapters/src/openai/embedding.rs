//! Embeddings in the form that the caller asked for, whatever form the provider gave.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::DecodeError;
use crate::chunk::push_json;
use crate::index::Index;

/// The two forms of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// An array of numbers; what is meant when nothing is said.
    Float,
    /// Little-endian 32-bit floats in base64.
    Base64,
}

impl Encoding {
    /// What a request's `encoding_format` asks for.
    #[must_use]
    pub fn asked(raw: Option<&[u8]>) -> Self {
        if raw == Some(b"\"base64\"") { Self::Base64 } else { Self::Float }
    }
}

#[derive(Deserialize, Serialize)]
struct Item<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    object: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    index: Option<&'a RawValue>,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

/// The answer's `data` with its vectors in `wanted`; nothing where they are already.
///
/// # Errors
/// A `data` that is not a list of vectors.
pub fn in_encoding(body: &[u8], index: &Index, wanted: Encoding) -> Result<Option<Bytes>, DecodeError> {
    let malformed = |what: &str| DecodeError::Malformed(format!("the provider's embeddings: {what}"));
    let Some(data) = index.get(body, "data") else { return Err(malformed("no `data`")) };
    let items: Vec<Item<'_>> =
        serde_json::from_slice(data).map_err(|_| malformed("`data` is not a list of vectors"))?;
    if items.iter().all(|item| form(item.embedding) == wanted) {
        return Ok(None);
    }
    let mut converted = Vec::with_capacity(data.len());
    converted.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            converted.push(b',');
        }
        let embedding = &*in_form(item.embedding, wanted).ok_or_else(|| malformed("a broken vector"))?;
        push_json(&mut converted, &Item { embedding, ..*item });
    }
    converted.push(b']');
    Ok(Some(converted.into()))
}

fn form(vector: &RawValue) -> Encoding {
    if vector.get().starts_with('"') { Encoding::Base64 } else { Encoding::Float }
}

fn in_form(vector: &RawValue, wanted: Encoding) -> Option<Box<RawValue>> {
    match (form(vector), wanted) {
        (Encoding::Float, Encoding::Base64) => to_base64(vector),
        (Encoding::Base64, Encoding::Float) => to_floats(vector),
        _ => Some(vector.to_owned()),
    }
}

fn to_base64(vector: &RawValue) -> Option<Box<RawValue>> {
    let floats: Vec<f32> = serde_json::from_str(vector.get()).ok()?;
    let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    RawValue::from_string(format!("\"{}\"", STANDARD.encode(bytes))).ok()
}

fn to_floats(vector: &RawValue) -> Option<Box<RawValue>> {
    let bytes = STANDARD.decode(vector.get().trim_matches('"').replace("\\/", "/")).ok()?;
    let (floats, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let floats: Vec<f32> = floats.iter().map(|four| f32::from_le_bytes(*four)).collect();
    serde_json::value::to_raw_value(&floats).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn converted(body: &str, wanted: Encoding) -> Result<Option<String>, DecodeError> {
        let index = Index::of(body.as_bytes()).unwrap();
        let data = in_encoding(body.as_bytes(), &index, wanted)?;
        Ok(data.map(|data| String::from_utf8(data.to_vec()).unwrap()))
    }

    #[test]
    fn vectors_come_in_the_form_that_was_asked_for_and_are_left_alone_in_it() {
        let floats = r#"{"data":[{"object":"embedding","index":1,"embedding":[0.5,-1.25]}]}"#;
        let base64 = r#"{"data":[{"object":"embedding","index":1,"embedding":"AAAAPwAAoL8="}]}"#;
        assert_eq!(converted(floats, Encoding::Float).unwrap(), None);
        assert_eq!(converted(base64, Encoding::Base64).unwrap(), None);
        let data = |body: &str| Some(body[r#"{"data":"#.len()..body.len() - 1].to_owned());
        assert_eq!(converted(floats, Encoding::Base64).unwrap(), data(base64));
        assert_eq!(converted(base64, Encoding::Float).unwrap(), data(floats));
    }

    #[test]
    fn a_broken_vector_is_an_error_and_not_an_empty_one() {
        for body in [r#"{}"#, r#"{"data":[{"embedding":"AAA="}]}"#, r#"{"data":[{"embedding":"?"}]}"#, r#"{"data":7}"#]
        {
            assert!(matches!(converted(body, Encoding::Float), Err(DecodeError::Malformed(_))), "{body}");
        }
        assert!(converted(r#"{"data":[{"embedding":["x"]}]}"#, Encoding::Base64).is_err());
    }
}
