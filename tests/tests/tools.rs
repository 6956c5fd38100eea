//! Tools, reasoning and schemas: what is called, thought and promised survives every pair of dialects, whole and
//! streamed.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::ask::{MODELS, chat, simulator, with};
use weir_tests::client::{End, Event};
use weir_tests::weir::{Config, Weir};

/// How the answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    Streamed,
}

const FORMS: [Form; 2] = [Form::Whole, Form::Streamed];

/// Asks and gives the assistant's message, put together as a client does that keeps what it is sent.
async fn ask(weir: &Weir, request: &Value, form: Form) -> Value {
    let request = with(request.clone(), "stream", json!(form == Form::Streamed));
    let mut answer = weir.chat().json(&request).send().await;
    if answer.status != 200 {
        let (status, (body, _)) = (answer.status, answer.rest().await);
        panic!("{status} {body} for {request}");
    }
    match form {
        Form::Whole => answer.json().await["choices"][0]["message"].clone(),
        Form::Streamed => {
            let (events, end) = answer.events().await;
            assert_eq!(end, End::Whole);
            collected(&events)
        }
    }
}

/// A message of its deltas: texts are joined, lists are joined, tool calls by their index.
fn collected(events: &[Event]) -> Value {
    let mut message = json!({"role": "assistant", "content": null});
    let mut calls: Vec<Value> = Vec::new();
    for event in events.iter().filter(|event| !event.is_done()) {
        let event = event.json();
        let Some(delta) = event["choices"][0]["delta"].as_object() else { continue };
        for (name, value) in delta {
            match (name.as_str(), value) {
                ("tool_calls", Value::Array(pieces)) => pieces.iter().for_each(|piece| add_call(&mut calls, piece)),
                ("role", _) | (_, Value::Null) => {}
                (name, Value::String(text)) => {
                    let before = message[name].as_str().unwrap_or_default();
                    message[name] = json!(format!("{before}{text}"));
                }
                (name, Value::Array(items)) => {
                    let mut all = message[name].as_array().cloned().unwrap_or_default();
                    all.extend(items.iter().cloned());
                    message[name] = json!(all);
                }
                (name, value) => message[name] = value.clone(),
            }
        }
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    message
}

fn add_call(calls: &mut Vec<Value>, piece: &Value) {
    let index = usize::try_from(piece["index"].as_u64().unwrap()).unwrap();
    if index == calls.len() {
        let mut call = piece.clone();
        call.as_object_mut().unwrap().remove("index");
        assert!(
            call["id"].is_string() && call["function"]["name"].is_string(),
            "a call begins without a name: {piece}"
        );
        return calls.push(call);
    }
    let call = &mut calls[index];
    assert!(piece.get("id").is_none_or(|id| id.is_null() || *id == call["id"]), "another call's id: {piece}");
    let arguments = format!(
        "{}{}",
        call["function"]["arguments"].as_str().unwrap(),
        piece["function"]["arguments"].as_str().unwrap_or_default()
    );
    call["function"]["arguments"] = json!(arguments);
}

fn tool(name: &str, parameters: Value) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}})
}

fn tools() -> Value {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"]});
    json!([tool("weather", city.clone()), tool("clock", city.clone()), tool("news", city)])
}

fn says(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn parallel_calls_keep_their_ids_and_indices_and_every_argument_parses() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for form in FORMS {
            for text in ["call weather clock news", "explain and call news weather weather"] {
                let request = with(says(model, text), "tools", tools());
                let message = ask(&weir, &request, form).await;
                let calls = message["tool_calls"].as_array().unwrap();
                let names: Vec<&str> = calls.iter().map(|call| call["function"]["name"].as_str().unwrap()).collect();
                let wanted: Vec<&str> =
                    text.split(' ').filter(|word| ["weather", "clock", "news"].contains(word)).collect();
                assert_eq!(names, wanted, "{model} {form:?}");
                let ids: BTreeSet<&str> = calls.iter().map(|call| call["id"].as_str().unwrap()).collect();
                assert_eq!(ids.len(), 3, "{calls:?}");
                for call in calls {
                    assert_eq!(call["type"], "function");
                    let arguments: Value =
                        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
                    assert!(arguments["city"].is_string() && arguments["days"].is_i64(), "{arguments}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_call_without_arguments_has_an_empty_object() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for form in FORMS {
            let bare = json!([{"type": "function", "function": {"name": "ping"}}]);
            let message = ask(&weir, &with(says(model, "call ping"), "tools", bare), form).await;
            assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{}", "{model} {form:?}");
        }
    }
}

#[tokio::test]
async fn the_results_of_tools_reach_the_provider_as_they_are() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let result = r##"{"$ref": "#/$defs/x", "text": "null \"$defs\" é 漢字", "big": 12345678901234567890123}"##;
    for model in MODELS {
        for form in FORMS {
            let mut request = with(says(model, "call weather clock"), "tools", tools());
            let message = ask(&weir, &request, form).await;
            let calls = message["tool_calls"].as_array().unwrap().clone();
            let messages = request["messages"].as_array_mut().unwrap();
            messages.push(message);
            for call in &calls {
                messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": result}));
            }
            let reply = ask(&weir, &request, form).await;
            assert!(reply["content"].as_str().unwrap().starts_with("The tool said:"), "{reply}");
            let upstream = simulator.requests().last().unwrap().json();
            let sent: Vec<&str> = strings(&upstream).into_iter().filter(|text| text.contains("$ref")).collect();
            assert_eq!(sent, [result, result], "{model}");
        }
    }
}

/// All strings in a value.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(fields) => fields.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// What becomes of the reasoning between two turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handing {
    Back,
    Dropped,
}

