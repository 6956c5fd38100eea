//! A new configuration in the place of the old one: who may ask for it, what it changes, and what it does not disturb.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::client::{Answer, Call, End};
use weir_tests::patience::{until, within};
use weir_tests::raw::Raw;
use weir_tests::weir::{Config, KEY, KEY_HASH, Weir};

/// A key beside [`KEY`], and its hash.
const OTHER: &str = "sk-weir-other";
const OTHER_HASH: &str = "sha256:48b4b58fc9ca24b148b3c34344f3350290fd76f985aa62ca3a12cb29186fbaee";

fn simulator() -> Simulator {
    simulator::start(simulator::Config::default()).unwrap()
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "one two three"}]})
}

/// Replaces the configuration's file as an editor does.
fn write(weir: &Weir, config: &Config) {
    write_text(weir, &config.yaml(weir.folder()));
}

fn write_text(weir: &Weir, text: &str) {
    fs::write(weir.folder().join("new"), text).unwrap();
    fs::rename(weir.folder().join("new"), weir.folder().join("weir.yaml")).unwrap();
}

async fn reload(weir: &Weir) -> Answer {
    Call::new(weir.admin(), "POST", "/admin/v1/config/reload").send().await
}

/// The value of a metric without labels.
async fn metric(weir: &Weir, name: &str) -> u64 {
    let page = weir.metrics().await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| unreachable!("no {name} in\n{page}")).parse().unwrap()
}

async fn generation_becomes(weir: &Weir, wanted: u64) {
    while metric(weir, "weir_config_generation").await != wanted {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn status(weir: &Weir, model: &str, key: &str) -> u16 {
    let call = weir.chat().header("authorization", &format!("Bearer {key}")).json(&chat(model));
    call.send().await.status.as_u16()
}

#[tokio::test]
async fn a_reload_by_the_admin_api_says_what_changed() {
    let simulator = simulator();
    let config = Config::of(&simulator).model("{name: one, targets: [{provider: openai, model: gpt-5.5}]}");
    let weir = config.start().await;
    let nothing = reload(&weir).await;
    assert_eq!(nothing.status, 200);
    let nothing = nothing.json().await;
    assert_eq!((&nothing["generation"], &nothing["changed"], &nothing["restart"]), (&json!(2), &json!([]), &json!([])));
    let more =
        config.clone().model("{name: two, targets: [{provider: openai, model: gpt-5.5}]}").server("max_body: 1MiB");
    let before = metric(&weir, "weir_config_generation").await;
    write(&weir, &more);
    // The file is watched as well: whoever comes first reloads it, and the other finds nothing changed.
    let answer = reload(&weir).await.json().await;
    let changed = &answer["changed"];
    assert!(*changed == json!(["server", "models.two"]) || *changed == json!([]), "{answer}");
    assert!(answer["generation"].as_u64().unwrap() > before);
    assert_ne!(answer["hash"], nothing["hash"]);
    assert_eq!(status(&weir, "two", KEY).await, 200);
}

#[tokio::test]
async fn the_file_is_watched() {
    let simulator = simulator();
    let config = Config::of(&simulator);
    let weir = config.start().await;
    assert_eq!(status(&weir, "two", KEY).await, 404);
    write(&weir, &config.clone().model("{name: two, targets: [{provider: openai, model: gpt-5.5}]}"));
    generation_becomes(&weir, 2).await;
    assert_eq!(status(&weir, "two", KEY).await, 200);
    write(&weir, &config);
    generation_becomes(&weir, 3).await;
    assert_eq!(status(&weir, "two", KEY).await, 404);
}

#[tokio::test]
async fn sighup_reloads() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    weir.signal("HUP");
    generation_becomes(&weir, 2).await;
    assert_eq!(status(&weir, "openai/gpt-5.5", KEY).await, 200);
}

#[tokio::test]
async fn a_bad_file_is_refused_with_every_fault_and_the_old_configuration_serves_on() {
    let simulator = simulator();
    let config = Config::of(&simulator).model("{name: one, targets: [{provider: openai, model: gpt-5.5}]}");
    let weir = config.start().await;
    let good = config.yaml(weir.folder());
    for (bad, wanted) in [
        (good.replace("models:", "modles:"), &["modles"][..]),
        (good.replace("provider: openai, model", "provider: nobody, modl"), &["nobody", "modl"]),
        (good.replace("sk-openai", "env:NOT_SET_ANYWHERE"), &["NOT_SET_ANYWHERE"]),
        (format!("{good}\n  :::"), &[""]),
        (String::new(), &[""]),
    ] {
        let failures = metric(&weir, "weir_config_reload_failures_total").await;
        write_text(&weir, &bad);
        let refused = reload(&weir).await;
        assert_eq!(refused.status, 422, "{bad}");
        let problem = refused.json().await;
        assert_eq!(problem["error"]["code"], "invalid_configuration");
        let faults = problem["error"]["faults"].to_string();
        assert!(!problem["error"]["faults"].as_array().unwrap().is_empty());
        assert!(wanted.iter().all(|name| faults.contains(name)), "{wanted:?}: {problem}");
        assert!(metric(&weir, "weir_config_reload_failures_total").await > failures);
        assert_eq!(status(&weir, "one", KEY).await, 200);
        assert!(until(|| weir.stderr().contains("the old one stays in use")).await);
    }
    assert_eq!(metric(&weir, "weir_config_generation").await, 1);
    fs::remove_file(weir.folder().join("weir.yaml")).unwrap();
    assert_eq!(reload(&weir).await.status, 422);
    assert_eq!(status(&weir, "one", KEY).await, 200);
}

#[tokio::test]
async fn a_pipe_in_the_place_of_the_file_holds_up_no_reload() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let file = weir.folder().join("weir.yaml");
    let good = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let refused = within("an answer", reload(&weir)).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().await.contains("is no regular file"));
    write_text(&weir, &good);
    assert_eq!(reload(&weir).await.status, 200);
}

