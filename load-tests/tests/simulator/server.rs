//! The server itself: accounts, HTTP/2, TLS, runtimes and the end.

use std::sync::Arc;

use crate::support::{anthropic, ask, chat, message, openai, send, start, streamed};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use simulator::{Config, Tls};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

#[tokio::test]
async fn the_account_counts_by_dialect_model_and_credential() {
    let simulator = start();
    ask(&simulator, openai(&chat("gpt-5.5"))).await;
    ask(&simulator, openai(&streamed(chat("gpt-5.5")))).await;
    ask(&simulator, anthropic(&message("claude-sonnet-4-6"))).await;
    ask(&simulator, openai(&chat("gpt-5.5~status=500"))).await;
    let account = simulator.until(|account| account.in_flight == 0).await;
    assert_eq!((account.requests, account.refused, account.connections), (4, 1, 4));
    assert_eq!((account.input_tokens, account.output_tokens), (9, 15));
    let row = account.rows.iter().find(|row| row.model == "gpt-5.5").unwrap();
    assert_eq!((row.dialect.as_str(), row.credential.as_str()), ("openai", "sk-test"));
    assert_eq!((row.requests, row.input_tokens, row.output_tokens), (2, 6, 10));
    let over_http: simulator::Account =
        serde_json::from_value(control(&simulator, Method::GET, "account").await).unwrap();
    assert_eq!(over_http.rows, account.rows);
}

#[tokio::test]
async fn requests_are_kept_as_they_came_and_forgotten_when_told() {
    let simulator = start();
    let body = chat("gpt-5.5").to_string() + "   ";
    let mut request = openai(&Value::Null);
    *request.body_mut() = Full::from(body.clone());
    request.headers_mut().insert("x-own", "kept".parse().unwrap());
    ask(&simulator, request).await;
    let requests = simulator.requests();
    assert_eq!((requests[0].method(), requests[0].path()), ("POST", "/v1/chat/completions"));
    assert_eq!((requests[0].body.as_ref(), requests[0].header("x-own")), (body.as_bytes(), Some("kept")));
    let listed = control(&simulator, Method::GET, "requests").await;
    assert_eq!((&listed[0]["body"], &listed[0]["headers"]["x-own"]), (&body.into(), &"kept".into()));
    control(&simulator, Method::DELETE, "requests").await;
    control(&simulator, Method::DELETE, "account").await;
    assert!(simulator.requests().is_empty());
    assert_eq!(simulator.account().requests, 0);
}

#[tokio::test]
async fn the_last_256_requests_are_kept_and_64_kib_of_each() {
    let simulator = start();
    let stream = TcpStream::connect(simulator.addr()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for index in 0..260 {
        let response = sender.send_request(openai(&chat(&format!("m{index}")))).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let requests = simulator.requests();
    assert_eq!((requests.len(), requests[0].json()["model"].as_str()), (256, Some("m4")));
    let mut body = chat("m");
    body["messages"][0]["content"] = "x".repeat(300_000).into();
    ask(&simulator, openai(&body)).await;
    let last = simulator.requests().pop().unwrap();
    assert_eq!((last.body.len(), last.body_bytes > 300_000), (65_536, true));
}

#[tokio::test]
async fn many_requests_share_one_http_2_connection() {
    let simulator = start();
    let stream = TcpStream::connect(simulator.addr()).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    for model in ["gpt-5.5", "gpt-5.5~events=3~gap=1ms", "gpt-5.5~cut=1"] {
        let response = sender.send_request(openai(&streamed(chat(model)))).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(response.into_body().collect().await.is_err(), model.contains("cut"));
    }
    assert_eq!(simulator.account().connections, 1);
}

#[tokio::test]
async fn tls_speaks_what_alpn_agrees_on() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = Tls { certificate: made.cert.pem().into(), key: made.signing_key.serialize_pem().into() };
    let simulator = simulator::start(Config { tls: Some(tls), ..Config::default() }).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    for protocol in ["h2", "http/1.1"] {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        let stream = TcpStream::connect(simulator.addr()).await.unwrap();
        let stream =
            TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let io = TokioIo::new(stream);
        let status = if protocol == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(openai(&chat("m"))).await.unwrap().status()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(openai(&chat("m"))).await.unwrap().status()
        };
        assert_eq!(status, 200, "{protocol}");
    }
}

#[test]
fn it_starts_and_stops_without_a_runtime() {
    let simulator = start();
    let address = simulator.addr();
    simulator.stop();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let simulator = start();
    let second = simulator::start(Config { listen: simulator.addr(), ..Config::default() });
    assert!(second.is_err());
    let tls = Tls { certificate: b"no".to_vec(), key: b"no".to_vec() };
    assert!(simulator::start(Config { tls: Some(tls), ..Config::default() }).is_err());
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_is_counted() {
    let simulator = start();
    let leaving = tokio::spawn(send(simulator.addr(), openai(&chat("m~delay=60s"))));
    simulator.until(|account| account.in_flight == 1 && account.requests == 1).await;
    leaving.abort();
    let account = simulator.until(|account| account.in_flight == 0).await;
    assert_eq!((account.aborted_requests, account.aborted_streams), (1, 0));
    simulator.until(|account| account.open_connections == 0).await;
}

async fn control(simulator: &simulator::Simulator, method: Method, what: &str) -> Value {
    let request = Request::builder().method(method).uri(format!("/_sim/{what}")).header("host", "sim");
    ask(simulator, request.body(Full::default()).unwrap()).await.json()
}
