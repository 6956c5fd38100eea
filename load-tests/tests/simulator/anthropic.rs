//! Anthropic's dialect over real sockets: what it answers and what it refuses.

use crate::support::{anthropic, ask, message, start, streamed};
use serde_json::{Value, json};

/// What is changed of a good request, and a part of the refusal's message.
fn refusals() -> Vec<(Value, &'static str)> {
    let user = json!({"role": "user", "content": "hi"});
    let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "t", "input": {}}]});
    let result = json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "r"}]});
    let late = json!({"role": "user", "content": [{"type": "text", "text": "so"}, {"type": "tool_result", "tool_use_id": "t1"}]});
    let tool = json!({"name": "t", "input_schema": {"type": "object"}});
    let said = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let thought = json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "c2ln"}]});
    let mark = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
    vec![
        (json!({"max_tokens": null}), "max_tokens: Input should be a valid integer"),
        (json!({"max_tokens": -1}), "max_tokens: Input should be greater than or equal to 0"),
        (json!({"messages": []}), "messages: at least one message is required"),
        (json!({"foo": 1}), "foo: Extra inputs are not permitted"),
        (json!({"temperature": 0.5}), "temperature: Extra inputs are not permitted"),
        (json!({"top_k": 5}), "top_k: Extra inputs are not permitted"),
        (json!({"metadata": {"tenant": "x"}}), "metadata.tenant: Extra inputs are not permitted"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "Unexpected role \"tool\""),
        (said(json!("")), "messages.0: user messages must have non-empty content"),
        (said(json!([{"type": "text", "text": ""}])), "text content blocks must be non-empty"),
        (said(json!([{"type": "text", "text": " \n"}])), "text content blocks must contain non-whitespace text"),
        (said(json!([{"type": "image_url", "image_url": {"url": "x"}}])), "Input tag 'image_url'"),
        (
            said(json!([{"type": "text", "text": "x", "extra": 1}])),
            "messages.0.content.0.text.extra: Extra inputs are not permitted",
        ),
        (
            said(
                json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "https://x/y.png"}}]),
            ),
            "invalid base64 data",
        ),
        (
            said(json!([{"type": "image", "source": {"type": "url", "url": "aGVsbG8="}}])),
            "Only HTTPS URLs are supported",
        ),
        (
            said(json!([mark, mark, mark, mark, mark])),
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        (json!({"messages": [user, result]}), "unexpected `tool_use_id` found in `tool_result` blocks: t1"),
        (
            json!({"messages": [user, call, user]}),
            "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: t1",
        ),
        (json!({"messages": [user, call]}), "`tool_use` ids were found without `tool_result` blocks"),
        (json!({"messages": [user, call, late]}), "`tool_use` ids were found without `tool_result` blocks"),
        (json!({"messages": [user, call, result, call, result]}), "`tool_use` ids must be unique"),
        (
            json!({"messages": [user, {"role": "assistant", "content": [{"type": "tool_use", "id": "a b", "name": "t", "input": {}}]}]}),
            "tool_use.id: String should match pattern",
        ),
        (
            json!({"messages": [user, {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "t", "input": "{}"}]}]}),
            "tool_use.input: Input should be a valid dictionary",
        ),
        (json!({"messages": [user, thought, user]}), "Invalid `signature` in `thinking` block"),
        (
            json!({"messages": [user, {"role": "assistant", "content": "so"}]}),
            "does not support assistant message prefill",
        ),
        (json!({"tools": [tool, tool]}), "Tool names must be unique"),
        (json!({"tools": [{"name": "t"}]}), "tools.0.custom.input_schema: Field required"),
        (
            json!({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}),
            "tools.0.custom.name: String should match pattern",
        ),
        (
            json!({"tools": [{"name": "t", "input_schema": {"type": "object"}, "parameters": {}}]}),
            "tools.0.custom.parameters: Extra inputs",
        ),
        (json!({"tool_choice": {"type": "auto"}}), "tool_choice: may only be specified while providing tools"),
        (json!({"tools": [tool], "tool_choice": {"type": "required"}}), "tool_choice: Input tag"),
        (
            json!({"tools": [tool], "tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}}),
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 100}}), "greater than or equal to 1024"),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 2000}}),
            "`max_tokens` must be greater than `thinking.budget_tokens`",
        ),
        (json!({"output_config": {"effort": "huge"}}), "output_config.effort"),
        (
            json!({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
            "'additionalProperties' must be explicitly set to false",
        ),
        (json!({"stop_sequences": [" "]}), "each stop sequence must contain non-whitespace"),
        (json!({"system": [{"type": "text", "text": ""}]}), "system: text content blocks must be non-empty"),
    ]
}

