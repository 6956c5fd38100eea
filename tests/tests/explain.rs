//! What `weir explain` tells of a request is what the server does with it: the same targets in the same order, the same
//! bytes to the first of them, the same refusal. The provider fails every attempt, so that each target has its turn.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;

use gateway::config::KeyHash;
use serde_json::{Value, json};
use weir_tests::provider::{Provider, Seen};
use weir_tests::weir::{Config, KEY, Weir, binary};

/// May choose the credential.
const CHOOSES: &str = KEY;

/// Has a credential of its own.
const OWNS: &str = "sk-weir-owns";

/// Has little money.
const POOR: &str = "sk-weir-poor";

/// Has none.
const SPENT: &str = "sk-weir-spent";

/// A call, as the server and `weir explain` are both given it.
struct Call {
    key: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: String,
}

/// A call for a chat completion.
fn chat(model: &str, more: &Value) -> Call {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Call { key: CHOOSES, path: "chat/completions", headers: &[], body: body.to_string() }
}

fn plain(model: &str) -> Call {
    chat(model, &json!({}))
}

fn with(headers: &'static [(&'static str, &'static str)], call: Call) -> Call {
    Call { headers, ..call }
}

fn by(key: &'static str, call: Call) -> Call {
    Call { key, ..call }
}

fn to(path: &'static str, body: &str) -> Call {
    Call { key: CHOOSES, path, headers: &[], body: body.to_owned() }
}

/// What a call comes to.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The credentials in the order in which they are tried, each once: new rounds are not told one by one.
    tried: Vec<String>,
    /// The first attempt.
    first: Option<Sent>,
    /// Status, class and body of a refusal that is Weir's own.
    refused: Option<(u64, String, Value)>,
}

/// A request to a provider, without secrets.
#[derive(Debug, PartialEq)]
struct Sent {
    url: String,
    /// In the order of their names.
    headers: Vec<(String, String)>,
    body: String,
}

/// A provider and a server for all cases.
struct Stage {
    provider: Provider,
    weir: Weir,
}

impl Stage {
    async fn set() -> Self {
        let provider = Provider::refusing(500, "content-type: application/json\r\n", r#"{"error":{"message":"no"}}"#);
        let provider = provider.await;
        let weir = configuration(&provider).start().await;
        Self { provider, weir }
    }

    async fn served(&self, call: &Call) -> Outcome {
        let before = self.provider.requests().len();
        let mut asked = self.weir.post(&format!("/v1/{}", call.path)).body(call.body.clone());
        asked = asked.header("authorization", &format!("Bearer {}", call.key));
        for (name, value) in call.headers {
            asked = asked.header(name, value);
        }
        let answer = asked.send().await;
        let (status, class) = (answer.status.as_u16().into(), answer.header("x-weir-error").unwrap().to_owned());
        let body = answer.json().await;
        let seen: Vec<_> = self.provider.requests().split_off(before);
        Outcome {
            tried: first_round(seen.iter().map(credential)),
            first: seen.first().map(|seen| self.written(seen)),
            refused: (class != "provider_error").then_some((status, class, body)),
        }
    }

    fn written(&self, seen: &Seen) -> Sent {
        let mut lines = seen.head.lines().take_while(|line| !line.is_empty());
        let path = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), masked(value)));
        let url = format!("{}{path}", self.provider.root());
        Sent { url, headers: sorted(headers), body: seen.body.clone() }
    }

    fn explained(&self, call: &Call) -> Outcome {
        let request = self.weir.folder().join("request.json");
        fs::write(&request, &call.body).unwrap();
        let headers = call.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        let told = Command::new(binary())
            .args(["explain", "--json", "--key", call.key, "--endpoint", call.path, "--request"])
            .arg(request)
            .args(headers.flat_map(|header| ["--header".to_owned(), header]))
            .arg(self.weir.folder().join("weir.yaml"))
            .env_clear()
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).expect("an explanation");
        let candidates = told["candidates"].as_array().unwrap().iter();
        let tried = candidates.filter(|candidate| candidate["verdict"] != "excluded");
        let refused = told["refused"].as_object();
        Outcome {
            tried: tried.map(|candidate| candidate["credential"].as_str().unwrap().to_owned()).collect(),
            first: told["request"].as_object().map(|request| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let headers = request["headers"].as_array().unwrap().iter();
                let headers = sorted(headers.map(|pair| (text(&pair[0]), text(&pair[1]))));
                Sent { url: text(&request["url"]), headers, body: text(&request["body"]) }
            }),
            refused: refused.map(|refused| {
                let class = refused["x_weir_error"].as_str().unwrap().to_owned();
                (refused["status"].as_u64().unwrap(), class, refused["body"].clone())
            }),
        }
    }
}

