//! The laws of the configuration: what loads, what does not, and what is said of it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../../config/weir.example.yaml");

/// The smallest configuration with one of everything that a test changes.
fn base() -> String {
    let hash = "ab".repeat(32);
    format!(
        "providers:
  openai:
    credentials: [{{id: a, api_key: env:KEY}}]
models:
  - name: gpt
    targets: [{{provider: openai, model: gpt-5}}]
tenants:
  - id: acme
    keys: [{{id: k, hash: 'sha256:{hash}'}}]
"
    )
}

fn load_text(text: &str) -> Loaded {
    parse_str("weir.yaml", text).unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(text: &str) -> Vec<Fault> {
    parse_str("weir.yaml", text).map(|loaded| panic!("loaded: {:?}", loaded.config)).unwrap_err().faults
}

/// The base configuration with one part replaced has exactly this fault: path, a part of message and help, line.
fn one_fault(from: &str, to: &str, path: &str, says: &str) -> Fault {
    assert!(base().contains(from), "the base has no `{from}`");
    let faults = faults(&base().replace(from, to));
    assert_eq!(faults.len(), 1, "{faults:#?}");
    let fault = faults[0].clone();
    assert_eq!(fault.path, path, "{fault}");
    let text = fault.to_string();
    assert!(text.contains(says), "`{text}` does not say `{says}`");
    fault
}

#[test]
fn the_example_loads_without_a_fault_or_a_warning() {
    let loaded = load_text(EXAMPLE);
    assert_eq!(loaded.warnings, []);
    let model = &loaded.config.models[0];
    assert_eq!(model.targets[0].weight, 9);
    assert_eq!(model.timeouts.total, Duration::secs(900));
    assert_eq!(model.hedge.as_ref().unwrap().max_extra, Percent::of(5));
    assert_eq!(model.pricing.as_ref().unwrap().input.unwrap().nanos(), 1_250_000_000);
    assert_eq!(loaded.config.providers["openai"].credentials[0].tpm.unwrap().get(), 2_000_000);
    assert_eq!(loaded.config.tenants[0].timezone.name(), "Europe/Berlin");
}

/// The names of all settings, by the schema.
fn settings(schema: &serde_json::Value, names: &mut std::collections::BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        names.extend(properties.keys().cloned());
    }
    match schema {
        serde_json::Value::Object(parts) => parts.values().for_each(|part| settings(part, names)),
        serde_json::Value::Array(parts) => parts.iter().for_each(|part| settings(part, names)),
        _ => {}
    }
}

#[test]
fn the_example_names_every_setting() {
    let mut names = std::collections::BTreeSet::new();
    settings(&schema(), &mut names);
    let words: Vec<_> = EXAMPLE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing: Vec<_> = names.iter().filter(|name| !words.contains(&name.as_str())).collect();
    assert!(names.len() > 100 && missing.is_empty(), "{missing:?} of {}", names.len());
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = load_text(&base()).config;
    assert_eq!(config.server.listen.0, [Listener::loopback(8080)]);
    assert_eq!(config.server.admin, Some(Listener::loopback(8081)));
    assert_eq!(config.server.max_body.get(), 64 << 20);
    assert_eq!(config.models[0].retries.backoff.to, Duration::secs(5));
    assert_eq!(config.models[0].timeouts.keepalive, Duration::secs(25));
    assert_eq!(config.providers["openai"].http, HttpVersion::Http1);
    assert_eq!(config.health.cooldown.rate_limit, Duration::secs(60));
    assert_eq!(config.observability.access_log, AccessLog::Stdout);
}

#[test]
fn a_fault_has_its_file_line_column_path_and_suggestion() {
    let text = base().replace("model: gpt-5", "model: gpt-5, wieght: 2");
    let fault = faults(&text).remove(0);
    let line = text.lines().position(|l| l.contains("wieght")).unwrap();
    let column = text.lines().nth(line).unwrap().find("wieght").unwrap();
    let place = fault.place.clone().unwrap();
    assert_eq!((place.line as usize, place.column as usize), (line + 1, column + 1));
    assert_eq!(fault.path, "models[0].targets[0].wieght");
    assert_eq!(
        fault.to_string(),
        format!(
            "weir.yaml:{}:{}: models[0].targets[0].wieght: unknown key `wieght`\n  help: did you mean `weight`?",
            line + 1,
            column + 1
        )
    );
}

