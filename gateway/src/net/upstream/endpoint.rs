//! Where a provider listens, with all that can be prepared before the first request: the head's
//! fixed part, the TLS trust, the way through a proxy, and one pingora peer for each address.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;
use http::uri::Authority;
use pingora::protocols::TcpKeepalive;
use pingora::upstreams::peer::{HttpPeer, Peer, PeerOptions};
use tokio::sync::Mutex;

use super::fault::{Cause, Fault};
use super::shelf::{Shelf, Shelves};
use super::url::{BaseUrl, Host, without_credentials};
use crate::address::is_public;
use crate::net::dns::Resolver;
use crate::net::proxy::{Proxies, Proxy, Tunnel};
use crate::net::tls::{Authorities, TrustError};

/// Streams that share one HTTP/2 connection: what most servers allow. Pingora's own default is 1.
const MOST_STREAMS: usize = 100;
/// What an HTTP/2 stream may send ahead of its reader, which bounds what a slow client costs.
const STREAM_WINDOW: u32 = 256 * 1024;
/// All streams' windows together, so that no stalled stream can starve its neighbours.
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
/// A dead HTTP/2 connection takes up to [`MOST_STREAMS`] requests with it, so it is asked for a sign of life.
const PING: Duration = Duration::from_secs(30);
/// How long an address that failed is tried last.
const DISTRUST: Duration = Duration::from_secs(10);
/// Addresses kept of one name; [`Tries`] has a bit for each.
const MOST_ADDRESSES: usize = 32;
/// Addresses tried for one request; more would cut the connect timeout into slices too thin.
const MOST_TRIES: usize = 4;

/// What is known of an endpoint before it is built.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    /// `http://` or `https://`, host, port and base path.
    pub base_url: String,
    /// The HTTP versions spoken with it.
    pub version: Version,
    /// PEM file of the authorities to believe in the system roots' place.
    pub ca_file: Option<PathBuf>,
    /// The proxies on the way, by host.
    pub proxies: Proxies,
    /// Which addresses it may have.
    pub reach: Reach,
}

/// The HTTP versions that an endpoint is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.1: one request at a time on a connection, many connections.
    #[default]
    Http1,
    /// HTTP/2 only; without TLS by prior knowledge.
    Http2,
    /// HTTP/2 where TLS agrees on it, else HTTP/1.1.
    Auto,
}

/// Which addresses an endpoint may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Any: the operator wrote it.
    #[default]
    Anywhere,
    /// Public addresses only: a tenant wrote it. Checked on what the name resolves to, each time.
    Public,
}

/// Why an endpoint cannot be.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not `http(s)://host[:port][/path]`.
    #[error("{0:?} is not a base URL: write http(s)://host[:port][/path]")]
    BaseUrl(String),
    /// Its address is one that it may not have.
    #[error("{0} is not a public address, which this endpoint may not reach")]
    Forbidden(IpAddr),
    /// Its `ca_file` cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Where a provider listens; built once per snapshot and shared in an [`Arc`].
pub struct Endpoint {
    pub(super) version: Version,
    pub(super) tls: bool,
    pub(super) authority: Authority,
    /// Whom to believe in the system roots' place.
    pub(super) authorities: Option<Authorities>,
    /// What stands before the path in the request line: the absolute form that a proxy needs.
    pub(super) target: Bytes,
    /// What stands after the path: the version and the headers that never change.
    pub(super) preamble: Bytes,
    host_header: HeaderValue,
    base_path: String,
    reach: Reach,
    /// The host and port that are connected to: the provider's, or its proxy's.
    dial: (Host, u16),
    template: Template,
    places: ArcSwapOption<Places>,
    turn: AtomicUsize,
}

/// The addresses that an endpoint has for now.
struct Places {
    known: Vec<Arc<Place>>,
    until: Option<Instant>,
}

/// One address of an endpoint.
pub(super) struct Place {
    pub(super) peer: HttpPeer,
    /// The key of its idle connections, and where they lie once that is known.
    key: u64,
    shelf: OnceLock<Arc<Shelf>>,
    pub(super) address: SocketAddr,
    /// Held while an HTTP/2 connection is being made, so that a burst of requests makes one.
    pub(super) opening: Mutex<()>,
    /// The provider chose HTTP/1.1 when it was offered both: there is nothing to wait for.
    pub(super) speaks_http1: AtomicBool,
    /// Milliseconds since `EPOCH` until which this address is tried last.
    distrusted_until: AtomicU64,
}

/// What all peers of an endpoint have in common.
struct Template {
    tls: bool,
    server_name: String,
    options: PeerOptions,
    group: u64,
}

