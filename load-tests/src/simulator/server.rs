//! The simulator's listener: its own thread and runtime, so that it runs beside any other runtime or none.
//! HTTP/1.1 and HTTP/2 with prior knowledge on one port; with a certificate, TLS with ALPN.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::account::{Account, Books, Recorded};
use super::exchange::exchange;
use super::served::Served;

/// Connections that may wait to be accepted: thousands of streams begin at once in a load test.
const BACKLOG: u32 = 4096;

/// Streams that one HTTP/2 connection may hold.
const MAX_STREAMS: u32 = 10_000;

/// How the simulator listens.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where; port 0 takes a free one.
    pub listen: SocketAddr,
    /// With TLS, and which.
    pub tls: Option<Tls>,
    /// Worker threads.
    pub threads: usize,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), tls: None, threads: 1 }
    }
}

/// A running simulator; it stops when this falls.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    books: Arc<Books>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a simulator. It may be called inside a runtime or outside; it returns when the port is open.
///
/// # Errors
/// The address cannot be bound, or the certificate or key is not readable.
pub fn start(config: Config) -> io::Result<Simulator> {
    let tls = config.tls.as_ref().map(acceptor).transpose()?;
    let books = Arc::new(Books::new());
    let (stop, stopped) = oneshot::channel();
    let (ready, bound) = mpsc::sync_channel(1);
    let served = books.clone();
    let thread = std::thread::Builder::new().name("simulator".to_owned()).spawn(move || {
        let outcome = runtime(config.threads).map(|runtime| {
            runtime.block_on(listen(config.listen, tls, served, &ready, stopped));
            runtime.shutdown_background();
        });
        if let Err(error) = outcome {
            // Whoever started it has gone, if nobody listens any more.
            let _ = ready.send(Err(error));
        }
    })?;
    let address = bound.recv().map_err(|_| io::Error::other("the simulator's thread ended"))??;
    Ok(Simulator { address, books, stop: Some(stop), thread: Some(thread) })
}

impl Simulator {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What it served so far.
    pub fn account(&self) -> Account {
        self.books.account()
    }

    /// The last 256 requests, the oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        self.books.requests()
    }

    /// What was served of each request that has ended and that its caller named, by `user` or `metadata.user_id`; the
    /// last hundred thousand, the oldest first.
    pub fn served(&self) -> Vec<Served> {
        self.books.served()
    }

    /// Waits until the account is as `wanted`, and returns it. It waits for ever if that never comes.
    pub async fn until(&self, wanted: impl Fn(&Account) -> bool) -> Account {
        self.books.until(wanted).await
    }

    /// Forgets the counts and the requests.
    pub fn reset(&self) {
        self.books.reset_account();
        self.books.reset_requests();
    }

    /// Closes the port and every connection.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been printed there.
            let _ = thread.join();
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.end();
    }
}

fn runtime(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

async fn listen(
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    books: Arc<Books>,
    ready: &mpsc::SyncSender<io::Result<SocketAddr>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = match bind(address) {
        Ok(listener) => listener,
        Err(error) => return drop(ready.send(Err(error))),
    };
    if ready.send(listener.local_addr()).is_err() {
        return;
    }
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        // Out of file descriptors, or a peer that left at once: the next may do better.
        let Ok((stream, _)) = accepted else { continue };
        tokio::spawn(connection(stream, tls.clone(), books.clone()));
    }
}

fn bind(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, books: Arc<Books>) {
    let _open = books.connection();
    // Without it events are held back; where it cannot be set the connection is already gone.
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(TokioIo::new(stream), books).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(TokioIo::new(stream), books).await;
            }
        }
    }
}

async fn serve<I>(io: I, books: Arc<Books>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().header_read_timeout(None);
    builder.http2().max_concurrent_streams(MAX_STREAMS);
    let service = service_fn(|request: Request<Incoming>| exchange(books.clone(), request));
    // A cut connection is an error here and a wanted one.
    let _ = builder.serve_connection(io, service).await;
}

fn acceptor(tls: &Tls) -> io::Result<TlsAcceptor> {
    let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&tls.certificate).collect();
    let chain = chain.map_err(|error| invalid(&error))?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key).map_err(|error| invalid(&error))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| invalid(&error))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| invalid(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
