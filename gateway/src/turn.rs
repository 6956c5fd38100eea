//! The caller's side of one call to a model, while a provider is waited for: its connection, its clocks and its record.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::{Duration, Instant};

use adapters::{Request, Usage};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use crate::attempt::Patience;
use crate::config::OnDisconnect;
use crate::either::{Either, either};
use crate::error::{Fault, TOTAL};
use crate::net::client::{Client, Gone};
use crate::record::Record;
use crate::relay;
use crate::timer::{Due, FIRST_BYTE, IDLE, Timer};

/// What proxies and clients read as a sign of life, and SDKs skip.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// English text has about four bytes a token.
const BYTES_A_TOKEN: usize = 4;

/// About how many tokens so many bytes of text are.
#[must_use]
pub fn tokens_in(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(BYTES_A_TOKEN)).unwrap_or(u64::MAX)
}

/// One call's caller.
pub struct Turn<'c, 's> {
    /// Its connection.
    pub client: &'c mut Client,
    /// What is known of the request.
    pub record: &'c mut Record<'s>,
    /// Its clocks.
    pub timer: Timer,
    /// What becomes of the provider's request when the caller leaves.
    pub on_disconnect: OnDisconnect,
    stream: bool,
    left: bool,
}

/// As long as the clocks allow and the caller stays; sends a sign of life when the caller has heard nothing for too
/// long.
impl Patience for Turn<'_, '_> {
    async fn wait<T: Send>(&mut self, what: impl Future<Output = T> + Send + Unpin) -> Result<T, Fault> {
        let since = Instant::now();
        let waited = self.wait_unmeasured(what).await;
        self.record.waited(since);
        waited
    }

    fn begins(&mut self, limit: Option<Duration>) {
        self.timer.phase(limit, FIRST_BYTE);
    }

    fn goes_on(&mut self) {
        let idle = self.record.model.and_then(|model| model.timeouts.idle);
        self.timer.phase_from(self.record.latest.into(), idle, IDLE);
    }
}

impl<'c, 's> Turn<'c, 's> {
    /// The caller of `request`.
    #[must_use]
    pub fn new(client: &'c mut Client, record: &'c mut Record<'s>, timer: Timer, request: &Request) -> Self {
        Self { client, record, timer, on_disconnect: OnDisconnect::Cancel, stream: request.is_stream(), left: false }
    }

    async fn wait_unmeasured<T>(&mut self, mut what: impl Future<Output = T> + Unpin) -> Result<T, Fault> {
        loop {
            let woken = either(&mut what, pin!(self.disturbance())).await;
            match woken {
                Either::First(done) => return Ok(done),
                Either::Second(Either::First(())) => self.leave()?,
                Either::Second(Either::Second(Due::Timeout(name))) => return Err(Fault::timeout(name)),
                Either::Second(Either::Second(Due::KeepAlive)) => Box::pin(self.keep_alive()).await?,
            }
        }
    }

    /// Resolves when the caller leaves or a clock runs out. Safe to cancel.
    async fn disturbance(&mut self) -> Either<(), Due> {
        let Self { client, timer, left, .. } = self;
        let gone = async { if *left { pending().await } else { client.gone().await } };
        either(pin!(gone), pin!(timer.due())).await
    }

    /// Whether nothing is left to be tried: there is no time for it, or nobody to tell.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left || self.timer.is_over()
    }

    /// As [`Turn::is_over`], with the reason.
    ///
    /// # Errors
    /// It is over.
    pub fn still_wanted(&self) -> Result<(), Fault> {
        match self {
            Self { left: true, .. } => Err(Fault::gone()),
            _ if self.timer.is_over() => Err(Fault::timeout(TOTAL)),
            _ => Ok(()),
        }
    }

    /// Whether the caller has left while what it asked for is read to its end.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.left
    }

    /// What an answer of about so many tokens used, where the provider does not say: no more than it was allowed.
    #[must_use]
    pub fn estimate(&self, output_tokens: u64) -> Usage {
        let bill = &self.record.bill;
        let output_tokens = bill.most_output().map_or(output_tokens, |most| output_tokens.min(most));
        Usage { input_tokens: bill.input_tokens(), output_tokens, ..Usage::default() }
    }

    /// Begins a streamed answer, if that has not happened yet.
    ///
    /// # Errors
    /// The caller left.
    pub async fn begin(&mut self) -> Result<(), Fault> {
        if self.left || self.client.is_answered() {
            return Ok(());
        }
        let mut head = relay::head(self.record, StatusCode::OK);
        head.add(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        head.add(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        self.record.status = Some(StatusCode::OK);
        let begun = self.client.begin(head).await;
        self.record.look_at_clock();
        self.heard(begun)
    }

    /// Sends a piece of a streamed answer and waits until the caller's socket has taken it.
    ///
    /// # Errors
    /// The caller left.
    pub async fn push(&mut self, piece: Vec<u8>) -> Result<(), Fault> {
        if self.left || piece.is_empty() {
            return Ok(());
        }
        let since = Instant::now();
        let pushed = either(pin!(self.client.push(piece.into())), pin!(self.timer.over())).await;
        self.record.waited(since);
        match pushed {
            Either::First(pushed) => self.heard(pushed),
            Either::Second(()) => Err(Fault::timeout(TOTAL)),
        }
    }

    /// Ends a streamed answer that is whole.
    ///
    /// # Errors
    /// The caller left, now or before.
    pub async fn end(&mut self) -> Result<(), Fault> {
        if self.left {
            return Err(Fault::gone());
        }
        self.client.end().await.map_err(|Gone| Fault::gone())
    }

    async fn keep_alive(&mut self) -> Result<(), Fault> {
        let now = self.record.look_at_clock();
        self.timer.heard(now.into());
        if !self.stream || self.left {
            return Ok(());
        }
        self.begin().await?;
        let pushed = self.client.push(KEEP_ALIVE).await;
        self.heard(pushed)
    }

    fn heard(&mut self, sent: Result<(), Gone>) -> Result<(), Fault> {
        match sent {
            Ok(()) => {
                self.timer.heard(self.record.latest.into());
                Ok(())
            }
            Err(Gone) => self.leave(),
        }
    }

    /// The caller has left: what it asked for ends with it, unless it is to be read to its end.
    fn leave(&mut self) -> Result<(), Fault> {
        self.left = true;
        match self.on_disconnect {
            OnDisconnect::Cancel => Err(Fault::gone()),
            OnDisconnect::Drain => Ok(()),
        }
    }
}
