//! The stream contract, over real sockets: when the head goes out, what goes out after it, and how a stream ends.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use simulator::Simulator;
use tokio::sync::{Notify, Semaphore};
use weir_tests::ask::{MODELS, chat, chunk, finish, simulator, stream, stream_with_usage};
use weir_tests::client::{Answer, Call, End, Event};
use weir_tests::patience::within;
use weir_tests::provider::{Provider, STREAM};
use weir_tests::weir::{Config, KEY, Weir};

/// Two models, `slow` and `claude-slow`, with these timeouts, in front of the simulator; the directives are part of the
/// name that the simulator is asked for.
fn with_timeouts(simulator: &Simulator, timeouts: &str, directives: &str) -> Config {
    Config::of(simulator)
        .model(&format!(
            "{{name: slow, targets: [{{provider: openai, model: 'gpt-5.5{directives}'}}], timeouts: {{{timeouts}}}}}"
        ))
        .model(&format!(
            "{{name: claude-slow, targets: [{{provider: claude, model: 'claude-sonnet-4-6{directives}'}}], timeouts: {{{timeouts}}}}}"
        ))
}

/// Weir in front of one provider of OpenAI's dialect, whose model has the same name on both sides.
async fn before(provider: &Provider, timeouts: &str) -> Weir {
    let model = format!("{{name: m, targets: [{{provider: p, model: m}}], timeouts: {{{timeouts}}}}}");
    Config::new().openai("p", &provider.url()).model(&model).start().await
}

fn contents(events: &[Event]) -> Vec<String> {
    events.iter().map(Event::text).filter(|text| !text.is_empty()).collect()
}

/// The stream ends with one error event and an aborted connection, and nothing in it says that it is whole.
fn assert_broken_off(events: &[Event], end: End, code: &str) {
    let errors: Vec<Value> = events.iter().filter_map(Event::error).collect();
    let [error] = errors.as_slice() else { panic!("one error event is wanted: {events:#?}") };
    assert_eq!(error["code"], code);
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
    assert!(events.last().unwrap().error().is_some(), "something follows the error: {events:#?}");
    assert!(!events.iter().any(Event::is_done));
    let finished = |event: &&Event| event.data.is_some() && event.json()["choices"][0]["finish_reason"].is_string();
    assert!(!events.iter().any(|event| finished(&event)), "an invented reason to stop: {events:#?}");
    assert_eq!(end, End::Aborted);
}

async fn assert_logged_incomplete(weir: &Weir, answer: &Answer, error: &str) {
    let line = weir.logged(&answer.id()).await;
    assert_eq!((&line["status"], &line["incomplete"], &line["error"]), (&json!(200), &json!(true), &json!(error)));
}

#[tokio::test]
async fn a_whole_stream_has_its_reason_to_stop_and_ends_with_done() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        let mut answer = weir.chat().json(&stream(&format!("{model}~events=5"))).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("text/event-stream")));
        let (events, end) = answer.events().await;
        assert_eq!(contents(&events).len(), 5);
        let reasons: Vec<Value> = events
            .iter()
            .filter(|event| !event.is_done())
            .map(|event| event.json()["choices"][0]["finish_reason"].clone())
            .filter(|reason| !reason.is_null())
            .collect();
        assert_eq!(reasons, [json!("stop")], "{model}");
        assert!(events.last().unwrap().is_done());
        assert_eq!(events.iter().filter(|event| event.is_done()).count(), 1);
        assert_eq!(end, End::Whole);
        let line = weir.logged(&answer.id()).await;
        assert_eq!((&line["status"], &line["incomplete"]), (&json!(200), &json!(false)));
    }
}

#[tokio::test]
async fn a_stream_cut_by_its_provider_ends_with_one_error_and_is_never_called_whole() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        // `cut` resets the connection, `end` closes it in order: HTTP calls that a whole body, the dialect does not.
        for broken in ["cut=40", "end=40"] {
            let mut answer = weir.chat().json(&stream_with_usage(&format!("{model}~events=60~{broken}"))).send().await;
            assert_eq!(answer.status, 200);
            let (events, end) = answer.events().await;
            assert_eq!(contents(&events).len(), 40, "{model} {broken}");
            assert_broken_off(&events, end, "provider_error");
            assert_logged_incomplete(&weir, &answer, "provider_error").await;
        }
    }
}

