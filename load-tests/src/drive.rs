//! The loads: closed loops, an open loop without coordinated omission, and streams that are held.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{Watch, Wire, has_content};
use crate::gateway::Gateway;
use crate::sample::Sample;
use crate::scenario::{Load, Scenario, Template};

/// How long a load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long the requests that are under way at the window's end may still take.
const GRACE: Duration = Duration::from_secs(10);

/// Streams that are opened at once.
const OPENED_AT_ONCE: usize = 100;

/// Probes of readiness while streams are held.
const PROBES: usize = 300;

/// Requests of an open loop that may be due and not yet sent; more than a round has.
const MOST_DUE: usize = 1 << 20;

/// When a measurement begins and ends.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Instant,
    to: Instant,
}

impl Window {
    fn of(time: Duration) -> Self {
        let from = Instant::now() + WARM_UP;
        Self { from, to: from + time }
    }

    fn has(&self, moment: Instant) -> bool {
        self.from <= moment && moment < self.to
    }
}

/// Measures `scenario` at `gateway` once.
pub(crate) async fn measure(gateway: &Gateway, scenario: &Scenario, time: Duration) -> io::Result<Sample> {
    let time = scenario.window(time);
    let template = gateway.template(scenario);
    let sample = match scenario.load {
        Load::Closed(connections) => closed(gateway, template, scenario.watch, connections, time).await,
        Load::Open(rate) => open(gateway, template, scenario.watch, rate, time).await,
        Load::Held(streams) => held(gateway, &template, streams).await?,
    };
    if sample.failures > 0 && sample.requests == 0 {
        let reason = sample.reason.unwrap_or_default();
        return Err(io::Error::other(format!(
            "{} at {}: nothing succeeded: {reason}",
            scenario.name,
            gateway.kind.name()
        )));
    }
    Ok(sample)
}

async fn closed(gateway: &Gateway, template: Template, watch: Watch, connections: usize, time: Duration) -> Sample {
    let window = Window::of(time);
    let template = Arc::new(template);
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(again_and_again(gateway.address, template.clone(), watch, window));
    }
    let mut sample = watch_processor(gateway, window).await;
    collect(&mut tasks, &mut sample).await;
    sample
}

async fn again_and_again(to: std::net::SocketAddr, template: Arc<Template>, watch: Watch, window: Window) -> Sample {
    let mut sample = Sample::default();
    let mut wire: Option<Wire> = None;
    while Instant::now() < window.to {
        let begun = Instant::now();
        if let Err(error) = once(to, &mut wire, &template, watch, begun, window, &mut sample).await {
            wire = None;
            sample.fail(error);
            // A gateway that refuses connections is not asked a million times a second.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    sample
}

async fn once(
    to: std::net::SocketAddr,
    wire: &mut Option<Wire>,
    template: &Template,
    watch: Watch,
    begun: Instant,
    window: Window,
    sample: &mut Sample,
) -> io::Result<()> {
    let open = match wire {
        Some(open) => open,
        None => wire.insert(Wire::connect(to).await?),
    };
    let seen = open.exchange(template.request(), watch).await?;
    let ended = Instant::now();
    sample.events += seen.events.iter().filter(|(came, _)| window.has(*came)).map(|(_, count)| count).sum::<u64>();
    if window.has(ended) {
        sample.requests += 1;
        sample.latency.push(ended - begun);
    }
    if let Some(first) = seen.first_content.filter(|first| window.has(*first)) {
        sample.first_content.push(first - begun);
        seen.delays.into_iter().for_each(|delay| sample.delay.push(delay));
    }
    Ok(())
}

/// Sleeps through the window, and takes the gateway's processor time at both ends.
async fn watch_processor(gateway: &Gateway, window: Window) -> Sample {
    tokio::time::sleep_until(window.from.into()).await;
    let before = gateway.meter.cpu();
    let begun = Instant::now();
    tokio::time::sleep_until(window.to.into()).await;
    let used = gateway.meter.cpu().since(&before);
    let memory = gateway.meter.memory();
    Sample { window: begun.elapsed(), cpu: used, memory, ..Sample::default() }
}

async fn collect(tasks: &mut JoinSet<Sample>, sample: &mut Sample) {
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(part) => sample.absorb(part),
                Err(error) => sample.fail(error),
            }
        }
    };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        sample.fail("requests did not end");
        tasks.abort_all();
    }
}

