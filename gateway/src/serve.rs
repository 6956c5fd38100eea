//! The process: puts the rooms together, listens, and keeps the configuration fresh.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::access_log::{AccessLog, Writer};
use crate::admin::{Access, Admin};
use crate::alerts::{self, Alerts};
use crate::balance;
use crate::budget::desk::Claimants;
use crate::budget::{self, Alert};
use crate::cli::{INTERNAL_FAULT, WRONG_INPUT, complain};
use crate::config::{self, Config, Faults, Listener, Loaded, Origin};
use crate::gateway::{self, Gateway};
use crate::ledger::{self, Ledger};
use crate::limit;
use crate::log;
use crate::memory;
use crate::metrics::Metrics;
use crate::model::{ModelManager, ProviderManager};
use crate::net::dns::Resolver;
use crate::net::door::Tolerance;
use crate::net::handover::{Handover, Predecessor};
use crate::net::proxy::Proxies;
use crate::net::server::{self, Ears, Listening, Settings};
use crate::net::sockets::Sockets;
use crate::net::tls::{Identity, IdentityError};
use crate::net::upstream::Upstreams;
use crate::reasons::Reasons;
use crate::redis;
use crate::reload::Reloader;
use crate::sharing::{self, Share};
use crate::store::{Disk, Patience, Served, Store};
use crate::vital;

/// How a process starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With its own sockets.
    #[default]
    Fresh,
    /// With the sockets of the process that runs, which is then sent SIGQUIT.
    Upgrade,
}

/// Why a process cannot serve.
enum Refused {
    /// The configuration cannot be served.
    Faults(Faults),
    /// It names something that is not to be had: an address, a certificate, a secret.
    Input(String),
    /// Something about the machine.
    Machine(String),
}

impl From<Faults> for Refused {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Machine(error.to_string())
    }
}

/// Serves `loaded` until the process is told to end.
#[must_use]
pub fn serve(loaded: Loaded, start: Start) -> ExitCode {
    if let Err(error) = log::start(&loaded.config.observability.log) {
        complain(&format!("warning: no log: {error}\n"));
    }
    match run(loaded, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused::Faults(faults)) => {
            complain(&format!("error: the configuration cannot be served\n{faults}\n"));
            ExitCode::from(WRONG_INPUT)
        }
        Err(Refused::Input(why)) => {
            complain(&format!("error: {why}\n"));
            ExitCode::from(WRONG_INPUT)
        }
        Err(Refused::Machine(why)) => {
            complain(&format!("error: {why}\n"));
            ExitCode::from(INTERNAL_FAULT)
        }
    }
}

/// Runs the provider simulator until the process is told to end.
#[must_use]
pub fn simulate(listen: SocketAddr) -> ExitCode {
    let run = || tokio::runtime::Runtime::new()?.block_on(simulator::run(listen));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: the simulator cannot run on {listen}: {error}\n"));
            ExitCode::from(INTERNAL_FAULT)
        }
    }
}