#[tokio::test]
async fn an_error_event_before_any_content_is_answered_as_that_status() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let expected = [
        (400, 400, "provider_error"),
        (404, 404, "provider_error"),
        (429, 429, "provider_limit"),
        (500, 502, "provider_error"),
        (401, 502, "provider_auth"),
    ];
    for model in MODELS {
        for (told, status, kind) in expected {
            // Roles and pings say nothing; they do not make a 200 of a failure.
            for held in ["", "~pings=3", "~error_after=0"] {
                let answer = weir.chat().json(&stream(&format!("{model}~error={told}{held}"))).send().await;
                assert_eq!(
                    (answer.status.as_u16(), answer.header("x-weir-error")),
                    (status, Some(kind)),
                    "{model}~error={told}{held}"
                );
                let id = answer.id();
                let body = answer.json().await;
                assert!(body["error"]["message"].is_string(), "{body}");
                let line = weir.logged(&id).await;
                assert_eq!((&line["status"], &line["incomplete"]), (&json!(status), &json!(false)));
            }
        }
    }
}

#[tokio::test]
async fn an_error_event_after_content_ends_the_stream_and_counts_as_a_failure() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        let mut answer =
            weir.chat().json(&stream(&format!("{model}~events=6~gap=5ms~error=500~error_after=3"))).send().await;
        assert_eq!(answer.status, 200);
        let (events, end) = answer.events().await;
        assert_eq!(contents(&events).len(), 3);
        assert_broken_off(&events, end, "provider_error");
        assert_logged_incomplete(&weir, &answer, "provider_error").await;
    }
}

#[tokio::test]
async fn an_error_event_in_any_shape_is_an_error() {
    let shapes = [
        (r#"{"error":{"code":400,"message":"too odd"}}"#, 400),
        (r#"{"error":{"code":"429","message":"too odd","type":"x"}}"#, 429),
        (r#"{"object":"error","message":"too odd","type":"BadRequestError","param":null,"code":400}"#, 400),
        (r#"{"error":"too odd"}"#, 502),
    ];
    for (shape, status) in shapes {
        for name in ["", "event: error\n"] {
            let provider = Provider::answering(format!("{STREAM}{name}data: {shape}\n\ndata: [DONE]\n\n")).await;
            let weir = before(&provider, "").await;
            let answer = weir.chat().json(&stream("m")).send().await;
            assert_eq!(answer.status, status, "{name}{shape}");
            assert_eq!(answer.json().await["error"]["message"], "too odd");
        }
    }
}

#[tokio::test]
async fn no_head_goes_out_before_the_first_content() {
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let provider = Provider::start(move |mut played| {
        let gate = Arc::clone(&gate);
        async move {
            played.write(STREAM).await;
            played.write(": ping\n\n").await;
            played.event(&chunk("m", &json!({"role": "assistant", "content": ""}))).await;
            played.event(&chunk("m", &json!({}))).await;
            gate.notified().await;
            played.event(r#"{"error":{"code":429,"message":"slow down"}}"#).await;
            played.hold().await;
        }
    })
    .await;
    let weir = before(&provider, "").await;
    let mut caller = weir.connect().await;
    let body = stream("m").to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut caller, request.as_bytes()).await.unwrap();
    within("the provider's request", provider.asked(1)).await;
    let mut first = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(200), caller.peek(&mut first)).await;
    assert!(early.is_err(), "bytes went out before any content");
    go.notify_one();
    let mut head = [0; 12];
    within("the head", tokio::io::AsyncReadExt::read_exact(&mut caller, &mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 429");
}

#[tokio::test]
async fn what_was_held_comes_first_and_once_when_content_comes() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        let mut answer = weir.chat().json(&stream(&format!("{model}~events=3~pings=3"))).send().await;
        let (events, _) = answer.events().await;
        let roles: Vec<usize> = events
            .iter()
            .enumerate()
            .filter(|(_, event)| !event.is_done() && event.json()["choices"][0]["delta"]["role"].is_string())
            .map(|(place, _)| place)
            .collect();
        assert_eq!(roles, [0], "{model}");
    }
}

#[tokio::test]
async fn what_is_held_is_bounded() {
    let provider = Provider::start(|mut played| async move {
        played.write(STREAM).await;
        let nothing = chunk("m", &json!({"role": "assistant", "content": ""}));
        for _ in 0..=(64 * 1024 / nothing.len()) {
            played.event(&nothing).await;
        }
        played.hold().await;
    })
    .await;
    let weir = before(&provider, "").await;
    // The provider says nothing that is content: only the bound can bring this head.
    let answer = weir.chat().json(&stream("m")).send().await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_silent_stream_is_kept_open_by_comments_that_no_parser_minds() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "keepalive: 100ms", "~delay=450ms~events=3~gap=350ms").start().await;
    for model in ["slow", "claude-slow"] {
        let mut answer = weir.chat().json(&stream(model)).send().await;
        let (events, end) = answer.events().await;
        let comments: Vec<&Event> = events.iter().filter(|event| event.data.is_none()).collect();
        assert!(comments.iter().all(|comment| comment.raw == ": keep-alive\n\n"), "{comments:#?}");
        let content = |event: &&Event| !event.text().is_empty();
        let before = events.iter().position(|event| content(&event)).unwrap();
        assert!(before >= 3, "comments come while the provider is silent before content: {events:#?}");
        let between = events[before..].iter().filter(|event| event.data.is_none()).count();
        assert!(between >= 2, "comments come while the provider is silent between events: {events:#?}");
        assert_eq!(contents(&events).len(), 3);
        assert!(events.last().unwrap().is_done());
        assert_eq!(end, End::Whole);
    }
}

#[tokio::test]
async fn the_head_goes_out_when_the_silence_is_as_long_as_keepalive() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "keepalive: 300ms", "~delay=1s").start().await;
    let mut answer = weir.chat().json(&stream("slow")).send().await;
    let waited = answer.head_at - answer.sent;
    assert!(waited >= Duration::from_millis(300), "the head came after {waited:?}");
    let first = answer.event().await.unwrap();
    assert_eq!(first.raw, ": keep-alive\n\n");
    assert!(first.at - answer.sent < Duration::from_millis(900), "the comment came with the content");
}

