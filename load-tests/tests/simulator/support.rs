//! What the simulator's tests share: a client over real sockets that tells how an answer ended.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use simulator::{Config, Simulator};
use tokio::net::TcpStream;

/// How an answer's body ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Clean,
    Broken,
}

/// An answer, with the time at which each piece of its body came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
    pub(crate) head_after: Duration,
    pub(crate) pieces: Vec<(Duration, Bytes)>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The events' data, as JSON; `[DONE]` is a string.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.text().lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| Value::from(data))).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn start() -> Simulator {
    simulator::start(Config::default()).unwrap()
}

pub(crate) fn openai(body: &Value) -> Request<Full<Bytes>> {
    post("/v1/chat/completions", body)
}

/// A chat request of one message.
pub(crate) fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "one two three"}]})
}

pub(crate) fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

pub(crate) fn post(path: &str, body: &Value) -> Request<Full<Bytes>> {
    let builder = Request::post(path).header("host", "sim").header("authorization", "Bearer sk-test");
    builder.header("content-type", "application/json").body(Full::from(body.to_string())).unwrap()
}

pub(crate) fn anthropic(body: &Value) -> Request<Full<Bytes>> {
    let builder = Request::post("/v1/messages").header("host", "sim").header("x-api-key", "sk-ant");
    let builder = builder.header("anthropic-version", "2026-10-21").header("content-type", "application/json");
    builder.body(Full::from(body.to_string())).unwrap()
}

pub(crate) fn message(model: &str) -> Value {
    json!({"model": model, "max_tokens": 1000, "messages": [{"role": "user", "content": "one two three"}]})
}

/// Sends `request` on a connection of its own; an error where no answer came.
pub(crate) async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Reply, hyper::Error> {
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let begun = Instant::now();
    let mut response = sender.send_request(request).await?;
    let head_after = begun.elapsed();
    let (mut body, mut pieces, mut end) = (Vec::new(), Vec::new(), End::Clean);
    while let Some(frame) = response.frame().await {
        let Ok(frame) = frame else {
            end = End::Broken;
            break;
        };
        if let Ok(data) = frame.into_data() {
            body.extend_from_slice(&data);
            pieces.push((begun.elapsed(), data));
        }
    }
    driver.abort();
    Ok(Reply { status: response.status(), headers: response.headers().clone(), body, end, head_after, pieces })
}

pub(crate) async fn ask(simulator: &Simulator, request: Request<Full<Bytes>>) -> Reply {
    send(simulator.addr(), request).await.unwrap()
}

/// The text of a streamed chat answer.
pub(crate) fn said(events: &[Value]) -> String {
    events.iter().filter_map(|event| event.pointer("/choices/0/delta/content")?.as_str()).collect()
}
