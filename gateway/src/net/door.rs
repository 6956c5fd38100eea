//! The API's connections: which protocol a client speaks, its requests one after the other or side by side, and the end
//! of the connection. What a request means is [`exchange`](crate::exchange)'s.
//!
//! Pingora's own loop would wait for ever for a client that connects and says nothing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::ErrorType;
use pingora::apps::{HttpPersistentSettings, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake};
use pingora::protocols::{ALPN, Digest, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::either::{Either, either};
use crate::exchange;
use crate::gateway::Gateway;
use crate::net::client::Client;

/// What an HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No method of HTTP/1 begins like that.
const PREFACE_START: usize = 3;

/// A connection that is idle when the process shuts down is still listened to for so long: its client may have sent a
/// request just before it could know.
const LAST_CALL: Duration = Duration::from_millis(50);

/// An HTTP/2 client may send so many malformed requests, each refused for itself, before it loses the connection.
const MOST_MALFORMED: usize = 32;

/// For Pingora a kept connection has no end: how long it may be idle is timed here, over the whole of the next head.
const KEEP_ALIVE: Option<u64> = Some(0);

/// What an HTTP/2 client may send of one body before it is read: at HTTP/2's own 64 KiB a large upload would wait for
/// the network's round trip a thousand times.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same for all bodies of a connection: what one client can make Weir hold.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How long clients may keep Weir waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// For the next request's head, from the connection's begin or the last answer's end.
    pub idle: Duration,
    /// For the next bytes of a body, or until it takes the next bytes of an answer.
    pub stall: Duration,
}

/// Counts the connections that are open.
#[derive(Clone, Debug)]
pub struct Connections(Arc<watch::Sender<usize>>);

/// One of them.
struct Open(Connections);

impl Default for Connections {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Connections {
    fn open(&self) -> Open {
        self.0.send_modify(|count| *count += 1);
        Open(self.clone())
    }

    /// Waits until none is open.
    pub async fn none(&self) {
        // The sender is ours and cannot be gone.
        let mut count = self.0.subscribe();
        let _none = count.wait_for(|count| *count == 0).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Takes the API's connections.
pub struct Door {
    /// Who answers.
    pub gateway: Arc<Gateway>,
    /// How many there are.
    pub connections: Connections,
    /// How long clients may take.
    pub tolerance: Tolerance,
    /// Turns true when the time to drain is over.
    pub cut: watch::Receiver<bool>,
}

/// What a client speaks.
enum Protocol {
    Http1,
    Http2,
}

/// What came of waiting for a request's head.
enum Heard {
    Request,
    Nothing,
    Nonsense(String),
}

#[async_trait]
impl ServerApp for Door {
    /// Pingora's task has room for a handshake, 9 KB that a connection would keep to its end. It gets a task of its
    /// own, which the shutdown waits for as for every connection that is open.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (door, shutdown) = (Arc::clone(self), shutdown.clone());
        let open = self.connections.open();
        tokio::spawn(async move {
            door.connection(stream, &shutdown).await;
            drop(open);
        });
        None
    }
}

impl Door {
    /// Serves one connection to its end.
    async fn connection(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) {
        match self.protocol(&mut stream, shutdown).await {
            Some(Protocol::Http1) => self.http1(stream, shutdown).await,
            // Boxed, as all that is rare here: every connection's task would have room for it.
            Some(Protocol::Http2) => Box::pin(self.http2(stream, shutdown.clone())).await,
            None => {}
        }
    }

    /// The protocol: as agreed on with TLS, else by the first bytes; none when they do not come.
    async fn protocol(&self, stream: &mut Stream, shutdown: &ShutdownWatch) -> Option<Protocol> {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return Some(Protocol::Http2);
        }
        if stream.get_ssl_digest().is_some() {
            return Some(Protocol::Http1);
        }
        let mut start = [0; PREFACE_START];
        tokio::select! {
            biased;
            peeked = timeout(self.tolerance.idle, stream.try_peek(&mut start)) => peeked.ok()?.ok()?,
            () = last_call(shutdown) => return None,
        };
        if !PREFACE.starts_with(&start) {
            return Some(Protocol::Http1);
        }
        let mut preface = [0; PREFACE.len()];
        timeout(self.tolerance.idle, stream.try_peek(&mut preface)).await.ok()?.ok()?;
        Some(if preface == *PREFACE { Protocol::Http2 } else { Protocol::Http1 })
    }