#[tokio::test]
async fn a_pipe_that_the_configuration_names_holds_up_no_reload() {
    let simulator = simulator();
    let config = Config::of(&simulator);
    let weir = config.start().await;
    let pipe = weir.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let settings = |secret: &str, more: &str| {
        format!(
            "{{kind: openai, base_url: 'https://127.0.0.1:1', credentials: [{{id: a, api_key: '{secret}'}}]{more}}}"
        )
    };
    let pipe = pipe.display();
    for named in [settings(&format!("file:{pipe}"), ""), settings("sk", &format!(", ca: '{pipe}'"))] {
        write(&weir, &config.clone().provider("other", &named));
        let refused = within("an answer", reload(&weir)).await;
        assert_eq!(refused.status, 422);
        assert!(refused.text().await.contains("it is no regular file"), "{named}");
    }
    write(&weir, &config.clone().provider("other", &settings("sk", "")));
    assert_eq!(within("an answer", reload(&weir)).await.status, 200);
    let shown = Call::new(weir.admin(), "GET", "/admin/v1/config").send().await.json().await;
    assert!(shown["providers"]["other"].is_object(), "{shown}");
}

#[tokio::test]
async fn only_the_admin_token_may_reload_and_read() {
    let simulator = simulator();
    let config = Config::of(&simulator).server("admin_token: env:TOKEN").env("TOKEN", "open-sesame");
    let weir = config.start().await;
    for path in [("POST", "/admin/v1/config/reload"), ("GET", "/admin/v1/config"), ("GET", "/admin/v1/nowhere")] {
        for header in
            [None, Some("Bearer open-sesam"), Some("Bearer open-sesame2"), Some("Bearer "), Some("Basic open-sesame")]
        {
            let mut call = Call::new(weir.admin(), path.0, path.1);
            if let Some(header) = header {
                call = call.header("authorization", header);
            }
            let refused = call.send().await;
            assert_eq!(refused.status, 401, "{path:?} {header:?}");
            assert_eq!(refused.json().await["error"]["code"], "unauthorized");
        }
    }
    assert_eq!(metric(&weir, "weir_config_generation").await, 1);
    let with_token = |method, path| Call::new(weir.admin(), method, path).header("authorization", "Bearer open-sesame");
    assert_eq!(with_token("POST", "/admin/v1/config/reload").send().await.status, 200);
    let shown = with_token("GET", "/admin/v1/config").send().await.text().await;
    assert!(!shown.contains("open-sesame") && !shown.contains("sk-openai"), "{shown}");
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(Call::new(weir.admin(), "GET", path).send().await.status, 200, "{path} needs no token");
    }
}

