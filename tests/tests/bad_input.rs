//! Input that no honest client or provider sends: a clear error or a clean close, others unharmed, memory bounded.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::Simulator;
use tokio::net::TcpStream;
use weir_tests::ask::{chat, with};
use weir_tests::client::End;
use weir_tests::http2::Http2;
use weir_tests::process::memory;
use weir_tests::provider::{Played, Provider, STREAM};
use weir_tests::raw::{Raw, RawAnswer};
use weir_tests::weir::{Config, KEY, Weir};

const MIB: usize = 1024 * 1024;

fn simulator() -> Simulator {
    simulator::start(simulator::Config::default()).unwrap()
}

fn small() -> String {
    json!({"model": "openai/gpt-5.5", "messages": [{"role": "user", "content": "Hello"}]}).to_string()
}

fn key(more: &str) -> String {
    format!("authorization: Bearer {KEY}\r\n{more}")
}

/// A stream that is under way while others misbehave.
struct Bystander(weir_tests::client::Answer);

impl Bystander {
    async fn of(weir: &Weir) -> Self {
        let body = json!({"model": "openai/gpt-5.5~events=400~gap=5ms", "stream": true, "messages": [{"role": "user", "content": "x"}]});
        let answer = weir.chat().json(&body).send().await;
        assert_eq!(answer.status, 200);
        Self(answer)
    }

    /// It came whole, the process serves on, and nothing panicked.
    async fn was_unharmed(mut self, weir: &Weir) {
        let (events, end) = self.0.events().await;
        assert!(end == End::Whole && events.last().unwrap().is_done());
        assert_eq!(weir.chat().body(small()).send().await.status, 200);
        let said = weir.stderr();
        assert!(!said.contains("panicked"), "{said}");
    }
}

fn is_an_error(answer: &RawAnswer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.head);
    let error = &answer.json()["error"];
    assert!(error["message"].is_string() && error["type"].is_string() && error["code"].is_string(), "{error}");
    assert!(answer.header("x-weir-error").is_some() && answer.header("x-request-id").is_some(), "{}", answer.head);
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused_by_name() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let bystander = Bystander::of(&weir).await;
    let deep = format!(r#"{{"model":"openai/x","messages":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let unclosed = format!(r#"{{"model":"openai/x","messages":{}"#, "[".repeat(1_000_000));
    let cases: Vec<(Vec<u8>, &[u16])> = vec![
        (b"".to_vec(), &[400]),
        (b"   ".to_vec(), &[400]),
        (b"{".to_vec(), &[400]),
        (b"null".to_vec(), &[400]),
        (b"[]".to_vec(), &[400]),
        (b"\"text\"".to_vec(), &[400]),
        (b"{}{}".to_vec(), &[400]),
        (b"{\"model\":\"openai/x\"".to_vec(), &[400]),
        (b"{\"model\":\"openai/x\",}".to_vec(), &[400]),
        (b"{\"model\":\"openai/x\",\"model\":\"openai/y\",\"messages\":[]}".to_vec(), &[400]),
        (b"{\"model\":\"openai/x\",\"stream\":true,\"stream\":false,\"messages\":[]}".to_vec(), &[400]),
        (b"{\"model\":7,\"messages\":[]}".to_vec(), &[400]),
        (b"{\"model\":[\"a\"],\"messages\":[]}".to_vec(), &[400]),
        (b"{\"model\":\"openai/x\",\"stream\":\"yes\",\"messages\":[]}".to_vec(), &[400]),
        (b"{\"messages\":[]}".to_vec(), &[400, 404]),
        (b"{\"model\":\"nobody/knows\",\"messages\":[]}".to_vec(), &[404]),
        (b"{\"model\":\"\xff\xfe\",\"messages\":[]}".to_vec(), &[400]),
        (b"\xef\xbb\xbf\xff\xff".to_vec(), &[400]),
        (b"{\"mo\0del\":\"openai/x\"}".to_vec(), &[400, 404]),
        (vec![0; 100_000], &[400]),
        (vec![b'['; 100_000], &[400]),
        (deep.into_bytes(), &[400]),
        (unclosed.into_bytes(), &[400]),
    ];
    let mut raw = Raw::connect(weir.api()).await;
    for (body, statuses) in cases {
        raw.post("/v1/chat/completions", &key(""), &body).await;
        let answer = raw.answer().await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert!(statuses.contains(&answer.status), "{shown}: {} {}", answer.status, answer.json());
        is_an_error(&answer, answer.status);
    }
    bystander.was_unharmed(&weir).await;
}

