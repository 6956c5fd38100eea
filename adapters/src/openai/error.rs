//! Errors in OpenAI's shape, and in the many shapes that hosts of its dialect give them: nested, flat, a bare string,
//! HTML.

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
    #[serde(borrow, default)]
    details: Option<&'a RawValue>,
}

/// One of Google's details.
#[derive(Deserialize)]
struct Reason<'a> {
    #[serde(borrow, default)]
    reason: Option<&'a RawValue>,
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
    let reasons = match serde_json::from_slice::<Envelope<'_>>(body) {
        Ok(envelope) => fill(&mut refusal, &envelope, body),
        Err(_) => {
            refusal.message = shown(status, body);
            Vec::new()
        }
    };
    refusal.class = refine(&refusal, &reasons);
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
        "permission_error" | "permission_denied" | "permissions_error" => StatusCode::FORBIDDEN,
        "not_found_error" | "model_not_found" | "not_found" => StatusCode::NOT_FOUND,
        "service_unavailable" | "unavailable" | "overloaded_error" | "overloaded" => StatusCode::SERVICE_UNAVAILABLE,
        "timeout" | "timeout_error" | "deadline_exceeded" => StatusCode::GATEWAY_TIMEOUT,
        _ => return None,
    })
}

/// Fills in what the body says, and gives the reasons beside it.
fn fill(refusal: &mut Refusal, envelope: &Envelope<'_>, body: &[u8]) -> Vec<String> {
    let error = envelope.error.filter(|error| error.get() != "null");
    let nested = error.is_some_and(|error| error.get().starts_with('{'));
    let source = error.filter(|_| nested).map_or(body, |error| error.get().as_bytes());
    let detail = serde_json::from_slice::<Detail<'_>>(source).unwrap_or_default();
    refusal.kind = detail.kind.and_then(word);
    refusal.code = detail.code.or(detail.status).and_then(word);
    refusal.param = detail.param.and_then(word);
    let message = detail.message.or(error.filter(|_| !nested)).or(envelope.message).or(envelope.detail);
    refusal.message = message.and_then(word).unwrap_or_else(|| shown(refusal.status, body));
    let details = detail.details.and_then(|raw| serde_json::from_str::<Vec<Reason<'_>>>(raw.get()).ok());
    details.into_iter().flatten().filter_map(|detail| word(detail.reason?)).collect()
}

/// A string as its text, anything else that is not null as it is written.
fn word(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        text => Some(index::text(text.as_bytes()).map_or_else(|| text.to_owned(), std::borrow::Cow::into_owned)),
    }
}

fn shown(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(begin(body));
    let text = text.trim();
    let markup = text.starts_with('<');
    if text.is_empty() || markup {
        return format!("The provider answered {status}{}.", if markup { " with a page that is not JSON" } else { "" });
    }
    text.to_owned()
}

/// As much as is shown. Cut between words: half of a secret would not be known for one any more.
fn begin(body: &[u8]) -> &[u8] {
    let Some(cut) = body.get(..SHOWN).filter(|_| body.len() > SHOWN) else { return body };
    let end = cut.iter().rposition(u8::is_ascii_whitespace).unwrap_or_default();
    cut.get(..end).unwrap_or_default()
}

/// Codes of a credential that has nothing left to spend; some come as a 429, some as a 400 or 403.
const SPENT: [&str; 6] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "exceeded_current_quota_error",
    "insufficient_balance",
    "not_enough_balance",
];

/// The same in words.
const SPENT_WORDS: [&str; 4] = [
    "key limit exceeded",
    "insufficient balance",
    "sorry, your account balance is insufficient",
    "your newly created team",
];

/// Codes of a credential that is of no use for anything, where the status alone does not say so.
const BAD_KEY: [&str; 10] = [
    "invalid_api_key",
    "api_key_invalid",
    "authentication_error",
    "unauthenticated",
    "account_deactivated",
    "account_suspended",
    "access_terminated",
    "organization_restricted",
    "authenticationtypedisabled",
    "consumer_suspended",
];

