//! Errors as callers see them: the closed set of kinds, each with its status and code, in one shape, telling no secret.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use weir_tests::ask::{MODELS, chat, simulator, stream, with};
use weir_tests::client::Answer;
use weir_tests::patience::within;
use weir_tests::provider::{Provider, port_that_nobody_listens_at};
use weir_tests::weir::{Config, KEY, KEY_HASH, Weir};

/// What an error is to be.
struct Wanted {
    status: u16,
    kind: &'static str,
    code: &'static str,
}

const fn wanted(status: u16, kind: &'static str, code: &'static str) -> Wanted {
    Wanted { status, kind, code }
}

/// Checks status, kind, code, shape and the log's word for it; gives the error.
async fn assert_error(weir: &Weir, answer: Answer, wanted: &Wanted) -> Value {
    let id = answer.id();
    let kind = answer.header("x-weir-error").map(str::to_owned);
    let (status, json_type) = (answer.status.as_u16(), answer.header("content-type") == Some("application/json"));
    let body = answer.text().await;
    assert_eq!((status, kind.as_deref()), (wanted.status, Some(wanted.kind)), "{body}");
    assert!(json_type, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let error = body["error"].as_object().unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    let names: Vec<&str> = error.keys().map(String::as_str).collect();
    assert_eq!(names, ["code", "message", "param", "type"]);
    assert_eq!(error["code"], wanted.code, "{body}");
    assert!(!error["message"].as_str().unwrap().is_empty() && error["type"].is_string(), "{body}");
    assert!(error["param"].is_null() || error["param"].is_string());
    let line = weir.logged(&id).await;
    assert_eq!(
        (&line["status"], &line["error"], &line["code"]),
        (&json!(wanted.status), &json!(wanted.kind), &json!(wanted.code))
    );
    body["error"].clone()
}

#[tokio::test]
async fn no_key_an_unknown_one_and_an_expired_one_are_a_401_before_the_body_is_looked_at() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .tenant(&format!("{{id: acme, keys: [{{id: old, hash: '{KEY_HASH}', expires: 2020-01-01}}]}}"))
        .start()
        .await;
    let refused = wanted(401, "caller_auth", "invalid_api_key");
    for body in ["{", &chat(MODELS[0]).to_string()] {
        let call = || weir.chat().body(body.to_owned());
        for call in [
            call().without("authorization"),
            call().header("authorization", "Bearer sk-nobody"),
            call().without("authorization").header("x-api-key", "sk-nobody"),
            call(),
        ] {
            let error = assert_error(&weir, call.send().await, &refused).await;
            assert_eq!(error["type"], "authentication_error");
            assert!(!error["message"].as_str().unwrap().contains("sk-"), "a key is shown: {error}");
        }
    }
    assert_eq!(simulator.account().requests, 0);
}