fn run(loaded: Loaded, start: Start) -> Result<(), Refused> {
    let simulator = start_simulator(&loaded.config)?;
    let proxies = Proxies::from_environment().map_err(|error| Refused::Machine(error.to_string()))?;
    let simulator_at = simulator.as_ref().map(simulator::Simulator::addr);
    let metrics = Metrics::new().map_err(|error| Refused::Machine(error.to_string()))?;
    let share = share(&loaded.config, start)?;
    let alerts = Arc::new(alerts(&loaded.config, &proxies, &metrics)?);
    let budgets = Arc::new(budgets(&metrics, &alerts, share.as_ref()));
    let limits = match &share {
        Some(_) => limit::Registry::shared(Arc::clone(&budgets)),
        None => limit::Registry::default(),
    };
    let registry = match &share {
        Some(share) => balance::Registry::shared(share.outbox()),
        None => balance::Registry::default(),
    };
    let providers = ProviderManager {
        proxies,
        simulator: simulator_at,
        registry: Arc::new(registry),
        limits: Arc::new(limits),
        budgets: Arc::clone(&budgets),
    };
    let snapshot = providers.build(&loaded, None)?;
    let mut settings = settings(&loaded.config)?;
    let token = loaded.config.server.admin_token.as_ref().map(config::Secret::resolve).transpose();
    let token = token.map_err(|error| Refused::Input(format!("server.admin_token: {error}")))?;
    let hangup = heard(|| signal(SignalKind::hangup()))?;
    let bound = bind(&mut settings, start)?;
    raise_file_limit();
    memory::give_back()?;
    let (access_log, writer) = open_access_log(&loaded.config.observability.access_log)?;
    let store = open_store(&loaded.config, start)?;
    let mut ledger = open_ledger(&loaded.config, &store, &budgets)?;
    if let Some(fleet) = fleet(&loaded.config)? {
        ledger.share(&fleet).map_err(|error| Refused::Machine(error.to_string()))?;
    }
    let shared: Vec<Arc<dyn Claimants>> = vec![Arc::clone(&budgets) as _, Arc::clone(&providers.limits) as _];
    let raised = redis::Raised::new(Arc::clone(&budgets), keep_raises(store.disk()));
    let sharing = share.map(|share| share.start(shared, Arc::clone(&providers.registry), raised, told(&metrics)));
    let sharing = sharing.transpose()?;
    store.served(Served { at: jiff::Timestamp::now(), hash: loaded.hash.clone(), changed: Vec::new() });
    metrics.configured(snapshot.generation, &snapshot.hash);
    let gateway = Arc::new(Gateway {
        models: ModelManager::new(snapshot),
        upstreams: upstreams(),
        metrics,
        access_log,
        log_writer: Mutex::new(writer),
        store,
        ledger,
        budgets,
        alerts,
        reasons: Reasons::default(),
        sharing: Mutex::new(sharing),
        draining: AtomicBool::new(false),
    });
    let origin = loaded.origin.clone();
    let identities = settings.api.iter().chain(&settings.admin).filter_map(|listening| listening.identity.clone());
    let reloader = Arc::new(Reloader::new(Arc::clone(&gateway), providers, loaded, identities.collect()));
    let address = settings.admin.as_ref().map(|listening| listening.address.ip());
    let access = Access::of(token.as_ref().map(|token| token.as_str()), address);
    let admin = Admin::new(Arc::clone(&gateway), Arc::clone(&reloader), access);
    let _watching = keep_fresh(&origin, &reloader, hangup)?;
    let (listening, predecessor) = match bound {
        Some(bound) => (bound, None),
        None => take_over(&mut settings).map(|(taken, predecessor)| (taken, Some(predecessor)))?,
    };
    let announced = settings.clone();
    let ready = move || {
        announce(&announced);
        predecessor.iter().for_each(Predecessor::relieve);
    };
    let ran = server::run(&gateway, admin, &settings, listening, ready);
    gateway.close();
    ran.map_err(Refused::Machine)
}

fn start_simulator(config: &Config) -> io::Result<Option<simulator::Simulator>> {
    let wanted = config.providers.values().any(|provider| provider.simulated);
    wanted.then(|| simulator::start(simulator::Config::default())).transpose()
}

fn upstreams() -> Upstreams {
    let upstreams = Upstreams::new(Resolver::system());
    if let Err(error) = upstreams.system_roots() {
        tracing::warn!(%error, "no root certificates: only providers with a `ca` of their own can be reached by https");
    }
    upstreams
}

