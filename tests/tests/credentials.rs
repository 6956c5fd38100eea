//! Whose credential a request uses: the operator's, or the tenant's own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::ask::{chat, simulator, stream};
use weir_tests::client::{Answer, Call};
use weir_tests::provider::Provider;
use weir_tests::weir::{Config, KEY_HASH, Weir};

/// The operator's provider `p` with `system`, and a tenant with these settings. `m` is a model there.
fn config(simulator: &Simulator, system: &str, tenant: &str) -> Config {
    let url = format!("http://{}/v1", simulator.addr());
    Config::new()
        .provider("p", &format!("{{kind: openai, base_url: '{url}', headers: {{x-operator: op-1}}{system}}}"))
        .model("{name: m, targets: [{provider: p, model: gpt-5.5}]}")
        .tenant(&format!("{{id: acme, keys: [{{id: ci, hash: '{KEY_HASH}'}}]{tenant}}}"))
}

const SYSTEM: &str = ", credentials: [{id: sys, api_key: sk-sys}]";
const OWN: &str = ", providers: {p: {credentials: [{id: own, api_key: sk-own}]}}";
const BAD: &str = ", providers: {p: {credentials: [{id: own, api_key: sk-bad-own}]}}";

fn quota(limit: i64) -> String {
    format!(", quotas: [{{provider: p, type: trial, unit: times, limit: {limit}}}]")
}

/// The credential that answered and whose it was, or the error.
fn told(answer: &Answer) -> (u16, String) {
    let header = |name| answer.header(name).unwrap_or("-").to_owned();
    let told = if answer.status == 200 {
        format!("{} {}", header("x-weir-credential"), header("x-weir-credential-source"))
    } else {
        header("x-weir-error")
    };
    (answer.status.as_u16(), told)
}

async fn ask(weir: &Weir, model: &str) -> (u16, String) {
    told(&weir.chat().json(&chat(model)).send().await)
}

fn ok(told: &str) -> (u16, String) {
    (200, told.to_owned())
}

fn refused(status: u16, error: &str) -> (u16, String) {
    (status, error.to_owned())
}

#[tokio::test]
async fn the_preferred_credential_is_used_and_the_other_where_it_cannot_be() {
    let simulator = simulator();
    let prefer = |source: &str| format!(", prefer: {source}");
    for (system, tenant, want) in [
        (SYSTEM, OWN.to_owned(), ok("own custom")),
        (SYSTEM, OWN.to_owned() + &prefer("custom"), ok("own custom")),
        (SYSTEM, OWN.to_owned() + &prefer("system"), ok("sys system")),
        (SYSTEM, OWN.to_owned() + &prefer("{p: system}"), ok("sys system")),
        (SYSTEM, OWN.to_owned() + &prefer("system") + &quota(0), ok("own custom")),
        (SYSTEM, prefer("system") + &quota(0), refused(429, "policy_budget")),
        (SYSTEM, prefer("custom") + &quota(0), refused(429, "policy_budget")),
        (SYSTEM, prefer("custom"), ok("sys -")),
        (SYSTEM, prefer("custom") + &quota(9), ok("sys -")),
        ("", OWN.to_owned() + &prefer("system"), ok("own custom")),
        (SYSTEM, BAD.to_owned(), ok("sys system")),
        (", credentials: [{id: sys, api_key: sk-bad}]", OWN.to_owned() + &prefer("system"), ok("own custom")),
        (SYSTEM, BAD.to_owned() + &quota(0), refused(502, "provider_auth")),
        (
            ", credentials: [{id: sys, api_key: sk-sys, enabled: false}]",
            String::new(),
            refused(403, "policy_forbidden"),
        ),
        (", credentials: [{id: sys, api_key: sk-sys, enabled: false}]", OWN.to_owned(), ok("own custom")),
    ] {
        let weir = config(&simulator, system, &tenant).start().await;
        for model in ["m", "p/gpt-5.4"] {
            assert_eq!(ask(&weir, model).await, want, "{system} {tenant}");
        }
        let streamed = weir.chat().json(&stream("m")).send().await;
        assert_eq!(told(&streamed), want, "{system} {tenant}");
    }
}

#[tokio::test]
async fn when_the_quota_runs_out_the_tenants_own_credential_takes_over() {
    let simulator = simulator();
    let tenant = format!("{OWN}, prefer: system{}", quota(2));
    let weir = config(&simulator, SYSTEM, &tenant).start().await;
    let mut used = Vec::new();
    for _ in 0..4 {
        used.push(ask(&weir, "m").await.1);
    }
    assert_eq!(used, ["sys system", "sys system", "own custom", "own custom"]);
}

#[tokio::test]
async fn the_tenants_own_requests_spend_none_of_its_quota() {
    let simulator = simulator();
    let weir = config(&simulator, SYSTEM, &format!("{OWN}{}", quota(1))).start().await;
    for _ in 0..3 {
        assert_eq!(ask(&weir, "m").await, ok("own custom"));
    }
}

