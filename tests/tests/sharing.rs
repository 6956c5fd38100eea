//! Several gateways and the Redis that they share, end to end: what their callers may use together, what each of them
//! tells of all, and what happens to them when it freezes, dies, forgets and is slow.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant, SystemTime};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use simulator::Simulator;
use tokio::task::JoinSet;
use weir_tests::ask::{chat, simulator, with};
use weir_tests::client::Call;
use weir_tests::patience::{PATIENCE, until, within};
use weir_tests::redis::Redis;
use weir_tests::tls::Certificate;
use weir_tests::weir::{Config, KEY, KEY_HASH, Weir};

/// What one answer costs at the price below, in thousandths of a dollar: 6 tokens in, 8 out.
const COST: u64 = 14;

/// So little is the end of a dollar: what a request holds at least, by the most that its input may come to.
const END: u64 = 6 * COST;

/// A gateway for a tenant with these settings, that shares them by way of the Redis at `url`.
fn config(simulator: &Simulator, url: &str, tenant: &str) -> Config {
    config_of(simulator, tenant).store(&format!("redis: '{url}'"))
}

/// The same without a Redis.
fn config_of(simulator: &Simulator, tenant: &str) -> Config {
    Config::of(simulator)
        .model("{name: m, targets: [{provider: openai, model: gpt-5.5}], pricing: {input: 1000, output: 1000}}")
        .tenant(&format!("{{id: acme, {tenant}, keys: [{{id: ci, hash: '{KEY_HASH}'}}]}}"))
}

/// Asks each gateway `times` times at once; gives the statuses.
async fn ask_all(gateways: &[&Weir], times: usize) -> Vec<u16> {
    ask_with(KEY, gateways, times).await
}

/// The same with another key.
async fn ask_with(key: &str, gateways: &[&Weir], times: usize) -> Vec<u16> {
    let mut asked = JoinSet::new();
    for weir in gateways.iter().cycle().take(gateways.len() * times) {
        let call = weir.chat().header("authorization", &format!("Bearer {key}"));
        let call = call.json(&with(chat("m"), "max_tokens", json!(8)));
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
    weir.measures(&[&format!("weir_store_degraded {wanted}")]).await;
}

/// Waits until the gateway knows of so many, itself included.
async fn sees(weir: &Weir, gateways: usize) {
    let remembered = weir.folder().join("data/nodes");
    assert!(until(|| std::fs::read_to_string(&remembered).is_ok_and(|nodes| nodes == format!("{gateways}\n"))).await);
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

/// What this gateway says that others used, hold and have in hand of the budget, in dollars.
async fn spent_elsewhere(weir: &Weir) -> f64 {
    let told = Call::new(weir.admin(), "GET", "/admin/v1/budgets").send().await.json().await;
    told["budgets"][0]["elsewhere_usd"].as_f64().unwrap()
}

#[tokio::test]
async fn a_budget_serves_at_each_gateway_until_it_is_spent_though_nobody_says_how_long_answers_may_be() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "budgets: [{usd: 1, every: month}]");
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    sees(&one, 2).await;
    // Each request holds all that is left, since so little is; the other waits for what it did not use.
    let both = [&one, &two];
    for (spent, weir) in (0..1000 - END).step_by(COST as usize).zip(both.into_iter().cycle()) {
        let status = weir.chat().json(&chat("m")).send().await.status.as_u16();
        assert!(status == 200 || were_cut(&both), "{status} after {spent}");
    }
}

#[tokio::test]
async fn requests_at_once_that_name_no_limit_are_served_by_three_gateways_as_by_one() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    // Each may come to four dollars, all of them to more than a half of it.
    let slow = "{name: slow, targets: [{provider: openai, model: 'gpt-5.5~delay=1s'}], \
                pricing: {input: 1000, output: 1000}}";
    let config = config(&simulator, &redis.url(), "budgets: [{usd: 60, every: month}]").model(slow);
    let gateways = [config.start().await, config.start().await, config.start().await];
    for weir in &gateways {
        degraded(weir, 0).await;
        sees(weir, 3).await;
    }
    let mut asked = JoinSet::new();
    for weir in gateways.iter().cycle().take(9) {
        let call = weir.chat().json(&chat("slow"));
        asked.spawn(async move { call.send().await.status.as_u16() });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(asked.join_all().await, [200; 9]);
}

