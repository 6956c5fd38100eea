//! The command `weir` as a user calls it: what it prints where, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Runs `weir` in a folder, with an environment of its own and `input` on standard input.
fn weir_in(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn weir(arguments: &[&str]) -> Output {
    weir_in(&repository(), arguments, "")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder of its own for one test, gone after it.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("weir-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
            fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn check_finds_no_fault_in_the_files_of_the_repository() {
    for file in ["config/weir.example.yaml", "config/quickstart.yaml"] {
        let output = weir(&["check", file]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(out(&output).starts_with(&format!("{file}: no fault; ")));
        let pending = "warning: this version of Weir reads this setting, but it has no effect yet\n  --> config/weir.example.yaml:31:15\n   = store.master_key\n\n";
        // The quickstart has a model of each type that the contract knows, whatever is served yet.
        assert!(file.contains("quickstart") || err(&output) == pending, "{}", err(&output));
    }
}

#[test]
fn check_tells_every_fault_on_standard_error_and_exits_1() {
    let text = "providers: {openai: {credentials: [{id: a, api_key: sk-verysecret, wieght: 2}]}}\nmodels: [{name: m, targets: [{provider: opnai, model: x}]}]\ntenants: []\n";
    let folder = Folder::with("faults", &[("weir.yaml", text)]);
    let output = weir_in(&folder.0, &["check", "weir.yaml"], "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output), "");
    assert_eq!(
        err(&output),
        "error: unknown key `wieght`
  --> weir.yaml:1:68
   = providers.openai.credentials[0].wieght
   = help: did you mean `weight`?

error: there is no provider `opnai`
  --> weir.yaml:2:41
   = models[0].targets[0].provider
   = help: did you mean `openai`?

2 faults
"
    );
}

#[test]
fn check_warns_and_exits_0() {
    let text = "providers: {openai: {credentials: [{id: a, api_key: sk-verysecret}]}}\nmodels: []\ntenants: []\n";
    let folder = Folder::with("warns", &[("weir.yaml", text)]);
    let output = weir_in(&folder.0, &["check", "weir.yaml"], "");
    assert_eq!(output.status.code(), Some(0));
    assert!(
        err(&output).starts_with("warning: this secret is written in plain text\n  --> weir.yaml:1:53\n"),
        "{}",
        err(&output)
    );
    assert!(!err(&output).contains("verysecret"));
}

#[test]
fn check_tells_what_serve_would_refuse_or_warn_of() {
    let provider = |settings: &str| format!("providers: {{p: {{{settings}}}}}\nmodels: []\ntenants: []\n");
    for (settings, strict, told) in [
        (
            "kind: bedrock, region: eu-central-1, credentials: [{id: a, api_key: env:K}]",
            false,
            "this version of Weir does not speak `bedrock`\n  --> weir.yaml:1:23\n   = providers.p.kind\n",
        ),
        (
            "kind: openai, base_url: 'http://x/v1', credentials: [{id: a, api_key: env:K}]",
            true,
            "cannot stand in a header",
        ),
        ("kind: openai, base_url: 'http://x/v1', headers: {host: y}", false, "for each connection"),
    ] {
        let folder = Folder::with("serve-refuses", &[("weir.yaml", &provider(settings))]);
        let arguments = if strict { vec!["check", "--strict", "weir.yaml"] } else { vec!["check", "weir.yaml"] };
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(arguments)
            .current_dir(&folder.0)
            .env("K", "a\nb")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{settings}: {}", err(&output));
        assert!(err(&output).contains(told), "{settings}: {}", err(&output));
    }
    let text = "providers: {openai: {credentials: [{id: a, api_key: env:K}]}}\nmodels: [{name: m, type: tts, targets: [{provider: openai, model: x}]}]\ntenants: []\nobservability: {log: loud}\n";
    let folder = Folder::with("loud", &[("weir.yaml", text), ("fine.yaml", &text.replace("loud", "info"))]);
    assert!(err(&weir_in(&folder.0, &["check", "weir.yaml"], "")).contains("`loud` is not a level"));
    let output = weir_in(&folder.0, &["check", "fine.yaml"], "");
    assert_eq!(
        (output.status.code(), err(&output).contains("  --> fine.yaml:2:26\n   = models[0].type")),
        (Some(0), true),
        "{}",
        err(&output)
    );
}

#[test]
fn a_secret_is_taken_without_the_lines_end_that_a_shell_left_at_it() {
    let text = "providers: {openai: {credentials: [{id: a, api_key: env:K}]}}\nmodels: []\ntenants: []\n";
    let folder = Folder::with("lines-end", &[("weir.yaml", text)]);
    for (value, status) in [("sk-1\r\n", 0), (" \n", 1)] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_weir"));
        let output = check.args(["check", "--strict", "weir.yaml"]).current_dir(&folder.0).env("K", value).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(status), "{value:?}: {}", err(&output));
    }
}

#[test]
fn a_key_is_minted_only_for_a_tenant_that_can_be() {
    let output = weir(&["key", "new", "--tenant", "ac/me \"x\""]);
    assert_eq!((output.status.code(), out(&output)), (Some(1), String::new()));
    assert!(err(&output).contains("a tenant's id is 1 to 64 letters"), "{}", err(&output));
}

#[test]
fn check_strict_needs_the_secrets() {
    assert_eq!(weir(&["check", "config/weir.example.yaml"]).status.code(), Some(0));
    let output = weir(&["check", "--strict", "config/weir.example.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output)
            .contains("error: the environment variable OPENAI_API_KEY is not set\n  --> config/weir.example.yaml:")
    );
}

#[test]
fn check_of_a_file_that_is_not_there_exits_1() {
    let output = weir(&["check", "none.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("none.yaml cannot be read"));
}

#[test]
fn schema_prints_the_committed_schema() {
    let output = weir(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let committed = fs::read_to_string(repository().join("config/weir.schema.json")).unwrap();
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parse(&out(&output)), parse(&committed));
}

#[test]
fn a_new_key_is_long_never_the_same_and_hashes_to_what_stands_beside_it() {
    let mint = || {
        let output = weir(&["key", "new"]);
        assert_eq!(output.status.code(), Some(0));
        let text = out(&output);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        (field("key: "), field("hash: "))
    };
    let (key, hash) = mint();
    assert!(key.starts_with("sk-weir-") && key.len() == "sk-weir-".len() + 43, "{key}");
    assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    assert_ne!(mint().0, key);
    let output = weir_in(&repository(), &["key", "hash"], &format!("{key}\n"));
    assert_eq!(out(&output).trim(), hash);
}

#[test]
fn a_new_key_for_a_tenant_comes_with_lines_that_check() {
    let output = weir(&["key", "new", "--tenant", "acme"]);
    let folder = Folder::with("tenant", &[("weir.yaml", &format!("providers: {{}}\nmodels: []\n{}", err(&output)))]);
    let checked = weir_in(&folder.0, &["check", "weir.yaml"], "");
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));
    assert!(out(&checked).contains("1 tenant, 1 key"));
}

#[test]
fn hashing_nothing_exits_1() {
    for input in ["", "\n", "two words"] {
        assert_eq!(weir_in(&repository(), &["key", "hash"], input).status.code(), Some(1), "{input:?}");
    }
}

#[test]
fn the_hash_is_that_of_the_key() {
    for input in ["abc", "\u{feff}abc\r\n"] {
        let output = weir_in(&repository(), &["key", "hash"], input);
        assert_eq!(out(&output), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n");
    }
}

#[test]
fn a_wrong_call_exits_2() {
    for arguments in [&["frobnicate"][..], &["check"], &["key"], &["--frobnicate"], &["completions", "dos"]] {
        let output = weir(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(out(&output), "", "{arguments:?}");
    }
}

#[test]
fn help_version_and_completions_go_to_standard_output() {
    for (arguments, says) in [
        (&["--help"][..], "Usage: weir"),
        (&["--version"], concat!("weir ", env!("CARGO_PKG_VERSION"))),
        (&["check", "--help"], "--strict"),
        (&["completions", "bash"], "_weir"),
        (&["completions", "zsh"], "#compdef weir"),
        (&["completions", "fish"], "complete -c weir"),
    ] {
        let output = weir(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(out(&output).contains(says), "{arguments:?}: {}", out(&output));
    }
}

#[test]
fn serving_a_wrong_configuration_tells_the_faults_and_exits_1() {
    let folder = Folder::with("serve", &[("weir.yaml", "server: {lisen: 1}\n"), ("other.yaml", "models: 5\n")]);
    for (arguments, says) in [
        (&[][..], "weir.yaml:1:10"),
        (&["serve"], "did you mean `listen`?"),
        (&["--config", "other.yaml"], "other.yaml:1:9"),
        (&["serve", "--config", "other.yaml"], "expected a list"),
        (&["serve", "--config", "none.yaml"], "none.yaml cannot be read"),
    ] {
        let output = weir_in(&folder.0, arguments, "");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(err(&output).contains(says), "{arguments:?}: {}", err(&output));
    }
}

/// Two credentials and a second provider; the key is `sk-weir-example`.
const EXPLAINED: &str = r#"
providers:
  openai:
    credentials:
      - {id: oa-1, api_key: env:WEIR_TEST_KEY, weight: 3}
      - {id: oa-2, api_key: env:WEIR_TEST_UNSET}
      - {id: oa-3, api_key: env:WEIR_TEST_UNSET, enabled: false}
  anthropic: {credentials: [{id: an-1, api_key: env:WEIR_TEST_KEY}]}
models:
  - name: gpt-main
    targets: [{provider: openai, model: gpt-5.5}, {provider: anthropic, model: claude-sonnet-4-6, weight: 0}]
    pricing: {input: 1, output: 10}
  - {name: claude-main, targets: [{provider: anthropic, model: claude-sonnet-4-6}]}
  - {name: embed, type: text-embedding, targets: [{provider: openai, model: text-embedding-3-small}]}
tenants:
  - id: acme
    models: [gpt-main, claude-main, embed]
    disabled_models: [claude-main]
    limits: {rpm: 600}
    budgets: [{usd: 5, every: day}]
    quotas: [{provider: anthropic, type: trial, unit: times, limit: 5, restrict_models: [claude-haiku-4-5]}]
    keys: [{id: ci, hash: "sha256:588b852d2b4dac29462ee96ad379a16fcd87135ffc841ee5f8e797d5f485fc00"}]
"#;

/// What `weir explain` says of a request with this body.
fn explain(name: &str, body: &str, more: &[&str]) -> Output {
    let folder = Folder::with(name, &[("weir.yaml", EXPLAINED), ("req.json", body)]);
    let key = if more.contains(&"--key") { Vec::new() } else { vec!["--key", "sk-weir-example"] };
    let arguments = ["explain", "weir.yaml", "--request", "req.json"];
    let arguments: Vec<_> = arguments.iter().chain(&key).chain(more).collect();
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .current_dir(&folder.0)
        .env_clear()
        .env("WEIR_TEST_KEY", "sk-very-secret-0123456789")
        .output()
        .unwrap()
}

#[test]
fn explain_tells_each_candidate_and_the_exact_request_without_a_secret() {
    let body = r#"{"model":"gpt-main",  "messages":[{"role":"user","content":"Hi"}],"max_tokens":100,"unknown":1}"#;
    let output = explain("explain", body, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(!out(&output).contains("very-secret"), "{}", out(&output));
    let told: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(
        (&told["tenant"], &told["key"], &told["model"]["name"]),
        (&"acme".into(), &"ci".into(), &"gpt-main".into())
    );
    let candidates = told["candidates"].as_array().unwrap().iter();
    let verdicts: Vec<_> = candidates
        .map(|it| (it["credential"].as_str().unwrap(), it["verdict"].as_str().unwrap(), it["why"].as_str().unwrap()))
        .collect();
    assert_eq!(verdicts.len(), 4, "{verdicts:?}");
    assert_eq!((verdicts[0].1, verdicts[1].1), ("chosen", "next"));
    assert_eq!((verdicts[2].0, verdicts[2].1), ("an-1", "excluded"));
    assert!(verdicts[2].2.contains("no quota of the tenant is for this model"), "{verdicts:?}");
    assert!(verdicts[2].2.contains("weight 0"), "{verdicts:?}");
    assert_eq!(verdicts[3], ("oa-3", "excluded", "the credential is disabled"));
    assert_eq!(told["request"]["url"], "https://api.openai.com/v1/chat/completions");
    let headers = told["request"]["headers"].as_array().unwrap();
    assert!(headers.contains(&serde_json::json!(["authorization", "Bearer ***"])), "{headers:?}");
    assert_eq!(told["request"]["body"], body.replace("gpt-main", "gpt-5.5"));
    assert_eq!(told["limits"][0]["rpm"], 600);
    let reserved = told["budgets"][0]["reserved_usd"].as_f64().unwrap();
    assert!(reserved > 0.001 && reserved < 0.002, "{reserved}");
    assert!(told["notes"][0].as_str().unwrap().contains("WEIR_TEST_UNSET is not set"), "{}", told["notes"]);
}

#[test]
fn explain_tells_people_the_same_as_text() {
    let output = explain("explain-text", r#"{"model":"openai/gpt-5.5","messages":[]}"#, &[]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(1), "the tenant may not: {text}");
    let output = explain("explain-text", r#"{"model":"gpt-main","messages":[]}"#, &[]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in
        ["tenant     acme\n", "limit      tenant/acme: 600 requests a minute\n", "POST https://api.openai.com/v1/"]
    {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn explain_refuses_as_the_caller_would_be_refused() {
    let chat = |model: &str| format!(r#"{{"model":"{model}","messages":[]}}"#);
    for (body, more, status, code) in [
        (chat("gpt-main"), &["--key", "sk-other"][..], 401, "invalid_api_key"),
        (chat("no-such"), &[], 404, "model_not_found"),
        (chat("embed"), &[], 400, "wrong_model_type"),
        (chat("claude-main"), &[], 403, "model_disabled"),
        (chat("gpt-main"), &["--endpoint", "messages"], 404, "endpoint_not_available"),
        ("{".to_owned(), &[], 400, "invalid_request"),
    ] {
        let output = explain("explain-refused", &body, more);
        assert_eq!(output.status.code(), Some(1), "{code}: {}", out(&output));
        assert!(err(&output).starts_with(&format!("refused: {status} ")), "{code}: {}", err(&output));
        assert!(err(&output).contains(code), "{code}: {}", err(&output));
    }
}

#[test]
fn explain_takes_headers_as_a_call_would_have_them() {
    let body = r#"{"model":"gpt-main","messages":[]}"#;
    let headers = ["-H", "x-weir-tags: blue,green", "--header", "X-Weir-No-Retry: 1", "-H", "x-weir-tag: x"];
    let output = explain("explain-headers", body, &headers);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for part in [
        "tags       blue, green\n",
        "at most 1 attempt\n",
        "no attempt is left for it",
        "note       x-weir-tag: no header",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let timeout = explain("explain-timeout", body, &["-H", "x-weir-timeout-ms: 1500"]);
    assert!(out(&timeout).contains("time       1500ms at most\n"), "{}", out(&timeout));
    let refused = explain("explain-credential", body, &["-H", "x-weir-credential: oa-1"]);
    assert!(err(&refused).starts_with("refused: 403 policy_forbidden "), "{}", err(&refused));
    assert_eq!(explain("explain-no-header", body, &["-H", "x-weir-tags"]).status.code(), Some(2));
}

#[test]
fn check_finds_no_fault_in_the_configurations_of_the_readme() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let hash = "sha256:588b852d2b4dac29462ee96ad379a16fcd87135ffc841ee5f8e797d5f485fc00";
    let blocks: Vec<_> = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    for block in blocks {
        let folder = Folder::with("readme", &[("weir.yaml", &block.replace("sha256:…", hash))]);
        let output = weir_in(&folder.0, &["check", "weir.yaml"], "");
        assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()), "{block}");
    }
}

#[test]
fn the_readme_names_each_class_of_errors_and_each_header_of_callers() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let classes = gateway::error::Kind::ALL.map(|kind| kind.name().to_owned());
    let headers = gateway::headers::OF_CALLERS.map(|name| name.to_string());
    for word in classes.iter().chain(&headers) {
        assert!(readme.contains(&format!("\n| `{word}` | ")), "no row of `{word}`");
    }
}

/// What explains a request to a provider whose manifest says `kind` and `auth`.
fn explain_of_manifest(kind: &str, auth: &str) -> Output {
    let manifest = format!("label: Acme AI\nkind: {kind}\nbase_url: https://api.acme.example/v1\n{auth}\n");
    let config = "providers: {acme-ai: {credentials: [{id: a, api_key: sk-acme-0123456789}]}}
models: [{name: m, targets: [{provider: acme-ai, model: large-1}]}]
tenants: [{id: t, keys: [{id: ci, hash: 'sha256:588b852d2b4dac29462ee96ad379a16fcd87135ffc841ee5f8e797d5f485fc00'}]}]
";
    let request = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
    let files = [("weir.yaml", config), ("req.json", request), ("providers/acme-ai.yaml", &manifest)];
    let folder = Folder::with(&format!("manifest-{kind}-{}", auth.len()), &files);
    weir_in(&folder.0, &["explain", "weir.yaml", "--request", "req.json", "--key", "sk-weir-example"], "")
}

#[test]
fn a_key_goes_as_its_providers_manifest_says_or_the_configuration_is_refused() {
    for (kind, auth, header) in [
        ("openai", "auth: 'header:x-acme-key'", "x-acme-key: ***"),
        ("anthropic", "auth: 'header:x-acme-key'", "x-acme-key: ***"),
        ("anthropic", "", "x-api-key: ***"),
        ("openai", "auth: 'scheme:Token'", "authorization: Token ***"),
        ("openai", "", "authorization: Bearer ***"),
    ] {
        let output = explain_of_manifest(kind, auth);
        assert!(out(&output).contains(&format!("\n{header}\n")), "{kind} {auth}: {} {}", out(&output), err(&output));
        assert!(!out(&output).contains("0123456789"), "{}", out(&output));
    }
    for auth in ["auth: 'query:key'", "auth: aws", "auth: google"] {
        let output = explain_of_manifest("openai", auth);
        assert_eq!(output.status.code(), Some(1), "{auth}: {}", out(&output));
        assert!(err(&output).contains("cannot carry a key by `auth: "), "{}", err(&output));
    }
}

#[test]
fn explain_knows_simulated_providers() {
    let folder = Folder::with("explain-simulated", &[("req.json", r#"{"messages":[],"model":"gpt-main"}"#)]);
    let config = repository().join("config/quickstart.yaml");
    let request = ["--key", "sk-weir-demo", "--request", "req.json"];
    let output = weir_in(&folder.0, &[&["explain", config.to_str().unwrap()], &request[..]].concat(), "");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("the provider is simulated inside the process"), "{}", out(&output));
}

#[test]
fn a_signal_is_heeded_as_soon_as_the_address_answers() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "version: 1\nserver: {{listen: '{address}', admin: null}}\nstore: {{path: data}}\nproviders: {{}}\nmodels: []\ntenants: []\n"
    );
    let folder = Folder::with("signals", &[("weir.yaml", &config)]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .current_dir(&folder.0)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while TcpStream::connect(address).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it listened");
        std::thread::sleep(Duration::from_millis(1));
    }
    for signal in ["-HUP", "-TERM"] {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}
