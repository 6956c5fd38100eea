//! One target after another: what is tried elsewhere, what is not, and when it is too late.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::ask::{chat, chunk, simulator, stream};
use weir_tests::client::{Answer, End, Event};
use weir_tests::patience::within;
use weir_tests::provider::{Provider, STREAM, port_that_nobody_listens_at};
use weir_tests::weir::{Config, Weir};

/// A model `m` whose first target is the simulator's with these directives, and whose second is a healthy one of the
/// other dialect.
fn pair(simulator: &Simulator, first: Dialect, directives: &str, settings: &str) -> Config {
    let (one, other) = match first {
        Dialect::OpenAi => (("openai", "gpt-5.5"), ("claude", "claude-sonnet-4-6")),
        Dialect::Anthropic => (("claude", "claude-sonnet-4-6"), ("openai", "gpt-5.5")),
    };
    Config::of(simulator).model(&format!(
        "{{name: m, targets: [{{provider: {}, model: '{}~{directives}'}}, {{tier: 1, provider: {}, model: {}}}]{settings}}}",
        one.0, one.1, other.0, other.1
    ))
}

#[derive(Clone, Copy, Debug)]
enum Dialect {
    OpenAi,
    Anthropic,
}

const DIALECTS: [Dialect; 2] = [Dialect::OpenAi, Dialect::Anthropic];

fn other(first: Dialect) -> &'static str {
    match first {
        Dialect::OpenAi => "claude",
        Dialect::Anthropic => "openai",
    }
}