#[test]
fn every_fault_is_told_at_once_in_the_order_of_the_file() {
    let text = "
server: {drain: 30, max_body: 64, lisen: 1}
providers:
  openai: {credentials: [{id: a, api_key: env:K, weight: -1}, {id: a, api_key: env:K}]}
  opnai: {}
models:
  - {name: gpt, targets: [{provider: openia, model: x}], retries: {max: two}}
  - {targets: [{provider: openai, model: x}]}
tenants:
  - {id: acme, timezone: Europe/Berlni, keys: [{id: k, hash: 'sha256:12'}]}
";
    let paths: Vec<String> = faults(text).into_iter().map(|fault| fault.path).collect();
    assert_eq!(
        paths,
        [
            "server.drain",
            "server.max_body",
            "server.lisen",
            "providers.openai.credentials[0].weight",
            "providers.openai.credentials[1].id",
            "providers.opnai",
            "models[0].targets[0].provider",
            "models[0].retries.max",
            "models[1].name",
            "tenants[0].timezone",
            "tenants[0].keys[0].hash",
        ]
    );
}

#[test]
fn a_slip_in_one_place_is_not_told_again_in_another() {
    one_fault("name: gpt", "nmae: gpt", "models[0].nmae", "did you mean `name`?");
    one_fault(
        "- id: acme",
        "- id: acme\n    default_models: {llm: gtp}",
        "tenants[0].default_models.llm",
        "did you mean `gpt`?",
    );
    one_fault("targets: [{", "targets: {x: [{", "", "not valid YAML");
}

#[test]
fn values_of_the_wrong_kind_are_named() {
    one_fault(
        "- name: gpt",
        "- name: gpt\n    timeouts: {total: 15}",
        "models[0].timeouts.total",
        "write the unit: `15s`",
    );
    one_fault("- name: gpt", "- name: gpt\n    timeouts: {total: 15min}", "models[0].timeouts.total", "the units are");
    one_fault(
        "- name: gpt",
        "- name: gpt\n    hedge: {after: 1s, max_extra: 5}",
        "models[0].hedge.max_extra",
        "percent sign",
    );
    one_fault("- name: gpt", "- name: gpt\n    retries: {backoff: 5s..1s}", "models[0].retries.backoff", "`1s..5s`");
    one_fault("- name: gpt", "- name: gpt\n    balance: wieghted", "models[0].balance", "did you mean `weighted`?");
    one_fault("- name: gpt", "- name: gpt\n    type: 5", "models[0].type", "one of llm,");
    one_fault("- name: gpt", "- name: gpt\n    pricing: {input: -1}", "models[0].pricing.input", "negative");
    one_fault(
        "- name: gpt",
        "- name: gpt\n    pricing: {input: 0.0000000001}",
        "models[0].pricing.input",
        "nine digits",
    );
    one_fault("- id: acme", "- id: acme\n    limits: {rpm: 5x}", "tenants[0].limits.rpm", "the units are k");
    one_fault("id: k, ", "id: k, expires: soon, ", "tenants[0].keys[0].expires", "a date");
    one_fault("models:\n", "server: {locked: yes}\nmodels:\n", "server.locked", "true or false");
    one_fault(
        "    credentials: [{",
        "    base_url: ftp://x\n    credentials: [{",
        "providers.openai.base_url",
        "http or https",
    );
    one_fault(
        "    credentials: [{",
        "    base_url: api.x.com\n    credentials: [{",
        "providers.openai.base_url",
        "`https://api.x.com`",
    );
}

#[test]
fn names_must_exist() {
    one_fault("provider: openai", "provider: opena", "models[0].targets[0].provider", "did you mean `openai`?");
    one_fault("provider: openai", "provider: nobody", "models[0].targets[0].provider", "the providers are `openai`");
    one_fault(
        "model: gpt-5",
        "model: gpt-5, credential: b",
        "models[0].targets[0].credential",
        "has no credential `b`",
    );
    one_fault(
        "- name: gpt",
        "- name: gpt\n    fallbacks: {any: [gp]}",
        "models[0].fallbacks.any[0]",
        "did you mean `gpt`?",
    );
    one_fault("- id: acme", "- id: acme\n    models: [gpt, gpx]", "tenants[0].models[1]", "did you mean `gpt`?");
    one_fault(
        "- id: acme",
        "- id: acme\n    prefer: {opnai: custom}",
        "tenants[0].prefer.opnai",
        "did you mean `openai`?",
    );
    let swap = "- id: acme\n    budgets: [{usd: 1, every: day, on_exhaust: {model: gtp}}]";
    one_fault("- id: acme", swap, "tenants[0].budgets[0].on_exhaust.model", "did you mean `gpt`?");
    one_fault("  openai:\n", "  openai:\n    kind: opanai\n", "providers.openai.kind", "did you mean `openai`?");
}

#[test]
fn a_default_must_be_of_its_type_and_allowed() {
    let path = "tenants[0].default_models.rerank";
    one_fault("- id: acme", "- id: acme\n    default_models: {rerank: gpt}", path, "is of type llm, not rerank");
    let other = "  - {name: other, targets: [{provider: openai, model: x}]}\ntenants:\n  - id: acme\n    models: [other]\n    default_models: {llm: gpt}";
    one_fault("tenants:\n  - id: acme", other, "tenants[0].default_models.llm", "may not call");
}