/// The same in words. A message counts by how it begins: further on it may quote what the caller wrote.
const BAD_KEY_WORDS: [&str; 7] = [
    "invalid api key",
    "invalid api-key",
    "incorrect api key",
    // xAI has sent it so.
    "incorrect%20api%20key",
    "api key not valid",
    "api key not found",
    "api key expired",
];

/// What in a 403 says the same; in a 400 it may be of something else.
const DENIED_KEY_WORDS: [&str; 9] = [
    "invalid authentication",
    "invalid token",
    "your api key was reported as leaked",
    "the api key is currently blocked",
    "permission denied: consumer",
    "key based authentication is disabled",
    "oauth token has been revoked",
    "this organization has been disabled",
    "access denied due to invalid subscription key",
];

/// How a 403 begins to say that a text was refused by a policy.
const FLAGGED_WORDS: [&str; 5] = [
    "content violates usage guidelines", // xAI
    "input was flagged",
    "your input was flagged",
    "your chosen model requires moderation",
    "the request is prohibited due to a violation",
];

/// A host's saying: how its message begins, and what comes further on. What the caller wrote and the message quotes
/// begins no message.
type Saying = (&'static str, &'static str);

/// Codes and types of a text that was refused by a policy.
const FLAGGED: [&str; 9] = [
    "content_filter",           // Azure, Moonshot
    "content_policy_violation", // OpenAI
    "invalid_prompt",           // OpenAI
    "data_inspection_failed",   // DashScope
    "datainspectionfailed",     // DashScope
    "1301",                     // Z.ai
    "sensitivecontentdetected", // Volcengine
    "inputtextsensitivecontentdetected",
    "outputtextsensitivecontentdetected",
];

/// The same in words.
const FLAGGED_SAYINGS: [Saying; 8] = [
    ("output blocked by content filtering policy", ""), // Anthropic
    ("your request was blocked", "usage policy"),       // Anthropic
    ("invalid prompt: your prompt was flagged", ""),    // OpenAI
    ("your request was rejected as a result of our safety system", ""), // OpenAI
    ("content exists risk", ""),                        // DeepSeek
    ("input data may contain inappropriate content", ""), // DashScope
    ("<400> internalerror.algo.datainspectionfailed", ""), // DashScope
    ("the request was rejected because it was considered high risk", ""), // Moonshot
];

/// Codes and types of a prompt that is longer than the context.
const OVERLONG: [&str; 3] = [
    "context_length_exceeded",   // OpenAI, Groq, Cerebras
    "exceed_context_size_error", // llama.cpp
    "1261",                      // Z.ai
];

/// The same in words.
const OVERLONG_SAYINGS: [Saying; 20] = [
    ("input tokens exceed the configured limit", ""), // OpenAI
    ("please reduce the length of the messages", ""), // Groq, Cerebras
    ("this model's maximum prompt length is", ""),    // xAI
    ("the input token count", "exceeds the maximum number of tokens"), // Gemini
    ("unable to submit request because the input token count is", ""), // Vertex
    ("invalid request: your request exceeded model token limit", ""), // Moonshot
    ("your request exceeded model token limit", ""),  // Moonshot
    ("prompt exceeds max length", ""),                // Z.ai
    ("range of input length should be", ""),          // DashScope
    ("<400> internalerror.algo.invalidparameter: range of input length should be", ""), // DashScope
    ("the input (", "is longer than the model's context length"), // SGLang
    ("the input (", "is longer than max context"),    // Together
    ("input validation error: `inputs` must have less than", ""), // Hugging Face
    ("input validation error: `inputs` tokens + `max_new_tokens` must be <=", ""), // Hugging Face, Together
    ("trying to keep the first", "context length of only"), // LM Studio
    ("input length", "exceeds maximum allowed token size"), // NVIDIA
    ("[{\"msg\":\"input length", "exceeds maximum allowed token size"), // NVIDIA
    ("requested generation length", "maximum supported sequence length"), // SambaNova
    ("too many tokens: total number of tokens in the prompt", ""), // Cohere
    ("input is too long for requested model", ""),    // Bedrock
];

