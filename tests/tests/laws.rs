//! Laws that hold for all dialects and all inputs, over the fixtures and over what proptest makes up.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use adapters::frame::sse::Framer;
use adapters::index::Index;
use adapters::request::Edit;
use adapters::{Adapter, Operation, Options, Request, StreamFault, Target, Translator, Usage};
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use weir_tests::fixtures::{self, Case, Streamed};

fn streams() -> Vec<(Case, Vec<u8>)> {
    fixtures::all()
        .into_iter()
        .filter_map(|case| Some((case.file("stream.native")?, case)))
        .map(|(s, c)| (c, s))
        .collect()
}

/// Bytes cut at these places.
fn pieces<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn where_the_network_cuts_does_not_matter(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        for (case, native) in streams() {
            let whole = case.streamed([native.as_slice()]);
            let cut = case.streamed(pieces(&native, &cuts));
            prop_assert_eq!(&cut, &whole, "{}", case.folder.display());
        }
    }

    #[test]
    fn a_stream_cut_short_is_never_taken_for_a_whole_one(at in any::<prop::sample::Index>()) {
        for (case, native) in streams() {
            let whole = case.streamed([native.as_slice()]);
            let cut = case.streamed([&native[..at.index(native.len())]]);
            if cut.fault.is_none() {
                prop_assert_eq!(&whole.fault, &None, "{}", case.folder.display());
                prop_assert_eq!(collected(&cut.bytes), collected(&whole.bytes), "{}", case.folder.display());
            }
        }
    }

    #[test]
    fn what_is_not_the_models_name_survives_an_alias_byte_for_byte(
        fields in prop::collection::vec((name(), json_text()), 0..8),
        spaces in prop::collection::vec("[ \n\t]{0,3}", 20),
        at in any::<prop::sample::Index>(),
    ) {
        let mut seen = std::collections::HashSet::from(["model".to_owned()]);
        let mut fields: Vec<(String, String)> = fields.into_iter().filter(|(name, _)| seen.insert(name.clone())).collect();
        fields.insert(at.index(fields.len() + 1), ("model".to_owned(), "\"alias\"".to_owned()));
        let body = object(&fields, &spaces);
        let want = body.replace("\"alias\"", "\"real\"");
        let request = Request::parse(Operation::Chat, body.into()).unwrap();
        let sent = encoded(openai(), &request, "real").unwrap();
        prop_assert_eq!(sent, want);
    }

    #[test]
    fn a_chunk_passes_as_it_would_alone_whatever_came_before(chunks in prop::collection::vec(chunk(), 1..24)) {
        let mut stream = passing();
        for chunk in &chunks {
            prop_assert_eq!(fed(&mut stream, chunk), fed(&mut passing(), chunk), "{}", chunk);
        }
    }

    #[test]
    fn anthropic_forwards_what_it_does_not_know_as_it_was_written(value in json_text()) {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}],"x_unknown":{value}}}"#);
        let request = Request::parse(Operation::Chat, body.into()).unwrap();
        let sent = encoded(anthropic(), &request, "claude-opus-5").unwrap();
        let has = format!("\"x_unknown\":{value}");
        prop_assert!(sent.contains(&has), "{}", sent);
    }

    #[test]
    fn no_array_of_messages_breaks_an_encoder_and_what_it_sends_is_json(messages in messages(), rest in rest()) {
        let mut body = Map::from_iter([("model".to_owned(), json!("m")), ("messages".to_owned(), messages)]);
        body.extend(rest);
        let request = Request::parse(Operation::Chat, Value::Object(body).to_string().into());
        let Ok(request) = request else { return Ok(()) };
        for model in ["claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5-5", "claude-3-haiku-20240307"] {
            let Ok(sent) = encoded(anthropic(), &request, model) else { continue };
            prop_assert_eq!(encoded(anthropic(), &request, model).unwrap(), sent.as_str());
            let sent: Value = serde_json::from_str(&sent).expect("what is sent is JSON");
            well_formed(&sent)?;
        }
    }

    #[test]
    fn garbage_breaks_nothing(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
        let _index = Index::of(&bytes);
        let mut framer = Framer::default();
        framer.feed(&bytes);
        while let Ok(Some(_)) = framer.next_event() {}
        survive(&bytes, cut);
    }

    #[test]
    fn garbage_in_the_shape_of_events_breaks_no_decoder(events in prop::collection::vec(event(), 0..12), cut in any::<prop::sample::Index>()) {
        survive(events.concat().as_bytes(), cut);
    }

    #[test]
    fn damaged_fixtures_break_nothing(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let all: Vec<Vec<u8>> = fixtures::all().iter()
            .flat_map(|case| ["stream.native", "reply.native", "refused.native"].map(|file| case.file(file)))
            .flatten()
            .collect();
        let mut bytes = which.get(&all).clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        survive(&bytes, cut);
    }
}

