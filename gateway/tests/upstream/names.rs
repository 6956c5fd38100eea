//! Names, several addresses, and connecting within a limit.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::net::upstream::{Cause, Endpoint, EndpointSpec, Outgoing, Reach, Upstreams};
use http::{HeaderMap, Method};
use tokio::net::TcpSocket;

use crate::provider::{NameServer, OK, PATIENCE, Provider, endpoint, exchange, post, upstreams};

fn named(provider: &Provider) -> Arc<Endpoint> {
    let url = format!("http://provider.test:{}", provider.address.port());
    endpoint(EndpointSpec::new(url))
}

/// Two providers on one port of two addresses.
async fn twins() -> (Provider, Provider) {
    let one = Provider::answering(OK).await;
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let two = Provider::at(other, one.address.port(), |mut stream, _| async move {
        use tokio::io::AsyncWriteExt;
        while crate::provider::read_request(&mut stream).await.is_some() {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    (one, two)
}

#[tokio::test]
async fn a_name_is_asked_for_once_and_its_answer_kept() {
    let names = NameServer::start(60, &[[127, 0, 0, 1]]).await;
    let provider = Provider::answering(OK).await;
    let upstreams = Upstreams::new(names.resolver());
    for _ in 0..5 {
        exchange(&upstreams, &named(&provider)).await.unwrap();
    }
    assert_eq!(names.asked(), 1);
    assert_eq!(provider.seen(), 1, "endpoints of two snapshots share connections");
}

#[tokio::test]
async fn many_first_requests_ask_for_a_name_once() {
    let names = NameServer::start(60, &[[127, 0, 0, 1]]).await;
    let provider = Provider::answering(OK).await;
    let upstreams = Upstreams::new(names.resolver());
    let endpoint = named(&provider);
    let all = (0..50).map(|_| {
        let (upstreams, endpoint) = (upstreams.clone(), endpoint.clone());
        tokio::spawn(async move { exchange(&upstreams, &endpoint).await.unwrap() })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert_eq!(names.asked(), 1);
}

#[tokio::test]
async fn an_unknown_name_is_a_resolve_fault_and_nothing_was_sent() {
    let names = NameServer::start(60, &[]).await;
    let provider = Provider::answering(OK).await;
    let fault = post(&Upstreams::new(names.resolver()), &named(&provider), b"{}").await;
    let fault = fault.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Resolve, false));
    assert!(fault.detail.contains("does not exist"), "{}", fault.detail);
}

#[tokio::test]
async fn a_stale_answer_serves_at_once_while_the_name_server_is_silent() {
    let names = NameServer::start(0, &[[127, 0, 0, 1]]).await;
    let provider = Provider::answering(OK).await;
    let upstreams = Upstreams::new(names.resolver());
    exchange(&upstreams, &named(&provider)).await.unwrap();
    assert_eq!(names.asked(), 1);
    names.set(None);
    // A life of 0 s is stretched to the shortest, 5 s; only after that the answer is stale.
    tokio::time::sleep(Duration::from_millis(5100)).await;
    let started = Instant::now();
    exchange(&upstreams, &named(&provider)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1));
    let refreshed = async {
        while names.asked() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refreshed).await.unwrap();
}

#[tokio::test]
async fn an_address_in_the_url_needs_no_name_server() {
    let names = NameServer::start(60, &[[127, 0, 0, 1]]).await;
    let provider = Provider::answering(OK).await;
    let upstreams = Upstreams::new(names.resolver());
    exchange(&upstreams, &provider.endpoint()).await.unwrap();
    assert_eq!(names.asked(), 0);
}

#[tokio::test]
async fn several_addresses_are_used_in_turn() {
    let names = NameServer::start(60, &[[127, 0, 0, 1], [127, 0, 0, 2]]).await;
    let (one, two) = twins().await;
    let (upstreams, endpoint) = (Upstreams::new(names.resolver()), named(&one));
    for _ in 0..6 {
        exchange(&upstreams, &endpoint).await.unwrap();
    }
    assert_eq!((one.seen(), two.seen()), (1, 1));
}

#[tokio::test]
async fn an_address_that_refuses_is_left_for_the_next() {
    let names = NameServer::start(60, &[[127, 0, 0, 2], [127, 0, 0, 1], [127, 0, 0, 3]]).await;
    let provider = Provider::answering(OK).await;
    let (upstreams, endpoint) = (Upstreams::new(names.resolver()), named(&provider));
    for _ in 0..6 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
    }
    assert_eq!(provider.seen(), 1);
}

/// An address whose connections are neither accepted nor refused.
async fn silent_address(port: u16) -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, 2), port).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let one = || tokio::net::TcpStream::connect(address);
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), one()).await {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}

