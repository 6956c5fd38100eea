//! HTTP/1.1: writing, reading, reuse, and answers that are absurd.

use std::time::Duration;

use bytes::Bytes;
use gateway::net::upstream::{Cause, EndpointSpec, Outgoing};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::provider::{
    OK, PATIENCE, Provider, endpoint, exchange, header, post, post_segments, read, read_head, read_request, upstreams,
    whole,
};

#[tokio::test]
async fn a_small_request_leaves_in_one_piece() {
    let provider = Provider::start(|mut stream, _| async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            if read == 0 {
                return;
            }
            assert!(buffer[..read].ends_with(b"{}"), "the body came apart");
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    for _ in 0..200 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
    }
}

#[tokio::test]
async fn a_large_body_in_many_segments_arrives_whole() {
    let provider = Provider::start(|mut stream, _| async move {
        let seen = read_request(&mut stream).await.unwrap();
        let sum: u64 = seen.body.iter().map(|byte| u64::from(*byte)).sum();
        let answer = format!("{}:{sum}", seen.body.len());
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).await.unwrap();
    })
    .await;
    let segment: Bytes = (0..100_000u32).map(|n| n as u8).collect::<Vec<_>>().into();
    let mut segments = vec![segment.clone(); 300];
    segments.insert(7, Bytes::new());
    let sum: u64 = segment.iter().map(|byte| u64::from(*byte)).sum();
    let mut answer = post_segments(&upstreams(), &provider.endpoint(), &segments).await.unwrap();
    let body = whole(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8(body).unwrap(), format!("30000000:{}", sum * 300));
}

