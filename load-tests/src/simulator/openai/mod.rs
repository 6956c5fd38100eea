//! OpenAI's dialect: chat completions, legacy completions, embeddings and models.
//! Shapes are those of the official Python SDK 3.54; messages of refusals are short forms of the real ones, with
//! their types, parameters and codes.

mod chat;
mod chunk;
mod completions;
mod embeddings;
mod models;
mod prompt;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use serde::Serialize;
use serde_json::{Value, json};

use super::dialect::{Answer, Ask, Dialect, Refusal, bearer, header, header_of, is_bad, write_json};
use super::reply::Usage;
use super::text::Seed;

/// When everything was made: a constant, so that the same request gets the same reply.
pub(crate) const CREATED: u64 = 1_790_000_000;

/// The backend's fingerprint.
pub(crate) const FINGERPRINT: &str = "fp_5172616e74";

/// OpenAI's dialect; it claims whatever no other claims.
pub(crate) struct OpenAi;

impl Dialect for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn claims(&self, _: &Parts) -> bool {
        true
    }

    fn credential<'a>(&self, head: &'a Parts) -> Option<&'a str> {
        bearer(head)
    }

    fn answer(&self, ask: &Ask<'_>) -> Result<Answer, Refusal> {
        admit(ask.head)?;
        let path = ask.head.uri.path();
        match (&ask.head.method, path) {
            (&Method::POST, "/v1/chat/completions") => chat::answer(ask, body(ask)?),
            (&Method::POST, "/v1/completions") => completions::answer(ask, body(ask)?),
            (&Method::POST, "/v1/embeddings") => embeddings::answer(ask, body(ask)?),
            (&Method::GET, "/v1/models") => Ok(models::list()),
            (&Method::GET, _) if path.starts_with("/v1/models/") => models::one(path.trim_start_matches("/v1/models/")),
            (method, "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" | "/v1/models") => {
                Err(not_allowed(method))
            }
            (method, path) => {
                Err(Refusal { status: 404, ..Refusal::invalid(format!("Invalid URL ({method} {path})")) })
            }
        }
    }

    fn refusal(&self, refusal: &Refusal, _: Seed) -> Vec<u8> {
        let Refusal { kind, message, param, code, .. } = refusal;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}}).to_string().into_bytes()
    }

    fn of_status(&self, status: u16) -> Refusal {
        let (kind, code, message) = match status {
            401 => ("invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided."),
            403 => (
                "invalid_request_error",
                Some("unsupported_country_region_territory"),
                "Country, region, or territory not supported",
            ),
            404 => (
                "invalid_request_error",
                Some("model_not_found"),
                "The model does not exist or you do not have access to it.",
            ),
            413 => ("invalid_request_error", None, "The request is too large."),
            429 => {
                ("requests", Some("rate_limit_exceeded"), "Rate limit reached for requests. Please try again later.")
            }
            503 => ("server_error", None, "The engine is currently overloaded, please try again later"),
            400..=499 => ("invalid_request_error", None, "The request is not valid."),
            _ => ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
        };
        Refusal { code, ..Refusal::new(status, kind, message) }
    }

    /// Compatible hosts put the status into `code`; only there can a reader of the stream find it.
    fn failure(&self, status: u16, _: Seed) -> Bytes {
        let Refusal { kind, message, .. } = self.of_status(status);
        let error = json!({"error": {"message": message, "type": kind, "param": null, "code": status}});
        format!("data: {error}\n\ndata: [DONE]\n\n").into()
    }

    fn headers(&self, seed: Seed) -> Vec<(HeaderName, HeaderValue)> {
        let fixed = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = vec![
            fixed("openai-version", "2020-10-01"),
            fixed("openai-organization", "simulated"),
            fixed("openai-processing-ms", "1"),
            fixed("x-ratelimit-limit-requests", "10000"),
            fixed("x-ratelimit-remaining-requests", "9999"),
            fixed("x-ratelimit-reset-requests", "6ms"),
            fixed("x-ratelimit-limit-tokens", "2000000"),
            fixed("x-ratelimit-remaining-tokens", "1999900"),
            fixed("x-ratelimit-reset-tokens", "3ms"),
        ];
        headers.extend(header_of("x-request-id", &seed.with(1).id("req_", 32)));
        headers
    }
}

