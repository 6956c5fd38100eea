//! Names to addresses, without a request ever waiting for a name it has known before.
//!
//! An answer is used for its time to live (within bounds), refreshed in the background after
//! that, and kept for as long as the name servers fail. `getaddrinfo` would know neither the time
//! to live nor how to be cancelled, and needs glibc's plug-ins in a static binary; hickory reads
//! `resolv.conf` (search domains, `ndots`) and `/etc/hosts`, which is what containers use.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::watch;

/// An answer is believed for at least this long: a provider's 0 s would be a query for each request.
const SHORTEST_LIFE: Duration = Duration::from_secs(5);
/// An answer is asked for again after this long, whatever it says: providers move in minutes.
const LONGEST_LIFE: Duration = Duration::from_secs(300);
/// A name that failed is not asked for again within this time: enough to spare the name server a
/// storm, short enough that nobody notices.
const FAILED_LIFE: Duration = Duration::from_secs(1);
/// Names kept. A configuration has tens; the bound is against names that tenants make up.
const MOST_NAMES: usize = 1024;
/// The files whose change means that the system's resolver was set up anew.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Resolves names and remembers them; cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

/// Where a name was found, and until when that is believed.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    /// At least one address, IPv4 first.
    pub addresses: Box<[IpAddr]>,
    /// After this the name is asked for again, while these addresses serve on.
    pub until: Instant,
}

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The name servers say that there is no such name, or that it has no address.
    #[error("the name does not exist")]
    NoSuchName,
    /// No name server gave an answer.
    #[error("the name servers do not answer")]
    NoAnswer,
}

struct Shared {
    names: Mutex<HashMap<Box<str>, Arc<Name>>>,
    source: Source,
}

/// One name: its state, watched by all who wait for its first answer.
type Name = watch::Sender<State>;

#[derive(Default)]
struct State {
    resolved: Option<Arc<Resolved>>,
    failed: Option<(Instant, Unresolved)>,
    asking: bool,
}

enum Source {
    /// As the machine says, read again when its files change.
    System(Mutex<System>),
    Fixed(TokioResolver),
}

#[derive(Default)]
struct System {
    stamp: [Option<SystemTime>; 2],
    resolver: Option<TokioResolver>,
}

impl Resolver {
    /// Resolves as `/etc/resolv.conf` and `/etc/hosts` say, following their changes.
    pub fn system() -> Resolver {
        Resolver::new(Source::System(Mutex::default()))
    }

    /// Asks this one name server only, without `/etc/hosts` and search domains.
    pub fn with_server(server: SocketAddr) -> Result<Resolver, Unresolved> {
        let resolver = fixed(server).map_err(|_| Unresolved::NoAnswer)?;
        Ok(Resolver::new(Source::Fixed(resolver)))
    }

    fn new(source: Source) -> Resolver {
        Resolver(Arc::new(Shared { names: Mutex::default(), source }))
    }

    /// The addresses of `host`. Waits only for a name that was never found before; a stale
    /// answer comes at once and is refreshed behind. Safe to cancel: the query goes on for others.
    pub async fn resolve(&self, host: &str) -> Result<Arc<Resolved>, Unresolved> {
        let name = self.name(host);
        self.ask_if_stale(host, &name);
        let mut changes = name.subscribe();
        let settled = changes.wait_for(State::is_settled).await;
        match settled {
            Ok(state) => state.outcome(),
            Err(_) => Err(Unresolved::NoAnswer),
        }
    }

    fn name(&self, host: &str) -> Arc<Name> {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(host) {
            return name.clone();
        }
        if names.len() >= MOST_NAMES {
            forget_stalest(&mut names);
        }
        let name = Arc::new(Name::new(State::default()));
        names.insert(host.into(), name.clone());
        name
    }

    fn ask_if_stale(&self, host: &str, name: &Arc<Name>) {
        let now = Instant::now();
        let must_ask = name.send_if_modified(|state| {
            let must_ask = state.must_ask(now);
            state.asking |= must_ask;
            must_ask
        });
        if must_ask {
            let (shared, host, asking) = (self.0.clone(), host.to_owned(), Asking(name.clone()));
            // Not waited for at shutdown: a query that is cut loses nothing.
            tokio::spawn(async move {
                let outcome = shared.source.ask(&host).await;
                asking.learned(outcome);
            });
        }
    }
}

/// A query under way; dropped without an answer, it sets the waiting free.
struct Asking(Arc<Name>);

impl Asking {
    fn learned(self, outcome: Result<Resolved, Unresolved>) {
        self.0.send_modify(|state| state.learn(outcome, Instant::now()));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.send_if_modified(|state| std::mem::take(&mut state.asking));
    }
}