#[tokio::test]
async fn a_key_is_taken_wherever_a_client_puts_it() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for name in ["x-api-key", "api-key", "x-goog-api-key"] {
        let call = weir.chat().without("authorization").header(name, KEY).json(&chat(MODELS[0]));
        assert_eq!(call.send().await.status, 200, "{name}");
    }
    for request in simulator.requests() {
        assert!(!request.headers().values().any(|value| value.to_str().unwrap_or_default().contains(KEY)));
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_served_is_told_why() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .server("max_body: 8KiB")
        .model("{name: embed, type: text-embedding, targets: [{provider: openai, model: text-embedding-3-small}]}")
        .model("{name: gpt, targets: [{provider: openai, model: gpt-5.5}]}")
        .start()
        .await;
    let bad = |code| wanted(400, "caller_request", code);
    let post = |body: &str| weir.chat().body(body.to_owned());
    let big = chat("gpt").to_string().replace("weirs", &"x".repeat(9_000));
    let cases = [
        (post("{"), bad("invalid_request")),
        (post(""), bad("invalid_request")),
        (post("[]"), bad("invalid_request")),
        (post(r#"{"model":"gpt","model":"gpt","messages":[]}"#), bad("invalid_request")),
        (post(r#"{"model":7}"#), bad("invalid_request")),
        (weir.chat().json(&with(chat("gpt"), "stream", json!("yes"))), bad("invalid_request")),
        (post(r#"{"messages":[]}"#), bad("invalid_request")),
        (weir.chat().json(&chat("embed")), bad("wrong_model_type")),
        (weir.post("/v1/embeddings").json(&json!({"model": "gpt", "input": "x"})), bad("wrong_model_type")),
        (
            weir.post("/v1/embeddings").json(&json!({"model": "claude/claude-sonnet-4-6", "input": "x"})),
            bad("unsupported_endpoint"),
        ),
        (weir.chat().json(&chat("gpt")).header("x-weir-timeout-ms", "soon"), bad("invalid_request")),
        (weir.chat().json(&chat("no-such-model")), wanted(404, "caller_request", "model_not_found")),
        (weir.post("/v1/chat/completion").json(&chat("gpt")), wanted(404, "caller_request", "unknown_url")),
        (weir.post("/v1/responses").json(&chat("gpt")), wanted(404, "caller_request", "endpoint_not_available")),
        (weir.get("/v1/chat/completions"), wanted(405, "caller_request", "method_not_allowed")),
        (weir.post("/v1/models"), wanted(405, "caller_request", "method_not_allowed")),
        (post(&big), wanted(413, "caller_request", "request_too_large")),
        (
            post("x").header("content-type", "multipart/form-data; boundary=x"),
            wanted(415, "caller_request", "unsupported_media_type"),
        ),
        (
            weir.chat().json(&chat("gpt")).header("content-encoding", "gzip"),
            wanted(415, "caller_request", "unsupported_media_type"),
        ),
    ];
    for (call, wanted) in cases {
        assert_error(&weir, call.send().await, &wanted).await;
    }
    assert_eq!(simulator.account().requests, 0, "something reached the provider");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    assert_eq!(weir.get("/v1/chat/completions").send().await.header("allow"), Some("POST"));
    for method in ["POST", "DELETE", "PUT", "OPTIONS"] {
        let answer = weir.call(method, "/v1/models").send().await;
        assert_eq!(answer.header("allow"), Some("GET"), "{method}");
        assert!(answer.text().await.contains("use GET"));
    }
    assert_eq!(weir.call("DELETE", "/v1/embeddings").send().await.header("allow"), Some("POST"));
}

#[tokio::test]
async fn errors_of_anthropics_endpoints_have_its_shape() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for path in ["/v1/messages", "/messages/", "/v1/messages/count_tokens"] {
        let answer = weir.post(path).json(&chat("x")).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (404, Some("caller_request")));
        let body = answer.json().await;
        assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!("not_found_error")), "{body}");
        assert!(body["error"]["message"].is_string() && body["error"].get("code").is_none(), "{body}");
    }
}

#[tokio::test]
async fn nobody_is_told_to_come_again_in_another_century() {
    let provider = Provider::refusing(429, "retry-after: Thu, 31 Dec 2099 23:59:59 GMT\r\n", "{}").await;
    let weir = Config::new().openai("o", &provider.url()).start().await;
    let answer = weir.chat().json(&chat("o/m")).send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (429, Some("600")),
        "no longer than a target may cool"
    );
}

#[tokio::test]
async fn what_was_never_sent_is_no_attempt() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .model("{name: m, targets: [{provider: claude, model: claude-sonnet-4-6}], params: {unsupported: reject}}")
        .start()
        .await;
    let answer = weir.chat().json(&with(chat("m"), "seed", json!(1))).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (400, Some("0")));
    assert_eq!((answer.header("x-weir-provider"), simulator.account().requests), (None, 0));
}