#[test]
fn only_whole_events_leave_and_one_done_at_most_with_nothing_behind_it() {
    for (case, native) in streams() {
        let place = case.folder.display().to_string();
        let mut translator = case.translator();
        for byte in native.chunks(1) {
            let fed = translator.feed(byte);
            let written = translator.writer_mut().take();
            assert!(written.is_empty() || written.ends_with(b"\n\n"), "{place}: a piece of an event");
            for event in events(&written) {
                serde_json::from_str::<Value>(&event).unwrap_or_else(|e| panic_at(&place, &event, &e));
            }
            if fed.is_err() {
                break;
            }
        }
        let Streamed { bytes, fault, .. } = case.streamed([native.as_slice()]);
        let done = events(&bytes).iter().filter(|event| *event == "[DONE]").count();
        assert_eq!(done, usize::from(fault.is_none()), "{place}");
        assert!(fault.is_some() || bytes.ends_with(b"data: [DONE]\n\n"), "{place}");
    }
}

#[test]
fn an_error_before_any_content_leaves_no_content() {
    for (case, native) in streams() {
        let streamed = case.streamed([native.as_slice()]);
        if case.folder.ends_with("error-first") {
            assert!(!streamed.has_content && matches!(streamed.fault, Some(StreamFault::Refused(_))));
        }
    }
}

#[test]
fn the_collected_stream_says_what_the_whole_answer_says() {
    let mut compared = 0;
    for (case, native) in streams() {
        let Some(reply) = case.file("reply.json") else { continue };
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        let streamed = case.streamed([native.as_slice()]);
        assert_eq!(streamed.fault, None, "{}", case.folder.display());
        let collected = collected(&streamed.bytes);
        assert_eq!(collected, whole(&reply), "{}", case.folder.display());
        compared += 1;
    }
    assert!(compared >= 12, "only {compared} fixtures have both");
}

#[test]
fn usage_never_falls() {
    for (case, native) in streams() {
        let mut translator = case.translator();
        let mut last = Usage::default();
        for byte in native.chunks(1) {
            let fed = translator.feed(byte);
            let now = translator.writer().counted().unwrap_or_default();
            assert!(
                now.input_tokens >= last.input_tokens && now.output_tokens >= last.output_tokens,
                "{}: {last:?} then {now:?}",
                case.folder.display()
            );
            last = now;
            if fed.is_err() {
                break;
            }
        }
    }
}

#[test]
fn usage_is_the_same_whole_and_streamed() {
    for (case, native) in streams() {
        let Some(reply) = case.file("reply.native") else { continue };
        let reply = case.adapter.decode(&case.request, &case.target(), reply.trim_ascii_end().to_vec().into()).unwrap();
        assert_eq!(case.streamed([native.as_slice()]).usage, reply.usage, "{}", case.folder.display());
    }
}

#[test]
fn encoding_twice_gives_the_same() {
    for case in fixtures::all() {
        let once = case.adapter.encode(&case.request, &case.target());
        assert_eq!(once, case.adapter.encode(&case.request, &case.target()), "{}", case.folder.display());
    }
}

#[test]
fn every_field_of_openais_request_is_said_or_named() {
    let fields = [
        "messages",
        "model",
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ];
    use adapters::provider::anthropic::{DROPS, TRANSLATES};
    for field in fields {
        assert!(TRANSLATES.contains(&field) || DROPS.iter().any(|(dropped, _)| *dropped == field), "{field}");
    }
}

