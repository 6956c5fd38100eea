//! Four gateways, a Redis and a provider, while callers leave, targets fail, Redis freezes, dies and comes back empty, and
//! gateways are stopped and killed: afterwards what any one gateway tells of all their ledgers, the counters and the
//! provider's own account agree.
//!
//! `WEIR_CHAOS_SECONDS=300` makes it last longer than the few seconds of a usual run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::Simulator;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use weir_tests::ask::{chat, simulator, stream, with};
use weir_tests::client::{Call, End};
use weir_tests::patience::within;
use weir_tests::redis::Redis;
use weir_tests::weir::{Config, KEY_HASH, Weir};

/// How many gateways there are.
const NODES: usize = 4;

/// Callers at once at each gateway.
const CALLERS: usize = 4;

/// A row that was answered so shortly before a kill may be missing: `store.commit_within`, a flush on a busy machine.
const COMMITTED: Duration = Duration::from_millis(400);

/// What a caller does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Reads an answer to its end.
    Whole,
    Stream,
    /// Leaves in the middle.
    Leaves,
    /// Will not wait for a slow target.
    Hurries,
    /// Asks for what fails at first.
    FailsOver,
}

const DEEDS: [Deed; 5] = [Deed::Whole, Deed::Stream, Deed::Leaves, Deed::Hurries, Deed::FailsOver];

impl Deed {
    fn call(self, to: &Call) -> Call {
        let limited = |body| with(body, "max_tokens", json!(8));
        match self {
            Self::Whole => to.clone().json(&limited(chat("m"))),
            Self::Stream => to.clone().json(&limited(stream("m"))),
            Self::Leaves => to.clone().json(&stream("long")),
            Self::Hurries => to.clone().header("x-weir-timeout-ms", "20").json(&limited(chat("slow"))),
            Self::FailsOver => to.clone().json(&limited(chat("failing"))),
        }
    }
}

/// One gateway, and when it was killed.
struct Node {
    config: Config,
    weir: RwLock<Option<Weir>>,
    kills: std::sync::Mutex<Vec<Instant>>,
}

impl Node {
    async fn start(simulator: &Simulator, redis: &Redis) -> Self {
        let model = |name: &str, upstream: &str, more: &str| {
            format!(
                "{{name: {name}, targets: [{{provider: openai, model: '{upstream}'}}], pricing: {{input: 1, output: 1}}{more}}}"
            )
        };
        let config = Config::of(simulator)
            .store(&format!("redis: {}", redis.url()))
            .server("drain: 3s")
            .model(&model("m", "gpt-5.5", ""))
            .model(&model("long", "gpt-5.5~events=40~gap=5ms", ""))
            .model(&model("slow", "gpt-5.5~delay=150ms", ""))
            .model(&model("failing", "gpt-5.5~status=500", ", retries: {max: 0}, fallbacks: {any: [m]}"))
            .tenant(&format!(
                "{{id: acme, limits: {{rpm: 1m, concurrent: 1000}}, budgets: [{{usd: 1000, every: month}}], keys: [{{id: ci, hash: '{KEY_HASH}'}}]}}"
            ));
        let weir = config.start().await;
        Self { config, weir: RwLock::new(Some(weir)), kills: std::sync::Mutex::default() }
    }

    /// A call to the gateway as it is now.
    async fn call(&self) -> Option<Call> {
        self.weir.read().await.as_ref().map(Weir::chat)
    }

    async fn kill(&self) {
        let mut weir = self.weir.write().await;
        self.kills.lock().unwrap().push(Instant::now());
        let killed = weir.take().unwrap();
        *weir = Some(killed.killed_and_started(&self.config).await);
    }

    async fn stop(&self) {
        let mut weir = self.weir.write().await;
        let stopped = weir.take().unwrap();
        *weir = Some(stopped.stopped_and_started(&self.config).await);
    }

    /// A caller may have read an answer to its end a moment after whoever sent it was killed.
    fn was_killed_about(&self, answered: Instant) -> bool {
        let apart = |kill: &Instant| kill.max(&answered).duration_since(*kill.min(&answered));
        self.kills.lock().unwrap().iter().any(|kill| apart(kill) < COMMITTED)
    }