#[tokio::test]
async fn every_refusal_is_a_400_that_names_the_field() {
    let simulator = start();
    for (change, wanted) in refusals() {
        let mut body = message("claude-sonnet-4-6");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = ask(&simulator, anthropic(&body)).await;
        let error = reply.json();
        assert_eq!(reply.status, 400, "{change}: {error}");
        assert_eq!((&error["type"], &error["error"]["type"]), (&"error".into(), &"invalid_request_error".into()));
        assert!(error["error"]["message"].as_str().unwrap().contains(wanted), "{change}: {error}");
        assert_eq!(error["request_id"], reply.header("request-id"));
    }
}

#[tokio::test]
async fn required_fields_are_missed_by_name() {
    let simulator = start();
    for name in ["model", "max_tokens", "messages"] {
        let mut body = message("claude-sonnet-4-6");
        body.as_object_mut().unwrap().remove(name);
        let reply = ask(&simulator, anthropic(&body)).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["message"]),
            (400, &format!("{name}: Field required").into())
        );
    }
    let reply = ask(&simulator, anthropic(&message("no-such-model"))).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["type"]), (404, &"not_found_error".into()));
}

#[tokio::test]
async fn the_headers_are_checked_before_the_body() {
    let simulator = start();
    for (name, value, status) in [
        ("x-api-key", None, 401),
        ("x-api-key", Some("bad"), 401),
        ("anthropic-version", None, 400),
        ("anthropic-version", Some("2024-01-01"), 400),
    ] {
        let mut request = anthropic(&json!({}));
        request.headers_mut().remove(name);
        if let Some(value) = value {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let reply = ask(&simulator, request).await;
        assert_eq!(reply.status, status, "{name}: {value:?}");
    }
    let mut request = anthropic(&message("claude-sonnet-4-6"));
    let headers = request.headers_mut();
    headers.remove("x-api-key");
    headers.insert("authorization", "Bearer sk-ant".parse().unwrap());
    assert_eq!(ask(&simulator, request).await.status, 200);
}

#[tokio::test]
async fn the_old_version_takes_sampling_from_models_that_still_sample() {
    let simulator = start();
    for (model, temperature, status) in [
        ("claude-sonnet-4-6", 0.5, 200),
        ("claude-sonnet-4-6", 1.5, 400),
        ("claude-opus-4-7", 0.5, 400),
        ("claude-sonnet-5", 0.5, 400),
        ("claude-sonnet-4-20250514", 0.5, 200),
    ] {
        let mut body = message(model);
        body["temperature"] = temperature.into();
        let mut request = anthropic(&body);
        request.headers_mut().insert("anthropic-version", "2023-06-01".parse().unwrap());
        assert_eq!(ask(&simulator, request).await.status, status, "{model} at {temperature}");
    }
}

#[tokio::test]
async fn a_system_role_is_taken_by_the_new_version_only() {
    let simulator = start();
    let mut body = message("claude-sonnet-4-6");
    body["messages"] = json!([{"role": "user", "content": "hi"}, {"role": "system", "content": "be brief"}]);
    assert_eq!(ask(&simulator, anthropic(&body)).await.status, 200);
    let mut request = anthropic(&body);
    request.headers_mut().insert("anthropic-version", "2023-06-01".parse().unwrap());
    assert_eq!(ask(&simulator, request).await.status, 400);
}

#[tokio::test]
async fn roles_need_not_alternate_and_prefill_is_for_older_models() {
    let simulator = start();
    let mut body = message("claude-sonnet-4-6");
    body["messages"] = json!([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]);
    let reply = ask(&simulator, anthropic(&body)).await.json();
    assert_eq!(reply["content"][0]["text"], "You said: one two");
    let mut body = message("claude-haiku-4-5");
    body["messages"] = json!([{"role": "user", "content": "one"}, {"role": "assistant", "content": "so"}]);
    assert_eq!(ask(&simulator, anthropic(&body)).await.status, 200);
}

#[tokio::test]
async fn a_stream_has_its_events_in_order_and_says_what_the_whole_reply_says() {
    let simulator = start();
    let whole = ask(&simulator, anthropic(&message("claude-sonnet-4-6"))).await.json();
    let events = ask(&simulator, anthropic(&streamed(message("claude-sonnet-4-6")))).await.events();
    let mut kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    let wanted = [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds, wanted);
    let text: String = events.iter().filter_map(|event| event.pointer("/delta/text")?.as_str()).collect();
    assert_eq!(text, whole["content"][0]["text"]);
    let delta = &events[events.len() - 2];
    assert_eq!(delta["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    assert_eq!((&whole["usage"]["input_tokens"], &delta["delta"]["stop_reason"]), (&3.into(), &"end_turn".into()));
}

#[tokio::test]
async fn thinking_goes_round_with_its_signature() {
    let simulator = start();
    let mut body = message("claude-sonnet-4-6");
    body["max_tokens"] = 4000.into();
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    body["tools"] =
        json!([{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]);
    body["messages"] = json!([{"role": "user", "content": "call weather weather"}]);
    let first = ask(&simulator, anthropic(&body)).await.json();
    let content = first["content"].as_array().unwrap().clone();
    assert_eq!((&content[0]["type"], &first["stop_reason"]), (&"thinking".into(), &"tool_use".into()));
    let results: Vec<Value> = content
        .iter()
        .filter_map(|block| block.get("id"))
        .map(|id| json!({"type": "tool_result", "tool_use_id": id, "content": "sunny"}))
        .collect();
    assert_eq!(results.len(), 2);
    let history = |content: &[Value]| json!([{"role": "user", "content": "call weather weather"}, {"role": "assistant", "content": content}, {"role": "user", "content": results}]);
    body["messages"] = history(&content);
    let second = ask(&simulator, anthropic(&body)).await.json();
    assert_eq!(second["content"][1]["text"], "The tool said: sunny sunny");
    let mut changed = content;
    changed[0]["thinking"] = "something else".into();
    body["messages"] = history(&changed);
    assert_eq!(ask(&simulator, anthropic(&body)).await.status, 400);
}

#[tokio::test]
async fn thinking_can_be_omitted_or_redacted_and_still_goes_round() {
    let simulator = start();
    for (model, thinking, kind) in [
        ("claude-sonnet-4-6", json!({"type": "adaptive", "display": "omitted"}), "thinking"),
        ("claude-sonnet-4-6~redacted", json!({"type": "adaptive"}), "redacted_thinking"),
    ] {
        let mut body = message(model);
        body["thinking"] = thinking;
        let reply = ask(&simulator, anthropic(&body)).await.json();
        assert_eq!(reply["content"][0]["type"], kind);
        assert!(reply["content"][0].get("thinking").is_none_or(|text| text == ""));
        body["messages"] = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": reply["content"]}, {"role": "user", "content": "on"}]);
        assert_eq!(ask(&simulator, anthropic(&body)).await.status, 200);
    }
}

#[tokio::test]
async fn parallel_calls_stream_as_blocks_whose_input_parses() {
    let simulator = start();
    let mut body = streamed(message("claude-sonnet-4-6"));
    body["tools"] = json!([
        {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
        {"name": "nothing", "input_schema": {"type": "object"}}
    ]);
    body["messages"] = json!([{"role": "user", "content": "explain and call weather then nothing in Zürich"}]);
    let events = ask(&simulator, anthropic(&body)).await.events();
    let starts: Vec<&Value> = events.iter().filter(|event| event["type"] == "content_block_start").collect();
    let kinds: Vec<&str> = starts.iter().map(|event| event["content_block"]["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["text", "tool_use", "tool_use"]);
    let input = |index: u64| -> String {
        let own = events.iter().filter(|event| event["index"] == index);
        own.filter_map(|event| event.pointer("/delta/partial_json")?.as_str()).collect()
    };
    assert_eq!(serde_json::from_str::<Value>(&input(1)).unwrap(), json!({"city": "explain"}));
    assert_eq!(input(2), "");
    assert_eq!(starts[2]["content_block"]["input"], json!({}));
}

#[tokio::test]
async fn a_marked_prefix_is_written_to_the_cache_and_then_read() {
    let simulator = start();
    let mut body = message("claude-sonnet-4-6");
    body["system"] = json!([{"type": "text", "text": "a b c d", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
    let usage = ask(&simulator, anthropic(&body)).await.json()["usage"].clone();
    assert_eq!((&usage["input_tokens"], &usage["cache_creation_input_tokens"]), (&3.into(), &4.into()));
    assert_eq!(usage["cache_creation"]["ephemeral_1h_input_tokens"], 4);
    body["messages"] = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}]);
    let usage = ask(&simulator, anthropic(&body)).await.json()["usage"].clone();
    assert_eq!((&usage["input_tokens"], &usage["cache_read_input_tokens"]), (&3.into(), &4.into()));
}

#[tokio::test]
async fn tokens_are_counted_as_they_are_charged() {
    let simulator = start();
    let mut body = message("claude-sonnet-4-6");
    body.as_object_mut().unwrap().remove("max_tokens");
    let mut request = anthropic(&body);
    *request.uri_mut() = "/v1/messages/count_tokens".parse().unwrap();
    assert_eq!(ask(&simulator, request).await.json(), json!({"input_tokens": 3}));
    let mut zero = message("claude-sonnet-4-6");
    zero["max_tokens"] = 0.into();
    let reply = ask(&simulator, anthropic(&zero)).await.json();
    assert_eq!((&reply["content"], &reply["stop_reason"]), (&json!([]), &"max_tokens".into()));
}
