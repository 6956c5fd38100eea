//! Large and odd bodies, in both directions: limits, `Expect: 100-continue`, chunks, early answers, memory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compress, Compression, FlushCompress};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use simulator::Simulator;
use tokio::net::TcpStream;
use weir_tests::client::End;
use weir_tests::http2::Http2;
use weir_tests::process::memory;
use weir_tests::provider::{Provider, STREAM};
use weir_tests::raw::{Probing, Raw};
use weir_tests::weir::{Config, KEY, Weir};

const MIB: usize = 1024 * 1024;

fn simulator() -> Simulator {
    simulator::start(simulator::Config::default()).unwrap()
}

/// A request of `size` bytes.
fn large(model: &str, size: usize) -> Vec<u8> {
    let mut body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":""#).into_bytes();
    let end = br#""}]}"#;
    body.resize(size - end.len(), b'x');
    body.extend_from_slice(end);
    body
}

fn small() -> String {
    json!({"model": "openai/gpt-5.5", "messages": [{"role": "user", "content": "Hello"}]}).to_string()
}

fn key(more: &str) -> String {
    format!("authorization: Bearer {KEY}\r\n{more}")
}

fn head(headers: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\n{}\r\n", key(headers))
}

/// An answer with a content of `size` bytes.
fn reply(size: usize) -> String {
    let content = "x".repeat(size);
    json!({"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).to_string()
}

/// A provider that takes any body and says little.
async fn sink() -> Provider {
    Provider::json(&reply(2)).await
}

/// The body in chunks of `size`.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::with_capacity(body.len() + body.len() / size * 16 + 16);
    for chunk in body.chunks(size) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

fn is_too_large(answer: &weir_tests::raw::RawAnswer) {
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (413, &json!("request_too_large")), "{error}");
    assert_eq!(error["type"], "invalid_request_error");
    assert_eq!(answer.header("x-weir-error"), Some("caller_request"));
}

async fn limited(simulator: &Simulator) -> Weir {
    Config::of(simulator).server("max_body: 64KiB").start().await
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_a_byte_of_it_comes() {
    let simulator = simulator();
    let weir = limited(&simulator).await;
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(head("content-length: 65537\r\n")).await;
    is_too_large(&raw.answer().await);
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(head(&format!("content-length: {}\r\n", u64::MAX / 2))).await;
    is_too_large(&raw.answer().await);
    assert_eq!(simulator.account().requests, 0);
}

#[tokio::test]
async fn a_chunked_body_is_counted_while_it_comes() {
    let simulator = simulator();
    let weir = limited(&simulator).await;
    for chunk in [100, 4096, 100_000] {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(head("transfer-encoding: chunked\r\n")).await;
        raw.send(chunked(&large("openai/gpt-5.5", 100_000), chunk)).await;
        is_too_large(&raw.answer().await);
    }
    assert_eq!(simulator.account().requests, 0);
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_served_however_it_is_framed() {
    let simulator = simulator();
    let weir = limited(&simulator).await;
    let body = large("openai/gpt-5.5", 64 * 1024);
    let mut raw = Raw::connect(weir.api()).await;
    raw.post("/v1/chat/completions", &key(""), &body).await;
    assert_eq!(raw.answer().await.status, 200);
    for chunk in [1000, 70_000] {
        raw.send(head("transfer-encoding: chunked\r\n")).await;
        raw.send(chunked(&body, chunk)).await;
        assert_eq!(raw.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_waits_for_continue_gets_it_only_when_its_body_is_wanted() {
    let simulator = simulator();
    let weir = limited(&simulator).await;
    let body = small();
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(head(&format!("expect: 100-continue\r\ncontent-length: {}\r\n", body.len()))).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send(&body).await;
    assert_eq!(raw.answer().await.status, 200);
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(head("expect: 100-continue\r\ncontent-length: 1000000\r\n")).await;
    let refused = raw.answer().await;
    is_too_large(&refused);
    assert_eq!(refused.header("connection"), Some("close"), "it is not known whether the body will come");
    let mut raw = Raw::connect(weir.api()).await;
    raw.send("POST /v1/chat/completions HTTP/1.1\r\nhost: w\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n")
        .await;
    assert_eq!(raw.answer().await.status, 401);
}

#[tokio::test]
async fn a_client_that_sends_all_of_a_refused_body_sees_the_refusal() {
    let simulator = simulator();
    let weir = Config::of(&simulator).server("max_body: 1MiB").start().await;
    for _ in 0..5 {
        let mut raw = Raw::connect(weir.api()).await;
        raw.post("/v1/chat/completions", &key(""), large("openai/gpt-5.5", 20 * MIB)).await;
        is_too_large(&raw.answer().await);
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(head("transfer-encoding: chunked\r\n")).await;
        raw.send(chunked(&large("openai/gpt-5.5", 20 * MIB), 100_000)).await;
        is_too_large(&raw.answer().await);
    }
}

#[tokio::test]
async fn sixty_four_mebibytes_pass_with_no_more_memory_than_that_and_a_little() {
    let simulator = simulator();
    let provider = sink().await;
    let weir = Config::of(&simulator).openai("sink", &provider.url()).start().await;
    assert_eq!(weir.chat().body(small()).send().await.status, 200);
    let body = large("sink/gpt-5.5", 64 * MIB);
    let before = memory(weir.pid()).now;
    let answer = weir.chat().body(body.clone()).send().await;
    assert_eq!(answer.status, 200);
    let grown = (memory(weir.pid()).peak - before) / 1024;
    assert!(grown <= 64 + 16, "{grown} MiB for a body of 64 MiB");
    // The same in chunks, whose sum nobody announces.
    let mut raw = Raw::connect(weir.api()).await;
    raw.send(head("transfer-encoding: chunked\r\n")).await;
    raw.send(chunked(&body, 1_000_000)).await;
    assert_eq!(raw.answer().await.status, 200);
    let grown = (memory(weir.pid()).peak - before) / 1024;
    assert!(grown <= 64 + 16, "{grown} MiB for a chunked body of 64 MiB");
}

#[tokio::test]
async fn large_bodies_do_not_slow_small_requests_and_their_memory_is_used_again() {
    let simulator = simulator();
    let provider = sink().await;
    let weir = Config::of(&simulator).openai("sink", &provider.url()).start().await;
    let upload = || async {
        let uploads: Vec<_> =
            (0..4).map(|_| tokio::spawn(weir.chat().body(large("sink/gpt-5.5", 32 * MIB)).send())).collect();
        for upload in uploads {
            assert_eq!(upload.await.unwrap().status, 200);
        }
    };
    let probing = Probing::begin(weir.api(), "/v1/models");
    upload().await;
    let times = probing.end();
    let median = times[times.len() / 2];
    assert!(times.len() > 5 && median < Duration::from_millis(100), "{times:?}");
    upload().await;
    let peak = memory(weir.pid()).peak;
    for _ in 0..3 {
        upload().await;
    }
    // The allocator keeps what is free for a moment, so another set of four may find it taken once; 384 MiB went
    // through.
    let grown = memory(weir.pid()).peak.saturating_sub(peak) / 1024;
    assert!(grown < 128, "{grown} MiB more for the same bodies again");
}

/// A request to Claude with a text file of these bytes.
fn with_file(bytes: &[u8]) -> String {
    let data = format!("data:text/plain;base64,{}", STANDARD.encode(bytes));
    let part = json!({"type": "file", "file": {"file_data": data}});
    json!({"model": "claude/claude-sonnet-4-6", "messages": [{"role": "user", "content": [part]}]}).to_string()
}

#[tokio::test]
async fn a_long_file_for_claude_costs_its_body_twice_and_a_little_and_holds_up_nobody() {
    let simulator = simulator();
    let weir = Config::of(&simulator).server("threads: 1").start().await;
    assert_eq!(weir.chat().body(with_file(b"x")).send().await.status, 200);
    let before = memory(weir.pid()).now;
    let length = 24 * MIB;
    for (byte, status) in [(b'x', 200), (0, 400)] {
        let body = with_file(&vec![byte; length]);
        let (begun, probing) = (Instant::now(), Probing::begin(weir.api(), "/healthz"));
        assert_eq!(weir.chat().body(body).send().await.status, status);
        let (took, slowest) = (begun.elapsed(), probing.end().last().copied().unwrap());
        assert!(slowest < Duration::from_secs(1).max(took / 2), "{slowest:?} of {took:?} with a file of {byte}");
    }
    let grown = (memory(weir.pid()).peak - before) / 1024;
    let most = u64::try_from(2 * (length * 4 / 3) / MIB + 16 + 8).unwrap();
    assert!(grown <= most, "{grown} MiB for a file of {length} bytes, {most} at most");
}

#[tokio::test]
async fn a_provider_that_answers_during_an_upload_is_heard() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for (directives, status, code) in [
        ("early=413", 413, None),
        ("early=400", 400, None),
        ("early=401", 502, Some("provider_auth_failed")),
        ("early=429", 429, Some("provider_rate_limited")),
    ] {
        let body = large(&format!("openai/gpt-5.5~{directives}"), 30 * MIB);
        let answer = weir.chat().header("x-weir-no-retry", "1").body(body).send().await;
        assert_eq!(answer.status, status, "{directives}");
        let error = answer.json().await;
        if let Some(code) = code {
            assert_eq!(error["error"]["code"], code, "{error}");
        }
    }
}

#[tokio::test]
async fn answers_that_a_provider_compressed_come_out_plain() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in ["openai/gpt-5.5~gzip", "claude/claude-sonnet-4-6~gzip"] {
        let mut body = json!({"model": model, "messages": [{"role": "user", "content": "one two three"}]});
        let answer = weir.chat().json(&body).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, None));
        assert!(answer.json().await["choices"][0]["message"]["content"].is_string());
        body["stream"] = Value::Bool(true);
        let mut answer = weir.chat().json(&body).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, None));
        let (events, end) = answer.events().await;
        assert!(end == End::Whole && events.last().unwrap().is_done());
    }
}

