//! One client's request and the answer to it, over HTTP/1.1 or HTTP/2: the only place that knows Pingora's server
//! session.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version, header};
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::headers;

/// Room for the headers of an answer that tells of no limits. A stream keeps it for as long as it lasts.
const USUAL_HEADERS: usize = 12;

/// How long and how much of a refused body is read on, so that the client sees the answer and not a reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// A body that nobody announced and that grows beyond this gets room for the largest one at once: memory is taken only
/// where it is written to, while growing step by step would hold two copies.
const LARGE: usize = 1024 * 1024;
const MOST_RESERVED: usize = 256 * 1024 * 1024;

/// How long what was written may take to leave before a broken connection is cut.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// How long an HTTP/2 client has to take the event that says why its stream breaks off.
const LAST_WORD: Duration = Duration::from_millis(100);

/// What Pingora says of a chunk that is none.
const INVALID_CHUNK: ErrorType = ErrorType::Custom("InvalidChunk");

/// How much of an answer is written within one timeout: a slow client is not a stalled one.
const WRITE: usize = 256 * 1024;

/// Below this, the rest of a refused body is read to keep the connection.
const WORTH_READING: u64 = 64 * 1024;

/// A request that is being answered.
pub struct Client {
    /// Boxed: the futures that serve it move it about, and each keeps a copy of what it moved.
    session: Box<ServerSession>,
    stall: Duration,
    headless: bool,
    answered: bool,
    after: After,
    /// A write was given up in its middle: nothing may follow it.
    torn: bool,
}

/// What becomes of a connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It serves the next request, if both sides keep it.
    Reuse,
    /// What still comes on it is no request, but has to be taken for the client to see the answer.
    ReadOff,
    /// The HTTP/2 stream is reset, once what was written has left.
    Reset,
    /// It is cut.
    Cut,
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// It is larger than allowed.
    TooLarge,
    /// Nothing came for too long.
    Stalled,
    /// Its chunks are not chunks.
    Malformed,
    /// The client left.
    Gone,
}

/// The client cannot be written to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

impl Head {
    /// A head with no headers yet.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::with_capacity(USUAL_HEADERS) }
    }

    /// Adds a header.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.append(name, value);
    }

    /// Adds a header, if there is a value for it.
    pub fn add_some(&mut self, name: HeaderName, value: Option<HeaderValue>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Pingora's own way to add a header parses its name again.
    fn into_pingora(mut self, framing: (HeaderName, HeaderValue)) -> Box<ResponseHeader> {
        self.add(framing.0, framing.1);
        let mut parts = Response::new(()).into_parts().0;
        (parts.status, parts.headers) = (self.status, self.headers);
        Box::new(parts.into())
    }
}

impl Client {
    /// The request in `session`, whose head was read. The client may leave a read or a write hanging for `stall`.
    #[must_use]
    pub fn new(mut session: Box<ServerSession>, stall: Duration) -> Self {
        session.set_read_timeout(Some(stall));
        session.set_write_timeout(Some(stall));
        // Whether the rest of a body is worth reading is decided here: see `leave_unread_body`.
        session.set_close_on_response_before_downstream_finish(false);
        Self { session, stall, headless: false, answered: false, after: After::Reuse, torn: false }
    }