#[test]
fn a_name_is_unique_within_its_type_only() {
    let second = |model_type: &str| {
        format!("  - {{name: gpt, type: {model_type}, targets: [{{provider: openai, model: x}}]}}\ntenants:")
    };
    load_text(&base().replace("tenants:", &second("tts")));
    one_fault("tenants:", &second("llm"), "models[1].name", "the first is models[0]");
}

#[test]
fn a_star_may_stand_once_for_each_type() {
    let stars = "  - {name: '*', targets: [{provider: openai, model: '*'}]}\n  - {name: '*', type: tts, targets: [{provider: openai, model: '*'}]}\ntenants:";
    load_text(&base().replace("tenants:", stars));
}

#[test]
fn a_model_may_be_named_by_a_pattern_or_by_its_provider() {
    let models = "- id: acme\n    models: [\"g*\", openai/gpt-9, gpt]";
    load_text(&base().replace("- id: acme", models));
}

#[test]
fn a_limit_is_of_one_model_whatever_its_name() {
    let limited = |name: &str| format!("- id: acme\n    limits: {{per_model: {{\"{name}\": {{rpm: 1}}}}}}");
    for name in ["gpt", "openai/gpt-9", "openai/*"] {
        load_text(&base().replace("- id: acme", &limited(name)));
    }
    for name in ["*", "g*"] {
        let path = if name == "*" { "tenants[0].limits.per_model.*" } else { "tenants[0].limits.per_model.g*" };
        one_fault("- id: acme", &limited(name), path, "name each model");
    }
}

#[test]
fn a_star_in_a_target_needs_one_in_the_name() {
    one_fault("model: gpt-5", "model: 'gpt-*'", "models[0].targets[0].model", "the model's name has none");
    load_text(&base().replace("name: gpt", "name: 'openai/*'").replace("model: gpt-5", "model: '*'"));
}

#[test]
fn a_tier_needs_a_weight() {
    one_fault("model: gpt-5", "model: gpt-5, weight: 0", "models[0].targets", "every target of tier 0 has weight 0");
    one_fault("api_key: env:KEY", "api_key: env:KEY, weight: 0", "providers.openai.credentials", "weight 0");
}

#[test]
fn fallbacks_that_go_in_a_circle_are_told_once() {
    let models: String = [("a", "b"), ("b", "c"), ("c", "a")]
        .iter()
        .map(|(name, next)| {
            format!("  - {{name: {name}, targets: [{{provider: openai, model: x}}], fallbacks: {{any: [{next}]}}}}\n")
        })
        .collect();
    let fault = one_fault("tenants:", &format!("{models}tenants:"), "models[1].fallbacks.any", "a → b → c → a");
    assert!(fault.message.contains("circle"));
    one_fault("- name: gpt", "- name: gpt\n    fallbacks: {any: [gpt]}", "models[0].fallbacks.any[0]", "itself");
}

#[test]
fn an_open_admin_listener_needs_a_token_and_tls() {
    let server = |rest: &str| format!("server: {{admin: 0.0.0.0:8081{rest}}}\nmodels:");
    let both = one_fault("models:", &server(""), "server.admin", "a token");
    assert!(both.message.contains("TLS"), "{both}");
    one_fault("models:", &server(", admin_token: env:T"), "server.admin", "TLS");
    one_fault("models:", &server(", tls: {cert: a, key: b}"), "server.admin", "a token");
    load_text(&base().replacen("models:", &server(", admin_token: env:T, tls: {cert: a, key: b}"), 1));
    load_text(&base().replacen("models:", &server(", insecure_admin: true"), 1));
    let listen = "server: {admin: {address: '0.0.0.0:8081', tls: {cert: a, key: b}}, admin_token: env:T}\nmodels:";
    load_text(&base().replacen("models:", listen, 1));
}

#[test]
fn listeners_are_one_or_several() {
    let several = "server: {listen: ['127.0.0.1:1', {address: ':2', tls: {cert: a, key: b}}], admin: null}\nmodels:";
    let server = load_text(&base().replacen("models:", several, 1)).config.server;
    assert_eq!(server.admin, None);
    assert_eq!(server.listen.0[1].address.get(), "0.0.0.0:2".parse().unwrap());
    let same = "server: {listen: '127.0.0.1:9', admin: '127.0.0.1:9'}\nmodels:";
    one_fault("models:", same, "server", "two listeners");
}

