//! A connection over which a test writes bytes that no client library would send, and reads what comes back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::patience::within;
use crate::weir::KEY;

/// A connection.
#[derive(Debug)]
pub struct Raw<S = TcpStream> {
    stream: S,
    read: Vec<u8>,
}

/// An answer over HTTP/1.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// Its status.
    pub status: u16,
    /// The status line and the headers, in lower case.
    pub head: String,
    /// The body, out of its chunks.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Over a stream that is open.
    pub fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Sends bytes. A peer that has gone is not an error.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _gone = within("bytes to be taken", self.stream.write_all(bytes.as_ref())).await;
        let _gone = within("bytes to be taken", self.stream.flush()).await;
    }

    /// Sends a request with a body.
    pub async fn post(&mut self, path: &str, headers: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        self.send(format!("POST {path} HTTP/1.1\r\nhost: weir\r\n{headers}content-length: {}\r\n\r\n", body.len()))
            .await;
        self.send(body).await;
    }

    /// Says that nothing more will be sent.
    pub async fn half_close(&mut self) {
        let _gone = self.stream.shutdown().await;
    }

    /// Waits for an answer; panics when the connection ends before.
    pub async fn answer(&mut self) -> RawAnswer {
        self.outcome().await.unwrap()
    }

    /// Waits for an answer; none when the connection ends before.
    pub async fn outcome(&mut self) -> Option<RawAnswer> {
        within("an answer", async {
            let end = self.until(b"\r\n\r\n").await?;
            let head = String::from_utf8(self.read.drain(..end).collect()).unwrap().to_ascii_lowercase();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let mut answer = RawAnswer { status, head, body: Vec::new() };
            if status == 100 {
                return Some(answer);
            }
            answer.body = if let Some(length) = answer.header("content-length") {
                self.exactly(length.parse().unwrap()).await?
            } else if answer.header("transfer-encoding").is_some() {
                self.chunks().await?
            } else {
                self.rest().await
            };
            Some(answer)
        })
        .await
    }

    /// Waits for an answer's head, in lower case; none when the connection ends before.
    pub async fn head(&mut self) -> Option<String> {
        let end = within("an answer's head", self.until(b"\r\n\r\n")).await?;
        Some(String::from_utf8(self.read.drain(..end).collect()).unwrap().to_ascii_lowercase())
    }

    /// Reads an answer with a length no faster than `piece` bytes a `pause`; none when the connection ends before.
    pub async fn answer_slowly(&mut self, piece: usize, pause: Duration) -> Option<RawAnswer> {
        let head = self.head().await?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = RawAnswer { status, head, body: Vec::new() };
        let mut left: usize = answer.header("content-length").unwrap().parse().unwrap();
        while left > 0 {
            tokio::time::sleep(pause).await;
            let part = within("a part of the body", self.exactly(piece.min(left))).await?;
            left -= part.len();
            answer.body.extend_from_slice(&part);
        }
        Some(answer)
    }

    /// Waits until the peer closes or resets the connection; gives what it sent before.
    pub async fn rest(&mut self) -> Vec<u8> {
        within("the connection's end", async { while self.more().await {} }).await;
        std::mem::take(&mut self.read)
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = self.until(b"\r\n").await?;
            let line = String::from_utf8(self.read.drain(..end).collect()).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = self.exactly(length + 2).await?;
            if length == 0 {
                return Some(body);
            }
            chunk.truncate(length);
            body.append(&mut chunk);
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.read.drain(..length).collect())
    }

    async fn until(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            if let Some(place) = self.read.windows(mark.len()).position(|window| window == mark) {
                return Some(place + mark.len());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.read).await, Ok(1..))
    }
}

/// How long `GET path` takes on a connection of its own; blocks, so that a thread of its own can measure what others
/// do.
#[must_use]
pub fn probe(address: SocketAddr, path: &str) -> Duration {
    let began = Instant::now();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    began.elapsed()
}

/// Probes every few milliseconds, from a thread of its own, until told to stop.
#[derive(Debug)]
pub struct Probing {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probing {
    /// Begins.
    #[must_use]
    pub fn begin(address: SocketAddr, path: &'static str) -> Self {
        let over = Arc::<AtomicBool>::default();
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !told.load(Ordering::Acquire) {
                times.push(probe(address, path));
                std::thread::sleep(Duration::from_millis(5));
            }
            times.sort();
            times
        });
        Self { over, thread }
    }

    /// Ends; gives how long each probe took, the fastest first.
    #[must_use]
    pub fn end(self) -> Vec<Duration> {
        self.over.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}
