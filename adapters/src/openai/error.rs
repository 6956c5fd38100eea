//! Errors in OpenAI's shape, and in the many shapes that hosts of its dialect give them: nested, flat, a bare string, HTML.

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::index;
use crate::refusal::{Class, Refusal};

/// How much of a body that is no JSON a caller is shown.
const SHOWN: usize = 512;

#[derive(Default, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    detail: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Detail<'a> {
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    param: Option<&'a RawValue>,
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

/// Reads an error body that came with `status`.
#[must_use]
pub fn read(status: StatusCode, body: &[u8]) -> Refusal {
    let mut refusal = Refusal {
        class: Class::of_status(status),
        status,
        retry_after: None,
        message: String::new(),
        kind: None,
        code: None,
        param: None,
    };
    let body = unwrapped(body);
    match serde_json::from_slice::<Envelope<'_>>(body) {
        Ok(envelope) => fill(&mut refusal, &envelope, body),
        Err(_) => refusal.message = shown(status, body),
    }
    refusal.class = refine(&refusal);
    refusal
}

/// The error in an array of one, as Google's hosts send it.
fn unwrapped(body: &[u8]) -> &[u8] {
    let trimmed = body.trim_ascii();
    if !trimmed.starts_with(b"[") {
        return body;
    }
    let list = serde_json::from_slice::<Vec<&RawValue>>(trimmed).unwrap_or_default();
    list.first().map_or(body, |first| first.get().as_bytes())
}

/// Reads an error that came inside of a success; its status is told by its code, or else it is the server's fault.
#[must_use]
pub fn read_in_success(body: &[u8]) -> Refusal {
    let told = read(StatusCode::BAD_GATEWAY, body);
    match status_told(&told) {
        Some(status) => read(status, body),
        None => told,
    }
}

fn status_told(refusal: &Refusal) -> Option<StatusCode> {
    let words = || [refusal.code.as_deref(), refusal.kind.as_deref()].into_iter().flatten();
    words().find_map(status_of_number).or_else(|| words().find_map(status_of_word))
}

/// The status that a code begins with, as in `429` and `429 Too Many Requests`.
fn status_of_number(code: &str) -> Option<StatusCode> {
    let digits = code.split(|c: char| !c.is_ascii_digit()).next()?;
    let status = StatusCode::from_bytes(digits.as_bytes()).ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

fn status_of_word(word: &str) -> Option<StatusCode> {
    Some(match word.to_ascii_lowercase().as_str() {
        "invalid_request_error"
        | "context_length_exceeded"
        | "content_filter"
        | "badrequesterror"
        | "invalid_argument" => StatusCode::BAD_REQUEST,
        "rate_limit_exceeded"
        | "rate_limit_error"
        | "insufficient_quota"
        | "tokens"
        | "requests"
        | "resource_exhausted"
        | "too_many_requests" => StatusCode::TOO_MANY_REQUESTS,
        "authentication_error" | "invalid_api_key" | "unauthenticated" => StatusCode::UNAUTHORIZED,
        "permission_error" | "permission_denied" => StatusCode::FORBIDDEN,
        "not_found_error" | "model_not_found" | "not_found" => StatusCode::NOT_FOUND,
        "service_unavailable" | "unavailable" | "overloaded_error" | "overloaded" => StatusCode::SERVICE_UNAVAILABLE,
        "timeout" | "timeout_error" | "deadline_exceeded" => StatusCode::GATEWAY_TIMEOUT,
        _ => return None,
    })
}

fn fill(refusal: &mut Refusal, envelope: &Envelope<'_>, body: &[u8]) {
    let error = envelope.error.filter(|error| error.get() != "null");
    let nested = error.is_some_and(|error| error.get().starts_with('{'));
    let source = error.filter(|_| nested).map_or(body, |error| error.get().as_bytes());
    let detail = serde_json::from_slice::<Detail<'_>>(source).unwrap_or_default();
    refusal.kind = detail.kind.and_then(word);
    refusal.code = detail.code.or(detail.status).and_then(word);
    refusal.param = detail.param.and_then(word);
    let message = detail.message.or(error.filter(|_| !nested)).or(envelope.message).or(envelope.detail);
    refusal.message = message.and_then(word).unwrap_or_else(|| shown(refusal.status, body));
}

/// A string as its text, anything else that is not null as it is written.
fn word(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        text => Some(index::text(text.as_bytes()).map_or_else(|| text.to_owned(), std::borrow::Cow::into_owned)),
    }
}

