//! One gateway, its ends and starts, and what it tells.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use simulator::Simulator;
use tokio::sync::RwLock;
use weir_tests::client::Call;
use weir_tests::redis::Redis;
use weir_tests::weir::{Config, KEY_HASH, Weir};

use crate::callers::Asked;

/// Dollars for a million tokens: a nano-dollar is then a thousandth of a token.
pub(crate) const INPUT: i64 = 1;
pub(crate) const OUTPUT: i64 = 3;

/// What ended so shortly before a kill may be lost: `store.commit_within`, and a flush on a busy machine.
pub(crate) const COMMITTED: Duration = Duration::from_millis(400);

/// One gateway, and when it was killed.
pub(crate) struct Node {
    config: Config,
    weir: RwLock<Option<Weir>>,
    kills: Mutex<Vec<Kill>>,
}

/// It was killed within this time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// In nano-dollars.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) used: i64,
    pub(crate) reserved: i64,
    pub(crate) elsewhere: i64,
}

/// An amount of dollars that JSON tells: a double holds a thousand dollars to far less than a nano-dollar.
pub(crate) fn nanos(dollars: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "it is some dollars")]
    dollars.as_f64().map(|dollars| (dollars * 1e9).round() as i64)
}

impl Node {
    pub(crate) async fn start(simulator: &Simulator, redis: &Redis) -> Self {
        let model = |name: &str, provider: &str, upstream: &str, more: &str| {
            format!(
                "{{name: {name}, targets: [{{provider: {provider}, model: '{upstream}'}}], pricing: {{input: {INPUT}, output: {OUTPUT}}}{more}}}"
            )
        };
        let config = Config::of(simulator)
            .store(&format!("redis: {}", redis.url()))
            .server("drain: 3s")
            .model(&model("m", "openai", "gpt-5.5", ""))
            .model(&model("long", "openai", "gpt-5.5~events=40~gap=5ms", ""))
            .model(&model("counted", "claude", "claude-sonnet-4-6~events=40~gap=5ms", ""))
            .model(&model("slow", "openai", "gpt-5.5~delay=150ms", ""))
            .model(&model("failing", "openai", "gpt-5.5~status=500", ", retries: {max: 0}, fallbacks: {any: [m]}"))
            .model(&model("late", "openai", "gpt-5.5~delay=150ms", ", timeouts: {first_byte: 20ms}, retries: {max: 0}, fallbacks: {any: [m]}"))
            .model(&model("silent", "openai", "gpt-5.5~first=150ms", ", timeouts: {first_byte: 20ms}, retries: {max: 0}, fallbacks: {any: [m]}"))
            .model(&format!(
                "{{name: hedged, targets: [{{provider: openai, model: 'gpt-5.5~delay=150ms'}}, {{tier: 1, provider: openai, model: gpt-5.5}}], hedge: {{after: 20ms, max_extra: 100%}}, pricing: {{input: {INPUT}, output: {OUTPUT}}}}}"
            ))
            .tenant(&format!(
                "{{id: acme, limits: {{rpm: 1m, concurrent: 1000}}, budgets: [{{usd: 1000, every: month}}], keys: [{{id: ci, hash: '{KEY_HASH}'}}]}}"
            ));
        let weir = config.start().await;
        Self { config, weir: RwLock::new(Some(weir)), kills: Mutex::default() }
    }

    /// A call to the gateway as it is now.
    pub(crate) async fn call(&self) -> Option<Call> {
        self.weir.read().await.as_ref().map(Weir::chat)
    }

    pub(crate) async fn kill(&self) {
        let mut weir = self.weir.write().await;
        let killed = weir.take().unwrap();
        let from = Instant::now();
        let killed = killed.killed();
        self.kills.lock().unwrap().push(Kill { from, to: Instant::now() });
        *weir = Some(killed.started(&self.config).await);
    }

    pub(crate) async fn stop(&self) {
        let mut weir = self.weir.write().await;
        let stopped = weir.take().unwrap();
        *weir = Some(stopped.stopped_and_started(&self.config).await);
    }

    pub(crate) fn kills(&self) -> usize {
        self.kills.lock().unwrap().len()
    }

    /// The kill during which `asked` was under way, or so shortly after whose end that its row may be lost.
    pub(crate) fn kill_of(&self, asked: &Asked) -> Option<Kill> {
        let kills = self.kills.lock().unwrap();
        kills.iter().copied().find(|kill| asked.began <= kill.to && kill.from <= asked.ended + COMMITTED)
    }

    /// What it says of the budget.
    pub(crate) async fn budget(&self) -> Budget {
        let told: Value = serde_json::from_str(&self.ask("/admin/v1/budgets").await).unwrap();
        let amount = |name: &str| nanos(&told["budgets"][0][name]).unwrap();
        Budget { used: amount("used_usd"), reserved: amount("reserved_usd"), elsewhere: amount("elsewhere_usd") }
    }

    async fn ask(&self, path: &str) -> String {
        let weir = self.weir.read().await;
        Call::new(weir.as_ref().unwrap().admin(), "GET", path).send().await.text().await
    }

    /// How many rows of all gateways it tells of, once it says that these are all.
    pub(crate) async fn told(&self) -> Option<u64> {
        let told: Value = serde_json::from_str(&self.ask("/admin/v1/usage").await).unwrap();
        told["total"]["requests"].as_u64().filter(|_| told["complete"] == true)
    }

    /// The rows of all gateways, as this one tells them.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let text = self.ask("/admin/v1/usage/rows?format=jsonl").await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