#[test]
fn reasoning_survives_three_turns_byte_for_byte() {
    let case = fixtures::of(anthropic()).into_iter().find(|case| case.folder.ends_with("thinking")).unwrap();
    let reply = case.file("reply.json").unwrap();
    let reply: Value = serde_json::from_slice(&reply).unwrap();
    let message = &reply["choices"][0]["message"];
    let mut messages = vec![json!({"role": "user", "content": "1"})];
    for turn in 2..5 {
        messages.extend([message.clone(), json!({"role": "user", "content": turn.to_string()})]);
        let body = json!({"model": "m", "messages": messages, "reasoning_effort": "low"}).to_string();
        let request = Request::parse(Operation::Chat, body.into()).unwrap();
        let sent: Value = serde_json::from_str(&encoded(anthropic(), &request, "claude-sonnet-4-5").unwrap()).unwrap();
        for spoken in sent["messages"].as_array().unwrap().iter().filter(|turn| turn["role"] == "assistant") {
            assert_eq!(spoken["content"][0], message["thinking_blocks"][0]);
            assert_eq!(spoken["content"][1], message["thinking_blocks"][1]);
        }
    }
}

#[test]
fn an_answer_that_is_handed_back_unchanged_is_what_the_provider_said() {
    let mut compared = 0;
    for case in fixtures::of(anthropic()) {
        let (Some(native), Some(reply)) = (case.file("reply.native"), case.file("reply.json")) else { continue };
        let native: Value = serde_json::from_slice(&native).unwrap();
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        let by_tool = reply["choices"][0]["message"].get("function_call").is_some()
            || native["content"].as_array().unwrap().iter().any(|block| block["name"] == "weir_json_answer");
        if native["stop_reason"] == "refusal" || by_tool {
            continue;
        }
        let said: Vec<Value> = native["content"].as_array().unwrap().iter().filter_map(to_hand_back).collect();
        let mut messages = vec![reply["choices"][0]["message"].clone()];
        if let Some(stream) = case.file("stream.native") {
            messages.push(Value::Object(gathered(&case.streamed([stream.as_slice()]).bytes).0));
        }
        for message in messages {
            assert_eq!(handed_back(&message), said, "{}", case.folder.display());
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} answers were handed back");
}

/// A block as it must come back: without what says nothing, and nothing for one that Anthropic would refuse.
fn to_hand_back(block: &Value) -> Option<Value> {
    let mut block = block.as_object().unwrap().clone();
    let is_direct = block.get("caller").is_some_and(|caller| caller["type"] == "direct");
    if block["type"] == "tool_use" && is_direct {
        block.remove("caller");
    }
    block.retain(|name, value| name != "citations" || value.as_array().is_some_and(|all| !all.is_empty()));
    let blank = block.get("text").is_some_and(|text| text.as_str().is_some_and(|text| text.trim().is_empty()));
    let unsigned = block["type"] == "thinking" && block.get("signature").is_none();
    (!blank && !unsigned).then_some(Value::Object(block))
}

/// The blocks of an assistant's message as Anthropic gets them.
fn handed_back(message: &Value) -> Vec<Value> {
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let results = calls.iter().map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": "r"}));
    let function = message.get("function_call").filter(|call| !call.is_null());
    let function = function.map(|call| json!({"role": "function", "name": call["name"], "content": "r"}));
    let mut messages = vec![json!({"role": "user", "content": "q"}), message.clone()];
    messages.extend(results.chain(function));
    let body = json!({"model": "m", "messages": messages}).to_string();
    let request = Request::parse(Operation::Chat, body.into()).unwrap();
    let sent: Value = serde_json::from_str(&encoded(anthropic(), &request, "claude-opus-4-8").unwrap()).unwrap();
    let content = &sent["messages"][1]["content"];
    content.as_array().cloned().unwrap_or_else(|| vec![json!({"type": "text", "text": content})])
}

fn panic_at(place: &str, event: &str, error: &serde_json::Error) -> Value {
    assert!(event == "[DONE]", "{place}: {error} in {event}");
    Value::Null
}

/// A chunk: mostly with the same begin as others have, sometimes with another order or other fields.
fn chunk() -> impl Strategy<Value = String> {
    const BEGINS: [&str; 5] = [
        r#""id":"a","object":"chat.completion.chunk","model":"real","#,
        r#""id":"a","object":"chat.completion.chunk","model":"other","#,
        r#""id":"a","mod\u0065l":"real","usage":null,"#,
        r#""id":"choices","#,
        "",
    ];
    const BEHIND: [&str; 8] = [
        "",
        r#","usage":null"#,
        r#","usage":null,"obfuscation":"x\"y""#,
        r#","obfuscation":"x\"y""#,
        r#","obfuscation":"x","usage":{"prompt_tokens":1,"completion_tokens":2}"#,
        r#","model":"late","usage":null"#,
        r#","error":{"message":"late"}"#,
        r#","id":"b""#,
    ];
    const DELTAS: [&str; 4] = [
        r#"{"content":"TEXT"}"#,
        r#"{"content":"TEXT","role":"assistant"}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"TEXT"}}]}"#,
        r#"{"content":null,"reasoning_content":"TEXT"}"#,
    ];
    const FINISHES: [&str; 4] = ["null", "null", r#""""#, r#""stop""#];
    const TEXTS: [&str; 4] = ["hi", r#"\"choices\":["#, "", r#"a\\"#];
    let of = |texts: &'static [&'static str]| {
        // The first is said again and again, as providers do.
        prop_oneof![3 => Just(texts[0]), 2 => prop::sample::select(texts)]
    };
    (of(&BEGINS), of(&DELTAS), of(&FINISHES), prop::sample::select(&TEXTS[..]), of(&BEHIND)).prop_map(
        |(begin, delta, finish, text, behind)| {
            let delta = delta.replace("TEXT", text);
            let choices = format!(r#""choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]"#);
            format!("data: {{{begin}{choices}{behind}}}\n\n")
        },
    )
}

/// A stream from an OpenAI-shaped provider whose model has another name.
fn passing() -> Translator {
    let request = Request::parse(Operation::Chat, r#"{"model":"alias","stream":true}"#.into()).unwrap();
    let (options, caller) = (Options::default(), HeaderMap::new());
    let to = Target { model: "real", asked: "alias", options: &options, caller: &caller, now: 0 };
    Translator::new(openai().framing(), openai().events(&request, &to), false)
}

/// What a stream makes of one more piece.
fn fed(stream: &mut Translator, piece: &str) -> (Vec<u8>, bool) {
    let broken = stream.feed(piece.as_bytes()).is_err();
    (stream.writer_mut().take(), broken)
}

fn openai() -> &'static dyn Adapter {
    adapters::provider::of_kind("openai").unwrap()
}

fn anthropic() -> &'static dyn Adapter {
    adapters::provider::of_kind("anthropic").unwrap()
}

fn encoded(adapter: &dyn Adapter, request: &Request, model: &str) -> Result<String, adapters::EncodeError> {
    let (options, caller) = (Options::default(), HeaderMap::new());
    let to = Target { model, asked: "alias", options: &options, caller: &caller, now: 1 };
    let native = adapter.encode(request, &to)?;
    Ok(String::from_utf8(native.body.joined().to_vec()).unwrap())
}

/// Everything that reads a provider's bytes reads these; that it comes back is the test.
fn survive(bytes: &[u8], cut: prop::sample::Index) {
    let body = r#"{"model":"m","messages":[],"stream":true,"functions":[{"name":"f"}]}"#;
    let request = Request::parse(Operation::Chat, body.into()).unwrap();
    let (options, caller) = (Options::default(), HeaderMap::new());
    let to = Target { model: "m", asked: "a", options: &options, caller: &caller, now: 1 };
    for adapter in adapters::provider::kinds().filter_map(adapters::provider::of_kind) {
        let _reply = adapter.decode(&request, &to, bytes.to_vec().into());
        let _refusal = adapter.refusal(http::StatusCode::BAD_REQUEST, &caller, bytes);
        let mut translator = Translator::new(adapter.framing(), adapter.events(&request, &to), true);
        for piece in pieces(bytes, &[cut]) {
            if translator.feed(piece).is_err() {
                break;
            }
        }
        let _end = translator.end();
        let written = translator.writer_mut().take();
        assert!(written.is_empty() || written.ends_with(b"\n\n"));
    }
}

/// Anthropic's own rules of a conversation.
fn well_formed(sent: &Value) -> Result<(), TestCaseError> {
    let turns = sent["messages"].as_array().expect("turns");
    prop_assert_eq!(&turns[0]["role"], "user");
    for pair in turns.windows(2) {
        prop_assert_ne!(&pair[0]["role"], &pair[1]["role"]);
    }
    let mut ids = std::collections::HashSet::new();
    let mut open: Vec<Value> = Vec::new();
    for turn in turns {
        let blocks = turn["content"].as_array().cloned().unwrap_or_default();
        let results: Vec<Value> =
            blocks.iter().filter(|b| b["type"] == "tool_result").map(|b| b["tool_use_id"].clone()).collect();
        if turn["role"] == "user" {
            prop_assert_eq!(results.len(), open.len());
            prop_assert!(results.iter().all(|id| open.contains(id)));
            prop_assert!(blocks.iter().take(results.len()).all(|b| b["type"] == "tool_result"));
            open.clear();
        }
        for block in blocks.iter().filter(|block| block["type"] == "tool_use") {
            prop_assert!(ids.insert(block["id"].clone()) && block["input"].is_object());
            open.push(block["id"].clone());
        }
        prop_assert!(turn["content"].as_str().is_none_or(|text| !text.trim().is_empty()));
        prop_assert!(blocks.iter().all(|b| b["text"].as_str().is_none_or(|text| !text.trim().is_empty())));
    }
    prop_assert!(open.is_empty());
    Ok(())
}

fn events(bytes: &[u8]) -> Vec<String> {
    let mut framer = Framer::default();
    framer.feed(bytes);
    let mut events = Vec::new();
    while let Some(event) = framer.next_event().unwrap() {
        events.push(String::from_utf8(event.data.to_vec()).unwrap());
    }
    events
}

/// What a client has in its hands when a stream has ended.
fn collected(bytes: &[u8]) -> Value {
    let (message, reason) = gathered(bytes);
    said(&Value::Object(message), &reason)
}

/// The message that a stream adds up to, and why it ended.
fn gathered(bytes: &[u8]) -> (Map<String, Value>, Value) {
    let mut message = Map::new();
    let mut reason = Value::Null;
    for event in events(bytes).iter().filter(|event| *event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event).unwrap();
        let choice = &chunk["choices"][0];
        if choice["finish_reason"].is_string() {
            reason = choice["finish_reason"].clone();
        }
        for (name, value) in choice["delta"].as_object().into_iter().flatten() {
            add(message.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
    (message, reason)
}

fn whole(reply: &Value) -> Value {
    let choice = &reply["choices"][0];
    said(&choice["message"], &choice["finish_reason"])
}

/// A message without what means nothing, with arguments and JSON content as what they mean.
fn said(message: &Value, reason: &Value) -> Value {
    let mut said = Map::from_iter([("finish_reason".to_owned(), reason.clone())]);
    for (name, value) in message.as_object().unwrap() {
        let nothing = value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty);
        if !nothing {
            said.insert(name.clone(), meaning(value));
        }
    }
    Value::Object(said)
}

fn meaning(value: &Value) -> Value {
    match value {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(object @ Value::Object(_)) => object,
            _ => value.clone(),
        },
        Value::Array(items) => items.iter().map(meaning).collect(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| *name != "index")
            .map(|(name, value)| (name.clone(), meaning(value)))
            .collect(),
        other => other.clone(),
    }
}

/// Adds a delta as OpenAI's clients do: texts grow, lists with an index grow in their places, other lists come once,
/// since one client breaks off at the second and another forgets the first.
fn add(to: &mut Value, delta: &Value) {
    match (to, delta) {
        (to, Value::Null) if to.is_null() => {}
        (Value::String(text), Value::String(more)) => text.push_str(more),
        (Value::Array(items), Value::Array(more)) => {
            assert!(more.iter().all(|item| item.get("index").is_some()), "a second list without indices: {more:?}");
            more.iter().for_each(|item| add_item(items, item));
        }
        (Value::Object(fields), Value::Object(more)) => {
            for (name, value) in more {
                match fields.get_mut(name) {
                    Some(field) if name != "index" && name != "type" => add(field, value),
                    _ => drop(fields.insert(name.clone(), value.clone())),
                }
            }
        }
        (to, value) => *to = value.clone(),
    }
}

fn add_item(items: &mut Vec<Value>, item: &Value) {
    let same = item.get("index").and_then(|index| items.iter().position(|other| other.get("index") == Some(index)));
    match same {
        Some(at) => add(&mut items[at], item),
        None => items.push(item.clone()),
    }
}

fn object(fields: &[(String, String)], spaces: &[String]) -> String {
    let mut spaces = spaces.iter().cycle();
    let mut space = || spaces.next().cloned().unwrap_or_default();
    let mut body = format!("{{{}", space());
    for (at, (name, value)) in fields.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        body += &format!("{comma}{}\"{name}\"{}:{}{value}{}", space(), space(), space(), space());
    }
    body + "}"
}

fn name() -> impl Strategy<Value = String> {
    "[a-z_]{1,12}".prop_filter("names that are read have rules of their own", |name| {
        !["stream", "stream_options", "model"].contains(&name.as_str())
    })
}

/// JSON as people and programs write it: spaces, long integers, escapes.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("12345678901234567890123".to_owned()),
        Just("-0.10e+5".to_owned()),
        "\"[a-zé\\u{2028}{}\\[\\], ]{0,8}\"",
        Just(r#""\u00e9\"\\ \/""#.to_owned()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[ {}]", items.join(" ,"))),
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                let fields: Vec<String> =
                    items.iter().enumerate().map(|(at, item)| format!("\"{at}\" :{item}")).collect();
                format!("{{{}  }}", fields.join(", "))
            }),
        ]
    })
}

