//! OpenAI's dialect over real sockets: what it answers and what it refuses.

use crate::support::{ask, chat, openai, post, said, start, streamed};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What is changed of a good chat request, and the refusal that it gets: status, parameter, code.
fn refusals() -> Vec<(Value, u16, Value, Value)> {
    let user = json!({"role": "user", "content": "hi"});
    let tool = json!({"type": "function", "function": {"name": "t"}});
    let calls = json!({"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "t", "arguments": "{}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": "r"});
    vec![
        (json!({"messages": null}), 400, "messages".into(), "missing_required_parameter".into()),
        (json!({"messages": []}), 400, "messages".into(), "empty_array".into()),
        (json!({"messages": "hi"}), 400, "messages".into(), "invalid_type".into()),
        (json!({"messages": [{"content": "hi"}]}), 400, "messages[0].role".into(), "missing_required_parameter".into()),
        (
            json!({"messages": [{"role": "robot", "content": "hi"}]}),
            400,
            "messages[0].role".into(),
            "invalid_value".into(),
        ),
        (json!({"messages": [{"role": "user", "content": null}]}), 400, "messages.[0].content".into(), Value::Null),
        (
            json!({"messages": [{"role": "user", "content": 5}]}),
            400,
            "messages[0].content".into(),
            "invalid_type".into(),
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "video"}]}]}),
            400,
            "messages[0].content[0].type".into(),
            "invalid_value".into(),
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "aGVsbG8="}}]}]}),
            400,
            "messages[0].content[0]".into(),
            "invalid_image_url".into(),
        ),
        (json!({"messages": [user, result]}), 400, "messages.[1].role".into(), Value::Null),
        (json!({"messages": [user, calls]}), 400, "messages.[2].role".into(), Value::Null),
        (json!({"messages": [user, calls, user]}), 400, "messages.[2].role".into(), Value::Null),
        (json!({"messages": [user, calls, result, result]}), 400, "messages.[3].role".into(), Value::Null),
        (json!({"tools": []}), 400, "tools".into(), "empty_array".into()),
        (
            json!({"tools": [{"type": "function", "function": {"name": "not a name"}}]}),
            400,
            "tools[0].function.name".into(),
            "invalid_value".into(),
        ),
        (json!({"tool_choice": "auto"}), 400, "tool_choice".into(), Value::Null),
        (
            json!({"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "u"}}}),
            400,
            "tool_choice".into(),
            Value::Null,
        ),
        (json!({"stream_options": {"include_usage": true}}), 400, "stream_options".into(), Value::Null),
        (json!({"temperature": 3}), 400, "temperature".into(), "decimal_above_max_value".into()),
        (json!({"n": 0}), 400, "n".into(), "decimal_below_min_value".into()),
        (json!({"max_completion_tokens": 0}), 400, "max_completion_tokens".into(), "integer_below_min_value".into()),
        (json!({"model": "o3", "max_tokens": 5}), 400, "max_tokens".into(), "unsupported_parameter".into()),
        (json!({"stop": ["1", "2", "3", "4", "5"]}), 400, "stop".into(), "array_above_max_length".into()),
        (json!({"response_format": {"type": "json_object"}}), 400, "messages".into(), Value::Null),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"type": "object"}}}}),
            400,
            "response_format".into(),
            "invalid_json_schema".into(),
        ),
        (json!({"model": "no-such-model"}), 404, Value::Null, "model_not_found".into()),
        (json!({"model": null}), 400, Value::Null, Value::Null),
        (json!({"model": "m~strict", "foo": 1}), 400, Value::Null, Value::Null),
    ]
}

#[tokio::test]
async fn every_refusal_has_its_status_parameter_and_code() {
    let simulator = start();
    for (change, status, param, code) in refusals() {
        let mut body = chat("gpt-5.5");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = ask(&simulator, openai(&body)).await;
        let error = reply.json()["error"].clone();
        assert_eq!(
            (reply.status.as_u16(), &error["param"], &error["code"]),
            (status, &param, &code),
            "{change}: {error}"
        );
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
}

#[tokio::test]
async fn a_request_needs_a_key_that_is_not_bad() {
    let simulator = start();
    for (key, status, code) in [
        (None, 401, Value::Null),
        (Some("Bearer bad"), 401, "invalid_api_key".into()),
        (Some("Bearer sk-bad-7"), 401, "invalid_api_key".into()),
    ] {
        let mut request = openai(&chat("m"));
        request.headers_mut().remove("authorization");
        if let Some(key) = key {
            request.headers_mut().insert("authorization", key.parse().unwrap());
        }
        let reply = ask(&simulator, request).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (status, &code));
    }
}