/// Answered by the second target, at the second attempt, and whole.
async fn assert_answered_by(weir: &Weir, mut answer: Answer, provider: &str, first_outcome: &str) {
    let id = answer.id();
    let told = (answer.status.as_u16(), answer.header("x-weir-provider"), answer.header("x-weir-attempts"));
    assert_eq!(told, (200, Some(provider), Some("2")));
    let (body, end) = answer.rest().await;
    assert_eq!(end, End::Whole);
    assert!(body.contains("weirs") || body.contains("You"), "{body}");
    let line = weir.logged(&id).await;
    let outcomes: Vec<&Value> =
        line["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["outcome"]).collect();
    assert_eq!(outcomes, [&json!(first_outcome), &json!("ok")]);
}

#[tokio::test]
async fn a_failing_target_is_left_for_the_next_one() {
    let simulator = simulator();
    for first in DIALECTS {
        for (directives, outcome) in [
            ("status=429", "provider_limit"),
            ("status=500", "provider_error"),
            ("status=502", "provider_error"),
            ("status=503", "provider_error"),
            ("status=529", "provider_error"),
            ("status=408", "provider_error"),
            ("status=401", "provider_auth"),
            ("status=404", "provider_error"),
            ("close", "provider_unreachable"),
            ("html", "provider_error"),
        ] {
            for request in [chat("m"), stream("m")] {
                // Each with new connections: where one was used before, a request that is lost with it goes out again.
                let weir = pair(&simulator, first, directives, "").start().await;
                let answer = weir.chat().json(&request).send().await;
                assert_answered_by(&weir, answer, other(first), outcome).await;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_before_content_is_left_for_the_next_target() {
    let simulator = simulator();
    for first in DIALECTS {
        for directives in ["cut=0", "end=0", "error=500", "error=429", "pings=2~error_after=0"] {
            let weir = pair(&simulator, first, directives, "").start().await;
            let mut answer = weir.chat().json(&stream("m")).send().await;
            assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (200, Some("2")), "{directives}");
            let (events, end) = answer.events().await;
            assert!(events.last().unwrap().is_done());
            assert_eq!(end, End::Whole);
            let ids: std::collections::BTreeSet<String> =
                events.iter().filter(|event| !event.is_done()).map(|event| event.json()["id"].to_string()).collect();
            assert_eq!(ids.len(), 1, "two answers in one: {ids:?}");
        }
        for directives in ["cut=0", "truncate", "malformed", "error=500"] {
            let weir = pair(&simulator, first, directives, "").start().await;
            let answer = weir.chat().json(&chat("m")).send().await;
            assert_answered_by(&weir, answer, other(first), "provider_error").await;
        }
    }
}

#[tokio::test]
async fn a_target_that_nobody_listens_at_is_left_for_the_next_one() {
    let simulator = simulator();
    let (_reserved, closed) = port_that_nobody_listens_at();
    let weir = Config::of(&simulator)
        .openai("gone", &format!("http://{closed}/v1"))
        .model("{name: m, targets: [{provider: gone, model: x}, {tier: 1, provider: openai, model: gpt-5.5}]}")
        .start()
        .await;
    for request in [chat("m"), stream("m")] {
        assert_answered_by(&weir, weir.chat().json(&request).send().await, "openai", "provider_unreachable").await;
    }
}

#[tokio::test]
async fn a_silent_target_is_left_when_its_first_byte_is_due() {
    let simulator = simulator();
    for directives in ["delay=10s", "first=10s", "pings=1~silence=0"] {
        let timeouts = ", timeouts: {first_byte: 2s, keepalive: 0s}";
        let weir = pair(&simulator, Dialect::OpenAi, directives, timeouts).start().await;
        let mut waited = Vec::new();
        // The machine may be busy once; it is not thrice.
        while waited.len() < 3 && waited.last().is_none_or(|waited| *waited >= 2200) {
            waited.push(milliseconds_to_the_next_target(&simulator, &weir).await);
        }
        // The clock starts a little before the request arrives.
        assert!(waited.iter().all(|waited| *waited > 1900), "{directives}: {waited:?}");
        assert!(waited.last() < Some(&2200), "{directives}: {waited:?}");
    }
}

#[tokio::test]
async fn a_target_that_shows_that_it_lives_is_waited_for_and_one_that_answers_whole_has_all_the_time() {
    let simulator = simulator();
    for (directives, request) in [("pings=30~gap=50ms", stream("m")), ("delay=1500ms", chat("m"))] {
        let timeouts = ", timeouts: {first_byte: 500ms, keepalive: 0s}";
        let weir = pair(&simulator, Dialect::OpenAi, directives, timeouts).start().await;
        let answer = weir.chat().json(&request).send().await;
        let told = (answer.status.as_u16(), answer.header("x-weir-provider"), answer.header("x-weir-attempts"));
        assert_eq!(told, (200, Some("openai"), Some("1")), "{directives}");
    }
    let total = ", timeouts: {first_byte: 500ms, total: 1s, keepalive: 0s}";
    let weir = pair(&simulator, Dialect::OpenAi, "pings=100~gap=50ms", total).start().await;
    let answer = weir.chat().json(&stream("m")).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (504, Some("provider_timeout")));
}

async fn milliseconds_to_the_next_target(simulator: &Simulator, weir: &Weir) -> u128 {
    simulator.reset();
    let mut answer = weir.chat().json(&stream("m")).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-provider")), (200, Some("claude")));
    let (events, end) = answer.events().await;
    assert!(events.last().unwrap().is_done() && end == End::Whole);
    let at: Vec<Duration> = simulator.requests().iter().map(|request| request.at).collect();
    let [first, second] = at.as_slice() else { panic!("two requests are wanted: {at:?}") };
    (*second - *first).as_millis()
}

#[tokio::test]
async fn a_refusal_of_the_request_is_not_tried_elsewhere() {
    let simulator = simulator();
    for first in DIALECTS {
        for status in [400, 409, 413, 415, 422] {
            let weir = pair(&simulator, first, &format!("status={status}"), "").start().await;
            simulator.reset();
            for request in [chat("m"), stream("m")] {
                let answer = weir.chat().json(&request).send().await;
                assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (status, Some("1")));
            }
            assert_eq!(simulator.account().requests, 2);
        }
    }
}

#[tokio::test]
async fn a_model_that_its_target_has_not_is_asked_of_another_unless_its_caller_made_the_name_up() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .section("health: {min_samples: 1, error_rate: 1%}")
        .model("{name: gone, targets: [{provider: openai, model: 'gpt-5.5~status=404'}], fallbacks: {any: [there]}}")
        .model("{name: there, targets: [{provider: claude, model: claude-sonnet-4-6}]}")
        .model("{name: alone, targets: [{provider: openai, model: 'gpt-5.5~status=404'}]}")
        .model("{name: 'w/*', targets: [{provider: openai, model: '*'}], fallbacks: {any: [there]}}")
        .start()
        .await;
    for (model, status, answered_by) in [
        ("gone", 200, "there"),
        ("alone", 404, "alone"),
        ("openai/gpt-5.5~status=404", 404, "openai/gpt-5.5~status=404"),
        ("w/gpt-5.5~status=404", 404, "w/gpt-5.5~status=404"),
    ] {
        for request in [chat(model), stream(model)] {
            let answer = weir.chat().json(&request).send().await;
            let told = (answer.status.as_u16(), answer.header("x-weir-model"), answer.header("x-weir-attempts"));
            let attempts = if status == 200 { "2" } else { "1" };
            assert_eq!(told, (status, Some(answered_by), Some(attempts)), "{model}");
        }
    }
    assert_eq!(weir.chat().json(&chat("openai/gpt-5.5")).send().await.status, 200, "nothing cools for it");
}

#[tokio::test]
async fn a_model_that_took_over_and_failed_too_hands_on_and_each_is_asked_once() {
    let simulator = simulator();
    let failing = |name: &str, upstream: &str, fallbacks: &str| {
        format!(
            "{{name: {name}, retries: {{max: 0}}, targets: [{{provider: openai, model: '{upstream}'}}], fallbacks: {{{fallbacks}}}}}"
        )
    };
    let mut config = Config::of(&simulator)
        .model(&failing("a", "gpt-5.5~status=500", "any: [b, c]"))
        .model(&failing("b", "gpt-5.5~status=500", "any: [d]"))
        .model(&failing("c", "gpt-5.5~context=1", "any: [e], context_window: [d, a, b, e]"))
        .model(&failing("d", "gpt-5.5~status=500", ""))
        .model(&failing("e", "gpt-5.5", ""));
    // A chain that is longer than anybody waits for.
    for link in 0..12 {
        config = config.model(&failing(&format!("l{link}"), "gpt-5.5~status=500", &format!("any: [l{}]", link + 1)));
    }
    let weir = config.model(&failing("l12", "gpt-5.5", "")).start().await;
    for (model, status, answered_by, attempts) in
        [("a", 200, "e", "5"), ("l3", 200, "l12", "10"), ("l0", 502, "l9", "10")]
    {
        let answer = weir.chat().json(&chat(model)).send().await;
        let told = (answer.status.as_u16(), answer.header("x-weir-model"), answer.header("x-weir-attempts"));
        assert_eq!(told, (status, Some(answered_by), Some(attempts)), "{model}");
    }
}

#[tokio::test]
async fn after_content_the_provider_is_never_switched() {
    let simulator = simulator();
    for first in DIALECTS {
        for directives in
            ["events=9~gap=20ms~cut=2", "events=9~gap=20ms~end=2", "events=9~gap=20ms~error=500~error_after=2"]
        {
            let weir = pair(&simulator, first, directives, "").start().await;
            simulator.reset();
            let mut answer = weir.chat().json(&stream("m")).send().await;
            assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (200, Some("1")));
            let (events, end) = answer.events().await;
            assert!(events.last().unwrap().error().is_some());
            assert_eq!(end, End::Aborted);
            assert_eq!(simulator.account().requests, 1);
        }
    }
}

