//! What a provider's dialect must be able to do.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::body::Body;
use crate::chunk::ChunkWriter;
use crate::frame::{Event, Framing};
use crate::refusal::Refusal;
use crate::request::{Operation, Request};
use crate::usage::{Extent, Usage};

/// A provider's dialect. One value serves all requests; what a stream must remember is in its [`EventDecoder`].
pub trait Adapter: Send + Sync + 'static {
    /// The `kind` that a configuration gives it.
    fn name(&self) -> &'static str;

    /// Whether it has that endpoint.
    fn serves(&self, operation: Operation) -> bool;

    /// How its streams are framed.
    fn framing(&self) -> Framing {
        Framing::Sse
    }

    /// The headers that carry a credential; made once, when a configuration is read.
    ///
    /// # Errors
    /// A key that cannot stand in a header.
    fn authorize(&self, api_key: &str) -> Result<Vec<(HeaderName, HeaderValue)>, EncodeError>;

    /// How many tokens it lets a model answer with at most where the caller says nothing; `None`: that is the
    /// provider's.
    fn default_output(&self, _model: &str, _options: &Options) -> Option<u64> {
        None
    }

    /// Says `request` in the provider's words.
    ///
    /// # Errors
    /// Something that the provider cannot be told.
    fn encode(&self, request: &Request, to: &Target<'_>) -> Result<NativeRequest, EncodeError>;

    /// Reads a whole answer.
    ///
    /// # Errors
    /// What is not this dialect, or an error that came as a success.
    fn decode(&self, request: &Request, to: &Target<'_>, body: Bytes) -> Result<Reply, DecodeError>;

    /// A decoder for one stream.
    fn events(&self, request: &Request, to: &Target<'_>) -> Box<dyn EventDecoder>;

    /// Reads an answer that is an error. Never fails: an unknown shape is still an error of its status. A delay that
    /// only the body tells is read here; the headers' [`retry_after`](crate::refusal::retry_after) is the gateway's to
    /// read.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal;
}

/// Reads one stream's events.
pub trait EventDecoder: Send {
    /// One event.
    ///
    /// # Errors
    /// An error event, or what is not this dialect.
    fn event(&mut self, event: Event<'_>, out: &mut ChunkWriter) -> Result<(), DecodeError>;

    /// The body has ended without the dialect's own end; a decoder that can tell that the answer is whole all the same
    /// says so to the writer.
    ///
    /// # Errors
    /// As [`EventDecoder::event`].
    fn end(&mut self, _out: &mut ChunkWriter) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// Whom a request goes to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The provider's name for the model.
    pub model: &'a str,
    /// The name that the caller used.
    pub asked: &'a str,
    /// The provider's settings.
    pub options: &'a Options,
    /// Headers of the caller's that a dialect may pass on (`anthropic-beta`, `openai-beta`).
    pub caller: &'a HeaderMap,
    /// Seconds since 1970, now.
    pub now: u64,
}

/// What a configuration may say of a provider that matters to its dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The version of the provider's API to speak, where the default for the model is not wanted.
    pub api_version: Option<String>,
    /// `max_tokens` for providers that need one and callers that give none.
    pub default_max_tokens: Option<u64>,
}

/// A request in a provider's words; the gateway adds the host, the credential and the length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeRequest {
    /// Path and query behind the provider's base URL.
    pub path: String,
    /// Headers of this request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
    /// What could not be carried.
    pub dropped: Vec<Dropped>,
}

/// A parameter that the provider has no equal for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its name in the caller's request.
    pub param: String,
    /// What is sent instead; `None` where it is left out.
    pub sent: Option<&'static str>,
    /// Why.
    pub why: &'static str,
}

/// As the caller is told: `seed` is left out, `temperature=1` has that value now.
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.param)?;
        self.sent.iter().try_for_each(|sent| write!(f, "={sent}"))
    }
}

/// A whole answer in OpenAI's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The answer.
    pub body: Body,
    /// What the provider counted, if it did.
    pub usage: Option<Usage>,
    /// How much of the answer that is of.
    pub extent: Extent,
}

/// Why a request cannot be said in a provider's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A field is not what it must be.
    #[error("{message}")]
    Invalid {
        /// Where in the request, as `messages[2].content[0]`.
        param: String,
        /// What is wrong, for the caller.
        message: String,
    },
    /// The provider has nothing like it, and without it the answer would not be what was asked.
    #[error("{message}")]
    Unsupported {
        /// Where in the request.
        param: String,
        /// What cannot be carried, for the caller.
        message: String,
    },
}

impl EncodeError {
    /// A field that is not what it must be.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { param: param.into(), message: message.into() }
    }

    /// Something that the provider has no equal for.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unsupported { param: param.into(), message: message.into() }
    }
}

/// Why an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// An error in the clothes of a success.
    Refused(Box<Refusal>),
    /// Not this dialect; what was wrong, without the body.
    Malformed(String),
}