/// Checks the credential.
fn admit(head: &Parts) -> Result<(), Refusal> {
    let Some(key) = bearer(head) else {
        let message = "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth.";
        return Err(Refusal::new(401, "invalid_request_error", message));
    };
    if is_bad(key) {
        let message = format!("Incorrect API key provided: {key}.");
        return Err(Refusal::new(401, "invalid_request_error", message).code("invalid_api_key"));
    }
    Ok(())
}

/// The body as an object of JSON that names a model.
fn body<'a>(ask: &'a Ask<'_>) -> Result<&'a Value, Refusal> {
    let kind = header(ask.head, "content-type").unwrap_or_default();
    if !kind.starts_with("application/json") {
        let message =
            format!("Unsupported content type: '{kind}'. This API method only accepts 'application/json' requests.");
        return Err(Refusal::invalid(message).code("unsupported_content_type"));
    }
    let unreadable = "We could not parse the JSON body of your request.";
    let json = ask.json.as_ref().map_err(|_| Refusal::invalid(unreadable))?;
    if !json.is_object() {
        return Err(Refusal::invalid(unreadable));
    }
    if ask.model.is_empty() {
        return Err(Refusal::invalid("you must provide a model parameter"));
    }
    if ask.model.starts_with("no-such") {
        let message = format!("The model `{}` does not exist or you do not have access to it.", ask.model);
        return Err(Refusal { status: 404, ..Refusal::invalid(message).code("model_not_found") });
    }
    Ok(json)
}

fn not_allowed(method: &Method) -> Refusal {
    Refusal {
        status: 405,
        ..Refusal::invalid(format!("Not allowed to {method} on this endpoint.")).code("method_not_supported")
    }
}

/// A field that is there and not null.
fn field<'a>(json: &'a Value, name: &str) -> Option<&'a Value> {
    json.get(name).filter(|value| !value.is_null())
}

/// A refusal of a value of the wrong type.
fn wrong_type(param: impl Into<String>, wanted: &str, got: &Value) -> Refusal {
    let param = param.into();
    let message = format!("Invalid type for '{param}': expected {wanted}, but got {} instead.", type_of(got));
    Refusal::invalid(message).param(param).code("invalid_type")
}

fn missing(param: &str) -> Refusal {
    Refusal::invalid(format!("Missing required parameter: '{param}'.")).param(param).code("missing_required_parameter")
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether the caller wants a stream, and usage on it.
#[derive(Clone, Copy, Debug, Default)]
struct Streaming {
    on: bool,
    usage: bool,
    obfuscation: bool,
}

impl Streaming {
    fn of(json: &Value) -> Result<Self, Refusal> {
        let on = match field(json, "stream") {
            None => false,
            Some(value) => value.as_bool().ok_or_else(|| wrong_type("stream", "a boolean", value))?,
        };
        let options = field(json, "stream_options");
        if options.is_some() && !on {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            return Err(Refusal::invalid(message).param("stream_options"));
        }
        let flag = |name| options.and_then(|options| options.get(name)?.as_bool());
        Ok(Self {
            on,
            usage: flag("include_usage").unwrap_or(false),
            obfuscation: flag("include_obfuscation").unwrap_or(true),
        })
    }
}

/// Usage as OpenAI writes it.
#[derive(Clone, Copy, Debug, Serialize)]
struct UsageObject {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cache_write_tokens: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

impl From<Usage> for UsageObject {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.input,
            completion_tokens: usage.output,
            total_tokens: usage.input + usage.output,
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cached,
                audio_tokens: 0,
                cache_write_tokens: usage.cache_write,
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: usage.reasoning,
                audio_tokens: 0,
                accepted_prediction_tokens: 0,
                rejected_prediction_tokens: 0,
            },
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// `data: [DONE]`
fn done(out: &mut BytesMut) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}

/// A server-sent event without a name.
fn data(out: &mut BytesMut, value: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    write_json(out, value);
    out.extend_from_slice(b"\n\n");
}