#[tokio::test]
async fn a_silence_after_content_is_never_answered_by_another_target() {
    let simulator = simulator();
    let directives = "events=9~silence=2";
    let weir = pair(&simulator, Dialect::OpenAi, directives, ", timeouts: {idle: 300ms}").start().await;
    let mut answer = weir.chat().json(&stream("m")).send().await;
    let (events, end) = answer.events().await;
    assert_eq!(
        (events.last().unwrap().error().unwrap()["code"].clone(), end),
        (json!("provider_timeout"), End::Aborted)
    );
    assert_eq!(simulator.account().requests, 1);
}

#[tokio::test]
async fn a_stream_kept_alive_before_content_can_still_be_served_by_the_next_target() {
    let simulator = simulator();
    let weir =
        pair(&simulator, Dialect::OpenAi, "delay=500ms~status=500", ", timeouts: {keepalive: 100ms}").start().await;
    let mut answer = weir.chat().json(&stream("m")).send().await;
    let (events, end) = answer.events().await;
    assert!(events.iter().any(|event| event.data.is_none()), "no comment came");
    let text: String = events.iter().map(Event::text).collect();
    assert!(!text.is_empty() && events.last().unwrap().is_done() && end == End::Whole);
    let line = weir.logged(&answer.id()).await;
    assert_eq!((&line["incomplete"], line["attempts"].as_array().unwrap().len()), (&json!(false), 2));
}

