//! What a model makes of its requests' parameters, over real sockets: the bytes that a provider gets, and what the
//! caller is told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use weir_tests::ask::{chat, simulator, stream, with};
use weir_tests::client::Answer;
use weir_tests::provider::Provider;
use weir_tests::weir::{Config, Weir};

const ANSWER: &str = r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

/// A model `m` at `provider` with these parameters, and one without any.
async fn weir(provider: &Provider, params: &str) -> Weir {
    let target = "targets: [{provider: p, model: m}]";
    Config::new()
        .openai("p", &provider.url())
        .model(&format!("{{name: m, {target}, params: {params}}}"))
        .model(&format!("{{name: e, type: text-embedding, {target}, params: {params}}}"))
        .start()
        .await
}

/// What the provider gets of `body`, and the names that the caller is told.
async fn sent(params: &str, body: &str) -> (String, String) {
    let provider = Provider::json(ANSWER).await;
    let weir = weir(&provider, params).await;
    let answer = weir.chat().body(body.to_owned()).send().await;
    assert_eq!(answer.status, 200);
    (provider.requests()[0].body.clone(), answer.header("x-weir-dropped-params").unwrap_or_default().to_owned())
}

async fn error(answer: Answer) -> (u16, Value) {
    let status = answer.status.as_u16();
    assert_eq!(answer.header("x-weir-error"), Some("caller_request"));
    (status, answer.json().await["error"].clone())
}

#[tokio::test]
async fn only_the_named_fields_change_and_all_other_bytes_stay() {
    let body = "{ \"seed\" : 12345678901234567890123,\n \"model\":\"m\", \"temperature\":1.75 ,\"messages\":[ ],\"user\":\"u\" }";
    assert_eq!(sent("{}", body).await, (body.to_owned(), String::new()));
    let params = "{unsupported: clamp, defaults: {top_p: 0.5}, override: {user: null}, rules: [{name: temperature}]}";
    let want =
        "{ \"top_p\":0.5,\"seed\" : 12345678901234567890123,\n \"model\":\"m\", \"temperature\":1 ,\"messages\":[ ] }";
    assert_eq!(sent(params, body).await, (want.to_owned(), "user,temperature=1".to_owned()));
}

#[tokio::test]
async fn a_value_that_is_not_allowed_is_refused_with_what_is() {
    let provider = Provider::json(ANSWER).await;
    let params = "{unsupported: reject, rules: [{name: temperature}, {name: dimensions, type: int, max: 512, required: true, default: 64}]}";
    let weir = weir(&provider, params).await;
    for request in [with(chat("m"), "temperature", json!(1.5)), with(stream("m"), "temperature", json!(1.5))] {
        let (status, error) = error(weir.chat().json(&request).send().await).await;
        assert_eq!((status, &error["param"], &error["code"]), (400, &json!("temperature"), &json!("invalid_request")));
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains("a number from 0 to 1"), "{error}");
    }
    let embed = |dimensions: u64| json!({"model": "e", "input": "x", "dimensions": dimensions});
    let (status, error) = error(weir.post("/v1/embeddings").json(&embed(1024)).send().await).await;
    assert_eq!((status, &error["param"]), (400, &json!("dimensions")));
    assert_eq!(provider.requests().len(), 0);
}

#[tokio::test]
async fn a_parameter_that_a_dialect_drops_is_refused_where_the_model_says_so() {
    let simulator = simulator();
    let claude = "{provider: claude, model: claude-sonnet-4-6}";
    let weir = Config::of(&simulator)
        .model(&format!("{{name: drops, targets: [{claude}]}}"))
        .model(&format!("{{name: rejects, targets: [{claude}], params: {{unsupported: reject}}}}"))
        .model(&format!("{{name: own, targets: [{claude}], params: {{unsupported: reject, defaults: {{seed: 7, temperature: 1.7}}}}}}"))
        .model(&format!("{{name: both, targets: [{claude}, {{tier: 1, provider: openai, model: gpt-5.5}}], params: {{unsupported: reject}}}}"))
        .start()
        .await;
    let request = |model| with(chat(model), "seed", json!(7));
    let answer = weir.chat().json(&request("drops")).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-dropped-params")), (200, Some("seed")));
    let answer = weir.chat().json(&with(request("drops"), "temperature", json!(1.7))).send().await;
    assert_eq!(answer.header("x-weir-dropped-params"), Some("temperature=1,seed"));
    let (status, error) = error(weir.chat().json(&request("rejects")).send().await).await;
    assert_eq!((status, &error["param"], &error["code"]), (400, &json!("seed"), &json!("unsupported_parameter")));
    let answer = weir.chat().json(&request("both")).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-provider")), (200, Some("openai")));
    assert_eq!(weir.chat().json(&chat("rejects")).send().await.status, 200);
    let answer = weir.chat().json(&chat("own")).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-dropped-params")), (200, None));
}

#[tokio::test]
async fn a_default_of_the_answers_length_counts_where_a_budget_holds_it() {
    let provider = Provider::json(ANSWER).await;
    let weir = weir(&provider, "{unsupported: clamp, rules: [{name: max_tokens, max: 100, default: 50}]}").await;
    for (request, want) in [
        (chat("m"), json!({"max_tokens": 50})),
        (with(chat("m"), "max_completion_tokens", json!(4000)), json!({"max_completion_tokens": 100})),
    ] {
        assert_eq!(weir.chat().json(&request).send().await.status, 200);
        let body: Value = serde_json::from_str(&provider.requests().last().unwrap().body).unwrap();
        for name in ["max_tokens", "max_completion_tokens"] {
            assert_eq!(body[name], want[name], "{body}");
        }
    }
}
