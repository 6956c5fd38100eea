//! Connections: from the pool if one lies there, else made, over one address after the other,
//! within the connect timeout.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::v2::Connector;
use pingora::protocols::Stream;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v2::client::Http2Session;
use tokio::time::{Instant, timeout, timeout_at};

use super::endpoint::{Endpoint, Place, Tries, Version};
use super::fault::{Cause, Fault};
use super::shelf::{IDLE, Shelf, Shelves};
use crate::net::dns::Resolver;
use crate::net::tls::{Authorities, TrustError, check_system_roots};

/// Idle HTTP/2 connections kept; each carries up to a hundred requests at once.
const MOST_IDLE_HTTP2: usize = 512;
/// Sets of private authorities that are remembered; a configuration has a few, a reload may change one.
const MOST_TRUSTS: usize = 16;

/// All connections to providers.
pub(super) struct Pool {
    /// Believes the system's roots.
    connector: Arc<Connector>,
    /// One for each set of private authorities, by fingerprint, the latest last. Giving pingora the
    /// certificates with each peer would be simpler, but it then makes a TLS configuration for each
    /// connection: 24 KiB more for a held stream, and no session is ever resumed.
    private: Mutex<Vec<(u64, Arc<Connector>)>>,
    shelves: Arc<Shelves>,
    resolver: Resolver,
    roots: Result<(), TrustError>,
}

/// A connection, or a stream on one, ready for a request.
pub(super) enum Line {
    Http1(Stream),
    Http2(Box<Http2Session>),
}

/// A line, where it leads to, and whether it has carried a request before.
pub(super) struct Taken {
    pub(super) line: Line,
    pub(super) way: Way,
    pub(super) reused: bool,
}

/// Where a line leads, and where it goes when it is done with.
pub(super) struct Way {
    place: Arc<Place>,
    connector: Arc<Connector>,
    shelf: Arc<Shelf>,
}

/// Whether a connection that lay idle will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    Any,
    New,
}

impl Pool {
    /// Reads the system's root certificates, so it blocks.
    pub(super) fn new(resolver: Resolver) -> Pool {
        let roots = check_system_roots();
        let mut options = ConnectorOptions::new(MOST_IDLE_HTTP2);
        if roots.is_err() {
            // Pingora panics without usable roots. With none it believes nobody, which is right:
            // `connector` refuses such endpoints by name, and those with a `ca_file` need no roots.
            options.ca_file = Some("/dev/null".into());
        }
        Pool {
            connector: Arc::new(Connector::new(Some(options))),
            private: Mutex::default(),
            shelves: Arc::default(),
            resolver,
            roots,
        }
    }

    pub(super) fn roots(&self) -> Result<(), &TrustError> {
        self.roots.as_ref().copied()
    }

    fn connector(&self, endpoint: &Endpoint) -> Result<Arc<Connector>, Fault> {
        match (&endpoint.authorities, &self.roots) {
            (Some(authorities), _) if endpoint.tls => self.private(authorities),
            (None, Err(why)) if endpoint.tls => Err(Fault::new(Cause::Tls, why.to_string())),
            _ => Ok(self.connector.clone()),
        }
    }

    fn private(&self, authorities: &Authorities) -> Result<Arc<Connector>, Fault> {
        let mut known = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(key, _)| *key == authorities.fingerprint);
        if let Some((_, connector)) = found {
            return Ok(connector.clone());
        }
        let connector = Arc::new(believing(authorities)?);
        if known.len() >= MOST_TRUSTS {
            known.remove(0);
        }
        known.push((authorities.fingerprint, connector.clone()));
        Ok(connector)
    }

    /// A line to the endpoint: an idle one, or a new one within `limit`, trying one address after
    /// the other.
    pub(super) async fn line(
        &self,
        endpoint: &Endpoint,
        freshness: Freshness,
        limit: Duration,
    ) -> Result<Taken, Fault> {
        // Mostly an idle line of a known address is taken, which asks for no time.
        let mut deadline = None;
        let mut deadline = || *deadline.get_or_insert_with(|| Instant::now() + limit);
        let lines = Lines { endpoint, connector: self.connector(endpoint)?, shelves: &self.shelves };
        let tries = match endpoint.known() {
            Some(tries) => tries,
            None => self.find(endpoint, deadline()).await?,
        };
        let mut fault = Fault::connect_timeout();
        for (tried, place) in tries.iter().enumerate() {
            if freshness == Freshness::Any
                && let Some(taken) = lines.idle(place).await
            {
                return Ok(taken);
            }
            let left = deadline().saturating_duration_since(Instant::now());
            let untried = u32::try_from(tries.len() - tried).unwrap_or(u32::MAX);
            // Boxed: the rare path would make every request's future large.
            match Box::pin(lines.connect(place, left / untried)).await {
                Ok(taken) => return Ok(taken),
                Err(failed) => fault = failed.at(place.address),
            }
        }
        Err(fault)
    }

    async fn find(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Tries, Fault> {
        let found = timeout_at(deadline, endpoint.find(&self.resolver)).await;
        found.unwrap_or_else(|_| Err(Fault::connect_timeout()))
    }
}

