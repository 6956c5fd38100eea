//! Every directive, over real sockets.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{End, anthropic, ask, chat, message, openai, said, send, start, streamed};
use flate2::read::GzDecoder;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_status_is_answered_in_the_dialects_own_shape() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("gpt-5.5~status=429~retry_after=2"))).await;
    assert_eq!(reply.status, 429);
    assert_eq!(reply.header("retry-after"), "2");
    assert_eq!(reply.json()["error"]["code"], "rate_limit_exceeded");
    let reply = ask(&simulator, anthropic(&message("claude-sonnet-4-6~status=529"))).await;
    assert_eq!(reply.status, 529);
    assert_eq!(reply.json()["error"]["type"], "overloaded_error");
}

#[tokio::test]
async fn retry_after_comes_in_milliseconds_and_as_a_date_too() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~status=503~retry_after=1500ms"))).await;
    assert_eq!(reply.header("retry-after-ms"), "1500");
    let reply = ask(&simulator, openai(&chat("m~status=503~retry_date=90s"))).await;
    assert!(reply.header("retry-after").ends_with("GMT"));
}

#[tokio::test]
async fn a_fault_with_times_passes() {
    let simulator = start();
    for wanted in [500, 500, 200, 200] {
        assert_eq!(ask(&simulator, openai(&chat("m~status=500~times=2"))).await.status, wanted);
    }
    assert_eq!(ask(&simulator, openai(&chat("other~status=500~times=2"))).await.status, 500);
}

#[tokio::test]
async fn directives_come_by_header_and_by_credential_too() {
    let simulator = start();
    let mut request = openai(&chat("m"));
    request.headers_mut().insert("x-sim-fault", "status=503".parse().unwrap());
    assert_eq!(ask(&simulator, request).await.status, 503);
    let mut request = openai(&chat("m"));
    request.headers_mut().insert("authorization", "Bearer sk-a~status=429".parse().unwrap());
    assert_eq!(ask(&simulator, request).await.status, 429);
}

#[tokio::test]
async fn an_unknown_directive_is_refused_by_name() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~staus=500"))).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("staus=500"));
}

#[tokio::test]
async fn the_head_is_delayed() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~delay=80ms"))).await;
    assert!(reply.head_after >= Duration::from_millis(80), "{:?}", reply.head_after);
}

#[tokio::test]
async fn the_head_comes_long_before_the_first_event() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~first=150ms")))).await;
    let silence = reply.pieces[0].0 - reply.head_after;
    assert!(silence >= Duration::from_millis(100), "{silence:?}");
}

#[tokio::test]
async fn as_many_content_events_as_asked_with_gaps_between_them() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~events=10~gap=10ms")))).await;
    let contents = |event: &&Value| event.pointer("/choices/0/delta/content").is_some_and(|text| text != "");
    assert_eq!(reply.events().iter().filter(contents).count(), 10);
    let took = reply.pieces.last().unwrap().0 - reply.pieces[0].0;
    assert!(took >= Duration::from_millis(90), "{took:?}");
}

#[tokio::test]
async fn each_event_is_one_write() {
    let simulator = start();
    let body = streamed(chat("m~events=20~gap=2ms")).to_string();
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\nauthorization: Bearer k\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let mut partial = 0;
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        partial += usize::from(!buffer[..read].ends_with(b"\r\n"));
    }
    assert_eq!(partial, 0, "a read ended inside an event");
}

#[tokio::test]
async fn a_cut_stream_breaks_after_so_many_events() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~events=9~cut=4")))).await;
    assert_eq!(reply.end, End::Broken);
    assert_eq!(said(&reply.events()).split_whitespace().count(), 4);
    let reply = ask(&simulator, anthropic(&streamed(message("claude-sonnet-4-6~events=9~cut=4")))).await;
    assert_eq!(reply.end, End::Broken);
    assert_eq!(reply.text().matches("text_delta").count(), 4);
}

#[tokio::test]
async fn an_ended_stream_ends_cleanly_and_says_nothing_of_an_end() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~events=9~end=4")))).await;
    assert_eq!(reply.end, End::Clean);
    assert_eq!(said(&reply.events()).split_whitespace().count(), 4);
    assert!(!reply.text().contains("[DONE]") && !reply.text().contains("\"stop\""));
}