/// Connections that wait for a request.
type Idle = Arc<Mutex<Vec<Wire>>>;

async fn open(gateway: &Gateway, template: Template, watch: Watch, rate: u32, time: Duration) -> Sample {
    let window = Window::of(time);
    let load = Open { to: gateway.address, template: Arc::new(template), watch, idle: Idle::default(), window };
    let (due, mut dues) = mpsc::channel(MOST_DUE);
    let begin = Instant::now();
    std::thread::spawn(move || pace(&due, begin, window.to, rate));
    let mut tasks = JoinSet::new();
    let sending = async {
        while let Some(intended) = dues.recv().await {
            tasks.spawn(load.clone().send(intended));
        }
    };
    let (mut sample, ()) = tokio::join!(watch_processor(gateway, window), sending);
    collect(&mut tasks, &mut sample).await;
    sample
}

/// Sleeps in a thread of its own: the runtime's timer is a millisecond coarse, the system's is not.
fn pace(due: &mpsc::Sender<Instant>, begin: Instant, end: Instant, rate: u32) {
    for index in 0_u32.. {
        let intended = begin + Duration::from_secs_f64(f64::from(index) / f64::from(rate.max(1)));
        if intended >= end {
            return;
        }
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        if due.blocking_send(intended).is_err() {
            return;
        }
    }
}

#[derive(Clone)]
struct Open {
    to: std::net::SocketAddr,
    template: Arc<Template>,
    watch: Watch,
    idle: Idle,
    window: Window,
}

impl Open {
    async fn send(self, intended: Instant) -> Sample {
        let mut sample = Sample::default();
        let mut wire = self.take();
        let sent = once(self.to, &mut wire, &self.template, self.watch, intended, self.window, &mut sample).await;
        match (sent, wire) {
            (Ok(()), Some(wire)) => self.give_back(wire),
            (Ok(()), None) => {}
            (Err(error), _) => sample.fail(error),
        }
        sample
    }

    fn take(&self) -> Option<Wire> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, wire: Wire) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(wire);
    }
}

/// Opens streams that fall silent after their first word, and measures memory before, and memory and readiness while
/// they are held.
async fn held(gateway: &Gateway, template: &Template, streams: usize) -> io::Result<Sample> {
    let idle = gateway.meter.memory();
    // The first connections pay for what is made once: pools, logs, the store.
    drop(hold(gateway, template, OPENED_AT_ONCE).await?);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = gateway.meter.memory();
    let held = hold(gateway, template, streams).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = gateway.meter.memory();
    let memory = after.saturating_sub(before);
    let mut sample = Sample { requests: held.len() as u64, memory, idle, ..Sample::default() };
    let readiness = gateway.readiness();
    for _ in 0..PROBES {
        let begun = Instant::now();
        let mut wire = Wire::connect(gateway.address).await?;
        match wire.exchange(readiness.request(), Watch::End).await {
            Ok(_) => sample.latency.push(begun.elapsed()),
            Err(error) => sample.fail(error),
        }
    }
    drop(held);
    Ok(sample)
}

/// A stream whose first word has come.
type Stream = (Wire, Incoming);

async fn hold(gateway: &Gateway, template: &Template, streams: usize) -> io::Result<Vec<Stream>> {
    let mut held = Vec::with_capacity(streams);
    while held.len() < streams {
        let mut opening = JoinSet::new();
        for _ in 0..OPENED_AT_ONCE.min(streams - held.len()) {
            opening.spawn(hold_one(gateway.address, template.request()));
        }
        while let Some(opened) = opening.join_next().await {
            held.push(opened.map_err(io::Error::other)??);
        }
    }
    Ok(held)
}

async fn hold_one(
    to: std::net::SocketAddr,
    request: http::Request<http_body_util::Full<bytes::Bytes>>,
) -> io::Result<Stream> {
    let mut wire = Wire::connect(to).await?;
    let mut body = wire.begin(request).await?;
    while let Some(frame) = body.frame().await {
        if frame.map_err(io::Error::other)?.data_ref().is_some_and(|data| has_content(data)) {
            return Ok((wire, body));
        }
    }
    Err(io::Error::other("a stream ended before it said anything"))
}