#[tokio::test]
async fn messages_of_every_wrong_shape_are_refused_or_passed_on_and_never_break_anything() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let bystander = Bystander::of(&weir).await;
    let odd = [
        json!(null),
        json!("text"),
        json!({}),
        json!([]),
        json!([null]),
        json!([[]]),
        json!([{}]),
        json!([{"role": "user"}]),
        json!([{"role": "user", "content": null}]),
        json!([{"role": "user", "content": 7}]),
        json!([{"role": "user", "content": [{}]}]),
        json!([{"role": "user", "content": [{"type": "nothing"}]}]),
        json!([{"role": "user", "content": [{"type": "image_url"}]}]),
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,%%%"}}]}]),
        json!([{"role": "nobody", "content": "x"}]),
        json!([{"role": ["user"], "content": "x"}]),
        json!([{"role": "tool", "content": "x"}]),
        json!([{"role": "tool", "tool_call_id": "orphan", "content": "x"}]),
        json!([{"role": "tool", "tool_call_id": "a", "content": "1"}, {"role": "tool", "tool_call_id": "a", "content": "2"}]),
        json!([{"role": "user", "content": "x"}, {"role": "system", "content": "late"}, {"role": "user", "content": "y"}]),
        json!([{"role": "assistant", "content": null}]),
        json!([{"role": "assistant", "tool_calls": null}]),
        json!([{"role": "assistant", "tool_calls": [{}]}]),
        json!([{"role": "assistant", "tool_calls": [{"id": 7, "type": "function", "function": {"name": null, "arguments": {}}}]}]),
        json!([{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{not json"}}]}]),
        json!([{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "user", "content": "no result"}]),
        json!([{"role": "system", "content": [{"type": "text", "text": null}]}]),
    ];
    for model in ["openai/gpt-5.5", "claude/claude-sonnet-4-6"] {
        for messages in &odd {
            for stream in [false, true] {
                let body = json!({"model": model, "stream": stream, "messages": messages});
                let mut answer = weir.chat().header("x-weir-no-retry", "1").json(&body).send().await;
                let status = answer.status.as_u16();
                assert!(status < 500, "{body}: {status} {}", answer.rest().await.0);
            }
        }
    }
    bystander.was_unharmed(&weir).await;
}

#[tokio::test]
async fn fields_around_the_messages_of_every_wrong_type_never_break_anything() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let bystander = Bystander::of(&weir).await;
    let fields = [
        "tools",
        "tool_choice",
        "response_format",
        "stream_options",
        "stop",
        "max_tokens",
        "temperature",
        "n",
        "user",
        "metadata",
        "reasoning_effort",
    ];
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e308),
        json!("x"),
        json!([]),
        json!([{}]),
        json!({}),
        json!({"type": []}),
        json!([[[[]]]]),
    ];
    for model in ["openai/gpt-5.5", "claude/claude-sonnet-4-6"] {
        for field in fields {
            for value in &odd {
                let mut body = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
                body[field] = value.clone();
                let mut answer = weir.chat().header("x-weir-no-retry", "1").json(&body).send().await;
                let status = answer.status.as_u16();
                assert!(status < 500, "{body}: {status} {}", answer.rest().await.0);
            }
        }
    }
    bystander.was_unharmed(&weir).await;
}