#[tokio::test]
async fn models_are_listed_also_where_a_wildcard_stands_for_them() {
    let simulator = simulator();
    let models = |models: &str| {
        let hash = KEY_HASH;
        Config::of(&simulator)
            .provider(
                "anthropic",
                &format!("{{base_url: 'http://{}', credentials: [{{id: a, api_key: k}}]}}", simulator.addr()),
            )
            .model("{name: 'an/*', targets: [{provider: anthropic, model: 'claude-*'}]}")
            .model("{name: 'an/sonnet-4-6', targets: [{provider: claude, model: claude-sonnet-4-6}]}")
            .model("{name: 'fixed/*', targets: [{provider: anthropic, model: claude-sonnet-4-6}]}")
            .model("{name: voice, type: tts, targets: [{provider: openai, model: x}]}")
            .tenant(&format!("{{id: acme{models}, keys: [{{id: ci, hash: '{hash}'}}]}}"))
    };
    let listed = async |config: Config| {
        let weir = config.start().await;
        let list = weir.get("/v1/models").send().await.json().await["data"].clone();
        let entries = list.as_array().unwrap().iter().map(|entry| (entry["id"].clone(), entry["owned_by"].clone()));
        entries.collect::<Vec<_>>()
    };
    let all = listed(models("")).await;
    assert!(all.len() > 5 && all.iter().all(|(id, _)| id.as_str().unwrap().starts_with("an/")), "{all:?}");
    assert!(all.contains(&(json!("an/opus-4-6"), json!("anthropic"))), "{all:?}");
    assert_eq!(all.iter().filter(|(id, _)| id == "an/sonnet-4-6").count(), 1);
    assert!(all.contains(&(json!("an/sonnet-4-6"), json!("claude"))), "{all:?}");
    let few = listed(models(", models: ['an/sonnet-*'], disabled_models: ['an/sonnet-4-5']")).await;
    assert!(
        few.len() < all.len() && few.iter().all(|(id, _)| id.as_str().unwrap().starts_with("an/sonnet-")),
        "{few:?}"
    );
    assert!(!few.iter().any(|(id, _)| id == "an/sonnet-4-5"));
}

#[tokio::test]
async fn a_model_that_the_key_may_not_call_is_forbidden_and_nothing_reaches_a_provider() {
    let simulator = simulator();
    let hash = |key: &str| format!("sha256:{}", sha256(key));
    let weir = Config::of(&simulator)
        .model("{name: a, targets: [{provider: openai, model: gpt-5.5}]}")
        .model("{name: b, targets: [{provider: openai, model: gpt-5.5}]}")
        .model("{name: c, targets: [{provider: openai, model: gpt-5.5}]}")
        .tenant(&format!(
            "{{id: acme, models: [a, b], disabled_models: [b], keys: [{{id: ci, hash: '{}'}}, {{id: narrow, hash: '{}', models: [b]}}]}}",
            hash("sk-1"),
            hash("sk-2")
        ))
        .start()
        .await;
    let ask = |key: &str, model: &str| weir.chat().header("authorization", &format!("Bearer {key}")).json(&chat(model));
    for (key, model, code) in [
        ("sk-1", "b", "model_disabled"),
        ("sk-1", "c", "model_not_allowed"),
        ("sk-1", "openai/gpt-5.5", "model_not_allowed"),
        ("sk-2", "a", "model_not_allowed"),
    ] {
        let error = assert_error(&weir, ask(key, model).send().await, &wanted(403, "policy_forbidden", code)).await;
        assert_eq!(error["param"], "model");
    }
    assert_eq!(simulator.account().requests, 0);
    assert_eq!(ask("sk-1", "a").send().await.status, 200);
}

/// With `sha256sum`, since the harness needs no hash otherwise.
fn sha256(text: &str) -> String {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    out.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_limit_of_the_providers_is_a_429_with_the_time_to_come_again() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for (told, after) in [("retry_after=7", "7"), ("retry_after=1500ms", "2"), ("retry_date=30s", "30")] {
            for request in [chat(&format!("{model}~status=429~{told}")), stream(&format!("{model}~status=429~{told}"))]
            {
                let answer = weir.chat().json(&request).send().await;
                let got: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                let after: u64 = after.parse().unwrap();
                // A date has whole seconds, of which one may have passed.
                assert!(got == after || got + 1 == after, "{got} for {told}");
                assert!(
                    !answer.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit")),
                    "the provider's own limits"
                );
                let error = assert_error(&weir, answer, &wanted(429, "provider_limit", "provider_rate_limited")).await;
                assert_eq!(error["type"], "rate_limit_error");
            }
        }
    }
}

