//! HTTP/2: with and without TLS, many streams on a connection, resets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gateway::net::upstream::{Cause, Endpoint, EndpointSpec, Fault, Version};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::provider::{OK, Provider, endpoint, exchange, post, post_segments, read, upstreams, whole};
use crate::tls::{Authority, TlsProvider, names};

/// A provider that speaks HTTP/2, without TLS or within it.
struct Http2Provider {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

type Respond = SendResponse<Bytes>;

impl Http2Provider {
    async fn start<S, F>(script: S) -> Http2Provider
    where
        S: Fn(Request<RecvStream>, Respond) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Http2Provider::with(None, script).await
    }

    async fn with<S, F>(tls: Option<TlsAcceptor>, script: S) -> Http2Provider
    where
        S: Fn(Request<RecvStream>, Respond) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (tls, script) = (tls.clone(), script.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(stream).await.unwrap(), script).await,
                        None => serve(stream, script).await,
                    }
                });
            }
        });
        Http2Provider { address, connections }
    }

    fn endpoint(&self) -> Arc<Endpoint> {
        let mut spec = EndpointSpec::new(format!("http://{}", self.address));
        spec.version = Version::Http2;
        endpoint(spec)
    }

    fn seen(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<S, F>(stream: impl AsyncRead + AsyncWrite + Unpin, script: S)
where
    S: Fn(Request<RecvStream>, Respond) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = Builder::new();
    builder.max_concurrent_streams(100);
    let mut connection = builder.handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(script(request, respond));
    }
}

fn ok() -> Response<()> {
    Response::new(())
}

async fn answer_ok(request: Request<RecvStream>, mut respond: Respond) {
    body_of(request).await;
    let mut stream = respond.send_response(ok(), false).unwrap();
    stream.send_data(Bytes::from_static(b"ok"), true).unwrap();
}

async fn body_of(request: Request<RecvStream>) -> Vec<u8> {
    let mut body = request.into_body();
    let mut whole = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).unwrap();
        whole.extend_from_slice(&piece);
    }
    whole
}

async fn alpn(authority: &Authority, protocols: &[&[u8]]) -> TlsAcceptor {
    let mut config = authority.server_config(names(&["localhost"]));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn over_tls(port: u16, version: Version, authority: &Authority) -> Arc<Endpoint> {
    endpoint(EndpointSpec {
        version,
        ca_file: Some(authority.file()),
        ..EndpointSpec::new(format!("https://localhost:{port}"))
    })
}

#[tokio::test]
async fn http2_without_tls_is_spoken_by_prior_knowledge_on_one_connection() {
    let (tell, mut told) = mpsc::channel(64);
    let provider = Http2Provider::start(move |request, respond| {
        tell.try_send((request.uri().to_string(), request.headers().clone())).unwrap();
        answer_ok(request, respond)
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    for _ in 0..5 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
        let (uri, headers) = told.recv().await.unwrap();
        assert_eq!(uri, format!("http://{}/v1/chat/completions", provider.address));
        assert_eq!(headers["content-length"], "2");
        assert!(!headers.contains_key("host"));
    }
    assert_eq!(provider.seen(), 1);
}

#[tokio::test]
async fn tls_agrees_on_http2_where_both_know_it() {
    let authority = Authority::new();
    let tls = alpn(&authority, &[b"h2", b"http/1.1"]).await;
    let provider = Http2Provider::with(Some(tls), |request, respond| async move {
        assert_eq!(request.uri().scheme_str(), Some("https"));
        answer_ok(request, respond).await;
    })
    .await;
    let upstreams = upstreams();
    for version in [Version::Auto, Version::Http2] {
        let endpoint = over_tls(provider.address.port(), version, &authority);
        for _ in 0..3 {
            assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
        }
    }
    assert_eq!(provider.seen(), 2, "one connection for each version");
}

#[tokio::test]
async fn auto_falls_back_to_http1_and_reuses_its_connection() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["localhost"]).await;
    let endpoint = over_tls(provider.address.port(), Version::Auto, &authority);
    let upstreams = upstreams();
    for _ in 0..5 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
    }
    assert_eq!(provider.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn auto_without_tls_is_http1() {
    let provider = Provider::answering(OK).await;
    let mut spec = EndpointSpec::new(provider.url());
    spec.version = Version::Auto;
    let (upstreams, endpoint) = (upstreams(), endpoint(spec));
    for _ in 0..3 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
    }
    assert_eq!(provider.seen(), 1);
}

#[tokio::test]
async fn http2_only_refuses_a_provider_that_speaks_http1_only() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["localhost"]).await;
    let endpoint = over_tls(provider.address.port(), Version::Http2, &authority);
    let fault = post(&upstreams(), &endpoint, b"{}").await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Tls, false));
    assert!(fault.detail.contains("HTTP version"), "{}", fault.detail);
}

