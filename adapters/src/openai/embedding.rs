//! Embeddings in the form that the caller asked for, whatever form the provider gave.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::index::Index;
use crate::request::{Edit, rewrite};
use crate::{Body, DecodeError};

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
        if raw == Some(b"\"base64\"") {
            Self::Base64
        } else {
            Self::Float
        }
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

/// The answer `body` with its vectors in `wanted`; untouched where they are already.
///
/// # Errors
/// A `data` that is not a list of vectors.
pub fn in_encoding(body: &Bytes, index: &Index, wanted: Encoding) -> Result<Body, DecodeError> {
    let malformed =
        |what: &str| DecodeError::Malformed(format!("the provider's embeddings: {what}"));
    let Some(data) = index.get(body, "data") else {
        return Err(malformed("no `data`"));
    };
    let items: Vec<Item<'_>> =
        serde_json::from_slice(data).map_err(|_| malformed("`data` is not a list of vectors"))?;
    if items.iter().all(|item| form(item.embedding) == wanted) {
        return Ok(body.clone().into());
    }
    let vectors = items
        .iter()
        .map(|item| converted(item.embedding, wanted).ok_or_else(|| malformed("a broken vector")));
    let vectors: Vec<Box<RawValue>> = vectors.collect::<Result<_, _>>()?;
    let converted = items.iter().zip(&vectors).map(|(item, vector)| Item {
        embedding: vector,
        ..*item
    });
    let data = serde_json::to_vec(&converted.collect::<Vec<_>>())
        .map_err(|_| malformed("a broken vector"))?;
    Ok(rewrite(body, index, &[Edit::Set("data", data.into())]))
}

fn form(vector: &RawValue) -> Encoding {
    if vector.get().starts_with('"') {
        Encoding::Base64
    } else {
        Encoding::Float
    }
}

fn converted(vector: &RawValue, wanted: Encoding) -> Option<Box<RawValue>> {
    match (form(vector), wanted) {
        (Encoding::Float, Encoding::Base64) => to_base64(vector),
        (Encoding::Base64, Encoding::Float) => to_floats(vector),
        _ => Some(vector.to_owned()),
    }
}

fn to_base64(vector: &RawValue) -> Option<Box<RawValue>> {
    let floats: Vec<f32> = serde_json::from_str(vector.get()).ok()?;
    let bytes: Vec<u8> = floats
        .iter()
        .flat_map(|float| float.to_le_bytes())
        .collect();
    RawValue::from_string(format!("\"{}\"", STANDARD.encode(bytes))).ok()
}

fn to_floats(vector: &RawValue) -> Option<Box<RawValue>> {
    let bytes = STANDARD
        .decode(vector.get().trim_matches('"').replace("\\/", "/"))
        .ok()?;
    let (floats, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let floats: Vec<f32> = floats
        .iter()
        .map(|four| f32::from_le_bytes(*four))
        .collect();
    serde_json::value::to_raw_value(&floats).ok()
}
