//! What one request may take from others, and what it may not escape: whoever asks oddly, is refused, leaves, or falls back,
//! leaves limits, budgets and credentials as they should be.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

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

/// A tenant whose model `q` has one slot, which is waited for, and a provider that lets nobody go.
async fn crowded(simulator: &Simulator) -> (Weir, Provider) {
    let held = Provider::start(|played| played.hold()).await;
    let weir = config(simulator, "limits: {per_model: {q: {concurrent: 1}}},", "")
        .openai("held", &held.url())
        .model("{name: q, targets: [{provider: held, model: x}], on_busy: {queue: 5s}}")
        .start()
        .await;
    (weir, held)
}

#[tokio::test]
async fn who_waits_for_a_models_slot_waits_no_longer_than_its_own_clock_and_is_not_sent_then() {
    let simulator = simulator();
    let (weir, held) = crowded(&simulator).await;
    let first = weir.chat().json(&chat("q")).begin().await;
    held.asked(1).await;
    let since = Instant::now();
    let late = weir.chat().header("x-weir-timeout-ms", "300").json(&chat("q")).send().await;
    assert_eq!(told(&late), (504, Some("provider_timeout")));
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    let row = row(&weir, &late.id()).await;
    assert_eq!((&row["attempts"], &row["usage"]["input_tokens"]), (&json!([]), &json!(0)), "{row}");
    first.leave();
    assert_eq!(held.requests().len(), 1);
}

#[tokio::test]
async fn who_leaves_while_it_waits_for_a_models_slot_is_not_sent() {
    let simulator = simulator();
    let (weir, held) = crowded(&simulator).await;
    let first = weir.chat().json(&chat("q")).begin().await;
    held.asked(1).await;
    let waiting = weir.chat().header("x-request-id", "left").json(&chat("q")).begin().await;
    // Nothing tells when it waits; should it leave before, it is not sent all the same.
    tokio::time::sleep(Duration::from_millis(200)).await;
    waiting.leave();
    assert_eq!(weir.logged("left").await["status"], 499);
    first.leave();
    held.left(1).await;
    let next = weir.chat().json(&chat("q")).begin().await;
    held.asked(2).await;
    next.leave();
    held.left(2).await;
    assert_eq!(held.requests().len(), 2);
}

/// A tenant, with a model `m` at one target and a model `w/*` at any of another provider's, both of which have a price.
fn named_twice(simulator: &Simulator, tenant: &str) -> Config {
    config(simulator, tenant, "")
        .openai("other", &format!("http://{}/v1", simulator.addr()))
        .model(&format!("{{name: 'w/*', targets: [{{provider: other, model: '*'}}], {PRICED}}}"))
}

#[tokio::test]
async fn a_target_costs_under_its_providers_name_what_it_costs_under_its_models() {
    let simulator = simulator();
    let weir = named_twice(&simulator, "budgets: [{usd: 50, every: day}],")
        .model("{name: cheap, targets: [{provider: openai, model: gpt-5.5}], pricing: {input: 1, output: 1}}")
        .start()
        .await;
    for name in ["m", "openai/gpt-5.5", "w/gpt-5.5", "other/gpt-5.5"] {
        assert_eq!(ask(&weir, &chat(name)).await.header("x-weir-cost-usd"), Some("0.014"), "{name}");
    }
    assert_ne!(ask(&weir, &chat("openai/gpt-5.5-mini")).await.header("x-weir-cost-usd"), Some("0.014"));
}

#[tokio::test]
async fn a_model_that_is_disabled_is_not_to_be_had_by_its_providers_name() {
    let simulator = simulator();
    let second = "{name: second, targets: [{provider: openai, model: gpt-5.5}]}";
    for (disabled, name, status) in [
        ("m", "openai/gpt-5.5", 403),
        ("m", "openai/gpt-5.5-mini", 200),
        ("w/*", "other/gpt-5.5", 403),
        ("w/gpt-5.5", "other/gpt-5.5", 403),
        ("w/gpt-5.5", "other/gpt-5.5-mini", 200),
    ] {
        let weir = named_twice(&simulator, &format!("disabled_models: ['{disabled}'],")).start().await;
        let answer = ask(&weir, &chat(name)).await;
        assert_eq!(answer.status.as_u16(), status, "{name} without {disabled}");
        assert_eq!(weir.get(&format!("/v1/models/{name}")).send().await.status.as_u16(), status, "{name}");
    }
    let weir = named_twice(&simulator, "disabled_models: [m],").model(second).start().await;
    assert_eq!(ask(&weir, &chat("openai/gpt-5.5")).await.status.as_u16(), 200, "another model goes there too");
}

#[tokio::test]
async fn a_limit_of_a_model_holds_under_each_of_its_names() {
    let simulator = simulator();
    for (limited, names) in [
        ("m", ["m", "openai/gpt-5.5"]),
        ("w/*", ["w/gpt-5.5", "other/gpt-5.5-mini"]),
        ("w/gpt-5.5", ["w/gpt-5.5", "other/gpt-5.5"]),
        ("other/gpt-5.5", ["other/gpt-5.5", "other/gpt-5.5"]),
        ("other/*", ["other/gpt-5.5", "other/gpt-5.5-mini"]),
    ] {
        let limit = format!("limits: {{per_model: {{'{limited}': {{rpm: 1}}, 'w/*': {{rpm: 9}}}}}},");
        let limit = if limited == "w/*" { "limits: {per_model: {'w/*': {rpm: 1}}},".to_owned() } else { limit };
        let weir = named_twice(&simulator, &limit).start().await;
        assert_eq!(told(&ask(&weir, &chat(names[0])).await), (200, None), "{limited}");
        assert_eq!(told(&ask(&weir, &chat(names[1])).await), (429, Some("policy_limit")), "{limited}");
    }
}
