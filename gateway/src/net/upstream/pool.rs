//! Connections: from the pool if one lies there, else made, over one address after the other,
//! within the connect timeout.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::v2::Connector;
use pingora::protocols::Stream;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v2::client::Http2Session;
use tokio::time::{Instant, timeout, timeout_at};

use super::endpoint::{Endpoint, Place, Version};
use super::fault::{Cause, Fault};
use crate::net::dns::Resolver;
use crate::net::tls::{TrustError, check_system_roots};

/// Idle connections kept for all providers together. A pool smaller than the concurrency is the
/// worst setting there is (each request then pays a handshake); an idle one costs a descriptor.
const MOST_IDLE: usize = 8192;
/// How long an idle connection is kept: load balancers in front of providers close theirs after 60 s
/// and more, and a connection that dies first at this end is never sent a request in vain.
pub(super) const IDLE: Duration = Duration::from_secs(55);

/// All connections to providers.
pub(super) struct Pool {
    connector: Arc<Connector>,
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
    pub(super) place: Arc<Place>,
    pub(super) reused: bool,
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
        let mut options = ConnectorOptions::new(MOST_IDLE);
        if roots.is_err() {
            // Pingora panics without usable roots. With none it believes nobody, which is right:
            // `line` refuses such endpoints by name, and those with a `ca_file` need no roots.
            options.ca_file = Some("/dev/null".into());
        }
        Pool {
            connector: Arc::new(Connector::new(Some(options))),
            resolver,
            roots,
        }
    }

    pub(super) fn roots(&self) -> Result<(), &TrustError> {
        self.roots.as_ref().copied()
    }

    pub(super) fn connector(&self) -> Arc<Connector> {
        self.connector.clone()
    }

    /// A line to the endpoint: an idle one, or a new one within `limit`, trying one address after
    /// the other.
    pub(super) async fn line(
        &self,
        endpoint: &Endpoint,
        freshness: Freshness,
        limit: Duration,
    ) -> Result<Taken, Fault> {
        let deadline = Instant::now() + limit;
        let tries = timeout_at(deadline, endpoint.places(&self.resolver))
            .await
            .map_err(|_| Fault::connect_timeout())??;
        let mut fault = Fault::connect_timeout();
        for (tried, place) in tries.iter().enumerate() {
            if freshness == Freshness::Any
                && let Some(line) = self.idle(endpoint, place).await
            {
                return Ok(Taken::reused(line, place));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let untried = u32::try_from(tries.len() - tried).unwrap_or(u32::MAX);
            // Boxed: the rare path would make every request's future large.
            match Box::pin(self.connect(endpoint, place, left / untried)).await {
                Ok(taken) => return Ok(taken),
                Err(failed) => fault = failed.at(place.address),
            }
        }
        Err(fault)
    }

    /// Gives a connection back that can carry another request.
    pub(super) fn release(&self, stream: Stream, place: &Place) {
        self.connector
            .transport()
            .release_stream(stream, place.key, Some(IDLE));
    }

    async fn idle(&self, endpoint: &Endpoint, place: &Place) -> Option<Line> {
        if endpoint.version != Version::Http1 {
            let session = self.connector.reused_http_session(&place.peer).await;
            if let Ok(Some(session)) = session {
                return Some(Line::Http2(Box::new(session)));
            }
        }
        if endpoint.version != Version::Http2 {
            let stream = self.connector.transport().reused_stream(&place.peer).await;
            return stream.map(Line::Http1);
        }
        None
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        place: &Arc<Place>,
        limit: Duration,
    ) -> Result<Taken, Fault> {
        self.check_roots(endpoint)?;
        let connected = timeout(limit, self.connect_to(endpoint, place)).await;
        let connected = connected.unwrap_or_else(|_| Err(Fault::connect_timeout()));
        if connected.is_ok() {
            place.trust();
        } else {
            place.distrust();
        }
        connected
    }

    fn check_roots(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        match &self.roots {
            Err(why) if endpoint.tls && !endpoint.own_authorities => {
                Err(Fault::new(Cause::Tls, why.to_string()))
            }
            _ => Ok(()),
        }
    }

    async fn connect_to(&self, endpoint: &Endpoint, place: &Arc<Place>) -> Result<Taken, Fault> {
        if endpoint.version == Version::Http1 {
            return self.connect_http1(place).await;
        }
        let opening = if place.speaks_http1.load(Ordering::Relaxed) {
            None
        } else {
            Some(place.opening.lock().await)
        };
        // While this request waited, another may have made the connection that both can use.
        if opening.is_some()
            && let Ok(Some(session)) = self.connector.reused_http_session(&place.peer).await
        {
            return Ok(Taken::reused(Line::Http2(Box::new(session)), place));
        }
        self.connect_http2(endpoint, place).await
    }

    async fn connect_http1(&self, place: &Arc<Place>) -> Result<Taken, Fault> {
        let stream = self.connector.transport().new_stream(&place.peer).await;
        let stream = stream.map_err(|error| Fault::connecting(&error))?;
        Ok(Taken::new(Line::Http1(stream), place))
    }

    async fn connect_http2(&self, endpoint: &Endpoint, place: &Arc<Place>) -> Result<Taken, Fault> {
        let session = self.connector.new_http_session::<_, ()>(&place.peer).await;
        match session.map_err(|error| Fault::connecting(&error))? {
            HttpSession::H2(session) => Ok(Taken::new(Line::Http2(Box::new(session)), place)),
            HttpSession::H1(session) if endpoint.version == Version::Auto => {
                place.speaks_http1.store(true, Ordering::Relaxed);
                Ok(Taken::new(Line::Http1(session.into_inner()), place))
            }
            _ => Err(Fault::new(
                Cause::Tls,
                "the provider does not speak the configured HTTP version",
            )),
        }
    }
}

impl Taken {
    fn new(line: Line, place: &Arc<Place>) -> Taken {
        Taken {
            line,
            place: place.clone(),
            reused: false,
        }
    }

    fn reused(line: Line, place: &Arc<Place>) -> Taken {
        Taken {
            reused: true,
            ..Taken::new(line, place)
        }
    }
}