#[tokio::test]
async fn a_large_answer_comes_whole_with_its_length() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let answer = weir
        .chat()
        .json(&json!({"model": "openai/gpt-5.5~size=20m", "messages": [{"role": "user", "content": "x"}]}))
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    let text = answer.text().await;
    assert_eq!(text.len(), length);
    assert!(length > 20_000_000);
    let parsed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["choices"][0]["message"]["content"].as_str().unwrap().len(), 20_000_000);
}

/// A mebibyte that is nearly nothing, packed so that it can be said again and again.
fn packed_mebibyte() -> Vec<u8> {
    let mut packed = Vec::with_capacity(16 * 1024);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(&vec![b' '; MIB], &mut packed, FlushCompress::Full).unwrap();
    packed
}

#[tokio::test]
async fn an_answer_that_unpacks_to_more_than_any_may_have_is_given_up_where_it_passes_that() {
    let provider = Provider::start(|mut played| async move {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: deflate\r\nconnection: close\r\n\r\n";
        played.write(head).await;
        played.write_bytes(&packed_mebibyte().repeat(600)).await;
        played.close().await;
    })
    .await;
    let weir = Config::new().openai("bomb", &provider.url()).start().await;
    let before = memory(weir.pid()).peak;
    let answer = weir.chat().body(large("bomb/x", 100)).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (502, Some("provider_error")));
    let grown = (memory(weir.pid()).peak - before) / 1024;
    assert!(grown < 256, "{grown} MiB for the largest answer of 64 MiB");
}