fn some_text() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("")),
        Just(json!(" \n")),
        Just(json!("a")),
        Just(json!("b\n")),
        "[a-z\"\\\\]{0,5}".prop_map(Value::from)
    ]
}

fn content() -> impl Strategy<Value = Value> {
    let part = prop_oneof![
        4 => some_text().prop_map(|text| json!({"type": "text", "text": text})),
        1 => Just(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}})),
        1 => Just(json!({"type": "image_url"})),
        1 => Just(json!({"type": "refusal", "refusal": "no"})),
        1 => Just(json!({"type": "file", "file": {"file_data": "????"}})),
        1 => Just(json!({"type": "nonsense"})),
        1 => Just(json!(7)),
    ];
    prop_oneof![
        6 => some_text(),
        1 => Just(Value::Null),
        3 => prop::collection::vec(part, 0..3).prop_map(Value::Array),
        1 => Just(json!({"a": 1})),
    ]
}

fn call() -> impl Strategy<Value = Value> {
    let arguments = prop_oneof![Just(""), Just("{}"), Just("{\"a\": 1}"), Just("[1]"), Just("{broken"), Just("\"x\"")];
    (0..3_u8, arguments).prop_map(|(id, arguments)| {
        json!({"id": format!("call:{id}"), "type": "function", "function": {"name": "f", "arguments": arguments}})
    })
}

