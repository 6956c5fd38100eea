//! One HTTP/2 exchange: a stream of a connection that others share. Dropping it resets the stream
//! and leaves the connection, which goes to pingora's idle pool when its last stream is gone.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::header::CONTENT_LENGTH;
use http::uri::{Scheme, Uri};
use http::{HeaderMap, StatusCode};
use pingora::http::RequestHeader;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::{Error, RetryType};
use tokio::runtime::Handle;
use tokio::task::coop::cooperative;

use super::Outgoing;
use super::endpoint::Endpoint;
use super::fault::{Cause, Fault};
use super::h1::Failed;
use super::pool::Way;

/// The most bytes of an answer's header fields, names and values together, as for HTTP/1.1.
const LARGEST_HEAD: usize = 64 * 1024;

/// A stream on its way and the answer on it.
pub(super) struct Exchange {
    lease: Lease,
    upload: Option<Upload>,
    ended: bool,
}

/// A stream that finds its connection's way back to the pool however it ends.
struct Lease {
    session: Option<Box<Http2Session>>,
    way: Way,
}

/// The request's body, written as fast as the provider's window opens.
struct Upload {
    stream: SendStream<Bytes>,
    pieces: VecDeque<Bytes>,
}

impl Exchange {
    /// Sends the request on a fresh stream and reads the head of its answer.
    pub(super) async fn send(
        session: Box<Http2Session>,
        way: Way,
        endpoint: &Endpoint,
        request: &Outgoing<'_>,
        reused: bool,
    ) -> Result<(Exchange, StatusCode, HeaderMap), Failed> {
        let mut exchange = Exchange { lease: Lease { session: Some(session), way }, upload: None, ended: false };
        let header = request_header(endpoint, request).map_err(Failed::for_good)?;
        let sent = exchange.head(header, request.body).await;
        sent.map_err(|error| failed(&error, reused, exchange.is_sent()))?;
        let (status, headers) = exchange.answer_head().map_err(Failed::for_good)?;
        if status.is_client_error() || status.is_server_error() {
            exchange.upload = None;
        }
        Ok((exchange, status, headers))
    }

    /// The next piece of the body, or `None` at its end. Safe to cancel.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Fault> {
        let Exchange { lease, upload, .. } = self;
        let Some(session) = lease.session.as_mut().filter(|_| !self.ended) else {
            return Ok(None);
        };
        let mut body = pin!(session.read_response_body());
        let read = poll_fn(|cx| {
            drive(upload, cx);
            body.as_mut().poll(cx)
        });
        // The stream is filled by its connection, maybe on another thread: tokio does not count what is read of it.
        match cooperative(read).await {
            Ok(Some(piece)) => Ok(Some(piece)),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(_) => Err(Fault::truncated()),
        }
    }

    async fn head(&mut self, header: Box<RequestHeader>, body: &[Bytes]) -> Result<(), Box<Error>> {
        let pieces: VecDeque<_> = body.iter().filter(|piece| !piece.is_empty()).cloned().collect();
        let Exchange { lease, upload, .. } = self;
        let Some(session) = lease.session.as_mut() else {
            return Ok(());
        };
        session.write_request_header(header, pieces.is_empty())?;
        if !pieces.is_empty() {
            let stream = session.take_request_body_writer();
            *upload = stream.map(|stream| Upload { stream, pieces });
        }
        let mut head = pin!(session.read_response_header());
        poll_fn(|cx| {
            drive(upload, cx);
            head.as_mut().poll(cx)
        })
        .await
    }

    fn answer_head(&self) -> Result<(StatusCode, HeaderMap), Fault> {
        let session = self.lease.session.as_ref();
        let Some(header) = session.and_then(|session| session.response_header()) else {
            return Err(Fault::malformed("the provider sent no HTTP/2 head"));
        };
        let size: usize = header.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > LARGEST_HEAD {
            let detail = "the head of the provider's answer is too large";
            return Err(Fault::new(Cause::TooLarge, detail).sent(true));
        }
        Ok((header.status, header.headers.clone()))
    }

    /// Whether the provider was handed the whole request.
    fn is_sent(&self) -> bool {
        self.upload.is_none()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        // Pingora spawns the watch over an idle connection, which needs a runtime; without one the
        // process is ending and there is no pool to go back to.
        if Handle::try_current().is_ok() {
            self.way.release_http2(*session);
        }
    }
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while let Some(piece) = self.pieces.front_mut() {
            if self.stream.capacity() == 0 {
                self.stream.reserve_capacity(piece.len());
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => break,
                }
            }
            let room = self.stream.capacity().min(piece.len());
            let part = piece.split_to(room);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
            self.stream.send_data(part, self.pieces.is_empty())?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes on; when it fails, the answer will tell or fail too.
fn drive(upload: &mut Option<Upload>, cx: &mut Context<'_>) {
    if let Some(writing) = upload
        && writing.poll(cx).is_ready()
    {
        *upload = None;
    }
}

/// The head with an absolute URI: without one pingora would call every scheme https.
fn request_header(endpoint: &Endpoint, request: &Outgoing<'_>) -> Result<Box<RequestHeader>, Fault> {
    let uri = uri(endpoint, request.path).map_err(|_| Fault::unsendable())?;
    let mut header = RequestHeader::build_no_case(
        request.method.clone(),
        request.path.as_bytes(),
        Some(request.headers.len() + request.more.len() + 1),
    )
    .map_err(|_| Fault::unsendable())?;
    header.set_uri(uri);
    for (name, value) in request.all_headers() {
        let appended = header.append_header(name, value);
        appended.map_err(|_| Fault::unsendable())?;
    }
    let length: usize = request.body.iter().map(Bytes::len).sum();
    if length > 0 {
        let inserted = header.insert_header(CONTENT_LENGTH, length);
        inserted.map_err(|_| Fault::unsendable())?;
    }
    Ok(Box::new(header))
}

fn uri(endpoint: &Endpoint, path: &str) -> Result<Uri, http::Error> {
    let scheme = if endpoint.tls { Scheme::HTTPS } else { Scheme::HTTP };
    Uri::builder().scheme(scheme).authority(endpoint.authority.clone()).path_and_query(path).build()
}

fn failed(error: &Error, reused: bool, sent: bool) -> Failed {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    let (refused, fault) = match cause {
        Some(error) if error.is_io() => (false, Fault::closed()),
        Some(error) if error.is_reset() && error.is_remote() => {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            let detail = "the provider reset the request before answering";
            (refused, Fault::new(Cause::Reset, detail))
        }
        Some(error) if error.is_go_away() && error.is_remote() => {
            let unprocessed = error.reason() == Some(h2::Reason::NO_ERROR);
            (unprocessed, Fault::closed())
        }
        _ => (false, Fault::malformed("the provider's answer is not HTTP/2")),
    };
    let stale = match error.retry {
        RetryType::Decided(retry) => retry && refused,
        RetryType::ReusedOnly => reused,
    };
    Failed {
        // A refused stream was, by RFC 9113 section 8.7, never worked on.
        fault: fault.sent(sent && !refused),
        stale,
    }
}