#[tokio::test]
async fn when_all_targets_fail_the_caller_gets_the_last_ones_status() {
    let simulator = simulator();
    let model = |first: &str, second: &str| {
        format!(
            "{{name: m, targets: [{{provider: openai, model: 'gpt-5.5~{first}'}}, {{tier: 1, provider: claude, model: 'claude-sonnet-4-6~{second}'}}]}}"
        )
    };
    for (first, second, status) in [
        ("status=500", "status=400", 400),
        ("status=429", "status=529", 502),
        ("error=500", "status=429", 429),
        ("delay=5s", "status=422", 422),
    ] {
        let model = model(first, second).replace("]}", "], timeouts: {first_byte: 300ms}, retries: {max: 1}}");
        let weir = Config::of(&simulator).model(&model).start().await;
        let asked = if first == "delay=5s" { vec![stream("m")] } else { vec![chat("m"), stream("m")] };
        for request in asked {
            let answer = weir.chat().json(&request).send().await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-weir-attempts")),
                (status, Some("2")),
                "{first}, {second}"
            );
            assert_eq!(answer.header("x-weir-provider"), Some("claude"));
        }
    }
}

#[tokio::test]
async fn when_all_targets_are_limited_the_soonest_time_is_told() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .model("{name: m, targets: [{provider: openai, model: 'gpt-5.5~status=429~retry_after=5'}, {tier: 1, provider: claude, model: 'claude-sonnet-4-6~status=429~retry_after=30'}]}")
        .start()
        .await;
    let answer = weir.chat().json(&chat("m")).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("5")));
}

#[tokio::test]
async fn a_caller_may_refuse_other_attempts() {
    let simulator = simulator();
    let weir = pair(&simulator, Dialect::OpenAi, "status=500", "").start().await;
    for (value, status) in [("1", 502), ("true", 502), ("", 502), ("0", 200), ("false", 200)] {
        let answer = weir.chat().json(&chat("m")).header("x-weir-no-retry", value).send().await;
        assert_eq!(answer.status, status, "{value:?}");
    }
}

/// Four targets that all fail.
fn four(simulator: &Simulator, directives: &str, settings: &str) -> Config {
    let target = |tier: u32| format!("{{tier: {tier}, provider: openai, model: 'gpt-5.5~{directives}~cached={tier}'}}");
    let targets: Vec<String> = (0..4).map(target).collect();
    Config::of(simulator).model(&format!("{{name: m, targets: [{}]{settings}}}", targets.join(", ")))
}

