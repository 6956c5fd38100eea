//! What one request may take from others, and what it may not escape: whoever asks oddly, is refused, leaves, or falls
//! back, leaves limits, budgets and credentials as they should be.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::Simulator;
use tokio::task::JoinSet;
use weir_tests::ask::{chat, chunk, finish, simulator, stream, with};
use weir_tests::client::Answer;
use weir_tests::priced::{PRICED, ask, config, row};
use weir_tests::provider::Provider;
use weir_tests::weir::{Config, Weir};

/// Its status and its error's word.
fn told(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status.as_u16(), answer.header("x-weir-error"))
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
    let greedy = with(chat("pool/gpt-5.5~delay=20s"), "max_tokens", json!(1_000_000_000_000_u64));
    let under_way = weir.chat().json(&greedy).begin().await;
    simulator.until(|account| account.in_flight == 1).await;
    // In a tenth of a second as much has drained as a hundred such requests need.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(told(&ask(&weir, &chat("pool/gpt-5.5")).await), (200, None), "while it runs");
    under_way.leave();
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
async fn what_holds_for_a_model_holds_by_its_providers_name_whoever_has_the_credential() {
    let simulator = simulator();
    let provider = |credentials: &str| {
        format!("{{kind: openai, base_url: 'http://{}/v1', credentials: [{credentials}]}}", simulator.addr())
    };
    let off = "{id: off, api_key: sk-1, enabled: false}";
    let own = "providers: {p: {credentials: [{id: own, api_key: sk-2}]}},";
    for (credentials, tenant) in [(format!("{off}, {{id: on, api_key: sk-3}}"), ""), (off.to_owned(), own)] {
        let target = "targets: [{provider: p, model: x, credential: off}]";
        let model = format!("{{name: q, {target}, pricing: {{per_request: 7, input: 0, output: 0}}}}");
        let at = |more: &str| {
            config(&simulator, &format!("{tenant} {more}"), "").provider("p", &provider(&credentials)).model(&model)
        };
        let limited = at("limits: {per_model: {q: {rpm: 1}}},").start().await;
        let first = ask(&limited, &chat("p/x")).await;
        assert_eq!((told(&first), first.header("x-weir-cost-usd")), ((200, None), Some("7")), "{credentials}");
        assert_eq!(told(&ask(&limited, &chat("p/x")).await), (429, Some("policy_limit")), "{credentials}");
        let disabled = at("disabled_models: [q],").start().await;
        assert_eq!(told(&ask(&disabled, &chat("p/x")).await), (403, Some("policy_forbidden")), "{credentials}");
    }
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

/// A chat completion that says `hi`, with this for what is beside that.
fn says_hi(more: &str) -> String {
    let choices = r#""choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]"#;
    format!(r#"{{"id":"c","object":"chat.completion",{choices}{more}}}"#)
}

#[tokio::test]
async fn an_answer_that_nobody_counted_is_estimated_by_its_content_and_within_its_limit() {
    let long = "x".repeat(2_000);
    let simulator = simulator();
    for (more, limit, most) in [
        (String::new(), 20, 1),
        (r#","usage":{}"#.to_owned(), 20, 1),
        (r#","usage":{"prompt_tokens":null,"completion_tokens":null}"#.to_owned(), 20, 1),
        (format!(r#","usage":null,"x_unknown":"{long}""#), 1, 1),
        (format!(r#","choices_before":[{{"message":{{"content":"{long}"}}}}]"#), 20, 1),
    ] {
        let provider = Provider::json(&says_hi(&more)).await;
        let weir = config(&simulator, "budgets: [{usd: 5, every: day}],", "")
            .openai("odd", &provider.url())
            .model(&format!("{{name: odd, targets: [{{provider: odd, model: x}}], {PRICED}}}"))
            .start()
            .await;
        let answer = ask(&weir, &with(chat("odd"), "max_tokens", json!(limit))).await;
        let row = row(&weir, &answer.id()).await;
        let (input, output) = (&row["usage"]["input_tokens"], row["usage"]["output_tokens"].as_u64().unwrap());
        assert_eq!(row["accuracy"], "estimated", "{row}");
        assert!(input.as_u64().unwrap() > 5 && (1..=most).contains(&output), "{row}");
    }
    let talkative = format!(r#"{{"choices":[{{"message":{{"content":"{long}"}}}}]}}"#);
    let provider = Provider::json(&talkative).await;
    let weir = config(&simulator, "", "")
        .openai("odd", &provider.url())
        .model(&format!("{{name: odd, targets: [{{provider: odd, model: x}}], {PRICED}}}"))
        .start()
        .await;
    for (body, output) in [(with(chat("odd"), "max_tokens", json!(7)), 7), (chat("odd"), 500)] {
        let answer = ask(&weir, &body).await;
        assert_eq!(row(&weir, &answer.id()).await["usage"]["output_tokens"], output);
    }
}

/// The output and the accuracy of what this provider answers, which is written to its end.
async fn counted(kind: &str, answer: String, request: Value) -> (u64, String) {
    let (simulator, provider) = (simulator(), Provider::answering(answer).await);
    let url = if kind == "anthropic" { provider.root() } else { provider.url() };
    let weir = config(&simulator, "", "")
        .provider("odd", &format!("{{kind: {kind}, base_url: '{url}', credentials: [{{id: odd-1, api_key: sk-odd}}]}}"))
        .model(&format!("{{name: odd, targets: [{{provider: odd, model: x}}], {PRICED}}}"))
        .start()
        .await;
    let answer = ask(&weir, &request).await;
    let id = answer.id();
    answer.text().await;
    let row = row(&weir, &id).await;
    (row["usage"]["output_tokens"].as_u64().unwrap(), row["accuracy"].as_str().unwrap().to_owned())
}

fn whole_of(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn stream_of(events: &[String]) -> String {
    let events: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{events}")
}

#[tokio::test]
async fn a_stream_that_nobody_counted_is_estimated_by_its_content_as_the_whole_answer_is() {
    let piece = "some words ".repeat(100);
    for (usage, accuracy) in [
        ("null", "estimated"),
        (r#"{"prompt_tokens":10,"total_tokens":10}"#, "partial"),
        (r#"{"prompt_tokens":10,"completion_tokens":null}"#, "partial"),
    ] {
        let whole = format!(r#"{{"choices":[{{"message":{{"content":"{}"}}}}],"usage":{usage}}}"#, piece.repeat(3));
        let said = chunk("x", &json!({"content": piece}));
        let told = format!(r#"{{"id":"c-1","choices":[],"usage":{usage}}}"#);
        let stream_answer = stream_of(&[said.clone(), said.clone(), said, finish("x"), told, "[DONE]".to_owned()]);
        let expected = (825, accuracy.to_owned());
        assert_eq!(counted("openai", whole_of(&whole), chat("odd")).await, expected, "{usage}");
        assert_eq!(counted("openai", stream_answer.clone(), stream("odd")).await, expected, "{usage}");
        let limited = with(stream("odd"), "max_tokens", json!(50));
        assert_eq!(counted("openai", stream_answer, limited).await.0, 50, "{usage}");
    }
    let whole = r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":10,"completion_tokens":0}}"#;
    assert_eq!(counted("openai", whole_of(whole), chat("odd")).await, (0, "exact".to_owned()));
}

#[tokio::test]
async fn claudes_first_word_on_its_output_is_not_its_last() {
    let words = "some words ".repeat(300);
    let usage = json!({"input_tokens": 10, "output_tokens": 1});
    let events = |last: Value| {
        stream_of(
            &[
                json!({"type": "message_start", "message": {"id": "m", "usage": usage}}),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": words}}),
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last}),
                json!({"type": "message_stop"}),
            ]
            .map(|event| event.to_string()),
        )
    };
    assert_eq!(counted("anthropic", events(Value::Null), stream("odd")).await, (825, "partial".to_owned()));
    assert_eq!(counted("anthropic", events(json!({"output_tokens": 7})), stream("odd")).await, (7, "exact".to_owned()));
    assert_eq!(counted("anthropic", events(json!({"output_tokens": 0})), stream("odd")).await, (0, "exact".to_owned()));
    let content = json!([{"type": "text", "text": words}]);
    let whole =
        json!({"type": "message", "content": content, "stop_reason": "end_turn", "usage": {"input_tokens": 10}});
    assert_eq!(counted("anthropic", whole_of(&whole.to_string()), chat("odd")).await, (825, "partial".to_owned()));
}

#[tokio::test]
async fn a_quota_of_calls_counts_each_that_was_answered_whatever_its_tokens() {
    let simulator = simulator();
    for usage in [r#","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#, ""] {
        let provider = Provider::json(&says_hi(usage)).await;
        let weir = config(&simulator, "quotas: [{provider: odd, type: trial, unit: times, limit: 2}],", "")
            .openai("odd", &provider.url())
            .start()
            .await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let answer = ask(&weir, &chat("odd/x")).await;
            statuses.push(answer.status.as_u16());
            weir.logged(&answer.id()).await;
        }
        assert_eq!(statuses, [200, 200, 429, 429], "{usage}");
    }
}

#[tokio::test]
async fn a_quota_of_tokens_is_not_blocked_by_who_names_no_limit() {
    let simulator = simulator();
    let quota = "quotas: [{provider: openai, type: trial, unit: tokens, limit: 40000}],";
    let weir = config(&simulator, quota, "")
        .model("{name: slow, targets: [{provider: openai, model: 'gpt-5.5~delay=2s'}]}")
        .start()
        .await;
    let mut asked = JoinSet::new();
    for _ in 0..6 {
        let call = weir.chat().json(&chat("slow"));
        asked.spawn(async move { call.send().await.status.as_u16() });
    }
    assert_eq!(asked.join_all().await, [200; 6]);
}

#[tokio::test]
async fn a_quota_of_tokens_is_of_use_to_whom_sets_no_limit_and_cuts_its_answer() {
    let simulator = simulator();
    let quota = "quotas: [{provider: openai, type: paid, unit: tokens, limit: 100}],";
    let weir = config(&simulator, quota, "").start().await;
    let answer = ask(&weir, &chat("m")).await;
    let cut: u64 = answer.header("x-weir-max-tokens").unwrap().parse().unwrap();
    assert_eq!((answer.status.as_u16(), (50..100).contains(&cut)), (200, true), "{cut}");
    assert_eq!(simulator.requests().last().unwrap().json()["max_completion_tokens"], cut);
    weir.logged(&answer.id()).await;
    let next = ask(&weir, &with(chat("m"), "max_tokens", json!(20))).await;
    assert_eq!((next.status.as_u16(), next.header("x-weir-max-tokens")), (200, None));
    weir.logged(&next.id()).await;
    // 28 are used, and what is held for the input is more than it comes to.
    for _ in 0..10 {
        let last = ask(&weir, &chat("m")).await;
        weir.logged(&last.id()).await;
        if last.status == 429 {
            assert_eq!(last.header("x-weir-error"), Some("policy_budget"));
            return;
        }
    }
    unreachable!("the quota is never used up");
}

#[tokio::test]
async fn a_stream_that_a_shutdown_cuts_is_billed_with_what_it_has_brought() {
    let simulator = simulator();
    let settings = config(&simulator, "", "").server("drain: 200ms");
    let weir = settings.start().await;
    let mut answer = ask(&weir, &stream("openai/gpt-5.5~events=500~gap=20ms")).await;
    let id = answer.id();
    for _ in 0..10 {
        assert!(answer.event().await.is_some());
    }
    let weir = weir.stopped_and_started(&settings).await;
    let row = row(&weir, &id).await;
    assert_eq!((&row["error"], &row["accuracy"]), (&json!("gateway_fault"), &json!("estimated")), "{row}");
    assert!(row["usage"]["output_tokens"].as_u64().unwrap() >= 8, "{row}");
}

#[tokio::test]
async fn who_wants_one_attempt_is_not_hedged() {
    let simulator = simulator();
    let targets = "[{provider: openai, model: 'gpt-5.5~delay=600ms'}, {tier: 1, provider: openai, model: gpt-5.5}]";
    let weir = config(&simulator, "", "")
        .model(&format!("{{name: h, targets: {targets}, hedge: {{after: 50ms, max_extra: 100%}}}}"))
        .start()
        .await;
    for (refused, attempts) in [("1", "1"), ("0", "2")] {
        let answer = weir.chat().header("x-weir-no-retry", refused).json(&chat("h")).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (200, Some(attempts)));
    }
}

#[tokio::test]
async fn a_name_that_its_caller_made_up_is_short_and_plain_and_no_metric_knows_it() {
    let provider = Provider::json(r#"{"choices":[{"message":{"content":"a"}}]}"#).await;
    let model = "{name: 'x/*', targets: [{provider: p, model: '*'}]}";
    let weir = Config::new().openai("p", &provider.url()).model(model).start().await;
    for prefix in ["x/", "p/"] {
        let longest = format!("{prefix}{}", "a".repeat(254));
        for name in [format!("{prefix}made up"), format!("{prefix}模型"), longest.clone()] {
            let answer = ask(&weir, &chat(&name)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.headers.get("x-weir-model").map(|it| it.as_bytes())),
                (200, Some(name.as_bytes()))
            );
        }
        for odd in
            [format!("{longest}a"), format!("{prefix}a\nb"), format!("{prefix}a\u{7f}"), format!("{prefix}\u{85}")]
        {
            let answer = ask(&weir, &chat(&odd)).await;
            assert_eq!(told(&answer), (404, Some("caller_request")), "{odd:?}");
            assert_eq!(weir.logged(&answer.id()).await["model"], Value::Null);
            assert_eq!(answer.json().await["error"]["param"], "model");
        }
    }
    let metrics = weir.metrics().await;
    assert!(metrics.contains(r#"model="x/*""#) && metrics.contains(r#"model="p/*""#), "{metrics}");
    for name in ["made up", "模型", "aaaa"] {
        assert!(!metrics.contains(name), "{name}");
    }
}

#[tokio::test]
async fn another_name_of_the_same_wildcard_may_take_over() {
    let simulator = simulator();
    let weir = config(&simulator, "", "")
        .model("{name: 'x/*', targets: [{provider: openai, model: '*'}], fallbacks: {any: [x/gpt-5.5]}}")
        .start()
        .await;
    let answer = ask(&weir, &chat("x/gpt-5.5~status=500")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-model")), (200, Some("x/gpt-5.5")));
}

#[tokio::test]
async fn a_named_credential_is_kept_to_where_the_model_that_is_to_answer_instead_has_it_not() {
    let simulator = simulator();
    let key = "choose_credential: true, budgets: [{usd: 0.2, every: day, soft: 1%, on_exhaust: {model: cheap}}]";
    let weir = config(&simulator, "", key)
        .model("{name: cheap, targets: [{provider: claude, model: claude-haiku-4-5}], pricing: {input: 1, output: 1}}")
        .start()
        .await;
    let named = async |credential: &str| {
        let answer = weir
            .chat()
            .header("x-weir-credential", credential)
            .json(&with(chat("m"), "max_tokens", json!(8)))
            .send()
            .await;
        weir.logged(&answer.id()).await;
        (answer.status.as_u16(), answer.header("x-weir-model").map(str::to_owned))
    };
    for _ in 0..2 {
        assert_eq!(named("openai-1").await, (200, Some("m".to_owned())));
    }
    assert_eq!(named("claude-1").await.0, 400, "the model that was asked for has it not");
    let usual = ask(&weir, &with(chat("m"), "max_tokens", json!(8))).await;
    assert_eq!(usual.header("x-weir-model"), Some("cheap"));
}

#[tokio::test]
async fn when_to_come_again_is_when_there_is_room_and_no_later_than_a_target_cools() {
    let simulator = simulator();
    let credentials = "[{id: one, api_key: sk-1, rpm: 2}]";
    let pool = format!("{{kind: openai, base_url: 'http://{}/v1', credentials: {credentials}}}", simulator.addr());
    let limited = r#"{"error":{"message":"slow down","type":"rate_limit","code":"rate_limit_exceeded"}}"#;
    let far = Provider::refusing(429, "retry-after: 100000\r\n", limited).await;
    let silent = Provider::refusing(429, "", limited).await;
    let after = async |weir: &Weir, model: &str| {
        let answer = ask(weir, &chat(model)).await;
        assert_eq!(told(&answer), (429, Some("provider_limit")), "{model}");
        answer.header("retry-after").unwrap().parse::<u64>().unwrap()
    };
    let weir = config(&simulator, "", "")
        .provider("pool", &pool)
        .openai("far", &far.url())
        .openai("silent", &silent.url())
        .section("health: {cooldown: {rate_limit: 0s}, max_cooldown: 100s}")
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(ask(&weir, &chat("pool/gpt-5.5")).await.status, 200);
    }
    assert!((25..=30).contains(&after(&weir, "pool/gpt-5.5").await));
    assert_eq!(after(&weir, "far/x").await, 100);
    assert!((99..=100).contains(&after(&weir, "far/x").await));
    assert_eq!(after(&weir, "silent/x").await, 1);
}

#[tokio::test]
async fn a_body_that_is_broken_inside_is_its_callers_fault_where_its_provider_breaks_at_it() {
    let simulator = simulator();
    // As some servers do with what they cannot parse.
    let picky = Provider::start(|mut played| async move {
        let broken = serde_json::from_str::<Value>(&played.request.body).is_err();
        let body = if broken { r#"{"error":{"message":"parse error"}}"#.to_owned() } else { says_hi("") };
        let status = if broken { "500 X" } else { "200 OK" };
        played
            .write(&format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()))
            .await;
        played.close().await;
    })
    .await;
    let weir = config(&simulator, "", "")
        .openai("picky", &picky.url())
        .section("health: {min_samples: 3, cooldown: {server: 60s}}")
        .start()
        .await;
    assert_eq!(ask(&weir, &chat("picky/x")).await.status, 200);
    for _ in 0..6 {
        let broken = r#"{"model":"picky/x","messages":[{"role" "user"}]}"#;
        let answer = weir.chat().header("content-type", "application/json").body(broken).send().await;
        assert_eq!((told(&answer), answer.header("x-weir-attempts")), ((400, Some("caller_request")), Some("1")));
    }
    assert_eq!(told(&ask(&weir, &chat("picky/x")).await), (200, None), "it cools nothing");
}