#[tokio::test]
async fn a_client_that_reads_a_large_answer_slowly_gets_all_of_it() {
    let provider = Provider::json(&reply(20 * MIB)).await;
    // Each part of the answer has to be taken within this; all of it takes longer.
    let weir = Config::new().openai("talker", &provider.url()).server("stall: 1s").start().await;
    let body = json!({"model": "talker/x", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let mut raw = Raw::connect(weir.api()).await;
    raw.post("/v1/chat/completions", &key(""), body).await;
    let answer = raw.answer_slowly(MIB, Duration::from_millis(100)).await.unwrap();
    assert_eq!(answer.header("content-length").unwrap().parse(), Ok(answer.body.len()));
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut() {
    let whole = Provider::json(&reply(40 * MIB)).await;
    let events =
        r#"{"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"0123456789"}}]}"#;
    let stream = Provider::answering(format!("{STREAM}{}", format!("data: {events}\n\n").repeat(400_000))).await;
    let config = Config::new().openai("whole", &whole.url()).openai("stream", &stream.url()).server("stall: 1s");
    let weir = config.start().await;
    for provider in ["whole", "stream"] {
        let is_stream = provider == "stream";
        let body = json!({"model": format!("{provider}/x"), "stream": is_stream, "messages": [{"role": "user", "content": "x"}]});
        let mut raw = Raw::connect(weir.api()).await;
        raw.post("/v1/chat/completions", &key(&format!("x-request-id: stuck-{provider}\r\n")), body.to_string()).await;
        let line = weir.logged(&format!("stuck-{provider}")).await;
        assert_eq!(line["error"], "caller_gone", "{line}");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_one_answer_over_http2_gets_others() {
    let whole = Provider::json(&reply(40 * MIB)).await;
    let little = sink().await;
    let config = Config::new().openai("whole", &whole.url()).openai("little", &little.url()).server("stall: 1s");
    let weir = config.start().await;
    let client = Http2::over(TcpStream::connect(weir.api()).await.unwrap()).await;
    let body = json!({"model": "whole/x", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let untaken = client.begin("POST", "/v1/chat/completions", Full::new(body.into()).boxed()).await;
    let id = untaken.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(weir.logged(&id).await["error"], "caller_gone");
    let body = json!({"model": "little/x", "messages": [{"role": "user", "content": "x"}]});
    let other = client.post("/v1/chat/completions", &body).await;
    assert_eq!((other.status.as_u16(), other.ended), (200, true));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_refused_and_the_connection_closed() {
    let simulator = simulator();
    let weir = Config::of(&simulator).server("stall: 1s").start().await;
    for framing in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(head(framing)).await;
        raw.send(if framing.starts_with('c') { "{\"model\"" } else { "8\r\n{\"mod" }).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (408, Some("request_timeout")));
        assert!(raw.rest().await.is_empty());
    }
    assert_eq!(simulator.account().requests, 0);
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_costs_nothing() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for framing in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(head(&format!("x-request-id: left-{}\r\n{framing}", framing.len()))).await;
        raw.send("5\r\n{").await;
        drop(raw);
        assert_eq!(weir.logged(&format!("left-{}", framing.len())).await["error"], "caller_gone");
    }
    assert_eq!(simulator.account().requests, 0);
}