#[tokio::test]
async fn no_more_targets_are_tried_than_the_retries_allow_and_each_only_once() {
    let simulator = simulator();
    for (settings, attempts) in
        [("", 3), (", retries: {max: 0}", 1), (", retries: {max: 1}", 2), (", retries: {max: 3}", 4)]
    {
        let weir = four(&simulator, "status=500", settings).start().await;
        simulator.reset();
        let answer = weir.chat().json(&chat("m")).send().await;
        assert_eq!(answer.header("x-weir-attempts"), Some(attempts.to_string().as_str()));
        let rows = simulator.account().rows;
        assert_eq!(rows.len(), attempts, "{rows:?}");
        assert!(rows.iter().all(|row| row.requests == 1), "{rows:?}");
    }
}

#[tokio::test]
async fn when_all_targets_failed_they_are_tried_again_after_a_wait() {
    let simulator = simulator();
    let retries = ", retries: {max: 2, backoff: 400ms..1s}";
    for (directives, provider) in [("status=500~times=1", "gpt-5.5"), ("close~times=1", "gpt-5.4")] {
        let weir = Config::of(&simulator)
            .model(&format!("{{name: m, targets: [{{provider: openai, model: '{provider}~{directives}'}}]{retries}}}"))
            .start()
            .await;
        simulator.reset();
        let answer = weir.chat().json(&chat("m")).send().await;
        let took = answer.head_at - answer.sent;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (200, Some("2")), "{directives}");
        assert!(took >= Duration::from_millis(200), "{took:?}");
    }
}

#[tokio::test]
async fn what_a_provider_began_to_answer_or_is_silent_about_is_not_asked_of_it_again() {
    let simulator = simulator();
    for (directives, status) in
        [("truncate", 502), ("malformed", 502), ("delay=9s", 504), ("status=401", 502), ("status=429", 429)]
    {
        let settings = "timeouts: {first_byte: 300ms}, retries: {max: 2, backoff: 1ms..2ms}";
        let model = format!(
            "{{name: m, targets: [{{provider: openai, model: 'gpt-5.5~{directives}~retry_after=1'}}], {settings}}}"
        );
        let weir = Config::of(&simulator).model(&model).start().await;
        let request = if status == 504 { stream("m") } else { chat("m") };
        let answer = weir.chat().json(&request).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (status, Some("1")), "{directives}");
    }
}

#[tokio::test]
async fn a_wait_before_another_try_ends_with_the_caller_and_with_the_requests_time() {
    let simulator = simulator();
    let model = "{name: m, targets: [{provider: openai, model: 'gpt-5.5~status=500'}], retries: {backoff: 30s..60s}}";
    let weir = Config::of(&simulator).model(model).start().await;
    let answer = weir.chat().json(&chat("m")).header("x-weir-timeout-ms", "5000").send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (502, Some("1")));
    assert!(answer.head_at - answer.sent < Duration::from_secs(4));
    simulator.reset();
    let pending = weir.chat().json(&chat("m")).begin().await;
    within("the provider's request", simulator.until(|account| account.requests == 1)).await;
    pending.leave();
    let line = weir.logged_where(|line| line["status"] == 499).await;
    assert_eq!((&line["error"], line["attempts"].as_array().unwrap().len()), (&json!("caller_gone"), 1));
}

#[tokio::test]
async fn nothing_more_is_tried_when_the_total_time_is_over() {
    let simulator = simulator();
    for settings in [", timeouts: {total: 300ms}", ""] {
        let weir = four(&simulator, "delay=10s", settings).start().await;
        simulator.reset();
        let call = weir.chat().json(&chat("m"));
        let call = if settings.is_empty() { call.header("x-weir-timeout-ms", "300") } else { call };
        let answer = call.send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (504, Some("1")));
        assert_eq!(simulator.account().requests, 1);
    }
}

