//! What the ledger costs at 2,000 requests a second: the time of who serves, and of its own threads and the store's.
//! Linux only: it reads the threads' own clocks.

#![expect(clippy::unwrap_used, reason = "a bench may fail loudly")]

use std::collections::VecDeque;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::ledger::{Accuracy, Attempt, Charge, Counts, Entry, Ledger, Opened, Row, Settings, id};
use gateway::store::{Patience, Store};
use jiff::Timestamp;

const RATE: f64 = 2_000.0;
const LONG: Duration = Duration::from_secs(5);

/// What the threads of this process have run, without the one that asks.
fn others() -> Duration {
    let own = std::process::id().to_string();
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap());
    let others = threads.filter(|thread| thread.file_name().to_str() != Some(&own));
    let clocks = others.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    Duration::from_nanos(clocks.map(|clock| clock.split(' ').next().unwrap().parse::<u64>().unwrap()).sum())
}

fn opened(request_id: &str, started_at: Timestamp) -> Opened<'_> {
    Opened { request_id, tenant: "acme", key: "ci", model: "gpt-main", kind: "llm", started_at }
}

fn row(request_id: &str, started_at: Timestamp) -> Row<'_> {
    Row {
        request_id: request_id.into(),
        tenant: "acme".into(),
        key: "ci".into(),
        model: "gpt-main".into(),
        kind: "llm".into(),
        status: Some(200),
        error: None,
        accuracy: Accuracy::Exact,
        provider: Some("openai".into()),
        upstream_model: Some("gpt-5.5".into()),
        credential: Some("oa-1".into()),
        usage: Counts { input_tokens: 1_000, output_tokens: 20, ..Counts::default() },
        cost: Some(1_450_000),
        attempts: vec![Attempt {
            target: "openai/gpt-5.5".into(),
            credential: Some("oa-1".into()),
            outcome: "ok".into(),
            status: Some(200),
            ms: 812,
            spent: None,
        }],
        started_at,
        first_byte_ms: Some(301),
        duration_ms: 815,
        tags: Vec::new(),
        service_tier: None,
        inference_geo: None,
    }
}

/// Serves for a while, with so many requests open at a time.
fn serve(name: &str, open_at_once: usize, new_id: impl Fn(usize) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Patience::None).unwrap();
    let settings = Settings { commit_within: Duration::from_millis(20), retention: Duration::from_secs(86_400) };
    let ledger = Ledger::open(store.disk(), settings, drop).unwrap();
    let accounts: [Arc<str>; 2] = ["tenant/acme/usd/month".into(), "key/acme/ci/usd/day".into()];
    let charges = || accounts.iter().map(|account| Charge { account: Arc::clone(account), window: 0, amount: 7 });
    let mut open: VecDeque<(Entry, String, Timestamp)> = VecDeque::new();
    let (mut requests, mut callers) = (0_u32, Duration::ZERO);
    let (begun, before) = (Instant::now(), others());
    while begun.elapsed() < LONG {
        while f64::from(requests) < begun.elapsed().as_secs_f64() * RATE {
            requests += 1;
            let (id, at) = (new_id(requests as usize), Timestamp::now());
            let clock = Instant::now();
            let entry = ledger.admit(opened(&id, at).intent());
            callers += clock.elapsed();
            open.push_back((entry, id, at));
            while open.len() > open_at_once {
                let (entry, id, at) = open.pop_front().unwrap();
                let clock = Instant::now();
                entry.finish(&row(&id, at), charges());
                callers += clock.elapsed();
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(requests);
    println!(
        "ledger/{name}: {:.1} µs of who serves, {:.1} µs of other threads",
        each(callers),
        each(others() - before)
    );
    drop(open);
    ledger.close();
    store.close();
}

fn main() {
    let ours = |_| id::new(Timestamp::now());
    serve("short requests", 0, ours);
    serve("200 open", 200, ours);
    serve("2,000 open", 2_000, ours);
    serve("ids of callers", 0, |number| format!("their-own-id-{number:012}"));
}
