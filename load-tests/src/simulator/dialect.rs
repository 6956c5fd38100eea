//! A dialect: how one kind of provider is spoken to and speaks.
//! To add one, write its file and put it into `DIALECTS`.

use bytes::{Bytes, BytesMut};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use super::fault::Fault;
use super::reply::Usage;
use super::script::{Frame, Frames, Place};
use super::text::Seed;
use super::{anthropic, openai};

/// Every dialect; the first that claims a request answers it, and the last claims all.
pub(crate) static DIALECTS: [&dyn Dialect; 2] = [&anthropic::Anthropic, &openai::OpenAi];

/// One kind of provider.
pub(crate) trait Dialect: Sync {
    /// Its name in the account.
    fn name(&self) -> &'static str;

    /// Whether the request is this dialect's.
    fn claims(&self, head: &Parts) -> bool;

    /// The credential that came, if any.
    fn credential<'a>(&self, head: &'a Parts) -> Option<&'a str>;

    /// The answer of a healthy provider, or its refusal.
    fn answer(&self, ask: &Ask<'_>) -> Result<Answer, Refusal>;

    /// The body of a refusal.
    fn refusal(&self, refusal: &Refusal, seed: Seed) -> Vec<u8>;

    /// The refusal that a provider gives with `status`.
    fn of_status(&self, status: u16) -> Refusal;

    /// An error event inside a stream, with what the provider sends after it.
    fn failure(&self, status: u16, seed: Seed) -> Bytes;

    /// The headers of every answer.
    fn headers(&self, seed: Seed) -> Vec<(HeaderName, HeaderValue)>;
}

/// A request, read.
pub(crate) struct Ask<'a> {
    pub(crate) head: &'a Parts,
    /// The body; an error where it is not JSON.
    pub(crate) json: Result<Value, serde_json::Error>,
    /// The model without its directives; empty where none was named.
    pub(crate) model: &'a str,
    pub(crate) fault: &'a Fault,
    pub(crate) seed: Seed,
}

/// A healthy answer.
pub(crate) enum Answer {
    /// One JSON body.
    Whole { body: Bytes, usage: Usage },
    /// A stream of events.
    Stream { content_type: &'static str, frames: Vec<Frame>, usage: Usage },
}

impl Answer {
    /// A body of JSON.
    pub(crate) fn json(body: &impl Serialize, usage: Usage) -> Self {
        Self::Whole { body: serde_json::to_vec(body).unwrap_or_default().into(), usage }
    }

    /// A stream of server-sent events.
    pub(crate) fn events(frames: Frames, usage: Usage) -> Self {
        Self::Stream { content_type: "text/event-stream; charset=utf-8", frames: frames.finish(), usage }
    }
}

/// A refusal in the terms that the dialects share; each writes what it has a place for.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

impl Refusal {
    /// A refusal of kind `kind`.
    pub(crate) fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: None }
    }

    /// A 400 of the kind that both families call `invalid_request_error`.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    /// The same, with the parameter.
    pub(crate) fn param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The same, with a code.
    pub(crate) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }
}

impl Frames {
    /// Adds a server-sent event of JSON.
    pub(crate) fn event(&mut self, place: Place, name: Option<&str>, data: &impl Serialize) {
        self.push(place, |out| {
            if let Some(name) = name {
                out.extend_from_slice(b"event: ");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\n");
            }
            out.extend_from_slice(b"data: ");
            write_json(out, data);
            out.extend_from_slice(b"\n\n");
        });
    }
}

/// Writes JSON at the end of `out`.
pub(crate) fn write_json(out: &mut BytesMut, data: &impl Serialize) {
    use bytes::BufMut;
    // Our own structs always serialise; a short body would fail the test that reads it.
    let _ = serde_json::to_writer(out.writer(), data);
}

/// The token of `authorization: Bearer`.
pub(crate) fn bearer(head: &Parts) -> Option<&str> {
    let value = head.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

/// A header's text.
pub(crate) fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name)?.to_str().ok().filter(|value| !value.is_empty())
}

/// Whether a credential is one that the provider does not know.
pub(crate) fn is_bad(credential: &str) -> bool {
    credential == "bad" || credential.starts_with("sk-bad")
}

/// A header of text that was made here.
pub(crate) fn header_of(name: &'static str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
}
