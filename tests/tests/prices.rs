//! Golden costs: providers' usage objects, whole and streamed, to the nano-dollar. The shapes are those of the Python
//! packages openai 3.54 and anthropic 2.12.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use adapters::{Adapter, Operation, Options, Request, Target, Translator, Usage};
use bytes::Bytes;
use gateway::price::Price;
use http::HeaderMap;
use serde_json::{Value, json};

/// Dollars for a million tokens, all of them different.
const OPENAI: &str = "{input: 2.5, cached_input: 0.25, cache_write: 3.125, output: 15, audio_input: 40, audio_output: 80, image_input: 3.5, \
    tiers: [{above: 272k, input: 5, cached_input: 0.5, cache_write: 6.25, output: 22.5}], service_tiers: {\
    flex: {input: 1.25, cached_input: 0.13, output: 7.5, tiers: [{above: 272k, input: 2.5, cached_input: 0.25, output: 11.25}]}, \
    priority: {input: 5, cached_input: 0.5, output: 30}}}";
const ANTHROPIC: &str = "{input: 3, cached_input: 0.3, cache_write: 3.75, cache_write_1h: 6, output: 15, per_web_search: 0.01, us_inference: 10%, service_tiers: {\
    batch: {input: 1.5, cached_input: 0.15, cache_write: 1.875, cache_write_1h: 3, output: 7.5}, fast: {input: 30, output: 150}}}";

fn price(pricing: &str) -> Price {
    let text = format!(
        "version: 1\nproviders: {{p: {{kind: openai, base_url: 'http://127.0.0.1:1/v1'}}}}\n\
         models: [{{name: m, targets: [{{provider: p, model: m}}], pricing: {pricing}}}]\ntenants: []"
    );
    let loaded = gateway::config::parse_str("test", &text).unwrap();
    Price::from(loaded.config.models[0].pricing.as_ref().unwrap())
}

/// What `adapter` counts of an answer, and of the same one as a stream.
fn counted(adapter: &dyn Adapter, whole: &Value, events: &[String]) -> [Option<Usage>; 2] {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": true});
    let request = Request::parse(Operation::Chat, Bytes::from(body.to_string())).unwrap();
    let (options, headers) = (Options::default(), HeaderMap::new());
    let target = Target { model: "m", asked: "m", options: &options, caller: &headers, now: 0 };
    let reply = adapter.decode(&request, &target, Bytes::from(whole.to_string())).unwrap();
    let mut stream = Translator::new(adapter.framing(), adapter.events(&request, &target), false);
    events.iter().for_each(|event| stream.feed(event.as_bytes()).unwrap());
    stream.end().unwrap();
    [reply.usage, stream.writer().counted()]
}

