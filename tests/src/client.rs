//! A caller: one HTTP/1.1 connection a call, and answers read whole or event by event, each with its time of arrival.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::patience::within;

/// A call in the making.
#[derive(Clone, Debug)]
pub struct Call {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Call {
    /// A call with no headers and no body.
    #[must_use]
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        Self { address, method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }

    /// With a header, in the place of one of that name.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the header of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// With this body, byte for byte.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With this JSON for a body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sends it and waits for the answer's head.
    pub async fn send(self) -> Answer {
        self.begin().await.answer().await
    }

    /// Sends it.
    pub async fn begin(self) -> Pending {
        let stream = within("a connection", TcpStream::connect(self.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = within("a handshake", handshake).await.unwrap();
        // Its error is what the body's reader sees.
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
        let mut request = Request::builder().method(self.method.as_str()).uri(&self.path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = sender.send_request(request.body(Full::new(self.body)).unwrap());
        let response = Box::pin(async move {
            let response = response.await;
            drop(sender);
            response
        });
        Pending { response, connection, sent: Instant::now() }
    }
}

/// A connection; when this falls, it is closed at once, whatever is under way.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A call that was sent and not answered; when this falls, the caller has left.
pub struct Pending {
    response: Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>,
    connection: Connection,
    sent: Instant,
}

impl Pending {
    /// Waits for the answer's head.
    pub async fn answer(self) -> Answer {
        self.outcome().await.expect("an answer")
    }

    /// Waits for the answer's head, or for the connection's end.
    ///
    /// # Errors
    /// The connection ended without an answer.
    pub async fn outcome(self) -> hyper::Result<Answer> {
        let (head, body) = within("an answer's head", self.response).await?.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            sent: self.sent,
            head_at: Instant::now(),
            body,
            events: Splitter::default(),
            ended: None,
            connection: self.connection,
        })
    }

    /// The caller leaves.
    pub fn leave(self) {
        drop(self);
    }
}

/// An answer whose head has come; when this falls, the caller has left.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// When the call was sent.
    pub sent: Instant,
    /// When the head came.
    pub head_at: Instant,
    body: Incoming,
    events: Splitter,
    ended: Option<End>,
    #[expect(dead_code, reason = "it closes when this falls")]
    connection: Connection,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As HTTP says that it ends.
    Whole,
    /// The connection was closed before.
    Aborted,
}

/// One event of a stream, or a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its bytes, the empty line included.
    pub raw: String,
    /// Its data; none for a comment.
    pub data: Option<String>,
    /// When its last byte came.
    pub at: Instant,
}

impl Event {
    /// Its data as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().expect("an event with data");
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))
    }

    /// Whether it is the end of a whole stream.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.data.as_deref() == Some("[DONE]")
    }

    /// The text that its first choice adds to the answer.
    #[must_use]
    pub fn text(&self) -> String {
        if self.data.is_none() || self.is_done() {
            return String::new();
        }
        self.json()["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    }

    /// The error that it tells of.
    #[must_use]
    pub fn error(&self) -> Option<Value> {
        if self.data.is_none() || self.is_done() {
            return None;
        }
        self.json().get("error").cloned()
    }
}

impl Answer {
    /// A header, where it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> String {
        self.header("x-request-id").expect("every answer has an id").to_owned()
    }

    /// The whole body; panics when it breaks off.
    pub async fn text(mut self) -> String {
        let (text, end) = self.rest().await;
        assert_eq!(end, End::Whole, "{text}");
        text
    }

    /// The whole body as JSON.
    pub async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The rest of the body and how it ended.
    pub async fn rest(&mut self) -> (String, End) {
        let mut text = std::mem::take(&mut self.events.rest);
        while let Some(piece) = self.piece().await {
            text.extend_from_slice(&piece);
        }
        (String::from_utf8(text).unwrap(), self.ended.unwrap_or(End::Whole))
    }

    /// The next piece of the body as it comes.
    pub async fn piece(&mut self) -> Option<Bytes> {
        loop {
            match within("a piece of the body", self.body.frame()).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Some(data),
                    Err(_) => continue,
                },
                Some(Err(_)) => self.ended = Some(End::Aborted),
                None => self.ended = self.ended.or(Some(End::Whole)),
            }
            return None;
        }
    }

    /// The next event or comment; none when the stream has ended.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.ready.pop_front() {
                return Some(event);
            }
            let piece = self.piece().await?;
            self.events.feed(&piece);
        }
    }

    /// All events and comments that are left, and how the body ended.
    pub async fn events(&mut self) -> (Vec<Event>, End) {
        let mut events = Vec::new();
        while let Some(event) = self.event().await {
            events.push(event);
        }
        assert_eq!(self.events.rest, b"", "an event without its end");
        (events, self.ended.unwrap_or(End::Whole))
    }

    /// The caller leaves.
    pub fn leave(self) {
        drop(self);
    }
}

/// Bytes cut into events.
#[derive(Debug, Default)]
struct Splitter {
    rest: Vec<u8>,
    ready: VecDeque<Event>,
}

impl Splitter {
    fn feed(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
        let at = Instant::now();
        while let Some(end) = end_of_event(&self.rest) {
            let raw = String::from_utf8(self.rest.drain(..end).collect()).unwrap();
            let data: Vec<_> = raw
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(|data| data.strip_prefix(' ').unwrap_or(data))
                .collect();
            let data = (!data.is_empty()).then(|| data.join("\n"));
            self.ready.push_back(Event { raw, data, at });
        }
    }
}

fn end_of_event(bytes: &[u8]) -> Option<usize> {
    let of = |end: &[u8]| bytes.windows(end.len()).position(|window| window == end).map(|place| place + end.len());
    [of(b"\n\n"), of(b"\r\n\r\n")].into_iter().flatten().min()
}