#[test]
fn a_provider_is_known_by_name_or_says_what_it_speaks_and_where_it_is() {
    let add = |provider: &str| format!("  {provider}\nmodels:");
    one_fault("models:", &add("mine: {base_url: 'http://h/v1'}"), "providers.mine", "`kind: openai`");
    one_fault("models:", &add("vllm: {}"), "providers.vllm", "`base_url` is missing");
    one_fault("models:", &add("azure: {}"), "providers.azure", "does not speak `azure`");
    one_fault("models:", &add("mine: {kind: bedrock}"), "providers.mine.kind", "does not speak `bedrock`");
    one_fault("models:", &add("sim: {simulated: true}"), "providers.sim", "`kind: openai`");
    load_text(&base().replacen("models:", &add("groq: {credentials: [{id: g, api_key: env:G}]}"), 1));
    load_text(&base().replacen("models:", &add("mine: {kind: groq, credentials: [{id: g, api_key: env:G}]}"), 1));
    load_text(&base().replacen("models:", &add("mine: {kind: openai, base_url: 'http://h/v1'}"), 1));
    load_text(&base().replacen("models:", &add("sim: {kind: openai, simulated: true}"), 1));
}

#[test]
fn a_credential_holds_a_secret() {
    one_fault(", api_key: env:KEY", "", "providers.openai.credentials[0]", "holds no secret");
    one_fault(
        "api_key: env:KEY",
        "access_key_id: env:KEY",
        "providers.openai.credentials[0]",
        "`secret_access_key` is missing",
    );
    one_fault(
        "api_key: env:KEY",
        "api_key: 'env:'",
        "providers.openai.credentials[0].api_key",
        "the name of a variable",
    );
}

/// The warnings of the base configuration with these parts replaced.
fn warned(changes: &[(&str, &str)]) -> Vec<String> {
    let text = changes.iter().fold(base(), |text, (from, to)| {
        assert!(text.contains(from), "there is no `{from}` in {text}");
        text.replace(from, to)
    });
    load_text(&text).warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect()
}

#[test]
fn a_model_that_can_be_passed_by_is_told_with_what_is_passed() {
    const MODEL: &str = "model: gpt-5}]";
    let rules = ("model: gpt-5}]", "model: gpt-5}]\n    params: {rules: [{name: temperature, max: 1}]}");
    let told = "models[0]: tenant `acme` may call `openai/gpt-5` too, and what `params.rules` says does not hold there";
    assert_eq!(warned(&[rules]), [told]);
    let overridden = (MODEL, "model: gpt-5}]\n    params: {override: {seed: 1}}");
    assert!(warned(&[overridden])[0].contains("`params.override`"));
    let pinned = (MODEL, "model: gpt-5, credential: a}]");
    assert_eq!(warned(&[pinned]), [""; 0]);
    let second = ("[{id: a, api_key: env:KEY}]", "[{id: a, api_key: env:KEY}, {id: b, api_key: env:KEY2}]");
    assert!(warned(&[pinned, second])[0].contains("`credential`"));
    for with in ["models: ['openai/*']", "models: [openai/gpt-5]", "disabled_models: [openai/other]"] {
        assert_eq!(warned(&[rules, ("- id: acme", &format!("- id: acme\n    {with}"))]), [told], "{with}");
    }
}

#[test]
fn nothing_is_passed_by_under_a_name_that_is_not_to_be_had_or_by_what_anybody_may_leave_out() {
    let rules = ("model: gpt-5}]", "model: gpt-5}]\n    params: {rules: [{name: temperature, max: 1}]}");
    for with in [
        "models: [gpt]",
        "models: ['g*']",
        "disabled_models: [openai/gpt-5]",
        "disabled_models: ['openai/*']",
        "disabled_models: [gpt]",
    ] {
        assert_eq!(warned(&[rules, ("- id: acme", &format!("- id: acme\n    {with}"))]), [""; 0], "{with}");
    }
    assert_eq!(warned(&[rules, ("{id: k,", "{id: k, models: [gpt],")]), [""; 0]);
    assert_eq!(warned(&[rules, ("name: gpt\n", "name: openai/gpt-5\n")]), [""; 0]);
    let any = ("model: gpt-5}]", "model: '*'}]\n    params: {rules: [{name: temperature, max: 1}]}");
    assert_eq!(warned(&[any, ("name: gpt\n", "name: openai/*\n")]), [""; 0]);
    assert_eq!(warned(&[any, ("name: gpt\n", "name: gpt/*\n")]).len(), 1);
    let tame = "params: {defaults: {seed: 1}}\n    timeouts: {total: 90s}\n    pricing: {input: 1, output: 1}";
    assert_eq!(warned(&[("model: gpt-5}]", &format!("model: gpt-5}}]\n    {tame}"))]), [""; 0]);
}