impl EndpointSpec {
    /// HTTP/1.1 to this base URL, directly, with the system's roots.
    pub fn new(base_url: impl Into<String>) -> EndpointSpec {
        EndpointSpec {
            base_url: base_url.into(),
            version: Version::Http1,
            ca_file: None,
            proxies: Proxies::none(),
            reach: Reach::Anywhere,
        }
    }
}

impl Endpoint {
    /// Checks and prepares an endpoint. Reads the `ca_file`, so it blocks; resolves nothing.
    pub fn new(spec: EndpointSpec) -> Result<Endpoint, EndpointError> {
        let url = BaseUrl::parse(&spec.base_url)
            .ok_or_else(|| EndpointError::BaseUrl(without_credentials(&spec.base_url)))?;
        let authorities = spec.ca_file.as_deref().map(Authorities::read).transpose()?;
        let proxy = spec.proxies.serving(url.tls, &url.host, url.port);
        let tunnelled = url.tls || spec.version == Version::Http2;
        let dial = match &proxy {
            Some(proxy) => (proxy.host.clone(), proxy.port),
            None => (url.host.clone(), url.port),
        };
        let absolute = proxy.as_deref().filter(|_| !tunnelled);
        let reach = spec.reach.through(proxy.as_deref(), &url.host)?;
        Ok(Endpoint {
            version: spec.version,
            tls: url.tls,
            target: absolute.map_or_else(Bytes::new, |_| Bytes::from(url.origin())),
            preamble: preamble(&url.host_header, absolute),
            template: Template::new(&url, &spec, authorities.as_ref(), proxy.as_deref(), tunnelled),
            authorities,
            authority: url.authority,
            host_header: url.host_header,
            base_path: url.base_path,
            reach,
            dial,
            places: ArcSwapOption::empty(),
            turn: AtomicUsize::new(0),
        })
    }

    /// The URL of a path at its host.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.authority)
    }

    /// The `host` header that requests carry.
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// The base URL's path without a slash at its end: empty, or `/v1`.
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// The addresses to try for one request, the best first, if they are known and fresh.
    pub(super) fn known(&self) -> Option<Tries> {
        let known = self.places.load_full();
        known.filter(|places| places.are_fresh()).map(|places| self.in_turn(places))
    }

    /// The same after asking for the name; waits only for one that was never found before.
    pub(super) async fn find(&self, resolver: &Resolver) -> Result<Tries, Fault> {
        let (host, port) = &self.dial;
        let (addresses, until) = match host {
            Host::Address(address) => (vec![*address], None),
            Host::Name(name) => {
                let found = resolver.resolve(name).await;
                let found = found.map_err(|why| Fault::unresolved(&why))?;
                (found.addresses.to_vec(), Some(found.until))
            }
        };
        let allowed = addresses.iter().filter(|address| self.reach.allows(**address));
        let before = self.places.load_full();
        let known: Vec<_> = allowed
            .map(|address| SocketAddr::new(*address, *port))
            .map(|address| self.place(address, before.as_deref()))
            .take(MOST_ADDRESSES)
            .collect();
        if known.is_empty() {
            return Err(forbidden());
        }
        let places = Arc::new(Places { known, until });
        self.places.store(Some(places.clone()));
        Ok(self.in_turn(places))
    }

    /// The place of an address: the old one if there is one, for what it remembers.
    fn place(&self, address: SocketAddr, before: Option<&Places>) -> Arc<Place> {
        before
            .and_then(|places| places.known.iter().find(|old| old.address == address))
            .cloned()
            .unwrap_or_else(|| Arc::new(self.template.place(address)))
    }

    fn in_turn(&self, places: Arc<Places>) -> Tries {
        let first = match places.known.len() {
            0 | 1 => 0,
            several => self.turn.fetch_add(1, Ordering::Relaxed) % several,
        };
        Tries::new(places, first)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.url(&self.base_path))
    }
}

/// The addresses for one request: each once, starting at the one whose turn it is, those that had
/// failed lately last.
pub(super) struct Tries {
    places: Arc<Places>,
    first: usize,
    /// One bit for each place; taken at the start, for trying changes it.
    distrusted: u32,
}

impl Tries {
    fn new(places: Arc<Places>, first: usize) -> Tries {
        // There is no turn to lose where there is but one.
        let now = if places.known.len() > 1 { millis() } else { u64::MAX };
        let bits = places.known.iter().enumerate();
        let distrusted = bits.filter(|(_, place)| place.is_distrusted(now)).fold(0, |mask, (at, _)| mask | bit(at));
        Tries { places, first, distrusted }
    }