#[tokio::test]
async fn nothing_more_is_tried_for_a_caller_that_left() {
    let simulator = simulator();
    let url = format!("http://{}/v1", simulator.addr());
    for policy in ["cancel", "drain"] {
        let weir = Config::new()
            .provider("p", &format!("{{kind: openai, base_url: '{url}', on_disconnect: {policy}, credentials: [{{id: a, api_key: sk-a}}]}}"))
            .model("{name: m, targets: [{provider: p, model: 'gpt-5.5~delay=500ms~status=500'}, {tier: 1, provider: p, model: gpt-5.5}]}")
            .start()
            .await;
        simulator.reset();
        let pending = weir.chat().json(&stream("m")).begin().await;
        within("the provider's request", simulator.until(|account| account.requests == 1)).await;
        pending.leave();
        let line = weir.logged_where(|line| line["operation"] == "chat").await;
        assert_eq!((&line["status"], &line["error"]), (&json!(499), &json!("caller_gone")), "{policy}");
        assert_eq!(simulator.account().requests, 1, "{policy}");
    }
}

#[tokio::test]
async fn a_whole_answer_that_is_read_to_its_end_for_a_caller_that_left_is_told_as_such() {
    let simulator = simulator();
    let url = format!("http://{}/v1", simulator.addr());
    let weir = Config::new()
        .provider(
            "p",
            &format!(
                "{{kind: openai, base_url: '{url}', on_disconnect: drain, credentials: [{{id: a, api_key: sk-a}}]}}"
            ),
        )
        .model("{name: m, targets: [{provider: p, model: 'gpt-5.5~delay=500ms'}]}")
        .start()
        .await;
    let pending = weir.chat().json(&chat("m")).begin().await;
    within("the provider's request", simulator.until(|account| account.requests == 1)).await;
    pending.leave();
    let line = weir.logged_where(|line| line["operation"] == "chat").await;
    assert_eq!((&line["status"], &line["error"]), (&json!(499), &json!("caller_gone")), "{line}");
}