    /// One request after the other.
    async fn http1(&self, stream: Stream, shutdown: &ShutdownWatch) {
        let mut session = Box::new(ServerSession::new_http1(stream));
        session.set_keepalive(KEEP_ALIVE);
        session.set_pipelining_enabled(true);
        while let Some(reused) = self.request(session, shutdown).await {
            let (stream, settings) = reused.consume();
            session = Box::new(ServerSession::new_http1(stream));
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }

    /// Each request in a task of its own; the connection goes on when one of them fails.
    async fn http2(self: &Arc<Self>, stream: Stream, mut shutdown: ShutdownWatch) {
        let mut options = default_h2_options();
        options.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let shaken = timeout(self.tolerance.idle, handshake(stream, Some(options))).await;
        let Ok(Ok(mut connection)) = shaken else {
            return;
        };
        let digest = Arc::new(Digest::default());
        let mut requests = JoinSet::new();
        let (mut malformed, mut closing) = (0, false);
        loop {
            let accepted = tokio::select! {
                biased;
                () = shut_down(&mut shutdown), if !closing => {
                    connection.graceful_shutdown();
                    closing = true;
                    continue;
                }
                accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
                _ = requests.join_next(), if !requests.is_empty() => continue,
                () = sleep(self.tolerance.idle), if requests.is_empty() => return,
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    let (door, shutdown) = (Arc::clone(self), shutdown.clone());
                    requests.spawn(async move {
                        let session = Box::new(ServerSession::new_http2(session));
                        drop(door.request(session, &shutdown).await);
                    });
                }
                Ok(Some(H2Accept::Rejected)) if malformed < MOST_MALFORMED => malformed += 1,
                _ => break,
            }
        }
        // They see that the client is gone, and settle what they had begun.
        while requests.join_next().await.is_some() {}
    }

    /// Serves one request; gives the connection back where it can serve another.
    async fn request(&self, mut session: Box<ServerSession>, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
        match self.head(&mut session, shutdown).await {
            Heard::Request => {}
            Heard::Nothing => return None,
            Heard::Nonsense(why) => {
                Box::pin(self.refuse(session, &why)).await;
                return None;
            }
        }
        // Whoever asked for no further request, or framed this one ambiguously, gets no keep-alive.
        if session.get_keepalive().is_some() {
            session.set_keepalive(KEEP_ALIVE.filter(|_| !*shutdown.borrow()));
        }
        let mut client = Client::new(session, self.tolerance.stall);
        let mut cut = self.cut.clone();
        // Boxed: a connection that waits for its next request does not keep the room of the last one.
        let served = exchange::boxed(|| exchange::serve(&self.gateway, &mut client));
        if either(served, pin!(shut_down(&mut cut))).await == Either::Second(()) {
            Box::pin(exchange::cut(&mut client)).await;
        }
        let session = client.into_reusable().await?;
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }

    /// Answers what is no request.
    async fn refuse(&self, session: Box<ServerSession>, why: &str) {
        let mut client = Client::headless(session, self.tolerance.stall);
        exchange::refuse_nonsense(&self.gateway, &mut client, why).await;
        client.into_reusable().await;
    }

    async fn head(&self, session: &mut ServerSession, shutdown: &ShutdownWatch) -> Heard {
        let read = tokio::select! {
            biased;
            read = timeout(self.tolerance.idle, session.read_request()) => read,
            () = last_call(shutdown) => return Heard::Nothing,
        };
        match read {
            Ok(Ok(true)) => Heard::Request,
            Ok(Err(error)) if *error.etype() == ErrorType::InvalidHTTPHeader => Heard::Nonsense(reason(&error)),
            _ => Heard::Nothing,
        }
    }
}

/// What Pingora says of a head is shown up to this length; what is longer shows the head itself.
const LONGEST_REASON: usize = 120;

/// Why a head cannot be read: what Pingora says, or, where that shows the head itself, what its parser says.
fn reason(error: &pingora::Error) -> String {
    let is_reason = |text: &String| !text.starts_with("buf: ") && text.len() <= LONGEST_REASON;
    let told = error.context.as_ref().map(|context| context.as_str().to_owned()).filter(is_reason);
    let parsers = || error.cause.as_ref().map(ToString::to_string).filter(is_reason);
    told.or_else(parsers).unwrap_or_else(|| "its head is malformed or too large".to_owned())
}

/// Resolves when it turns true.
async fn shut_down(shutdown: &mut watch::Receiver<bool>) {
    // An error means that nobody can tell any more: the process ends.
    let _told = shutdown.wait_for(|closing| *closing).await;
}

/// Resolves a moment after the process began to shut down.
async fn last_call(shutdown: &ShutdownWatch) {
    shut_down(&mut shutdown.clone()).await;
    sleep(LAST_CALL).await;
}