#[test]
fn a_model_that_never_answers_instead_is_told() {
    const NAMED: &str = "budgets: [{usd: 1, every: day, on_exhaust: {model: openai/small}}]";
    let told = |at: &str| format!("{at}: `openai/small` never answers instead, since these callers may not call it");
    for with in ["models: [gpt]", "disabled_models: ['openai/*']"] {
        let tenant = ("- id: acme", &*format!("- id: acme\n    {with}\n    {NAMED}"));
        assert_eq!(warned(&[tenant]), [told("tenants[0].budgets[0].on_exhaust.model")], "{with}");
    }
    let key = ("{id: k,", &*format!("{{id: k, models: [gpt], {NAMED},"));
    assert_eq!(warned(&[key]), [told("tenants[0].keys[0].budgets[0].on_exhaust.model")]);
    let allowed = ("- id: acme", &*format!("- id: acme\n    models: [gpt, 'openai/s*']\n    {NAMED}"));
    assert_eq!(warned(&[allowed]), [""; 0]);
}

#[test]
fn what_happens_without_redis_is_told_where_there_is_none() {
    let loss = |more: &str| warned(&[("models:", &format!("store: {{on_redis_loss: reject{more}}}\nmodels:"))]);
    assert_eq!(loss(""), ["store.on_redis_loss: this has no effect without `redis`"]);
    assert_eq!(loss(", redis: 'redis://127.0.0.1:6379'"), [""; 0]);
}

#[test]
fn a_list_where_a_text_or_a_section_is_wanted_is_told_the_keys_of_the_section() {
    let faults = faults(&base().replacen("models:", "store: {redis: ['redis://a:1', 'redis://b:1']}\nmodels:", 1));
    assert_eq!(faults[0].to_string().matches("its keys are url, cluster, sentinel").count(), 1, "{faults:?}");
}

#[test]
fn a_literal_secret_and_a_past_date_are_warnings_that_keep_the_secret() {
    let text = base().replace("env:KEY", "sk-verysecret").replace("id: k, ", "id: k, expires: 2001-01-01, ");
    let loaded = load_text(&text);
    let warnings: Vec<_> = loaded.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warnings, ["providers.openai.credentials[0].api_key", "tenants[0].keys[0].expires"]);
    let everything =
        format!("{:?} {:?} {}", loaded.warnings, loaded.config, serde_json::to_string(&loaded.config).unwrap());
    assert!(!everything.contains("verysecret"), "{everything}");
}

#[test]
fn a_wrong_secret_is_never_quoted() {
    let text = base().replace("api_key: env:KEY", "api_key: [sk-verysecret]");
    let told = faults(&text).iter().map(Fault::to_string).collect::<String>();
    assert!(!told.contains("verysecret"), "{told}");
}

#[test]
fn one_key_is_not_two() {
    let hash = "ab".repeat(32);
    let second = format!("  - {{id: other, keys: [{{id: x, hash: 'sha256:{hash}'}}]}}\n");
    let faults = faults(&format!("{}{second}", base()));
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].path, "tenants[1].keys[0].hash");
    assert!(faults[0].message.contains("key `k` of tenant `acme`"));
}

#[test]
fn a_tenants_own_address_is_not_private() {
    let own = |url: &str, list: &str| {
        format!(
            "server: {{allow_private_upstreams: [{list}]}}\n{}    providers: {{openai: {{credentials: [{{id: o, api_key: env:O}}], base_url: '{url}'}}}}\n",
            base()
        )
    };
    for url in [
        "http://10.1.2.3",
        "http://localhost",
        "http://[::1]:80",
        "http://169.254.169.254",
        "http://[::ffff:10.0.0.1]",
        "http://[64:ff9b::7f00:1]",
        "http://[2002:7f00:1::]",
        "http://2130706433",
        "http://0x7f.0x1",
        "http://127.1",
        "http://metadata.google.internal",
        "http://100.64.0.1",
        "http://redis:6379",
        "http://198.18.0.1",
        "http://192.0.2.1",
        "http://[2001:db8::1]",
        "http://[fd00::1]",
    ] {
        let faults = faults(&own(url, ""));
        assert_eq!(faults[0].path, "tenants[0].providers.openai.base_url", "{url}");
    }
    load_text(&own("https://api.example.com", ""));
    load_text(&own("http://10.1.2.3", "10.1.0.0/16"));
    load_text(&own("http://localhost", "localhost"));
    assert_eq!(faults(&own("http://10.2.2.3", "10.1.0.0/16")).len(), 1);
}

#[test]
fn a_key_that_stands_twice_is_a_fault_with_its_path() {
    let fault = one_fault("id: a, ", "id: a, id: b, ", "providers.openai.credentials[0].id", "is given twice");
    assert!(fault.place.is_some());
}

#[test]
fn anchors_and_merge_keys_work_within_bounds() {
    let text = base()
        .replace(
            "targets: [{provider: openai, model: gpt-5}]",
            "targets: &t [{provider: openai, model: gpt-5}]\n    retries: &r {max: 7}",
        )
        .replace("tenants:", "  - {name: b, targets: *t, retries: {<<: *r, backoff: 1s..2s}}\ntenants:");
    let models = load_text(&text).config.models;
    assert_eq!(models[1].targets, models[0].targets);
    assert_eq!((models[1].retries.max, models[1].retries.backoff.from), (7, Duration::secs(1)));
}