#[tokio::test]
async fn an_error_event_comes_before_any_content() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~error=400")))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.events()[0]["error"]["code"], 400);
    assert_eq!(reply.events().len(), 2);
    let reply = ask(&simulator, anthropic(&streamed(message("claude-sonnet-4-6~error=529")))).await;
    assert!(reply.text().starts_with("event: error\n"));
    assert_eq!(reply.events()[0]["error"]["type"], "overloaded_error");
}

#[tokio::test]
async fn an_error_event_comes_after_some_content() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~error_after=2~error=503")))).await;
    assert_eq!(said(&reply.events()), "You said:");
    assert_eq!(reply.events().iter().filter(|event| event.get("error").is_some()).count(), 1);
}

#[tokio::test]
async fn a_whole_answer_can_be_an_error_with_status_200() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~error=429"))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn a_silent_stream_stays_open_until_the_client_leaves() {
    let simulator = start();
    let body = streamed(chat("m~silence=3")).to_string();
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\nauthorization: Bearer k\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut buffer = vec![0; 65_536];
    while seen.matches("\"content\":").count() < 4 {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0);
        seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    let more = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut buffer)).await;
    assert!(more.is_err(), "something came after the silence began");
    assert_eq!(simulator.account().open_streams, 1);
    drop(stream);
    let account = simulator.until(|account| account.aborted_streams == 1 && account.open_streams == 0).await;
    assert_eq!(account.output_tokens, 3);
}

#[tokio::test]
async fn a_slow_answer_comes_byte_by_byte() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~slow~usage=none"))).await;
    assert!(reply.pieces.len() > reply.body.len() / 4, "{} pieces", reply.pieces.len());
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "You said: one two three");
}

#[tokio::test]
async fn malformed_json_comes_whole_and_streamed() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~malformed"))).await;
    assert_eq!(reply.status, 200);
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
    let reply = ask(&simulator, openai(&streamed(chat("m~malformed")))).await;
    let broken = reply.events().into_iter().filter(|event| event.is_string() && event != "[DONE]").count();
    assert_eq!(broken, 1);
}

#[tokio::test]
async fn html_comes_with_502_or_the_status_asked_for() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~html"))).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (502, "text/html"));
    assert_eq!(ask(&simulator, openai(&chat("m~html~status=403"))).await.status, 403);
}

#[tokio::test]
async fn split_writes_end_inside_characters() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~split")))).await;
    assert!(reply.pieces.iter().any(|(_, piece)| std::str::from_utf8(piece).is_err()));
    assert_eq!(said(&reply.events()), "You said: one two three naïve 漢字 🦀 Straße");
}

#[tokio::test]
async fn a_reply_has_the_size_asked_for() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~size=200k"))).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"].as_str().unwrap().len(), 200_000);
    let reply = ask(&simulator, openai(&streamed(chat("m~size=20k~events=10")))).await;
    assert_eq!(said(&reply.events()).len(), 20_000);
}

#[tokio::test]
async fn gzip_is_unpacked_to_the_same_answer() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~gzip"))).await;
    assert_eq!(reply.header("content-encoding"), "gzip");
    let mut text = String::new();
    GzDecoder::new(reply.body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.contains("You said: one two three"));
    let reply = ask(&simulator, openai(&streamed(chat("m~gzip")))).await;
    let mut text = String::new();
    GzDecoder::new(reply.body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert!(reply.pieces.len() > 3, "the events were packed one by one");
}

#[tokio::test]
async fn a_truncated_answer_is_shorter_than_it_promised() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~truncate"))).await;
    assert_eq!(reply.end, End::Broken);
    assert_eq!(reply.header("content-length"), (reply.body.len() + 64).to_string());
}

#[tokio::test]
async fn a_closed_connection_gives_no_answer() {
    let simulator = start();
    assert!(send(simulator.addr(), openai(&chat("m~close"))).await.is_err());
    assert_eq!(simulator.account().requests, 1);
}

