//! The listening side: Pingora's server, listeners, TLS and codecs below; the [`door`](crate::net::door) above; and the
//! end of the process, when it is told to end.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::listeners::ListenerConfig;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::Service as Servicing;
use pingora::services::listening::Service;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::admin::Admin;
use crate::gateway::Gateway;
use crate::net::door::{Connections, Door, Tolerance};
use crate::net::handover::Handover;
use crate::net::sockets::Sockets;
use crate::net::tls::Identity;

/// What a connection reads and writes through. Pingora's session reads straight into its own buffers, so a second one
/// below it would only cost memory; writes are gathered, so that head and body of a small answer leave together.
const BUFFERS: L4BufferSettings = L4BufferSettings { read: Some(0), write: Some(4 * 1024) };

/// A connection that was accepted just now is seen by then.
const SETTLE: Duration = Duration::from_millis(100);

/// How long it may take to tell callers that their requests are cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The address.
    pub address: SocketAddr,
    /// What it shows to clients, over TLS.
    pub identity: Option<Arc<Identity>>,
}

impl Listening {
    /// As a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.identity.is_some() { "https" } else { "http" }, self.address)
    }

    fn config(&self, protocols: Protocols) -> Result<ListenerConfig, String> {
        let config = ListenerConfig::tcp(self.address.to_string()).l4_buffer(BUFFERS);
        let Some(identity) = &self.identity else {
            return Ok(config);
        };
        let mut tls = TlsSettings::intermediate("", "").map_err(|error| error.to_string())?;
        tls.set_cert_resolver(Arc::clone(identity) as Arc<_>);
        if protocols == Protocols::Http2Too {
            tls.enable_h2();
        }
        Ok(config.tls(tls))
    }
}

/// What is offered with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocols {
    Http1,
    Http2Too,
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
    /// How long clients may take.
    pub tolerance: Tolerance,
    /// Where sockets are handed to a newer process.
    pub handover: Handover,
}

impl Settings {
    /// The addresses of all listeners.
    pub fn addresses(&mut self) -> impl Iterator<Item = &mut SocketAddr> {
        self.api.iter_mut().chain(&mut self.admin).map(|listening| &mut listening.address)
    }
}

/// Serves until the process is told to end and its requests have ended, or `drain` has passed. Calls `ready` once
/// clients are served and signals are heard.
///
/// # Errors
/// A listener that cannot be made.
pub fn run(
    gateway: &Arc<Gateway>,
    admin: Admin,
    settings: &Settings,
    (sockets, ears): (Sockets, Ears),
    ready: impl Fn() + Send + Sync + 'static,
) -> Result<(), String> {
    let configuration = ServerConf {
        // The drain is over when `Signals` says so.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let handles = sockets.handles().map_err(|error| format!("cannot listen: {error}"))?;
    let handles: Arc<[_]> = handles.into();
    let (stop_api, stop_admin, cut) = (watch::Sender::new(false), watch::Sender::new(false), watch::Sender::new(false));
    let connections = Connections::default();
    let door = Door {
        gateway: Arc::clone(gateway),
        connections: connections.clone(),
        tolerance: settings.tolerance,
        cut: cut.subscribe(),
    };
    let mut api = Service::new("api".to_owned(), door);
    for listening in &settings.api {
        api.add_listener(listening.config(Protocols::Http2Too)?);
    }
    api.threads = Some(settings.threads);
    server.add_service(Served { service: api, handles: Arc::clone(&handles), stop: stop_api.subscribe() });
    if let Some(listening) = &settings.admin {
        let mut service = Service::new("admin".to_owned(), AdminDoor(admin));
        service.add_listener(listening.config(Protocols::Http1)?);
        service.threads = Some(1);
        server.add_service(Served { service, handles: Arc::clone(&handles), stop: stop_admin.subscribe() });
    }
    let signals = Signals {
        ears: tokio::sync::Mutex::new(ears),
        gateway: Arc::clone(gateway),
        sockets,
        handover: settings.handover.clone(),
        drain: settings.drain,
        connections,
        stop_api,
        stop_admin,
        cut,
        ready: Box::new(ready),
    };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    Ok(())
}

/// A service with our sockets in the place of Pingora's own, which ends when we say so.
struct Served<A> {
    service: Service<A>,
    handles: Arc<[(String, RawFd)]>,
    stop: ShutdownWatch,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Servicing for Served<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _pingoras: ShutdownWatch, listeners_per_fd: usize) {
        if let Some(fds) = &fds {
            let mut table = fds.lock();
            self.handles.iter().for_each(|(address, handle)| table.add(address.clone(), *handle));
        }
        self.service.start_service(fds, self.stop.clone(), listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
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

/// SIGTERM and SIGINT drain, SIGQUIT hands the sockets over and drains; once more SIGTERM or SIGINT cuts the drain
/// short.
struct Signals {
    ears: tokio::sync::Mutex<Ears>,
    gateway: Arc<Gateway>,
    sockets: Sockets,
    handover: Handover,
    drain: Duration,
    connections: Connections,
    stop_api: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    ready: Box<dyn Fn() + Send + Sync>,
}

/// What the process was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    End,
    HandOver,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let mut ears = self.ears.lock().await;
        (self.ready)();
        while ears.next().await == Told::HandOver {
            let over = tokio::select! {
                () = ears.end() => true,
                handed_over = self.hand_over() => handed_over,
            };
            if over {
                break;
            }
        }
        self.drain(&mut ears).await;
        // Pingora calls it an error when nobody is left to say so.
        self.stop_admin.send_replace(true);
        ShutdownSignal::GracefulTerminate
    }
}

impl Signals {
    /// Whether the next process serves; without one there is nothing to end for.
    async fn hand_over(&self) -> bool {
        tracing::info!("handing the sockets over");
        let serves = async { self.handover.send(&self.sockets).await?.serves().await };
        if let Err(why) = serves.await {
            tracing::error!("{why}. Serving on.");
            return false;
        }
        // The next process answers there now. Without one the admin listener serves until the very end, so that it can
        // be seen how far the drain is.
        self.stop_admin.send_replace(true);
        true
    }

    /// Takes no connection any more, and waits for the requests in flight.
    async fn drain(&self, ears: &mut Ears) {
        self.gateway.draining.store(true, Ordering::Release);
        let in_flight = || self.gateway.metrics.in_flight.get();
        tracing::info!(in_flight = in_flight(), "draining");
        self.sockets.close();
        self.stop_api.send_replace(true);
        let idle = async {
            sleep(SETTLE).await;
            self.connections.none().await;
        };
        tokio::select! {
            () = idle => return tracing::info!("drained"),
            () = sleep(self.drain) => tracing::warn!(in_flight = in_flight(), "the time to drain is over: requests are cut"),
            () = ears.end() => tracing::warn!(in_flight = in_flight(), "told again to end: requests are cut"),
        }
        self.cut.send_replace(true);
        let _told_or_too_slow = timeout(LAST_WORDS, self.connections.none()).await;
    }
}

/// The signals that end a process.
#[derive(Debug)]
pub struct Ears {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Ears {
    /// From now on they are heard. To be called within a runtime, though any other hears as well.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits until the process is told to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.quit.recv() => Told::HandOver,
        }
    }
}
