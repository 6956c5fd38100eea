//! What passes to a provider of OpenAI's dialect, byte for byte, and which headers go along.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use weir_tests::provider::{Provider, STREAM};
use weir_tests::raw::Raw;
use weir_tests::weir::{Config, KEY, Weir};

const REPLY: &str = r#"{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"content":"ok"}}],"usage":null}"#;

/// Odd in every way that JSON allows: order, blanks, escapes, numbers, unknown fields, deep names that are like ours.
const ODD: &str = "{ \"zeta\" :\t[1, 2.50, 1E+5, -0.0, 12345678901234567890123],\r\n \"messages\":[{\"content\":\"\\u00e9\\/\u{e9}\u{2028}\\ud83d\\ude00\",\"role\":\"user\",\"model\":\"inner\",\"stream\":true}], \"model\" : \"m\" ,\"x_unknown\":{\"b\":1,\"a\":{},\"model\":\"m\"},\"seed\":12345678901234567890123,\"\":null }";

async fn before(provider: &Provider) -> Weir {
    Config::new()
        .openai("p", &provider.url())
        .model("{name: m, targets: [{provider: p, model: m}]}")
        .model("{name: alias, targets: [{provider: p, model: real-name}]}")
        .start()
        .await
}

async fn passed(weir: &Weir, provider: &Provider, body: &str) -> String {
    let answer = weir.chat().body(body.to_owned()).send().await;
    assert_eq!(answer.status, 200, "{body}");
    provider.requests().pop().unwrap().body
}

#[tokio::test]
async fn a_request_reaches_the_provider_byte_for_byte() {
    let provider = Provider::json(REPLY).await;
    let weir = before(&provider).await;
    assert_eq!(passed(&weir, &provider, ODD).await, ODD);
}

#[tokio::test]
async fn through_an_alias_only_the_models_name_is_changed() {
    let provider = Provider::json(REPLY).await;
    let weir = before(&provider).await;
    let asked = ODD.replacen("\"model\" : \"m\"", "\"model\" : \"alias\"", 1);
    let wanted = ODD.replacen("\"model\" : \"m\"", "\"model\" : \"real-name\"", 1);
    assert_eq!(passed(&weir, &provider, &asked).await, wanted);
    let direct = ODD.replacen("\"model\" : \"m\"", "\"model\" : \"p/m\"", 1);
    assert_eq!(passed(&weir, &provider, &direct).await, ODD);
}

#[tokio::test]
async fn a_streams_request_is_changed_only_to_ask_for_usage() {
    let finish = weir_tests::ask::finish("m");
    let provider = Provider::answering(format!("{STREAM}data: {finish}\n\ndata: [DONE]\n\n")).await;
    let weir = before(&provider).await;
    let streamed = |options: &str| ODD.replacen("{ ", &format!("{{ \"stream\":true{options},"), 1);
    let asks = streamed(", \"stream_options\": {\"include_usage\" : true, \"x\":1.0}");
    assert_eq!(passed(&weir, &provider, &asks).await, asks);
    let not = streamed(", \"stream_options\": {\"include_obfuscation\" : false}");
    let sent = passed(&weir, &provider, &not).await;
    let json: Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(json["stream_options"], serde_json::json!({"include_usage": true, "include_obfuscation": false}));
    for options in ["", ", \"stream_options\":null"] {
        let sent = passed(&weir, &provider, &streamed(options)).await;
        assert!(sent.contains("\"include_usage\":true"), "{sent}");
        let rest = ODD.trim_start_matches("{ ");
        assert!(sent.contains(rest), "more was changed: {sent}");
    }
}

