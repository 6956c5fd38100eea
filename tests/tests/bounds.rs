//! What one request may take from others, and what it may not escape: whoever asks oddly, is refused, leaves, or falls back,
//! leaves limits, budgets and credentials as they should be.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::ask::{chat, simulator, with};
use weir_tests::client::Answer;
use weir_tests::provider::Provider;
use weir_tests::weir::{Config, KEY_HASH, Weir};

/// A dollar for a thousand tokens of either kind.
const PRICED: &str = "pricing: {input: 1000, output: 1000}";

/// A model `m` of that price, and a tenant with these settings.
fn config(simulator: &Simulator, tenant: &str, key: &str) -> Config {
    Config::of(simulator)
        .model(&format!("{{name: m, targets: [{{provider: openai, model: gpt-5.5}}], {PRICED}}}"))
        .tenant(&format!("{{id: acme, {tenant} keys: [{{id: ci, hash: '{KEY_HASH}', {key}}}]}}"))
}

async fn ask(weir: &Weir, body: &Value) -> Answer {
    weir.chat().json(body).send().await
}

/// Its status and its error's word.
fn told(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status.as_u16(), answer.header("x-weir-error"))
}

/// The row of an answered request.
async fn row(weir: &Weir, id: &str) -> Value {
    let answer = weir.get(&format!("/v1/usage/{id}")).send().await;
    assert_eq!(answer.status.as_u16(), 200, "{id}");
    answer.json().await
}

#[tokio::test]
async fn a_request_that_its_provider_refused_takes_nothing_of_its_credentials_tokens() {
    let simulator = simulator();
    let credentials = "[{id: one, api_key: sk-1, tpm: 2m}]";
    let provider = format!("{{kind: openai, base_url: 'http://{}/v1', credentials: {credentials}}}", simulator.addr());
    let weir = config(&simulator, "", "").provider("pool", &provider).start().await;
    for status in [400, 500] {
        let greedy = with(chat(&format!("pool/gpt-5.5~status={status}")), "max_tokens", json!(1_000_000_000_000_u64));
        assert!(ask(&weir, &greedy).await.status.as_u16() >= 400);
        assert_eq!(told(&ask(&weir, &chat("pool/gpt-5.5")).await), (200, None), "after a {status}");
    }
}
