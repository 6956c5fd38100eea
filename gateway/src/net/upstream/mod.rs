//! The sending side: one HTTP request to a provider, and its answer as it comes.
//!
//! No timers but for connecting: the exchange has one clock for all of a request's limits and drops
//! these futures when it strikes. Dropping [`Upstreams::send`]'s future or an unfinished [`Answer`]
//! closes the connection, or resets the HTTP/2 stream, at once.

mod body;
mod decode;
mod endpoint;
mod fault;
mod h1;
mod h2;
mod head;
mod pool;
mod shelf;
mod url;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::protocols::Stream;
use pingora::protocols::http::v2::client::Http2Session;

use self::decode::Decoder;
pub use self::endpoint::{Endpoint, EndpointError, EndpointSpec, Reach, Version};
pub use self::fault::{Cause, Fault};
use self::h1::{Failed, Upload};
use self::pool::{Freshness, Line, Pool, Taken, Way};
pub use self::url::Host;
use super::dns::Resolver;
use super::tls::TrustError;
use crate::headers;

/// Head and body up to this size leave in one write; copying more costs more than a second slice.
const ONE_WRITE: usize = 32 * 1024;

/// The connections to all providers: one for the process, cheap to clone, unharmed by reloads.
#[derive(Clone)]
pub struct Upstreams {
    pool: Arc<Pool>,
}

/// One request, borrowed from whoever made it.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// The method.
    pub method: Method,
    /// Path and query in origin form, the endpoint's base path already in front.
    pub path: &'a str,
    /// The headers. Those about the connection and `host` and `content-length` are left out and
    /// written anew.
    pub headers: &'a HeaderMap,
    /// More of them, so that the first can be the same for many requests.
    pub more: &'a [(HeaderName, HeaderValue)],
    /// The body in segments, sent as one with its length. The bytes are shared, not copied.
    pub body: &'a [Bytes],
}

impl Outgoing<'_> {
    /// The headers that are not about the connection.
    pub fn all_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let more = self.more.iter().map(|(name, value)| (name, value));
        self.headers.iter().chain(more).filter(|(name, _)| !headers::is_of_the_connection(name))
    }
}

/// How often a request may go out, and how often it has. It goes out a second time where the connection that it went
/// out on had lain idle and ends without an answer. Its provider closed that connection for lying idle, most likely,
/// but may have read the request: so it is for whoever asks to allow it, and to count it.
#[derive(Debug)]
pub struct Sendings {
    most: u8,
    so_far: AtomicU8,
}

impl Sendings {
    /// None so far.
    #[must_use]
    pub const fn at_most(most: u8) -> Self {
        Self { most, so_far: AtomicU8::new(0) }
    }

    /// Whether there was a connection, and the request has gone out.
    #[must_use]
    pub fn have_begun(&self) -> bool {
        self.so_far.load(Ordering::Relaxed) > 0
    }

    /// Whether it has gone out again.
    #[must_use]
    pub fn were_two(&self) -> bool {
        self.so_far.load(Ordering::Relaxed) > 1
    }

    /// One more; false where there may be no more.
    fn begin(&self) -> bool {
        let may = self.so_far.load(Ordering::Relaxed) < self.most;
        self.so_far.fetch_add(u8::from(may), Ordering::Relaxed);
        may
    }
}

/// A provider's answer: its head, and its body as it comes.
pub struct Answer {
    /// The status, never an interim one.
    pub status: StatusCode,
    /// The headers, without those about the connection, and without those that decoding made wrong.
    pub headers: HeaderMap,
    decoder: Option<Box<Decoder>>,
    source: Source,
}

enum Source {
    Http1(Box<h1::Exchange>, Way),
    Http2(Box<h2::Exchange>),
}

impl Upstreams {
    /// Starts without connections. Reads the system's root certificates, so call it at start.
    pub fn new(resolver: Resolver) -> Upstreams {
        Upstreams { pool: Arc::new(Pool::new(resolver)) }
    }

    /// Whether the machine has root certificates, without which only endpoints with their own
    /// `ca_file` can be believed: worth a line in the log at start.
    pub fn system_roots(&self) -> Result<(), &TrustError> {
        self.pool.roots()
    }

    /// Sends a request; resolves when the head of the answer is there.
    pub async fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        request: Outgoing<'_>,
        connect_timeout: Duration,
    ) -> Result<Answer, Fault> {
        self.send_counted(endpoint, request, connect_timeout, &Sendings::at_most(2)).await
    }

    /// The same, counted for whoever may drop this before its end and has to know whether the provider was asked. A
    /// connection that lay idle and turns out to have been closed meanwhile is replaced once, if the request may go out
    /// twice, no byte of an answer came, and the provider hardly had the time to work on it.
    pub async fn send_counted(
        &self,
        endpoint: &Arc<Endpoint>,
        request: Outgoing<'_>,
        connect_timeout: Duration,
        sendings: &Sendings,
    ) -> Result<Answer, Fault> {
        check_path(request.path)?;
        let taken = self.pool.line(endpoint, Freshness::Any, connect_timeout).await?;
        sendings.begin();
        let reused = taken.reused;
        match ask(endpoint, &request, taken).await {
            Ok(answer) => Ok(answer),
            Err(failed) if failed.stale && reused && sendings.begin() => {
                let line = self.pool.line(endpoint, Freshness::New, connect_timeout);
                let asked = Box::pin(ask(endpoint, &request, line.await?)).await;
                asked.map_err(|failed| failed.fault)
            }
            Err(failed) => Err(failed.fault),
        }
    }
}