#[tokio::test]
async fn a_failure_after_keepalive_is_an_error_in_the_stream() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "keepalive: 100ms", "~delay=400ms~status=400").start().await;
    for model in ["slow", "claude-slow"] {
        let mut answer = weir.chat().json(&stream(model)).send().await;
        assert_eq!(answer.status, 200);
        let (events, end) = answer.events().await;
        let errors: Vec<Value> = events.iter().filter_map(Event::error).collect();
        assert_eq!(errors.len(), 1, "{events:#?}");
        assert!(!events.iter().any(Event::is_done));
        assert_eq!(end, End::Aborted);
        assert_logged_incomplete(&weir, &answer, "provider_error").await;
    }
}

#[tokio::test]
async fn a_keepalive_of_zero_never_sends_a_head_before_content() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "keepalive: 0s", "~delay=500ms~events=2~gap=300ms").start().await;
    let mut answer = weir.chat().json(&stream("slow")).send().await;
    assert!(answer.head_at - answer.sent >= Duration::from_millis(500));
    let (events, _) = answer.events().await;
    assert!(events.iter().all(|event| event.data.is_some()), "{events:#?}");
}

#[tokio::test]
async fn a_whole_answer_is_never_preceded_by_a_keepalive() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "keepalive: 50ms", "~delay=300ms").start().await;
    let answer = weir.chat().json(&chat("slow")).send().await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json().await["object"], "chat.completion");
}

#[tokio::test]
async fn an_idle_provider_is_given_up_after_the_idle_time_whatever_comments_went_out() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "idle: 400ms, keepalive: 50ms", "~events=9~silence=3").start().await;
    for model in ["slow", "claude-slow"] {
        let mut answer = weir.chat().json(&stream(model)).send().await;
        let (events, end) = answer.events().await;
        assert_eq!(contents(&events).len(), 3);
        assert_broken_off(&events, end, "provider_timeout");
        let last_content = events.iter().rfind(|event| !event.text().is_empty()).unwrap().at;
        let waited = events.last().unwrap().at - last_content;
        assert!((350..900).contains(&waited.as_millis()), "given up after {waited:?}");
        assert_logged_incomplete(&weir, &answer, "provider_timeout").await;
        let open = simulator.until(|account| account.open_streams == 0);
        within("the provider's request to end", open).await;
    }
}

#[tokio::test]
async fn a_provider_slower_than_idle_in_all_but_never_silent_so_long_is_waited_for() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "idle: 500ms, first_byte: 500ms", "~events=6~gap=200ms").start().await;
    for model in ["slow", "claude-slow"] {
        let mut answer = weir.chat().json(&stream(model)).send().await;
        let (events, end) = answer.events().await;
        assert_eq!((contents(&events).len(), end), (6, End::Whole));
    }
}

#[tokio::test]
async fn the_total_time_ends_a_stream_that_is_never_idle() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "total: 700ms, keepalive: 0s", "~events=100~gap=50ms").start().await;
    for model in ["slow", "claude-slow"] {
        let mut answer = weir.chat().json(&stream(model)).send().await;
        let (events, end) = answer.events().await;
        assert_broken_off(&events, end, "provider_timeout");
        let took = events.last().unwrap().at - answer.sent;
        assert!((680..1200).contains(&took.as_millis()), "ended after {took:?}");
        assert!(contents(&events).len() > 2);
    }
}

