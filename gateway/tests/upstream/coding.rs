//! Content codings that a provider applies although nobody asked.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use gateway::net::upstream::{Cause, Fault};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use crate::provider::{Provider, post, read, read_request, upstreams, whole};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn bare(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn answer(coding: &str, body: &[u8]) -> Bytes {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat().into()
}

async fn decoded(coding: &str, body: &[u8]) -> Result<Vec<u8>, Fault> {
    let provider = Provider::answering(answer(coding, body)).await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await?;
    assert!(!answer.headers.contains_key("content-encoding"));
    assert_eq!(answer.content_length(), None);
    whole(&mut answer).await
}

#[tokio::test]
async fn gzip_and_both_kinds_of_deflate_are_undone() {
    let text: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    for (coding, body) in
        [("gzip", gzip(&text)), ("X-GZIP", gzip(&text)), ("deflate", zlib(&text)), ("deflate", bare(&text))]
    {
        assert!(decoded(coding, &body).await.unwrap() == text, "{coding}");
    }
}

#[tokio::test]
async fn a_body_without_bytes_needs_no_decoding() {
    assert_eq!(decoded("gzip", b"").await.unwrap(), b"");
    assert_eq!(decoded("gzip", &gzip(b"")).await.unwrap(), b"");
}

#[tokio::test]
async fn identity_is_no_coding() {
    let provider = Provider::answering(answer("identity", b"plain")).await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
    assert_eq!(answer.content_length(), Some(5));
    assert_eq!(whole(&mut answer).await.unwrap(), b"plain");
}

#[tokio::test]
async fn a_coding_that_is_not_known_is_malformed() {
    for coding in ["br", "zstd", "gzip, gzip", "gzip\r\ncontent-encoding: br"] {
        let provider = Provider::answering(answer(coding, b"xx")).await;
        let fault = post(&upstreams(), &provider.endpoint(), b"{}").await.err().unwrap();
        assert_eq!((fault.cause, fault.sent), (Cause::Malformed, true), "{coding}");
        assert!(fault.detail.contains("content-encoding"));
    }
}

#[tokio::test]
async fn a_coded_body_that_ends_early_is_truncated_though_its_framing_is_whole() {
    let text = vec![b'x'; 50_000];
    for (coding, body) in [("gzip", gzip(&text)), ("deflate", zlib(&text)), ("deflate", bare(&text))] {
        let fault = decoded(coding, &body[..body.len() - 5]).await.unwrap_err();
        assert_eq!(fault.cause, Cause::Truncated, "{coding}");
    }
}

#[tokio::test]
async fn a_broken_coded_body_is_malformed() {
    assert_eq!(decoded("gzip", b"no gzip at all").await.unwrap_err().cause, Cause::Malformed);
    let mut body = gzip(&vec![b'x'; 5000]);
    let at = body.len() - 6;
    body[at] ^= 0xff;
    assert!(decoded("gzip", &body).await.is_err());
}

#[tokio::test]
async fn a_bomb_comes_in_bounded_pieces() {
    let bomb = gzip(&vec![0; 200_000_000]);
    let provider = Provider::answering(answer("gzip", &bomb)).await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
    let (mut total, mut largest) = (0, 0);
    while let Some(piece) = read(&mut answer).await.unwrap() {
        total += piece.len();
        largest = largest.max(piece.len());
    }
    assert_eq!(total, 200_000_000);
    assert!(largest <= 1_200_000, "{largest}");
}

#[tokio::test]
async fn what_a_coded_stream_flushed_comes_out_at_once() {
    let (go, gone) = oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let provider = Provider::start(move |mut stream, _| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            read_request(&mut stream).await.unwrap();
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(b"data: one\n\n").unwrap();
            encoder.flush().unwrap();
            let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n";
            stream.write_all(head).await.unwrap();
            stream.write_all(encoder.get_ref()).await.unwrap();
            encoder.get_mut().clear();
            gone.await.unwrap();
            encoder.write_all(b"data: two\n\n").unwrap();
            stream.write_all(&encoder.finish().unwrap()).await.unwrap();
        }
    })
    .await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
    assert_eq!(read(&mut answer).await.unwrap().unwrap(), "data: one\n\n");
    go.send(()).unwrap();
    assert_eq!(whole(&mut answer).await.unwrap(), b"data: two\n\n");
}
