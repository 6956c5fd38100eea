//! The listening side: Pingora's server, listeners, TLS and codecs below; one [`exchange`](crate::exchange) a request above.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::listeners::ListenerConfig;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::listening::Service;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::Admin;
use crate::exchange;
use crate::gateway::Gateway;
use crate::net::client::Client;

/// How long a connection may be idle between requests, and how long a head may take to come: a trickling client is cut.
const IDLE: Duration = Duration::from_secs(75);

/// What a connection reads and writes through. Pingora's session reads straight into its own buffers, so a second one
/// below it would only cost memory; writes are gathered, so that head and body of a small answer leave together.
const BUFFERS: L4BufferSettings = L4BufferSettings { read: Some(0), write: Some(8 * 1024) };

/// The old process goes on accepting for so long after it handed its sockets over (Pingora's constant).
const HAND_OVER: Duration = Duration::from_secs(5);

/// How often a draining process looks whether the last request has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The address.
    pub address: SocketAddr,
    /// Certificate chain and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl Listening {
    /// With a free port in the place of port 0.
    ///
    /// # Errors
    /// No port is free.
    pub fn with_port(mut self) -> io::Result<Self> {
        if self.address.port() == 0 {
            self.address = TcpListener::bind(self.address)?.local_addr()?;
        }
        Ok(self)
    }

    /// As a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    fn config(&self) -> Result<ListenerConfig, String> {
        let config = ListenerConfig::tcp(self.address.to_string()).l4_buffer(BUFFERS);
        let Some((certificate, key)) = &self.tls else {
            return Ok(config);
        };
        let path = |path: &PathBuf| path.to_str().map(str::to_owned).ok_or("a certificate's path is not UTF-8");
        let mut tls = TlsSettings::intermediate(&path(certificate)?, &path(key)?).map_err(|error| error.to_string())?;
        tls.enable_h2();
        Ok(config.tls(tls))
    }
}

/// How the process serves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The API's listeners.
    pub api: Vec<Listening>,
    /// The admin listener.
    pub admin: Option<Listening>,
    /// Worker threads of the API.
    pub threads: usize,
    /// How long requests may take to end after SIGTERM.
    pub drain: Duration,
    /// Where sockets are handed to a newer process.
    pub upgrade_socket: PathBuf,
    /// Whether to take the sockets of an older process.
    pub upgrade: bool,
}

/// Serves until the process is told to end and its requests have ended, or `drain` has passed.
///
/// # Errors
/// A listener that cannot be made.
pub fn run(gateway: &Arc<Gateway>, admin: Admin, settings: &Settings) -> Result<(), String> {
    let mut server = Server::new_with_opt_and_conf(settings.options(), settings.configuration());
    server.bootstrap();
    let mut api = Service::new("api".to_owned(), Door::new(Arc::clone(gateway)));
    for listening in &settings.api {
        api.add_listener(listening.config()?);
    }
    api.threads = Some(settings.threads);
    server.add_service(api);
    if let Some(listening) = &settings.admin {
        let mut service = Service::new("admin".to_owned(), AdminDoor(admin));
        service.add_listener(listening.config()?);
        service.threads = Some(1);
        server.add_service(service);
    }
    let signals = Signals { gateway: Arc::clone(gateway), drain: settings.drain };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    Ok(())
}

impl Settings {
    fn options(&self) -> Opt {
        Opt { upgrade: self.upgrade, daemon: false, nocapture: false, test: false, conf: None }
    }

    fn configuration(&self) -> ServerConf {
        ServerConf {
            upgrade_sock: self.upgrade_socket.to_string_lossy().into_owned(),
            // The drain is over earlier when no request is left: see `Signals`.
            grace_period_seconds: Some(self.drain.as_secs() + u64::from(self.drain.subsec_nanos() > 0)),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        }
    }
}

/// Hands each request of the API to the gateway.
struct Door {
    gateway: Arc<Gateway>,
    options: HttpServerOptions,
}

impl Door {
    fn new(gateway: Arc<Gateway>) -> Self {
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

/// Hands each connection of the admin listener to the control plane.
struct AdminDoor(Admin);

#[async_trait]
impl ServerApp for AdminDoor {
    async fn process_new(self: &Arc<Self>, stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        self.0.serve(stream).await;
        None
    }
}

/// SIGTERM and SIGINT drain, SIGQUIT hands the sockets over and drains.
struct Signals {
    gateway: Arc<Gateway>,
    drain: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let wait = |kind| async move {
            match signal(kind) {
                Ok(mut signal) => drop(signal.recv().await),
                Err(error) => {
                    tracing::error!(%error, "a signal cannot be received");
                    std::future::pending::<()>().await;
                }
            }
        };
        let handing_over = tokio::select! {
            () = wait(SignalKind::terminate()) => false,
            () = wait(SignalKind::interrupt()) => false,
            () = wait(SignalKind::quit()) => true,
        };
        self.drain(if handing_over { HAND_OVER } else { Duration::ZERO });
        if handing_over { ShutdownSignal::GracefulUpgrade } else { ShutdownSignal::GracefulTerminate }
    }
}

impl Signals {
    /// Ends the process as soon as no request is left; Pingora's own grace period would always be slept out in full.
    fn drain(&self, after: Duration) {
        let gateway = Arc::clone(&self.gateway);
        let until = Instant::now() + after + self.drain;
        tracing::info!(in_flight = gateway.metrics.in_flight.get(), "draining");
        let ending = std::thread::Builder::new().name("drain".to_owned()).spawn(move || {
            std::thread::sleep(after);
            gateway.draining.store(true, Ordering::Release);
            // A connection that was accepted just now has its head read first.
            std::thread::sleep(LOOK * 5);
            while gateway.metrics.in_flight.get() > 0 && Instant::now() < until {
                std::thread::sleep(LOOK);
            }
            if gateway.metrics.in_flight.get() <= 0 {
                gateway.close();
                std::process::exit(0);
            }
        });
        if let Err(error) = ending {
            tracing::error!(%error, "the drain cannot be watched; it takes its full time");
        }
    }
}
