//! Many clients, many names: what a thousand of either do to the others, to memory, and to the metrics.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::patience::until;
use weir_tests::process::memory;
use weir_tests::raw::{Probing, Raw};
use weir_tests::weir::{Config, KEY, Weir};

const MIB: u64 = 1024;

fn simulator() -> Simulator {
    simulator::start(simulator::Config::default()).unwrap()
}

fn key() -> String {
    format!("authorization: Bearer {KEY}\r\n")
}

fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "one two three"}]})
}

/// The clients of a test and its simulator are one process.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Opens that many streams, a few at a time, and waits until each has begun.
async fn open(weir: &Weir, count: usize) -> Vec<Raw> {
    let body = chat("openai/gpt-5.5~events=100~gap=1s", true).to_string();
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let mut batch = Vec::new();
        for _ in 0..50.min(count - streams.len()) {
            let mut raw = Raw::connect(weir.api()).await;
            raw.post("/v1/chat/completions", &key(), &body).await;
            batch.push(raw);
        }
        for raw in &mut batch {
            assert!(raw.head().await.unwrap().starts_with("http/1.1 200 "));
        }
        streams.append(&mut batch);
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_that_leave_at_once_leave_nothing_behind() {
    raise_file_limit();
    let simulator = simulator::start(simulator::Config { threads: 1, ..simulator::Config::default() }).unwrap();
    let weir = Config::of(&simulator).start().await;
    // What the first round needs for good, such as pools and metrics, is not what is looked for.
    drop(open(&weir, 50).await);
    simulator.until(|account| account.in_flight == 0).await;
    let before = memory(weir.pid());
    let mut after = Vec::new();
    for round in 0..3 {
        let streams = open(&weir, 1000).await;
        let held = memory(weir.pid());
        assert!(held.files > before.files + 1900, "{held:?}");
        let each = (held.now.saturating_sub(before.now)) / 1000;
        assert!(each < 160, "{each} KiB for each stream of a debug build");
        let probing = Probing::begin(weir.api(), "/readyz");
        drop(streams);
        simulator.until(|account| account.in_flight == 0).await;
        assert!(until(|| memory(weir.pid()).files < before.files + 50).await, "{:?}", memory(weir.pid()));
        let times = probing.end();
        let p99 = times[times.len() * 99 / 100];
        assert!(p99 < Duration::from_millis(500), "round {round}: {times:?}");
        after.push(memory(weir.pid()).now);
    }
    // The allocator keeps some of what the first round took; the next rounds live on that.
    assert!(after[2] < after[0] + 16 * MIB && after[2] < before.now + 64 * MIB, "{before:?} {after:?}");
    assert!(until(|| weir.log().iter().filter(|line| line["error"] == "caller_gone").count() == 3050).await);
    assert!(weir.metrics().await.contains("\nweir_in_flight 0\n"));
    let said = weir.stderr();
    assert!(!said.contains("panicked"), "{said}");
}

/// The samples of a page by family, once it is sure that the page is well-formed.
fn families(page: &str) -> BTreeMap<String, Vec<String>> {
    let mut families = BTreeMap::<String, Vec<String>>::new();
    let mut kinds = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, text) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(what == "HELP" || ["counter", "gauge", "histogram"].contains(&text), "{line}");
            if what == "TYPE" {
                assert!(kinds.insert(name.to_owned(), text.to_owned()).is_none(), "{name} twice");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(series.to_owned()), "{series} twice");
        let name = series.split('{').next().unwrap();
        let of = |suffix: &str| {
            name.strip_suffix(suffix).filter(|base| kinds.get(*base).is_some_and(|kind| kind == "histogram"))
        };
        let family = ["_bucket", "_sum", "_count"].into_iter().find_map(of).unwrap_or(name);
        assert!(kinds.contains_key(family), "{line} without a type");
        if let Some(labels) = series.strip_prefix(name).unwrap().strip_prefix('{') {
            let unescaped = labels.replace(r"\\", "").replace(r#"\""#, "");
            assert!(labels.ends_with("\"}") && unescaped.matches('"').count() % 2 == 0, "{line}");
        }
        families.entry(family.to_owned()).or_default().push(series.to_owned());
    }
    families
}