#[tokio::test]
async fn what_a_large_request_held_and_did_not_use_is_there_for_the_other_gateway() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "limits: {tpm: 100k}");
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    // Each holds more than a half of it, one after the other; what the one before did not use comes back in the
    // background.
    for weir in [&one, &two].into_iter().cycle().take(20) {
        let call = weir.chat().json(&with(chat("m"), "max_tokens", json!(60_000)));
        let asked = Instant::now();
        while call.clone().send().await.status != 200 {
            assert!(asked.elapsed() < Duration::from_secs(2) || were_cut(&[&one, &two]), "{}", weir.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn what_a_killed_gateway_had_in_hand_is_spent_by_the_other() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "budgets: [{usd: 1, every: month}]");
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    let spent = count(&ask_all(&[&one], 20).await, 200) * COST;
    // It says what it has spent at its next beat.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let _gone = one.killed();
    let (mut own, since) = (0, Instant::now());
    while spent + own + END < 1000 && since.elapsed() < PATIENCE {
        own += count(&ask_all(&[&two], 1).await, 200) * COST;
    }
    let over = if were_cut(&[&two]) { 500 } else { 0 };
    assert!((1000 - END..=1000 + over).contains(&(spent + own)), "{spent} and {own}");
    let elsewhere = spent_elsewhere(&two).await;
    assert!((elsewhere * 1000.0 - spent as f64).abs() < 0.001, "{elsewhere}, though {spent} were spent");
}

#[tokio::test]
async fn a_gateway_that_was_frozen_for_long_does_not_spend_what_others_took_from_it() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "budgets: [{usd: 1, every: month}]");
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    let mut spent = count(&ask_all(&[&one], 3).await, 200) * COST;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    one.signal("STOP");
    let since = Instant::now();
    while spent + END < 1000 && since.elapsed() < PATIENCE {
        spent += count(&ask_all(&[&two], 1).await, 200) * COST;
    }
    assert!(spent + END >= 1000, "{spent}");
    one.signal("CONT");
    for _ in 0..10 {
        spent += count(&ask_all(&[&one], 2).await, 200) * COST;
    }
    // While it was still it missed answers: it may hold Redis for lost, and then has its share of what it last saw.
    let over = if were_cut(&[&one, &two]) { 500 } else { 0 };
    assert!(spent <= 1000 + over, "{spent}");
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
    // A wait of 40 ms for each of the two, and the request itself on a busy machine.
    assert!(slowest < Duration::from_millis(250), "{slowest:?}");
    degraded(&weir, 1).await;
    assert_eq!(ask_all(&[&weir], 1).await, [200]);
    redis.thaw();
    degraded(&weir, 0).await;
    let stderr = weir.stderr();
    assert_eq!(stderr.matches("redis is away").count(), 1, "{stderr}");
}

#[tokio::test]
async fn a_gateway_that_starts_while_redis_is_away_takes_its_share_and_no_more() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "budgets: [{usd: 1, every: month}]");
    let (one, two) = (config.start().await, config.start().await);
    sees(&one, 2).await;
    redis.freeze();
    let one = one.stopped_and_started(&config).await;
    degraded(&one, 1).await;
    let mut served = 0;
    for _ in 0..10 {
        served += count(&ask_all(&[&one], 8).await, 200);
    }
    assert!((300..=500).contains(&(served * COST)), "{served} were served");
    drop(two);
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