#[tokio::test]
async fn a_refused_credential_of_weirs_own_is_a_502_that_shows_no_key() {
    let simulator = simulator();
    let url = format!("http://{}", simulator.addr());
    let weir = Config::new()
        .provider(
            "openai",
            &format!("{{kind: openai, base_url: '{url}/v1', credentials: [{{id: a, api_key: sk-bad-verysecret}}]}}"),
        )
        .provider(
            "claude",
            &format!("{{kind: anthropic, base_url: '{url}', credentials: [{{id: b, api_key: sk-bad-verysecret}}]}}"),
        )
        .start()
        .await;
    for model in MODELS {
        for directive in ["", "~status=401"] {
            for request in [chat(&format!("{model}{directive}")), stream(&format!("{model}{directive}"))] {
                let answer = weir.chat().json(&request).send().await;
                let error = assert_error(&weir, answer, &wanted(502, "provider_auth", "provider_auth_failed")).await;
                assert!(!error.to_string().contains("verysecret"), "{error}");
            }
        }
    }
    let log: String = weir.log().iter().map(Value::to_string).collect();
    assert!(!log.contains("verysecret"), "{log}");
    assert!(!weir.stderr().contains("verysecret"), "{}", weir.stderr());
}

/// What xAI says of a key, Gemini of a prompt, and DeepSeek of its content.
#[tokio::test]
async fn what_a_provider_tells_by_a_400_of_a_key_a_prompt_or_its_content_is_known_by_its_words() {
    let simulator = simulator();
    for (body, model) in [
        (r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***."}"#, None),
        (
            r#"[{"error":{"code":400,"message":"The input token count (9) exceeds the maximum number of tokens allowed (8).","status":"INVALID_ARGUMENT"}}]"#,
            Some("large"),
        ),
        (r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error"}}"#, Some("mild")),
    ] {
        let provider = Provider::refusing(400, "", body).await;
        let weir = Config::of(&simulator)
            .openai("odd", &provider.url())
            .model("{name: large, targets: [{provider: openai, model: gpt-5.5}]}")
            .model("{name: mild, targets: [{provider: openai, model: gpt-5.5}]}")
            .model("{name: m, targets: [{provider: odd, model: x}], fallbacks: {context_window: [large], content_policy: [mild]}}")
            .start()
            .await;
        let answer = weir.chat().json(&chat("m")).send().await;
        match model {
            Some(model) => {
                assert_eq!((answer.status.as_u16(), answer.header("x-weir-model")), (200, Some(model)), "{body}")
            }
            None => {
                let error = assert_error(&weir, answer, &wanted(502, "provider_auth", "provider_auth_failed")).await;
                assert!(!error.to_string().contains("API key"), "{error}");
            }
        }
    }
}

/// What OpenAI says of a model that a project has not, OpenRouter of a prompt, and OpenAI of one that is too large.
#[tokio::test]
async fn a_provider_that_refuses_one_request_is_asked_by_everybody_else_as_before() {
    let refusals = [
        (403, r#"{"error":{"code":"model_not_found","type":"t","message":"Project `p` does not have access to it."}}"#),
        (403, r#"{"error":{"code":403,"message":"Input was flagged by moderation","metadata":{"reasons":["x"]}}}"#),
        (
            429,
            r#"{"error":{"code":"rate_limit_exceeded","type":"tokens","message":"Request too large for gpt-5.5 …"}}"#,
        ),
    ];
    for (status, body) in refusals {
        let provider = Provider::start(move |mut played| async move {
            let well =
                r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}"#;
            let (status, body) = if played.request.body.contains("flawed") { (status, body) } else { (200, well) };
            let length = body.len();
            played
                .write(&format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"))
                .await;
            played.close().await;
        })
        .await;
        let weir = Config::new()
            .openai("o", &provider.url())
            .section("health: {min_samples: 1, error_rate: 1%}")
            .start()
            .await;
        for _ in 0..2 {
            let answer = weir.chat().json(&chat("o/flawed")).send().await;
            assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (status, Some("provider_error")));
            let error = answer.json().await["error"].clone();
            let told: Value = serde_json::from_str(body).unwrap();
            assert_eq!(error["message"], told["error"]["message"]);
            assert_eq!(weir.chat().json(&chat("o/other")).send().await.status, 200, "{body}");
        }
    }
}

#[tokio::test]
async fn no_field_of_a_providers_error_says_the_credential_back() {
    let secret = "sk-verysecret-0123456789";
    let fields =
        format!(r#"{{"error":{{"message":"m {secret}","type":"{secret}","param":"{secret}","code":"{secret}"}}}}"#);
    let text = format!("{} key={secret}", "no ".repeat(165));
    let content = weir_tests::ask::chunk("m", &json!({"content": "a"}));
    let event =
        format!("HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\ndata: {content}\n\ndata: {fields}\n\n");
    let refused = |body: &str| format!("HTTP/1.1 400 X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for answer in [refused(&fields), refused(&text), event] {
        let provider = Provider::answering(answer).await;
        let settings =
            format!("{{kind: openai, base_url: '{}', credentials: [{{id: a, api_key: {secret}}}]}}", provider.url());
        let weir = Config::new().provider("p", &settings).start().await;
        let mut answer = weir.chat().json(&weir_tests::ask::stream("p/m")).send().await;
        let id = answer.id();
        let (told, _) = answer.rest().await;
        let line = weir.logged(&id).await.to_string();
        assert!(told.contains("error") && !told.contains("verysec"), "{told}");
        assert!(!line.contains("verysec"), "{line}");
    }
}

#[tokio::test]
async fn a_failure_of_the_providers_is_a_502() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for directives in
            ["status=500", "status=503", "status=504", "status=529", "html", "malformed", "truncate", "cut=0"]
        {
            let answer = weir.chat().json(&chat(&format!("{model}~{directives}"))).send().await;
            assert_error(&weir, answer, &wanted(502, "provider_error", "provider_error")).await;
        }
        for directives in ["status=500", "status=529", "html", "cut=0", "end=0"] {
            let answer = weir.chat().json(&stream(&format!("{model}~{directives}"))).send().await;
            assert_error(&weir, answer, &wanted(502, "provider_error", "provider_error")).await;
        }
    }
}

#[tokio::test]
async fn a_4xx_of_the_providers_keeps_its_status_whatever_its_shape() {
    let shapes = [
        r#"{"error":{"message":"your request is odd","type":"invalid_request_error","param":"messages[0]","code":"odd"}}"#,
        r#"{"error":{"message":"your request is odd","code":17}}"#,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"your request is odd"},"request_id":"r"}"#,
        r#"{"object":"error","message":"your request is odd","type":"BadRequestError","code":400}"#,
        r#"{"error":"your request is odd"}"#,
        r#"{"message":"your request is odd"}"#,
        r#"{"detail":"your request is odd"}"#,
        "your request is odd",
        "<html><body>your request is odd</body></html>",
        "",
    ];
    let (provider, answer_with) = answering_what_it_is_told().await;
    let weir = Config::new()
        .openai("o", &provider.url())
        .provider(
            "a",
            &format!("{{kind: anthropic, base_url: '{}', credentials: [{{id: x, api_key: k}}]}}", provider.root()),
        )
        .start()
        .await;
    for status in [400, 404, 405, 408, 409, 413, 415, 422, 424, 451] {
        for shape in shapes {
            let length = shape.len();
            answer_with(format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{shape}"));
            for model in ["o/m", "a/claude-sonnet-4-6"] {
                for request in [chat(model), stream(model)] {
                    let answer = weir.chat().json(&request).header("x-weir-no-retry", "1").send().await;
                    assert_refused_as_it_was(answer, status, shape).await;
                }
            }
        }
    }
}

async fn assert_refused_as_it_was(answer: Answer, status: u16, shape: &str) {
    let kind = answer.header("x-weir-error");
    assert_eq!((answer.status.as_u16(), kind), (status, Some("provider_error")), "{shape}");
    let openai = answer.header("x-weir-provider") == Some("o");
    let error = answer.json().await["error"].clone();
    let message = error["message"].as_str().unwrap();
    assert!(message == "your request is odd" || shape.is_empty() || shape.starts_with('<'), "{error} for {shape}");
    assert!(error["code"].is_string() && error["type"].is_string(), "{error}");
    if shape.contains("messages[0]") && openai {
        assert_eq!((&error["code"], &error["param"]), (&json!("odd"), &json!("messages[0]")));
    }
}

/// A provider whose next answers are what the function was last given.
async fn answering_what_it_is_told() -> (Provider, impl Fn(String)) {
    let next = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&next);
    let provider = Provider::start(move |mut played| {
        let answer = told.lock().unwrap().clone();
        async move {
            played.write(&answer).await;
            played.close().await;
        }
    })
    .await;
    (provider, move |answer| *next.lock().unwrap() = answer)
}

#[tokio::test]
async fn a_hundred_bad_requests_and_impatient_callers_take_no_provider_down() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .model("{name: pair, targets: [{provider: openai, model: 'gpt-5.5~delay=20ms'}, {tier: 1, provider: claude, model: claude-sonnet-4-6}]}")
        .start()
        .await;
    let odd = with(chat("pair"), "temperature", json!("hot"));
    for _ in 0..50 {
        assert_eq!(weir.chat().json(&odd).send().await.status, 400);
        let late = weir.chat().json(&chat("pair")).header("x-weir-timeout-ms", "1").send().await;
        assert_eq!((late.status.as_u16(), late.header("x-weir-error")), (504, Some("provider_timeout")));
    }
    let next = weir.chat().json(&chat("pair")).send().await;
    assert_eq!(
        (next.status.as_u16(), next.header("x-weir-provider"), next.header("x-weir-attempts")),
        (200, Some("openai"), Some("1"))
    );
    assert!(simulator.account().rows.iter().all(|row| row.dialect == "openai"), "another provider was tried");
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_unreachable_and_its_address_is_not_told() {
    let (_reserved, closed) = port_that_nobody_listens_at();
    let weir = Config::new().openai("p", &format!("http://{closed}/v1")).start().await;
    for request in [chat("p/m"), stream("p/m")] {
        let answer = weir.chat().json(&request).send().await;
        let error = assert_error(&weir, answer, &wanted(502, "provider_unreachable", "provider_unreachable")).await;
        let text = error.to_string();
        assert!(!text.contains("127.0.0.1") && !text.contains(&closed.port().to_string()), "{text}");
    }
}

#[tokio::test]
async fn a_connection_that_is_not_accepted_in_time_is_a_504() {
    let listener = TcpSocket::new_v4().unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Once its backlog is full, the kernel answers no more.
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let weir = Config::new()
        .openai("p", &format!("http://{address}/v1"))
        .model("{name: m, targets: [{provider: p, model: m}], timeouts: {connect: 300ms}}")
        .start()
        .await;
    let answer = weir.chat().json(&chat("m")).send().await;
    let took = answer.head_at - answer.sent;
    assert!((290..1500).contains(&took.as_millis()), "{took:?}");
    assert_error(&weir, answer, &wanted(504, "provider_timeout", "provider_timeout")).await;
}

#[tokio::test]
async fn a_refusal_whose_body_never_ends_is_told_all_the_same() {
    let provider = Provider::start(|mut played| async move {
        played.write("HTTP/1.1 429 X\r\nretry-after: 3\r\ncontent-length: 100\r\n\r\n{").await;
        played.hold().await;
    })
    .await;
    let weir = Config::new().openai("p", &provider.url()).start().await;
    let answer = weir.chat().json(&chat("p/m")).send().await;
    assert_eq!(answer.header("retry-after"), Some("3"));
    assert_error(&weir, answer, &wanted(429, "provider_limit", "provider_rate_limited")).await;
    within("the connection to be given up", provider.left(1)).await;
}

#[tokio::test]
async fn every_answer_says_where_it_came_from() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .model("{name: alias, targets: [{provider: openai, model: 'gpt-5.5'}]}")
        .model("{name: failing, targets: [{provider: claude, model: 'claude-sonnet-4-6~status=400'}]}")
        .start()
        .await;
    let cases = [
        (chat("alias"), "alias", "openai", "openai-1"),
        (stream("alias"), "alias", "openai", "openai-1"),
        (chat("claude/claude-sonnet-4-6"), "claude/claude-sonnet-4-6", "claude", "claude-1"),
        (chat("failing"), "failing", "claude", "claude-1"),
        (stream("failing"), "failing", "claude", "claude-1"),
    ];
    for (request, model, provider, credential) in cases {
        let answer = weir.chat().json(&request).send().await;
        let told =
            ["x-weir-model", "x-weir-provider", "x-weir-credential", "x-weir-attempts"].map(|name| answer.header(name));
        assert_eq!(told, [Some(model), Some(provider), Some(credential), Some("1")]);
        assert!(answer.header("x-weir-overhead-us").unwrap().parse::<u64>().is_ok());
        assert!(answer.id().starts_with("req_"));
        let sent: Vec<_> =
            answer.headers.keys().filter(|name| answer.headers.get_all(*name).iter().count() > 1).collect();
        assert!(sent.is_empty(), "twice: {sent:?}");
        assert!(
            !answer
                .headers
                .keys()
                .any(|name| name.as_str().contains("ratelimit") || name.as_str().starts_with("openai-"))
        );
    }
}

#[tokio::test]
async fn the_callers_request_id_is_taken_over_when_it_is_a_sane_token() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let cases = [
        (weir.chat().json(&chat(MODELS[0])), 200),
        (weir.chat().json(&stream(MODELS[1])), 200),
        (weir.chat().json(&chat("no-such")), 404),
        (weir.chat().json(&chat(MODELS[0])).without("authorization"), 401),
        (weir.get("/v1/models"), 200),
        (weir.get("/healthz"), 200),
    ];
    let odd = "x".repeat(129);
    for (call, status) in cases {
        let answer = call.clone().header("x-request-id", "trace-7.a:b_C").send().await;
        assert_eq!((answer.status.as_u16(), answer.id().as_str()), (status, "trace-7.a:b_C"));
        for bad in ["a b", "a\"b", "", &odd, "a,b", "<x>"] {
            let id = call.clone().header("x-request-id", bad).send().await.id();
            assert!(id.starts_with("req_") && id.len() == 36, "{id} for {bad:?}");
        }
    }
    let ids: Vec<String> = [weir.get("/healthz").send().await.id(), weir.get("/healthz").send().await.id()].into();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn the_callers_own_time_limit_is_kept() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for request in [chat(&format!("{model}~delay=10s")), stream(&format!("{model}~delay=10s"))] {
            let answer = weir.chat().json(&request).header("x-weir-timeout-ms", "400").send().await;
            let took = answer.head_at - answer.sent;
            assert!((390..1000).contains(&took.as_millis()), "{took:?}");
            assert_error(&weir, answer, &wanted(504, "provider_timeout", "provider_timeout")).await;
        }
    }
}