#[tokio::test]
async fn every_family_whose_cause_exists_is_on_the_page_and_the_page_parses() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .model(r#"{name: "na\"me{with}\\odd", targets: [{provider: openai, model: gpt-5.5}]}"#)
        .start()
        .await;
    for stream in [false, true] {
        for model in ["openai/gpt-5.5~events=20", "claude/claude-sonnet-4-6", "na\"me{with}\\odd"] {
            assert_eq!(weir.chat().json(&chat(model, stream)).send().await.status, 200, "{model}");
        }
    }
    assert_eq!(weir.chat().json(&chat("openai/gpt-5.5~status=400", false)).send().await.status, 400);
    let embeddings = json!({"model": "openai/text-embedding-3-small", "input": "one two"});
    assert_eq!(weir.post("/v1/embeddings").json(&embeddings).send().await.status, 200);
    assert_eq!(weir.chat().header("authorization", "Bearer no").json(&chat("x", false)).send().await.status, 401);
    // A request is counted when it has ended, a moment after its answer.
    assert!(until(|| weir.log().len() >= 9).await);
    let families = families(&weir.metrics().await);
    for name in [
        "gen_ai_client_token_usage",
        "gen_ai_server_request_duration_seconds",
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai_server_time_per_output_token_seconds",
        "weir_requests_total",
        "weir_overhead_seconds",
        "weir_in_flight",
        "weir_attempts_total",
        "weir_tokens_total",
        "weir_config_generation",
        "weir_config_info",
        "weir_config_reload_failures_total",
        "weir_access_log_dropped_total",
    ] {
        assert!(families.contains_key(name), "{name} is missing: {:?}", families.keys());
    }
    let labelled = |family: &str, wanted: &str| families[family].iter().any(|series| series.contains(wanted));
    assert!(labelled("gen_ai_server_request_duration_seconds", r#"gen_ai_operation_name="chat""#));
    assert!(labelled("gen_ai_server_request_duration_seconds", r#"gen_ai_provider_name="claude""#));
    assert!(labelled("gen_ai_server_request_duration_seconds", r#"error_type="provider_error""#));
    assert!(labelled("weir_requests_total", r#"error="caller_auth""#));
    assert!(labelled("weir_tokens_total", r#"kind="output""#));
}

/// The number of series, once all requests so far are counted.
async fn series(weir: &Weir, requests: usize) -> usize {
    assert!(until(|| weir.log().len() >= requests).await, "{} of {requests}", weir.log().len());
    families(&weir.metrics().await).values().map(Vec::len).sum()
}

#[tokio::test]
async fn ten_thousand_names_that_callers_made_up_leave_the_number_of_series_bounded() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .model("{name: one, targets: [{provider: openai, model: gpt-5.5}]}")
        .model("{name: 'wild/*', targets: [{provider: openai, model: '*'}]}")
        .start()
        .await;
    let mut raw = Raw::connect(weir.api()).await;
    let mut sent = 0;
    let mut counted = Vec::new();
    for (from, to) in [(0, 200), (200, 10_000)] {
        for number in from..to {
            let (model, status) = match number % 20 {
                0 => ("one".to_owned(), 200),
                1 => (format!("wild/made-up-{number}"), 200),
                2 => (format!("openai/made-up-{number}"), 200),
                3 => (format!("nobody/made-up-{number}"), 404),
                4 => ("\u{1F4A9}\"}\n".repeat(number % 7 + 1), 404),
                _ => (format!("made-up-{number}"), 404),
            };
            let mut body = chat(&model, false);
            body["user"] = json!(format!("user-{number}"));
            let headers = format!("{}user-agent: agent-{number}\r\nx-weir-tags: tag-{number}\r\n", key());
            let path =
                if number % 50 == 7 { format!("/v1/made-up/{number}") } else { "/v1/chat/completions".to_owned() };
            raw.post(&path, &headers, body.to_string()).await;
            let answer = raw.answer().await;
            let wanted = if path.contains("made-up") { 404 } else { status };
            assert_eq!(answer.status, wanted, "{path} {model}: {}", String::from_utf8_lossy(&answer.body));
            sent += 1;
        }
        counted.push(series(&weir, sent).await);
    }
    assert_eq!(counted[0], counted[1], "{counted:?}");
    let page = weir.metrics().await;
    for made_up in ["made-up", "user-1", "agent-", "tag-", "127.0.0.1", "\u{1F4A9}"] {
        assert!(!page.contains(made_up), "{made_up} in\n{page}");
    }
    assert!(page.contains(r#"model="other""#) && page.contains(r#"model="wild/*""#), "{page}");
}
