//! Providers played over raw sockets, each by a script of a few lines, and a name server.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gateway::net::dns::Resolver;
use gateway::net::upstream::{Answer, Endpoint, EndpointSpec, Fault, Outgoing, Upstreams};
use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Long enough for a busy machine, short enough for a hang to be told from slowness.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A listening provider; counts its connections.
pub struct Provider {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

/// A request as it came over the wire.
#[derive(Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Provider {
    /// Runs `script` for each connection, with the connection's number from 0.
    pub async fn start<S, F>(script: S) -> Provider
    where
        S: Fn(TcpStream, usize) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Provider::at(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, script).await
    }

    pub async fn at<S, F>(ip: IpAddr, port: u16, script: S) -> Provider
    where
        S: Fn(TcpStream, usize) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(script(stream, count.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Provider { address, connections }
    }

    /// Answers every request on every connection with these bytes.
    pub async fn answering(answer: impl Into<Bytes>) -> Provider {
        let answer = answer.into();
        Provider::start(move |mut stream, _| {
            let answer = answer.clone();
            async move {
                while read_request(&mut stream).await.is_some() {
                    stream.write_all(&answer).await.unwrap();
                }
            }
        })
        .await
    }

    /// Answers the first request with these bytes and closes the connection.
    pub async fn closing_after(answer: impl Into<Bytes>) -> Provider {
        let answer = answer.into();
        Provider::start(move |mut stream, _| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                // Reads on, so that unread bytes do not turn the close into a reset.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await
    }

    /// Answers the head of a request, reads no body, and closes gracefully.
    pub async fn closing_after_head(answer: &'static [u8]) -> Provider {
        Provider::start(move |mut stream, _| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn endpoint(&self) -> Arc<Endpoint> {
        endpoint(EndpointSpec::new(self.url()))
    }

    pub fn seen(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads one request with its content-length; `None` when the client has gone.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let head = read_head(stream).await?;
    let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { head, body })
}

/// Reads one head, byte by byte so that nothing of the body is taken.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

pub fn upstreams() -> Upstreams {
    Upstreams::new(Resolver::system())
}

pub fn endpoint(spec: EndpointSpec) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(spec).unwrap())
}

/// Posts `body` in one segment.
pub async fn post(upstreams: &Upstreams, endpoint: &Arc<Endpoint>, body: &'static [u8]) -> Result<Answer, Fault> {
    post_segments(upstreams, endpoint, &[Bytes::from_static(body)]).await
}

pub async fn post_segments(upstreams: &Upstreams, endpoint: &Arc<Endpoint>, body: &[Bytes]) -> Result<Answer, Fault> {
    let request =
        Outgoing { method: Method::POST, path: "/v1/chat/completions", headers: &HeaderMap::new(), more: &[], body };
    let sent = upstreams.send(endpoint, request, Duration::from_secs(5));
    tokio::time::timeout(PATIENCE, sent).await.expect("no hang")
}

/// Reads the body to its end.
pub async fn whole(answer: &mut Answer) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(piece) = read(answer).await? {
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

pub async fn read(answer: &mut Answer) -> Result<Option<Bytes>, Fault> {
    let read = tokio::time::timeout(PATIENCE, answer.read());
    read.await.expect("no hang")
}

/// Posts, reads the body and releases: what a contented exchange does.
pub async fn exchange(upstreams: &Upstreams, endpoint: &Arc<Endpoint>) -> Result<Vec<u8>, Fault> {
    let mut answer = post(upstreams, endpoint, b"{}").await?;
    let body = whole(&mut answer).await?;
    answer.release().await;
    Ok(body)
}

/// A name server for A records: every name has `addresses`; none means that it stays silent.
pub struct NameServer {
    pub address: SocketAddr,
    pub queries: Arc<AtomicUsize>,
    addresses: Arc<Mutex<Option<Vec<Ipv4Addr>>>>,
}

impl NameServer {
    pub async fn start(ttl: u32, addresses: &[[u8; 4]]) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server =
            NameServer { address: socket.local_addr().unwrap(), queries: Arc::default(), addresses: Arc::default() };
        server.set(Some(addresses));
        let (queries, addresses) = (server.queries.clone(), server.addresses.clone());
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                queries.fetch_add(1, Ordering::SeqCst);
                let known = addresses.lock().unwrap().clone();
                if let Some(known) = known {
                    let answer = dns_answer(&packet[..length], ttl, &known);
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        server
    }

    pub fn set(&self, addresses: Option<&[[u8; 4]]>) {
        let known = addresses.map(|all| all.iter().map(|ip| Ipv4Addr::from(*ip)).collect());
        *self.addresses.lock().unwrap() = known;
    }

    pub fn resolver(&self) -> Resolver {
        Resolver::with_server(self.address).unwrap()
    }

    pub fn asked(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

/// RFC 1035 by hand: the header, the question again, and one A record for each address.
fn dns_answer(query: &[u8], ttl: u32, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[12..name_end + 4];
    let is_a = question[question.len() - 4..][..2] == [0, 1];
    let answers = if is_a { addresses } else { &[] };
    let code = if addresses.is_empty() { 3 } else { 0 };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0]);
    answer.extend(question);
    for address in answers {
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    answer
}