/// A conversation of three turns with a tool between them; gives the signatures that came.
async fn talk(weir: &Weir, model: &str, form: Form, handing: Handing) -> Vec<String> {
    let mut request =
        with(with(says(model, "call weather please"), "tools", tools()), "reasoning_effort", json!("high"));
    let mut signatures = Vec::new();
    for turn in 0..3 {
        let mut message = ask(weir, &request, form).await;
        signatures.extend(signatures_of(&message));
        if handing == Handing::Dropped {
            message
                .as_object_mut()
                .unwrap()
                .retain(|name, _| ["role", "content", "tool_calls"].contains(&name.as_str()));
        }
        let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
        let messages = request["messages"].as_array_mut().unwrap();
        messages.push(message);
        for call in &calls {
            messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "sunny"}));
        }
        if calls.is_empty() {
            let text = if turn == 1 { "call clock now" } else { "thanks" };
            messages.push(json!({"role": "user", "content": text}));
        }
    }
    signatures
}

fn signatures_of(message: &Value) -> Vec<String> {
    let blocks = message["thinking_blocks"].as_array().cloned().unwrap_or_default();
    blocks.iter().map(|block| block["signature"].as_str().or(block["data"].as_str()).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn signatures_of_thinking_survive_three_turns_byte_for_byte() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for directives in ["", "~redacted"] {
        for form in FORMS {
            simulator.reset();
            let signatures = talk(&weir, &format!("{}{directives}", MODELS[1]), form, Handing::Back).await;
            assert!(signatures.len() >= 2, "{signatures:?}");
            let last = simulator.requests().last().unwrap().json();
            let upstream: Vec<&str> = strings(&last);
            // The last turn's own came after the last request.
            for signature in &signatures[..signatures.len() - 1] {
                assert!(upstream.contains(&signature.as_str()), "lost with {form:?}{directives}: {signature}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_drops_the_thinking_is_served_all_the_same() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for form in FORMS {
        let signatures = talk(&weir, MODELS[1], form, Handing::Dropped).await;
        assert!(!signatures.is_empty());
    }
}

#[tokio::test]
async fn the_text_of_reasoning_comes_whole_and_streamed_alike() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in ["openai/gpt-5.5~reasoning", MODELS[1]] {
        let request = with(chat(model), "reasoning_effort", json!("high"));
        let [whole, streamed] = [ask(&weir, &request, Form::Whole).await, ask(&weir, &request, Form::Streamed).await];
        assert!(whole["reasoning_content"].as_str().unwrap().starts_with("Let me think"), "{whole}");
        for name in ["content", "reasoning_content", "thinking_blocks"] {
            assert_eq!(whole[name], streamed[name], "{model}: {name}");
        }
    }
}

/// As Pydantic writes a model in a model.
fn nested_schema() -> Value {
    json!({
        "$defs": {
            "Address": {
                "type": "object",
                "properties": {"street": {"type": "string"}, "country": {"$ref": "#/$defs/Country"}},
                "required": ["street", "country"],
                "additionalProperties": false
            },
            "Country": {"type": "string", "enum": ["DE", "FR"]}
        },
        "type": "object",
        "properties": {"name": {"type": "string"}, "homes": {"type": "array", "items": {"$ref": "#/$defs/Address"}}},
        "required": ["name", "homes"],
        "additionalProperties": false
    })
}

fn assert_fits(value: &Value) {
    assert!(value["name"].is_string(), "{value}");
    let homes = value["homes"].as_array().unwrap();
    for home in homes {
        assert!(home["street"].is_string() && ["DE", "FR"].contains(&home["country"].as_str().unwrap()), "{home}");
    }
}

#[tokio::test]
async fn a_schema_with_nested_definitions_is_kept_by_structured_output() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for strict in [true, false] {
            for form in FORMS {
                let format = json!({"type": "json_schema", "json_schema": {"name": "person", "strict": strict, "schema": nested_schema()}});
                let message = ask(&weir, &with(chat(model), "response_format", format), form).await;
                assert_fits(&serde_json::from_str(message["content"].as_str().unwrap()).unwrap());
            }
        }
    }
}

#[tokio::test]
async fn a_schema_with_nested_definitions_is_kept_by_tools() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for form in FORMS {
            let request = with(says(model, "call register"), "tools", json!([tool("register", nested_schema())]));
            let message = ask(&weir, &request, form).await;
            let arguments = message["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
            assert_fits(&serde_json::from_str(arguments).unwrap());
            let upstream = simulator.requests().last().unwrap().json().to_string();
            assert!(upstream.contains("$defs") && upstream.contains("#/$defs/Country"), "{upstream}");
        }
    }
}

