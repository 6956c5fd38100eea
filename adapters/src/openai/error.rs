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
    match serde_json::from_slice::<Envelope<'_>>(body) {
        Ok(envelope) => fill(&mut refusal, &envelope, body),
        Err(_) => refusal.message = shown(status, body),
    }
    refusal.class = refine(&refusal);
    refusal
}

/// Reads an error that came inside of a success; its status is told by its code, or else it is the server's fault.
#[must_use]
pub fn read_in_success(body: &[u8]) -> Refusal {
    let told = read(StatusCode::BAD_GATEWAY, body);
    let status = told
        .code
        .as_deref()
        .and_then(|code| code.parse::<u16>().ok())
        .and_then(as_error)
        .or_else(|| {
            let word = told
                .code
                .as_deref()
                .or(told.kind.as_deref())
                .unwrap_or_default();
            status_of_word(word)
        });
    match status {
        Some(status) => read(status, body),
        None => told,
    }
}

fn as_error(code: u16) -> Option<StatusCode> {
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
}

fn status_of_word(word: &str) -> Option<StatusCode> {
    Some(match word {
        "invalid_request_error" | "context_length_exceeded" | "content_filter" => {
            StatusCode::BAD_REQUEST
        }
        "rate_limit_exceeded"
        | "rate_limit_error"
        | "insufficient_quota"
        | "tokens"
        | "requests" => StatusCode::TOO_MANY_REQUESTS,
        "authentication_error" | "invalid_api_key" => StatusCode::UNAUTHORIZED,
        "permission_error" => StatusCode::FORBIDDEN,
        "not_found_error" | "model_not_found" => StatusCode::NOT_FOUND,
        _ => return None,
    })
}

fn fill(refusal: &mut Refusal, envelope: &Envelope<'_>, body: &[u8]) {
    let error = envelope.error.filter(|error| error.get() != "null");
    let nested = error.is_some_and(|error| error.get().starts_with('{'));
    let source = error
        .filter(|_| nested)
        .map_or(body, |error| error.get().as_bytes());
    let detail = serde_json::from_slice::<Detail<'_>>(source).unwrap_or_default();
    refusal.kind = detail.kind.and_then(word);
    refusal.code = detail.code.and_then(word);
    refusal.param = detail.param.and_then(word);
    let message = detail
        .message
        .or(error.filter(|_| !nested))
        .or(envelope.message)
        .or(envelope.detail);
    refusal.message = message
        .and_then(word)
        .unwrap_or_else(|| shown(refusal.status, body));
}

/// A string as its text, anything else that is not null as it is written.
fn word(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        text => Some(
            index::text(text.as_bytes())
                .map_or_else(|| text.to_owned(), std::borrow::Cow::into_owned),
        ),
    }
}

fn shown(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(SHOWN)).unwrap_or_default());
    let text = text.trim();
    let markup = text.starts_with('<');
    if text.is_empty() || markup {
        return format!(
            "The provider answered {status}{}.",
            if markup {
                " with a page that is not JSON"
            } else {
                ""
            }
        );
    }
    text.to_owned()
}

fn refine(refusal: &Refusal) -> Class {
    let code = refusal.code.as_deref().unwrap_or_default();
    let kind = refusal.kind.as_deref().unwrap_or_default();
    match (refusal.class, code, kind) {
        (Class::RateLimit, "insufficient_quota", _)
        | (Class::RateLimit, _, "insufficient_quota") => Class::Quota,
        (Class::BadRequest, "context_length_exceeded", _) => Class::ContextLength,
        (Class::BadRequest, "content_filter" | "content_policy_violation", _) => {
            Class::ContentPolicy
        }
        (class, _, _) => class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_keeps_its_status_and_message() {
        let shapes: [(&[u8], &str); 6] = [
            (
                br#"{"error":{"message":"no","type":"t","param":"p","code":17}}"#,
                "no",
            ),
            (br#"{"error":"no"}"#, "no"),
            (br#"{"message":"no","type":"t"}"#, "no"),
            (br#"{"detail":[{"loc":1}]}"#, r#"[{"loc":1}]"#),
            (b"no", "no"),
            (
                b"<html>boo</html>",
                "The provider answered 422 Unprocessable Entity with a page that is not JSON.",
            ),
        ];
        for (body, message) in shapes {
            let refusal = read(StatusCode::UNPROCESSABLE_ENTITY, body);
            assert_eq!(
                (refusal.status.as_u16(), refusal.class),
                (422, Class::BadRequest)
            );
            assert_eq!(refusal.message, message);
        }
        assert_eq!(
            read(StatusCode::BAD_REQUEST, shapes[0].0).code.as_deref(),
            Some("17")
        );
    }

    #[test]
    fn a_spent_quota_is_told_from_a_rate_limit() {
        let body = br#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
        assert_eq!(
            read(StatusCode::TOO_MANY_REQUESTS, body).class,
            Class::Quota
        );
        assert_eq!(
            read(StatusCode::TOO_MANY_REQUESTS, b"{}").class,
            Class::RateLimit
        );
    }

    #[test]
    fn an_error_inside_a_success_stands_for_the_status_that_it_names() {
        let status = |body: &[u8]| read_in_success(body).status.as_u16();
        assert_eq!(status(br#"{"error":{"code":400,"message":"m"}}"#), 400);
        assert_eq!(status(br#"{"error":{"code":"429","message":"m"}}"#), 429);
        assert_eq!(
            status(br#"{"error":{"type":"invalid_request_error","message":"m"}}"#),
            400
        );
        assert_eq!(status(br#"{"error":{"code":200,"message":"m"}}"#), 502);
        assert_eq!(status(br#"{"error":"m"}"#), 502);
    }
}