/// What hosts say of it anywhere in a message.
const TOO_LONG: [&str; 5] = [
    "maximum context length",
    "context length exceeded",
    "context window",
    "prompt is too long",
    "exceeds the available context size",
];

fn refine(refusal: &Refusal, reasons: &[String]) -> Class {
    let code = refusal.code.as_deref().unwrap_or_default();
    let kind = refusal.kind.as_deref().unwrap_or_default();
    let is_of = |words: &[&str]| [code, kind].iter().any(|said| words.contains(&said.to_ascii_lowercase().as_str()));
    let is_bad_key = is_of(&BAD_KEY)
        || reasons.iter().any(|reason| reason == "API_KEY_INVALID")
        || begins(&refusal.message, &BAD_KEY_WORDS);
    match refusal.class {
        Class::RateLimit | Class::BadRequest | Class::Denied if is_of(&SPENT) => Class::Quota,
        // xAI's and Google's word for what others tell by a 401.
        Class::BadRequest if refusal.status == StatusCode::BAD_REQUEST && is_bad_key => Class::Authorization,
        Class::BadRequest | Class::Denied if code == "context_length_exceeded" || tells_of_length(&refusal.message) => {
            Class::ContextLength
        }
        Class::BadRequest | Class::Denied if matches!(code, "content_filter" | "content_policy_violation") => {
            Class::ContentPolicy
        }
        Class::BadRequest if is_of_content(refusal.status) => content(refusal, is_of(&OVERLONG), is_of(&FLAGGED)),
        // One prompt with more tokens than are allowed in a minute: the others have not become too many by it.
        Class::RateLimit if begins(&refusal.message, &["request too large"]) => Class::Denied,
        Class::Denied => denied(refusal, is_bad_key),
        class => class,
    }
}

/// The statuses by which a request's content is refused.
fn is_of_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY)
}

/// What it says of the request's content.
fn content(refusal: &Refusal, is_overlong: bool, is_flagged: bool) -> Class {
    if is_overlong || says(&refusal.message, &OVERLONG_SAYINGS) {
        Class::ContextLength
    } else if is_flagged || says(&refusal.message, &FLAGGED_SAYINGS) {
        Class::ContentPolicy
    } else {
        Class::BadRequest
    }
}

/// What a 403 says: of the credential only what its provider says of it in so many words, for it is refused to all
/// others then.
fn denied(refusal: &Refusal, is_bad_key: bool) -> Class {
    let says = |words: &[&str]| begins(&refusal.message, words);
    if is_bad_key || says(&DENIED_KEY_WORDS) {
        Class::Authorization
    } else if says(&SPENT_WORDS) {
        Class::Quota
    } else if says(&FLAGGED_WORDS) {
        Class::ContentPolicy
    } else {
        Class::Denied
    }
}

/// Whether a message begins with one of these, in lower case.
fn begins(message: &str, words: &[&str]) -> bool {
    let begins = |with: &&str| message.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    words.iter().any(begins)
}

