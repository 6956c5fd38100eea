//! Two gateways and the Redis that they share, end to end: what their callers may use together, and what happens to them when
//! it freezes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use simulator::Simulator;
use tokio::task::JoinSet;
use weir_tests::ask::{chat, simulator, with};
use weir_tests::patience::within;
use weir_tests::redis::Redis;
use weir_tests::tls::Certificate;
use weir_tests::weir::{Config, KEY_HASH, Weir};

/// What one answer costs at the price below, in thousandths of a dollar: 6 tokens in, 8 out.
const COST: u64 = 14;

/// A gateway for a tenant with these settings, that shares them by way of the Redis at `url`.
fn config(simulator: &Simulator, url: &str, tenant: &str) -> Config {
    Config::of(simulator)
        .model("{name: m, targets: [{provider: openai, model: gpt-5.5}], pricing: {input: 1000, output: 1000}}")
        .tenant(&format!("{{id: acme, {tenant}, keys: [{{id: ci, hash: '{KEY_HASH}'}}]}}"))
        .store(&format!("redis: '{url}'"))
}

/// Asks each gateway `times` times at once; gives the statuses.
async fn ask_all(gateways: &[&Weir], times: usize) -> Vec<u16> {
    let mut asked = JoinSet::new();
    for weir in gateways.iter().cycle().take(gateways.len() * times) {
        let call = weir.chat().json(&with(chat("m"), "max_tokens", json!(8)));
        asked.spawn(async move {
            let answer = call.send().await;
            let status = answer.status.as_u16();
            answer.text().await;
            status
        });
    }
    asked.join_all().await
}

fn count(statuses: &[u16], wanted: u16) -> u64 {
    statuses.iter().filter(|status| **status == wanted).count().try_into().unwrap()
}

/// Waits until the gateway says whether it goes on without its store.
async fn degraded(weir: &Weir, wanted: u8) {
    let line = format!("weir_store_degraded {wanted}\n");
    within(&line, async {
        while !weir.metrics().await.contains(&line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Whether a machine that is too busy made Redis too slow for one of them: then half of a limit may be spent twice.
fn were_cut(gateways: &[&Weir]) -> bool {
    gateways.iter().any(|weir| weir.stderr().contains("redis is away"))
}

#[tokio::test]
async fn two_gateways_spend_one_budget() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "budgets: [{usd: 1, every: month}]");
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    let mut served = 0;
    for _ in 0..6 {
        let statuses = ask_all(&[&one, &two], 15).await;
        assert_eq!(count(&statuses, 200) + count(&statuses, 429), 30, "{statuses:?}");
        served += count(&statuses, 200);
    }
    let over = if were_cut(&[&one, &two]) { 500 } else { 0 };
    assert!(served * COST <= 1000 + over, "{served} were served");
    assert!(served * COST >= 700, "{served} were served");
}

#[tokio::test]
async fn two_gateways_keep_one_rate() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "limits: {rpm: 20}");
    let minute = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 60;
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    let began = minute();
    let statuses = ask_all(&[&one, &two], 20).await;
    let served = count(&statuses, 200);
    // A minute that began meanwhile has a limit of its own.
    let over = if were_cut(&[&one, &two]) { 10 } else { 0 };
    assert!(served <= (20 + over) * (1 + minute() - began), "{served}");
    assert!(served >= 18, "{served}");
}

#[tokio::test]
async fn a_frozen_redis_holds_no_request_up() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let weir = config(&simulator, &redis.url(), "limits: {rpm: 100k}, budgets: [{usd: 100, every: day}]").start().await;
    degraded(&weir, 0).await;
    assert_eq!(ask_all(&[&weir], 1).await, [200]);
    redis.freeze();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let asked = Instant::now();
        assert_eq!(ask_all(&[&weir], 1).await, [200]);
        slowest = slowest.max(asked.elapsed());
    }
    // A wait of 25 ms for each of the two, and the request itself on a busy machine.
    assert!(slowest < Duration::from_millis(250), "{slowest:?}");
    degraded(&weir, 1).await;
    assert_eq!(ask_all(&[&weir], 1).await, [200]);
    redis.thaw();
    degraded(&weir, 0).await;
    let stderr = weir.stderr();
    assert_eq!(stderr.matches("redis is away").count(), 1, "{stderr}");
}

#[tokio::test]
async fn a_gateway_that_is_to_reject_refuses_what_is_limited_while_redis_is_away() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "limits: {rpm: 100}").store("on_redis_loss: reject");
    let weir = config.start().await;
    degraded(&weir, 0).await;
    assert_eq!(ask_all(&[&weir], 1).await, [200]);
    redis.freeze();
    degraded(&weir, 1).await;
    let refused = weir.chat().json(&chat("m")).send().await;
    assert_eq!((refused.status.as_u16(), refused.header("x-weir-error")), (503, Some("gateway_fault")));
    assert_eq!(refused.json().await["error"]["code"], "store_unavailable");
    redis.thaw();
    degraded(&weir, 0).await;
    assert_eq!(ask_all(&[&weir], 1).await, [200]);
}

#[tokio::test]
async fn a_redis_with_tls_is_reached_when_its_certificate_is_trusted() {
    let (simulator, certificate) = (simulator(), Certificate::new());
    let (redis, url) = Redis::secure(&certificate);
    let trusted = std::env::temp_dir().join(format!("weir-trusted-{}.pem", std::process::id()));
    std::fs::write(&trusted, &certificate.certificate).unwrap();
    let config = config(&simulator, &url, "limits: {rpm: 100}").store("on_redis_loss: reject");
    let weir = config.clone().env("SSL_CERT_FILE", trusted.to_str().unwrap()).start().await;
    degraded(&weir, 0).await;
    assert_eq!(ask_all(&[&weir], 1).await, [200]);
    let stranger = config.start().await;
    degraded(&stranger, 1).await;
    assert!(redis.say("HLEN weir:{nodes}").starts_with(":1"), "only one was let in");
    std::fs::remove_file(trusted).unwrap();
}