#[tokio::test]
async fn an_address_that_is_silent_is_left_for_the_next_within_the_limit() {
    let names = NameServer::start(60, &[[127, 0, 0, 2], [127, 0, 0, 1]]).await;
    let provider = Provider::answering(OK).await;
    let _silent = silent_address(provider.address.port()).await;
    let (upstreams, endpoint) = (Upstreams::new(names.resolver()), named(&provider));
    let limit = Duration::from_millis(1000);
    for _ in 0..4 {
        let started = Instant::now();
        let request = Outgoing { method: Method::GET, path: "/", headers: &HeaderMap::new(), more: &[], body: &[] };
        upstreams.send(&endpoint, request, limit).await.unwrap();
        assert!(started.elapsed() < limit);
    }
}

#[tokio::test]
async fn a_silent_provider_is_a_connect_timeout_on_time() {
    let (silent, _waiting) = silent_address(0).await;
    let endpoint = endpoint(EndpointSpec::new(format!("http://{}", silent.local_addr().unwrap())));
    let (started, limit) = (Instant::now(), Duration::from_millis(300));
    let request = Outgoing { method: Method::GET, path: "/", headers: &HeaderMap::new(), more: &[], body: &[] };
    let fault = upstreams().send(&endpoint, request, limit).await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::ConnectTimeout, false));
    assert!(started.elapsed() >= limit && started.elapsed() < limit * 4);
}

#[tokio::test]
async fn a_silent_name_server_is_a_connect_timeout_on_time() {
    let names = NameServer::start(60, &[]).await;
    names.set(None);
    let provider = Provider::answering(OK).await;
    let limit = Duration::from_millis(300);
    let request = Outgoing { method: Method::GET, path: "/", headers: &HeaderMap::new(), more: &[], body: &[] };
    let upstreams = Upstreams::new(names.resolver());
    let fault = upstreams.send(&named(&provider), request, limit).await;
    assert_eq!(fault.err().unwrap().cause, Cause::ConnectTimeout);
}

#[tokio::test]
async fn a_provider_that_does_not_listen_refuses() {
    let provider = Provider::answering(OK).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let endpoint = endpoint(EndpointSpec::new(format!("http://{address}")));
    let fault = post(&upstreams(), &endpoint, b"{}").await.err().unwrap();
    assert_eq!((fault.cause, fault.sent), (Cause::Refused, false));
    assert_eq!(fault.address, Some(address));
    assert!(!fault.detail.contains("127.0.0.1"), "{}", fault.detail);
    assert_eq!(provider.seen(), 0);
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_to_an_endpoint_for_public_addresses() {
    let provider = Provider::answering(OK).await;
    for inside in [[127, 0, 0, 1], [10, 0, 0, 1], [169, 254, 169, 254], [100, 64, 0, 1]] {
        let names = NameServer::start(60, &[inside]).await;
        let url = format!("http://provider.test:{}", provider.address.port());
        let mut spec = EndpointSpec::new(url);
        spec.reach = Reach::Public;
        let fault = post(&Upstreams::new(names.resolver()), &endpoint(spec), b"{}").await;
        assert_eq!(fault.err().unwrap().cause, Cause::Forbidden, "{inside:?}");
    }
    assert_eq!(provider.seen(), 0);
}

#[test]
fn an_address_inside_is_refused_in_every_spelling_when_the_endpoint_is_built() {
    for host in [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fd00::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ] {
        let mut spec = EndpointSpec::new(format!("http://{host}/v1"));
        spec.reach = Reach::Public;
        assert!(Endpoint::new(spec).is_err(), "{host}");
    }
    let mut spec = EndpointSpec::new("http://8.8.8.8/v1");
    spec.reach = Reach::Public;
    assert!(Endpoint::new(spec).is_ok());
}

#[test]
fn what_is_not_a_base_url_is_refused_without_showing_a_password() {
    for url in [
        "",
        "api.test/v1",
        "ftp://api.test",
        "http://",
        "http://a b/",
        "https://api.test/v1?key=x",
        "https://api.test/v1#x",
        "http://api.test:0/",
        "http://api.test:99999/",
        "http://user:secret@api.test/",
    ] {
        let fault = Endpoint::new(EndpointSpec::new(url)).unwrap_err();
        assert!(!fault.to_string().contains("secret"), "{fault}");
    }
}

#[test]
fn the_host_header_leaves_out_the_usual_port() {
    for (url, host, path) in [
        ("https://API.test", "api.test", ""),
        ("https://api.test:443/v1/", "api.test", "/v1"),
        ("https://api.test:80/v1", "api.test:80", "/v1"),
        ("http://api.test:80", "api.test", ""),
        ("http://[::1]:8000/v1", "[::1]:8000", "/v1"),
    ] {
        let endpoint = Endpoint::new(EndpointSpec::new(url)).unwrap();
        assert_eq!(endpoint.host_header(), host);
        assert_eq!(endpoint.base_path(), path);
    }
}