fn settings(config: &Config) -> Result<Settings, Refused> {
    let server = &config.server;
    let listening = |listener: &Listener| {
        let tls = listener.tls.as_ref().or(server.tls.as_ref());
        let identity = tls.map(|tls| Identity::read(&tls.cert, &tls.key).map(Arc::new)).transpose();
        Ok(Listening { address: listener.address.get(), identity: identity? })
    };
    let read = |listener| listening(listener).map_err(|error: IdentityError| Refused::Input(error.to_string()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = server.threads.and_then(|threads| usize::try_from(threads.get()).ok());
    Ok(Settings {
        api: server.listen.0.iter().map(read).collect::<Result<_, _>>()?,
        admin: server.admin.as_ref().map(read).transpose()?,
        threads: threads.unwrap_or(cores),
        drain: server.drain.get(),
        tolerance: Tolerance { idle: server.idle.get(), stall: server.stall.get() },
        handover: Handover::in_folder(&config.store.path),
    })
}

/// What gives word of a signal, which would end the process otherwise. What comes before somebody listens is heard
/// then.
fn heard<T>(signals: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _within = runtime.enter();
    signals()
}

/// The process's own sockets; none when it takes over another's. Who finds that it answers may at once tell it to end.
fn bind(settings: &mut Settings, start: Start) -> Result<Option<(Sockets, Ears)>, Refused> {
    match start {
        Start::Fresh => {
            let ears = heard(Ears::open)?;
            Ok(Some((Sockets::bind(settings.addresses()).map_err(Refused::Input)?, ears)))
        }
        Start::Upgrade => Ok(None),
    }
}

/// The sockets of the process that serves, and that process, which serves on should this one fail. Until they come a
/// signal ends the wait.
fn take_over(settings: &mut Settings) -> Result<((Sockets, Ears), Predecessor), Refused> {
    let _unread =
        io::stdout().write_all(b"weir: waiting for the sockets of the process that serves; send it SIGQUIT\n");
    let handover = settings.handover.clone();
    let (sockets, predecessor) = Sockets::take_over(&handover, settings.addresses()).map_err(Refused::Input)?;
    Ok(((sockets, heard(Ears::open)?), predecessor))
}

/// A stream takes two file descriptors, and many systems give a process 1,024 unless it asks for more.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, limit = limit.current, "the limit of open files cannot be raised");
    }
}

fn open_store(config: &Config, start: Start) -> Result<Store, Refused> {
    let patience = if start == Start::Upgrade { Patience::UntilFree } else { Patience::None };
    let path = &config.store.path;
    Store::open(path, patience).map_err(|error| Refused::Input(format!("the store {}: {error}", path.display())))
}

/// Those who are told of budgets that run low.
fn alerts(config: &Config, proxies: &Proxies, metrics: &Metrics) -> Result<Alerts, Refused> {
    let receiver = |(number, written)| {
        alerts::Receiver::of(written, proxies)
            .map_err(|error| Refused::Input(format!("observability.alerts[{number}]: {error}")))
    };
    let receivers = config.observability.alerts.iter().enumerate().map(receiver).collect::<Result<Vec<_>, _>>()?;
    let deliveries = metrics.alert_deliveries.clone();
    let count = move |outcome: alerts::Outcome| deliveries.with_label_values(&[outcome.name()]).inc();
    Ok(Alerts::start(receivers, Arc::new(count))?)
}

/// The accounts; one that comes to its soft limit or its end is told in the log, counted, and told to who wants to
/// know.
fn budgets(metrics: &Metrics, alerts: &Arc<Alerts>, share: Option<&Share>) -> budget::Registry {
    let (counted, alerts) = (metrics.budget_alerts.clone(), Arc::clone(alerts));
    let listener = budget::Listener::new(move |alert: &Alert| {
        let threshold = alert.threshold.name();
        counted.with_label_values(&[threshold]).inc();
        let (used, limit) = (alert.used, alert.limit);
        tracing::warn!(account = %alert.account, threshold, used, limit, "a budget has come to a threshold");
        alerts.tell(alert);
    });
    match share {
        Some(share) => budget::Registry::shared(listener, share.desk()),
        None => budget::Registry::new(listener),
    }
}

/// The Redis that the configuration names. A process that takes over another's sockets is a node of its own while both
/// run.
fn share(config: &Config, start: Start) -> Result<Option<Share>, Refused> {
    let Some(written) = &config.store.redis else {
        return Ok(None);
    };
    let settings = redis_settings(written)?;
    let (folder, policy) = (&config.store.path, config.store.on_redis_loss);
    Ok(Some(match start {
        Start::Fresh => Share::new(settings, folder, policy)?,
        Start::Upgrade => Share::taking_over(settings, folder, policy)?,
    }))
}