    /// What it says of the budget.
    async fn budget(&self) -> Budget {
        let told: Value = serde_json::from_str(&self.ask("/admin/v1/budgets").await).unwrap();
        let dollars = |name: &str| told["budgets"][0][name].as_f64().unwrap();
        Budget { used: dollars("used_usd"), reserved: dollars("reserved_usd"), elsewhere: dollars("elsewhere_usd") }
    }

    async fn ask(&self, path: &str) -> String {
        let weir = self.weir.read().await;
        Call::new(weir.as_ref().unwrap().admin(), "GET", path).send().await.text().await
    }

    /// How many rows of all gateways it tells of, once it says that these are all.
    async fn told(&self) -> Option<u64> {
        let told: Value = serde_json::from_str(&self.ask("/admin/v1/usage").await).unwrap();
        told["total"]["requests"].as_u64().filter(|_| told["complete"] == true)
    }

    /// The rows of all gateways, as this one tells them.
    async fn rows(&self) -> Vec<Value> {
        let text = self.ask("/admin/v1/usage/rows?format=jsonl").await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// In dollars.
#[derive(Debug)]
struct Budget {
    used: f64,
    reserved: f64,
    elsewhere: f64,
}

/// An answer that its caller read to the end.
struct Answered {
    id: String,
    node: usize,
    at: Instant,
}

/// Makes one request; what it came to, if it was answered whole. A gateway that is being killed answers nothing.
async fn perform(deed: Deed, call: Call, node: usize) -> Option<Answered> {
    let task = tokio::spawn(async move {
        let mut answer = deed.call(&call).begin().await.outcome().await.ok()?;
        let id = answer.id();
        if deed == Deed::Leaves {
            answer.piece().await;
            answer.leave();
            return None;
        }
        let ok = answer.status.as_u16() == 200;
        let (_, end) = answer.rest().await;
        (ok && end == End::Whole).then_some(Answered { id, node, at: Instant::now() })
    });
    task.await.ok().flatten()
}

async fn caller(
    number: usize,
    node: Arc<Node>,
    place: usize,
    over: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
) -> Vec<Answered> {
    let mut answered = Vec::new();
    for turn in number.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let deed = DEEDS[turn % DEEDS.len()];
        let Some(call) = node.call().await else { continue };
        made.fetch_add(1, Ordering::Relaxed);
        answered.extend(perform(deed, call, place).await);
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_all_that_can_happen_the_books_agree() {
    let seconds = std::env::var("WEIR_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let simulator = simulator();
    let mut redis = Redis::start(&[]);
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(Arc::new(Node::start(&simulator, &redis).await));
    }
    let (over, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut callers = JoinSet::new();
    for number in 0..NODES * CALLERS {
        let place = number % NODES;
        callers.spawn(caller(number, Arc::clone(&nodes[place]), place, Arc::clone(&over), Arc::clone(&made)));
    }
    let began = Instant::now();
    for turn in 0_usize.. {
        if began.elapsed() > Duration::from_secs(seconds) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        match turn % 5 {
            0 => redis.freeze(),
            1 => redis.thaw(),
            2 => nodes[turn / 5 % NODES].stop().await,
            3 => nodes[(turn / 5 + 1) % NODES].kill().await,
            _ => {
                redis.kill();
                redis.start_again();
            }
        }
    }
    redis.thaw();
    over.store(true, Ordering::Relaxed);
    let answered: Vec<Answered> = callers.join_all().await.into_iter().flatten().collect();
    simulator.until(|account| account.in_flight == 0).await;
    for node in &nodes {
        node.stop().await;
    }
    all_told(&nodes).await;
    let mut rows: HashMap<String, Value> = HashMap::new();
    for row in nodes[0].rows().await {
        let twice = rows.insert(row["request_id"].as_str().unwrap().to_owned(), row);
        assert_eq!(twice, None, "a row is told twice");
    }
    let (mut used, mut reserved) = (0.0, 0.0);
    for node in &nodes {
        let budget = node.budget().await;
        used += budget.used;
        reserved += budget.reserved;
    }
    let missing: Vec<&Answered> = answered.iter().filter(|answered| !rows.contains_key(&answered.id)).collect();
    for lost in &missing {
        let node = &nodes[lost.node];
        let to_kills: Vec<_> =
            node.kills.lock().unwrap().iter().map(|kill| kill.saturating_duration_since(lost.at)).collect();
        assert!(node.was_killed_about(lost.at), "{} is not in the ledger, {to_kills:?} before kills", lost.id);
    }
    for answered in answered.iter().filter(|answered| rows.contains_key(&answered.id)) {
        let row = &rows[&answered.id];
        let recovered = nodes[answered.node].was_killed_about(answered.at) && row["accuracy"] == "estimated";
        assert!(recovered || row["accuracy"] == "exact", "{row}");
    }
    // To the token: what exact rows say of the model that nobody leaves, and what the provider says it served. More may
    // have been served only where a gateway was killed before it could tell.
    let tokens =
        |row: &Value| row["usage"]["input_tokens"].as_u64().unwrap() + row["usage"]["output_tokens"].as_u64().unwrap();
    let of_model = |row: &&Value| row["upstream_model"] == "gpt-5.5";
    let told: u64 = rows.values().filter(of_model).filter(|row| row["accuracy"] == "exact").map(tokens).sum();
    let account = simulator.account();
    let served: u64 =
        account.rows.iter().filter(|row| row.model == "gpt-5.5").map(|row| row.input_tokens + row.output_tokens).sum();
    let kills: u64 = nodes.iter().map(|node| node.kills.lock().unwrap().len() as u64).sum();
    let inexact = rows.values().filter(of_model).filter(|row| row["accuracy"] != "exact").count();
    let unheard = 14 * (CALLERS as u64 * kills + (missing.len() + inexact) as u64);
    assert!(told <= served && served <= told + unheard, "{told} tokens in the ledger, {served} served, {kills} kills");
    let cost: f64 = rows.values().filter_map(|row| row["cost_usd"].as_f64()).sum();
    assert!((used - cost).abs() < 1e-9, "{used} dollars in the counters, {cost} in the ledger");
    assert!(reserved.abs() < 1e-12, "{reserved} dollars are still reserved");
    let claimed = nothing_stays_claimed(&nodes).await;
    eprintln!(
        "{} requests, {} answered whole, {} rows, {} missing, {inexact} inexact, {kills} kills; tokens: ledger {told}, provider {served}; dollars: counters {used:.9}, ledger {cost:.9}, reserved {reserved:.9}, claimed and not used {claimed:.9}",
        made.load(Ordering::Relaxed),
        answered.len(),
        rows.len(),
        missing.len()
    );
}

/// Waits until each gateway has told the others all that it has: they tell the same then, and again a moment later.
async fn all_told(nodes: &[Arc<Node>]) {
    let telling = async {
        let mut before = None;
        loop {
            let mut told = Vec::new();
            for node in nodes {
                told.push(node.told().await);
            }
            let same = told[0].filter(|_| told.iter().all(|one| *one == told[0]));
            if same.is_some() && same == before {
                return;
            }
            before = same;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    within("all gateways to tell the same", telling).await;
}

/// What a node had in hand comes back when it uses none of it, whatever happened before. Gives what is still claimed beyond what
/// was used, in dollars.
async fn nothing_stays_claimed(nodes: &[Arc<Node>]) -> f64 {
    // A slice goes back when it has lain idle for 3 s.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut used = 0.0;
    for node in &nodes[1..] {
        used += node.budget().await.used;
    }
    let told = async {
        loop {
            // It looks at what others claim of the accounts that it uses.
            let call = nodes[0].call().await.unwrap();
            assert!(perform(Deed::Whole, call, 0).await.is_some());
            let claimed = nodes[0].budget().await.elsewhere - used;
            if claimed.abs() < 1e-9 {
                return claimed;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    within("the other gateways' claims to be what they used", told).await
}