fn openai(tier: &Value, usage: &Value) -> [Option<Usage>; 2] {
    let whole = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "service_tier": tier, "usage": usage,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": null}, "finish_reason": "stop"}]});
    let chunk = |tier: &Value, choices: Value, usage: &Value| {
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "service_tier": tier,
            "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let said = |tier: &Value| {
        chunk(tier, json!([{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]), &Value::Null)
    };
    let told_to_the_end = [said(tier), chunk(tier, json!([]), usage), "data: [DONE]\n\n".to_owned()];
    let told_once = [said(tier), chunk(&Value::Null, json!([]), usage), "data: [DONE]\n\n".to_owned()];
    let adapter = adapters::provider::of_kind("openai").unwrap();
    let counted_of = |events: &[String]| counted(adapter, &whole, events);
    assert_eq!(counted_of(&told_to_the_end), counted_of(&told_once));
    counted_of(&told_to_the_end)
}

fn anthropic(usage: &Value) -> [Option<Usage>; 2] {
    let message = |content: Value, usage: &Value, stop: Value| {
        json!({"id": "msg", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": stop,
            "stop_sequence": null, "usage": usage})
    };
    let whole = message(json!([{"type": "text", "text": "Hi"}]), usage, json!("end_turn"));
    let mut before = usage.clone();
    before["output_tokens"] = json!(1);
    let details = usage["output_tokens_details"].clone();
    let events = [
        json!({"type": "message_start", "message": message(json!([]), &before, Value::Null)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": usage["output_tokens"], "output_tokens_details": details}}),
        json!({"type": "message_stop"}),
    ];
    let events = events.map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()));
    counted(adapters::provider::of_kind("anthropic").unwrap(), &whole, &events)
}

fn assert_cost(price: &Price, counted: [Option<Usage>; 2], expected: i64, what: &Value) {
    assert_eq!(counted[0], counted[1], "streamed is not unstreamed: {what}");
    assert_eq!(price.cost(&counted[0].unwrap()), Some(expected), "{what}");
}

#[test]
fn openais_usage_costs_what_its_tier_and_kinds_cost() {
    let price = price(OPENAI);
    let short = json!({"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100});
    let detailed = json!({"prompt_tokens": 2_006, "completion_tokens": 300, "total_tokens": 2_306,
        "prompt_tokens_details": {"cached_tokens": 1_920, "cache_write_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 0, "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0}});
    let audio = json!({"prompt_tokens": 120, "completion_tokens": 230, "total_tokens": 350,
        "prompt_tokens_details": {"audio_tokens": 100, "text_tokens": 20, "cached_tokens": 0},
        "completion_tokens_details": {"audio_tokens": 200, "text_tokens": 30, "reasoning_tokens": 0}});
    let long = json!({"prompt_tokens": 300_000, "completion_tokens": 1_000, "total_tokens": 301_000,
        "prompt_tokens_details": {"cached_tokens": 200_000}});
    let pictures = json!({"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"text_tokens": 400, "image_tokens": 600}});
    let null = json!({"prompt_tokens": 10, "completion_tokens": 0, "prompt_tokens_details": null});
    for (tier, usage, expected) in [
        (json!("default"), &short, 2_500_000 + 1_500_000),
        (Value::Null, &short, 4_000_000),
        (json!("scale"), &short, 4_000_000),
        (json!("flex"), &short, 1_250_000 + 750_000),
        (json!("priority"), &short, 5_000_000 + 3_000_000),
        (json!("fast"), &short, 8_000_000),
        (json!("default"), &detailed, 22 * 2_500 + 1_920 * 250 + 64 * 3_125 + 300 * 15_000),
        (json!("flex"), &detailed, 22 * 1_250 + 1_920 * 130 + 64 * 3_125 + 300 * 7_500),
        (json!("default"), &audio, 20 * 2_500 + 100 * 40_000 + 200 * 80_000 + 30 * 15_000),
        (json!("default"), &long, 100_000 * 5_000 + 200_000 * 500 + 1_000 * 22_500),
        (json!("flex"), &long, 100_000 * 2_500 + 200_000 * 250 + 1_000 * 11_250),
        // Of long prompts priority says nothing: the dearer of its price and the usual one for them.
        (json!("priority"), &long, 100_000 * 5_000 + 200_000 * 500 + 1_000 * 30_000),
        (json!("default"), &null, 25_000),
        (json!("default"), &pictures, 400 * 2_500 + 600 * 3_500 + 1_500_000),
    ] {
        assert_cost(&price, openai(&tier, usage), expected, &json!([tier, usage]));
    }
}

#[test]
fn a_stream_that_ends_before_its_usage_is_known_by_its_tier() {
    let body = json!({"model": "m", "messages": [], "stream": true});
    let request = Request::parse(Operation::Chat, Bytes::from(body.to_string())).unwrap();
    let (options, headers) = (Options::default(), HeaderMap::new());
    let target = Target { model: "m", asked: "m", options: &options, caller: &headers, now: 0 };
    let adapter = adapters::provider::of_kind("openai").unwrap();
    let mut stream = Translator::new(adapter.framing(), adapter.events(&request, &target), false);
    stream
        .feed(
            b"data: {\"service_tier\":\"priority\",\"choices\":[]}\n\ndata: {\"service_tier\":null,\"choices\":[]}\n\n",
        )
        .unwrap();
    assert_eq!((stream.writer().counted(), stream.writer().tier()), (None, adapters::ServiceTier::Priority));
}

#[test]
fn anthropics_usage_costs_what_its_tier_and_kinds_cost() {
    let price = price(ANTHROPIC);
    let usage = |tier: &str, speed: Value| {
        json!({"input_tokens": 86, "cache_read_input_tokens": 1_920, "cache_creation_input_tokens": 1_100,
            "cache_creation": {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 100}, "output_tokens": 300,
            "output_tokens_details": {"thinking_tokens": 200}, "server_tool_use": null, "inference_geo": "global",
            "service_tier": tier, "speed": speed})
    };
    let standard = 86 * 3_000 + 1_920 * 300 + 1_000 * 3_750 + 100 * 6_000 + 300 * 15_000;
    let with = |name: &str, value: Value| {
        let mut usage = usage("standard", Value::Null);
        usage[name] = value;
        usage
    };
    let searched = json!({"web_search_requests": 3, "web_fetch_requests": 7});
    for (usage, expected) in [
        (usage("standard", Value::Null), standard),
        (with("server_tool_use", searched), standard + 30_000_000),
        (with("inference_geo", json!("us")), standard / 10 * 11),
        (with("inference_geo", json!("eu")), standard),
        // It has no price of its own.
        (usage("priority", json!("standard")), standard),
        (usage("batch", Value::Null), standard / 2),
        (usage("standard", json!("fast")), 86 * 30_000 + 1_920 * 300 + 1_000 * 3_750 + 100 * 6_000 + 300 * 150_000),
        (json!({"input_tokens": 10, "output_tokens": 0}), 30_000),
        (json!({"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 0}), 0),
    ] {
        assert_cost(&price, anthropic(&usage), expected, &usage);
    }
}

#[test]
fn a_model_of_the_catalog_has_the_prices_of_each_way_to_be_served() {
    let cost = |kind: &str, model: &str, usage: Usage| {
        let entry = gateway::price::Catalog::of(kind).unwrap().get(model).unwrap();
        entry.price.as_ref().unwrap().cost(&usage).unwrap()
    };
    let usage = |tier| Usage { input_tokens: 1_000, output_tokens: 1_000, tier, ..Usage::default() };
    use adapters::ServiceTier::{Batch, Fast, Flex, Priority, Standard};
    let openai = [Standard, Flex, Priority, Batch].map(|tier| cost("openai", "gpt-5", usage(tier)));
    assert!(openai[1] < openai[0] && openai[0] < openai[2] && openai[3] < openai[0], "{openai:?}");
    let anthropic = [Standard, Fast, Batch].map(|tier| cost("anthropic", "claude-opus-5", usage(tier)));
    assert!(anthropic[2] < anthropic[0] && anthropic[0] < anthropic[1], "{anthropic:?}");
    let spoken = Usage { characters: 1_000_000, ..Usage::default() };
    assert_eq!(cost("openai", "tts-1", spoken), 15_000_000_000);
}