/// Conversations that no careful client sends.
fn odd_conversations() -> Vec<Value> {
    let call = json!({"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}});
    let user = json!({"role": "user", "content": "hello"});
    let assistant = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": "sunny"});
    let orphan = json!({"role": "tool", "tool_call_id": "nobody", "content": "x"});
    let system = json!({"role": "system", "content": "be kind"});
    vec![
        json!([]),
        json!(null),
        json!("hello"),
        json!([null]),
        json!([7]),
        json!([{}]),
        json!([{"role": "user"}]),
        json!([{"role": "user", "content": null}]),
        json!([{"role": "user", "content": ""}]),
        json!([{"role": "user", "content": []}]),
        json!([{"role": "user", "content": [{}]}]),
        json!([{"role": "user", "content": [{"type": "text"}]}]),
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "nonsense"}}]}]),
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}]}]),
        json!([{"role": "nobody", "content": "x"}]),
        json!([{"role": 7, "content": "x"}]),
        json!([system.clone()]),
        json!([user, system, user]),
        json!([user, {"role": "developer", "content": [{"type": "text", "text": "be brief"}]}, user]),
        json!([user, user, user]),
        json!([{"role": "assistant", "content": "I begin"}]),
        json!([user, {"role": "assistant"}]),
        json!([user, {"role": "assistant", "content": null}]),
        json!([user, assistant]),
        json!([user, assistant, user]),
        json!([user, assistant, result, result]),
        json!([user, assistant, orphan]),
        json!([user, orphan]),
        json!([result]),
        json!([user, {"role": "tool", "content": "no id"}]),
        json!([user, {"role": "assistant", "tool_calls": []}]),
        json!([user, {"role": "assistant", "tool_calls": [{}]}]),
        json!([user, {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{broken"}}]}, result]),
        json!([user, {"role": "assistant", "content": "x", "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "forged"}]}, user]),
        json!([user, {"role": "assistant", "content": "x", "thinking_blocks": "odd"}, user]),
        json!([user, {"role": "assistant", "content": "x", "thinking_blocks": [{}]}, user]),
        json!([user, {"role": "function", "name": "w", "content": "x"}]),
        json!([{"role": "user", "content": {"type": "text", "text": "an object"}}]),
        json!([{"role": "user", "content": "\u{0}\u{fffd}\u{2028}"}]),
    ]
}

#[tokio::test]
async fn odd_conversations_are_a_4xx_at_worst_and_harm_nobody_else() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let mut other =
        weir.chat().json(&with(chat("openai/gpt-5.5~events=200~gap=20ms"), "stream", json!(true))).send().await;
    for messages in odd_conversations() {
        for model in MODELS {
            for form in FORMS {
                assert_served_or_refused(&weir, &simulator, model, &messages, form).await;
            }
        }
    }
    let (events, end) = other.events().await;
    assert!(events.last().unwrap().is_done() && end == End::Whole, "a request in flight was harmed");
    assert!(!weir.stderr().contains("panicked"), "{}", weir.stderr());
}

async fn assert_served_or_refused(weir: &Weir, simulator: &Simulator, model: &str, messages: &Value, form: Form) {
    let request = json!({"model": model, "messages": messages, "stream": form == Form::Streamed});
    simulator.reset();
    let mut answer = weir.chat().json(&request).send().await;
    let status = answer.status.as_u16();
    let (body, end) = answer.rest().await;
    assert!(status == 200 || (400..500).contains(&status), "{status} {body} for {request}");
    assert_ne!((status, answer.header("x-weir-attempts")), (400, Some("2")));
    assert_eq!(end, End::Whole, "{request}");
    if status != 200 {
        let error: Value = serde_json::from_str(&body).unwrap();
        assert!(error["error"]["message"].is_string(), "{body}");
    }
}