#[tokio::test]
async fn keys_models_and_providers_come_and_go() {
    let simulator = simulator();
    let one = "{name: one, targets: [{provider: openai, model: gpt-5.5}]}";
    let two = "{name: two, targets: [{provider: late, model: gpt-5.5}]}";
    let acme = |keys: &str| format!("{{id: acme, keys: [{keys}]}}");
    let first = format!("{{id: ci, hash: '{KEY_HASH}'}}");
    let second = format!("{{id: other, hash: '{OTHER_HASH}'}}");
    let before = Config::of(&simulator).model(one).tenant(&acme(&first));
    let weir = before.start().await;
    assert_eq!((status(&weir, "one", KEY).await, status(&weir, "one", OTHER).await), (200, 401));
    let base = Config::of(&simulator).openai("late", &format!("http://{}/v1", simulator.addr()));
    write(&weir, &base.clone().model(two).tenant(&acme(&second)));
    generation_becomes(&weir, 2).await;
    assert_eq!((status(&weir, "two", KEY).await, status(&weir, "two", OTHER).await), (401, 200));
    assert_eq!((status(&weir, "one", OTHER).await, status(&weir, "late/gpt-5.5", OTHER).await), (404, 200));
    write(&weir, &base.model(one).model(two).tenant(&acme(&format!("{first}, {second}"))));
    generation_becomes(&weir, 3).await;
    for key in [KEY, OTHER] {
        assert_eq!((status(&weir, "one", key).await, status(&weir, "two", key).await), (200, 200));
    }
}

#[tokio::test]
async fn a_stream_ends_on_the_configuration_that_it_began_with() {
    let simulator = simulator();
    let config = Config::of(&simulator)
        .model("{name: one, targets: [{provider: openai, model: 'gpt-5.5~events=100~gap=10ms'}]}");
    let weir = config.start().await;
    let mut body = chat("one");
    body["stream"] = json!(true);
    let mut answer = weir.chat().json(&body).send().await;
    assert!(answer.event().await.is_some());
    // Its key, its model and its provider go.
    let empty = Config::new()
        .openai("other", "http://127.0.0.1:1/v1")
        .tenant(&format!("{{id: new, keys: [{{id: new, hash: '{OTHER_HASH}'}}]}}"));
    write(&weir, &empty);
    generation_becomes(&weir, 2).await;
    assert_eq!(status(&weir, "one", KEY).await, 401);
    let (events, end) = answer.events().await;
    assert!(end == End::Whole && events.last().unwrap().is_done() && events.len() >= 99);
    let line = weir.logged(&answer.id()).await;
    assert_eq!((&line["tenant"], &line["model"], &line["incomplete"]), (&json!("acme"), &json!("one"), &json!(false)));
}

#[tokio::test]
async fn whose_turn_it_is_is_kept() {
    let simulator = simulator();
    let model = "{name: one, balance: round_robin, targets: [{provider: openai, model: a}, {provider: openai, model: b}, {provider: openai, model: c}]}";
    let config = Config::of(&simulator).model(model);
    let weir = config.start().await;
    let mut order = String::new();
    for round in 0..9 {
        let answer = weir.chat().json(&chat("one")).send().await;
        let line = weir.logged(&answer.id()).await;
        order += line["attempts"][0]["model"].as_str().unwrap();
        if round % 2 == 0 {
            assert_eq!(reload(&weir).await.status, 200);
        }
    }
    let cycles = ["abcabcabc", "bcabcabca", "cabcabcab"];
    assert!(cycles.contains(&order.as_str()), "{order}");
}

