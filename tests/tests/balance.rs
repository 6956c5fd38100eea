//! Which target a request goes to: what cools whom and for how long, who may see it, and who may end it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::ask::{chat, simulator, stream};
use weir_tests::client::Call;
use weir_tests::patience::within;
use weir_tests::provider::Provider;
use weir_tests::weir::{Config, Weir};

/// Cooldowns as they are by default.
const HEALTH: &str = "health: {min_samples: 5}";

/// The provider `p` with the credentials `a` and `b`, and a model `m` there with these directives.
fn two_credentials(simulator: &Simulator, directives: &str, health: &str) -> Config {
    let url = format!("http://{}/v1", simulator.addr());
    Config::new()
        .provider("p", &format!("{{kind: openai, base_url: '{url}', credentials: [{{id: a, api_key: sk-a, weight: 1000}}, {{id: b, api_key: sk-b}}]}}"))
        .model(&format!("{{name: m, targets: [{{provider: p, model: 'gpt-5.5~{directives}', credential: a}}, {{tier: 1, provider: p, model: gpt-5.5, credential: b}}], retries: {{max: 2}}}}"))
        .model("{name: other, targets: [{provider: p, model: gpt-5.4, credential: a}, {tier: 1, provider: p, model: gpt-5.4, credential: b}]}")
        .section(health)
}

async fn targets(weir: &Weir) -> Vec<Value> {
    let answer = Call::new(weir.admin(), "GET", "/admin/v1/targets").send().await;
    assert_eq!(answer.status, 200);
    answer.json().await["targets"].as_array().unwrap().clone()
}

async fn target(weir: &Weir, id: &str) -> Value {
    targets(weir).await.into_iter().find(|target| target["id"] == id).unwrap()
}

async fn reset(weir: &Weir, id: &str) -> u16 {
    Call::new(weir.admin(), "POST", &format!("/admin/v1/targets/{id}/reset")).send().await.status.as_u16()
}

/// The credential that answered, and at which attempt.
async fn asked(weir: &Weir, model: &str) -> (String, String) {
    let answer = weir.chat().json(&chat(model)).send().await;
    let told = |name| answer.header(name).unwrap_or_default().to_owned();
    (told("x-weir-credential"), told("x-weir-attempts"))
}

fn at(credential: &str, attempts: &str) -> (String, String) {
    (credential.to_owned(), attempts.to_owned())
}