async fn ask(endpoint: &Endpoint, request: &Outgoing<'_>, taken: Taken) -> Result<Answer, Failed> {
    let Taken { line, way, reused } = taken;
    let address = way.address();
    let answer = match line {
        Line::Http1(stream) => ask_http1(endpoint, request, stream, way).await,
        Line::Http2(session) => Box::pin(ask_http2(endpoint, request, session, way, reused)).await,
    };
    answer.map_err(|failed| failed.at(address))
}

async fn ask_http1(endpoint: &Endpoint, request: &Outgoing<'_>, stream: Stream, way: Way) -> Result<Answer, Failed> {
    let upload = Upload::new(wire(endpoint, request));
    let mut exchange = Box::new(h1::Exchange::new(stream, upload));
    let head = exchange.head(&request.method).await?;
    let source = Source::Http1(exchange, way);
    Answer::new(head.status, head.headers, source)
}

async fn ask_http2(
    endpoint: &Endpoint,
    request: &Outgoing<'_>,
    session: Box<Http2Session>,
    way: Way,
    reused: bool,
) -> Result<Answer, Failed> {
    let sent = h2::Exchange::send(session, way, endpoint, request, reused);
    let (exchange, status, headers) = sent.await?;
    let source = Source::Http2(Box::new(exchange));
    Answer::new(status, headers, source)
}

impl Answer {
    fn new(status: StatusCode, mut headers: HeaderMap, source: Source) -> Result<Answer, Failed> {
        let decoder = Decoder::of(&mut headers);
        let decoder = decoder.map_err(|fault| Failed::for_good(fault.sent(true)))?;
        Ok(Answer { status, headers, decoder, source })
    }

    /// The next piece of the body as it came, or `None` when the body is complete. A body whose
    /// framing was cut is a [`Cause::Truncated`] fault, never an end. Safe to cancel.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Fault> {
        let Some(decoder) = &mut self.decoder else {
            return self.source.read().await;
        };
        loop {
            if let Some(decoded) = decoder.next()? {
                return Ok(Some(decoded));
            }
            match self.source.read().await? {
                Some(bytes) => decoder.feed(bytes),
                None => return decoder.finish(),
            }
        }
    }

    /// The body's length, if the provider told it and it is still true after decoding.
    pub fn content_length(&self) -> Option<u64> {
        let value = self.headers.get(CONTENT_LENGTH)?;
        value.to_str().ok()?.parse().ok()
    }

    /// Whether nothing comes behind the body's first `read` bytes, as far as that is known before its end is read. A
    /// stream of HTTP/2 is read to its end all the same: dropped before, it would be reset.
    pub fn is_complete_with(&self, read: usize) -> bool {
        matches!(self.source, Source::Http1(..)) && self.content_length() == u64::try_from(read).ok()
    }

    /// Ends the exchange: a connection whose answer was read to its end goes back to the pool, any
    /// other is closed. Takes along an end that has come but was not asked for.
    pub async fn release(self) {
        if let Source::Http1(exchange, way) = self.source
            && let Some(stream) = exchange.into_reusable().await
        {
            way.release(stream);
        }
    }
}

impl Source {
    async fn read(&mut self) -> Result<Option<Bytes>, Fault> {
        match self {
            Source::Http1(exchange, _) => exchange.read().await,
            Source::Http2(exchange) => exchange.read().await,
        }
    }
}

impl Failed {
    fn at(mut self, address: SocketAddr) -> Failed {
        self.fault = self.fault.at(address);
        self
    }
}

/// The request as it is written: in one piece if it is small, else the head and the shared segments.
fn wire(endpoint: &Endpoint, request: &Outgoing<'_>) -> VecDeque<Bytes> {
    let length = request.body.iter().map(Bytes::len).sum();
    let small = length <= ONE_WRITE;
    let mut head = head::write_head(endpoint, request, length, if small { length } else { 0 });
    if small {
        for segment in request.body {
            head.extend_from_slice(segment);
        }
        return VecDeque::from([head.freeze()]);
    }
    let segments = request.body.iter().filter(|segment| !segment.is_empty());
    std::iter::once(head.freeze()).chain(segments.cloned()).collect()
}

/// A path with a space or a line end in it would be another request.
fn check_path(path: &str) -> Result<(), Fault> {
    let clean = path.bytes().all(|byte| byte.is_ascii_graphic());
    if clean && path.starts_with('/') {
        return Ok(());
    }
    Err(Fault::unsendable())
}