#[tokio::test]
async fn bytes_that_are_no_http_get_a_400_and_a_close() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let bystander = Bystander::of(&weir).await;
    let many: String = (0..300).map(|number| format!("x-{number}: y\r\n")).collect();
    for (head, why) in [
        (format!("GET /v1/models HTTP/1.1\r\nhost: w\r\n{many}\r\n"), "too many headers"),
        ("GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), "multiple Host header fields"),
        ("GET http://a/v1/models HTTP/1.1\r\nhost: b\r\n\r\n".to_owned(), "Host header differs"),
    ] {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(&head).await;
        let message = raw.answer().await.json()["error"]["message"].to_string();
        assert!(message.contains(why), "{message}");
    }
    let cases: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello to a plain port\r\n\r\n".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
        b"GET /v1/models\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\nhost: w\r\n\r\n".to_vec(),
        b"GET /v1/models HTTP/1.1\r\nno colon here\r\n\r\n".to_vec(),
        b"GET /v1/models HTTP/1.1\r\nhost: w\r\nx: a\0b\r\n\r\n".to_vec(),
        b"\r\n\r\n\r\n GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\ncontent-length: -5\r\n\r\n".to_vec(),
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\ncontent-length: 99999999999999999999999999\r\n\r\n".to_vec(),
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"
            .to_vec(),
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked, identity\r\n\r\n".to_vec(),
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\ntransfer-encoding: xchunked\r\n\r\n".to_vec(),
        b"POST /v1/chat/completions HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_vec(),
        format!("GET /v1/models HTTP/1.1\r\nhost: w\r\n{many}\r\n").into_bytes(),
    ];
    for case in cases {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(&case).await;
        let answer = raw.outcome().await;
        let shown = String::from_utf8_lossy(&case[..case.len().min(80)]).into_owned();
        let answer = answer.unwrap_or_else(|| unreachable!("no answer to {shown:?}"));
        is_an_error(&answer, 400);
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
        assert!(raw.rest().await.is_empty(), "{shown:?}");
    }
    bystander.was_unharmed(&weir).await;
}

#[tokio::test]
async fn a_head_of_ten_megabytes_is_refused_with_bounded_memory() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let bystander = Bystander::of(&weir).await;
    let before = memory(weir.pid()).peak;
    for shape in ["x-large: {}\r\n", "cookie: {}\r\n"] {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(format!("GET /v1/models HTTP/1.1\r\nhost: w\r\n{}\r\n", shape.replace("{}", &"x".repeat(10 * MIB))))
            .await;
        let answer = raw.outcome().await;
        // The refusal may be lost when the client is still sending; the connection is closed all the same.
        if let Some(answer) = answer {
            is_an_error(&answer, 400);
        }
        assert!(raw.rest().await.is_empty());
    }
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(format!("GET /v1/{} HTTP/1.1\r\nhost: w\r\n\r\n", "x".repeat(500_000))).await;
    assert!((400..500).contains(&raw.answer().await.status));
    let grown = (memory(weir.pid()).peak - before) / 1024;
    assert!(grown < 32, "{grown} MiB");
    bystander.was_unharmed(&weir).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_or_too_slowly_loses_its_connection() {
    let simulator = simulator();
    let weir = Config::of(&simulator).server("idle: 1s").start().await;
    let bystander = Bystander::of(&weir).await;
    for beginning in ["", "G", "PRI", "PRI * HTTP/2.0\r\n", "GET /v1/mod", "GET /v1/models HTTP/1.1\r\nhost: w\r\n"] {
        let began = Instant::now();
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(beginning).await;
        assert!(raw.rest().await.is_empty(), "{beginning:?}");
        let took = began.elapsed();
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{beginning:?}: {took:?}");
    }
    // Each byte comes in time, the head does not.
    let began = Instant::now();
    let mut raw = Raw::connect(weir.api()).await;
    for byte in "GET /v1/models HTTP/1.1\r\nx-slow: xxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n".as_bytes() {
        raw.send([*byte]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(raw.rest().await.is_empty());
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // Between two requests too.
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(format!("GET /v1/models HTTP/1.1\r\nhost: w\r\n{}\r\n", key(""))).await;
    assert_eq!(raw.answer().await.status, 200);
    assert!(raw.rest().await.is_empty());
    bystander.was_unharmed(&weir).await;
}

#[tokio::test]
async fn an_http2_connection_without_requests_is_closed() {
    let simulator = simulator();
    let weir = Config::of(&simulator).server("idle: 1s").start().await;
    let mut client = Http2::over(TcpStream::connect(weir.api()).await.unwrap()).await;
    let body = json!({"model": "openai/gpt-5.5~delay=2s", "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(client.post("/v1/chat/completions", &body).await.status, 200, "a busy connection is not idle");
    let began = Instant::now();
    while client.ready().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn what_is_framed_twice_is_served_once_and_closes_the_connection() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let body = small();
    let smuggled = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\n{}content-length: 2\r\n\r\n{{}}",
        key("x-request-id: smuggled\r\n")
    );
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\n{}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n{smuggled}",
        key(""),
        body.len() + 9,
        body.len(),
    ))
    .await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(raw.rest().await.is_empty(), "what follows is not served");
    let one = weir.chat().body(body).send().await.id();
    weir.logged(&one).await;
    assert!(weir.log().iter().all(|line| line["request_id"] != "smuggled"));
}

#[tokio::test]
async fn chunks_that_are_none_are_refused() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for chunks in ["xyz\r\n{}\r\n", "-1\r\n", "2\r\n{}garbage\r\n", "ffffffffffffffffffff\r\n{}"] {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\n{}transfer-encoding: chunked\r\n\r\n{chunks}",
            key("")
        ))
        .await;
        let answer = raw.answer().await;
        is_an_error(&answer, 400);
        assert!(raw.rest().await.is_empty());
    }
    let said = weir.stderr();
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(simulator.account().requests, 0);
}

