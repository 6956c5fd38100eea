//! Anthropic's errors, `{"type": "error", "error": {"type", "message", "details"}}`, as answers and inside of streams.

use http::StatusCode;
use serde::Deserialize;

use crate::openai::error as generic;
use crate::openai::text::Text;
use crate::refusal::{Class, Refusal};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    error: Told<'a>,
}

#[derive(Deserialize)]
struct Told<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    message: Option<Text<'a>>,
    details: Option<Details<'a>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    error_code: Option<Text<'a>>,
}

/// Reads an error that came with `status`; what has another shape, as of a proxy before Anthropic, is read all the
/// same.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Refusal {
    let mut refusal = generic::read(status, body);
    let Ok(Envelope { error }) = serde_json::from_slice::<Envelope<'_>>(body) else {
        return refusal;
    };
    refusal.kind = error.kind.map(|kind| kind.0.into_owned());
    refusal.code = error.details.and_then(|details| details.error_code).map(|code| code.0.into_owned());
    if let Some(message) = error.message {
        refusal.message = message.0.into_owned();
    }
    refusal.class = class_of(&refusal);
    if refusal.class == Class::ContextLength {
        refusal.code = Some("context_length_exceeded".to_owned());
    }
    refusal
}

/// Reads an error inside of a success; its type tells the status.
pub(super) fn read_in_success(body: &[u8]) -> Refusal {
    let status = serde_json::from_slice::<Envelope<'_>>(body)
        .ok()
        .and_then(|envelope| envelope.error.kind)
        .map_or(StatusCode::BAD_GATEWAY, |kind| status_of(&kind));
    read(status, body)
}

fn status_of(kind: &str) -> StatusCode {
    match kind {
        "invalid_request_error" => StatusCode::BAD_REQUEST,
        "authentication_error" => StatusCode::UNAUTHORIZED,
        "billing_error" => StatusCode::PAYMENT_REQUIRED,
        "permission_error" => StatusCode::FORBIDDEN,
        "not_found_error" => StatusCode::NOT_FOUND,
        "conflict_error" => StatusCode::CONFLICT,
        "request_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "rate_limit_error" => StatusCode::TOO_MANY_REQUESTS,
        "timeout_error" => StatusCode::GATEWAY_TIMEOUT,
        "overloaded_error" => StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        "api_error" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn class_of(refusal: &Refusal) -> Class {
    let told = refusal.message.to_ascii_lowercase();
    let code = refusal.code.as_deref().unwrap_or_default();
    let kind = refusal.kind.as_deref().unwrap_or_default();
    match (refusal.class, kind) {
        (Class::BadRequest, _) if told.contains("prompt is too long") || told.contains("exceed context limit") => {
            Class::ContextLength
        }
        (Class::BadRequest, _) if told.contains("credit balance is too low") => Class::Quota,
        (Class::RateLimit, _) if code.ends_with("spend_limit_reached") => Class::Quota,
        (_, "billing_error") => Class::Quota,
        (class, _) => class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: &str, message: &str) -> Vec<u8> {
        format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"r"}}"#).into_bytes()
    }

    #[test]
    fn each_error_has_its_class_and_keeps_its_status() {
        for (status, kind, message, class) in [
            (429, "rate_limit_error", "slow down", Class::RateLimit),
            (529, "overloaded_error", "Overloaded", Class::Server),
            (504, "timeout_error", "too long", Class::Server),
            (401, "authentication_error", "bad key", Class::Authorization),
            (403, "permission_error", "no", Class::Denied),
            (402, "billing_error", "pay", Class::Quota),
            (404, "not_found_error", "model: x", Class::NotFound),
            (413, "request_too_large", "big", Class::BadRequest),
            (400, "invalid_request_error", "no", Class::BadRequest),
            (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", Class::ContextLength),
            (400, "invalid_request_error", "Output blocked by content filtering policy", Class::ContentPolicy),
            (400, "invalid_request_error", "Your credit balance is too low to access", Class::Quota),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let refusal = read(status, &body(kind, message));
            assert_eq!(
                (refusal.status, refusal.class, refusal.kind.as_deref()),
                (status, class, Some(kind)),
                "{message}"
            );
            assert_eq!(refusal.message, message);
            if class != Class::Quota && class != Class::ContextLength {
                assert_eq!(read_in_success(&body(kind, message)).status, status, "{kind}");
            }
        }
    }

    #[test]
    fn a_spend_limit_is_told_from_a_rate_limit() {
        let body = br#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        let refusal = read(StatusCode::TOO_MANY_REQUESTS, body);
        assert_eq!((refusal.class, refusal.code.as_deref()), (Class::Quota, Some("enforced_spend_limit_reached")));
    }

    #[test]
    fn a_page_of_a_proxy_is_read_too() {
        assert_eq!(read(StatusCode::BAD_GATEWAY, b"<html>").class, Class::Server);
        assert_eq!(read_in_success(b"{").status, StatusCode::BAD_GATEWAY);
    }
}