#[tokio::test]
async fn a_redirect_of_the_providers_is_not_followed() {
    let elsewhere = Provider::json("{}").await;
    let provider = Provider::refusing(307, &format!("location: {}\r\n", elsewhere.url()), "").await;
    let weir = Config::new().openai("p", &provider.url()).start().await;
    let answer = weir.chat().json(&chat("p/m")).send().await;
    assert!(answer.header("location").is_none());
    assert_error(&weir, answer, &wanted(502, "provider_error", "provider_error")).await;
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn the_time_to_come_again_is_passed_on_from_an_overloaded_provider_too() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for request in
            [chat(&format!("{model}~status=529~retry_after=9")), stream(&format!("{model}~status=503~retry_after=9"))]
        {
            let answer = weir.chat().json(&request).send().await;
            assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (502, Some("9")));
        }
    }
}

#[tokio::test]
async fn an_address_that_tries_too_many_wrong_keys_is_refused_for_a_while_whatever_key_it_sends() {
    let simulator = simulator();
    let config = Config::of(&simulator).server("wrong_keys: 3");
    let weir = config.start().await;
    let ask = async |key: &str| weir.chat().json(&chat(MODELS[0])).header("authorization", key).send().await;
    let right = format!("Bearer {KEY}");
    assert_eq!(weir.chat().json(&chat(MODELS[0])).without("authorization").send().await.status, 401);
    for _ in 0..3 {
        assert_eq!(ask(&right).await.status, 200);
        assert_eq!(ask("Bearer guess").await.status, 401);
    }
    for key in ["Bearer guess", &right] {
        let answer = ask(key).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (429, Some("policy_limit")));
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=20).contains(&after), "{after}");
        assert_eq!(answer.json().await["error"]["code"], "rate_limit_exceeded");
    }
    // A request is counted a moment after its answer.
    let counted = async {
        while !weir.metrics().await.contains("weir_limit_rejections_total{scope=\"address\"} 2") {
            tokio::task::yield_now().await;
        }
    };
    within("both to be counted", counted).await;
}