#[tokio::test]
async fn the_total_time_ends_a_whole_answer_too() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "total: 300ms", "~delay=10s").start().await;
    let answer = weir.chat().json(&chat("slow")).send().await;
    let took = answer.head_at - answer.sent;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (504, Some("provider_timeout")));
    assert!((290..800).contains(&took.as_millis()), "ended after {took:?}");
}

#[tokio::test]
async fn the_total_time_ends_a_stream_whose_caller_does_not_read() {
    let provider = flooding().await;
    let weir = before(&provider, "total: 1s").await;
    let answer = weir.chat().json(&stream("m")).send().await;
    assert_eq!(answer.status, 200);
    within("the provider's request to end", provider.left(1)).await;
    assert!(answer.sent.elapsed() < Duration::from_secs(5), "ended after {:?}", answer.sent.elapsed());
    assert_logged_incomplete(&weir, &answer, "provider_timeout").await;
}

/// A provider whose streams have no end.
async fn flooding() -> Provider {
    Provider::start(|mut played| async move {
        played.write(STREAM).await;
        played.flood(&chunk("m", &json!({"content": "x".repeat(16 * 1024)}))).await;
    })
    .await
}

#[tokio::test]
async fn a_whole_answer_that_keeps_coming_is_not_late() {
    let body = json!({"id": "x", "object": "chat.completion", "model": "m", "choices": [{"index": 0}]}).to_string();
    let provider = Provider::start(move |mut played| {
        let body = body.clone();
        async move {
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            played.write(&head).await;
            for piece in body.as_bytes().chunks(body.len() / 5) {
                played.write(std::str::from_utf8(piece).unwrap()).await;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            played.hold().await;
        }
    })
    .await;
    let weir = before(&provider, "first_byte: 400ms, idle: 400ms").await;
    let answer = weir.chat().json(&chat("m")).send().await;
    let status = answer.status;
    assert_eq!(status, 200, "{}", answer.text().await);
}

#[tokio::test]
async fn events_leave_one_by_one_as_they_come() {
    let (allowed, released) = (Arc::new(Semaphore::new(0)), 30);
    let turns = Arc::clone(&allowed);
    let provider = Provider::start(move |mut played| {
        let turns = Arc::clone(&turns);
        async move {
            played.write(STREAM).await;
            for number in 0..released {
                turns.acquire().await.unwrap().forget();
                played.event(&chunk("m", &json!({"content": number.to_string()}))).await;
            }
            played.event(&finish("m")).await;
            played.event("[DONE]").await;
            played.close().await;
        }
    })
    .await;
    let weir = before(&provider, "keepalive: 0s").await;
    let pending = weir.chat().json(&stream("m")).begin().await;
    allowed.add_permits(1);
    let mut answer = pending.answer().await;
    // The provider sends an event only once the caller has the one before: a gateway that waits for more waits for
    // ever.
    for number in 0..released {
        assert_eq!(answer.event().await.unwrap().text(), number.to_string());
        allowed.add_permits(1);
    }
    let (_, end) = answer.events().await;
    assert_eq!(end, End::Whole);
}

#[tokio::test]
async fn an_event_takes_hardly_longer_than_without_a_gateway() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let directives = "events=40~gap=10ms~stamp";
    let mut direct = Call::new(simulator.addr(), "POST", "/v1/chat/completions")
        .header("authorization", "Bearer sk-x")
        .json(&stream(&format!("gpt-5.5~{directives}")))
        .send()
        .await;
    let without = median_delay(&mut direct).await;
    for model in MODELS {
        let mut answer = weir.chat().json(&stream(&format!("{model}~{directives}"))).send().await;
        let with = median_delay(&mut answer).await;
        assert!(with < without + Duration::from_millis(8), "{with:?} with, {without:?} without");
    }
}

/// The median time from an event's sending, which is stamped into its text, to its arrival.
async fn median_delay(answer: &mut Answer) -> Duration {
    let mut delays = Vec::new();
    while let Some(event) = answer.event().await {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        if let Ok(sent) = event.text().trim().parse::<u64>() {
            delays.push(now.saturating_sub(Duration::from_nanos(sent)));
        }
    }
    assert!(delays.len() > 30, "too few stamps: {}", delays.len());
    delays.sort_unstable();
    delays[delays.len() / 2]
}