    /// Where it came from; a proxy's address, where one is between.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        Some(self.session.client_addr()?.as_inet()?.ip())
    }

    /// Whatever it is that came in the place of a head; it can be answered and nothing else.
    #[must_use]
    pub fn headless(session: Box<ServerSession>, stall: Duration) -> Self {
        let mut client = Self { headless: true, after: After::ReadOff, ..Self::new(session, stall) };
        client.close_after();
        client
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        if self.headless { &Method::GET } else { &self.session.req_header().method }
    }

    /// The request's target.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.session.req_header().uri
    }

    /// The path that it asks for.
    #[must_use]
    pub fn path(&self) -> &str {
        if self.headless { "" } else { self.uri().path() }
    }

    /// The request's headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.session.req_header().headers
    }

    /// Whether anything of the answer has been sent.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// Reads the whole body, up to `limit` bytes. A body that came in one piece is not copied.
    ///
    /// # Errors
    /// It is too large, or the client is gone.
    pub async fn read_body(&mut self, limit: u64) -> Result<Bytes, BodyFault> {
        let announced = self.content_length();
        if announced.is_some_and(|length| length > limit) {
            return Err(BodyFault::TooLarge);
        }
        self.say_continue().await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut body = Gathered::default();
        while let Some(piece) = self.read_piece().await? {
            if body.len().saturating_add(piece.len()) > limit {
                return Err(BodyFault::TooLarge);
            }
            body.add(piece, announced.and_then(|length| usize::try_from(length).ok()), limit);
        }
        Ok(body.into_bytes())
    }

    /// Resolves when the client has left. Safe to cancel.
    pub async fn gone(&mut self) {
        // Pingora waits for ever after the body's end, unless the client closes or breaks the protocol.
        while let Ok(Some(_)) = self.session.read_body_or_idle(true).await {}
        self.after = After::Cut;
    }

    /// Sends a whole answer in one write.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&mut self, head: Head, body: &[Bytes]) -> Result<(), Gone> {
        self.leave_unread_body();
        let length: usize = body.iter().map(Bytes::len).sum();
        let bodiless = *self.method() == Method::HEAD;
        let head = head.into_pingora((header::CONTENT_LENGTH, headers::number(length)));
        self.answered = true;
        self.write_head(head).await?;
        let last = body.len().saturating_sub(1);
        for (place, piece) in body.iter().enumerate().filter(|_| !bodiless) {
            self.write_in_parts(piece.clone(), place == last).await?;
        }
        Ok(())
    }

    /// Begins a streamed answer; the head goes out at once.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn begin(&mut self, head: Head) -> Result<(), Gone> {
        let mut head = head.into_pingora((header::TRANSFER_ENCODING, HeaderValue::from_static("chunked")));
        if self.session.is_http2() || self.session.req_header().version < Version::HTTP_11 {
            head.remove_header(&header::TRANSFER_ENCODING);
        }
        self.answered = true;
        self.write_head(head).await
    }

    /// Sends a piece of a streamed answer and waits until the socket has taken it. When the wait is given up, the
    /// answer can only be aborted.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), Gone> {
        if self.torn {
            return Err(self.lost());
        }
        if piece.is_empty() {
            return Ok(());
        }
        self.torn = true;
        self.write_in_parts(piece, false).await?;
        self.torn = false;
        Ok(())
    }

    /// The streamed answer is whole.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn end(&mut self) -> Result<(), Gone> {
        let ended = tokio::time::timeout(self.stall, self.session.finish_body()).await;
        if matches!(ended, Ok(Ok(()))) { Ok(()) } else { Err(self.lost()) }
    }

    /// The streamed answer broke off: the connection is closed, or the HTTP/2 stream reset, so that the client cannot
    /// take what it has for the whole.
    pub async fn abort(&mut self) {
        if self.session.is_http2() {
            self.after = if self.after == After::Cut { After::Cut } else { After::Reset };
            return;
        }
        self.after = After::Cut;
        if self.torn {
            return;
        }
        // A client that takes nothing any more would hold up what is still to be flushed.
        let _flushed = tokio::time::timeout(LAST_FLUSH, self.session.shutdown()).await;
    }

    /// The connection closes after this answer.
    pub fn close_after(&mut self) {
        self.session.set_keepalive(None);
    }

    /// Gives the session back where its connection can serve another request.
    pub async fn into_reusable(mut self) -> Option<Box<ServerSession>> {
        match self.after {
            After::Cut => return None,
            After::Reset => {
                // A reset overtakes what waits to be sent, the answer's head too, and nothing tells when that has left.
                tokio::time::sleep(LAST_WORD).await;
                return None;
            }
            After::ReadOff => {
                Box::pin(read_off(*self.session)).await;
                return None;
            }
            After::Reuse => {}
        }
        if !self.session.is_http2() && !self.session.is_body_done() {
            self.linger().await;
        }
        (self.session.is_http2() || self.session.is_body_done()).then_some(self.session)
    }

    fn content_length(&self) -> Option<u64> {
        self.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    async fn say_continue(&mut self) -> Result<(), BodyFault> {
        let expects = self.headers().get(header::EXPECT).map(HeaderValue::as_bytes);
        let is_old = self.session.req_header().version < Version::HTTP_11;
        if is_old || !expects.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")) {
            return Ok(());
        }
        self.session.write_continue_response().await.map_err(|_| {
            self.after = After::Cut;
            BodyFault::Gone
        })
    }

    async fn read_piece(&mut self) -> Result<Option<Bytes>, BodyFault> {
        let http2 = self.session.is_http2();
        let read = self.session.read_request_body();
        // Pingora's own read timeout covers HTTP/1 only; an HTTP/2 client could hold a body back for ever.
        let read = if http2 { tokio::time::timeout(self.stall, read).await.ok() } else { Some(read.await) };
        let fault = match read {
            Some(Ok(piece)) => return Ok(piece),
            None => BodyFault::Stalled,
            Some(Err(error)) => BodyFault::of(error.etype()),
        };
        self.close_after();
        self.after = if fault == BodyFault::Malformed { After::ReadOff } else { After::Cut };
        Err(fault)
    }

    async fn write_head(&mut self, head: Box<ResponseHeader>) -> Result<(), Gone> {
        // Pingora's own write timeout is the body's.
        let written = tokio::time::timeout(self.stall, self.session.write_response_header(head)).await;
        if matches!(written, Ok(Ok(()))) { Ok(()) } else { Err(self.lost()) }
    }

    async fn write_in_parts(&mut self, mut piece: Bytes, last: bool) -> Result<(), Gone> {
        while piece.len() > WRITE {
            self.write(piece.split_to(WRITE), false).await?;
        }
        self.write(piece, last).await
    }

    async fn write(&mut self, piece: Bytes, last: bool) -> Result<(), Gone> {
        self.session.write_response_body(piece, last).await.map_err(|_| self.lost())
    }

    fn lost(&mut self) -> Gone {
        self.after = After::Cut;
        Gone
    }

    /// An answer before the body was read: a short rest is read to keep the connection, a long one costs it, and so
    /// does one of which the client may or may not send anything.
    fn leave_unread_body(&mut self) {
        if self.after != After::Reuse || self.session.is_body_done() {
            return;
        }
        let short = self.content_length().is_some_and(|length| length <= WORTH_READING);
        if !short || self.headers().contains_key(header::EXPECT) {
            self.close_after();
        }
    }

    /// Reads on for a while what a client still sends after it was refused; closing at once would reset the connection
    /// before the client has read why.
    async fn linger(&mut self) {
        let mut left = LINGER_BYTES;
        let read_on = async {
            while let Ok(Some(piece)) = self.session.read_request_body().await {
                left = left.saturating_sub(piece.len());
                if left == 0 {
                    break;
                }
            }
        };
        let _enough = tokio::time::timeout(LINGER, read_on).await;
    }
}