impl State {
    fn must_ask(&self, now: Instant) -> bool {
        !self.asking && !self.is_fresh(now) && !self.failed_lately(now)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.resolved.as_ref().is_some_and(|found| now < found.until)
    }

    fn failed_lately(&self, now: Instant) -> bool {
        self.failed.as_ref().is_some_and(|(at, _)| now.duration_since(*at) < FAILED_LIFE)
    }

    fn is_settled(&self) -> bool {
        self.resolved.is_some() || !self.asking
    }

    fn outcome(&self) -> Result<Arc<Resolved>, Unresolved> {
        match (&self.resolved, &self.failed) {
            (Some(found), _) => Ok(found.clone()),
            (None, Some((_, why))) => Err(why.clone()),
            (None, None) => Err(Unresolved::NoAnswer),
        }
    }

    fn learn(&mut self, outcome: Result<Resolved, Unresolved>, now: Instant) {
        self.asking = false;
        match outcome {
            Ok(found) => {
                self.resolved = Some(Arc::new(found));
                self.failed = None;
            }
            Err(why) => {
                self.failed = Some((now, why));
                self.resolved = self.resolved.take().map(|found| found.prolonged(now));
            }
        }
    }
}

impl Resolved {
    fn new(addresses: impl Iterator<Item = IpAddr>, until: Instant) -> Result<Resolved, Unresolved> {
        let mut addresses: Vec<IpAddr> = addresses.collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        if addresses.is_empty() {
            return Err(Unresolved::NoSuchName);
        }
        let now = Instant::now();
        Ok(Resolved { addresses: addresses.into(), until: until.clamp(now + SHORTEST_LIFE, now + LONGEST_LIFE) })
    }

    /// The same addresses, kept because there is nothing newer.
    fn prolonged(self: Arc<Self>, now: Instant) -> Arc<Resolved> {
        Arc::new(Resolved { addresses: self.addresses.clone(), until: now + SHORTEST_LIFE })
    }
}

impl Source {
    async fn ask(&self, host: &str) -> Result<Resolved, Unresolved> {
        let resolver = match self {
            Source::Fixed(resolver) => resolver.clone(),
            Source::System(system) => system.lock().unwrap_or_else(PoisonError::into_inner).current()?,
        };
        let found = resolver.lookup_ip(host).await.map_err(unresolved)?;
        Resolved::new(found.iter(), found.valid_until())
    }
}

impl System {
    fn current(&mut self) -> Result<TokioResolver, Unresolved> {
        let stamp = SYSTEM_FILES.map(|file| fs::metadata(file).ok()?.modified().ok());
        if stamp != self.stamp || self.resolver.is_none() {
            self.resolver = Some(system().map_err(|_| Unresolved::NoAnswer)?);
            self.stamp = stamp;
        }
        self.resolver.clone().ok_or(Unresolved::NoAnswer)
    }
}

fn system() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    set_options(builder.options_mut());
    builder.build()
}

fn fixed(server: SocketAddr) -> Result<TokioResolver, NetError> {
    let mut udp = ConnectionConfig::udp();
    udp.port = server.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![udp, tcp]);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    set_options(builder.options_mut());
    builder.options_mut().use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    builder.build()
}

fn set_options(options: &mut ResolverOpts) {
    // Remembering is this module's work: two caches would add their lives up.
    options.cache_size = 0;
    // One family after the other: a name that /etc/hosts gives an IPv4 address would otherwise
    // wait for the name servers to deny its IPv6 address.
    options.ip_strategy =
        if has_ipv4_route() { LookupIpStrategy::Ipv4thenIpv6 } else { LookupIpStrategy::Ipv6thenIpv4 };
}

/// Whether this machine can reach IPv4 addresses at all: clusters with IPv6 only can't.
fn has_ipv4_route() -> bool {
    match fs::read_to_string("/proc/net/route") {
        Ok(routes) => routes.lines().skip(1).any(|line| !line.trim().is_empty()),
        Err(_) => true,
    }
}

fn unresolved(error: NetError) -> Unresolved {
    if error.is_no_records_found() || error.is_nx_domain() { Unresolved::NoSuchName } else { Unresolved::NoAnswer }
}

/// Makes room by dropping the name whose answer is the oldest, or one that never had any.
fn forget_stalest(names: &mut HashMap<Box<str>, Arc<Name>>) {
    let until = |name: &Name| name.borrow().resolved.as_ref().map(|found| found.until);
    let stalest = names.iter().min_by_key(|(_, name)| until(name)).map(|(host, _)| host.clone());
    if let Some(host) = stalest {
        names.remove(&host);
    }
}