#[tokio::test]
async fn several_events_in_one_write_and_one_event_in_several_are_the_same_events() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        let whole = weir.chat().json(&chat(&format!("{model}~split"))).send().await.json().await;
        let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        for directives in ["split", "split~crlf", "split~gzip", "split~slow=200us"] {
            let mut answer = weir.chat().json(&stream(&format!("{model}~{directives}"))).send().await;
            assert_eq!(answer.status, 200, "{model}~{directives}");
            let (events, end) = answer.events().await;
            assert_eq!(contents(&events).concat(), text, "{model}~{directives}");
            assert_eq!(end, End::Whole);
        }
    }
}

#[tokio::test]
async fn the_bytes_of_an_openai_stream_pass_unchanged() {
    let odd = [
        r#"data: {"id":"a", "choices":[{"delta":{"role":"assistant"},"index":0}],"model" : "m","x_unknown":12345678901234567890123}"#,
        "data:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\\u00e9\\/llo\u{2028}\"},\"logprobs\":{\"content\":[]}}],\"obfuscation\":\"zz\"}",
        "event: chunk\nid: 7\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}],  \"usage\":null}",
        r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"timings":{"a":1.50}}"#,
    ];
    let sent: String = odd.iter().map(|event| format!("{event}\n\n")).collect();
    let provider = Provider::answering(format!("{STREAM}{sent}data: [DONE]\n\n")).await;
    let weir = before(&provider, "").await;
    let mut answer = weir.chat().json(&stream_with_usage("m")).send().await;
    let (events, _) = answer.events().await;
    let received: String = events[..odd.len()].iter().map(|event| event.raw.as_str()).collect();
    assert_eq!(received, sent);
}

#[tokio::test]
async fn an_alias_is_the_model_of_every_answer_and_nothing_else_is_changed() {
    let event = r#"{"id":"a","model":"real-name","choices":[{"index":0,"delta":{"content":"real-name"},"n":1.50}]}"#;
    let end = r#"{"id":"a","model":"real-name","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let provider = Provider::answering(format!("{STREAM}data: {event}\n\ndata: {end}\n\ndata: [DONE]\n\n")).await;
    let whole = r#"{"id":"a","object":"chat.completion","model":"real-name","choices":[{"message":{"content":"real-name"}}],"usage":{"prompt_tokens":1,"completion_tokens":2,"x":1.50}}"#;
    let other = Provider::json(whole).await;
    let weir = Config::new()
        .openai("s", &provider.url())
        .openai("w", &other.url())
        .model("{name: alias, targets: [{provider: s, model: real-name}]}")
        .model("{name: whole-alias, targets: [{provider: w, model: real-name}]}")
        .start()
        .await;
    let renamed = |text: &str, name: &str| text.replacen("real-name", name, 1);
    let mut answer = weir.chat().json(&stream("alias")).send().await;
    let first = answer.event().await.unwrap();
    assert_eq!(first.data.unwrap(), renamed(event, "alias"));
    let answer = weir.chat().json(&chat("whole-alias")).send().await;
    assert_eq!(answer.text().await, renamed(whole, "whole-alias"));
    assert!(provider.requests()[0].body.contains(r#""model":"real-name""#));
}

/// Where in an answer the caller leaves.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    BeforeTheHead,
    BeforeContent,
    MidStream,
    BeforeAWholeAnswer,
}

async fn leave(weir: &Weir, simulator: &Simulator, model: &str, when: Leaving) -> Duration {
    let before = simulator.account();
    let request = match when {
        Leaving::BeforeTheHead => stream(&format!("{model}~delay=30s")),
        Leaving::BeforeContent => stream(&format!("{model}~first=30s")),
        Leaving::MidStream => stream(&format!("{model}~events=900~gap=50ms")),
        Leaving::BeforeAWholeAnswer => chat(&format!("{model}~delay=30s")),
    };
    let pending = weir.chat().json(&request).begin().await;
    let reached = simulator.until(|account| match when {
        Leaving::BeforeTheHead | Leaving::BeforeAWholeAnswer => account.requests > before.requests,
        Leaving::BeforeContent | Leaving::MidStream => account.open_streams > 0,
    });
    within("the provider's request", reached).await;
    let left = if let Leaving::MidStream = when {
        let mut answer = pending.answer().await;
        assert!(answer.event().await.is_some());
        let left = Instant::now();
        answer.leave();
        left
    } else {
        let left = Instant::now();
        pending.leave();
        left
    };
    let ended = simulator.until(|account| account.aborted_requests > before.aborted_requests);
    within("the provider's request to end", ended).await;
    left.elapsed()
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_request_to_the_provider_within_100_milliseconds() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for when in [Leaving::BeforeTheHead, Leaving::BeforeContent, Leaving::MidStream, Leaving::BeforeAWholeAnswer] {
            let mut took = Vec::new();
            for _ in 0..3 {
                took.push(leave(&weir, &simulator, model, when).await);
            }
            // The machine may be busy once; it is not thrice.
            assert!(took.iter().min() < Some(&Duration::from_millis(100)), "{model} {when:?}: {took:?}");
        }
    }
}

