//! Requests that tests ask again and again.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use simulator::Simulator;

/// Models of both dialects, as a configuration [of a simulator](crate::weir::Config::of) knows them.
pub const MODELS: [&str; 2] = ["openai/gpt-5.5", "claude/claude-sonnet-4-6"];

/// A simulator.
#[must_use]
pub fn simulator() -> Simulator {
    simulator::start(simulator::Config::default()).expect("a simulator")
}

/// A chat request for a whole answer.
#[must_use]
pub fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Say something about weirs and water."}]})
}

/// The same for a stream.
#[must_use]
pub fn stream(model: &str) -> Value {
    with(chat(model), "stream", json!(true))
}

/// The same for a stream with its usage.
#[must_use]
pub fn stream_with_usage(model: &str) -> Value {
    with(stream(model), "stream_options", json!({"include_usage": true}))
}

/// `request` with one more field.
#[must_use]
pub fn with(mut request: Value, name: &str, value: Value) -> Value {
    request[name] = value;
    request
}

/// A chunk of OpenAI's with this delta for its only choice.
#[must_use]
pub fn chunk(model: &str, delta: &Value) -> String {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
    json!({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]})
        .to_string()
}

/// The chunk that ends the only choice.
#[must_use]
pub fn finish(model: &str) -> String {
    let choice = json!({"index": 0, "delta": {}, "finish_reason": "stop"});
    json!({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]})
        .to_string()
}