/// A gateway for a model with two targets, of which the first refuses the first request, and wants none for five
/// minutes.
fn config_that_cools(simulator: &Simulator, redis: &Redis) -> Config {
    let url = format!("http://{}/v1", simulator.addr());
    Config::new()
        .store(&format!("redis: '{}'", redis.url()))
        .provider("p", &format!("{{kind: openai, base_url: '{url}', credentials: [{{id: a, api_key: sk-a}}, {{id: b, api_key: sk-b}}]}}"))
        .model("{name: m, targets: [{provider: p, model: gpt-5.5~status=429~retry_after=300~times=1, credential: a}, {tier: 1, provider: p, model: gpt-5.5, credential: b}], retries: {max: 1}}")
        .section("health: {min_samples: 5}")
}

const COOLS: &str = "p/a/gpt-5.5~status=429~retry_after=300~times=1";

/// The credential that answered, and at which attempt.
async fn answered(weir: &Weir) -> (String, String) {
    let answer = weir.chat().json(&chat("m")).send().await;
    let told = |name| answer.header(name).unwrap_or_default().to_owned();
    (told("x-weir-credential"), told("x-weir-attempts"))
}

fn by(credential: &str, attempts: &str) -> (String, String) {
    (credential.to_owned(), attempts.to_owned())
}