#[test]
fn a_yaml_bomb_is_refused_at_once() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..40 {
        let prior = format!("*a{}, ", i - 1).repeat(10);
        writeln!(bomb, "a{i}: &a{i} [{prior}]").unwrap();
    }
    assert!(faults(&bomb)[0].message.contains("more than"));
    assert!(faults(&"- ".repeat(100_000))[0].message.contains("nested"));
    assert!(faults(&format!("{}{}", "[".repeat(100), "]".repeat(100)))[0].message.contains("nested"));
    assert!(faults(&"[".repeat(100_000))[0].message.contains("not valid YAML"));
}

#[test]
fn two_documents_unknown_tags_and_things_that_are_no_map_are_refused() {
    assert!(faults(&format!("{}---\na: 1\n", base()))[0].message.contains("second document"));
    one_fault("env:KEY", "!vault env:KEY", "", "unknown tag");
    assert!(faults("- 1\n").iter().any(|fault| fault.message.contains("a configuration is a map")));
    let missing: Vec<_> = faults("").into_iter().map(|fault| fault.path).collect();
    assert_eq!(missing, ["providers", "models", "tenants"]);
}

#[test]
fn so_many_faults_are_counted_and_not_all_shown() {
    let keys: String = (0..1_000).map(|i| format!("x{i}: 1\n")).collect();
    let faults = parse_str("weir.yaml", &format!("{}{keys}", base())).unwrap_err();
    assert_eq!((faults.faults.len(), faults.more), (MOST_FAULTS, 1_000 - MOST_FAULTS));
    assert!(faults.to_string().ends_with("and 800 more"));
}

#[test]
fn texts_that_look_like_numbers_stay_as_they_are_written() {
    let provider =
        load_text(&base().replace("  openai:\n", "  openai:\n    api_version: 2024-10\n    project: 1.10\n"))
            .config
            .providers["openai"]
            .clone();
    assert_eq!(provider.api_version.as_deref(), Some("2024-10"));
    assert_eq!(provider.project.as_deref(), Some("1.10"));
}

#[test]
fn a_change_of_the_text_changes_the_hash_and_the_same_text_keeps_it() {
    let hash = |text: &str| load_text(text).hash;
    assert_eq!(hash(&base()), hash(&base()));
    assert_ne!(hash(&base()), hash(&base().replace("gpt-5", "gpt-6")));
}

#[test]
fn a_folder_is_one_configuration_in_the_order_of_names() {
    let folder = Folder::new("folder");
    folder.write("10-base.yaml", &base());
    folder.write("20-more.yml", "server: {drain: 5s}\nproviders: {openai: {credentials: [{id: b, api_key: env:B}]}}\nmodels: [{name: late, targets: [{provider: openai, model: x}]}]\n");
    folder.write("30-last.yaml", "server: {drain: 6s}\n");
    folder.write(".hidden.yaml", "nonsense: 1\n");
    folder.write("notes.txt", "nonsense");
    let loaded = load(folder.path()).unwrap();
    let config = &loaded.config;
    assert_eq!(config.server.drain, Duration::secs(6));
    assert_eq!(config.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["gpt", "late"]);
    assert_eq!(config.providers["openai"].credentials.len(), 2);
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].message.contains("20-more.yml:1:17"), "{}", loaded.warnings[0]);
}

#[test]
fn faults_of_several_files_name_their_files() {
    let folder = Folder::new("several");
    folder.write("a.yaml", &base());
    folder.write("b.yaml", "server: {dran: 5s}\n");
    let fault = load(folder.path()).unwrap_err().faults.remove(0);
    assert!(fault.place.unwrap().file.ends_with("b.yaml"));
}

#[test]
fn a_file_that_is_not_there_or_no_text_is_a_fault() {
    let folder = Folder::new("none");
    assert!(load(&folder.path().join("no.yaml")).unwrap_err().to_string().contains("no.yaml cannot be read"));
    assert!(load(folder.path()).unwrap_err().to_string().contains("has no .yaml file"));
    std::fs::write(folder.path().join("x.yaml"), b"version: 1\nab\xff: 1").unwrap();
    assert!(load(folder.path()).unwrap_err().to_string().contains("x.yaml:2:3: this is not UTF-8"));
}

