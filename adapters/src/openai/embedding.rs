//! Embeddings in the form that the caller asked for, whatever form the provider gave.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::DecodeError;
use crate::index::{Index, text};
use crate::request::{Edit, rewrite_into};

/// The two forms of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// An array of numbers; what is meant when nothing is said.
    Float,
    /// Little-endian 32-bit floats in base64.
    Base64,
}

impl Encoding {
    /// What a request's `encoding_format` asks for; `None` for a form of the provider's own, which is left as it comes.
    #[must_use]
    pub fn asked(raw: Option<&[u8]>) -> Option<Self> {
        match raw {
            None | Some(b"null" | b"\"float\"") => Some(Self::Float),
            Some(b"\"base64\"") => Some(Self::Base64),
            Some(_) => None,
        }
    }
}

/// One of `data`'s, with whatever its host says beside the vector.
struct Item<'a> {
    json: &'a [u8],
    index: Index,
    embedding: &'a [u8],
}

impl<'a> Item<'a> {
    fn read(raw: &'a RawValue) -> Option<Self> {
        let json = raw.get().as_bytes();
        let index = Index::of(json).ok()?;
        let embedding = index.get(json, "embedding")?;
        Some(Self { json, index, embedding })
    }
}

/// The answer's `data` with its vectors in `wanted`; nothing where they are already.
///
/// # Errors
/// A `data` that is not a list of vectors, or not of as many as there were `inputs`, where that is known.
pub fn in_encoding(
    body: &[u8],
    index: &Index,
    wanted: Encoding,
    inputs: Option<u64>,
) -> Result<Option<Bytes>, DecodeError> {
    let malformed = |what: &str| DecodeError::Malformed(format!("the provider's embeddings: {what}"));
    let Some(data) = index.get(body, "data") else { return Err(malformed("no `data`")) };
    let items: Vec<&RawValue> = serde_json::from_slice(data).unwrap_or_default();
    let items: Option<Vec<Item<'_>>> = items.into_iter().map(Item::read).collect();
    let items = items.filter(|items| !items.is_empty()).ok_or_else(|| malformed("`data` is not a list of vectors"))?;
    if let Some(inputs) = inputs.filter(|inputs| u64::try_from(items.len()) != Ok(*inputs)) {
        return Err(malformed(&format!("{} of them for {inputs} inputs", items.len())));
    }
    if items.iter().all(|item| form(item.embedding) == wanted) {
        return Ok(None);
    }
    let mut converted = Vec::with_capacity(data.len());
    converted.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            converted.push(b',');
        }
        let embedding = in_form(item.embedding, wanted).ok_or_else(|| malformed("a broken vector"))?;
        rewrite_into(item.json, &item.index, &[Edit::Set("embedding", embedding)], &mut converted);
    }
    converted.push(b']');
    Ok(Some(converted.into()))
}

fn form(vector: &[u8]) -> Encoding {
    if vector.starts_with(b"\"") { Encoding::Base64 } else { Encoding::Float }
}

fn in_form(vector: &[u8], wanted: Encoding) -> Option<Bytes> {
    match (form(vector), wanted) {
        (Encoding::Float, Encoding::Base64) => to_base64(vector),
        (Encoding::Base64, Encoding::Float) => to_floats(vector),
        _ => Some(Bytes::copy_from_slice(vector)),
    }
}

fn to_base64(vector: &[u8]) -> Option<Bytes> {
    let floats: Vec<f32> = serde_json::from_slice(vector).ok()?;
    let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    Some(format!("\"{}\"", STANDARD.encode(bytes)).into())
}

fn to_floats(vector: &[u8]) -> Option<Bytes> {
    let bytes = STANDARD.decode(text(vector)?.as_bytes()).ok()?;
    let (floats, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let floats: Vec<f32> = floats.iter().map(|four| f32::from_le_bytes(*four)).collect();
    serde_json::to_vec(&floats).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn converted(body: &str, wanted: Encoding) -> Result<Option<String>, DecodeError> {
        let index = Index::of(body.as_bytes()).unwrap();
        let data = in_encoding(body.as_bytes(), &index, wanted, None)?;
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
    fn what_a_host_says_beside_a_vector_stays_and_forms_of_its_own_are_left_alone() {
        let body = r#"{"data":[{"index":0, "embedding":"AAAAPw==","text":"a","size":{"n":1}}]}"#;
        let floats = r#"[{"index":0, "embedding":[0.5],"text":"a","size":{"n":1}}]"#;
        assert_eq!(converted(body, Encoding::Float).unwrap().as_deref(), Some(floats));
        assert_eq!(Encoding::asked(Some(b"\"int8\"")), None);
        assert_eq!(Encoding::asked(Some(b"null")), Some(Encoding::Float));
    }

    #[test]
    fn a_broken_vector_is_an_error_and_not_an_empty_one() {
        for body in [r#"{}"#, r#"{"data":[{"embedding":"AAA="}]}"#, r#"{"data":[{"embedding":"?"}]}"#, r#"{"data":7}"#]
        {
            assert!(matches!(converted(body, Encoding::Float), Err(DecodeError::Malformed(_))), "{body}");
        }
        assert!(converted(r#"{"data":[{"embedding":["x"]}]}"#, Encoding::Base64).is_err());
    }

    #[test]
    fn an_answer_with_fewer_or_more_vectors_than_inputs_is_an_error() {
        let body = br#"{"data":[{"embedding":[0.5]},{"embedding":[0.5]}]}"#;
        let index = Index::of(body).unwrap();
        let asked = |inputs| in_encoding(body, &index, Encoding::Float, inputs);
        assert_eq!((asked(Some(2)), asked(None)), (Ok(None), Ok(None)));
        for inputs in [1, 3] {
            assert!(matches!(asked(Some(inputs)), Err(DecodeError::Malformed(_))), "{inputs}");
        }
    }
}