impl Way {
    pub(super) fn address(&self) -> SocketAddr {
        self.place.address
    }

    /// Gives a connection back that can carry another request.
    pub(super) fn release(&self, stream: Stream) {
        self.shelf.put(stream);
    }

    /// Gives a stream back, whose connection goes idle with its last one.
    pub(super) fn release_http2(&self, session: Http2Session) {
        let peer = &self.place.peer;
        self.connector.release_http_session(session, peer, Some(IDLE));
    }
}

/// A connector that believes these authorities only. Reads their file, a few kilobytes, once.
fn believing(authorities: &Authorities) -> Result<Connector, Fault> {
    let mut options = ConnectorOptions::new(MOST_IDLE_HTTP2);
    options.ca_file = authorities.file.to_str().map(str::to_owned);
    // The file was looked over when the endpoint was built. Should it have been broken since,
    // pingora's loader panics, and that is one request's fault and not the process's end.
    let made = std::panic::catch_unwind(AssertUnwindSafe(|| Connector::new(Some(options))));
    made.map_err(|_| Fault::new(Cause::Tls, "the provider's `ca` cannot be read any more"))
}

/// The lines to one endpoint.
struct Lines<'a> {
    endpoint: &'a Endpoint,
    connector: Arc<Connector>,
    shelves: &'a Arc<Shelves>,
}

impl Lines<'_> {
    async fn idle(&self, place: &Arc<Place>) -> Option<Taken> {
        if self.endpoint.version != Version::Http1
            && let Some(taken) = self.idle_http2(place).await
        {
            return Some(taken);
        }
        if self.endpoint.version == Version::Http2 {
            return None;
        }
        let stream = place.shelf(self.shelves).take()?;
        Some(self.reused(Line::Http1(stream), place))
    }

    async fn idle_http2(&self, place: &Arc<Place>) -> Option<Taken> {
        let session = self.connector.reused_http_session(&place.peer).await.ok()??;
        Some(self.reused(Line::Http2(Box::new(session)), place))
    }

    async fn connect(&self, place: &Arc<Place>, limit: Duration) -> Result<Taken, Fault> {
        let connected = timeout(limit, self.connect_to(place)).await;
        let connected = connected.unwrap_or_else(|_| Err(Fault::connect_timeout()));
        if connected.is_ok() {
            place.trust();
        } else {
            place.distrust();
        }
        connected
    }

    async fn connect_to(&self, place: &Arc<Place>) -> Result<Taken, Fault> {
        if self.endpoint.version == Version::Http1 {
            return self.connect_http1(place).await;
        }
        let opening = if place.speaks_http1.load(Ordering::Relaxed) { None } else { Some(place.opening.lock().await) };
        // While this request waited, another may have made the connection that both can use.
        if opening.is_some()
            && let Some(taken) = self.idle_http2(place).await
        {
            return Ok(taken);
        }
        self.connect_http2(place).await
    }

    async fn connect_http1(&self, place: &Arc<Place>) -> Result<Taken, Fault> {
        let stream = self.connector.transport().new_stream(&place.peer).await;
        let stream = stream.map_err(|error| Fault::connecting(&error))?;
        Ok(self.taken(Line::Http1(stream), place))
    }

    async fn connect_http2(&self, place: &Arc<Place>) -> Result<Taken, Fault> {
        let session = self.connector.new_http_session::<_, ()>(&place.peer).await;
        let line = match session.map_err(|error| Fault::connecting(&error))? {
            HttpSession::H2(session) => Line::Http2(Box::new(session)),
            HttpSession::H1(session) if self.endpoint.version == Version::Auto => {
                place.speaks_http1.store(true, Ordering::Relaxed);
                Line::Http1(session.into_inner())
            }
            _ => {
                let detail = "the provider does not speak the configured HTTP version";
                return Err(Fault::new(Cause::Tls, detail));
            }
        };
        Ok(self.taken(line, place))
    }

    fn taken(&self, line: Line, place: &Arc<Place>) -> Taken {
        let shelf = place.shelf(self.shelves).clone();
        let way = Way { place: place.clone(), connector: self.connector.clone(), shelf };
        Taken { line, way, reused: false }
    }

    fn reused(&self, line: Line, place: &Arc<Place>) -> Taken {
        Taken { reused: true, ..self.taken(line, place) }
    }
}