#[tokio::test]
async fn a_caller_that_left_is_in_the_log_as_499() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for (when, incomplete) in [(Leaving::BeforeTheHead, false), (Leaving::MidStream, true)] {
        leave(&weir, &simulator, MODELS[0], when).await;
        let line = weir.logged_where(|line| line["error"] == "caller_gone" && line["incomplete"] == incomplete).await;
        assert_eq!(line["status"], 499, "{when:?}: {line}");
    }
}

#[tokio::test]
async fn with_drain_a_caller_that_leaves_does_not_end_the_request_to_the_provider() {
    let simulator = simulator();
    let url = format!("http://{}", simulator.addr());
    let weir = Config::new()
        .provider(
            "openai",
            &format!(
                "{{kind: openai, base_url: '{url}/v1', on_disconnect: drain, credentials: [{{id: a, api_key: sk-a}}]}}"
            ),
        )
        .provider(
            "claude",
            &format!(
                "{{kind: anthropic, base_url: '{url}', on_disconnect: drain, credentials: [{{id: b, api_key: sk-b}}]}}"
            ),
        )
        .start()
        .await;
    for (number, model) in MODELS.iter().enumerate() {
        let mut answer = weir.chat().json(&stream(&format!("{model}~events=20~gap=20ms"))).send().await;
        assert!(answer.event().await.is_some());
        let id = answer.id();
        answer.leave();
        let line = weir.logged(&id).await;
        let account = simulator.account();
        assert_eq!((account.aborted_requests, account.requests), (0, number as u64 + 1));
        let row = account.rows.iter().find(|row| row.model.starts_with(model.split('/').next_back().unwrap())).unwrap();
        assert_eq!(line["usage"]["input_tokens"], row.input_tokens, "{line}");
        assert_eq!(line["usage"]["output_tokens"], row.output_tokens, "{line}");
        assert_eq!(
            (&line["accuracy"], &line["error"], &line["status"]),
            (&json!("exact"), &json!("caller_gone"), &json!(499))
        );
    }
}

#[tokio::test]
async fn hundreds_of_streams_dropped_at_once_leave_nothing_behind() {
    let provider = flooding().await;
    let weir = before(&provider, "").await;
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(weir.chat().json(&stream("m")).begin().await);
    }
    within("all requests to reach the provider", provider.asked(100)).await;
    drop(answers);
    let since = Instant::now();
    let ready = weir.get("/readyz").send().await;
    assert_eq!(ready.status, 200);
    assert!(since.elapsed() < Duration::from_secs(2), "ready after {:?}", since.elapsed());
    within("all requests to the provider to end", provider.left(100)).await;
    weir.logged_more(100).await;
    let gone = weir.log().iter().filter(|line| line["error"] == "caller_gone").count();
    assert_eq!(gone, 100);
    let metrics = weir.metrics().await;
    let in_flight = metrics.lines().find(|line| line.starts_with("weir_in_flight")).unwrap();
    assert!(in_flight.ends_with(" 0"), "{in_flight}");
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_the_provider_back_instead_of_filling_memory() {
    let provider = flooding().await;
    let weir = before(&provider, "").await;
    let mut warm = weir.chat().json(&stream("m")).send().await;
    assert!(warm.event().await.is_some());
    warm.leave();
    within("the provider's request to end", provider.left(1)).await;
    let before = resident(&weir);
    let answer = weir.chat().json(&stream("m")).send().await;
    // It stands still when nothing more is taken for a while.
    let mut taken = 0;
    while provider.taken() != taken {
        taken = provider.taken();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(taken < 64 << 20, "{taken} bytes were taken that nobody reads");
    }
    let grown = resident(&weir).saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more than before");
    drop(answer);
}