fn thinking_block() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"type": "thinking", "thinking": "t", "signature": "s"})),
        Just(json!({"type": "thinking", "thinking": "t", "signature": null})),
        Just(json!({"type": "redacted_thinking", "data": "d"})),
        Just(json!({})),
    ]
}

/// Messages, alone and in the groups that a conversation is made of, in any order.
fn messages() -> impl Strategy<Value = Value> {
    let plain = (prop_oneof![Just("system"), Just("developer"), Just("user"), Just("assistant")], content())
        .prop_map(|(role, content)| vec![json!({"role": role, "content": content})]);
    let lone = (0..3_u8, content()).prop_map(|(id, content)| {
        vec![json!({"role": "tool", "tool_call_id": format!("call:{id}"), "content": content})]
    });
    let talk = (
        prop::collection::vec(call(), 1..3),
        prop::option::of(prop::collection::vec(thinking_block(), 0..3)),
        content(),
        any::<bool>(),
    )
        .prop_map(|(calls, thinking, content, between)| {
            let mut group = vec![
                json!({"role": "assistant", "content": null, "tool_calls": calls.clone(), "thinking_blocks": thinking}),
            ];
            if between {
                group.push(json!({"role": "system", "content": "s"}));
            }
            group.extend(
                calls.iter().rev().map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": content})),
            );
            group
        });
    let odd = prop_oneof![
        Just(vec![json!({"role": "function", "name": "f", "content": "1"})]),
        Just(vec![
            json!({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}),
            json!({"role": "function", "name": "f", "content": null})
        ]),
        Just(vec![json!({"role": "robot"})]),
        Just(vec![json!([])]),
    ];
    let group = prop_oneof![8 => plain, 1 => lone, 6 => talk, 1 => odd];
    prop::collection::vec(group, 0..7).prop_map(|groups| Value::Array(groups.concat()))
}