#[tokio::test]
async fn a_body_that_is_packed_on_its_way_is_refused_and_an_old_client_is_never_told_to_continue() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let mut raw = Raw::connect(weir.api()).await;
    let head = format!("host: w\r\n{}transfer-encoding: gzip, chunked\r\n", key(""));
    raw.send(format!("POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n0\r\n\r\n")).await;
    is_an_error(&raw.answer().await, 415);
    let mut raw = Raw::connect(weir.api()).await;
    let head = format!("host: w\r\n{}expect: 100-continue\r\ncontent-length: 2\r\n", key(""));
    raw.send(format!("POST /v1/chat/completions HTTP/1.0\r\n{head}\r\n{{}}")).await;
    is_an_error(&raw.answer().await, 400);
}

#[tokio::test]
async fn methods_and_targets_out_of_place_are_refused_in_order() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for (line, more, statuses) in [
        ("CONNECT example.com:443", "", &[400, 404, 405][..]),
        (
            "GET /v1/chat/completions",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n",
            &[405],
        ),
        ("POST /v1/models", "", &[405]),
        ("DELETE /v1/models", "", &[405]),
        ("OPTIONS *", "", &[400, 404, 405]),
        ("get /v1/models", "", &[400, 405]),
        ("GET http://other.example/v1/nowhere", "", &[400, 404]),
        ("GET //v1//models", "", &[404]),
        ("GET /v1/../admin/v1/config", "", &[404]),
        ("GET /v1/models/%00%ff", "", &[400, 404]),
        ("PRI /v1/models", "", &[400, 405]),
    ] {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(format!("{line} HTTP/1.1\r\nhost: other.example\r\n{}{more}\r\n", key(""))).await;
        let answer = raw.answer().await;
        assert!(statuses.contains(&answer.status), "{line}: {}", answer.head);
        is_an_error(&answer, answer.status);
    }
    // `h2c` by upgrade is not offered: the request is served as it is.
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(format!("GET /v1/models HTTP/1.1\r\nhost: w\r\n{}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n", key(""))).await;
    assert_eq!(raw.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_closes_its_half_or_leaves_at_any_moment_harms_nobody() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let bystander = Bystander::of(&weir).await;
    let body = json!({"model": "openai/gpt-5.5~delay=200ms~events=50~gap=1ms", "stream": true, "messages": [{"role": "user", "content": "x"}]}).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\n{}content-length: {}\r\n\r\n{body}",
        key(""),
        body.len()
    );
    for length in (0..request.len()).step_by(7) {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(&request[..length]).await;
        if length % 2 == 0 {
            raw.half_close().await;
            raw.outcome().await;
        }
    }
    let mut half = Raw::connect(weir.api()).await;
    half.send(&request).await;
    half.half_close().await;
    assert!(half.rest().await.is_empty(), "a client that closes its half has left");
    bystander.was_unharmed(&weir).await;
    simulator.until(|account| account.in_flight == 0).await;
}

#[tokio::test]
async fn http2_frames_that_break_the_protocol_cost_that_connection_alone() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let bystander = Bystander::of(&weir).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    for garbage in [
        vec![0xff; 4096],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [&settings[..], &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
        [&settings[..], &[0, 0, 5, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff]].concat(),
        [&settings[..], &[0, 0, 4, 0, 0, 0, 0, 0, 2, 1, 2, 3, 4]].concat(),
    ] {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send([preface.clone(), garbage].concat()).await;
        raw.rest().await;
    }
    bystander.was_unharmed(&weir).await;
}

/// What a caller of this provider is told, whole and streamed.
async fn told(weir: &Weir, provider: &str, stream: bool) -> (u16, String, End) {
    let body =
        json!({"model": format!("{provider}/x"), "stream": stream, "messages": [{"role": "user", "content": "x"}]});
    let mut answer = weir.chat().header("x-weir-no-retry", "1").json(&body).send().await;
    let (text, end) = answer.rest().await;
    (answer.status.as_u16(), text, end)
}