/// The process's resident memory in KiB.
fn resident(weir: &Weir) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", weir.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn over_http2_a_caller_that_leaves_ends_the_request_to_the_provider() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let socket = TokioIo::new(weir.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket);
    let (mut sender, connection) = within("a handshake", handshake).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    for (number, directives) in ["delay=30s", "first=30s", "events=900~gap=20ms"].into_iter().enumerate() {
        for model in MODELS {
            let left = simulator.account().aborted_requests;
            let body = stream(&format!("{model}~{directives}")).to_string();
            let request = http::Request::post(format!("http://{}/v1/chat/completions", weir.api()))
                .header("authorization", format!("Bearer {KEY}"))
                .body(Full::new(Bytes::from(body)))
                .unwrap();
            let answer = tokio::spawn(sender.send_request(request));
            within("the provider's request", simulator.until(|account| account.in_flight == 1)).await;
            if number == 2 {
                let mut response = within("an answer", answer).await.unwrap().unwrap();
                assert!(within("a frame", response.body_mut().frame()).await.is_some());
                drop(response);
            } else {
                answer.abort();
            }
            let ended = simulator.until(|account| account.aborted_requests > left && account.in_flight == 0);
            within("the provider's request to end", ended).await;
        }
    }
    // The connection itself has not suffered.
    assert_eq!(weir.get("/readyz").send().await.status, 200);
    assert!(sender.is_ready());
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_is_kept_alive_ends_the_request_to_the_provider() {
    let simulator = simulator();
    let weir = with_timeouts(&simulator, "keepalive: 50ms", "~delay=30s").start().await;
    for model in ["slow", "claude-slow"] {
        let left = simulator.account().aborted_requests;
        let mut answer = weir.chat().json(&stream(model)).send().await;
        assert_eq!(answer.event().await.unwrap().raw, ": keep-alive\n\n");
        let id = answer.id();
        answer.leave();
        within("the provider's request to end", simulator.until(|account| account.aborted_requests > left)).await;
        assert_eq!(weir.logged(&id).await["status"], 499);
    }
}

#[tokio::test]
async fn streams_side_by_side_do_not_mix() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let ask = async |number: usize| {
        let model = MODELS[number % 2];
        let text = format!("caller {number} asks {}", "again ".repeat(number % 7));
        let request = json!({"model": format!("{model}~gap=2ms"), "stream": true, "messages": [{"role": "user", "content": text}]});
        let (events, end) = weir.chat().json(&request).send().await.events().await;
        assert_eq!(end, End::Whole);
        assert_eq!(contents(&events).concat(), format!("You said: {}", text.trim_end()));
    };
    for round in 0..3 {
        for_each_at_once((0..60).map(|number| ask(number + round))).await;
    }
}

/// Drives all futures side by side to their ends.
async fn for_each_at_once(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut open: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        open.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if open.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn a_connection_to_the_provider_is_used_again_after_every_answer_that_was_read_to_its_end() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for request in [
            chat(model),
            stream(model),
            stream_with_usage(model),
            chat(&format!("{model}~status=429")),
            stream(&format!("{model}~status=400")),
            chat(&format!("{model}~html")),
            chat(&format!("{model}~gzip")),
        ] {
            weir.chat().json(&request).send().await.rest().await;
        }
    }
    let connections = simulator.account().connections;
    assert!(connections <= 2, "{connections} connections, one after the other");
}

#[tokio::test]
async fn a_connection_whose_answer_was_not_read_to_its_end_is_not_used_again() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let mut answer = weir.chat().json(&stream("openai/gpt-5.5~events=900~gap=20ms")).send().await;
    assert!(answer.event().await.is_some());
    answer.leave();
    within("the provider's request to end", simulator.until(|account| account.aborted_requests == 1)).await;
    let (events, end) = weir.chat().json(&stream("openai/gpt-5.5")).send().await.events().await;
    assert_eq!(end, End::Whole);
    assert_eq!(contents(&events).concat(), "You said: Say something about weirs and water.");
    assert_eq!(simulator.account().connections, 2);
}

#[tokio::test]
async fn what_comes_after_the_end_is_never_passed_on() {
    let content = chunk("m", &json!({"content": "all"}));
    let more = chunk("m", &json!({"content": "more"}));
    let stop = finish("m");
    let body = format!("data: {content}\n\ndata: {stop}\n\ndata: [DONE]\n\ndata: {more}\n\ndata: [DONE]\n\n");
    let provider = Provider::answering(format!("{STREAM}{body}")).await;
    let weir = before(&provider, "").await;
    let (events, end) = weir.chat().json(&stream("m")).send().await.events().await;
    assert_eq!(contents(&events), ["all"]);
    assert_eq!(events.iter().filter(|event| event.is_done()).count(), 1);
    assert_eq!(end, End::Whole);
}

