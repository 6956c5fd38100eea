//! A provider that answers byte for byte what a test says, over a raw socket.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

/// A port at which nobody listens, and what keeps it from others meanwhile: bound, but never listening.
#[must_use]
pub fn port_that_nobody_listens_at() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// The head of a stream whose end is the connection's.
pub const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// A listening provider.
#[derive(Clone, Debug)]
pub struct Provider {
    address: SocketAddr,
    books: Arc<Books>,
}

#[derive(Debug, Default)]
struct Books {
    requests: Mutex<Vec<Seen>>,
    left: Mutex<usize>,
    taken: AtomicUsize,
    changed: Notify,
}

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The request line and the headers.
    pub head: String,
    /// The body, by its content-length.
    pub body: String,
}

impl Seen {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One request to answer, and the connection that it came on.
#[derive(Debug)]
pub struct Played {
    /// The request.
    pub request: Seen,
    /// The request's number, from 0.
    pub number: usize,
    stream: TcpStream,
    books: Arc<Books>,
}

impl Provider {
    /// Plays `script` for the first request of each connection.
    pub async fn start<S, F>(script: S) -> Self
    where
        S: Fn(Played) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self { address: listener.local_addr().unwrap(), books: Arc::default() };
        let books = Arc::clone(&provider.books);
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (books, script) = (Arc::clone(&books), Arc::clone(&script));
                tokio::spawn(async move {
                    let Some(request) = read_request(&mut stream).await else {
                        return;
                    };
                    let number = books.note(&request);
                    script(Played { request, number, stream, books }).await;
                });
            }
        });
        provider
    }

    /// Answers each request with these bytes and closes.
    pub async fn answering(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |mut played| {
            let answer = answer.clone();
            async move {
                played.write(&answer).await;
                played.close().await;
            }
        })
        .await
    }

    /// Answers each request with this status and body.
    pub async fn refusing(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::answering(format!(
            "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ))
        .await
    }

    /// Answers each request with this JSON.
    pub async fn json(body: &str) -> Self {
        Self::refusing(200, "content-type: application/json\r\n", body).await
    }

    /// Its address as a base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Its address as a base URL without a path.
    #[must_use]
    pub fn root(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.books.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bytes that its peers have taken of its floods.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.books.taken.load(Ordering::Relaxed)
    }

    /// Waits until `count` requests have come.
    pub async fn asked(&self, count: usize) {
        self.books.until(|books| books.requests.lock().unwrap_or_else(PoisonError::into_inner).len() >= count).await;
    }

    /// Waits until `count` peers have left a connection that was [held](Played::hold).
    pub async fn left(&self, count: usize) {
        self.books.until(|books| *books.left.lock().unwrap_or_else(PoisonError::into_inner) >= count).await;
    }
}

impl Books {
    fn note(&self, request: &Seen) -> usize {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(request.clone());
        self.changed.notify_waiters();
        requests.len() - 1
    }

    async fn until(&self, wanted: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if wanted(self) {
                return;
            }
            changed.await;
        }
    }
}

impl Played {
    /// Sends bytes at once. A peer that has gone is not an error.
    pub async fn write(&mut self, text: &str) {
        self.write_bytes(text.as_bytes()).await;
    }

    /// The same of any bytes.
    pub async fn write_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Sends bytes; false when the peer has gone.
    pub async fn try_write(&mut self, bytes: &str) -> bool {
        self.stream.write_all(bytes.as_bytes()).await.is_ok()
    }

    /// Sends one event with this data.
    pub async fn event(&mut self, data: &str) {
        self.write(&format!("data: {data}\n\n")).await;
    }

    /// The next request on the same connection; none when the peer has gone.
    pub async fn next(&mut self) -> Option<Seen> {
        let request = read_request(&mut self.stream).await?;
        self.books.note(&request);
        Some(request)
    }

    /// Ends the connection in order.
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
        // Reads on, so that unread bytes do not turn the close into a reset.
        let _ = self.stream.read_to_end(&mut Vec::new()).await;
    }

    /// Sends the same event again and again, as long as the peer takes it; what it took is [counted](Provider::taken).
    pub async fn flood(mut self, data: &str) {
        let event = format!("data: {data}\n\n");
        while self.stream.write_all(event.as_bytes()).await.is_ok() {
            self.books.taken.fetch_add(event.len(), Ordering::Relaxed);
        }
        self.left();
    }

    /// Says nothing more until the peer leaves.
    pub async fn hold(mut self) {
        let _ = self.stream.read_to_end(&mut Vec::new()).await;
        self.left();
    }

    fn left(&self) {
        *self.books.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.books.changed.notify_waiters();
    }
}

/// Reads one request; none when the peer has gone.
async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let mut seen = Seen { head: String::from_utf8(head).unwrap(), body: String::new() };
    let length = seen.header("content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}