#[tokio::test]
async fn the_request_names_its_host_and_forwards_no_header_about_the_connection() {
    let (tell, mut told) = mpsc::channel(64);
    let provider = Provider::start(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            let seen = read_request(&mut stream).await.unwrap();
            stream.write_all(OK).await.unwrap();
            tell.try_send(seen).unwrap();
        }
    })
    .await;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "elsewhere"),
        ("content-length", "999"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-hop"),
        ("proxy-authorization", "secret"),
        ("x-kept", "yes"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let endpoint = endpoint(EndpointSpec::new(format!("{}/base/", provider.url())));
    assert_eq!(endpoint.base_path(), "/base");
    let request = Outgoing {
        method: Method::POST,
        path: "/base/chat?x=1",
        headers: &headers,
        more: &[],
        body: &[Bytes::from_static(b"{"), Bytes::from_static(b"}")],
    };
    let sent = upstreams().send(&endpoint, request, PATIENCE).await;
    assert_eq!(sent.unwrap().status, StatusCode::OK);
    let seen = told.recv().await.unwrap();
    assert!(seen.head.starts_with("POST /base/chat?x=1 HTTP/1.1\r\n"));
    assert_eq!(header(&seen.head, "host"), Some(&*provider.address.to_string()));
    assert_eq!(header(&seen.head, "content-length"), Some("2"));
    assert_eq!(header(&seen.head, "x-kept"), Some("yes"));
    assert_eq!(seen.head.matches("\r\n").count(), 5, "{}", seen.head);
    assert_eq!(seen.body, b"{}");
}

#[tokio::test]
async fn a_path_that_would_be_another_request_is_not_sent() {
    let provider = Provider::answering(OK).await;
    for path in ["/a b", "/a\r\nx: y", "", "http://elsewhere/", "/ä"] {
        let request = Outgoing { method: Method::GET, path, headers: &HeaderMap::new(), more: &[], body: &[] };
        let sent = upstreams().send(&provider.endpoint(), request, PATIENCE).await;
        assert_eq!(sent.err().unwrap().cause, Cause::Unsendable, "{path:?}");
    }
    assert_eq!(provider.seen(), 0);
}

#[tokio::test]
async fn an_early_refusal_of_a_long_upload_is_seen_and_the_connection_not_reused() {
    let provider = Provider::start(|mut stream, _| async move {
        read_head(&mut stream).await.unwrap();
        let refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig";
        stream.write_all(refusal).await.unwrap();
        // Never reads the body: a client that must write it first would hang here.
        std::future::pending::<()>().await;
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    let body = [Bytes::from(vec![b'x'; 30_000_000])];
    for connections in 1..3 {
        let mut answer = post_segments(&upstreams, &endpoint, &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(whole(&mut answer).await.unwrap(), b"big");
        answer.release().await;
        assert_eq!(provider.seen(), connections);
    }
}

#[tokio::test]
async fn an_early_refusal_is_seen_though_the_provider_hangs_up_at_once() {
    let provider = Provider::closing_after_head(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").await;
    let body = [Bytes::from(vec![b'x'; 3_000_000])];
    let answer = post_segments(&upstreams(), &provider.endpoint(), &body).await;
    assert_eq!(answer.unwrap().status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_early_success_does_not_stop_the_upload() {
    let provider = Provider::start(|mut stream, _| async move {
        let head = read_head(&mut stream).await.unwrap();
        let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    })
    .await;
    let body = [Bytes::from(vec![b'y'; 20_000_000])];
    let mut answer = post_segments(&upstreams(), &provider.endpoint(), &body).await.unwrap();
    assert_eq!(answer.content_length(), Some(20_000_000));
    assert_eq!(whole(&mut answer).await.unwrap().len(), 20_000_000);
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let provider = Provider::answering(
        &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
           HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-request-id: 1\r\nx-end: 1\r\n\r\nok"[..],
    )
    .await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.headers.contains_key("x-request-id") && !answer.headers.contains_key("link"));
    assert!(!answer.headers.contains_key("x-end"), "nobody reads it");
    assert_eq!(whole(&mut answer).await.unwrap(), b"ok");
}

#[tokio::test]
async fn connections_are_reused_after_each_kind_of_complete_body() {
    for answer in [
        OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 429 Slow Down\r\ncontent-length: 2\r\n\r\nno",
    ] {
        let provider = Provider::answering(answer).await;
        let (upstreams, endpoint) = (upstreams(), provider.endpoint());
        for _ in 0..5 {
            exchange(&upstreams, &endpoint).await.unwrap();
        }
        assert_eq!(provider.seen(), 1, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn connections_are_not_reused_when_either_side_is_not_through() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"[..],
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let provider = Provider::answering(answer).await;
        let (upstreams, endpoint) = (upstreams(), provider.endpoint());
        for connections in 1..4 {
            assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
            assert_eq!(provider.seen(), connections);
        }
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_its_connection() {
    let provider = Provider::closing_after(&b"HTTP/1.1 200 OK\r\n\r\nall of it"[..]).await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    for connections in 1..3 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"all of it");
        assert_eq!(provider.seen(), connections);
    }
}

#[tokio::test]
async fn head_answers_have_no_body_whatever_their_length_says() {
    let provider = Provider::answering(&b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"[..]).await;
    let request = Outgoing { method: Method::HEAD, path: "/", headers: &HeaderMap::new(), more: &[], body: &[] };
    let sent = upstreams().send(&provider.endpoint(), request, PATIENCE).await;
    assert_eq!(read(&mut sent.unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced_once() {
    let provider = Provider::start(|mut stream, number| async move {
        read_request(&mut stream).await.unwrap();
        stream.write_all(OK).await.unwrap();
        if number == 0 {
            // The race: the provider closes just as the next request arrives.
            read_request(&mut stream).await.unwrap();
        }
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    exchange(&upstreams, &endpoint).await.unwrap();
    assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
    assert_eq!(provider.seen(), 2);
}

#[tokio::test]
async fn a_new_connection_that_closes_without_an_answer_is_not_tried_again() {
    let provider = Provider::closing_after(&b""[..]).await;
    let fault = post(&upstreams(), &provider.endpoint(), b"{}").await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Closed, true));
    assert_eq!(fault.address, Some(provider.address));
    assert_eq!(provider.seen(), 1);
}

#[tokio::test]
async fn a_reused_connection_that_ends_after_the_provider_had_time_to_work_is_not_tried_again() {
    let provider = Provider::start(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
        stream.write_all(OK).await.unwrap();
        read_request(&mut stream).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    exchange(&upstreams, &endpoint).await.unwrap();
    let fault = exchange(&upstreams, &endpoint).await.unwrap_err();
    assert_eq!((fault.cause, fault.sent), (Cause::Closed, true));
    assert_eq!(provider.seen(), 1);
}

#[tokio::test]
async fn a_reused_connection_that_ends_within_an_answer_is_not_tried_again() {
    let provider = Provider::start(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
        stream.write_all(OK).await.unwrap();
        read_request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 2").await.unwrap();
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    exchange(&upstreams, &endpoint).await.unwrap();
    let fault = exchange(&upstreams, &endpoint).await.unwrap_err();
    assert_eq!((fault.cause, fault.sent), (Cause::Truncated, true));
    assert_eq!(provider.seen(), 1);
}

#[tokio::test]
async fn a_cut_body_is_truncated_and_never_an_end() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        let provider = Provider::closing_after(answer).await;
        let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
        assert_eq!(read(&mut answer).await.unwrap().unwrap(), "half");
        let fault = read(&mut answer).await.unwrap_err();
        assert_eq!((fault.cause, fault.sent), (Cause::Truncated, true));
        assert_eq!(read(&mut answer).await.unwrap_err().cause, Cause::Truncated);
    }
}

#[tokio::test]
async fn a_reset_in_the_body_is_truncated() {
    let provider = Provider::start(|mut stream, _| async move {
        read_head(&mut stream).await.unwrap();
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        stream.write_all(half).await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
    assert_eq!(whole(&mut answer).await.unwrap_err().cause, Cause::Truncated);
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_malformed() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 999999 Huge\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"<html>502 Bad Gateway</html>",
        b"\x16\x03\x01\x02\x00\x01",
        b"\0\0\x12\x04\0\0\0\0\0\0",
    ] {
        let provider = Provider::answering(answer).await;
        let fault = post(&upstreams(), &provider.endpoint(), b"{}").await.err();
        let fault = fault.unwrap_or_else(|| unreachable!("{}", String::from_utf8_lossy(answer)));
        assert_eq!(fault.cause, Cause::Malformed, "{fault:?} {}", String::from_utf8_lossy(answer));
        assert!(fault.sent);
    }
}

#[tokio::test]
async fn broken_chunks_are_malformed() {
    for chunks in ["zz\r\n", "-1\r\nx\r\n", "ffffffffffffffffff\r\n", "1\r\nxx\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let provider = Provider::answering(answer).await;
        let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
        let fault = whole(&mut answer).await.unwrap_err();
        assert_eq!((fault.cause, fault.sent), (Cause::Malformed, true), "{chunks:?}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_too_large_and_is_not_gathered() {
    for (start, endless) in [
        ("HTTP/1.1 200 OK\r\nx: ", "a".repeat(1000)),
        ("HTTP/1.1 200 OK\r\n", "x: y\r\n".repeat(100)),
        ("", "HTTP/1.1 100 Continue\r\n\r\n".repeat(50)),
    ] {
        let (tell, told) = oneshot::channel();
        let tell = std::sync::Mutex::new(Some(tell));
        let provider = Provider::start(move |mut stream, _| {
            let (tell, endless) = (tell.lock().unwrap().take().unwrap(), endless.clone());
            async move {
                read_request(&mut stream).await.unwrap();
                stream.write_all(start.as_bytes()).await.unwrap();
                let mut written = 0;
                while stream.write_all(endless.as_bytes()).await.is_ok() {
                    written += endless.len();
                }
                tell.send(written).unwrap();
            }
        })
        .await;
        let fault = post(&upstreams(), &provider.endpoint(), b"{}").await.err().unwrap();
        assert_eq!(fault.cause, Cause::TooLarge, "{start:?}");
        // The kernel's buffers on both sides take a few megabytes; a gatherer would take all.
        assert!(told.await.unwrap() < 20_000_000);
    }
}

#[tokio::test]
async fn a_head_of_ten_megabytes_is_too_large() {
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(10_000_000));
    let provider = Provider::closing_after(head).await;
    let fault = post(&upstreams(), &provider.endpoint(), b"{}").await.err().unwrap();
    assert_eq!(fault.cause, Cause::TooLarge);
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_read() {
    let provider = Provider::start(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
        for byte in OK {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(exchange(&upstreams(), &provider.endpoint()).await.unwrap(), b"ok");
}

#[tokio::test]
async fn dropping_the_request_closes_the_connection() {
    let (tell, mut told) = mpsc::channel(64);
    let provider = Provider::start(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            tell.try_send("asked").unwrap();
            let end = stream.read(&mut [0]).await;
            tell.try_send(if matches!(end, Ok(0)) { "closed" } else { "?" }).unwrap();
        }
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    let sending = tokio::spawn(async move { post(&upstreams, &endpoint, b"{}").await.is_ok() });
    assert_eq!(told.recv().await, Some("asked"));
    sending.abort();
    assert_eq!(told.recv().await, Some("closed"));
}

#[tokio::test]
async fn dropping_or_releasing_half_an_answer_closes_the_connection() {
    for release in [false, true] {
        let (tell, told) = oneshot::channel();
        let tell = std::sync::Mutex::new(Some(tell));
        let provider = Provider::start(move |mut stream, _| {
            let tell = tell.lock().unwrap().take().unwrap();
            async move {
                read_request(&mut stream).await.unwrap();
                let half = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
                stream.write_all(half).await.unwrap();
                tell.send(stream.read(&mut [0]).await.unwrap()).unwrap();
            }
        })
        .await;
        let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
        assert_eq!(read(&mut answer).await.unwrap().unwrap(), "half");
        if release {
            answer.release().await;
        } else {
            drop(answer);
        }
        assert_eq!(told.await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_answer_whose_end_has_come_is_reused_though_nobody_read_it() {
    let body = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n";
    let provider = Provider::answering(body).await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    for _ in 0..5 {
        let mut answer = post(&upstreams, &endpoint, b"{}").await.unwrap();
        assert_eq!(read(&mut answer).await.unwrap().unwrap(), "done");
        answer.release().await;
    }
    assert_eq!(provider.seen(), 1);
}

#[tokio::test]
async fn reads_that_are_cancelled_lose_nothing() {
    let provider = Provider::start(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for number in 0..500 {
            let event = format!("data: {number}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            for part in chunk.as_bytes().chunks(3) {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
    let mut body = Vec::new();
    loop {
        tokio::select! {
            biased;
            piece = answer.read() => match piece.unwrap() {
                Some(piece) => body.extend_from_slice(&piece),
                None => break,
            },
            () = tokio::task::yield_now() => {}
        }
    }
    let expected: String = (0..500).map(|number| format!("data: {number}\n\n")).collect();
    assert_eq!(String::from_utf8(body).unwrap(), expected);
}
