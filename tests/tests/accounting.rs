//! What callers may use and what they pay: limits, budgets, quotas, fallbacks, and the ledger that tells of each
//! request.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use weir_tests::ask::{chat, simulator, stream, stream_with_usage, with};
use weir_tests::client::{Answer, Call};
use weir_tests::patience::within;
use weir_tests::priced::{PRICED, ask, config, row};
use weir_tests::provider::Provider;
use weir_tests::weir::{Config, KEY, KEY_HASH, Weir};

/// What the simulator counts for [`chat`]: 6 tokens in, 8 out.
const TOKENS: u64 = 14;

fn limited(request: Value) -> Value {
    with(request, "max_tokens", json!(8))
}

#[tokio::test]
async fn a_limit_of_requests_is_told_with_each_answer_and_refuses_what_is_over() {
    let simulator = simulator();
    let weir = config(&simulator, "", "limits: {rpm: 2}").start().await;
    for left in ["1", "0"] {
        let answer = ask(&weir, &stream("m")).await;
        let told = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"].map(|name| answer.header(name));
        assert_eq!((answer.status.as_u16(), told), (200, [Some("2"), Some(left)]));
        assert!(answer.header("x-ratelimit-reset-requests").is_some());
        answer.text().await;
    }
    let refused = ask(&weir, &chat("m")).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-weir-error")), (429, Some("policy_limit")));
    let told = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"].map(|name| refused.header(name));
    assert_eq!(told, [Some("2"), Some("0")]);
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    let id = refused.id();
    assert_eq!(refused.json().await["error"]["code"], "rate_limit_exceeded");
    weir.logged(&id).await;
    assert!(weir.metrics().await.contains(r#"weir_limit_rejections_total{scope="key"} 1"#));
    assert_eq!(simulator.account().requests, 2);
}

#[tokio::test]
async fn a_limit_of_tokens_falls_by_exactly_what_the_provider_reports() {
    let simulator = simulator();
    let weir = config(&simulator, "limits: {tpm: 10000},", "").start().await;
    let mut used = 0;
    for body in [limited(chat("m")), chat("m"), stream("m"), stream_with_usage("m")] {
        let answer = ask(&weir, &body).await;
        assert_eq!(answer.status.as_u16(), 200);
        let id = answer.id();
        answer.text().await;
        weir.logged(&id).await;
        used += TOKENS;
    }
    let answer = ask(&weir, &chat("no-such-model")).await;
    let left: u64 = answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
    // The bucket fills again while the test runs, by 167 a second.
    assert!(left >= 10_000 - used && left <= 10_000, "{left}");
    assert_eq!(simulator.account().requests, 4);
}

#[tokio::test]
async fn a_limit_at_once_refuses_one_more_and_is_free_again_when_one_ends() {
    let simulator = simulator();
    let weir = config(&simulator, "", "limits: {concurrent: 1}").start().await;
    let mut held = ask(&weir, &stream("openai/gpt-5.5~events=50~silence=3")).await;
    assert!(held.piece().await.is_some());
    let refused = ask(&weir, &chat("m")).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-weir-error")), (429, Some("policy_limit")));
    held.leave();
    simulator.until(|account| account.in_flight == 0).await;
    weir.logged_more(1).await;
    assert_eq!(ask(&weir, &chat("m")).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_spent_key_and_one_that_may_not_reach_no_provider_by_any_route() {
    let simulator = simulator();
    let budget = "budgets: [{usd: 0.001, every: day}], models: [m, e, 'openai/*']";
    let weir = config(&simulator, "", budget)
        .model(&format!("{{name: e, type: text-embedding, targets: [{{provider: openai, model: text-embedding-3-small}}], {PRICED}}}"))
        .model("{name: other, targets: [{provider: openai, model: gpt-5.5}]}")
        .model("{name: other-e, type: text-embedding, targets: [{provider: openai, model: text-embedding-3-small}]}")
        .start()
        .await;
    let embed = |model: &str| json!({"model": model, "input": "some words to embed"});
    let complete = |model: &str| json!({"model": model, "prompt": "You are"});
    for (path, spent, forbidden) in [
        ("/v1/chat/completions", chat("m"), chat("other")),
        ("/v1/chat/completions", stream("m"), stream("other")),
        ("/v1/completions", complete("m"), complete("other")),
        ("/v1/embeddings", embed("e"), embed("other-e")),
    ] {
        let answer = weir.post(path).json(&spent).send().await;
        let told = (answer.status.as_u16(), answer.header("x-weir-error"), answer.header("x-should-retry"));
        assert_eq!(told, (429, Some("policy_budget"), Some("false")), "{path}");
        assert_eq!(answer.json().await["error"]["code"], "insufficient_quota");
        let answer = weir.post(path).json(&forbidden).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (403, Some("policy_forbidden")), "{path}");
    }
    assert_eq!(simulator.account().requests, 0);
}

#[tokio::test]
async fn two_hundred_requests_at_once_spend_no_more_than_the_budget() {
    let simulator = simulator();
    // Ten requests of 14 tokens cost 0.14 dollars; each holds its bound meanwhile.
    let weir = config(&simulator, "budgets: [{usd: 0.14, every: month}],", "").start().await;
    let asked = (0..200).map(|_| weir.chat().json(&limited(chat("m"))).send());
    let asked: JoinSet<Answer> = asked.collect();
    let answers: Vec<u16> = asked.join_all().await.iter().map(|answer| answer.status.as_u16()).collect();
    let served = answers.iter().filter(|status| **status == 200).count();
    assert!(answers.iter().all(|status| [200, 429].contains(status)) && (1..=10).contains(&served), "{served}");
    // What was held for those that had begun has been given back: what is left can be spent to the end.
    for _ in served..10 {
        ask(&weir, &limited(chat("m"))).await;
    }
    // Each is settled when it is in the log.
    weir.logged_more(199 + 10 - served).await;
    let spent: u64 = simulator.account().output_tokens + simulator.account().input_tokens;
    assert!(spent <= 10 * TOKENS, "{spent} tokens");
    let metrics = weir.metrics().await;
    assert!(metrics.contains(r#"weir_budget_reserved_usd{every="month",tenant="acme"} 0"#), "{metrics}");
    let told = format!(r#"weir_budget_used_usd{{every="month",tenant="acme"}} {}"#, spent as f64 / 1000.0);
    assert!(metrics.contains(&told), "{told} is not in {metrics}");
}

#[tokio::test]
async fn an_answer_is_cut_to_what_the_budget_can_still_pay_and_the_caller_is_told() {
    let simulator = simulator();
    let weir = config(&simulator, "", "budgets: [{usd: 0.2, every: week}]").start().await;
    let answer = ask(&weir, &with(chat("m"), "max_tokens", json!(5000))).await;
    let cut: u64 = answer.header("x-weir-max-tokens").unwrap().parse().unwrap();
    assert!((16..200).contains(&cut), "{cut}");
    assert_eq!(answer.status.as_u16(), 200);
    let sent = simulator.requests().last().unwrap().json();
    assert_eq!(sent["max_tokens"], cut);
    assert_eq!(answer.header("x-weir-cost-usd"), Some("0.014"));
}

#[tokio::test]
async fn a_request_costs_what_its_tier_costs_and_holds_the_dearest_that_it_may_get() {
    let usage = r#""usage":{"prompt_tokens":6,"completion_tokens":8,"total_tokens":14}"#;
    let choices = r#""choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]"#;
    let answer = format!(r#"{{"id":"c","object":"chat.completion","service_tier":"priority",{choices},{usage}}}"#);
    let (simulator, provider) = (simulator(), Provider::json(&answer).await);
    let prices = "{input: 1000, output: 1000, service_tiers: {priority: {input: 2000, output: 3000}}}";
    let weir = config(&simulator, "budgets: [{usd: 0.3, every: month}],", "")
        .openai("tiered", &provider.url())
        .model(&format!("{{name: t, targets: [{{provider: tiered, model: gpt}}], pricing: {prices}}}"))
        .start()
        .await;
    let asked = |tier: &str| with(with(chat("t"), "max_tokens", json!(100)), "service_tier", json!(tier));
    // A hundred tokens of an answer are 0.3 dollars with priority, and 0.1 without it.
    let cut = ask(&weir, &asked("auto")).await;
    let limit: u64 = cut.header("x-weir-max-tokens").unwrap().parse().unwrap();
    assert!((16..100).contains(&limit), "{limit}");
    assert_eq!(cut.header("x-weir-cost-usd"), Some("0.036"));
    weir.logged(&cut.id()).await;
    let whole = ask(&weir, &asked("default")).await;
    assert_eq!((whole.status.as_u16(), whole.header("x-weir-max-tokens")), (200, None));
    assert_eq!(row(&weir, &cut.id()).await["service_tier"], "priority");
    let usual = ask(&weir, &limited(chat("m"))).await;
    assert_eq!(row(&weir, &usual.id()).await["service_tier"], Value::Null);
    let told = Call::new(weir.admin(), "GET", "/admin/v1/usage/rows?format=csv&model=t").send().await.text().await;
    let ends: Vec<&str> = told.lines().map(|line| line.rsplit(',').nth(1).unwrap()).collect();
    assert_eq!(ends, ["service_tier", "priority", "priority"]);
}

#[tokio::test]
async fn every_request_has_its_row_with_what_it_used_and_cost() {
    let simulator = simulator();
    let other =
        "{id: other, keys: [{id: k, hash: 'sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'}]}";
    let weir = config(&simulator, "", "").tenant(other).start().await;
    let whole = weir.chat().header("x-weir-tags", "team-a, nightly").json(&chat("m")).send().await;
    let streamed = ask(&weir, &stream_with_usage("m")).await;
    let refused = ask(&weir, &chat("openai/gpt-5.5~status=400")).await;
    let mine = weir.chat().header("x-request-id", "my-own-id").json(&chat("m")).send().await;
    let ids = [whole.id(), streamed.id(), refused.id(), mine.id()];
    let text = streamed.text().await;
    assert!(text.contains(r#""cost_usd":0.014"#), "{text}");
    for id in [&ids[0], &ids[1], &ids[3]] {
        let row = row(&weir, id).await;
        assert_eq!((&row["cost_usd"], &row["accuracy"], &row["status"]), (&json!(0.014), &json!("exact"), &json!(200)));
        assert_eq!((&row["usage"]["input_tokens"], &row["usage"]["output_tokens"]), (&json!(6), &json!(8)));
        assert_eq!((&row["tenant"], &row["key"], &row["model"]), (&json!("acme"), &json!("ci"), &json!("m")));
        assert_eq!(row["attempts"][0]["target"], "openai/gpt-5.5");
    }
    assert_eq!(row(&weir, &ids[0]).await["tags"], json!(["team-a", "nightly"]));
    let row = row(&weir, &ids[2]).await;
    assert_eq!(
        (&row["status"], &row["error"], &row["cost_usd"]),
        (&json!(400), &json!("provider_error"), &Value::Null)
    );
    assert_eq!(row["attempts"][0]["status"], 400);
    assert_eq!(weir.get("/v1/usage/req_nothing").send().await.status.as_u16(), 404);
}

#[tokio::test]
async fn a_caller_that_leaves_has_a_row_that_says_how_far_it_is_to_be_relied_on() {
    let simulator = simulator();
    let weir = config(&simulator, "budgets: [{usd: 5, every: day}],", "").start().await;
    let mut answer = ask(&weir, &stream("openai/gpt-5.5~events=50~gap=20ms")).await;
    let id = answer.id();
    assert!(answer.piece().await.is_some());
    answer.leave();
    weir.logged(&id).await;
    let row = row(&weir, &id).await;
    assert_eq!((&row["status"], &row["error"]), (&json!(499), &json!("caller_gone")));
    assert!(["partial", "estimated"].contains(&row["accuracy"].as_str().unwrap()), "{row}");
    assert!(row["usage"]["output_tokens"].as_u64().unwrap() >= 1, "{row}");
    let metrics = weir.metrics().await;
    assert!(metrics.contains(r#"weir_budget_reserved_usd{every="day",tenant="acme"} 0"#), "{metrics}");
}

/// A budget of a tenant is charged what the rows of its requests cost.
async fn assert_charged(weir: &Weir, ids: &[String]) -> f64 {
    let mut cost = 0.0;
    for id in ids {
        cost += row(weir, id).await["cost_usd"].as_f64().unwrap_or_default();
    }
    let budget = admin(weir, "GET", "/admin/v1/budgets", &json!({})).await.1["budgets"][0].clone();
    assert!((budget["used_usd"].as_f64().unwrap() - cost).abs() < 1e-9, "{cost} is not used in {budget}");
    assert_eq!(budget["reserved_usd"], json!(0));
    cost
}

#[tokio::test]
async fn a_caller_that_leaves_or_lets_its_own_clock_run_out_pays_at_least_for_the_input() {
    let simulator = simulator();
    let silent = Provider::start(|played| played.hold()).await;
    let weir = config(&simulator, "budgets: [{usd: 50, every: day}],", "")
        .openai("silent", &silent.url())
        .model(&format!("{{name: s, targets: [{{provider: silent, model: gpt}}], {PRICED}}}"))
        .start()
        .await;
    let clock = weir.chat().header("x-weir-timeout-ms", "200").json(&limited(chat("s"))).send().await;
    assert_eq!((clock.status.as_u16(), clock.header("x-weir-error")), (504, Some("provider_timeout")));
    let mut raw = weir.connect().await;
    let body = limited(chat("s")).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {KEY}\r\nx-request-id: left\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    raw.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    weir_tests::patience::within("the request", silent.asked(2)).await;
    drop(raw);
    weir.logged("left").await;
    let ids = [clock.id(), "left".to_owned()];
    for id in &ids {
        let row = row(&weir, id).await;
        assert_eq!(row["accuracy"], "estimated");
        assert!(row["usage"]["input_tokens"].as_u64().unwrap() > 0, "{row}");
    }
    assert!(assert_charged(&weir, &ids).await > 0.0);
}

#[tokio::test]
async fn a_stream_that_is_left_pays_for_what_it_has_brought_though_its_provider_counted_only_its_beginning() {
    let simulator = simulator();
    let weir = config(&simulator, "budgets: [{usd: 50, every: day}],", "")
        .model(&format!(
            "{{name: c, targets: [{{provider: claude, model: 'claude-sonnet-4-6~events=50~gap=20ms'}}], {PRICED}}}"
        ))
        .start()
        .await;
    let mut answer = ask(&weir, &stream("c")).await;
    let id = answer.id();
    let mut read = String::new();
    while read.matches("\"content\":").count() < 8 {
        read.push_str(&String::from_utf8_lossy(&answer.piece().await.unwrap()));
    }
    answer.leave();
    weir.logged(&id).await;
    let row = row(&weir, &id).await;
    assert!(row["usage"]["output_tokens"].as_u64().unwrap() >= 7, "{row}");
    assert_charged(&weir, &[id]).await;
}

/// The parts of a row's usage and cost: what attempts used that did not answer.
fn spent(row: &Value) -> Vec<Value> {
    row["attempts"].as_array().unwrap().iter().map(|attempt| attempt["spent"].clone()).collect()
}

#[tokio::test]
async fn an_attempt_that_was_given_up_costs_its_input_at_its_own_price_and_one_that_was_refused_nothing() {
    let simulator = simulator();
    let clock = "timeouts: {first_byte: 150ms, connect: 100ms}, retries: {max: 0}, fallbacks: {any: [m]}";
    let model = |name: &str, target: &str| {
        format!("{{name: {name}, targets: [{target}], {clock}, pricing: {{input: 3000, output: 3000}}}}")
    };
    let weir = config(&simulator, "budgets: [{usd: 50, every: day}],", "")
        .openai("nowhere", "http://127.0.0.1:9/v1")
        .model(&model("late", "{provider: openai, model: 'gpt-5.5~delay=5s'}"))
        .model(&model("silent", "{provider: openai, model: 'gpt-5.5~first=5s'}"))
        .model(&model("counted", "{provider: claude, model: 'claude-sonnet-4-6~first=5s~times=1'}"))
        .model(&model("broken", "{provider: openai, model: 'gpt-5.5~cut=0'}"))
        .model(&model("refusing", "{provider: openai, model: 'gpt-5.5~status=500'}"))
        .model(&model("failing", "{provider: openai, model: 'gpt-5.5~error=500'}"))
        .model(&model("closed", "{provider: openai, model: 'gpt-5.5~close'}"))
        .model(&model("gone", "{provider: nowhere, model: gpt-5.5}"))
        .start()
        .await;
    let mut ids = Vec::new();
    for (name, is_paid) in [
        ("late", true),
        ("silent", true),
        ("counted", true),
        ("broken", true),
        ("refusing", false),
        ("failing", false),
        ("closed", false),
        ("gone", false),
    ] {
        let answer = ask(&weir, &limited(stream(name))).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-model")), (200, Some("m")), "{name}");
        ids.push(answer.id());
        answer.text().await;
        weir.logged(ids.last().unwrap()).await;
        let row = row(&weir, ids.last().unwrap()).await;
        let (input, spent) = (row["usage"]["input_tokens"].as_u64().unwrap(), spent(&row));
        assert_eq!(row["usage"]["output_tokens"], 8, "{name} {row}");
        if !is_paid {
            assert_eq!(
                (input, &row["accuracy"], &row["cost_usd"]),
                (6, &json!("exact"), &json!(0.014)),
                "{name} {row}"
            );
            assert_eq!(spent, [Value::Null, Value::Null], "{name}");
            continue;
        }
        let given_up = input - 6;
        assert!(given_up > 0 && row["accuracy"] == "estimated", "{name} {row}");
        assert_eq!(
            (&spent[0]["input_tokens"], &spent[0]["accuracy"]),
            (&json!(given_up), &json!("estimated")),
            "{name}"
        );
        assert_eq!((spent[0]["output_tokens"].as_u64(), &spent[1]), (Some(0), &Value::Null), "{name}");
        let cost = row["cost_usd"].as_f64().unwrap();
        assert!((cost - 0.014 - 0.003 * given_up as f64).abs() < 1e-9, "{name} {row}");
    }
    assert_charged(&weir, &ids).await;
}

#[tokio::test]
async fn what_a_provider_counted_of_an_attempt_that_failed_is_paid_as_it_was_counted() {
    let simulator = simulator();
    let failing =
        "targets: [{provider: claude, model: 'claude-sonnet-4-6~error=529~error_after=0'}], fallbacks: {any: [m]}";
    let weir = config(&simulator, "budgets: [{usd: 50, every: day}],", "")
        .model(&format!("{{name: c, {failing}, retries: {{max: 0}}, {PRICED}}}"))
        .start()
        .await;
    let answer = ask(&weir, &limited(stream("c"))).await;
    let id = answer.id();
    answer.text().await;
    weir.logged(&id).await;
    let row = row(&weir, &id).await;
    let account = simulator.account();
    let of_claude = account.rows.iter().find(|row| row.dialect == "anthropic").unwrap();
    assert_eq!(spent(&row)[0]["input_tokens"], of_claude.input_tokens, "{row}");
    assert_eq!((&spent(&row)[0]["accuracy"], &row["accuracy"]), (&json!("partial"), &json!("partial")));
    assert_eq!(row["usage"]["input_tokens"], account.input_tokens, "{row}");
    assert_charged(&weir, &[id]).await;
}

#[tokio::test]
async fn a_hedges_loser_costs_its_input() {
    let simulator = simulator();
    let targets = "[{provider: openai, model: 'gpt-5.5~delay=5s'}, {tier: 1, provider: openai, model: gpt-5.5}]";
    let weir = config(&simulator, "budgets: [{usd: 50, every: day}],", "")
        .model(&format!("{{name: h, targets: {targets}, hedge: {{after: 50ms, max_extra: 100%}}, {PRICED}}}"))
        .start()
        .await;
    let answer = ask(&weir, &limited(chat("h"))).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (200, Some("2")));
    let told: f64 = answer.header("x-weir-cost-usd").unwrap().parse().unwrap();
    let row = row(&weir, &answer.id()).await;
    let lost = spent(&row)[0]["input_tokens"].as_u64().unwrap();
    assert_eq!((&row["attempts"][0]["outcome"], spent(&row)[1].is_null()), (&json!("abandoned"), true));
    assert!(lost > 0 && row["usage"]["input_tokens"] == 6 + lost && row["accuracy"] == "estimated", "{row}");
    assert!((told - assert_charged(&weir, &[answer.id()]).await).abs() < 1e-9, "{told} {row}");
}

#[tokio::test]
async fn a_stream_that_the_end_of_the_process_cuts_pays_for_what_it_had_brought() {
    let simulator = simulator();
    let model = |name: &str, target: &str| format!("{{name: {name}, targets: [{target}], {PRICED}}}");
    let settings = config(&simulator, "budgets: [{usd: 50, every: month}],", "")
        .server("drain: 100ms")
        .model(&model("o", "{provider: openai, model: 'gpt-5.5~events=900~gap=10ms'}"))
        .model(&model("c", "{provider: claude, model: 'claude-sonnet-4-6~events=900~gap=10ms'}"));
    let mut weir = settings.start().await;
    let (mut ids, mut answers) = (Vec::new(), Vec::new());
    for name in ["o", "c"] {
        let mut answer = ask(&weir, &stream(name)).await;
        ids.push(answer.id());
        let mut read = String::new();
        while read.matches("\"content\":").count() < 8 {
            read.push_str(&String::from_utf8_lossy(&answer.piece().await.unwrap()));
        }
        answers.push(answer);
    }
    weir = weir.stopped_and_started(&settings).await;
    for (id, accuracy) in ids.iter().zip(["estimated", "partial"]) {
        let row = row(&weir, id).await;
        assert_eq!((&row["accuracy"], &row["error"]), (&json!(accuracy), &json!("gateway_fault")), "{row}");
        assert!(row["usage"]["input_tokens"].as_u64().unwrap() > 0, "{row}");
        assert!(row["usage"]["output_tokens"].as_u64().unwrap() >= 7, "{row}");
        assert!(row["cost_usd"].as_f64().unwrap() > 0.012, "{row}");
    }
    assert_charged(&weir, &ids).await;
}

#[tokio::test]
async fn a_fallback_takes_over_only_where_the_key_may_and_can_pay_for_it() {
    let simulator = simulator();
    let failing = |name: &str, to: &str| {
        format!(
            "{{name: {name}, targets: [{{provider: openai, model: 'gpt-5.5~status=500'}}], fallbacks: {{any: [{to}]}}}}"
        )
    };
    let long = "{name: short, targets: [{provider: openai, model: 'gpt-5.5~context=1'}], fallbacks: {context_window: [m], any: [dear]}}";
    let weir = config(&simulator, "", "models: [a, b, c, short, m, dear], budgets: [{usd: 1, every: day}]")
        .model(&failing("a", "m"))
        .model(&failing("b", "hidden"))
        .model(&failing("c", "dear"))
        .model(long)
        .model("{name: hidden, targets: [{provider: openai, model: gpt-5.5}]}")
        .model(
            "{name: dear, targets: [{provider: openai, model: gpt-5.5}], pricing: {input: 1000000, output: 1000000}}",
        )
        .start()
        .await;
    let taken = ask(&weir, &limited(chat("a"))).await;
    assert_eq!((taken.status.as_u16(), taken.header("x-weir-model")), (200, Some("m")));
    assert_eq!(ask(&weir, &limited(chat("b"))).await.status.as_u16(), 502);
    let spent = ask(&weir, &limited(chat("c"))).await;
    assert_eq!((spent.status.as_u16(), spent.header("x-weir-error")), (429, Some("policy_budget")));
    let long = ask(&weir, &limited(chat("short"))).await;
    assert_eq!((long.status.as_u16(), long.header("x-weir-model")), (200, Some("m")));
    assert!(weir.metrics().await.contains(r#"weir_fallbacks_total{from="a",to="m"} 1"#));
}

#[tokio::test]
async fn a_budget_that_runs_low_is_served_by_the_model_that_it_names() {
    let simulator = simulator();
    let weir = config(&simulator, "", "budgets: [{usd: 1, every: day, soft: 1%, on_exhaust: {model: small}}]")
        .model("{name: small, targets: [{provider: claude, model: claude-haiku-4-5}], pricing: {input: 1, output: 1}}")
        .start()
        .await;
    let first = ask(&weir, &limited(chat("m"))).await;
    assert_eq!(first.header("x-weir-model"), Some("m"));
    weir.logged(&first.id()).await;
    let second = ask(&weir, &limited(chat("m"))).await;
    assert_eq!((second.status.as_u16(), second.header("x-weir-model")), (200, Some("small")));
    assert!(weir.metrics().await.contains(r#"weir_budget_alerts_total{threshold="soft"} 1"#));
}

#[tokio::test]
async fn a_request_too_dear_for_what_is_left_is_cut_if_that_helps_and_else_answered_by_the_model_that_the_budget_names()
{
    let simulator = simulator();
    let small = |price: u32| {
        format!(
            "{{name: small, targets: [{{provider: claude, model: claude-haiku-4-5}}], pricing: {{input: {price}, output: {price}}}}}"
        )
    };
    let instead = "on_exhaust: {model: small}";
    // What `m` may cost at least is some 0.1 dollars: nothing is used, so neither budget is low.
    let (tight, ample) =
        (format!("budgets: [{{usd: 0.02, every: day, {instead}}}]"), "budgets: [{usd: 5, every: week}]");
    let asked = with(chat("m"), "max_tokens", json!(5000));
    for (tenant, key, price, status, model, is_cut) in [
        (String::new(), format!("budgets: [{{usd: 0.5, every: day, {instead}}}]"), 1, 200, "m", true),
        (String::new(), tight.clone(), 1, 200, "small", false),
        (String::new(), tight.clone(), 50, 200, "small", true),
        (String::new(), tight.clone(), 5_000, 429, "small", false),
        // The one that names a model is not the first that has not enough left.
        (format!("{tight},"), "budgets: [{usd: 0.02, every: week}]".to_owned(), 1, 200, "small", false),
        (format!("{tight},"), ample.to_owned(), 1, 200, "small", false),
        // What names no model refuses.
        (
            format!("budgets: [{{usd: 50, every: day, {instead}}}],"),
            "budgets: [{usd: 0.02, every: week}]".to_owned(),
            1,
            429,
            "m",
            false,
        ),
    ] {
        let weir = config(&simulator, &tenant, &key).model(&small(price)).start().await;
        let answer = ask(&weir, &asked).await;
        let told =
            (answer.status.as_u16(), answer.header("x-weir-model"), answer.header("x-weir-max-tokens").is_some());
        assert_eq!(told, (status, Some(model), is_cut), "{tenant} {key} {price}");
        if model == "small" {
            assert!(weir.metrics().await.contains(r#"weir_fallbacks_total{from="m",to="small"} 1"#), "{tenant} {key}");
        }
    }
}

#[tokio::test]
async fn a_fallback_too_dear_for_what_is_left_is_left_for_the_others_and_at_last_for_what_the_budget_names() {
    let simulator = simulator();
    let model = |name: &str, upstream: &str, price: u32, fallbacks: &str| {
        format!(
            "{{name: {name}, targets: [{{provider: openai, model: '{upstream}'}}], retries: {{max: 0}}, pricing: {{input: {price}, output: {price}}}, fallbacks: {{any: [{fallbacks}]}}}}"
        )
    };
    let weir = config(&simulator, "", "budgets: [{usd: 0.02, every: day, on_exhaust: {model: small}}]")
        .model(&model("small", "gpt-5.5-mini", 1, ""))
        .model(&model("other", "gpt-5.5", 1, ""))
        .model(&model("down", "gpt-5.5~status=500", 1, ""))
        .model(&model("to-dear", "gpt-5.5~status=500", 1, "m"))
        .model(&model("to-other", "gpt-5.5~status=500", 1, "m, other"))
        .model(&model("to-down", "gpt-5.5~status=500", 1, "m, down"))
        .model(&model("to-small", "gpt-5.5~status=500", 1, "small, m"))
        .start()
        .await;
    for (asked, answers) in [("to-dear", "small"), ("to-other", "other"), ("to-down", "small"), ("to-small", "small")] {
        let answer = ask(&weir, &limited(chat(asked))).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-model")), (200, Some(answers)), "{asked}");
    }
}

#[tokio::test]
async fn a_model_without_a_price_is_not_counted_or_refused_as_its_tenant_wants() {
    let simulator = simulator();
    let two =
        "{name: two, targets: [{provider: openai, model: x}, {tier: 1, provider: claude, model: claude-haiku-4-5}]}";
    for (unpriced, status, error, answers) in
        [("allow", 200, None, "openai"), ("refuse", 403, Some("policy_forbidden"), "claude")]
    {
        let tenant = format!("budgets: [{{usd: 5, every: day}}], unpriced: {unpriced},");
        let weir = config(&simulator, &tenant, "")
            .model("{name: x, targets: [{provider: openai, model: x}]}")
            .model(two)
            .model("{name: half, targets: [{provider: openai, model: x}], pricing: {input: 1}}")
            .start()
            .await;
        for model in ["x", "half"] {
            let answer = ask(&weir, &limited(chat(model))).await;
            assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (status, error), "{model} {unpriced}");
            assert_eq!(row(&weir, &answer.id()).await["cost_usd"], Value::Null, "{model} {unpriced}");
        }
        let answer = ask(&weir, &limited(chat("two"))).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-provider")), (200, Some(answers)));
        assert!(weir.stderr().contains("no price of `x` is known, so a budget of tenant `acme`"), "{}", weir.stderr());
    }
}

#[tokio::test]
async fn searches_and_where_a_request_was_served_are_in_its_row_and_its_cost() {
    let usage = r#"{"input_tokens":100,"output_tokens":10,"server_tool_use":{"web_search_requests":2,"web_fetch_requests":0},"inference_geo":"us"}"#;
    let content = r#"[{"type":"text","text":"Hi"}]"#;
    let answer = format!(
        r#"{{"id":"m","type":"message","role":"assistant","model":"c","content":{content},"stop_reason":"end_turn","usage":{usage}}}"#
    );
    let (simulator, provider) = (simulator(), Provider::json(&answer).await);
    let searching = "{kind: anthropic, base_url: 'URL', credentials: [{id: one, api_key: sk-ant}]}"
        .replace("URL", &provider.root());
    let asked = |model: &str| {
        let tools = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]);
        with(limited(chat(model)), "tools", tools)
    };
    for (unpriced, status) in [("allow", 200), ("refuse", 403)] {
        let weir = config(&simulator, &format!("budgets: [{{usd: 50, every: day}}], unpriced: {unpriced},"), "")
            .provider("searching", &searching)
            .model(&format!("{{name: known, targets: [{{provider: searching, model: claude-opus-5}}], {PRICED}}}"))
            .model(&format!("{{name: own, targets: [{{provider: searching, model: x}}], {PRICED}}}"))
            .start()
            .await;
        let known = ask(&weir, &asked("known")).await;
        assert_eq!(known.status.as_u16(), 200);
        let told = row(&weir, &known.id()).await;
        assert_eq!((&told["usage"]["web_searches"], &told["inference_geo"]), (&json!(2), &json!("us")), "{told}");
        assert_eq!(told["cost_usd"], json!(0.121 + 0.02), "{told}");
        // Nobody knows what a search costs there.
        let own = ask(&weir, &asked("own")).await;
        assert_eq!((own.status.as_u16(), row(&weir, &own.id()).await["cost_usd"].clone()), (status, Value::Null));
        assert_charged(&weir, &[known.id(), own.id()]).await;
    }
}

#[tokio::test]
async fn a_tenants_own_credentials_count_in_its_budgets_and_not_in_its_quotas() {
    let simulator = simulator();
    let own = "prefer: custom, providers: {openai: {credentials: [{id: mine, api_key: sk-own}]}},";
    let quota = "quotas: [{provider: openai, type: trial, unit: times, limit: 1}],";
    let weir = config(&simulator, &format!("budgets: [{{usd: 0.14, every: month}}], {own} {quota}"), "").start().await;
    for _ in 0..2 {
        let answer = ask(&weir, &limited(chat("m"))).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-credential")), (200, Some("mine")));
        weir.logged(&answer.id()).await;
    }
    let metrics = weir.metrics().await;
    assert!(metrics.contains(r#"weir_budget_used_usd{every="month",tenant="acme"} 0.028"#), "{metrics}");
}

#[tokio::test]
async fn a_tenants_quota_of_the_operators_credentials_is_used_up() {
    let simulator = simulator();
    let quota = "quotas: [{provider: openai, type: trial, unit: times, limit: 2}],";
    let weir = config(&simulator, quota, "").start().await;
    for _ in 0..2 {
        assert_eq!(ask(&weir, &chat("m")).await.status.as_u16(), 200);
    }
    let refused = ask(&weir, &chat("m")).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-weir-error")), (429, Some("policy_budget")));
    assert_eq!(ask(&weir, &chat("claude/claude-sonnet-4-6")).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_credentials_own_limits_turn_requests_to_the_next_one() {
    let simulator = simulator();
    let credentials = "[{id: small, api_key: sk-1, weight: 9, rpm: 2}, {id: large, api_key: sk-2}]";
    let provider = format!("{{kind: openai, base_url: 'http://{}/v1', credentials: {credentials}}}", simulator.addr());
    let weir = config(&simulator, "", "").provider("pool", &provider).start().await;
    let mut used = Vec::new();
    for _ in 0..8 {
        let answer = ask(&weir, &chat("pool/gpt-5.5")).await;
        assert_eq!(answer.status.as_u16(), 200);
        used.push(answer.header("x-weir-credential").unwrap().to_owned());
    }
    assert_eq!(used.iter().filter(|id| *id == "small").count(), 2, "{used:?}");
}

#[tokio::test]
async fn a_request_waits_a_little_for_a_slot_where_the_model_says_so() {
    let simulator = simulator();
    let credentials = "[{id: one, api_key: sk-1, concurrent: 1}]";
    let provider = format!("{{kind: openai, base_url: 'http://{}/v1', credentials: {credentials}}}", simulator.addr());
    let model = |name: &str, more: &str| {
        format!("{{name: {name}, targets: [{{provider: pool, model: 'gpt-5.5~delay=300ms'}}]{more}}}")
    };
    let weir = Config::of(&simulator)
        .provider("pool", &provider)
        .model(&model("patient", ", on_busy: {queue: 10s, max: 2}"))
        .model(&model("hasty", ""))
        .start()
        .await;
    let statuses = async |name: &str| {
        let asked: JoinSet<Answer> = (0..3).map(|_| weir.chat().json(&chat(name)).send()).collect();
        let mut statuses: Vec<u16> = asked.join_all().await.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(statuses("patient").await, [200, 200, 200]);
    assert_eq!(statuses("hasty").await, [200, 429, 429]);
}

#[tokio::test]
async fn who_waits_for_a_slot_gets_that_of_whichever_credential_comes_free_first() {
    let simulator = simulator();
    let credentials = "[{id: a, api_key: sk-a, concurrent: 1}, {id: b, api_key: sk-b, concurrent: 1}]";
    let provider = format!("{{kind: openai, base_url: 'http://{}/v1', credentials: {credentials}}}", simulator.addr());
    let weir = Config::of(&simulator)
        .provider("pool", &provider)
        .model("{name: long, targets: [{provider: pool, model: 'gpt-5.5~delay=60s', credential: a}]}")
        .model("{name: short, targets: [{provider: pool, model: 'gpt-5.5~delay=500ms', credential: b}]}")
        .model("{name: q, targets: [{provider: pool, model: 'gpt-5.5~delay=50ms'}], on_busy: {queue: 20s, max: 9}}")
        .start()
        .await;
    let long = weir.chat().json(&chat("long")).begin().await;
    simulator.until(|account| account.in_flight == 1).await;
    let short = weir.chat().json(&chat("short")).begin().await;
    simulator.until(|account| account.in_flight == 2).await;
    let asked: JoinSet<Answer> = (0..5).map(|_| weir.chat().json(&chat("q")).send()).collect();
    for answer in within("the slot of b", asked.join_all()).await {
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-credential")), (200, Some("b")));
    }
    short.leave();
    long.leave();
}

#[tokio::test]
async fn what_was_spent_is_known_after_a_kill_and_a_restart() {
    let simulator = simulator();
    let settings = config(&simulator, "budgets: [{usd: 0.084, every: month}],", "");
    let weir = settings.start().await;
    for _ in 0..2 {
        let answer = ask(&weir, &limited(chat("m"))).await;
        assert_eq!(answer.status.as_u16(), 200);
        row(&weir, &answer.id()).await;
    }
    let again = weir.killed_and_started(&settings).await;
    // 0.028 of 0.07 dollars are spent: not enough is left for a bound of some 20 tokens and more.
    let metrics = again.metrics().await;
    assert!(metrics.contains(r#"weir_budget_used_usd{every="month",tenant="acme"} 0.028"#), "{metrics}");
    assert_eq!(ask(&again, &with(chat("m"), "max_tokens", json!(30))).await.status.as_u16(), 429);
}

#[tokio::test]
async fn what_was_sent_before_a_kill_is_charged_its_input_once_and_what_waited_nothing() {
    let simulator = simulator();
    let clock = "timeouts: {first_byte: 100ms}, retries: {max: 0}, fallbacks: {any: [slow]}";
    let own = "budgets: [{usd: 500, every: month}], quotas: [{provider: openai, type: paid, unit: tokens, limit: 1m}],";
    let model = |name: &str, target: &str, more: &str| {
        format!("{{name: {name}, targets: [{{provider: openai, model: 'gpt-5.5~{target}'}}], {PRICED}{more}}}")
    };
    let settings = config(&simulator, own, "")
        .model(&model("late", "first=60s", &format!(", {clock}")))
        .model(&model("slow", "delay=60s", ""))
        .model(&model("cool", "status=429~retry_after=30", ", when_all_cool: wait"))
        .section("health: {max_wait: 60s}");
    let weir = settings.start().await;
    let mut open = Vec::new();
    for (id, body) in [("late", stream("late")), ("slow", stream("slow")), ("cool", chat("cool"))] {
        open.push(weir.chat().header("x-request-id", id).json(&body).begin().await);
    }
    simulator.until(|account| (account.requests, account.refused) == (4, 1)).await;
    // All that is open is noted on the disk, and what cools waits.
    weir.measures(&["weir_ledger_lag_seconds 0", "weir_cooldowns_total{cause=\"rate_limit\"} 1"]).await;
    let mut weir = weir.killed_and_started(&settings).await;
    for start in 0..3 {
        let rows = [row(&weir, "late").await, row(&weir, "slow").await, row(&weir, "cool").await];
        let input = rows[1]["usage"]["input_tokens"].as_u64().unwrap();
        assert!(input > 0, "{rows:?}");
        let one = json!({"input_tokens": input, "output_tokens": 0, "cost_usd": 1e-3 * input as f64, "accuracy": "estimated"});
        assert_eq!(
            rows.each_ref().map(spent),
            [vec![one.clone(), one.clone()], vec![one], vec![Value::Null]],
            "{rows:?}"
        );
        for (row, inputs) in rows.iter().zip([2, 1, 0]) {
            assert_eq!((&row["provider"], &row["credential"]), (&json!("openai"), &json!("openai-1")));
            assert_eq!(
                (&row["usage"]["input_tokens"], &row["error"]),
                (&json!(input * inputs), &json!("gateway_fault"))
            );
        }
        let told = |page: Value, of: &str| page[of][0].clone();
        let budget = told(admin(&weir, "GET", "/admin/v1/budgets", &json!({})).await.1, "budgets");
        let quota = told(admin(&weir, "GET", "/admin/v1/quotas", &json!({})).await.1, "quotas");
        assert_eq!(
            (&budget["used_usd"], &budget["reserved_usd"]),
            (&json!(3e-3 * input as f64), &json!(0)),
            "start {start}"
        );
        assert_eq!(quota["used"], 3 * input, "start {start}: {quota}");
        weir = weir.killed_and_started(&settings).await;
    }
}

/// What the admin API answers.
async fn admin(weir: &Weir, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = Call::new(weir.admin(), method, path).json(body).send().await;
    (answer.status.as_u16(), answer.json().await)
}

#[tokio::test]
async fn the_admin_api_tells_budgets_and_raises_one_for_a_while() {
    let simulator = simulator();
    let budgets = "budgets: [{usd: 0.07, every: month}],";
    let weir = config(&simulator, budgets, "budgets: [{usd: 100, every: day}]").start().await;
    let mut answered = 0;
    loop {
        let answer = ask(&weir, &limited(chat("m"))).await;
        weir.logged(&answer.id()).await;
        if answer.status != 200 {
            break;
        }
        answered += 1;
        assert!(answered < 10, "the budget is never spent");
    }
    assert!(answered > 0);
    let (_, told) = admin(&weir, "GET", "/admin/v1/budgets?tenant=acme", &json!({})).await;
    let ids: Vec<_> = told["budgets"].as_array().unwrap().iter().map(|budget| budget["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["key/acme/ci/usd/day", "tenant/acme/usd/month"]);
    let spent = &told["budgets"][1];
    assert_eq!((&spent["limit_usd"], &spent["reserved_usd"]), (&json!(0.07), &json!(0)));
    assert_eq!(spent["window"]["every"], "month");
    assert!((spent["used_usd"].as_f64().unwrap() - f64::from(answered) * 0.014).abs() < 1e-9, "{spent}");
    let raise = "/admin/v1/budgets/tenant/acme/usd/month/raise";
    let terms = json!({"usd": 42.5, "until": "2999-01-01T00:00:00Z"});
    let (status, raised) = admin(&weir, "PUT", raise, &terms).await;
    assert_eq!((status, &raised["limit_usd"], &raised["used_usd"]), (200, &json!(42.5), &spent["used_usd"]));
    assert_eq!(ask(&weir, &limited(chat("m"))).await.status, 200);
    let (_, page) = admin(&weir, "GET", "/admin/v1/budgets?limit=1", &json!({})).await;
    assert_eq!((page["budgets"].as_array().unwrap().len(), &page["next"]), (1, &json!("key/acme/ci/usd/day")));
    let (_, page) = admin(&weir, "GET", "/admin/v1/budgets?after=key/acme/ci/usd/day", &json!({})).await;
    assert_eq!((&page["budgets"][0]["id"], &page["next"]), (&json!("tenant/acme/usd/month"), &json!(null)));
    for (path, terms, status) in [
        ("/admin/v1/budgets/tenant/none/usd/month/raise", &terms, 404),
        (raise, &json!({"usd": 1, "until": "2020-01-01T00:00:00Z"}), 400),
        (raise, &json!({"usd": -1, "until": "2999-01-01T00:00:00Z"}), 400),
        (raise, &json!({"usd": 1}), 400),
    ] {
        assert_eq!(admin(&weir, "PUT", path, terms).await.0, status, "{path} {terms}");
    }
}

#[tokio::test]
async fn a_raised_budget_outlives_a_kill_and_ends_when_it_should() {
    let simulator = simulator();
    let settings = config(&simulator, "budgets: [{usd: 0.02, every: month}],", "");
    let weir = settings.start().await;
    let raise = "/admin/v1/budgets/tenant/acme/usd/month/raise";
    let until = |seconds: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
    let far = until(3_600);
    assert_eq!(admin(&weir, "PUT", raise, &json!({"usd": 5, "until": far})).await.0, 200);
    let weir = weir.killed_and_started(&settings).await;
    let told = async |weir: &Weir| admin(weir, "GET", "/admin/v1/budgets", &json!({})).await.1["budgets"][0].clone();
    let budget = told(&weir).await;
    assert_eq!((&budget["limit_usd"], budget["raised_until"].is_string()), (&json!(5), true), "{budget}");
    assert_eq!(ask(&weir, &with(chat("m"), "max_tokens", json!(100))).await.header("x-weir-max-tokens"), None);
    assert_eq!(admin(&weir, "PUT", raise, &json!({"usd": 6, "until": until(2)})).await.0, 200);
    let weir = weir.killed_and_started(&settings).await;
    while told(&weir).await["limit_usd"] != json!(0.02) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(told(&weir).await["raised_until"], Value::Null);
    let weir = weir.stopped_and_started(&settings).await;
    assert_eq!(told(&weir).await["limit_usd"], json!(0.02));
}

#[tokio::test]
async fn a_raise_is_ended_before_its_time_and_stays_so_over_a_kill() {
    let simulator = simulator();
    let settings = config(&simulator, "budgets: [{usd: 0.02, every: month}],", "");
    let weir = settings.start().await;
    let raise = "/admin/v1/budgets/tenant/acme/usd/month/raise";
    let (status, told) = admin(&weir, "DELETE", raise, &json!({})).await;
    assert_eq!((status, &told["error"]["code"]), (404, &json!("not_found")), "{told}");
    assert_eq!(admin(&weir, "PUT", raise, &json!({"usd": 5, "until": "2999-01-01T00:00:00Z"})).await.0, 200);
    let (status, told) = admin(&weir, "DELETE", raise, &json!({})).await;
    assert_eq!((status, &told["limit_usd"], &told["raised_until"]), (200, &json!(0.02), &Value::Null));
    assert_eq!(admin(&weir, "DELETE", raise, &json!({})).await.0, 404);
    let weir = weir.killed_and_started(&settings).await;
    let (_, told) = admin(&weir, "GET", "/admin/v1/budgets", &json!({})).await;
    assert_eq!(told["budgets"][0]["limit_usd"], json!(0.02));
    assert_eq!(admin(&weir, "DELETE", "/admin/v1/budgets/tenant/none/usd/month/raise", &json!({})).await.0, 404);
    assert_eq!(
        admin(&weir, "PUT", raise, &json!({"usd": 7, "until": "2999-01-01T00:00:00Z"})).await.1["limit_usd"],
        json!(7)
    );
}

#[tokio::test]
async fn a_budget_that_a_reload_takes_away_and_brings_back_is_as_spent_as_before() {
    let simulator = simulator();
    let settings = config(&simulator, "budgets: [{usd: 0.084, every: month}],", "");
    let weir = settings.start().await;
    for _ in 0..2 {
        row(&weir, &ask(&weir, &limited(chat("m"))).await.id()).await;
    }
    let used = async || admin(&weir, "GET", "/admin/v1/budgets", &json!({})).await.1["budgets"].clone();
    let reload = async |settings: &Config| {
        std::fs::write(weir.folder().join("weir.yaml"), settings.yaml(weir.folder())).unwrap();
        assert_eq!(admin(&weir, "POST", "/admin/v1/config/reload", &json!({})).await.0, 200);
    };
    reload(&config(&simulator, "", "")).await;
    assert_eq!(used().await, json!([]));
    assert_eq!(ask(&weir, &limited(chat("m"))).await.status, 200);
    reload(&settings).await;
    assert_eq!(used().await[0]["used_usd"], json!(0.028));
    assert_eq!(ask(&weir, &with(chat("m"), "max_tokens", json!(30))).await.status.as_u16(), 429);
}

#[tokio::test]
async fn a_locked_configuration_lets_nobody_raise_a_budget() {
    let simulator = simulator();
    let weir = config(&simulator, "budgets: [{usd: 1, every: day}],", "").server("locked: true").start().await;
    let terms = json!({"usd": 2, "until": "2999-01-01T00:00:00Z"});
    let (status, told) = admin(&weir, "PUT", "/admin/v1/budgets/tenant/acme/usd/day/raise", &terms).await;
    assert_eq!((status, &told["error"]["code"]), (403, &json!("locked")));
    assert_eq!(admin(&weir, "DELETE", "/admin/v1/budgets/tenant/acme/usd/day/raise", &json!({})).await.0, 403);
}

/// Standard error on a disk that is full is what a full disk does to most.
#[tokio::test]
async fn who_cannot_write_its_log_serves_keeps_and_tells_all_the_same() {
    let simulator = simulator();
    let settings = config(&simulator, "budgets: [{usd: 5, every: month}],", "");
    let weir = settings.start().await;
    let log = weir.folder().join("stderr");
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let mut weir = weir.stopped_and_started(&settings).await;
    assert_eq!(admin(&weir, "POST", "/admin/v1/config/reload", &json!({})).await.0, 200);
    let terms = json!({"usd": 6, "until": "2999-01-01T00:00:00Z"});
    assert_eq!(admin(&weir, "PUT", "/admin/v1/budgets/tenant/acme/usd/month/raise", &terms).await.0, 200);
    let id = ask(&weir, &limited(chat("m"))).await.id();
    assert_eq!(row(&weir, &id).await["status"], 200);
    weir.signal("TERM");
    assert_eq!(weir.ended().await.code(), Some(0));
}

/// What a caller has read whole it has paid for: its next request finds what is left.
#[tokio::test]
async fn an_answer_is_paid_for_before_its_last_byte_has_gone_out() {
    // More than sockets hold, so that the last byte waits for its reader.
    let text = "x".repeat(48 << 20);
    let provider = Provider::json(&format!(
        r#"{{"id":"x","object":"chat.completion","model":"m","choices":[{{"index":0,"message":{{"content":"{text}"}}}}],
            "usage":{{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}}}"#
    ))
    .await;
    let tenant = format!("budgets: [{{usd: 5, every: month}}], keys: [{{id: ci, hash: '{KEY_HASH}'}}]");
    let weir = Config::new()
        .openai("p", &provider.url())
        .model(&format!("{{name: m, targets: [{{provider: p, model: m}}], {PRICED}}}"))
        .tenant(&format!("{{id: acme, {tenant}}}"))
        .start()
        .await;
    let answer = ask(&weir, &limited(chat("m"))).await;
    assert_eq!(answer.status, 200);
    let (_, told) = admin(&weir, "GET", "/admin/v1/budgets", &json!({})).await;
    let budget = &told["budgets"][0];
    assert_eq!((&budget["used_usd"], &budget["reserved_usd"]), (&json!(0.015), &json!(0)), "{budget}");
    assert!(answer.text().await.len() > text.len());
}

#[tokio::test]
async fn the_admin_api_tells_quotas_and_refuses_what_it_does_not_do_with_a_word() {
    let simulator = simulator();
    let quotas = "quotas: [{provider: openai, type: trial, unit: times, limit: 3}, \
                  {provider: openai, type: paid, unit: tokens, limit: -1, expires: 2999-01-01}],";
    let weir = config(&simulator, quotas, "").server("admin_token: a-token-of-the-admin").start().await;
    let call = |method: &str, path: &str, scheme: &str| {
        Call::new(weir.admin(), method, path).header("authorization", &format!("{scheme} a-token-of-the-admin"))
    };
    weir.logged(&ask(&weir, &limited(chat("m"))).await.id()).await;
    let told = call("GET", "/admin/v1/quotas", "bearer").send().await.json().await;
    let rows = told["quotas"].as_array().unwrap();
    let row = |place: usize| ["id", "unit", "limit", "used", "left"].map(|name| rows[place][name].clone());
    assert_eq!(rows.len(), 2, "{told}");
    let paid = "quota/acme/openai/paid/tokens";
    assert_eq!(row(0), [json!(paid), json!("tokens"), json!(null), json!(TOKENS), json!(null)]);
    assert_eq!(row(1), [json!("quota/acme/openai/trial/times"), json!("times"), json!(3), json!(0), json!(3)]);
    assert!(rows[0]["expires"].as_str().unwrap().starts_with("2999-01-0"), "{told}");
    let page = call("GET", "/admin/v1/quotas?limit=1&tenant=acme", "BEARER").send().await.json().await;
    assert_eq!((page["quotas"].as_array().unwrap().len(), &page["next"]), (1, &json!(paid)));
    let refused = call("POST", "/admin/v1/quotas", "Bearer").send().await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, Some("GET,HEAD")));
    assert_eq!(refused.json().await["error"]["code"], "method_not_allowed");
    assert_eq!(call("GET", "/admin/v1/quotas", "Basic").send().await.status, 401);
    let document = call("GET", "/admin/openapi.json", "Bearer").send().await.json().await;
    assert_eq!(document["openapi"], "3.1.0");
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let answer = call(&method.to_uppercase(), &path.replace("{id}", "none"), "Bearer").send().await;
            let (status, text) = (answer.status.as_u16(), answer.text().await);
            let is_there = status != 405 && !text.contains("There is no endpoint");
            assert!(is_there, "{method} {path}: {status} {text}");
        }
    }
}