fn first_round(tried: impl Iterator<Item = String>) -> Vec<String> {
    let mut round = Vec::new();
    for credential in tried {
        if !round.contains(&credential) {
            round.push(credential);
        }
    }
    round
}

/// Each secret is `sk-` and the credential's id.
fn credential(seen: &Seen) -> String {
    let carried = ["authorization", "x-api-key", "api-key"].iter().find_map(|name| seen.header(name));
    carried.unwrap().rsplit("sk-").next().unwrap().to_owned()
}

/// A value as `weir explain` shows it.
fn masked(value: &str) -> String {
    value.split_once("sk-").map_or_else(|| value.to_owned(), |(scheme, _)| format!("{scheme}***"))
}

fn sorted(headers: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut headers: Vec<_> = headers.collect();
    headers.sort();
    headers
}

fn configuration(provider: &Provider) -> Config {
    let (root, v1) = (provider.root(), provider.url());
    let credentials = |ids: &[&str]| {
        let ids = ids.iter().map(|id| format!("{{id: {id}, api_key: sk-{id}}}")).collect::<Vec<_>>();
        format!("credentials: [{}]", ids.join(", "))
    };
    let openai = credentials(&["oa-1", "oa-2"]);
    let key = |id: &str, key: &str, more: &str| format!("keys: [{{id: {id}, hash: '{}'{more}}}]", KeyHash::of(key));
    Config::new()
        .provider(
            "openai",
            &format!("{{base_url: '{v1}', organization: org, headers: {{x-pass: sk-pass}}, {openai}}}"),
        )
        .provider("anthropic", &format!("{{base_url: '{root}', default_max_tokens: 77, {}}}", credentials(&["an-1"])))
        .provider(
            "groq",
            &format!("{{base_url: '{root}', {}}}", credentials(&["gr-1"])),
        )
        .model(
            "{name: gpt-main, retries: {max: 3}, targets: [{provider: openai, model: gpt-5.5, credential: oa-1}, {tier: 1, provider: openai, model: gpt-5.5, credential: oa-2}, {tier: 2, provider: anthropic, model: claude-sonnet-4-6}, {tier: 3, provider: groq, model: deployed}]}",
        )
        .model(
            "{name: few, retries: {max: 1}, targets: [{provider: anthropic, model: claude-sonnet-4-6}, {tier: 1, provider: groq, model: deployed}, {tier: 2, provider: openai, model: gpt-5.5}]}",
        )
        .model("{name: claude-main, retries: {max: 0}, targets: [{provider: anthropic, model: claude-sonnet-4-6}]}")
        .model(
            "{name: ruled, retries: {max: 0}, targets: [{provider: anthropic, model: claude-sonnet-4-6}], params: {unsupported: clamp, defaults: {top_p: 0.5}, override: {user: null, seed: 7}, rules: [{name: temperature}, {name: max_tokens, max: 50}]}}",
        )
        .model(
            "{name: strict, retries: {max: 0}, targets: [{provider: anthropic, model: claude-sonnet-4-6}], params: {unsupported: reject}}",
        )
        .model("{name: 'any/*', retries: {max: 0}, targets: [{provider: openai, model: 'x-*-y', credential: oa-2}]}")
        .model("{name: priced, retries: {max: 0}, targets: [{provider: openai, model: gpt-5.5, credential: oa-1}], pricing: {input: 1, output: 10}}")
        .model("{name: free, retries: {max: 0}, targets: [{provider: openai, model: free, credential: oa-2}], pricing: {input: 0, output: 0}}")
        .model("{name: chats, retries: {max: 0}, targets: [{provider: anthropic, model: claude-sonnet-4-6}], fallbacks: {any: [free]}}")
        .model("{name: embed, type: text-embedding, retries: {max: 0}, targets: [{provider: openai, model: e, credential: oa-1}]}")
        .model("{name: no-embed, type: text-embedding, retries: {max: 1}, targets: [{provider: anthropic, model: e}, {tier: 1, provider: openai, model: e, credential: oa-1}]}")
        .tenant(&format!("{{id: acme, {}}}", key("k", CHOOSES, ", choose_credential: true")))
        .tenant(&format!("{{id: owns, providers: {{openai: {{{}}}}}, {}}}", credentials(&["own-1"]), key("k", OWNS, "")))
        .tenant(&format!("{{id: poor, budgets: [{{usd: 0.01, every: day}}], {}}}", key("k", POOR, "")))
        .tenant(&format!(
            "{{id: spent, budgets: [{{usd: 0.000000001, every: day, on_exhaust: {{model: free}}}}], {}}}",
            key("k", SPENT, "")
        ))
}

