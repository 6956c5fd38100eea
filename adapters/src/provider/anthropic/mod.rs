//! Anthropic's Messages API.
//!
//! `encode` says a chat completion in its words: what the caller's fields become is told there by [`TRANSLATES`] and
//! [`DROPS`], what each model takes in `model`. `decode` reads a whole answer and `events` a stream; both say the same.
//! Shapes were checked against the SDK `anthropic` 2.12.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::openai::secret_header;
use crate::adapter::{Adapter, DecodeError, Dropped, EncodeError, EventDecoder, NativeRequest, Options, Reply, Target};
use crate::openai::unknown::Unknown;
use crate::refusal::Refusal;
use crate::request::{Operation, Request};

mod assistant;
mod beside;
mod bounds;
mod calls;
mod content;
mod conversation;
mod decode;
mod encode;
mod error;
mod events;
mod format;
mod model;
mod native;
mod plain;
mod schema;
mod thinking;
mod tools;
mod unnamed;
mod usage;
mod user;

pub use encode::{DROPS, TRANSLATES};

/// The dialect.
pub struct Anthropic;

/// How a token of OAuth begins; it is no API key and goes where tokens go.
const OAUTH_BEGINS: &str = "sk-ant-oat";

impl Adapter for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn serves(&self, operation: Operation) -> bool {
        operation == Operation::Chat
    }

    fn authorize(&self, api_key: &str) -> Result<Vec<(HeaderName, HeaderValue)>, EncodeError> {
        if api_key.starts_with(OAUTH_BEGINS) {
            let beta = (HeaderName::from_static("anthropic-beta"), HeaderValue::from_static("oauth-2025-04-20"));
            return Ok(vec![(header::AUTHORIZATION, secret_header(&format!("Bearer {api_key}"))?), beta]);
        }
        Ok(vec![(HeaderName::from_static("x-api-key"), secret_header(api_key)?)])
    }

    fn default_output(&self, model: &str, options: &Options) -> Option<u64> {
        Some(model::Model::of(model).default_output(options))
    }

    fn encode(&self, request: &Request, to: &Target<'_>) -> Result<NativeRequest, EncodeError> {
        encode::encode(request, to)
    }

    fn decode(&self, request: &Request, to: &Target<'_>, body: Bytes) -> Result<Reply, DecodeError> {
        decode::decode(request, to, &body)
    }

    fn events(&self, request: &Request, to: &Target<'_>) -> Box<dyn EventDecoder> {
        Box::new(events::Decoder::new(request, to))
    }

    fn refusal(&self, status: StatusCode, _headers: &HeaderMap, body: &[u8]) -> Refusal {
        error::read(status, body)
    }
}

/// How many things may be named before a field that nobody knows is no longer named by itself: names that callers made
/// up must have room in a header.
const MAX_NAMED: usize = 32;

/// The longest name of such a field that is told.
const LONGEST_NAME: usize = 64;

/// What could not be carried, each thing named once.
#[derive(Debug, Default)]
struct Notes(Vec<Dropped>);

impl Notes {
    /// What is left out.
    fn add(&mut self, param: &str, why: &'static str) {
        self.note(param, None, why);
    }

    /// What has another value now.
    fn change(&mut self, param: &str, sent: &'static str, why: &'static str) {
        self.note(param, Some(sent), why);
    }

    fn note(&mut self, param: &str, sent: Option<&'static str>, why: &'static str) {
        if !self.0.iter().any(|noted| noted.param == param && noted.why == why) {
            self.0.push(Dropped { param: param.to_owned(), sent, why });
        }
    }

    /// Names what nobody knows of the fields at `place`.
    fn add_unknown(&mut self, place: &str, unknown: &Unknown, why: &'static str) {
        for name in &unknown.0 {
            let is_plain = name.len() <= LONGEST_NAME && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let name = if is_plain && self.0.len() < MAX_NAMED { name } else { "*" };
            self.add(&format!("{place}.{name}"), why);
        }
    }

    fn into_inner(self) -> Vec<Dropped> {
        self.0
    }
}

/// Whether the caller uses `functions`, the older form of `tools`, and so wants its calls in that form.
fn is_legacy(request: &Request) -> bool {
    let has = |name| request.get(name).is_some_and(|raw| raw != b"null" && raw != b"[]");
    has("functions") && !has("tools")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_nobody_knows_are_named_as_far_as_a_header_has_room() {
        let mut notes = Notes::default();
        let names = (0..1000).map(|n| format!("x{n}")).chain(["\u{e9}\r\n".to_owned(), "y".repeat(1000)]);
        notes.add_unknown("tools", &Unknown(names.collect()), "why");
        let named: Vec<&str> = notes.0.iter().map(|dropped| &*dropped.param).collect();
        assert_eq!((named.len(), named.first(), named.last()), (MAX_NAMED + 1, Some(&"tools.x0"), Some(&"tools.*")));
    }
}