#[tokio::test]
async fn a_tenants_credential_is_used_for_nobody_else_and_carries_nothing_of_the_operators() {
    let simulator = simulator();
    let other = "sha256:81ba6b5f3a5c3c7f5f0e0ee2d50a8a8a0e1e3b1a8a4b8b1a2a1c7a3e1f2d3c4b";
    let weir = config(&simulator, SYSTEM, OWN)
        .tenant(&format!("{{id: other, keys: [{{id: k, hash: '{other}'}}]}}"))
        .start()
        .await;
    simulator.reset();
    assert_eq!(ask(&weir, "m").await, ok("own custom"));
    let seen = simulator.requests();
    let carried = |name: &str| seen.last().unwrap().header(name).map(str::to_owned);
    assert_eq!(carried("authorization").as_deref(), Some("Bearer sk-own"));
    assert_eq!(carried("x-operator"), None);
}

#[tokio::test]
async fn a_tenants_cooldown_is_its_own() {
    let simulator = simulator();
    let config = config(&simulator, SYSTEM, BAD).section("health: {min_samples: 5}");
    let weir = config.start().await;
    assert_eq!(ask(&weir, "m").await, ok("sys system"));
    let answer = Call::new(weir.admin(), "GET", "/admin/v1/targets").send().await.json().await;
    let of = |id: &str| -> Value {
        let targets = answer["targets"].as_array().unwrap();
        targets.iter().find(|target| target["id"] == id).unwrap().clone()
    };
    let own = of("~acme%2Fp/own/gpt-5.5");
    assert_eq!((&own["state"], &own["reason"], &own["tenant"]), (&json!("cooling"), &json!("auth"), &json!("acme")));
    assert_eq!(of("p/sys/gpt-5.5")["state"], "ready");
    let again = weir.chat().json(&chat("m")).send().await;
    assert_eq!((told(&again), again.header("x-weir-attempts")), (ok("sys system"), Some("1")));
}

#[tokio::test]
async fn a_tenants_own_address_reaches_a_private_host_only_where_that_is_listed() {
    let simulator = simulator();
    let url = format!("http://{}/v1", simulator.addr());
    let own = format!(", providers: {{p: {{base_url: '{url}', credentials: [{{id: own, api_key: sk-own}}]}}}}");
    let config = config(&simulator, SYSTEM, &own);
    let weir = config.clone().server("allow_private_upstreams: [127.0.0.1]").start().await;
    assert_eq!(ask(&weir, "m").await, ok("own custom"));
    let named = own.replace("127.0.0.1", "localhost.example-that-is-not-there.com");
    let weir = self::config(&simulator, SYSTEM, &named).start().await;
    assert_eq!(ask(&weir, "m").await, ok("sys system"));
}

#[tokio::test]
async fn a_key_that_may_names_the_credential_of_its_request() {
    let provider = Provider::json(r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#).await;
    let weir = Config::new()
        .provider("p", &format!("{{kind: openai, base_url: '{}', credentials: [{{id: a, api_key: sk-a, weight: 9}}, {{id: b, api_key: sk-b}}]}}", provider.url()))
        .provider("gone", "{kind: openai, base_url: 'http://127.0.0.1:1/v1', credentials: [{id: c, api_key: sk-c}]}")
        .model("{name: m, targets: [{provider: p, model: gpt-5.5}]}")
        .model("{name: failing, targets: [{provider: gone, model: gpt-5.5}], retries: {max: 0}, fallbacks: {any: [m]}}")
        .tenant(&format!("{{id: acme, keys: [{{id: ci, hash: '{KEY_HASH}', choose_credential: true}}]}}"))
        .tenant("{id: other, keys: [{id: plain, hash: 'sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'}]}")
        .start()
        .await;
    let ask = async |model: &str, credential: &str| {
        weir.chat().json(&chat(model)).header("x-weir-credential", credential).send().await
    };
    for wanted in ["b", "a", "b"] {
        assert_eq!(told(&ask("m", wanted).await), ok(&format!("{wanted} -")));
    }
    let seen = provider.requests();
    assert!(seen.len() == 3 && seen.iter().all(|request| request.header("x-weir-credential").is_none()));
    assert_eq!(seen[0].header("authorization"), Some("Bearer sk-b"));
    let unknown = ask("m", "nobody").await;
    assert_eq!(told(&unknown), refused(400, "caller_request"));
    let error = &unknown.json().await["error"];
    assert_eq!((&error["param"], &error["code"]), (&json!("x-weir-credential"), &json!("invalid_request")));
    assert!(error["message"].as_str().unwrap().contains("`nobody`"), "{error}");
    // A model that takes over is asked with that credential, or not at all.
    assert_eq!(told(&ask("failing", "c").await), refused(502, "provider_unreachable"));
    let call = weir.chat().json(&chat("m")).header("authorization", "Bearer test");
    let forbidden = call.header("x-weir-credential", "b").send().await;
    assert_eq!(told(&forbidden), refused(403, "policy_forbidden"));
    assert_eq!(provider.requests().len(), 3);
}