#[test]
fn a_folder_of_manifests_adds_providers() {
    let folder = Folder::new("manifests");
    folder.write(
        "weir.yaml",
        &base().replace("models:", "  acme-llm: {credentials: [{id: c, api_key: env:C}]}\nmodels:"),
    );
    std::fs::create_dir(folder.path().join("providers")).unwrap();
    folder.write("providers/acme-llm.yaml", "label: Acme\nkind: openai\nbase_url: https://llm.acme.example/v1\n");
    let loaded = load(&folder.path().join("weir.yaml")).unwrap();
    assert_eq!(loaded.manifests.get("acme-llm").unwrap().label, "Acme");
    folder.write("providers/acme-llm.yaml", "label: Acme\nkind: opnai\n");
    assert!(load(&folder.path().join("weir.yaml")).unwrap_err().to_string().contains("no dialect"));
}

#[test]
fn every_built_in_manifest_is_whole_and_every_file_is_built_in() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/providers");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut names: Vec<&str> = Manifests::built_in().names().collect();
    files.sort();
    names.sort_unstable();
    assert_eq!(names, files);
    for name in names {
        let text = std::fs::read_to_string(format!("{folder}/{name}.yaml")).unwrap();
        let parsed = super::tree::parse(0, &text);
        let root = parsed.root.unwrap();
        let mut reader = super::read::Reader::default();
        let manifest = <Manifest as super::read::Read>::read(&root, &mut reader);
        assert!(reader.faults.is_empty() && parsed.flaws.is_empty(), "{name}: {:?}", reader.faults);
        assert!(Manifests::is_dialect(&manifest.kind), "{name}");
    }
}

#[test]
fn values_are_read_as_they_are_written() {
    let config = load_text(
        &base()
            .replace("- name: gpt", "- name: gpt\n    timeouts: {connect: 1.5s, total: 1d, idle: 0s}\n    pricing: {input: 0.000000001, per: 1.5k}")
            .replace("- id: acme", "- id: acme\n    quotas: [{provider: openai, type: paid, unit: tokens, limit: -1}]\n    limits: {tpm: 1.5m}")
            .replace("id: k, ", "id: k, expires: 2099-01-02, "),
    )
    .config;
    let model = &config.models[0];
    assert_eq!(model.timeouts.connect, Duration::millis(1_500));
    assert_eq!(model.timeouts.total, Duration::secs(86_400));
    assert!(model.timeouts.idle.is_zero());
    assert_eq!(model.pricing.as_ref().unwrap().input.unwrap().nanos(), 1);
    assert_eq!(model.pricing.as_ref().unwrap().per.get(), 1_500);
    assert_eq!(config.tenants[0].limits.tpm.unwrap().get(), 1_500_000);
    assert_eq!(config.tenants[0].quotas[0].limit, QuotaLimit::Unlimited);
    assert_eq!(config.tenants[0].keys[0].expires.unwrap().to_string(), "2099-01-02T00:00:00Z");
}

#[test]
fn a_configuration_that_is_written_out_reads_back_the_same() {
    let loaded = load_text(EXAMPLE);
    let text = serde_json::to_string(&loaded.config).unwrap();
    assert_eq!(serde_json::to_string(&load_text(&text).config).unwrap(), text);
}

#[test]
fn the_quickstart_loads_with_each_key_that_the_environment_may_have() {
    for (openai, anthropic) in [(false, false), (true, false), (false, true), (true, true)] {
        let config = super::load::quickstart_with(openai, anthropic).unwrap_or_else(|faults| panic!("{faults}")).config;
        assert_eq!(config.providers["openai"].simulated, !openai);
        assert_eq!(config.providers["anthropic"].simulated, !anthropic);
        assert_eq!(config.providers.contains_key("sim-openai"), openai);
        assert_eq!(config.providers.contains_key("sim-anthropic"), anthropic);
        assert_eq!(config.tenants[0].keys[0].hash, KeyHash::of("sk-weir-demo"));
    }
}

#[test]
fn the_quickstart_never_answers_by_a_simulation_what_was_asked_of_a_real_provider() {
    for (openai, anthropic) in [(true, false), (false, true), (true, true)] {
        let config = super::load::quickstart_with(openai, anthropic).unwrap_or_else(|faults| panic!("{faults}")).config;
        let simulated = |model: &Model| -> Vec<bool> {
            model.targets.iter().map(|target| config.providers[&target.provider].simulated).collect()
        };
        for model in &config.models {
            let targets = simulated(model);
            assert!(targets.iter().all(|simulated| *simulated == targets[0]), "{}", model.name);
            let Fallbacks { any, context_window, content_policy } = &model.fallbacks;
            for name in [any, context_window, content_policy].into_iter().flatten() {
                let other = config.models.iter().find(|other| other.name == *name).unwrap();
                assert_eq!(simulated(other)[0], targets[0], "{} falls back to {name}", model.name);
            }
        }
    }
}

