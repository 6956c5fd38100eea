//! One HTTP/1.1 exchange on one connection. Writing and reading go on side by side, so an answer
//! that comes before the request is all sent is seen at once; the head and a small body leave in
//! one write. Nothing is held while waiting: reads go through a scratch buffer of the thread.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::Method;
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Framing;
use super::fault::Fault;
use super::head::{Head, HeadReader};

/// What one read may bring: as much as Linux hands out at once on a busy connection.
const SCRATCH: usize = 64 * 1024;
/// Pieces given to one vectored write.
const MOST_SLICES: usize = 16;
/// A connection that the provider had closed while it lay idle shows it within a round trip. One
/// that ends later has most likely been working on the request, and asking again would be paid twice.
const STALE_WITHIN: Duration = Duration::from_secs(1);

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A request on its way and the answer to it.
pub(super) struct Exchange {
    stream: Stream,
    upload: Upload,
    /// What came with the head, or is not yet asked for.
    early: Bytes,
    framing: Framing,
    reusable: bool,
}

/// What is still to be written, in the order of writing.
pub(super) struct Upload {
    pieces: VecDeque<Bytes>,
    state: Uploading,
    done_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Uploading {
    Writing,
    Flushing,
    Done,
    /// The provider takes no more; what it says counts.
    GivenUp,
}

/// An exchange that failed before its answer's head, and whether the connection was just stale.
pub(super) struct Failed {
    pub(super) fault: Fault,
    pub(super) stale: bool,
}

impl Exchange {
    pub(super) fn new(stream: Stream, upload: Upload) -> Exchange {
        Exchange { stream, upload, early: Bytes::new(), framing: Framing::Done, reusable: false }
    }

    /// Sends the request and reads the head of its answer.
    pub(super) async fn head(&mut self, method: &Method) -> Result<Head, Failed> {
        let mut reader = HeadReader::default();
        let outcome = poll_fn(|cx| self.poll_head(cx, &mut reader, method)).await;
        let (head, early) = outcome.map_err(|fault| self.failed(fault, &reader))?;
        self.early = early;
        self.framing = head.framing;
        self.reusable = head.reusable;
        if head.status.is_client_error() || head.status.is_server_error() {
            self.upload.give_up();
        }
        Ok(head)
    }

    /// The next piece of the body, or `None` at its end. Safe to cancel.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Fault> {
        poll_fn(|cx| self.poll_body(cx)).await
    }

    /// The connection, if it can carry another request: both sides are through with this one.
    /// Takes the end of the body along if it has come already.
    pub(super) async fn into_reusable(mut self) -> Option<Stream> {
        let last = poll_fn(|cx| Poll::Ready(self.poll_body(cx))).await;
        let complete = matches!(last, Poll::Ready(Ok(None)));
        let idle = complete && self.reusable && self.early.is_empty() && self.upload.is_done();
        idle.then_some(self.stream)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut HeadReader,
        method: &Method,
    ) -> Poll<Result<(Head, Bytes), Fault>> {
        self.poll_upload(cx);
        loop {
            let read = poll_read(&mut self.stream, cx, |piece| match piece {
                [] => Err(Fault::closed()),
                piece => reader.take(piece, method),
            });
            match ready!(read).map_err(|error| Fault::before_answer(&error))?? {
                Some(found) => return Poll::Ready(Ok(found)),
                None => continue,
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        self.poll_upload(cx);
        loop {
            if self.framing.is_done() {
                return Poll::Ready(Ok(None));
            }
            let body = if self.early.is_empty() {
                ready!(self.poll_more(cx))?
            } else {
                self.framing.take_held(&mut self.early)?
            };
            if !body.is_empty() {
                return Poll::Ready(Ok(Some(body)));
            }
        }
    }

    /// Reads once from the connection; an end of it that is the body's end too is told by `framing`.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Fault>> {
        let framing = &mut self.framing;
        let read = poll_read(&mut self.stream, cx, |piece| match piece {
            [] => framing.end().map(|()| (Bytes::new(), 0, 0)),
            piece => framing.take(piece).map(|(body, used)| (body, used, piece.len())),
        });
        let (body, used, came) = ready!(read).map_err(|_| Fault::truncated())??;
        // More than the answer: nothing that follows on this connection could be trusted.
        self.reusable &= used == came;
        Poll::Ready(Ok(body))
    }

    /// Writes on; a failure is not reported, for the answer may tell more and the read will fail if not.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(_)) = self.upload.poll(&mut self.stream, cx) {
            self.upload.give_up();
        }
    }

    fn failed(&self, fault: Fault, reader: &HeadReader) -> Failed {
        match (fault.is_disconnect(), reader.has_begun()) {
            (true, true) => Failed::for_good(Fault::truncated()),
            (ended, _) => Failed { stale: ended && self.upload.is_recent(), fault: fault.sent(self.upload.is_sent()) },
        }
    }
}

impl Failed {
    /// A failure that no other connection would mend.
    pub(super) fn for_good(fault: Fault) -> Failed {
        Failed { fault, stale: false }
    }
}

impl Upload {
    pub(super) fn new(pieces: VecDeque<Bytes>) -> Upload {
        Upload { pieces, state: Uploading::Writing, done_at: None }
    }

    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == Uploading::Writing {
            ready!(self.poll_write(stream, cx))?;
            self.state = Uploading::Flushing;
        }
        if self.state == Uploading::Flushing {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.state = Uploading::Done;
            self.done_at = Some(Instant::now());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let written = match self.pieces.len() {
                0 => return Poll::Ready(Ok(())),
                1 => {
                    let piece = self.pieces.front().map_or(&[][..], |piece| piece);
                    ready!(Pin::new(&mut *stream).poll_write(cx, piece))?
                }
                _ => {
                    let mut slices = [IoSlice::new(&[]); MOST_SLICES];
                    for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                        *slice = IoSlice::new(piece);
                    }
                    let slices = slices.get(..self.pieces.len()).unwrap_or(&slices);
                    ready!(Pin::new(&mut *stream).poll_write_vectored(cx, slices))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let step = written.min(piece.len());
            piece.advance(step);
            written -= step;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
    }

    fn give_up(&mut self) {
        if self.state != Uploading::Done {
            self.state = Uploading::GivenUp;
        }
    }

    fn is_done(&self) -> bool {
        self.state == Uploading::Done
    }

    /// Whether the provider was handed the whole request, and so may have acted on it.
    fn is_sent(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether so little time has gone by since the last byte that nobody can have worked on it.
    fn is_recent(&self) -> bool {
        self.done_at.is_none_or(|at| at.elapsed() < STALE_WITHIN)
    }
}

/// Reads once into the thread's buffer and gives what came to `use_it`; an empty piece is the end.
fn poll_read<T>(stream: &mut Stream, cx: &mut Context<'_>, use_it: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
    BUFFER.with(|cell| {
        let mut scratch = cell.take();
        scratch.resize(SCRATCH, 0);
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = Pin::new(stream).poll_read(cx, &mut buffer);
        let outcome = read.map_ok(|()| use_it(buffer.filled()));
        cell.set(scratch);
        outcome
    })
}