impl BodyFault {
    fn of(error: &ErrorType) -> Self {
        match *error {
            ErrorType::ReadTimedout => Self::Stalled,
            INVALID_CHUNK => Self::Malformed,
            _ => Self::Gone,
        }
    }
}

/// Reads on for a while, as [`Client::linger`] does, what follows bytes that make no request.
async fn read_off(session: ServerSession) {
    let ServerSession::H1(session) = session else {
        return;
    };
    let mut stream = session.into_inner();
    let mut left = LINGER_BYTES;
    let read_on = async {
        stream.shutdown().await?;
        let mut waste = vec![0; 16 * 1024];
        while left > 0 {
            match stream.read(&mut waste).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        std::io::Result::Ok(())
    };
    let _enough = tokio::time::timeout(LINGER, read_on).await;
}

/// A body in the making: one piece stays as it is, several are joined in one buffer of the announced size.
#[derive(Default)]
struct Gathered {
    only: Bytes,
    joined: BytesMut,
}

impl Gathered {
    fn len(&self) -> usize {
        self.only.len() + self.joined.len()
    }

    fn add(&mut self, piece: Bytes, announced: Option<usize>, most: usize) {
        if piece.is_empty() {
            return;
        }
        if self.len() == 0 {
            self.only = piece;
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve(announced.unwrap_or_default().max(self.only.len() + piece.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.only));
        }
        if self.joined.len() > LARGE && self.joined.capacity() - self.joined.len() < piece.len() {
            self.joined.reserve(most.saturating_sub(self.joined.len()).min(MOST_RESERVED).max(piece.len()));
        }
        self.joined.extend_from_slice(&piece);
    }

    fn into_bytes(self) -> Bytes {
        if self.joined.is_empty() { self.only } else { self.joined.freeze() }
    }
}