fn rest() -> impl Strategy<Value = Map<String, Value>> {
    let one = prop_oneof![
        Just(("reasoning_effort", json!("high"))),
        Just(("reasoning_effort", json!("none"))),
        Just(("temperature", json!(1.5))),
        Just(("tools", json!([{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/$defs/a"}}}]))),
        Just(("tool_choice", json!("required"))),
        Just(("tool_choice", json!("none"))),
        Just(("parallel_tool_calls", json!(false))),
        Just(("response_format", json!({"type": "json_object"}))),
        Just(("response_format", json!({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}))),
        Just(("thinking", json!({"type": "enabled", "budget_tokens": 2000}))),
        Just(("output_config", json!({"effort": "low"}))),
        Just(("stop", json!(["a", " "]))),
        Just(("max_tokens", json!(5))),
        Just(("metadata", json!({"user_id": "u"}))),
        Just(("stream", json!(true))),
    ];
    prop::collection::vec(one, 0..4)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Events as a stream's are made of, in any order and with fields missing.
fn event() -> impl Strategy<Value = String> {
    let kind = prop_oneof![
        Just("message_start"),
        Just("content_block_start"),
        Just("content_block_delta"),
        Just("content_block_stop"),
        Just("message_delta"),
        Just("message_stop"),
        Just("ping"),
        Just("error"),
        Just("other"),
    ];
    let block = prop_oneof![
        Just(json!({"type": "text", "text": "a"})),
        Just(json!({"type": "thinking", "thinking": "", "signature": ""})),
        Just(json!({"type": "redacted_thinking", "data": "d"})),
        Just(json!({"type": "tool_use", "id": "i", "name": "f", "input": {}})),
        Just(json!({"type": "tool_use", "name": "weir_json_answer", "input": {"a": 1}})),
        Just(json!({"type": "server_tool_use", "input": {}})),
        Just(json!({"type": 7})),
        Just(Value::Null),
    ];
    let delta = prop_oneof![
        Just(json!({"type": "text_delta", "text": "é"})),
        Just(json!({"type": "thinking_delta", "thinking": "t"})),
        Just(json!({"type": "signature_delta", "signature": "s"})),
        Just(json!({"type": "input_json_delta", "partial_json": "{\"a"})),
        Just(json!({"type": "citations_delta", "citation": {"type": "x"}})),
        Just(json!({"stop_reason": "tool_use"})),
        Just(json!({"stop_reason": "refusal", "stop_details": null})),
        Just(json!({"content": "a"})),
        Just(Value::Null),
    ];
    let usage = prop_oneof![
        Just(json!({"output_tokens": 3})),
        Just(json!({"input_tokens": u64::MAX, "cache_read_input_tokens": 9})),
        Just(Value::Null)
    ];
    (kind, 0..3_u8, block, delta, usage).prop_map(|(kind, index, block, delta, usage)| {
        let data = json!({
            "type": kind, "index": index, "content_block": block, "delta": delta, "usage": usage,
            "choices": [{"index": 0, "delta": delta, "finish_reason": null}],
        });
        format!("event: {kind}\ndata: {data}\n\n")
    })
}

/// An edit of a field that is not there changes nothing else.
#[test]
fn taking_out_what_is_not_there_changes_nothing() {
    for case in fixtures::all() {
        let body = case.request.rewrite(&[Edit::Remove("no_such_field".into())]).joined();
        assert_eq!(&body, case.request.body(), "{}", case.folder.display());
    }
}