    /// How many addresses [`Tries::iter`] gives.
    pub(super) fn len(&self) -> usize {
        self.places.known.len().min(MOST_TRIES)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Place>> {
        let (late, early) = self.places.known.split_at(self.first);
        let late = late.iter().enumerate();
        let early = early.iter().enumerate();
        let turn = early.map(|(at, place)| (at + self.first, place)).chain(late);
        let of = move |distrusted: bool| {
            move |(at, _): &(usize, &Arc<Place>)| (self.distrusted & bit(*at) != 0) == distrusted
        };
        turn.clone().filter(of(false)).chain(turn.filter(of(true))).map(|(_, place)| place).take(MOST_TRIES)
    }
}

fn bit(at: usize) -> u32 {
    u32::try_from(at).ok().and_then(|at| 1u32.checked_shl(at)).unwrap_or(0)
}

impl Places {
    fn are_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Place {
    /// Where its idle HTTP/1.1 connections lie.
    pub(super) fn shelf(&self, shelves: &Arc<Shelves>) -> &Arc<Shelf> {
        self.shelf.get_or_init(|| shelves.of(self.key))
    }

    pub(super) fn distrust(&self) {
        let until = millis() + u64::try_from(DISTRUST.as_millis()).unwrap_or(0);
        self.distrusted_until.store(until, Ordering::Relaxed);
    }

    pub(super) fn trust(&self) {
        self.distrusted_until.store(0, Ordering::Relaxed);
    }

    fn is_distrusted(&self, now: u64) -> bool {
        now < self.distrusted_until.load(Ordering::Relaxed)
    }
}

impl Template {
    fn new(
        url: &BaseUrl,
        spec: &EndpointSpec,
        authorities: Option<&Authorities>,
        proxy: Option<&Proxy>,
        tunnelled: bool,
    ) -> Template {
        let mut options = PeerOptions::new();
        match spec.version {
            Version::Http1 => options.set_http_version(1, 1),
            Version::Http2 => options.set_http_version(2, 2),
            Version::Auto => options.set_http_version(2, 1),
        }
        options.max_h2_streams = MOST_STREAMS;
        options.h2_stream_window_size = Some(STREAM_WINDOW);
        options.h2_connection_window_size = Some(CONNECTION_WINDOW);
        options.h2_ping_interval = Some(PING);
        options.tcp_keepalive = Some(keepalive());
        let mut group = DefaultHasher::new();
        // Pingora's pool key has the address, the scheme and the name, but none of these.
        (url.authority.as_str(), spec.version, proxy, spec.reach).hash(&mut group);
        if let Some(authorities) = authorities {
            authorities.fingerprint.hash(&mut group);
        }
        if let Some(proxy) = proxy.filter(|_| tunnelled) {
            let tunnel = Tunnel::new(proxy, &format!("{}:{}", url.host.bracketed(), url.port));
            options.custom_l4 = Some(Arc::new(tunnel));
        }
        Template { tls: url.tls, server_name: url.host.to_string(), options, group: group.finish() }
    }

    fn place(&self, address: SocketAddr) -> Place {
        let mut peer = HttpPeer::new(address, self.tls, self.server_name.clone());
        peer.options = self.options.clone();
        peer.group_key = self.group;
        Place {
            key: peer.reuse_hash(),
            shelf: OnceLock::new(),
            peer,
            address,
            opening: Mutex::new(()),
            speaks_http1: AtomicBool::new(false),
            distrusted_until: AtomicU64::new(0),
        }
    }
}

impl Reach {
    /// What is left to check on the addresses that are connected to. Behind a proxy those are the
    /// proxy's own, and what the provider's name means is the proxy's to know and to refuse.
    fn through(self, proxy: Option<&Proxy>, host: &Host) -> Result<Reach, EndpointError> {
        match host {
            Host::Address(address) if !self.allows(*address) => Err(EndpointError::Forbidden(*address)),
            _ => Ok(proxy.map_or(self, |_| Reach::Anywhere)),
        }
    }

    fn allows(self, address: IpAddr) -> bool {
        match self {
            Reach::Anywhere => true,
            Reach::Public => is_public(address),
        }
    }
}

fn preamble(host: &HeaderValue, absolute: Option<&Proxy>) -> Bytes {
    let mut lines = b" HTTP/1.1\r\nhost: ".to_vec();
    lines.extend_from_slice(host.as_bytes());
    lines.extend_from_slice(b"\r\n");
    if let Some(authorization) = absolute.and_then(|proxy| proxy.authorization.as_ref()) {
        lines.extend_from_slice(b"proxy-authorization: ");
        lines.extend_from_slice(authorization.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines.into()
}

/// A silent stream can be a thinking model or a dead peer: the kernel asks after a minute.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(10),
        count: 3,
        #[cfg(target_os = "linux")]
        user_timeout: Duration::ZERO,
    }
}

fn forbidden() -> Fault {
    Fault::new(Cause::Forbidden, "the provider's address is not a public one, which this endpoint may not reach")
}

/// Milliseconds on a clock that starts with the process.
fn millis() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let elapsed = EPOCH.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