#[tokio::test]
async fn the_next_credential_of_a_provider_is_tried_as_the_next_target_is() {
    let simulator = simulator();
    let url = format!("http://{}/v1", simulator.addr());
    let weir = Config::new()
        .provider("p", &format!("{{kind: openai, base_url: '{url}', credentials: [{{id: bad, api_key: sk-bad-1, weight: 1000}}, {{id: good, api_key: sk-good}}]}}"))
        .model("{name: m, targets: [{provider: p, model: gpt-5.5}]}")
        .start()
        .await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let answer = weir.chat().json(&chat("m")).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-credential")), (200, Some("good")));
        seen.push(answer.header("x-weir-attempts").unwrap().to_owned());
    }
    assert!(seen.contains(&"2".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn a_connection_that_its_provider_closed_while_idle_costs_no_attempt() {
    let provider = Provider::json(
        r#"{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"content":"ok"}}]}"#,
    )
    .await;
    let weir = Config::new().openai("p", &provider.url()).start().await;
    for _ in 0..20 {
        let answer = weir.chat().json(&chat("p/m")).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (200, Some("1")));
    }
}

#[tokio::test]
async fn what_a_failed_target_said_is_not_in_the_answer_of_the_next() {
    let first = Provider::start(|mut played| async move {
        played.write(STREAM).await;
        played.event(&chunk("x", &json!({"role": "assistant", "content": ""}))).await;
        played.event(r#"{"id":"first","choices":[],"prompt_filter_results":[{"first":true}]}"#).await;
        played.close().await;
    })
    .await;
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .openai("first", &first.url())
        .model(
            "{name: m, targets: [{provider: first, model: x}, {tier: 1, provider: claude, model: claude-sonnet-4-6}]}",
        )
        .start()
        .await;
    let (text, end) = weir.chat().json(&stream("m")).send().await.rest().await;
    assert!(!text.contains("first") && !text.contains("c-1"), "{text}");
    assert_eq!(end, End::Whole);
}

#[tokio::test]
async fn a_slow_target_is_overtaken_by_a_second_one_and_costs_nothing_more() {
    let simulator = simulator();
    let weir = pair(&simulator, Dialect::OpenAi, "delay=60s", ", hedge: {after: 100ms, max_extra: 100%}").start().await;
    for body in [chat("m"), stream("m")] {
        let answer = weir.chat().json(&body).send().await;
        let id = answer.id();
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-provider")), (200, Some("claude")));
        answer.text().await;
        let line = weir.logged(&id).await;
        let outcomes: Vec<&Value> =
            line["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["outcome"]).collect();
        assert_eq!(outcomes, [&json!("abandoned"), &json!("ok")]);
    }
    simulator.until(|account| account.in_flight == 0).await;
}

#[tokio::test]
async fn a_second_target_that_fails_leaves_the_first_its_time() {
    let simulator = simulator();
    let model = "{name: m, targets: [{provider: openai, model: 'gpt-5.5~delay=700ms'}, {tier: 1, provider: claude, model: 'claude-sonnet-4-6~status=500'}], hedge: {after: 50ms, max_extra: 100%}}";
    let weir = Config::of(&simulator).model(model).start().await;
    let answer = weir.chat().json(&chat("m")).send().await;
    let id = answer.id();
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-provider")), (200, Some("openai")));
    let line = weir.logged(&id).await;
    let outcomes: Vec<&Value> =
        line["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["outcome"]).collect();
    assert_eq!(outcomes, [&json!("provider_error"), &json!("ok")]);
}

/// A provider that reads a whole request on a connection that had lain idle, and closes it without an answer.
async fn forgetful() -> Provider {
    Provider::start(|mut played| async move {
        let body = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}"#;
        played.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        let _lost = played.next().await;
    })
    .await
}

#[tokio::test]
async fn a_request_whose_connection_was_lost_is_sent_again_only_where_retries_are_allowed_and_counted() {
    for (retries, no_retry, seen, status) in [(2, "0", 3, 200), (2, "1", 2, 502), (0, "0", 2, 502)] {
        let provider = forgetful().await;
        let weir = Config::new()
            .openai("p", &provider.url())
            .model(&format!("{{name: m, targets: [{{provider: p, model: m}}], retries: {{max: {retries}}}}}"))
            .start()
            .await;
        assert_eq!(weir.chat().json(&chat("m")).send().await.status, 200);
        let answer = weir.chat().json(&chat("m")).header("x-weir-no-retry", no_retry).send().await;
        assert_eq!(answer.status, status, "{retries} {no_retry}");
        let attempts = (provider.requests().len() - 1).to_string();
        assert_eq!((provider.requests().len(), answer.header("x-weir-attempts")), (seen, Some(attempts.as_str())));
        let id = answer.id();
        let line = weir.logged(&id).await;
        assert_eq!(line["attempts"].as_array().unwrap().len(), seen - 1);
    }
}

#[tokio::test]
async fn an_answer_without_choices_is_left_for_the_next_target() {
    let simulator = simulator();
    for empty in ["{}", r#"{"choices":null}"#, r#"{"id":"x","choices":[ ]}"#] {
        for is_stream in [false, true] {
            let (body, request) = if is_stream { ("data: [DONE]\n\n", stream("m")) } else { (empty, chat("m")) };
            let kind = if is_stream { "text/event-stream" } else { "application/json" };
            let provider = Provider::refusing(200, &format!("content-type: {kind}\r\n"), body).await;
            let weir = Config::of(&simulator)
                .openai("empty", &provider.url())
                .model("{name: m, targets: [{provider: empty, model: x}, {tier: 1, provider: claude, model: claude-sonnet-4-6}]}")
                .start()
                .await;
            assert_answered_by(&weir, weir.chat().json(&request).send().await, "claude", "provider_error").await;
        }
    }
}