#[tokio::test]
async fn unknown_paths_methods_and_content_types_are_refused() {
    let simulator = start();
    assert_eq!(ask(&simulator, post("/v1/v1/chat/completions", &chat("m"))).await.status, 404);
    let mut request = openai(&chat("m"));
    *request.method_mut() = http::Method::GET;
    assert_eq!(ask(&simulator, request).await.status, 405);
    let mut request = openai(&chat("m"));
    request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let reply = ask(&simulator, request).await;
    assert_eq!(reply.json()["error"]["code"], "unsupported_content_type");
    let reply = ask(&simulator, openai(&json!("{"))).await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn the_same_request_gets_the_same_reply() {
    let simulator = start();
    let one = ask(&simulator, openai(&chat("gpt-5.5"))).await;
    let two = ask(&start(), openai(&chat("gpt-5.5"))).await;
    assert_eq!(one.body, two.body);
    assert_eq!(one.header("x-request-id"), two.header("x-request-id"));
    assert_eq!(one.json()["usage"]["prompt_tokens"], 3);
    assert_eq!(one.json()["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn a_stream_says_what_the_whole_reply_says_and_gives_usage_only_when_asked() {
    let simulator = start();
    let whole = ask(&simulator, openai(&chat("gpt-5.5"))).await.json();
    let plain = ask(&simulator, openai(&streamed(chat("gpt-5.5")))).await;
    assert_eq!(said(&plain.events()), whole["choices"][0]["message"]["content"].as_str().unwrap());
    assert!(!plain.text().contains("usage"));
    assert_eq!(plain.events().last().unwrap(), "[DONE]");
    let mut body = streamed(chat("gpt-5.5"));
    body["stream_options"] = json!({"include_usage": true});
    let counted = ask(&simulator, openai(&body)).await.events();
    let usage = &counted[counted.len() - 2];
    assert_eq!(usage["usage"], whole["usage"]);
    assert_eq!(usage["choices"], json!([]));
    assert!(counted[0].get("usage").is_some_and(Value::is_null));
}

#[tokio::test]
async fn parallel_calls_stream_with_their_own_indices() {
    let simulator = start();
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
    let tools: Vec<Value> = ["weather", "time"]
        .iter()
        .map(|name| json!({"type": "function", "function": {"name": name, "parameters": schema}}))
        .collect();
    let mut body = chat("gpt-5.5");
    body["tools"] = tools.into();
    body["messages"][0]["content"] = "call weather, time and weather".into();
    let whole = ask(&simulator, openai(&body)).await.json();
    let calls = whole["choices"][0]["message"]["tool_calls"].as_array().unwrap().clone();
    assert_eq!(calls.len(), 3);
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(whole["choices"][0]["message"]["content"], Value::Null);
    let events = ask(&simulator, openai(&streamed(body.clone()))).await.events();
    for (index, call) in calls.iter().enumerate() {
        let deltas = events.iter().filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0"));
        let own: Vec<&Value> = deltas.filter(|delta| delta["index"] == index).collect();
        let arguments: String = own.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
        assert_eq!(arguments, call["function"]["arguments"]);
        assert_eq!(own[0]["function"]["name"], call["function"]["name"]);
        serde_json::from_str::<Value>(&arguments).unwrap();
    }
    body["parallel_tool_calls"] = false.into();
    let single = ask(&simulator, openai(&body)).await.json();
    assert_eq!(single["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_tools_result_is_answered_in_words() {
    let simulator = start();
    let mut body = chat("gpt-5.5");
    body["tools"] = json!([{"type": "function", "function": {"name": "weather"}}]);
    body["messages"] = json!([
        {"role": "user", "content": "call weather"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    ]);
    let reply = ask(&simulator, openai(&body)).await.json();
    assert_eq!(reply["choices"][0]["message"]["content"], "The tool said: sunny");
}

#[tokio::test]
async fn every_choice_has_a_role_and_a_finish() {
    let simulator = start();
    let mut body = streamed(chat("gpt-5.5"));
    body["n"] = 3.into();
    let events = ask(&simulator, openai(&body)).await.events();
    for index in 0..3 {
        let own: Vec<&Value> = events
            .iter()
            .filter_map(|event| event.pointer("/choices/0"))
            .filter(|choice| choice["index"] == index)
            .collect();
        assert_eq!(own.iter().filter(|choice| choice["delta"]["role"] == "assistant").count(), 1);
        assert_eq!(own.iter().filter(|choice| choice["finish_reason"] == "stop").count(), 1);
    }
}

#[tokio::test]
async fn a_schema_is_followed_and_reasoning_is_counted_or_shown() {
    let simulator = start();
    let mut body = chat("gpt-5.5");
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let reply = ask(&simulator, openai(&body)).await.json();
    assert_eq!(reply["choices"][0]["message"]["content"], "{\"name\":\"one\"}");
    let mut body = chat("gpt-5.5");
    body["reasoning_effort"] = "low".into();
    let reply = ask(&simulator, openai(&body)).await.json();
    assert_eq!(reply["usage"]["completion_tokens_details"]["reasoning_tokens"], 7);
    assert!(reply["choices"][0]["message"].get("reasoning_content").is_none());
    let reply = ask(&simulator, openai(&chat("deepseek-reasoner"))).await.json();
    assert_eq!(reply["choices"][0]["message"]["reasoning_content"], "Let me think about: one two three");
    let events = ask(&simulator, openai(&streamed(chat("m~reasoning")))).await.events();
    let thought: String =
        events.iter().filter_map(|event| event.pointer("/choices/0/delta/reasoning_content")?.as_str()).collect();
    assert_eq!(thought, "Let me think about: one two three");
}

#[tokio::test]
async fn a_reply_ends_at_its_limit_and_at_a_stop() {
    let simulator = start();
    let mut body = chat("gpt-5.5");
    body["max_completion_tokens"] = 2.into();
    let reply = ask(&simulator, openai(&body)).await.json();
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
    assert_eq!(reply["usage"]["completion_tokens"], 2);
    let mut body = chat("gpt-5.5");
    body["stop"] = " two".into();
    let reply = ask(&simulator, openai(&body)).await.json();
    assert_eq!(reply["choices"][0]["message"]["content"], "You said: one");
}

#[tokio::test]
async fn embeddings_come_as_floats_and_in_base64_with_the_dimensions_asked_for() {
    let simulator = start();
    let embed = |extra: Value| {
        let mut body = json!({"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        post("/v1/embeddings", &body)
    };
    let floats = ask(&simulator, embed(json!({}))).await.json();
    let packed = ask(&simulator, embed(json!({"encoding_format": "base64"}))).await.json();
    let bytes = STANDARD.decode(packed["data"][1]["embedding"].as_str().unwrap()).unwrap();
    let unpacked: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    let plain: Vec<f32> = serde_json::from_value(floats["data"][1]["embedding"].clone()).unwrap();
    assert_eq!((plain.len(), &plain), (8, &unpacked));
    assert_eq!(floats["usage"]["prompt_tokens"], 2);
    assert_eq!(ask(&simulator, embed(json!({"dimensions": 5000}))).await.status, 400);
    assert_eq!(ask(&simulator, embed(json!({"input": ""}))).await.status, 400);
    assert_eq!(ask(&simulator, embed(json!({"encoding_format": "hex"}))).await.status, 400);
    assert_eq!(ask(&simulator, embed(json!({"model": "m~batch=1"}))).await.status, 400);
    let forced =
        ask(&simulator, embed(json!({"model": "m~embedding=float", "encoding_format": "base64"}))).await.json();
    assert!(forced["data"][0]["embedding"].is_array());
}

#[tokio::test]
async fn legacy_completions_and_models_are_served() {
    let simulator = start();
    let reply = ask(&simulator, post("/v1/completions", &json!({"model": "m", "prompt": "one two"}))).await.json();
    assert_eq!(reply["choices"][0]["text"], "You said: one two");
    assert_eq!(reply["usage"]["total_tokens"], 6);
    let reply = ask(&simulator, post("/v1/completions", &streamed(json!({"model": "m", "prompt": "one two"})))).await;
    let text: String = reply
        .events()
        .iter()
        .filter_map(|event| event.pointer("/choices/0/text")?.as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, "You said: one two");
    let mut request = post("/v1/models", &Value::Null);
    *request.method_mut() = http::Method::GET;
    assert_eq!(ask(&simulator, request).await.json()["object"], "list");
}
