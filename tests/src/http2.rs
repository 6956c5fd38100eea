//! A client that speaks HTTP/2 over any stream.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::patience::within;
use crate::weir::KEY;

/// A connection, over which requests go side by side.
#[derive(Clone, Debug)]
pub struct Http2(SendRequest<BoxBody<Bytes, Infallible>>);

/// An answer.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// What came of its body.
    pub body: String,
    /// Whether the body ended as it should.
    pub ended: bool,
}

impl Whole {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Http2 {
    /// Says the preface.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let shaken = within("a handshake", handshake(TokioExecutor::new(), TokioIo::new(stream))).await;
        let (sender, connection) = shaken.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request with [`KEY`] and this JSON, and reads the answer.
    pub async fn post(&self, path: &str, body: &Value) -> Whole {
        self.send("POST", path, body.to_string()).await
    }

    /// Sends a request with [`KEY`] and reads the answer.
    pub async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Whole {
        self.send_body(method, path, Full::new(body.into()).boxed()).await
    }

    /// The same with a body that comes in pieces.
    pub async fn send_body(&self, method: &str, path: &str, body: BoxBody<Bytes, Infallible>) -> Whole {
        let (head, mut incoming) = self.begin(method, path, body).await.into_parts();
        let (mut body, mut ended) = (Vec::new(), true);
        while let Some(frame) = within("a piece of the body", incoming.frame()).await {
            match frame {
                Ok(frame) => body.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => {
                    ended = false;
                    break;
                }
            }
        }
        Whole { status: head.status, headers: head.headers, body: String::from_utf8(body).unwrap(), ended }
    }

    /// Sends a request with [`KEY`] and waits for the answer's head alone.
    pub async fn begin(&self, method: &str, path: &str, body: BoxBody<Bytes, Infallible>) -> Response<Incoming> {
        let request = Request::builder().method(method).uri(format!("http://weir{path}"));
        let request = request.header("authorization", format!("Bearer {KEY}")).body(body).unwrap();
        within("an answer's head", self.0.clone().send_request(request)).await.unwrap()
    }

    /// Whether the server has closed the connection, or will take no more on it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the connection can take a request; false when it never will.
    pub async fn ready(&mut self) -> bool {
        within("room for a request", self.0.ready()).await.is_ok()
    }
}
