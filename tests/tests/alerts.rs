//! Webhooks of budgets that run low: signed, in order, once, tried again, and in nobody's way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::ask::{chat, simulator, with};
use weir_tests::patience::within;
use weir_tests::provider::{Played, Provider, Seen};
use weir_tests::weir::{Config, KEY_HASH, Weir};

/// 32 bytes.
const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A receiver that answers each post with the status that `status` has for its number.
async fn receiver(status: impl Fn(usize) -> u16 + Send + Sync + Copy + 'static) -> Provider {
    Provider::start(move |mut played: Played| async move {
        let status = status(played.number);
        played
            .write(&format!("HTTP/1.1 {status} X\r\nlocation: /\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
            .await;
        played.close().await;
    })
    .await
}

/// A budget of ten requests, each of 0.014 dollars, that is low at five.
fn config(simulator: &Simulator, receivers: &[&Provider]) -> Config {
    let webhook =
        |receiver: &&Provider| format!("{{url: '{}/hooks/weir?team=ml', secret: 'env:HOOK'}}", receiver.root());
    let webhooks = receivers.iter().map(webhook).collect::<Vec<_>>().join(", ");
    Config::of(simulator)
        .model("{name: m, targets: [{provider: openai, model: gpt-5.5}], pricing: {input: 1000, output: 1000}}")
        .tenant(&format!(
            "{{id: acme, budgets: [{{usd: 0.14, every: month, soft: 50%}}], keys: [{{id: ci, hash: '{KEY_HASH}'}}]}}"
        ))
        .section(&format!("observability: {{access_log: stdout, alerts: [{webhooks}]}}"))
        .env("HOOK", &format!("whsec_{SECRET}"))
}

/// Asks, one after the other, until the budget is spent.
async fn spend(weir: &Weir) {
    for _ in 0..20 {
        let answer = weir.chat().json(&with(chat("m"), "max_tokens", json!(8))).send().await;
        if answer.status == 429 {
            return;
        }
        let id = answer.id();
        answer.text().await;
        weir.logged(&id).await;
    }
}

fn event(seen: &Seen) -> Value {
    serde_json::from_str(&seen.body).unwrap()
}

fn is_signed(seen: &Seen) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).unwrap());
    let [id, second] = ["webhook-id", "webhook-timestamp"].map(|name| seen.header(name).unwrap());
    let tag = seen.header("webhook-signature").unwrap().strip_prefix("v1,").unwrap();
    let message = format!("{id}.{second}.{}", seen.body);
    hmac::verify(&key, message.as_bytes(), &STANDARD.decode(tag).unwrap()).is_ok()
}

#[tokio::test]
async fn a_budget_that_runs_low_and_then_out_is_told_twice_in_order_and_signed() {
    let (simulator, receiver) = (simulator(), receiver(|_| 204).await);
    let weir = config(&simulator, &[&receiver]).start().await;
    spend(&weir).await;
    within("both alerts", receiver.asked(2)).await;
    for _ in 0..3 {
        spend(&weir).await;
    }
    let seen = receiver.requests();
    assert!(seen.iter().all(is_signed));
    assert!(seen.iter().all(|seen| seen.head.starts_with("POST /hooks/weir?team=ml HTTP/1.1\r\n")));
    let events: Vec<_> = seen.iter().map(event).collect();
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["budget.soft", "budget.spent"]);
    let data = &events[0]["data"];
    assert_eq!((&data["account"], &data["tenant"]), (&json!("tenant/acme/usd/month"), &json!("acme")));
    assert_eq!((&data["key"], &data["limit_usd"], &data["used_usd"]), (&Value::Null, &json!(0.14), &json!(0.07)));
    assert_eq!((&data["share"], &data["window"]["every"]), (&json!(0.5), &json!("month")));
    assert_eq!(events[0]["id"], seen[0].header("webhook-id").unwrap());
    assert_ne!(events[0]["id"], events[1]["id"]);
    let metrics = weir.metrics().await;
    assert!(metrics.contains(r#"weir_budget_alerts_total{threshold="spent"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_receiver_that_fails_gets_the_same_event_again_and_the_next_after_it() {
    let (simulator, receiver) = (simulator(), receiver(|number| if number == 0 { 500 } else { 200 }).await);
    let weir = config(&simulator, &[&receiver]).start().await;
    spend(&weir).await;
    within("three posts", receiver.asked(3)).await;
    let seen = receiver.requests();
    assert!(seen.iter().all(is_signed));
    let types: Vec<_> = seen.iter().map(|seen| event(seen)["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types, ["budget.soft", "budget.soft", "budget.spent"]);
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
}

#[tokio::test]
async fn a_reload_tells_nothing_again_and_an_end_waits_for_what_is_under_way() {
    let simulator = simulator();
    let (slow, quick) = (receiver(|number| if number == 0 { 302 } else { 200 }).await, receiver(|_| 200).await);
    let settings = config(&simulator, &[&slow, &quick]);
    let mut weir = settings.start().await;
    spend(&weir).await;
    let more = settings.clone().model("{name: n, targets: [{provider: openai, model: gpt-5.5}]}");
    std::fs::write(weir.folder().join("weir.yaml"), more.yaml(weir.folder())).unwrap();
    weir.signal("HUP");
    while weir.chat().json(&chat("n")).send().await.status == 404 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(weir.chat().json(&chat("m")).send().await.status.as_u16(), 429);
    weir.signal("TERM");
    weir.ended().await;
    // A redirect is no answer, and the end lets no pause run out: both receivers have both events once it has come.
    let types = |seen: Vec<Seen>| seen.iter().map(|seen| event(seen)["type"].clone()).collect::<Vec<_>>();
    assert_eq!(types(quick.requests()), ["budget.soft", "budget.spent"]);
    assert_eq!(types(slow.requests()), ["budget.soft", "budget.soft", "budget.spent"]);
}
