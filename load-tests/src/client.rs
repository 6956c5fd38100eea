//! One HTTP/1.1 connection of the generator, on hyper's own connection: no pool, no redirects, nothing to pay for.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Digits of a stamp.
const STAMP: usize = 20;

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct Wire {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

/// What is to be seen of an answer besides its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nothing.
    End,
    /// The first content, and how many events came.
    Events,
    /// The stamps too.
    Stamps,
}

/// What was seen of an answer.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) first_content: Option<Instant>,
    /// When events came, and how many at once.
    pub(crate) events: Vec<(Instant, u64)>,
    pub(crate) delays: Vec<Duration>,
}

impl Wire {
    /// Opens a connection.
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // An error of the connection is the error of the request on it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver })
    }

    /// Sends a request and reads the answer to its end. A status other than 200 is a failure, and so is an answer that
    /// breaks off.
    pub(crate) async fn exchange(&mut self, request: Request<Full<Bytes>>, watch: Watch) -> io::Result<Seen> {
        let mut body = self.begin(request).await?;
        let mut seen = Seen::default();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(io::Error::other)?.into_data() else {
                continue;
            };
            seen.look(&data, watch);
        }
        Ok(seen)
    }

    /// Sends a request and gives its body, once the head has come.
    pub(crate) async fn begin(&mut self, request: Request<Full<Bytes>>) -> io::Result<Incoming> {
        self.sender.ready().await.map_err(io::Error::other)?;
        let response = self.sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let start = String::from_utf8_lossy(body.get(..200.min(body.len())).unwrap_or(&body)).into_owned();
        Err(io::Error::other(format!("{status}: {start}")))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Seen {
    /// Looks at a piece of a body. An event that is cut in two by the network is missed, which is rare enough.
    fn look(&mut self, data: &[u8], watch: Watch) {
        if watch == Watch::End {
            return;
        }
        let now = Instant::now();
        let events = memmem::find_iter(data, b"\n\n").count() as u64;
        if events > 0 {
            self.events.push((now, events));
        }
        if self.first_content.is_none() && has_content(data) {
            self.first_content = Some(now);
        }
        if watch == Watch::Stamps {
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.delays.extend(stamps(data).map(|sent| clock.saturating_sub(sent)));
        }
    }
}

/// Whether a piece of a stream says something, in either dialect.
pub(crate) fn has_content(data: &[u8]) -> bool {
    let starts =
        |key: &[u8]| memmem::find_iter(data, key).any(|at| data.get(at + key.len()).is_some_and(|next| *next != b'"'));
    starts(b"\"content\":\"") || starts(b"\"text_delta\",\"text\":\"")
}

fn stamps(data: &[u8]) -> impl Iterator<Item = Duration> {
    const KEY: &[u8] = b"\"content\":\"";
    memmem::find_iter(data, KEY).filter_map(move |at| {
        let said = data.get(at + KEY.len()..)?;
        let digits = said.strip_prefix(b" ").unwrap_or(said).get(..STAMP)?;
        let nanos: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_not_content_and_a_word_is() {
        assert!(!has_content(br#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#));
        assert!(has_content(br#"data: {"choices":[{"delta":{"content":"You"}}]}"#));
        assert!(has_content(br#"data: {"delta":{"type":"text_delta","text":"You"}}"#));
    }

    #[test]
    fn stamps_are_read_off_the_content() {
        let data = br#"{"content":"00000000000000000005"}{"content":" 00000000000000000007"}{"content":"no"}"#;
        let found: Vec<Duration> = stamps(data).collect();
        assert_eq!(found, [Duration::from_nanos(5), Duration::from_nanos(7)]);
    }
}