#[tokio::test]
async fn what_came_in_place_of_an_answer_is_told() {
    let simulator = simulator();
    for (kind, body, of_whole, of_stream) in [
        (
            "text/html; charset=utf-8",
            "<html>\n\n<h1>hello</h1></html>",
            "The provider's answer cannot be read: it is of type `text/html`.",
            "The provider answered with type `text/html` and no event of a stream.",
        ),
        ("application/json", "[]", "The provider's answer cannot be read.", "The provider's answer cannot be read."),
        (
            "application/json",
            r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}"#,
            "",
            "The provider answered with one document and no stream.",
        ),
    ] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let provider = Provider::answering(answer).await;
        let weir = Config::of(&simulator).openai("odd", &provider.url()).start().await;
        for (stream, want) in [(false, of_whole), (true, of_stream)] {
            let answer = weir.chat().json(&with(chat("odd/m"), "stream", json!(stream))).send().await.json().await;
            assert_eq!(answer["error"]["message"].as_str().unwrap_or_default(), want, "{kind} {stream}");
        }
    }
}

#[tokio::test]
async fn whatever_a_provider_answers_the_caller_gets_an_answer_in_openais_shape() {
    let simulator = simulator();
    let html = "<html><body><h1>502 Bad Gateway</h1></body></html>";
    let lengthy = |status: &str, kind: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let cases: Vec<(&str, String)> = vec![
        ("html-200", lengthy("200 OK", "text/html", html)),
        ("html-502", lengthy("502 Bad Gateway", "text/html", html)),
        ("html-404", lengthy("404 Not Found", "text/html", html)),
        ("empty-200", lengthy("200 OK", "application/json", "")),
        ("empty-204", "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".into()),
        ("null", lengthy("200 OK", "application/json", "null")),
        ("text", lengthy("200 OK", "text/plain", "it works!")),
        ("cut-json", lengthy("200 OK", "application/json", r#"{"id":"x","choices":[{"mess"#)),
        ("other-json", lengthy("200 OK", "application/json", r#"{"hello":"world"}"#)),
        ("bad-utf8", lengthy("200 OK", "application/json", "{\"id\":\"\u{fffd}\"}").replace('\u{fffd}', "\u{1}")),
        ("truncated", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n{\"id\":".into()),
        ("cut-chunk", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{\"id\":".into()),
        ("bad-chunk", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n".into()),
        ("bad-length", "HTTP/1.1 200 OK\r\ncontent-length: banana\r\n\r\n{}".into()),
        ("negative-length", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}".into()),
        ("two-lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\nconnection: close\r\n\r\n{} ".into()),
        ("no-http", "hello, who is there?\r\n\r\n".into()),
        ("nothing", String::new()),
        ("half-a-head", "HTTP/1.1 200 OK\r\ncontent-ty".into()),
        ("status-999", lengthy("999 Odd", "application/json", "{}")),
        ("status-99", lengthy("99 Odd", "application/json", "{}")),
        ("redirect", "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into()),
        ("large-head", format!("HTTP/1.1 200 OK\r\nx-large: {}\r\ncontent-length: 2\r\n\r\n{{}}", "x".repeat(3 * MIB))),
        ("many-headers", format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\n{{}}", "x-y: z\r\n".repeat(2000))),
        ("endless-100s", "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000)),
        ("switching", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".into()),
        ("gzip-that-is-none", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}".into()),
        ("unknown-encoding", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: zstd\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}".into()),
        ("error-in-200", lengthy("200 OK", "application/json", r#"{"error":{"message":"no","type":"x","code":400}}"#)),
        ("sse-of-html", format!("{STREAM}{html}")),
        ("sse-of-nothing", STREAM.to_owned()),
        ("sse-done-only", format!("{STREAM}data: [DONE]\n\n")),
        ("sse-bad-json", format!("{STREAM}data: {{nope\n\n")),
        ("sse-null", format!("{STREAM}data: null\n\n")),
        ("sse-odd-types", format!("{STREAM}data: {{\"choices\":7}}\n\ndata: {{\"choices\":[7]}}\n\ndata: []\n\n")),
        ("sse-cut", format!("{STREAM}data: {{\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"Hel")),
    ];
    let mut config = Config::of(&simulator);
    let mut providers = Vec::new();
    for (name, answer) in cases {
        let provider = Provider::answering(answer).await;
        config = config.openai(name, &provider.url());
        providers.push((name, provider));
        let anthropic = format!(
            "{{kind: anthropic, base_url: '{}', credentials: [{{id: a-{name}, api_key: k}}]}}",
            providers.last().unwrap().1.root()
        );
        config = config.provider(&format!("a-{name}"), &anthropic);
    }
    let weir = config.start().await;
    let bystander = Bystander::of(&weir).await;
    for (name, _) in &providers {
        for provider in [(*name).to_owned(), format!("a-{name}")] {
            for stream in [false, true] {
                let (status, text, end) = told(&weir, &provider, stream).await;
                assert!((200..600).contains(&status), "{provider} {stream}: {status} {text}");
                if status == 200 {
                    // Some of these are answers after all; an error within a stream is told and never ended with
                    // `[DONE]`.
                    assert!(
                        !stream || text.contains("[DONE]") != text.contains("\"error\""),
                        "{provider}: {text} {end:?}"
                    );
                    continue;
                }
                let error: Value =
                    serde_json::from_str(&text).unwrap_or_else(|_| unreachable!("{provider} {stream}: {text}"));
                assert!(
                    error["error"]["message"].is_string() && error["error"]["code"].is_string(),
                    "{provider}: {text}"
                );
                assert!(!text.contains("169.254"), "{provider}: {text}");
                assert_eq!(end, End::Whole);
            }
        }
    }
    bystander.was_unharmed(&weir).await;
}

/// Sends `piece` until the peer has had enough.
async fn endlessly(mut played: Played, head: &str, piece: String) {
    played.write(head).await;
    while played.try_write(&piece).await {}
}

#[tokio::test]
async fn a_provider_that_never_stops_is_stopped_with_bounded_memory() {
    let simulator = simulator();
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let large = "x".repeat(MIB);
    let json_head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let text = chunk(&large);
    let endless_document = Provider::start(move |played| endlessly(played, json_head, text.clone())).await;
    let text = large.clone();
    let endless_event = Provider::start(move |mut played| {
        let text = text.clone();
        async move {
            played.write(&format!("{STREAM}data: ")).await;
            while played.try_write(&text).await {}
        }
    })
    .await;
    let text = large.clone();
    let endless_refusal =
        Provider::start(move |played| endlessly(played, "HTTP/1.1 500 Oh\r\n\r\n", text.clone())).await;
    let text = format!("x-y: {}\r\n", "z".repeat(1000)).repeat(100);
    let endless_head = Provider::start(move |played| endlessly(played, "HTTP/1.1 200 OK\r\n", text.clone())).await;
    let pings = ": ping\n\n".repeat(MIB / 8);
    let endless_pings = Provider::start(move |played| endlessly(played, STREAM, pings.clone())).await;
    let weir = Config::of(&simulator)
        .openai("document", &endless_document.url())
        .openai("event", &endless_event.url())
        .openai("refusal", &endless_refusal.url())
        .openai("head", &endless_head.url())
        .openai("pings", &endless_pings.url())
        .model("{name: pinged, targets: [{provider: pings, model: x}], timeouts: {first_byte: 2s, total: 4s}}")
        .start()
        .await;
    let bystander = Bystander::of(&weir).await;
    let before = memory(weir.pid()).peak;
    for (provider, stream) in [("event", true), ("refusal", false), ("refusal", true), ("head", false)] {
        let (status, text, _) = told(&weir, provider, stream).await;
        assert!(status >= 500, "{provider}: {status} {text}");
    }
    let grown = (memory(weir.pid()).peak - before) / 1024;
    assert!(grown < 64, "{grown} MiB");
    let body = json!({"model": "pinged", "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let mut answer = weir.chat().json(&body).send().await;
    let (text, _) = answer.rest().await;
    assert!(
        text.contains("provider_timeout") && !text.contains("[DONE]"),
        "{} {}",
        answer.status,
        &text[..text.len().min(300)]
    );
    let grown = (memory(weir.pid()).peak - before) / 1024;
    assert!(grown < 64, "{grown} MiB");
    let (status, text, _) = told(&weir, "document", false).await;
    assert_eq!(status, 502, "{text}");
    let grown = (memory(weir.pid()).peak - before) / 1024;
    assert!(grown < 256, "{grown} MiB for the largest answer of 64 MiB");
    bystander.was_unharmed(&weir).await;
}