/// Waits until the first target is in this state; gives how it is.
async fn first_is(weir: &Weir, state: &str) -> Value {
    let asking = async {
        loop {
            let page = Call::new(weir.admin(), "GET", "/admin/v1/targets").send().await.json().await;
            let targets = page["targets"].as_array().unwrap();
            let first = targets.iter().find(|target| target["id"] == COOLS).unwrap();
            if first["state"] == state {
                return first.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("the target to be {state}"), asking).await
}

async fn reset(weir: &Weir) {
    let path = format!("/admin/v1/targets/{COOLS}/reset");
    assert_eq!(Call::new(weir.admin(), "POST", &path).send().await.status, 200);
}

#[tokio::test]
async fn what_a_provider_says_of_a_credential_holds_at_every_gateway_until_it_is_over_or_reset() {
    let (simulator, redis) = (simulator(), Redis::with_access_list());
    let config = config_that_cools(&simulator, &redis);
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    assert_eq!(answered(&one).await, by("b", "2"));
    let (found, heard) = (first_is(&one, "cooling").await, first_is(&two, "cooling").await);
    assert_eq!((&found["elsewhere"], &heard["elsewhere"]), (&Value::Null, &json!(true)));
    assert_eq!(heard["reason"], "rate_limit");
    let until = |target: &Value| target["until"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    assert!(until(&found).abs_diff(until(&heard)) <= 1, "{found} {heard}");
    assert_eq!(answered(&two).await, by("b", "1"));
    let file = two.folder().join("weir.yaml");
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{written}\n# more\n")).unwrap();
    assert_eq!(Call::new(two.admin(), "POST", "/admin/v1/config/reload").send().await.status, 200);
    assert_eq!(answered(&two).await, by("b", "1"));
    let three = config.start().await;
    degraded(&three, 0).await;
    assert_eq!(answered(&three).await, by("b", "1"), "a gateway that starts knows it before it asks");
    reset(&three).await;
    for weir in [&one, &two] {
        first_is(weir, "ready").await;
        assert_eq!(answered(weir).await, by("a", "1"));
    }
}

#[tokio::test]
async fn while_redis_is_frozen_each_gateway_cools_by_itself_at_once_and_tells_it_later() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config_that_cools(&simulator, &redis);
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    redis.freeze();
    let asked = Instant::now();
    assert_eq!(answered(&one).await, by("b", "2"));
    for _ in 0..20 {
        assert_eq!(answered(&one).await, by("b", "1"));
    }
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    degraded(&two, 1).await;
    assert_eq!(first_is(&two, "ready").await["reason"], Value::Null);
    redis.thaw();
    first_is(&two, "cooling").await;
    assert_eq!(answered(&two).await, by("b", "1"));
}

/// What the gateway tells of all gateways' requests, as far as these were served.
async fn told(weir: &Weir, query: &str) -> Value {
    let path = format!("/admin/v1/usage?error=ok{query}");
    Call::new(weir.admin(), "GET", &path).send().await.json().await
}

/// Waits until the gateway tells of so many requests and says that this is all.
async fn tells_of(weir: &Weir, requests: u64) -> Value {
    let asking = async {
        loop {
            let told = told(weir, "").await;
            if told["complete"] == true && told["total"]["requests"] == requests {
                return told["total"].clone();
            }
            assert!(told["total"]["requests"].as_u64().unwrap() <= requests, "{told} of {requests}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(&format!("a gateway to tell of {requests} requests"), asking).await
}

#[tokio::test]
async fn each_gateway_tells_of_the_requests_of_all() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "limits: {rpm: 1m}");
    let gateways = [config.start().await, config.start().await, config.start().await];
    let mut ids = Vec::new();
    for (number, weir) in gateways.iter().enumerate() {
        for own in [format!("own-{number}"), "used by all".to_owned()] {
            let asked = weir.chat().header("x-request-id", &own).json(&chat("m")).send().await;
            ids.push(asked.id());
            asked.text().await;
        }
        let asked = weir.chat().json(&chat("m")).send().await;
        ids.push(asked.id());
        asked.text().await;
        // At once, and by another than served it.
        let other = &gateways[(number + 1) % 3];
        let row = other.get(&format!("/v1/usage/{}", ids.last().unwrap())).send().await;
        assert_eq!(
            (row.status.as_u16(), row.json().await["request_id"].as_str()),
            (200, Some(ids.last().unwrap().as_str()))
        );
    }
    let mut pages = Vec::new();
    for weir in &gateways {
        assert_eq!(tells_of(weir, 9).await["input_tokens"], simulator.account().input_tokens);
        let mut path = "/admin/v1/usage/rows?limit=2".to_owned();
        let mut rows = Vec::new();
        loop {
            let page = Call::new(weir.admin(), "GET", &path).send().await.json().await;
            assert_eq!(page["complete"], true);
            rows.extend(page["rows"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/admin/v1/usage/rows?limit=2&cursor={next}");
        }
        let lines = Call::new(weir.admin(), "GET", "/admin/v1/usage/rows?format=jsonl").send().await.text().await;
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, rows);
        for id in &ids {
            let path = format!("/admin/v1/usage/rows/{}", id.replace(' ', "%20"));
            assert_eq!(Call::new(weir.admin(), "GET", &path).send().await.json().await["request_id"], id.as_str());
        }
        assert_eq!(weir.get("/v1/usage/no-such-request").send().await.status, 404);
        pages.push(rows);
    }
    let mut told: Vec<_> = pages[0].iter().map(|row| row["request_id"].as_str().unwrap().to_owned()).collect();
    told.sort_unstable();
    ids.sort_unstable();
    assert_eq!(told, ids);
    assert!(pages.iter().all(|rows| *rows == pages[0]), "each tells the same, in the same order");
    // What a gateway that is gone has told stays.
    let [one, two, mut gone] = gateways;
    gone.signal("TERM");
    gone.ended().await;
    for weir in [&one, &two] {
        tells_of(weir, 9).await;
    }
    redis.freeze();
    let asked = Call::new(one.admin(), "GET", "/admin/v1/usage").send().await;
    assert_eq!(asked.header("x-weir-complete"), Some("false"));
    let own = asked.json().await;
    assert_eq!((&own["complete"], &own["total"]["requests"]), (&json!(false), &json!(3)));
    assert_eq!(one.get("/v1/usage/own-0").send().await.status, 200);
    assert_eq!(one.get("/v1/usage/own-1").send().await.status, 503, "nobody knows whether there is none");
    redis.thaw();
    tells_of(&one, 9).await;
}

/// Two gateways that share by way of this Redis: each answers for a request of the other, by its id and in its sums.
async fn each_answers_for_the_other(config: &Config) {
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    for (served, other) in [(&one, &two), (&two, &one)] {
        let asked = served.chat().json(&chat("m")).send().await;
        assert_eq!(asked.status, 200);
        let id = asked.id();
        asked.text().await;
        let told = other.get(&format!("/v1/usage/{id}")).send().await;
        assert_eq!(told.status, 200);
        assert_eq!(told.json().await["request_id"], id.as_str());
    }
    tells_of(&one, 2).await;
    tells_of(&two, 2).await;
}

#[tokio::test]
async fn ledgers_are_read_by_way_of_a_cluster() {
    let (simulator, redis) = (simulator(), Redis::cluster());
    let store = format!("redis: {{cluster: ['{}']}}", redis.url());
    each_answers_for_the_other(&config_of(&simulator, "limits: {rpm: 100}").store(&store)).await;
}

#[tokio::test]
async fn ledgers_are_read_by_way_of_sentinels() {
    let (simulator, master) = (simulator(), Redis::start(&["--requirepass", "open"]));
    let sentinel = Redis::sentinel(&master);
    let store = format!("redis: {{sentinel: {{master: weir, nodes: ['{}']}}, password: open}}", sentinel.url());
    each_answers_for_the_other(&config_of(&simulator, "limits: {rpm: 100}").store(&store)).await;
}

#[tokio::test]
async fn ledgers_are_read_by_tls_and_as_a_user_of_an_access_list() {
    let (simulator, certificate) = (simulator(), Certificate::new());
    let (_redis, url) = Redis::secure_with_access_list(&certificate);
    let trusted = std::env::temp_dir().join(format!("weir-trusted-user-{}.pem", std::process::id()));
    std::fs::write(&trusted, &certificate.certificate).unwrap();
    let store = format!("redis: {{url: '{url}', username: weir, password: open}}");
    let config = config_of(&simulator, "limits: {rpm: 100, concurrent: 10}").store(&store);
    each_answers_for_the_other(&config.env("SSL_CERT_FILE", trusted.to_str().unwrap())).await;
    std::fs::remove_file(trusted).unwrap();
}

#[tokio::test]
async fn a_gateway_that_has_just_started_does_not_take_an_emptied_redis_for_all_there_is() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "limits: {rpm: 100}");
    let one = config.start().await;
    one.chat().json(&chat("m")).send().await.text().await;
    tells_of(&one, 1).await;
    redis.empty();
    let new = config.start().await;
    let asking = async {
        loop {
            let told = told(&new, "").await;
            if told["complete"] == true {
                return told["total"]["requests"].clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(within("all that there is", asking).await, 1, "it was said to be all");
}

/// What can happen to a Redis.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Freezes,
    Dies,
    Forgets,
    IsSlow,
}

impl Fate {
    const ALL: [Self; 4] = [Self::Freezes, Self::Dies, Self::Forgets, Self::IsSlow];

    fn strike(self, redis: &mut Redis) {
        match self {
            Self::Freezes => redis.freeze(),
            Self::Dies => redis.kill(),
            Self::Forgets => redis.empty(),
            Self::IsSlow => redis.pause(Duration::from_millis(1500)),
        }
    }

    fn end(self, redis: &mut Redis) {
        match self {
            Self::Freezes => redis.thaw(),
            Self::Dies => redis.start_again(),
            Self::Forgets | Self::IsSlow => {}
        }
    }

    /// The tenant that spends a budget, and the one that has a rate, while this happens.
    fn keys(self) -> (String, String) {
        (format!("sk-spends-{self:?}"), format!("sk-hurries-{self:?}"))
    }

    /// Both tenants, with this budget and rate.
    fn tenants(self, config: Config) -> Config {
        let (spends, hurries) = self.keys();
        let hash = |key: &str| {
            digest(&SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let keys = |key: &str| format!("keys: [{{id: ci, hash: 'sha256:{}'}}]", hash(key));
        config
            .tenant(&format!("{{id: spends-{self:?}, budgets: [{{usd: 1, every: month}}], {}}}", keys(&spends)))
            .tenant(&format!("{{id: hurries-{self:?}, limits: {{rpm: {RPM}}}, {}}}", keys(&hurries)))
    }
}

/// The rate of a tenant that hurries.
const RPM: u64 = 40;

/// Asks each gateway so many times, one request after the other, and all gateways at once; gives how long each took.
async fn timed(gateways: &[&Weir], times: usize) -> Vec<Duration> {
    let mut asking = JoinSet::new();
    for weir in gateways {
        let call = weir.chat().json(&with(chat("m"), "max_tokens", json!(8)));
        asking.spawn(async move {
            let mut took = Vec::new();
            for _ in 0..times {
                let asked = Instant::now();
                let answer = call.clone().send().await;
                assert_eq!(answer.status, 200);
                answer.text().await;
                took.push(asked.elapsed());
            }
            took
        });
    }
    let mut took = asking.join_all().await.concat();
    took.sort_unstable();
    took
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() - 1 - sorted.len() / 100]
}

/// Asks the gateways while `fate` has its way with their Redis: they are as quick as one that has none, and overspend
/// no more than they may.
async fn suffer(fate: Fate, redis: &mut Redis, gateways: &[&Weir], alone: &Weir) {
    let minute = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 60;
    let ((spends, hurries), began) = (fate.keys(), minute());
    let (mut spent, mut hurried) = (Vec::new(), Vec::new());
    let mut use_some = async |times| {
        spent.extend(ask_with(&spends, gateways, times).await);
        hurried.extend(ask_with(&hurries, gateways, times).await);
    };
    use_some(2).await;
    // Each looks once a second at what the others claim.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    fate.strike(redis);
    let without = [alone; 4];
    let (shared, own) = tokio::join!(timed(gateways, 50), timed(&without, 50));
    assert!(
        p99(&shared) < p99(&own) + Duration::from_millis(50),
        "{fate:?}: {:?} beside {:?}",
        p99(&shared),
        p99(&own)
    );
    use_some(10).await;
    for weir in gateways {
        degraded(weir, 1).await;
    }
    use_some(10).await;
    fate.end(redis);
    for weir in gateways {
        degraded(weir, 0).await;
    }
    use_some(10).await;
    if matches!(fate, Fate::Dies | Fate::Forgets) {
        // For so long nobody believes that what another one claimed is free again.
        tokio::time::sleep(Duration::from_millis(6500)).await;
    }
    // Requests at once hold more than they use, the more so on a busy machine: the rest is spent one by one.
    for _ in 0..15 {
        for weir in gateways {
            spent.extend(ask_with(&spends, &[*weir], 1).await);
        }
    }
    // With all of N gateways cut off, the limit and (N - 1)/N of it.
    let dollars = count(&spent, 200) * COST;
    assert!((700..=1750).contains(&dollars), "{fate:?}: {dollars} thousandths of a dollar were spent of 1000");
    let most = (RPM + RPM * 3 / 4) * (1 + minute() - began);
    let served = count(&hurried, 200);
    assert!((RPM / 2..=most).contains(&served), "{fate:?}: {served} were served of {RPM} a minute");
    eprintln!(
        "{fate:?}: p99 {:?}, {:?} without Redis; {dollars} of 1000 spent, {served} of {RPM} served",
        p99(&shared),
        p99(&own)
    );
}

/// Waits until the tenant's budget has this limit at a gateway.
async fn limit_is(weir: &Weir, wanted: f64) {
    let told = async {
        loop {
            let told = Call::new(weir.admin(), "GET", "/admin/v1/budgets").send().await.json().await;
            if told["budgets"][0]["limit_usd"].as_f64() == Some(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("a limit of {wanted} dollars"), told).await;
}

async fn raise(weir: &Weir, method: &str, terms: &Value) -> u16 {
    let path = "/admin/v1/budgets/tenant/acme/usd/month/raise";
    Call::new(weir.admin(), method, path).json(terms).send().await.status.as_u16()
}

#[tokio::test]
async fn a_raised_limit_holds_at_every_gateway_until_one_ends_it() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis.url(), "budgets: [{usd: 1, every: month}]");
    let (one, two) = (config.start().await, config.start().await);
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    let of = |usd: i64| json!({"usd": usd, "until": "2999-01-01T00:00:00Z"});
    assert_eq!(raise(&one, "PUT", &of(5)).await, 200);
    limit_is(&two, 5.0).await;
    let one = one.killed_and_started(&config).await;
    limit_is(&one, 5.0).await;
    redis.empty();
    let three = config.start().await;
    limit_is(&three, 5.0).await;
    assert_eq!(raise(&three, "PUT", &of(6)).await, 200);
    limit_is(&one, 6.0).await;
    limit_is(&two, 6.0).await;
    redis.freeze();
    degraded(&two, 1).await;
    assert_eq!(raise(&two, "DELETE", &json!({})).await, 200);
    limit_is(&two, 1.0).await;
    limit_is(&one, 6.0).await;
    redis.thaw();
    limit_is(&one, 1.0).await;
    limit_is(&three, 1.0).await;
    assert_eq!(raise(&one, "DELETE", &json!({})).await, 404);
    let one = one.stopped_and_started(&config).await;
    limit_is(&one, 1.0).await;
}

/// What all gateways together counted of the tenants' budgets, in dollars.
async fn counted(gateways: &[&Weir]) -> f64 {
    let mut used = 0.0;
    for weir in gateways {
        let told = Call::new(weir.admin(), "GET", "/admin/v1/budgets").send().await.json().await;
        used +=
            told["budgets"].as_array().unwrap().iter().map(|budget| budget["used_usd"].as_f64().unwrap()).sum::<f64>();
    }
    used
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_redis_four_gateways_serve_on_keep_their_bounds_and_tell_of_all_that_was_served() {
    let (simulator, others) = (simulator(), simulator());
    let no_scripts = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-@scripting"];
    let mut redis = Redis::start(&no_scripts);
    let plenty = "limits: {rpm: 1m}, budgets: [{usd: 1000, every: month}]";
    let shared =
        Fate::ALL.into_iter().fold(config(&simulator, &redis.url(), plenty), |config, fate| fate.tenants(config));
    let four = [shared.start().await, shared.start().await, shared.start().await, shared.start().await];
    let gateways: Vec<&Weir> = four.iter().collect();
    let alone = config_of(&others, plenty).start().await;
    for weir in &gateways {
        degraded(weir, 0).await;
    }
    timed(&gateways, 20).await;
    for fate in Fate::ALL {
        suffer(fate, &mut redis, &gateways, &alone).await;
    }
    assert_eq!(redis.say("EVAL 'return 1' 0").get(..7), Some("-NOPERM"), "scripts were allowed");
    let served = simulator.account();
    for weir in &gateways {
        let told = tells_of(weir, served.requests).await;
        assert_eq!(told["input_tokens"], served.input_tokens);
        assert_eq!(told["output_tokens"], served.output_tokens);
    }
    let by_tenant = told(gateways[0], "&by=tenant").await;
    let with_budget = |group: &&Value| !group["tenant"].as_str().unwrap().starts_with("hurries");
    let groups = by_tenant["groups"].as_array().unwrap().iter().filter(with_budget);
    let charged: f64 = groups.map(|group| group["cost_usd"].as_f64().unwrap()).sum();
    let counted = counted(&gateways).await;
    assert!((charged - counted).abs() < 1e-9, "{charged} dollars in the ledgers, {counted} in the counters");
    for weir in &gateways {
        let stderr = weir.stderr();
        let (lost, found) = (stderr.matches("redis is away").count(), stderr.matches("redis is reached").count());
        // A machine that is busy may make Redis too slow once more.
        assert!((Fate::ALL.len()..Fate::ALL.len() + 3).contains(&lost) && found == lost + 1, "{stderr}");
        let told = stderr.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
        let told = told.filter(|line| !line.contains("a budget has come to a threshold")).count();
        assert_eq!(told, lost, "{stderr}");
    }
}