/// Whether a message is one of these sayings.
fn says(message: &str, sayings: &[Saying]) -> bool {
    let is_said = |(begin, further): &Saying| {
        begins(message, &[*begin]) && (further.is_empty() || message.to_ascii_lowercase().contains(further))
    };
    sayings.iter().any(is_said)
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
    fn a_body_that_is_no_json_is_cut_between_words() {
        let message = |body: String| read(StatusCode::BAD_REQUEST, body.as_bytes()).message;
        let begin = "bad key, ".repeat(55);
        assert_eq!(message(format!("{begin} sk-0123456789-0123456789")), begin.trim());
        assert_eq!(message(format!("{begin} end")), format!("{begin} end"));
        assert_eq!(message("x".repeat(600)), "The provider answered 400 Bad Request.");
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

    fn message(message: &str) -> String {
        serde_json::json!({"error": {"message": message, "type": "invalid_request_error", "code": null}}).to_string()
    }

    #[test]
    fn a_prompt_that_is_too_long_is_known_by_each_hosts_saying() {
        for said in [
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
            "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
            "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "Unable to submit request because the input token count is 1200000 but model only supports up to 1048576.",
            "Invalid request: Your request exceeded model token limit: 131072",
            "Prompt exceeds max length",
            "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]",
            "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
            "The input (10 tokens) plus max_new_tokens is longer than max context 8193",
            "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000",
            "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens",
            "[{\"msg\":\"Input length 5000 exceeds maximum allowed token size 4096\"}]",
            "Requested generation length 4097 is not possible! But the maximum supported sequence length is just 4096!",
            "too many tokens: total number of tokens in the prompt cannot exceed 128000 - received 130000.",
            "Input is too long for requested model.",
        ] {
            for status in [400, 413, 422] {
                let status = StatusCode::from_u16(status).unwrap_or_default();
                assert_eq!(read(status, message(said).as_bytes()).class, Class::ContextLength, "{said}");
            }
            assert_eq!(read(StatusCode::CONFLICT, message(said).as_bytes()).class, Class::BadRequest, "{said}");
            let quoted = message(&format!("Invalid value: '{said}'"));
            assert_eq!(read(StatusCode::BAD_REQUEST, quoted.as_bytes()).class, Class::BadRequest, "{quoted}");
            let beside = serde_json::json!({"error": {"message": "m"}, "message": said, "input": {"message": said}});
            assert_eq!(read(StatusCode::BAD_REQUEST, beside.to_string().as_bytes()).class, Class::BadRequest, "{said}");
        }
        let body = br#"{"error":{"code":"1261","message":"m"}}"#;
        assert_eq!(read(StatusCode::BAD_REQUEST, body).class, Class::ContextLength);
    }

    #[test]
    fn refused_content_is_known_by_each_hosts_code_or_saying() {
        let class = |status: StatusCode, body: &str| read(status, body.as_bytes()).class;
        for code in ["invalid_prompt", "data_inspection_failed", "1301", "InputTextSensitiveContentDetected"] {
            let body = format!(r#"{{"error":{{"message":"m","code":"{code}"}}}}"#);
            assert_eq!(class(StatusCode::BAD_REQUEST, &body), Class::ContentPolicy, "{code}");
        }
        for said in [
            "Output blocked by content filtering policy",
            "Your request was blocked: it appears to violate our Usage Policy",
            "Content Exists Risk",
            "Input data may contain inappropriate content.",
            "The request was rejected because it was considered high risk",
        ] {
            assert_eq!(class(StatusCode::BAD_REQUEST, &message(said)), Class::ContentPolicy, "{said}");
            assert_eq!(class(StatusCode::CONFLICT, &message(said)), Class::BadRequest, "{said}");
            let quoted = message(&format!("Invalid value: '{said}'"));
            assert_eq!(class(StatusCode::BAD_REQUEST, &quoted), Class::BadRequest, "{quoted}");
        }
        let xai = r#"{"code":"The caller does not have permission to execute the specified operation","error":"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}"#;
        assert_eq!(class(StatusCode::FORBIDDEN, xai), Class::ContentPolicy);
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
    fn a_403_is_the_credentials_only_where_it_says_so() {
        let class = |body: &str| read(StatusCode::FORBIDDEN, body.as_bytes()).class;
        for body in [
            r#"{"error":{"code":"model_not_found","message":"Project `proj_1` does not have access to model `gpt-5.5`"}}"#,
            r#"{"error":{"code":"unsupported_country_region_territory","type":"request_forbidden","message":"Country, region, or territory not supported"}}"#,
            r#"{"error":{"message":"Your organization must be verified to use the model `o3`.","type":"invalid_request_error","code":null}}"#,
            r#"{"type":"error","error":{"type":"permission_error","message":"Your API key does not have permission to use the specified resource."}}"#,
            r#"{"error":{"type":"forbidden","message":"Request not allowed"}}"#,
            r#"{"error":{"message":"The model `x` is blocked at the project level.","type":"permissions_error","code":"model_permission_blocked_project"}}"#,
            r#"{"error":{"message":"Access denied. Please check your network settings."}}"#,
            r#"{"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}"#,
            r#"{"error":{"code":"model_not_found","message":"No access to model `invalid api key`"}}"#,
            "<html>403 Forbidden</html>",
            "{}",
            "",
        ] {
            assert_eq!(class(body), Class::Denied, "{body}");
        }
        for body in [
            r#"{"error":{"code":"invalid_api_key","message":"m"}}"#,
            r#"{"error":{"code":"AuthenticationTypeDisabled","message":"Key based authentication is disabled for this resource."}}"#,
            r#"{"type":"error","error":{"type":"permission_error","message":"OAuth token has been revoked. Please obtain a new token."}}"#,
            r#"[{"error":{"code":403,"message":"Your API key was reported as leaked. Please use another API key.","status":"PERMISSION_DENIED"}}]"#,
            r#"{"code":"c","error":"The API key is currently blocked: Blocked due to API key leak"}"#,
        ] {
            assert_eq!(class(body), Class::Authorization, "{body}");
        }
        let spent =
            r#"{"error":{"code":403,"message":"Key limit exceeded (total limit). Manage it in the settings."}}"#;
        assert_eq!(class(spent), Class::Quota);
        let flagged =
            r#"{"error":{"code":403,"message":"Input was flagged by moderation","metadata":{"reasons":["violence"]}}}"#;
        assert_eq!(class(flagged), Class::ContentPolicy);
    }

    #[test]
    fn a_refused_key_that_is_told_as_a_400_is_the_credentials() {
        let class = |status: StatusCode, body: &str| read(status, body.as_bytes()).class;
        for body in [
            r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai."}"#,
            r#"{"code":"Client specified an invalid argument","error":"Incorrect%20API%20key%20provided:%20xa***."}"#,
            r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#,
            r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT","details":[{"@type":"t"},{"reason":"API_KEY_INVALID"}]}}]"#,
        ] {
            assert_eq!(class(StatusCode::BAD_REQUEST, body), Class::Authorization, "{body}");
            assert_eq!(class(StatusCode::FORBIDDEN, body), Class::Authorization, "{body}");
            assert_eq!(class(StatusCode::UNPROCESSABLE_ENTITY, body), Class::BadRequest, "{body}");
        }
        for body in [
            r#"{"error":{"message":"Invalid token in the schema's pattern","type":"invalid_request_error"}}"#,
            r#"{"error":{"message":"Invalid value: 'incorrect api key'","param":"API_KEY_INVALID"}}"#,
            r#"{"error":{"message":"m","details":[{"reason":"BAD_ARGUMENT","text":"API_KEY_INVALID"}]}}"#,
            r#"{"error":{"message":"m","details":{"reason":"API_KEY_INVALID"}}}"#,
        ] {
            assert_eq!(class(StatusCode::BAD_REQUEST, body), Class::BadRequest, "{body}");
        }
    }

    #[test]
    fn one_prompt_over_the_limit_of_a_minute_is_no_rate_limit() {
        let told = |message: &str| {
            let body = format!(r#"{{"error":{{"message":"{message}","type":"tokens","code":"rate_limit_exceeded"}}}}"#);
            read(StatusCode::TOO_MANY_REQUESTS, body.as_bytes()).class
        };
        let large = "Request too large for gpt-5.5 in organization org-1 on tokens per min (TPM): Limit 30000, Requested 43000.";
        assert_eq!(told(large), Class::Denied);
        assert_eq!(told("Rate limit reached for gpt-5.5 in organization org-1"), Class::RateLimit);
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