#[tokio::test]
async fn a_host_that_ends_without_done_is_whole_when_every_choice_has_its_reason_to_stop() {
    let content = chunk("m", &json!({"content": "all"}));
    for (tail, whole) in [(format!("data: {}\n\n", finish("m")), true), (String::new(), false)] {
        let provider = Provider::answering(format!("{STREAM}data: {content}\n\n{tail}")).await;
        let weir = before(&provider, "").await;
        let (events, end) = weir.chat().json(&stream("m")).send().await.events().await;
        assert_eq!(events.last().unwrap().is_done(), whole, "{events:#?}");
        assert_eq!(end, if whole { End::Whole } else { End::Aborted });
    }
}

/// A choice of a chunk without an end of the stream's own behind it.
fn ended(index: u32, reason: &str) -> String {
    format!("data: {{\"id\":\"c\",\"choices\":[{{\"index\":{index},\"text\":\"x\",\"finish_reason\":{reason}}}]}}\n\n")
}

#[tokio::test]
async fn what_only_looks_like_the_end_of_every_answer_is_none() {
    let (said, none, empty, stop) = (ended(0, "null"), ended(1, "null"), ended(0, "\"\""), ended(0, "\"stop\""));
    let other = ended(1, "\"length\"");
    let prompts = json!({"model": "m", "prompt": ["a", "b"], "stream": true});
    let two = weir_tests::ask::with(stream("m"), "n", json!(2));
    for (request, body, whole) in [
        (stream("m"), format!("{empty}{empty}"), false),
        (stream("m"), format!("{empty}{stop}"), true),
        (two.clone(), format!("{said}{none}{stop}{stop}"), false),
        (two, format!("{said}{none}{stop}{other}"), true),
        (prompts.clone(), format!("{said}{stop}{none}"), false),
        (prompts, format!("{said}{stop}{other}"), true),
        (stream("m"), format!("{said}data: [DON"), false),
        (stream("m"), format!("{said}data: [DONE]"), true),
        (stream("m"), format!("{said}data: [DONE]\r\n"), true),
        (stream("m"), format!("{said}{}", stop.trim_end()), true),
        (stream("m"), format!("\u{feff}{said}data: [DONE]\n\n"), true),
    ] {
        let provider = Provider::answering(format!("{STREAM}{body}")).await;
        let weir = before(&provider, "").await;
        let path = if request.get("prompt").is_some() { "/v1/completions" } else { "/v1/chat/completions" };
        let (events, end) = weir.post(path).json(&request).send().await.events().await;
        assert_eq!(events.last().unwrap().is_done(), whole, "{body}: {events:#?}");
        assert_eq!(end, if whole { End::Whole } else { End::Aborted });
        assert_eq!(events[0].json()["choices"][0]["text"], "x", "{body}: {events:#?}");
    }
}

#[tokio::test]
async fn several_choices_are_streamed_each_with_its_own_end() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let request = weir_tests::ask::with(stream("openai/gpt-5.5~events=4"), "n", json!(3));
    let (events, end) = weir.chat().json(&request).send().await.events().await;
    assert_eq!(end, End::Whole);
    let ended: Vec<Value> = events
        .iter()
        .filter(|event| !event.is_done())
        .map(|event| event.json()["choices"][0].clone())
        .filter(|choice| choice["finish_reason"].is_string())
        .map(|choice| choice["index"].clone())
        .collect();
    assert_eq!(ended, [0, 1, 2]);
    // One that ends after the first of them is not whole.
    let request = weir_tests::ask::with(stream("openai/gpt-5.5~events=4~end=6"), "n", json!(3));
    let (events, end) = weir.chat().json(&request).send().await.events().await;
    assert_broken_off(&events, end, "provider_error");
}

#[tokio::test]
async fn legacy_completions_keep_the_same_contract() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let ask = |directives: &str| {
        let model = format!("openai/gpt-5.5~events=6~gap=5ms~{directives}");
        weir.post("/v1/completions").json(&json!({"model": model, "prompt": "one two three", "stream": true})).send()
    };
    let (events, end) = ask("").await.events().await;
    assert!(events.last().unwrap().is_done() && end == End::Whole);
    for broken in ["cut=3", "end=3", "error=500~error_after=3"] {
        let mut answer = ask(broken).await;
        assert_eq!(answer.status, 200);
        let (events, end) = answer.events().await;
        let errors = events.iter().filter(|event| event.error().is_some()).count();
        assert_eq!((errors, events.iter().any(Event::is_done), end), (1, false, End::Aborted), "{broken}");
    }
    for (before, status) in [("error=400", 400), ("error=429", 429), ("cut=0", 502)] {
        assert_eq!(ask(before).await.status, status, "{before}");
    }
}