fn shown(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(SHOWN)).unwrap_or_default());
    let text = text.trim();
    let markup = text.starts_with('<');
    if text.is_empty() || markup {
        return format!("The provider answered {status}{}.", if markup { " with a page that is not JSON" } else { "" });
    }
    text.to_owned()
}

/// Codes of a credential that has nothing left to spend; some come as a 429, some as a 400.
const SPENT: [&str; 4] =
    ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "exceeded_current_quota_error"];

/// What hosts say, each in its own code, of a prompt that is longer than the context.
const TOO_LONG: [&str; 5] = [
    "maximum context length",
    "context length exceeded",
    "context window",
    "prompt is too long",
    "exceeds the available context size",
];

fn refine(refusal: &Refusal) -> Class {
    let code = refusal.code.as_deref().unwrap_or_default();
    let kind = refusal.kind.as_deref().unwrap_or_default();
    match refusal.class {
        Class::RateLimit | Class::BadRequest if SPENT.contains(&code) || SPENT.contains(&kind) => Class::Quota,
        Class::BadRequest if code == "context_length_exceeded" || tells_of_length(&refusal.message) => {
            Class::ContextLength
        }
        Class::BadRequest if matches!(code, "content_filter" | "content_policy_violation") => Class::ContentPolicy,
        class => class,
    }
}

fn tells_of_length(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    TOO_LONG.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_keeps_its_status_and_message() {
        let shapes: [(&[u8], &str); 6] = [
            (br#"{"error":{"message":"no","type":"t","param":"p","code":17}}"#, "no"),
            (br#"{"error":"no"}"#, "no"),
            (br#"{"message":"no","type":"t"}"#, "no"),
            (br#"{"detail":[{"loc":1}]}"#, r#"[{"loc":1}]"#),
            (b"no", "no"),
            (b"<html>boo</html>", "The provider answered 422 Unprocessable Entity with a page that is not JSON."),
        ];
        for (body, message) in shapes {
            let refusal = read(StatusCode::UNPROCESSABLE_ENTITY, body);
            assert_eq!((refusal.status.as_u16(), refusal.class), (422, Class::BadRequest));
            assert_eq!(refusal.message, message);
        }
        assert_eq!(read(StatusCode::BAD_REQUEST, shapes[0].0).code.as_deref(), Some("17"));
    }

    #[test]
    fn a_prompt_that_is_too_long_is_known_by_code_or_words() {
        for body in [
            r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","code":400}"#,
        ] {
            assert_eq!(read(StatusCode::BAD_REQUEST, body.as_bytes()).class, Class::ContextLength, "{body}");
        }
    }

    #[test]
    fn a_spent_quota_is_told_from_a_rate_limit() {
        let body = br#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
        assert_eq!(read(StatusCode::TOO_MANY_REQUESTS, body).class, Class::Quota);
        assert_eq!(read(StatusCode::TOO_MANY_REQUESTS, b"{}").class, Class::RateLimit);
        let body = br#"{"error":{"message":"m","code":"billing_hard_limit_reached"}}"#;
        assert_eq!(read(StatusCode::BAD_REQUEST, body).class, Class::Quota);
    }

    #[test]
    fn an_error_inside_a_success_stands_for_the_status_that_it_names() {
        let status = |body: &[u8]| read_in_success(body).status.as_u16();
        assert_eq!(status(br#"{"error":{"code":400,"message":"m"}}"#), 400);
        assert_eq!(status(br#"{"error":{"code":"429","message":"m"}}"#), 429);
        assert_eq!(status(br#"{"error":{"type":"invalid_request_error","message":"m"}}"#), 400);
        assert_eq!(status(br#"{"error":{"code":200,"message":"m"}}"#), 502);
        assert_eq!(status(br#"{"error":"m"}"#), 502);
        assert_eq!(status(br#"{"error":{"code":"429 Too Many Requests","message":"m"}}"#), 429);
        assert_eq!(status(br#"{"error":{"status":"RESOURCE_EXHAUSTED","message":"m"}}"#), 429);
        assert_eq!(status(br#"{"error":{"code":null,"type":"overloaded_error","message":"m"}}"#), 503);
        assert_eq!(status(br#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#), 400);
        assert_eq!(status(br#"[{"error":{"code":403,"message":"m","status":"PERMISSION_DENIED"}}]"#), 403);
    }
}
