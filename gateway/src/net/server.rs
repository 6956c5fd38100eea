//! The listening side: Pingora's listeners and codecs below, one [`exchange`](crate::exchange) a request above.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use crate::exchange;
use crate::gateway::Gateway;
use crate::net::client::Client;

/// How long a connection may be idle between requests, and how long a head may take to come: a trickling client is cut.
const IDLE: Duration = Duration::from_secs(75);

/// What listens: hands each request to the gateway.
pub struct Door {
    gateway: Arc<Gateway>,
    options: HttpServerOptions,
}

impl Door {
    /// A door of `gateway`.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(IDLE);
        Self { gateway, options }
    }
}

#[async_trait]
impl HttpServerApp for Door {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        session.set_pipelining_enabled(true);
        if !read_head(&mut session, shutdown).await {
            return None;
        }
        let closing = *shutdown.borrow();
        session.set_keepalive(if closing { None } else { Some(IDLE.as_secs()) });
        let mut client = Client::new(session);
        exchange::serve(&self.gateway, &mut client).await;
        let session = client.into_reusable().await?;
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// Reads a request's head; false when the client left, was too slow, or the server is shutting down.
async fn read_head(session: &mut ServerSession, shutdown: &ShutdownWatch) -> bool {
    let mut shutdown = shutdown.clone();
    tokio::select! {
        biased;
        read = tokio::time::timeout(IDLE, session.read_request()) => matches!(read, Ok(Ok(true))),
        _ = shutdown.wait_for(|closing| *closing) => false,
    }
}