#[tokio::test]
async fn not_one_request_fails_while_the_configuration_is_reloaded_again_and_again() {
    let simulator = simulator();
    let one = "{name: one, targets: [{provider: openai, model: gpt-5.5}]}";
    let config = Config::of(&simulator).model(one);
    let weir = Arc::new(config.start().await);
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (weir, over, served) = (Arc::clone(&weir), Arc::clone(&over), Arc::clone(&served));
            tokio::spawn(async move {
                let mut raw = Raw::connect(weir.api()).await;
                let mut body = chat("one");
                body["stream"] = json!(caller % 2 == 0);
                let (headers, body) = (format!("authorization: Bearer {KEY}\r\n"), body.to_string());
                while !over.load(Ordering::Acquire) {
                    raw.post("/v1/chat/completions", &headers, &body).await;
                    let answer = raw.answer().await;
                    assert_eq!(answer.status, 200, "{}", answer.head);
                    served.fetch_add(1, Ordering::AcqRel);
                }
            })
        })
        .collect();
    for round in 0..20 {
        let settings = format!("{{name: two-{round}, targets: [{{provider: openai, model: gpt-5.5}}]}}");
        write(&weir, &config.clone().model(&settings));
        assert_eq!(reload(&weir).await.status, 200);
        let before = served.load(Ordering::Acquire);
        assert!(until(|| served.load(Ordering::Acquire) >= before + 20).await);
    }
    over.store(true, Ordering::Release);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(metric(&weir, "weir_config_generation").await >= 21);
    assert_eq!(metric(&weir, "weir_config_reload_failures_total").await, 0);
}

#[tokio::test]
async fn gateways_with_the_same_file_export_the_same_hash() {
    let simulator = simulator();
    let config = Config::of(&simulator);
    let (one, two) = (config.start().await, config.start().await);
    let hash = |page: &str| {
        let lines: Vec<_> =
            page.lines().filter(|line| line.starts_with("weir_config_info{")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1);
        lines.concat()
    };
    let text = config.yaml(one.folder());
    write_text(&two, &text);
    assert!(Call::new(two.admin(), "POST", "/admin/v1/config/reload").send().await.status == 200);
    assert_eq!(hash(&one.metrics().await), hash(&two.metrics().await));
    write_text(&two, &format!("{text}# a remark\n"));
    assert_eq!(reload(&two).await.status, 200);
    assert_ne!(hash(&one.metrics().await), hash(&two.metrics().await));
}

#[tokio::test]
async fn what_only_a_restart_changes_is_said() {
    let simulator = simulator();
    let config = Config::of(&simulator);
    let weir = config.start().await;
    write(
        &weir,
        &config.clone().server("drain: 3s").server("listen: ['127.0.0.1:0', '127.0.0.1:0']").server("stall: 9s"),
    );
    generation_becomes(&weir, 2).await;
    let answer = reload(&weir).await.json().await;
    assert_eq!(answer["changed"], json!([]));
    // What the file says stays other than what is done, also after the next reload.
    assert_eq!(answer["restart"], json!(["server.listen", "server.drain", "server.stall"]));
    let said = weir.stderr();
    assert!(said.contains("take effect when weir is started anew") && said.contains("server.listen"), "{said}");
    write(&weir, &config);
    generation_becomes(&weir, 4).await;
    assert_eq!(reload(&weir).await.json().await["restart"], json!([]));
}

#[tokio::test]
async fn a_thousand_models_and_ten_thousand_keys_are_served_and_reloaded() {
    let simulator = simulator();
    let mut config = Config::of(&simulator);
    for number in 0..1000 {
        config = config.model(&format!("{{name: m-{number}, targets: [{{provider: openai, model: gpt-5.5}}]}}"));
    }
    let keys: Vec<_> = (0..10_000).map(|number| format!("{{id: k-{number}, hash: 'sha256:{number:064x}'}}")).collect();
    let config = config.tenant(&format!("{{id: acme, keys: [{{id: ci, hash: '{KEY_HASH}'}}, {}]}}", keys.join(", ")));
    let weir = config.start().await;
    assert_eq!(status(&weir, "m-999", KEY).await, 200);
    write(&weir, &config.clone().model("{name: one-more, targets: [{provider: openai, model: gpt-5.5}]}"));
    generation_becomes(&weir, 2).await;
    assert_eq!(status(&weir, "one-more", KEY).await, 200);
}