#[tokio::test]
async fn integers_of_any_length_reach_the_provider_as_they_are() {
    let provider = Provider::json(REPLY).await;
    let weir = before(&provider).await;
    for number in
        ["12345678901234567890123", "-98765432109876543210987", "1e400", "0.1000000000000000055511151231257827", "1.0"]
    {
        for model in ["m", "alias"] {
            let body = format!(r#"{{"model":"{model}","messages":[],"seed":{number},"deep":[{{"n":{number}}}]}}"#);
            let sent = passed(&weir, &provider, &body).await;
            assert_eq!(sent.matches(number).count(), 2, "{sent}");
        }
    }
}

#[tokio::test]
async fn integers_of_any_length_come_back_as_they_are() {
    let reply = r#"{"id":"x","object":"chat.completion","model":"real-name","choices":[{"index":0,"n":12345678901234567890123}],"usage":{"prompt_tokens":1,"completion_tokens":1,"odd":98765432109876543210987}}"#;
    let provider = Provider::json(reply).await;
    let weir = before(&provider).await;
    let answer = weir.chat().body(r#"{"model":"alias","messages":[]}"#).send().await;
    assert_eq!(
        answer.header("content-length"),
        Some((reply.len() - "real-name".len() + "alias".len()).to_string().as_str())
    );
    assert_eq!(answer.text().await, reply.replace("real-name", "alias"));
}

#[tokio::test]
async fn no_credential_and_no_header_of_the_callers_reaches_a_provider_but_those_on_the_list() {
    let provider = Provider::json(REPLY).await;
    let weir = before(&provider).await;
    let call = weir.chat().header("openai-beta", "assistants=v2").header("cookie", "a=b").header("x-api-key", KEY);
    let call = call.header("x-weir-tags", "t").header("x-forwarded-for", "10.0.0.1").header("user-agent", "curl/8");
    assert_eq!(call.header("te", "trailers").body(ODD).send().await.status, 200);
    let seen = provider.requests().pop().unwrap();
    assert_eq!(seen.header("authorization"), Some("Bearer sk-p"));
    assert_eq!(seen.header("openai-beta"), Some("assistants=v2"));
    assert!(!seen.head.contains(KEY), "{}", seen.head);
    for name in ["cookie", "x-api-key", "x-weir-tags", "x-forwarded-for", "te"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("content-length"), Some(ODD.len().to_string().as_str()));
}

#[tokio::test]
async fn a_header_is_passed_on_to_anthropic_as_to_openai() {
    let provider = Provider::json(r#"{"id":"x","type":"message","role":"assistant","content":[],"model":"m","stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#).await;
    let settings =
        format!("{{kind: anthropic, base_url: '{}', credentials: [{{id: a, api_key: sk-ant-1}}]}}", provider.root());
    let weir = Config::new().provider("a", &settings).start().await;
    let body = weir_tests::ask::chat("a/claude-sonnet-4-6");
    let answer = weir.chat().json(&body).header("anthropic-beta", "context-1m").header("x-api-key", KEY).send().await;
    assert_eq!(answer.status, 200);
    let seen = provider.requests().pop().unwrap();
    assert_eq!((seen.header("anthropic-beta"), seen.header("x-api-key")), (Some("context-1m"), Some("sk-ant-1")));
    assert!(seen.header("anthropic-version").is_some() && !seen.head.contains(KEY), "{}", seen.head);
}

#[tokio::test]
async fn all_lines_of_a_header_are_passed_on() {
    for (kind, name) in [("openai", "openai-beta"), ("anthropic", "anthropic-beta")] {
        let provider = Provider::refusing(400, "", "{}").await;
        let settings =
            format!("{{kind: {kind}, base_url: '{}', credentials: [{{id: a, api_key: k}}]}}", provider.url());
        let weir = Config::new().provider("p", &settings).start().await;
        let headers = format!("authorization: Bearer {KEY}\r\n{name}: one\r\n{name}: two\r\n");
        let body = weir_tests::ask::chat("p/claude-sonnet-4-6").to_string();
        let mut caller = Raw::connect(weir.api()).await;
        caller.post("/v1/chat/completions", &headers, body).await;
        assert_eq!(caller.answer().await.status, 400);
        let head = provider.requests().pop().unwrap().head.to_ascii_lowercase();
        let values = head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let values = values.collect::<Vec<_>>().join(",");
        assert!(values.contains("one") && values.contains("two"), "{kind}: {head}");
    }
}