#[tokio::test]
async fn many_requests_at_once_share_a_few_connections() {
    let arrived = Arc::new(tokio::sync::Barrier::new(80));
    let provider = Http2Provider::start(move |request, respond| {
        let arrived = arrived.clone();
        async move {
            // Answers only when all eighty are there at the same time.
            arrived.wait().await;
            answer_ok(request, respond).await;
        }
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    let all = (0..80).map(|_| {
        let (upstreams, endpoint) = (upstreams.clone(), endpoint.clone());
        tokio::spawn(async move { exchange(&upstreams, &endpoint).await.unwrap() })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), b"ok");
    }
    let before = provider.seen();
    assert!(before < 80, "{before}");
}

#[tokio::test]
async fn a_large_body_and_a_large_answer_pass_the_windows() {
    let provider = Http2Provider::start(|request, mut respond| async move {
        let mut body = Bytes::from(body_of(request).await);
        let mut stream = respond.send_response(ok(), false).unwrap();
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            let part = body.split_to(room.unwrap().unwrap().min(body.len()));
            stream.send_data(part, body.is_empty()).unwrap();
        }
    })
    .await;
    let segments = vec![Bytes::from(vec![b'x'; 700_000]); 10];
    let mut answer = post_segments(&upstreams(), &provider.endpoint(), &segments).await.unwrap();
    assert_eq!(whole(&mut answer).await.unwrap().len(), 7_000_000);
}

#[tokio::test]
async fn an_early_refusal_of_a_long_upload_is_seen() {
    let provider = Http2Provider::start(|_request, mut respond| async move {
        let mut refusal = ok();
        *refusal.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        let mut stream = respond.send_response(refusal, false).unwrap();
        stream.send_data(Bytes::from_static(b"big"), true).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let segments = [Bytes::from(vec![b'x'; 5_000_000])];
    let mut answer = post_segments(&upstreams(), &provider.endpoint(), &segments).await.unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(whole(&mut answer).await.unwrap(), b"big");
}

#[tokio::test]
async fn dropping_half_an_answer_resets_its_stream_and_keeps_the_connection() {
    let (tell, mut told) = mpsc::channel(64);
    let provider = Http2Provider::start(move |_request, mut respond| {
        let tell = tell.clone();
        async move {
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data(Bytes::from_static(b"half"), false).unwrap();
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            tell.try_send(reset.unwrap()).unwrap();
        }
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    for _ in 0..3 {
        let mut answer = post(&upstreams, &endpoint, b"{}").await.unwrap();
        assert_eq!(read(&mut answer).await.unwrap().unwrap(), "half");
        drop(answer);
        assert_eq!(told.recv().await, Some(Reason::CANCEL));
    }
    assert_eq!(provider.seen(), 1);
}

#[tokio::test]
async fn dropping_the_request_resets_its_stream() {
    let (tell, mut told) = mpsc::channel(64);
    let provider = Http2Provider::start(move |_request, mut respond| {
        let tell = tell.clone();
        async move {
            tell.try_send(None).unwrap();
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            tell.try_send(Some(reset.unwrap())).unwrap();
        }
    })
    .await;
    let (upstreams, endpoint) = (upstreams(), provider.endpoint());
    let sending = tokio::spawn(async move { post(&upstreams, &endpoint, b"{}").await.is_ok() });
    assert_eq!(told.recv().await, Some(None));
    sending.abort();
    assert_eq!(told.recv().await, Some(Some(Reason::CANCEL)));
}

#[tokio::test]
async fn a_reset_in_the_body_is_truncated() {
    let provider = Http2Provider::start(|_request, mut respond| async move {
        let mut stream = respond.send_response(ok(), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        tokio::task::yield_now().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
    let fault: Fault = whole(&mut answer).await.unwrap_err();
    assert_eq!((fault.cause, fault.sent), (Cause::Truncated, true));
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_truncated() {
    let provider = Http2Provider::start(|_request, mut respond| async move {
        let answer = Response::builder().header("content-length", "10").body(());
        let mut stream = respond.send_response(answer.unwrap(), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), true).unwrap();
    })
    .await;
    let mut answer = post(&upstreams(), &provider.endpoint(), b"{}").await.unwrap();
    assert_eq!(whole(&mut answer).await.unwrap_err().cause, Cause::Truncated);
}

#[tokio::test]
async fn a_reset_before_the_answer_is_not_tried_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let provider = Http2Provider::start(move |_request, mut respond| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { respond.send_reset(Reason::INTERNAL_ERROR) }
    })
    .await;
    let fault = post(&upstreams(), &provider.endpoint(), b"{}").await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Reset, true));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_was_refused_unread_was_not_acted_on() {
    let provider = Http2Provider::start(|_request, mut respond| async move {
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let fault = post(&upstreams(), &provider.endpoint(), b"{}").await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Reset, false));
}

#[tokio::test]
async fn what_is_not_http2_is_a_fault() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\0\0\0garbage and more of it", b""] {
        let provider = Provider::start(move |mut stream, _| async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let mut spec = EndpointSpec::new(provider.url());
        spec.version = Version::Http2;
        let fault = post(&upstreams(), &endpoint(spec), b"{}").await;
        let cause = fault.err().unwrap().cause;
        assert!(matches!(cause, Cause::Closed | Cause::Malformed | Cause::Unreachable), "{cause:?}");
    }
}
