//! A fault as the caller reads it: the body in the endpoint's own shape, and the event that ends a stream.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::Fault;

/// Whose shape an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

impl Fault {
    /// The body.
    #[must_use]
    pub fn body(&self, dialect: Dialect) -> Bytes {
        match dialect {
            Dialect::OpenAi => self.openai(),
            Dialect::Anthropic => {
                let error = AnthropicInner { kind: anthropic_type(self.status), message: &self.message };
                serde_json::to_vec(&AnthropicEnvelope { kind: "error", error }).unwrap_or_default().into()
            }
        }
    }

    fn openai(&self) -> Bytes {
        let error = Inner {
            message: &self.message,
            kind: self.error_type.as_deref().unwrap_or_else(|| default_type(self.status, &self.code)),
            param: self.param.as_deref(),
            code: &self.code,
        };
        serde_json::to_vec(&Envelope { error }).unwrap_or_default().into()
    }

    /// The body as the one event that ends a stream that can't go on.
    #[must_use]
    pub fn event(&self) -> Bytes {
        let mut event = b"data: ".to_vec();
        event.extend_from_slice(&self.openai());
        event.extend_from_slice(b"\n\n");
        event.into()
    }
}

#[derive(Serialize)]
struct AnthropicEnvelope<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicInner<'a>,
}

#[derive(Serialize)]
struct AnthropicInner<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

fn default_type(status: StatusCode, code: &str) -> &'static str {
    match (status.as_u16(), code) {
        (_, "insufficient_quota") => "insufficient_quota",
        (401, _) => "authentication_error",
        (403, _) => "permission_error",
        (429, _) => "rate_limit_error",
        (400..=499, _) => "invalid_request_error",
        _ => "api_error",
    }
}