#[tokio::test]
async fn an_early_answer_comes_before_the_body() {
    let simulator = start();
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\nauthorization: Bearer k\r\n\
                content-type: application/json\r\ncontent-length: 5000000\r\n\r\n{\"model\": \"m~early=413\", ";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let read = stream.read(&mut buffer).await.unwrap();
    let answer = std::str::from_utf8(&buffer[..read]).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn usage_is_left_out_or_zero() {
    let simulator = start();
    let none = ask(&simulator, openai(&chat("m~usage=none"))).await.json();
    assert!(none.get("usage").is_none());
    let zero = ask(&simulator, openai(&chat("m~usage=zero"))).await.json();
    assert_eq!(zero["usage"]["total_tokens"], 0);
    let none = ask(&simulator, anthropic(&streamed(message("claude-sonnet-4-6~usage=none")))).await;
    assert!(!none.text().contains("usage"));
}

#[tokio::test]
async fn pings_come_before_the_content() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~pings=5")))).await;
    assert!(reply.text().starts_with(&": processing\n\n".repeat(5)));
    let reply = ask(&simulator, anthropic(&streamed(message("claude-sonnet-4-6~pings=5")))).await;
    assert_eq!(reply.text().matches("event: ping").count(), 5);
}

#[tokio::test]
async fn lines_end_in_crlf() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~crlf")))).await;
    assert!(reply.text().ends_with("data: [DONE]\r\n\r\n"));
    assert_eq!(reply.text().matches('\n').count(), reply.text().matches("\r\n").count());
}

#[tokio::test]
async fn a_stamped_event_tells_when_it_was_sent() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~stamp~events=3~gap=5ms")))).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let text = said(&reply.events());
    let stamps: Vec<u128> = text.split_whitespace().map(|stamp| stamp.parse().unwrap()).collect();
    assert_eq!(stamps.len(), 3);
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(stamps.iter().all(|stamp| *stamp < now && now - stamp < 5_000_000_000));
}

#[tokio::test]
async fn cached_tokens_are_reported_as_each_dialect_counts_them() {
    let simulator = start();
    let usage = ask(&simulator, openai(&chat("m~cached=2"))).await.json()["usage"].clone();
    assert_eq!((&usage["prompt_tokens"], &usage["prompt_tokens_details"]["cached_tokens"]), (&3.into(), &2.into()));
    let usage =
        ask(&simulator, anthropic(&message("claude-sonnet-4-6~cached=2~cache_write=1"))).await.json()["usage"].clone();
    let counts =
        ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"].map(|name| usage[name].clone());
    assert_eq!(counts, [Value::from(0), Value::from(2), Value::from(1)]);
}

#[tokio::test]
async fn a_small_context_and_a_strict_filter_refuse() {
    let simulator = start();
    let reply = ask(&simulator, openai(&chat("m~context=2"))).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (400, &"context_length_exceeded".into()));
    let reply = ask(&simulator, anthropic(&message("claude-sonnet-4-6~context=2"))).await;
    assert!(reply.text().contains("prompt is too long: 3 tokens > 2 maximum"));
    let reply = ask(&simulator, openai(&chat("m~filtered"))).await;
    assert_eq!(reply.json()["error"]["code"], "content_policy_violation");
    let reply = ask(&simulator, anthropic(&message("claude-sonnet-4-6~filtered"))).await;
    assert_eq!(reply.json()["stop_reason"], "refusal");
}

#[tokio::test]
async fn faults_compose() {
    let simulator = start();
    let reply = ask(&simulator, openai(&streamed(chat("m~delay=30ms~pings=2~events=6~cut=3~crlf")))).await;
    assert!(reply.head_after >= Duration::from_millis(30));
    assert!(reply.text().starts_with(": processing\r\n\r\n: processing\r\n\r\n"));
    assert_eq!((reply.end, said_words(&reply.body)), (End::Broken, 3));
}

fn said_words(body: &[u8]) -> usize {
    let text = std::str::from_utf8(body).unwrap().replace("\r\n", "\n");
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    said(&events.collect::<Vec<_>>()).split_whitespace().count()
}