fn calls() -> Vec<Call> {
    vec![
        plain("gpt-main"),
        chat("gpt-main", &json!({"stream": true, "unknown": 12_345_678_901_234_567_890_u64})),
        chat("gpt-main", &json!({"stream": true, "stream_options": {"include_usage": true}})),
        plain("few"),
        with(&[("x-weir-no-retry", "1")], plain("gpt-main")),
        with(&[("x-weir-no-retry", "0")], plain("gpt-main")),
        with(&[("x-weir-credential", "oa-2")], plain("gpt-main")),
        with(&[("x-weir-credential", "an-1"), ("x-weir-tags", "a, b")], plain("gpt-main")),
        with(&[("x-weir-credential", "nobody")], plain("gpt-main")),
        by(OWNS, with(&[("x-weir-credential", "own-1")], plain("gpt-main"))),
        by(OWNS, plain("priced")),
        with(&[("x-weir-timeout-ms", "soon")], plain("gpt-main")),
        with(&[("x-weir-timeout-ms", "9000"), ("x-weir-cache-affinity", "chat 7")], plain("gpt-main")),
        with(&[("x-weir-unknown", "1")], plain("gpt-main")),
        with(&[("content-encoding", "gzip")], plain("gpt-main")),
        with(&[("content-type", "multipart/form-data; boundary=x")], plain("gpt-main")),
        with(
            &[("anthropic-beta", "b-1"), ("openai-beta", "o-1"), ("x-request-id", "mine"), ("x-other", "1")],
            plain("claude-main"),
        ),
        with(&[("openai-beta", "o-1"), ("user-agent", "curl")], plain("any/model")),
        chat("claude-main", &json!({"stream": true, "max_tokens": 9, "seed": 1, "stop": "x", "tool_choice": "auto"})),
        chat("ruled", &json!({"user": "u", "temperature": 1.75, "max_tokens": 100, "n": 1})),
        chat("strict", &json!({"logit_bias": {"1": 1}})),
        plain("any/some/thing"),
        plain("openai/gpt-5.5~x"),
        plain("anthropic/claude-haiku-4-5"),
        plain("groq/deployed"),
        plain("nobody/knows"),
        plain("embed"),
        plain("no-such"),
        chat("chats", &json!({"n": 2})),
        to("chat/completions", "{\"messages\":[]}"),
        to("chat/completions", "{\"model\":\"gpt-main\",\"model\":\"gpt-main\"}"),
        to("chat/completions", "{ \"seed\" : 12345678901234567890123,\n \"model\":\"priced\", \"messages\":[ ] }"),
        to("completions", "{\"model\":\"priced\",\"prompt\":\"x\"}"),
        to("completions", "{\"model\":\"claude-main\",\"prompt\":\"x\"}"),
        to("embeddings", "{\"model\":\"embed\",\"input\":\"x\"}"),
        to("embeddings", "{\"model\":\"no-embed\",\"input\":[\"x\"]}"),
        to("responses", "{\"model\":\"priced\",\"input\":\"x\"}"),
        to("nothing", "{}"),
        by("sk-weir-wrong", plain("priced")),
        by(POOR, plain("priced")),
        by(POOR, chat("priced", &json!({"max_completion_tokens": 100_000, "n": 2}))),
        by(SPENT, plain("priced")),
        by(SPENT, plain("free")),
    ]
}

#[tokio::test]
async fn it_is_what_the_server_does() {
    let stage = Stage::set().await;
    let mut differences = Vec::new();
    for call in calls() {
        let (served, explained) = (stage.served(&call).await, stage.explained(&call));
        let Call { key, path, headers, body } = &call;
        if served != explained {
            differences
                .push(format!("{path} by {key} with {headers:?}: {body}\n  done: {served:?}\n  told: {explained:?}"));
        }
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}