#[test]
fn what_stands_in_the_wrong_place_is_not_quoted_when_it_may_be_a_secret() {
    let hash = "ab".repeat(32);
    for (from, to) in [
        (format!("sha256:{hash}"), "sk-weir-verysecret"),
        ("  - name: gpt".to_owned(), "  - name: gpt\n    retries: {max: sk-verysecret}"),
        ("    credentials:".to_owned(), "    base_url: https://me:verysecret@host/v1\n    credentials:"),
        ("    credentials:".to_owned(), "    http: verysecretverysecretverysecretverysecret\n    credentials:"),
    ] {
        let told = faults(&base().replace(&from, to)).iter().map(Fault::to_string).collect::<String>();
        assert!(!told.contains("verysecret"), "{told}");
    }
}

#[test]
fn a_strict_check_finds_what_is_not_there() {
    let text = base().replace("env:KEY", "env:WEIR_TEST_NOT_SET").replacen(
        "models:",
        "server: {tls: {cert: /none/c, key: /none/k}}\nmodels:",
        1,
    );
    let missing = load_text(&text).missing();
    let paths: Vec<_> = missing.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["providers.openai.credentials[0].api_key", "server.tls", "server.tls"]);
    assert_eq!(missing[0].place.as_ref().unwrap().line, 3);
    assert_eq!(load_text(&base().replace("env:KEY", "env:PATH")).missing(), []);
}

#[test]
fn the_schema_in_the_repository_is_the_one_of_this_build() {
    let committed: serde_json::Value = serde_json::from_str(include_str!("../../../config/weir.schema.json")).unwrap();
    assert_eq!(committed, schema(), "run `weir schema > config/weir.schema.json`");
}

#[test]
fn the_schema_says_every_default_and_every_doc() {
    let schema = schema();
    assert_eq!(schema["required"], serde_json::json!(["providers", "models", "tenants"]));
    assert_eq!(schema["$defs"]["Timeouts"]["properties"]["total"]["default"], "15m");
    assert_eq!(schema["$defs"]["Model"]["properties"]["retries"]["default"]["backoff"], "250ms..5s");
    for (name, section) in schema["$defs"].as_object().unwrap() {
        let properties = section["properties"].as_object().into_iter().flatten();
        for (field, property) in properties {
            assert!(property["description"].as_str().is_some_and(|doc| doc.len() > 3), "{name}.{field} has no doc");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reading_panic(text in "[ -~\n\t{}\\[\\]:&*!|>'\"#é-]{0,300}") {
        fuzz(text.as_bytes());
    }

    #[test]
    fn no_bytes_make_the_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&bytes);
    }

    #[test]
    fn no_slip_in_the_example_makes_the_reading_panic(at in 0..EXAMPLE.len(), cut in 0..40_usize, put in "[ -~\n]{0,6}") {
        let end = (at + cut).min(EXAMPLE.len());
        if EXAMPLE.is_char_boundary(at) && EXAMPLE.is_char_boundary(end) {
            fuzz(format!("{}{put}{}", &EXAMPLE[..at], &EXAMPLE[end..]).as_bytes());
        }
    }
}

/// A folder of its own for one test, gone after it.
pub(super) struct Folder(std::path::PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-config-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_rule_that_cannot_hold_is_a_fault_where_it_stands() {
    let fault = |rule: &str, path: &str, says: &str| {
        let params = format!("- name: gpt\n    params: {{rules: [{rule}]}}");
        one_fault("- name: gpt", &params, &format!("models[0].params.rules[0].{path}"), says);
    };
    fault("{name: x, use_template: temperatur}", "use_template", "did you mean `temperature`?");
    fault("{name: x, min: 3, max: 2}", "min", "`min` is over `max`, 2");
    fault("{name: temperature, min: 2}", "min", "`min` is over `max`, 1, which is the template's");
    fault("{name: temperature, default: 2}", "default", "a number from 0 to 1");
    fault("{name: temperature, default: warm}", "default", "a number from 0 to 1");
    fault("{name: temperature, max: 0.125}", "max", "more digits");
    fault("{name: n, type: int, precision: 2}", "precision", "a whole number");
    fault("{name: user, type: string, max: 5}", "max", "is for numbers");
    fault("{name: seed, type: int, options: [a]}", "options", "options are texts");
    fault("{name: effort, options: []}", "options", "no value is left");
    fault("{name: stream, type: boolean}", "name", "the caller's");
    let params = |params: &str| format!("- name: gpt\n    params: {params}");
    let low = params("{defaults: {temperature: 2}, rules: [{name: temperature}]}");
    one_fault("- name: gpt", &low, "models[0].params.defaults.temperature", "a number from 0 to 1");
    one_fault("- name: gpt", &params("{override: {model: x}}"), "models[0].params.override.model", "the caller's");
    load_text(&base().replace(
        "- name: gpt",
        &params("{override: {user: null}, rules: [{name: top_k, min: 0, max: 0}, {name: user, type: string}]}"),
    ));
}