#[tokio::test]
async fn a_limit_cools_one_model_of_one_credential() {
    let simulator = simulator();
    let weir = two_credentials(&simulator, "status=429", HEALTH).start().await;
    assert_eq!(asked(&weir, "m").await, at("b", "2"));
    assert_eq!(asked(&weir, "m").await, at("b", "1"));
    assert_eq!(asked(&weir, "other").await, at("a", "1"));
    let cooling = target(&weir, "p/a/gpt-5.5~status=429").await;
    assert_eq!(
        (&cooling["state"], &cooling["reason"], &cooling["share"]),
        (&json!("cooling"), &json!("rate_limit"), &json!(0.0))
    );
    assert!(cooling["until"].is_string());
    assert_eq!(target(&weir, "p/a/gpt-5.4").await["state"], "ready");
    let metrics = weir.metrics().await;
    assert!(metrics.contains(r#"weir_cooldowns_total{cause="rate_limit"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"weir_target_state{target="p/a/gpt-5.5~status=429"} 0"#), "{metrics}");
    assert!(metrics.contains(r#"weir_target_state{target="p/b/gpt-5.5"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_refused_credential_cools_for_all_models() {
    let simulator = simulator();
    for status in [401, 402] {
        let weir = two_credentials(&simulator, &format!("status={status}"), HEALTH).start().await;
        assert_eq!(asked(&weir, "m").await, at("b", "2"), "{status}");
        assert_eq!(asked(&weir, "other").await, at("b", "1"), "{status}");
    }
}

#[tokio::test]
async fn what_a_credential_may_not_ask_goes_to_another_one_and_cools_nothing() {
    let simulator = simulator();
    let weir = two_credentials(&simulator, "status=403", HEALTH).start().await;
    for _ in 0..3 {
        assert_eq!(asked(&weir, "m").await, at("b", "2"));
        assert_eq!(asked(&weir, "other").await, at("a", "1"));
    }
    assert!(targets(&weir).await.iter().all(|target| target["state"] == "ready"));
}

#[tokio::test]
async fn a_failing_server_cools_after_as_many_failures_as_are_set() {
    let simulator = simulator();
    for directives in ["status=500", "status=529", "close", "truncate"] {
        let weir = two_credentials(&simulator, directives, HEALTH).start().await;
        for number in 0..5 {
            // What is lost with a connection that was used before goes out again.
            let attempts = if directives == "close" && number > 0 { "3" } else { "2" };
            assert_eq!(asked(&weir, "m").await, at("b", attempts), "{directives}");
        }
        assert_eq!(asked(&weir, "m").await, at("b", "1"), "{directives}");
        assert_eq!(asked(&weir, "other").await, at("a", "1"), "{directives}");
    }
}

#[tokio::test]
async fn a_bad_request_and_an_impatient_caller_cool_nothing() {
    let simulator = simulator();
    for directives in ["status=400", "status=404", "status=413", "status=422", "delay=300ms"] {
        let weir = two_credentials(&simulator, directives, "health: {min_samples: 1, error_rate: 1%}").start().await;
        for _ in 0..20 {
            let call = weir.chat().json(&chat("m"));
            let answer = if directives.starts_with("delay") { call.header("x-weir-timeout-ms", "20") } else { call };
            // A model that is not there is asked of the next target.
            assert_eq!(answer.send().await.status.is_success(), directives == "status=404");
        }
        for _ in 0..3 {
            let pending = weir.chat().json(&stream("m")).begin().await;
            pending.leave();
        }
        assert!(targets(&weir).await.iter().all(|target| target["state"] == "ready"), "{directives}");
    }
}

#[tokio::test]
async fn while_all_cool_the_caller_is_told_when_to_come_again_and_no_provider_is_asked() {
    let simulator = simulator();
    for (directives, status, kind, after) in [
        ("status=429~retry_after=7", 429, "provider_limit", 1..=7),
        ("status=429", 429, "provider_limit", 50..=60),
        ("status=401", 503, "provider_unreachable", 1..=10),
    ] {
        let model = format!("{{name: m, targets: [{{provider: openai, model: 'gpt-5.5~{directives}'}}]}}");
        let weir = Config::of(&simulator).model(&model).section(HEALTH).start().await;
        weir.chat().json(&chat("m")).header("x-weir-no-retry", "1").send().await;
        simulator.reset();
        for request in [chat("m"), stream("m")] {
            let answer = weir.chat().json(&request).send().await;
            assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (status, Some(kind)), "{directives}");
            let told: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!(after.contains(&told), "{directives}: {told}");
            assert_eq!(answer.header("x-weir-attempts"), Some("0"));
        }
        assert_eq!(simulator.account().requests, 0);
    }
}

#[tokio::test]
async fn a_cooldown_ends_by_itself_with_one_probe_at_a_time() {
    let simulator = simulator();
    let model = "{name: m, targets: [{provider: openai, model: 'gpt-5.5~status=429~retry_after=1~times=1'}, {tier: 1, provider: claude, model: claude-sonnet-4-6}]}";
    let weir = Config::of(&simulator).model(model).section(HEALTH).start().await;
    assert_eq!(asked(&weir, "m").await, at("claude-1", "2"));
    assert_eq!(asked(&weir, "m").await, at("claude-1", "1"));
    let id = "openai/openai-1/gpt-5.5~status=429~retry_after=1~times=1";
    let over = async {
        while target(&weir, id).await["state"] != "probation" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the end of the cooldown", over).await;
    assert_eq!(asked(&weir, "m").await, at("openai-1", "1"));
    let well = target(&weir, id).await;
    assert_eq!((&well["state"], &well["reason"]), (&json!("ready"), &json!(null)));
}

#[tokio::test]
async fn a_reset_takes_a_target_or_a_credential_back_in() {
    let simulator = simulator();
    let weir = two_credentials(&simulator, "status=401~times=1", HEALTH).start().await;
    for id in ["p/a/gpt-5.5~status=401~times=1", "p/a", "p%2Fa"] {
        assert_eq!(asked(&weir, "m").await, at("b", "2"), "{id}");
        assert_eq!(reset(&weir, id).await, 200);
        assert_eq!(asked(&weir, "m").await, at("a", "1"), "{id}");
        simulator.reset();
    }
    for nonsense in ["p", "p/c", "nowhere", "p/a/gpt-5.5/reset"] {
        assert_eq!(reset(&weir, nonsense).await, 404, "{nonsense}");
    }
}

#[tokio::test]
async fn a_reload_keeps_the_cooldown_of_what_did_not_change_and_a_new_key_starts_anew() {
    let simulator = simulator();
    let config = two_credentials(&simulator, "status=401", HEALTH);
    let weir = config.start().await;
    assert_eq!(asked(&weir, "other").await, at("a", "1"));
    assert_eq!(asked(&weir, "m").await, at("b", "2"));
    let file = weir.folder().join("weir.yaml");
    let written = std::fs::read_to_string(&file).unwrap();
    let reload = async |yaml: &str| {
        let new = weir.folder().join("new");
        std::fs::write(&new, yaml).unwrap();
        std::fs::rename(&new, &file).unwrap();
        let answer = Call::new(weir.admin(), "POST", "/admin/v1/config/reload").send().await;
        assert_eq!(answer.status, 200);
    };
    reload(&format!("{written}\n# more\n")).await;
    assert_eq!(asked(&weir, "other").await, at("b", "1"));
    reload(&written.replace("api_key: sk-a,", "api_key: sk-new,")).await;
    assert_eq!(asked(&weir, "other").await, at("a", "1"));
}

#[tokio::test]
async fn names_in_the_place_of_a_star_cool_each_for_itself() {
    let simulator = simulator();
    let weir = Config::of(&simulator)
        .model("{name: 'any/*', targets: [{provider: openai, model: '*'}]}")
        .section(HEALTH)
        .start()
        .await;
    for prefix in ["any", "openai"] {
        let ask = async |model: &str| {
            let call = weir.chat().json(&chat(&format!("{prefix}/{model}"))).header("x-weir-no-retry", "1");
            call.send().await.status.as_u16()
        };
        assert_eq!((ask("gpt-5.5~status=429").await, ask("gpt-5.5").await), (429, 200));
    }
    let ids: Vec<_> = targets(&weir).await.into_iter().filter(|target| target["state"] == "cooling").collect();
    assert!(
        !ids.is_empty() && ids.iter().all(|target| target["id"] == "openai/openai-1/gpt-5.5~status=429"),
        "{ids:?}"
    );
    let metrics = weir.metrics().await;
    assert!(!metrics.contains("target=\"openai/openai-1/gpt-5.5"), "{metrics}");
}

#[tokio::test]
async fn requests_are_spread_by_the_policy() {
    let simulator = simulator();
    let url = format!("http://{}/v1", simulator.addr());
    let provider = format!(
        "{{kind: openai, base_url: '{url}', credentials: [{{id: a, api_key: sk-a, weight: 3}}, {{id: b, api_key: sk-b}}]}}"
    );
    for (policy, shares) in [("weighted", [30, 10]), ("round_robin", [20, 20]), ("least_busy", [30, 10])] {
        let model = format!("{{name: m, targets: [{{provider: p, model: gpt-5.5}}], balance: {policy}}}");
        let weir = Config::new().provider("p", &provider).model(&model).start().await;
        let mut counts: BTreeMap<String, i32> = BTreeMap::new();
        for _ in 0..40 {
            *counts.entry(asked(&weir, "m").await.0).or_default() += 1;
        }
        let near = counts.values().zip(shares).all(|(count, share): (&i32, i32)| (count - share).abs() <= 2);
        assert!(near && counts.len() == 2, "{policy}: {counts:?}");
    }
}

#[tokio::test]
async fn the_least_busy_target_is_free_of_the_slow_ones_requests() {
    let simulator = simulator();
    let model = "{name: m, targets: [{provider: openai, model: 'gpt-5.5~delay=20s'}, {provider: claude, model: claude-sonnet-4-6}], balance: least_busy}";
    let weir = Config::of(&simulator).model(model).start().await;
    let mut waiting = Vec::new();
    let mut answered = 0;
    while answered < 20 {
        let pending = weir.chat().json(&chat("m")).begin().await;
        let mut answer = Box::pin(pending.answer());
        match tokio::time::timeout(Duration::from_secs(1), &mut answer).await {
            Ok(answer) => answered += i32::from(answer.header("x-weir-provider") == Some("claude")),
            Err(_) => waiting.push(answer),
        }
    }
    assert!(waiting.len() <= 2, "{} went to the slow one", waiting.len());
}

/// Two targets that are alike, and what relates requests.
fn twins(simulator: &Simulator, affinity: &str, first: &str) -> Config {
    let url = format!("http://{}/v1", simulator.addr());
    Config::new()
        .provider("p", &format!("{{kind: openai, base_url: '{url}', credentials: [{{id: a, api_key: sk-a}}, {{id: b, api_key: sk-b}}]}}"))
        .model(&format!("{{name: m, targets: [{{provider: p, model: 'gpt-5.5{first}', credential: a}}, {{provider: p, model: gpt-5.5, credential: b}}]{affinity}}}"))
}

/// The credential that answered this request.
async fn went_to(weir: &Weir, request: &Value, header: Option<(&str, &str)>) -> String {
    let call = weir.chat().json(request);
    let call = header.into_iter().fold(call, |call, (name, value)| call.header(name, value));
    let answer = call.send().await;
    assert_eq!(answer.status, 200);
    answer.header("x-weir-credential").unwrap().to_owned()
}

#[tokio::test]
async fn a_session_stays_at_one_target_turn_after_turn() {
    let simulator = simulator();
    for (affinity, header) in [
        (", affinity: {by: [header:x-session-id]}", Some("x-session-id")),
        (", affinity: {by: [header:x-session-id, prompt_prefix]}", None),
        ("", Some("x-weir-cache-affinity")),
    ] {
        let weir = twins(&simulator, affinity, "").start().await;
        let mut used = BTreeMap::new();
        for session in 0..8 {
            let session = format!("session-{session}");
            let mut request = chat("m");
            request["messages"][0]["content"] = json!(session);
            let header = header.map(|name| (name, session.as_str()));
            let first = went_to(&weir, &request, header).await;
            for turn in 0..20 {
                for role in ["assistant", "user"] {
                    let message = json!({"role": role, "content": format!("turn {turn}")});
                    request["messages"].as_array_mut().unwrap().push(message);
                }
                assert_eq!(went_to(&weir, &request, header).await, first, "{affinity}, turn {turn}");
            }
            *used.entry(first).or_insert(0) += 1;
        }
        assert_eq!(used.len(), 2, "all sessions are at one target: {used:?}");
    }
}

#[tokio::test]
async fn a_session_moves_on_with_success_when_its_target_fails_and_stays_there() {
    let simulator = simulator();
    let health = "health: {cooldown: {rate_limit: 1s}}";
    let weir = twins(&simulator, ", affinity: {by: [key]}, balance: round_robin", "~status=429~times=1~retry_after=1")
        .section(health)
        .start()
        .await;
    // The first is limited once; the session begins at the other one, and is still there when the first is well again.
    assert_eq!(went_to(&weir, &chat("m"), None).await, "b");
    let well = async {
        while target(&weir, "p/a/gpt-5.5~status=429~times=1~retry_after=1").await["state"] != "probation" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the end of the cooldown", well).await;
    for _ in 0..5 {
        assert_eq!(went_to(&weir, &chat("m"), None).await, "b");
    }
}

/// What the admin API tells of a request, once its row is in the ledger.
async fn told_of(weir: &Weir, id: &str) -> Value {
    let told = async {
        loop {
            let answer = Call::new(weir.admin(), "GET", &format!("/admin/v1/requests/{id}")).send().await;
            if answer.status == 200 {
                let told = answer.json().await;
                if told["request"].is_object() {
                    return told;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the request's row", told).await
}

#[tokio::test]
async fn the_admin_api_tells_why_a_request_went_where_it_went() {
    let simulator = simulator();
    let weir = two_credentials(&simulator, "status=429", HEALTH).start().await;
    let failed_over = told_of(&weir, &weir.chat().json(&chat("m")).send().await.id()).await;
    assert_eq!(failed_over["request"]["attempts"].as_array().unwrap().len(), 2);
    let choice = &failed_over["choices"][0];
    assert_eq!(choice["picked"], "p/b/gpt-5.5");
    assert_eq!(choice["passed_over"][0]["reason"], "tried");
    let passed_over = told_of(&weir, &weir.chat().json(&chat("m")).send().await.id()).await;
    let reason = &passed_over["choices"][0]["passed_over"][0];
    assert_eq!(reason["target"], "p/a/gpt-5.5~status=429");
    assert_eq!((&reason["reason"], &reason["cause"]), (&json!("cooling"), &json!("rate_limit")));
    assert!(reason["since"].as_str() < reason["until"].as_str(), "{reason}");
    let plain = told_of(&weir, &weir.chat().json(&chat("other")).send().await.id()).await;
    assert_eq!((&plain["choices"], &plain["request"]["credential"]), (&json!([]), &json!("a")));
    let mut answer = weir.chat().json(&chat("other")).send().await;
    answer.rest().await;
    let at_once = Call::new(weir.admin(), "GET", &format!("/admin/v1/requests/{}", answer.id())).send().await;
    assert_eq!(at_once.json().await["request"]["credential"], "a");
    let unknown = Call::new(weir.admin(), "GET", "/admin/v1/requests/none").send().await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_credential_whose_limit_is_reached_is_passed_over_and_told_so() {
    let simulator = simulator();
    let url = format!("http://{}/v1", simulator.addr());
    let weir = Config::new()
        .provider("p", &format!("{{kind: openai, base_url: '{url}', credentials: [{{id: a, api_key: sk-a, rpm: 1}}, {{id: b, api_key: sk-b}}]}}"))
        .model("{name: m, targets: [{provider: p, model: gpt-5.5, credential: a}, {tier: 1, provider: p, model: gpt-5.5, credential: b}]}")
        .start()
        .await;
    assert_eq!(asked(&weir, "m").await, at("a", "1"));
    let told = told_of(&weir, &weir.chat().json(&chat("m")).send().await.id()).await;
    assert_eq!(
        (&told["request"]["credential"], &told["choices"][0]["passed_over"][0]["reason"]),
        (&json!("b"), &json!("limit"))
    );
}

/// A model `m` whose only target is limited once, for a second; what becomes of requests meanwhile.
fn limited_once(simulator: &Simulator, health: &str, model: &str) -> Config {
    let target = "{provider: openai, model: 'gpt-5.5~status=429~retry_after=1~times=1'}";
    Config::of(simulator)
        .model(&format!("{{name: m, targets: [{target}], retries: {{max: 1, backoff: 1ms..2ms}}{model}}}"))
        .section(&format!("health: {{{health}}}"))
}

#[tokio::test]
async fn while_all_cool_a_request_fails_waits_or_is_tried_as_the_configuration_says() {
    let simulator = simulator();
    for (health, model, status, attempts) in [
        ("when_all_cool: fail", "", 429, "0"),
        ("when_all_cool: wait", "", 200, "1"),
        ("when_all_cool: wait, max_wait: 500ms", "", 429, "0"),
        ("when_all_cool: try", "", 200, "1"),
        ("when_all_cool: try", ", when_all_cool: fail", 429, "0"),
        ("when_all_cool: fail", ", when_all_cool: wait", 200, "1"),
    ] {
        let weir = limited_once(&simulator, health, model).start().await;
        simulator.reset();
        let first = weir.chat().json(&chat("m")).header("x-weir-no-retry", "1").send().await;
        assert_eq!(first.status, 429, "{health}");
        let page = Call::new(weir.admin(), "GET", "/admin/v1/targets").send().await.json().await;
        let then = if model.is_empty() { health } else { model }
            .split(['{', ','])
            .find_map(|part| part.split_once("when_all_cool: "));
        assert_eq!(
            (&page["all_cool"][0]["model"], page["all_cool"][0]["when_all_cool"].as_str()),
            (&json!("m"), then.map(|(_, then)| then))
        );
        assert!(page["all_cool"][0]["until"].is_string());
        let answer = weir.chat().json(&stream("m")).send().await;
        let told = (answer.status.as_u16(), answer.header("x-weir-attempts").unwrap());
        assert_eq!(told, (status, attempts), "{health}{model}");
        assert_eq!(answer.header("retry-after").is_some(), status == 429, "{health}{model}");
    }
}

#[tokio::test]
async fn a_request_waits_for_a_cooling_target_no_longer_than_its_own_time() {
    let simulator = simulator();
    let weir = limited_once(&simulator, "when_all_cool: wait", "").start().await;
    weir.chat().json(&chat("m")).header("x-weir-no-retry", "1").send().await;
    let answer = weir.chat().json(&chat("m")).header("x-weir-timeout-ms", "300").send().await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("1")));
    let answer = weir.chat().json(&chat("m")).send().await;
    assert_eq!(answer.status, 200);
    let told = told_of(&weir, &answer.id()).await;
    assert_eq!(told["choices"][0]["model"], "m");
    assert!((1..=1000).contains(&told["choices"][0]["waits_ms"].as_u64().unwrap()), "{told}");
}

#[tokio::test]
async fn of_all_that_cool_the_soonest_to_be_back_is_tried_and_the_admin_api_tells_so() {
    let simulator = simulator();
    let target = |tier: u32, after: u32| {
        format!("{{tier: {tier}, provider: openai, model: 'gpt-5.5~status=429~retry_after={after}~times=1'}}")
    };
    let weir = Config::of(&simulator)
        .model(&format!("{{name: m, targets: [{}, {}]}}", target(0, 60), target(1, 30)))
        .section("health: {when_all_cool: try}")
        .start()
        .await;
    let answer = weir.chat().json(&chat("m")).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (429, Some("2")));
    let answer = weir.chat().json(&chat("m")).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-attempts")), (200, Some("1")));
    let told = told_of(&weir, &answer.id()).await;
    let choice = &told["choices"][0];
    assert_eq!(
        (&choice["picked"], &choice["how"]),
        (&json!("openai/openai-1/gpt-5.5~status=429~retry_after=30~times=1"), &json!("least_ill"))
    );
    assert_eq!(choice["passed_over"][0]["reason"], "cooling");
}

#[tokio::test]
async fn whatever_turned_a_requests_way_is_told() {
    let simulator = simulator();
    let url = format!("http://{}/v1", simulator.addr());
    let hash = weir_tests::weir::KEY_HASH;
    let pair = |first: &str| {
        format!(
            "targets: [{{provider: p, model: 'gpt-5.5~{first}', credential: a}}, {{tier: 1, provider: p, model: gpt-5.5, credential: b}}]"
        )
    };
    let weir = Config::new()
        .provider("p", &format!("{{kind: openai, base_url: '{url}', credentials: [{{id: a, api_key: sk-a}}, {{id: b, api_key: sk-b}}]}}"))
        .model(&format!("{{name: kept, {}, affinity: {{by: [header:x-session-id]}}}}", pair("delay=1ms")))
        .model(&format!("{{name: hedged, {}, hedge: {{after: 20ms, max_extra: 100%}}}}", pair("delay=20s")))
        .model("{name: failing, targets: [{provider: p, model: 'gpt-5.5~status=500', credential: a}], retries: {max: 0}, fallbacks: {any: [kept]}}")
        .model("{name: free, targets: [{provider: p, model: gpt-5.5}], pricing: {input: 0, output: 0}}")
        .model("{name: dear, targets: [{provider: p, model: gpt-5.5}], pricing: {input: 1000, output: 1000}}")
        .tenant(&format!("{{id: acme, keys: [{{id: ci, hash: '{hash}'}}]}}"))
        .tenant("{id: poor, budgets: [{usd: 1, every: month, soft: 1%, on_exhaust: {model: free}}], keys: [{id: k, hash: 'sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'}]}")
        .start()
        .await;
    let told = async |model: &str| {
        let key = if model == "dear" { "Bearer test".to_owned() } else { format!("Bearer {}", weir_tests::weir::KEY) };
        let call = weir.chat().json(&chat(model)).header("x-session-id", "s");
        let answer = call.without("authorization").header("authorization", &key).send().await;
        assert_eq!(answer.status, 200, "{model}");
        told_of(&weir, &answer.id()).await["choices"].clone()
    };
    assert_eq!(told("kept").await, json!([]));
    let kept = told("kept").await;
    assert_eq!((&kept[0]["how"], &kept[0]["picked"]), (&json!("kept"), &json!("p/a/gpt-5.5~delay=1ms")));
    let hedged = told("hedged").await;
    assert_eq!((&hedged[0]["how"], &hedged[0]["picked"]), (&json!("hedge"), &json!("p/b/gpt-5.5")));
    let fallen = told("failing").await;
    let turning = |model: &str, from: &str, because: &str| json!([model, from, because]);
    let of = |told: &Value| json!([told["model"], told["took_over_from"], told["because"]]);
    assert_eq!(of(&fallen[0]), turning("kept", "failing", "provider_error"));
    assert_eq!(fallen[1]["how"], "kept");
    assert_eq!(told("dear").await, json!([]));
    assert_eq!(of(&told("dear").await[0]), turning("free", "dear", "low_budget"));
}

#[tokio::test]
async fn a_limit_without_a_retry_after_cools_until_the_last_of_the_limits_that_are_used_up_is_over_or_the_cap() {
    let in_seconds = |seconds: i64| {
        jiff::Timestamp::now()
            .checked_add(jiff::SignedDuration::from_secs(seconds))
            .unwrap()
            .strftime("%FT%TZ")
            .to_string()
    };
    for (kind, headers, after) in [
        ("openai", "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1m30s\r\nx-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 40s\r\n".to_owned(), 85..=90),
        ("openai", "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 2h\r\n".to_owned(), 115..=120),
        ("anthropic", format!("anthropic-ratelimit-requests-remaining: 7\r\nanthropic-ratelimit-requests-reset: {}\r\nanthropic-ratelimit-output-tokens-remaining: 0\r\nanthropic-ratelimit-output-tokens-reset: {}\r\n", in_seconds(110), in_seconds(30)), 20..=30),
        ("anthropic", format!("retry-after: 5\r\nanthropic-ratelimit-output-tokens-remaining: 0\r\nanthropic-ratelimit-output-tokens-reset: {}\r\n", in_seconds(30)), 1..=5),
    ] {
        let provider = Provider::refusing(429, &headers, "{}").await;
        let weir = Config::new()
            .provider("p", &format!("{{kind: {kind}, base_url: '{}', credentials: [{{id: a, api_key: sk-a}}]}}", provider.url()))
            .model("{name: m, targets: [{provider: p, model: m}], retries: {max: 0}}")
            .section("health: {max_cooldown: 2m}")
            .start()
            .await;
        assert_eq!(weir.chat().json(&chat("m")).send().await.status, 429);
        let answer = weir.chat().json(&chat("m")).send().await;
        let told: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(after.contains(&told), "{headers}: {told}");
    }
}

#[tokio::test]
async fn all_that_wait_for_a_cooling_target_are_served_once_one_of_them_has_found_it_well() {
    let simulator = simulator();
    let weir = limited_once(&simulator, "when_all_cool: wait", "").start().await;
    weir.chat().json(&chat("m")).header("x-weir-no-retry", "1").send().await;
    let waiting: Vec<_> = (0..20).map(|_| tokio::spawn(weir.chat().json(&chat("m")).send())).collect();
    for request in waiting {
        assert_eq!(within("an answer", request).await.unwrap().status, 200);
    }
    assert_eq!(simulator.account().requests, 21);
}

#[tokio::test]
async fn without_a_token_the_admin_api_is_for_no_other_hosts_pages() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let port = weir.admin().port();
    let own = format!("127.0.0.1:{port}");
    let page = format!("http://{own}");
    for (host, origin, status) in [
        (own.as_str(), None, 200),
        (own.as_str(), Some(page.as_str()), 200),
        ("localhost", None, 200),
        ("[::1]:8081", None, 200),
        ("evil.example", None, 403),
        ("127.0.0.1.evil.example:8081", None, 403),
        (own.as_str(), Some("http://evil.example"), 403),
        (own.as_str(), Some("null"), 403),
        (own.as_str(), Some("http://127.0.0.1:1"), 403),
    ] {
        let call = Call::new(weir.admin(), "POST", "/admin/v1/config/reload").header("host", host);
        let call = origin.iter().fold(call, |call, origin| call.header("origin", origin));
        assert_eq!(call.send().await.status, status, "{host} {origin:?}");
    }
}
