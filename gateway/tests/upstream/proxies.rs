//! HTTP proxies on the way.

use gateway::net::proxy::{Proxies, Proxy};
use gateway::net::upstream::{Cause, EndpointSpec, Version};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::provider::{OK, Provider, endpoint, exchange, header, post, read_head, read_request, upstreams};
use crate::tls::{Authority, TlsProvider};

/// A proxy that opens tunnels to whatever it is asked for, at `port` of this machine.
async fn tunneller(port: u16, tell: mpsc::Sender<String>) -> Provider {
    Provider::start(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap();
            tell.try_send(head).unwrap();
            let mut target = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let answer = b"HTTP/1.1 200 Connection established\r\nx-proxy: 1\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut target).await;
        }
    })
    .await
}

fn through(url: &str, proxy: &Provider) -> EndpointSpec {
    let proxy = format!("http://us%20er:pass@{}", proxy.address);
    EndpointSpec { proxies: Proxies::only(Proxy::parse(&proxy).unwrap()), ..EndpointSpec::new(url) }
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_that_is_reused_and_checks_the_provider() {
    let authority = Authority::new();
    let provider = TlsProvider::start(&authority, &["provider.test"]).await;
    let (tell, mut told) = mpsc::channel(64);
    let proxy = tunneller(provider.address.port(), tell).await;
    // No name server knows this name: only the proxy may have to resolve it.
    let mut spec = through("https://provider.test:8443", &proxy);
    spec.ca_file = Some(authority.file());
    let (upstreams, endpoint) = (upstreams(), endpoint(spec));
    for _ in 0..3 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
    }
    let head = told.recv().await.unwrap();
    assert!(head.starts_with("CONNECT provider.test:8443 HTTP/1.1\r\n"));
    assert_eq!(header(&head, "host"), Some("provider.test:8443"));
    assert_eq!(header(&head, "proxy-authorization"), Some("Basic dXMgZXI6cGFzcw=="));
    assert_eq!(proxy.seen(), 1);
}

#[tokio::test]
async fn two_providers_behind_one_proxy_never_share_a_tunnel() {
    let (one, two) = (Provider::answering(OK).await, Provider::answering(OK).await);
    let (tell, mut told) = mpsc::channel(64);
    let proxy = tunneller(one.address.port(), tell).await;
    let upstreams = upstreams();
    for name in ["http://one.test:1", "http://one.test:2"] {
        let mut spec = through(name, &proxy);
        spec.version = Version::Http2;
        // The providers speak no HTTP/2; that a tunnel was asked for is all that counts.
        let _ = post(&upstreams, &endpoint(spec), b"{}").await;
        let wanted = format!("CONNECT {} ", &name[7..]);
        assert!(told.recv().await.unwrap().starts_with(&wanted));
    }
    assert_eq!(two.seen(), 0);
}

#[tokio::test]
async fn a_proxy_that_refuses_the_tunnel_is_a_proxy_fault() {
    for (answer, word) in [
        (&b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"[..], "407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502"),
        (b"SOCKS?\r\n\r\n", "not HTTP"),
        (b"", "no answer"),
    ] {
        let proxy = Provider::closing_after(answer).await;
        let spec = through("https://provider.test", &proxy);
        let fault = post(&upstreams(), &endpoint(spec), b"{}").await.err().unwrap();
        assert_eq!((fault.cause, fault.sent), (Cause::Proxy, false));
        assert!(fault.detail.contains(word), "{}", fault.detail);
        assert!(!fault.detail.contains("pass"));
    }
}

#[tokio::test]
async fn plain_requests_go_to_the_proxy_in_absolute_form() {
    let (tell, mut told) = mpsc::channel(64);
    let proxy = Provider::start(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            while let Some(seen) = read_request(&mut stream).await {
                tell.try_send(seen.head).unwrap();
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let endpoint = endpoint(through("http://provider.test:8000/base", &proxy));
    let upstreams = upstreams();
    for _ in 0..2 {
        assert_eq!(exchange(&upstreams, &endpoint).await.unwrap(), b"ok");
        let head = told.recv().await.unwrap();
        let line = "POST http://provider.test:8000/v1/chat/completions HTTP/1.1\r\n";
        assert!(head.starts_with(line), "{head}");
        assert_eq!(header(&head, "host"), Some("provider.test:8000"));
        assert_eq!(header(&head, "proxy-authorization"), Some("Basic dXMgZXI6cGFzcw=="));
    }
    assert_eq!(proxy.seen(), 1);
}

#[tokio::test]
async fn a_spared_host_is_reached_without_the_proxy() {
    let (provider, proxy) = (Provider::answering(OK).await, Provider::answering(OK).await);
    let value = proxy.url();
    let proxies = Proxies::from_variables(|name| (name == "ALL_PROXY").then(|| value.clone()));
    let spec = EndpointSpec { proxies: proxies.unwrap(), ..EndpointSpec::new(provider.url()) };
    exchange(&upstreams(), &endpoint(spec)).await.unwrap();
    assert_eq!((provider.seen(), proxy.seen()), (1, 0));
}