/// Where gateways that share a Redis read each other's ledgers. A ledger is a folder's, whichever process writes it.
fn fleet(config: &Config) -> Result<Option<Arc<dyn ledger::Fleet>>, Refused> {
    let Some(written) = &config.store.redis else {
        return Ok(None);
    };
    let node = sharing::node(&config.store.path)?;
    let fleet = redis::Ledgers::new(redis_settings(written)?, node)?;
    Ok(Some(Arc::new(fleet)))
}

fn redis_settings(written: &config::Redis) -> Result<redis::Settings, Refused> {
    redis::Settings::of(written).map_err(|error| Refused::Input(format!("store.redis: {error}")))
}

/// Keeps what other gateways raised. What the disk refuses is heard again after a restart.
fn keep_raises(disk: &Arc<Disk>) -> redis::Keep {
    let disk = Arc::clone(disk);
    Arc::new(move |raises| {
        for raise in raises {
            if let Err(error) = disk.keep_raise(raise, jiff::Timestamp::now()) {
                tracing::warn!(%error, account = raise.account, "a limit that another gateway raised cannot be kept");
            }
        }
    })
}

/// Shows in the metrics whether Redis is there.
fn told(metrics: &Metrics) -> redis::Told {
    let lost = Arc::clone(&metrics.redis_lost);
    Box::new(move |linked| lost.store(!linked, Ordering::Relaxed))
}

fn open_ledger(config: &Config, store: &Store, budgets: &Arc<budget::Registry>) -> Result<Ledger, Refused> {
    let (commit_within, retention) = (config.store.commit_within.get(), config.store.retention.get());
    let settings = ledger::Settings { commit_within, retention };
    let (budgets, disk) = (Arc::clone(budgets), Arc::clone(store.disk()));
    let restore =
        move |charges: Vec<ledger::Charge>| gateway::restore(&budgets, &disk, &charges, jiff::Timestamp::now());
    let opened = Ledger::open(store.disk(), settings, restore);
    opened.map_err(|error| Refused::Input(format!("the store {}: {error}", config.store.path.display())))
}

fn open_access_log(wanted: &config::AccessLog) -> Result<(AccessLog, Option<Writer>), Refused> {
    let opened = match wanted {
        config::AccessLog::None => return Ok((AccessLog::off(), None)),
        config::AccessLog::Stdout => AccessLog::stdout(),
        config::AccessLog::Stderr => AccessLog::stderr(),
        config::AccessLog::File(path) => AccessLog::file(path),
    };
    let (log, writer) = opened.map_err(|error| Refused::Input(format!("observability.access_log: {error}")))?;
    Ok((log, Some(writer)))
}

/// Reloads when the files change and on SIGHUP. What is returned must live as long as the process serves.
fn keep_fresh(origin: &Origin, reloader: &Arc<Reloader>, hangup: Signal) -> io::Result<Option<config::WatchGuard>> {
    let (on_signal, hangup) = (Arc::clone(reloader), Mutex::new(hangup));
    vital::tireless("sighup", move || reload_on_signal(&on_signal, &hangup))?;
    let Origin::Path(path) = origin else { return Ok(None) };
    let on_change = Arc::clone(reloader);
    // A refused reload has been logged and counted.
    config::watch(path, move || drop(on_change.reload())).map(Some)
}

fn reload_on_signal(reloader: &Reloader, hangup: &Mutex<Signal>) {
    let mut hangup = hangup.lock().unwrap_or_else(PoisonError::into_inner);
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            while runtime.block_on(hangup.recv()).is_some() {
                drop(reloader.reload());
            }
        }
        Err(error) => tracing::error!(%error, "SIGHUP cannot be received"),
    }
}

/// Says where it listens. A standard output that is closed is no reason not to serve.
fn announce(settings: &Settings) {
    let lines = settings.api.iter().map(|listening| format!("weir: api on {}\n", listening.url()));
    let admin = settings.admin.iter().map(|listening| format!("weir: admin on {}\n", listening.url()));
    let _unread = io::stdout().write_all(lines.chain(admin).collect::<String>().as_bytes());
}
