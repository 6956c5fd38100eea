//! The admin API against its own document: what a running gateway answers is what `GET /admin/openapi.json` says, no
//! field more and none less.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::{Value, json};
use weir_tests::ask::{chat, simulator, with};
use weir_tests::client::Call;
use weir_tests::priced::{PRICED, ask, config};
use weir_tests::weir::Weir;

/// The endpoints whose JSON is told by no schema: the document itself, and a configuration, which has a schema of its
/// own.
const UNTOLD: [&str; 2] = ["/admin/openapi.json", "/admin/v1/config"];

/// The document of a running gateway.
struct Document(Value);

impl Document {
    async fn of(weir: &Weir) -> Self {
        Self(Call::new(weir.admin(), "GET", "/admin/openapi.json").send().await.json().await)
    }

    /// What holds `schema`, in which all objects have the fields that it names and no others.
    fn validator(&self, schema: &Value) -> Validator {
        let mut whole = schema.clone();
        whole["components"] = self.0["components"].clone();
        close(&mut whole, Object::Whole);
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        compiler.set_default_draft(Draft::V2020_12);
        compiler.add_resource("https://weir.test/schema", whole).unwrap();
        let index = compiler.compile("https://weir.test/schema", &mut schemas).unwrap();
        Validator { schemas, index }
    }

    fn operation(&self, method: &str, path: &str) -> &Value {
        &self.0["paths"][path][method]
    }

    fn told(&self, method: &str, path: &str) -> &Value {
        &self.operation(method, path)["responses"]["200"]["content"]["application/json"]["schema"]
    }
}

/// One schema of the document.
struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    /// What is wrong with an answer.
    fn faults(&self, answer: &Value) -> Option<String> {
        self.schemas.validate(answer, self.index).err().map(|error| format!("{error:#}"))
    }
}

/// Whether a schema tells of a whole object, or of a part of one that is told beside it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Object {
    Whole,
    Part,
}

