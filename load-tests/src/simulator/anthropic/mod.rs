//! Anthropic's dialect: messages, token counting and models, under the versions 2023-06-01 and 2026-10-21.
//! Shapes are those of the official Python SDK 2.12; messages of refusals are short forms of the real ones.

mod check;
mod events;
mod message;
mod models;
mod prompt;
mod signature;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::dialect::{Answer, Ask, Dialect, Refusal, bearer, header, header_of, is_bad};
use super::reply::Usage;
use super::text::Seed;

/// Anthropic's dialect.
pub(crate) struct Anthropic;

/// The version of the wire that a caller asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Version {
    V2023,
    #[default]
    V2026,
}

impl Dialect for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn claims(&self, head: &Parts) -> bool {
        let path = head.uri.path();
        let is_models = path == "/v1/models" || path.starts_with("/v1/models/");
        path == "/v1/messages"
            || path.starts_with("/v1/messages/")
            || (is_models && head.headers.contains_key("anthropic-version"))
    }

    fn credential<'a>(&self, head: &'a Parts) -> Option<&'a str> {
        header(head, "x-api-key").or_else(|| bearer(head))
    }

    fn answer(&self, ask: &Ask<'_>) -> Result<Answer, Refusal> {
        admit(self.credential(ask.head))?;
        let version = version(ask.head)?;
        let path = ask.head.uri.path();
        match (&ask.head.method, path) {
            (&Method::POST, "/v1/messages") => message::answer(ask, body(ask)?, version),
            (&Method::POST, "/v1/messages/count_tokens") => count_tokens(ask, body(ask)?, version),
            (&Method::GET, "/v1/models") => Ok(models::list()),
            (&Method::GET, _) if path.starts_with("/v1/models/") => models::one(path.trim_start_matches("/v1/models/")),
            (_, "/v1/messages" | "/v1/messages/count_tokens" | "/v1/models") => {
                Err(Refusal { status: 405, ..Refusal::invalid("Method Not Allowed") })
            }
            _ => Err(Refusal::new(404, "not_found_error", "Not Found")),
        }
    }

    fn refusal(&self, refusal: &Refusal, seed: Seed) -> Vec<u8> {
        error_object(refusal.kind, &refusal.message, seed).to_string().into_bytes()
    }

    fn of_status(&self, status: u16) -> Refusal {
        let (kind, message) = match status {
            401 => ("authentication_error", "invalid x-api-key"),
            402 => ("billing_error", "Your credit balance is too low to access the API."),
            403 => ("permission_error", "Your API key does not have permission to use the specified resource."),
            404 => ("not_found_error", "The requested resource could not be found."),
            409 => ("conflict_error", "The request conflicts with another."),
            413 => ("request_too_large", "Request exceeds the maximum allowed number of bytes."),
            429 => ("rate_limit_error", "This request would exceed your account's rate limit. Please try again later."),
            504 => ("timeout_error", "The request timed out while processing."),
            529 => ("overloaded_error", "Overloaded"),
            400..=499 => ("invalid_request_error", "The request is not valid."),
            _ => ("api_error", "Internal server error"),
        };
        Refusal::new(status, kind, message)
    }

    fn failure(&self, status: u16, seed: Seed) -> Bytes {
        let Refusal { kind, message, .. } = self.of_status(status);
        format!("event: error\ndata: {}\n\n", error_object(kind, &message, seed)).into()
    }

    fn headers(&self, seed: Seed) -> Vec<(HeaderName, HeaderValue)> {
        let fixed = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = vec![
            fixed("anthropic-organization-id", "simulated"),
            fixed("anthropic-ratelimit-requests-limit", "4000"),
            fixed("anthropic-ratelimit-requests-remaining", "3999"),
            fixed("anthropic-ratelimit-requests-reset", "2026-10-21T00:00:00Z"),
            fixed("anthropic-ratelimit-tokens-limit", "480000"),
            fixed("anthropic-ratelimit-tokens-remaining", "480000"),
            fixed("anthropic-ratelimit-tokens-reset", "2026-10-21T00:00:00Z"),
        ];
        headers.extend(header_of("request-id", &request_id(seed)));
        headers
    }
}

fn request_id(seed: Seed) -> String {
    seed.with(1).id("req_011", 21)
}

fn error_object(kind: &str, message: &str, seed: Seed) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id(seed)})
}

fn admit(credential: Option<&str>) -> Result<(), Refusal> {
    let refused = |message: &str| Refusal::new(401, "authentication_error", message);
    match credential {
        None => Err(refused("x-api-key header is required")),
        Some(key) if is_bad(key) => Err(refused("invalid x-api-key")),
        Some(_) => Ok(()),
    }
}

fn version(head: &Parts) -> Result<Version, Refusal> {
    match header(head, "anthropic-version") {
        None => Err(Refusal::invalid("anthropic-version: header is required")),
        Some("2023-06-01") => Ok(Version::V2023),
        Some("2026-10-21") => Ok(Version::V2026),
        Some(other) => Err(Refusal::invalid(format!("anthropic-version: \"{other}\" is not a valid version"))),
    }
}

fn body<'a>(ask: &'a Ask<'_>) -> Result<&'a Value, Refusal> {
    let json = ask.json.as_ref().map_err(|error| {
        let message = format!("The request body is not valid JSON: line {} column {}", error.line(), error.column());
        Refusal::invalid(message)
    })?;
    if !json.is_object() {
        return Err(Refusal::invalid("Input should be an object"));
    }
    if json.get("model").is_none() {
        return Err(Refusal::invalid("model: Field required"));
    }
    if ask.model.starts_with("no-such") {
        return Err(Refusal::new(404, "not_found_error", format!("model: {}", ask.model)));
    }
    Ok(json)
}

fn count_tokens(ask: &Ask<'_>, json: &Value, version: Version) -> Result<Answer, Refusal> {
    let prompt = prompt::read(ask, json, version, prompt::Purpose::Counting)?;
    Ok(Answer::json(&json!({"input_tokens": prompt.input}), Usage::default()))
}