/// Allows no field that is not told.
fn close(schema: &mut Value, object: Object) {
    match schema {
        Value::Array(all) => all.iter_mut().for_each(|one| close(one, object)),
        Value::Object(parts) => {
            let tells_fields = parts.contains_key("properties");
            let inner = if tells_fields { Object::Part } else { object };
            for (name, part) in parts.iter_mut() {
                let is_choice = ["oneOf", "anyOf", "allOf"].contains(&name.as_str());
                close(part, if is_choice { inner } else { Object::Whole });
            }
            if tells_fields && object == Object::Whole {
                parts.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        _ => {}
    }
}

/// A gateway where requests went well, waited for another target, fell back, and failed; the id of one that had
/// choices.
async fn lived() -> (Weir, String) {
    let simulator = Box::leak(Box::new(simulator()));
    let tenant = "budgets: [{usd: 50, every: day}], \
                  quotas: [{provider: claude, type: trial, unit: times, limit: 30}],";
    let weir = config(simulator, tenant, "budgets: [{usd: 5, every: month}],")
        .model(&format!(
            "{{name: t, {PRICED}, fallbacks: {{any: [m]}}, when_all_cool: fail, retries: {{max: 1, backoff: 1ms..1ms}}, \
             targets: [{{provider: claude, model: claude-sonnet-4-6~status=429}}, \
             {{tier: 1, provider: openai, model: gpt-5.5~status=429}}]}}"
        ))
        .section("health: {cooldown: {rate_limit: 60s}}")
        .start()
        .await;
    let mut ids = Vec::new();
    for body in [chat("t"), chat("t"), chat("m"), with(chat("openai/x"), "stream", json!(true)), chat("none")] {
        let mut answer = ask(&weir, &body).await;
        answer.rest().await;
        weir.logged(&answer.id()).await;
        ids.push(answer.id());
    }
    (weir, ids.remove(1))
}

#[tokio::test]
async fn what_the_admin_api_answers_is_what_its_document_says() {
    let (weir, id) = lived().await;
    let document = Document::of(&weir).await;
    let budget = "tenant/acme/usd/day";
    let targets = Call::new(weir.admin(), "GET", "/admin/v1/targets").send().await.json().await;
    let target = targets["targets"][0]["id"].as_str().unwrap();
    let raised = json!({"usd": 70, "until": "2999-01-01T00:00:00Z"});
    let mut told = 0;
    for (path, methods) in document.0["paths"].as_object().unwrap() {
        for method in ["put", "delete", "get", "post"] {
            let schema = document.told(method, path);
            if methods[method].is_null() || schema.is_null() || UNTOLD.contains(&path.as_str()) {
                continue;
            }
            let named = if path.contains("budgets") {
                budget
            } else if path.contains("targets") {
                target
            } else {
                &id
            };
            let queries: &[&str] = match path.as_str() {
                "/admin/v1/usage" => &["", "?by=tenant,key,model,error,day"],
                "/admin/v1/usage/rows" => &["", "?limit=2"],
                _ => &[""],
            };
            for query in queries {
                let call = Call::new(weir.admin(), &method.to_uppercase(), &(path.replace("{id}", named) + query));
                let call = if method == "put" { call.json(&raised) } else { call };
                let answer = call.send().await;
                let (status, answer) = (answer.status.as_u16(), answer.json().await);
                assert_eq!(status, 200, "{method} {path}: {answer}");
                let faults = document.validator(schema).faults(&answer);
                assert_eq!(faults, None, "{method} {path}{query}: {answer:#}");
                told += 1;
            }
        }
    }
    assert!(told >= 15, "only {told} answers were told by a schema");
}

#[tokio::test]
async fn a_field_that_is_missing_or_more_than_the_document_says_would_be_seen() {
    let (weir, id) = lived().await;
    let document = Document::of(&weir).await;
    for (path, inside) in
        [("/admin/v1/usage/rows/{id}", "/usage"), ("/admin/v1/requests/{id}", "/choices/0/passed_over/0")]
    {
        let validator = document.validator(document.told("get", path));
        let call = Call::new(weir.admin(), "GET", &path.replace("{id}", &id));
        let answer = call.send().await.json().await;
        assert_eq!(validator.faults(&answer), None, "{answer:#}");
        let mut more = answer.clone();
        more.pointer_mut(inside).unwrap()["unheard_of"] = json!(1);
        assert!(validator.faults(&more).is_some(), "{path}");
        let mut less = answer.clone();
        let object = less.pointer_mut(inside).unwrap().as_object_mut().unwrap();
        let name = object.keys().next().unwrap().clone();
        object.remove(&name);
        assert!(validator.faults(&less).is_some(), "{path} without {name}");
    }
}

#[tokio::test]
async fn what_is_refused_and_what_is_no_json_are_told_too() {
    let (weir, _) = lived().await;
    let document = Document::of(&weir).await;
    let problem = document.0["components"]["responses"]["Problem"]["content"]["application/json"]["schema"].clone();
    let validator = document.validator(&problem);
    for path in ["/admin/v1/usage?by=colour", "/admin/v1/usage/rows/none", "/admin/v1/nothing"] {
        let answer = Call::new(weir.admin(), "GET", path).send().await.json().await;
        assert_eq!(validator.faults(&answer), None, "{path}: {answer}");
    }
    let content = &document.operation("get", "/admin/v1/usage/rows")["responses"]["200"]["content"];
    for format in ["jsonl", "csv"] {
        let answer = Call::new(weir.admin(), "GET", &format!("/admin/v1/usage/rows?format={format}")).send().await;
        let kind = answer.header("content-type").unwrap();
        assert!(content.get(kind).is_some(), "{kind} is not in {content}");
    }
}

/// A call of the admin API as the README writes it: method, path, body.
fn written(command: &str) -> Option<(String, String, Value)> {
    let (before, rest) = command.split_once("http://127.0.0.1:8081")?;
    let path = rest.split(['\'', ' ', '\n']).next()?;
    let method = before.split_once("-X ").map_or("GET", |(_, rest)| rest.split(' ').next().unwrap_or_default());
    let body = rest
        .split_once("-d '")
        .and_then(|(_, body)| body.split('\'').next())
        .map_or(json!({}), |body| serde_json::from_str(body).unwrap());
    Some((method.to_owned(), path.to_owned(), body))
}

#[tokio::test]
async fn the_calls_that_the_readme_writes_are_answered() {
    let (weir, _) = lived().await;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let calls: Vec<_> = readme.split("curl ").filter_map(written).collect();
    assert!(calls.len() >= 6, "{calls:?}");
    for (method, path, body) in calls {
        let call = Call::new(weir.admin(), &method, &path);
        let call = if method == "PUT" { call.json(&body) } else { call };
        let answer = call.send().await;
        let status = answer.status.as_u16();
        assert_eq!(status, 200, "{method} {path}: {}", answer.text().await);
    }
}
