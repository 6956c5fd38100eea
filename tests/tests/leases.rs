//! Several gateways and one Redis: four nodes in one process, each with its own registry and link, beside a real
//! redis-server to which everything happens that can happen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use gateway::balance::{self, Outbox};
use gateway::budget::desk::{Claimants, Desk, Wishes};
use gateway::budget::lease::NodeId;
use gateway::budget::{Account, Cause, Listener, Owner, Registry, Span, Terms};
use gateway::config::{self, OnRedisLoss, Secret};
use gateway::limit::{self, Limits, ScopeId, What};
use gateway::redis::{Cooldowns, Link, MOST_WISHES, Settings};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use weir_tests::patience::within;
use weir_tests::redis::{PLAIN_COMMANDS, Redis};

/// How many gateways there are.
const NODES: i64 = 4;

/// What all of them may spend.
const LIMIT: i64 = 100_000;

/// The most that one request holds.
const WORST: i64 = 20;

/// What may be overspent when Redis is lost while all of them claim: what the others claimed since each looked, which
/// is never more than their part of the limit.
const MOST_OVER: i64 = LIMIT * (NODES - 1) / NODES;

/// What they spend from.
const ACCOUNT: &str = "tenant/acme/usd/ever";

/// By when each has looked at what the others claim.
const LOOKED: Duration = Duration::from_millis(1300);

/// One gateway, as far as its limits go.
struct Node {
    accounts: Arc<Registry>,
    /// As a snapshot would, so that it lives.
    account: Arc<Account>,
    linked: watch::Receiver<Vec<bool>>,
    over: oneshot::Sender<()>,
    link: JoinHandle<()>,
    spent: Arc<AtomicI64>,
}

impl Node {
    fn start(url: &str, id: NodeId, policy: OnRedisLoss) -> Self {
        Self::with(&config::Redis { url: Some(Secret::written(url)), ..nowhere() }, id, policy)
    }

    fn with(redis: &config::Redis, id: NodeId, policy: OnRedisLoss) -> Self {
        Self::at(redis, Desk::new(id, policy, MOST_WISHES))
    }

    fn at(redis: &config::Redis, (desk, wishes): (Arc<Desk>, Wishes)) -> Self {
        let accounts = Arc::new(Registry::shared(Listener::new(|_| {}), Arc::clone(&desk)));
        let terms = Terms { limit: LIMIT, soft: None, instead: None, span: Span::Always };
        let account = accounts.account(&ACCOUNT.into(), Owner::Tenant("acme".into()), terms);
        let (told, linked) = watch::channel(Vec::new());
        let told = Box::new(move |linked| told.send_modify(|states| states.push(linked)));
        let (outbox, notes) = Outbox::new();
        let cooldowns = Cooldowns::new(Arc::new(balance::Registry::shared(outbox)), notes);
        let shared: Vec<Arc<dyn Claimants>> = vec![Arc::clone(&accounts) as _];
        let link = Link::new(Settings::of(redis).unwrap(), (desk, wishes), shared, cooldowns, told);
        let (over, ended) = oneshot::channel::<()>();
        let link = tokio::spawn(link.run(async move { drop(ended.await) }));
        Self { accounts, account, linked, over, link, spent: Arc::default() }
    }

    async fn linked(&mut self) {
        let there = self.linked.wait_for(|states| states.last() == Some(&true));
        drop(within("the link to Redis", there).await.unwrap());
    }

    async fn cut(&mut self) {
        let gone = self.linked.wait_for(|states| states.contains(&false));
        drop(within("the loss of Redis", gone).await.unwrap());
    }

    fn spent(&self) -> i64 {
        self.spent.load(Ordering::SeqCst)
    }

    /// Spends until `most` is spent by this node or it has been refused `refusals` times. Gives the longest wait of an
    /// admission of each hundred but the worst.
    async fn spend(&self, most: i64, refusals: usize) -> Duration {
        let callers = (0..8).map(|caller| {
            let (account, spent) = (Arc::clone(&self.account), Arc::clone(&self.spent));
            tokio::spawn(async move {
                let (mut refused, mut waits) = (0, Vec::new());
                while refused < refusals && spent.load(Ordering::SeqCst) < most {
                    let asked = Instant::now();
                    let held = account.reserve(WORST, Timestamp::now()).await;
                    waits.push(asked.elapsed());
                    match held {
                        Ok(held) => {
                            tokio::task::yield_now().await;
                            // What was used is mostly less than the worst.
                            spent.fetch_add(held.settle(1 + (caller * 5) % WORST).amount, Ordering::SeqCst);
                        }
                        Err(_) => {
                            refused += 1;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
                waits
            })
        });
        let mut waits = Vec::new();
        for caller in callers.collect::<Vec<_>>() {
            waits.extend(caller.await.unwrap());
        }
        waits.sort_unstable();
        waits.get(waits.len().saturating_sub(1 + waits.len() / 100)).copied().unwrap_or_default()
    }

    async fn leave(self) {
        self.over.send(()).unwrap();
        within("a farewell", self.link).await.unwrap();
    }
}

fn nowhere() -> config::Redis {
    config::Redis { url: None, cluster: Vec::new(), sentinel: None, username: None, password: None }
}

async fn nodes(redis: &Redis, policy: OnRedisLoss) -> Vec<Node> {
    let mut nodes: Vec<_> = (1..=NODES.unsigned_abs()).map(|id| Node::start(&redis.url(), id, policy)).collect();
    for node in &mut nodes {
        node.linked().await;
    }
    // Each has seen the others once all have shown themselves.
    tokio::time::sleep(LOOKED).await;
    nodes
}

/// All of them spend at once, each until it may not; gives the worst of their 99th percentiles.
async fn spend_all(nodes: &[Node], most_each: i64, refusals: usize) -> Duration {
    let mut worst = Duration::ZERO;
    let mut under_way = Vec::new();
    for node in nodes {
        under_way.push(node.spend(most_each, refusals));
    }
    // All at once, without a crate for it: polled in turn by one task.
    let mut under_way: Vec<_> = under_way.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        under_way.retain_mut(|spending| match spending.as_mut().poll(context) {
            std::task::Poll::Ready(wait) => {
                worst = worst.max(wait);
                false
            }
            std::task::Poll::Pending => true,
        });
        if under_way.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    worst
}

fn total(nodes: &[Node]) -> i64 {
    nodes.iter().map(Node::spent).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_ten_calls_serves_ten_over_all_nodes_however_many_ask_at_once() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, OnRedisLoss::Lease).await;
    let text = "version: 1\nproviders: {p: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}}\n\
        models: [{name: m, targets: [{provider: p, model: m}]}]\n\
        tenants: [{id: acme, quotas: [{provider: p, type: trial, unit: times, limit: 10}]}]";
    let tenant = config::parse_str("test", text).unwrap().config.tenants.into_iter().next().unwrap();
    let quotas: Vec<_> = nodes.iter().map(|node| node.accounts.quotas(&"acme".into(), "p", &tenant.quotas)).collect();
    let asked = quotas.iter().cycle().take(40).cloned().map(|quotas| {
        tokio::spawn(async move { Some(quotas.reserve("m", 1, Timestamp::now()).await.ok()?.settle(1)?.amount) })
    });
    let mut served = 0;
    for asked in asked.collect::<Vec<_>>() {
        served += asked.await.unwrap().unwrap_or_default();
    }
    // Who found none left because others asked at that moment may ask again.
    for quotas in quotas.iter().cycle().take(40) {
        if let Ok(held) = quotas.reserve("m", 1, Timestamp::now()).await {
            served += held.settle(1).unwrap().amount;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(served, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_spend_a_budget_and_no_more() {
    let redis = Redis::start(PLAIN_COMMANDS);
    let nodes = nodes(&redis, OnRedisLoss::Lease).await;
    spend_all(&nodes, i64::MAX, 20).await;
    let total = total(&nodes);
    assert!(total <= LIMIT, "{total}");
    assert!(total >= LIMIT * 95 / 100, "{total} is all that could be had");
    assert_eq!(redis.say("EVAL 'return 1' 0").get(..7), Some("-NOPERM"), "scripts were allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_holds_nobody_up_and_nothing_is_overspent() {
    let redis = Redis::start(&[]);
    let mut nodes = nodes(&redis, OnRedisLoss::Lease).await;
    spend_all(&nodes, LIMIT / 16, 20).await;
    tokio::time::sleep(LOOKED).await;
    redis.freeze();
    let wait = spend_all(&nodes, LIMIT / 8, 20).await;
    assert!(wait < Duration::from_millis(50), "{wait:?}");
    for node in &mut nodes {
        node.cut().await;
    }
    let wait = spend_all(&nodes, i64::MAX, 20).await;
    assert!(wait < Duration::from_millis(50), "{wait:?}");
    let while_away = total(&nodes);
    assert!(while_away > LIMIT / 2, "{while_away} is all that the shares gave");
    assert!(while_away <= LIMIT, "{while_away}, though each had seen what the others claim");
    redis.thaw();
    for node in &mut nodes {
        node.linked().await;
    }
    spend_all(&nodes, i64::MAX, 20).await;
    assert!(total(&nodes) <= LIMIT, "{} after {while_away}", total(&nodes));
    for node in &nodes {
        assert_eq!(*node.linked.borrow(), [true, false, true], "one loss, told once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_and_comes_back_empty_is_told_what_was_spent() {
    let mut redis = Redis::start(&[]);
    let mut nodes = nodes(&redis, OnRedisLoss::Lease).await;
    spend_all(&nodes, LIMIT / 8, 20).await;
    redis.kill();
    for node in &mut nodes {
        node.cut().await;
    }
    redis.start_again();
    for node in &mut nodes {
        node.linked().await;
    }
    spend_all(&nodes, i64::MAX, 20).await;
    let total = total(&nodes);
    assert!(total <= LIMIT + MOST_OVER, "{total}");
    assert!(total >= LIMIT * 90 / 100, "{total} is all that could be had");
}

async fn come_back_and_spend_all(nodes: &mut [Node]) {
    for node in &mut *nodes {
        node.cut().await;
        node.linked().await;
    }
    spend_all(nodes, i64::MAX, 20).await;
    let total = total(nodes);
    assert!(total <= LIMIT + MOST_OVER, "{total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_everything_is_told_it_again() {
    let redis = Redis::start(&[]);
    let mut nodes = nodes(&redis, OnRedisLoss::Lease).await;
    spend_all(&nodes, LIMIT / 8, 20).await;
    redis.empty();
    come_back_and_spend_all(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_redis_is_left_and_taken_up_again() {
    let redis = Redis::start(&[]);
    let mut nodes = nodes(&redis, OnRedisLoss::Lease).await;
    spend_all(&nodes, LIMIT / 16, 20).await;
    redis.pause(Duration::from_millis(1500));
    let wait = spend_all(&nodes, LIMIT / 8, 20).await;
    assert!(wait < Duration::from_millis(50), "{wait:?}");
    come_back_and_spend_all(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_lost_redis_do_what_the_configuration_says() {
    let redis = Redis::start(&[]);
    let mut local = Node::start(&redis.url(), 1, OnRedisLoss::Local);
    let mut strict = Node::start(&redis.url(), 2, OnRedisLoss::Reject);
    local.linked().await;
    strict.linked().await;
    redis.freeze();
    assert!(local.account.reserve(1, Timestamp::now()).await.is_ok());
    local.cut().await;
    strict.cut().await;
    local.spend(i64::MAX, 20).await;
    assert!((LIMIT * 99 / 100..=LIMIT).contains(&local.spent()), "{}", local.spent());
    let refused = strict.account.reserve(1, Timestamp::now()).await.unwrap_err();
    assert_eq!(refused.cause, Cause::NoStore);
    redis.thaw();
    strict.linked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_idle_and_what_a_node_leaves_can_be_spent_by_the_others() {
    let redis = Redis::start(&[]);
    let mut idle = Node::start(&redis.url(), 1, OnRedisLoss::Lease);
    let mut busy = Node::start(&redis.url(), 2, OnRedisLoss::Lease);
    idle.linked().await;
    busy.linked().await;
    idle.spend(1, 1).await;
    let spent = idle.spent();
    within("idle slices", async {
        while busy.spent() + spent <= LIMIT - WORST {
            busy.spend(i64::MAX, 1).await;
        }
    })
    .await;
    assert!(busy.spent() + spent <= LIMIT);
    idle.leave().await;
    busy.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_has_its_claims_again() {
    let redis = Redis::start(&[]);
    let mut first = Node::start(&redis.url(), 7, OnRedisLoss::Lease);
    first.linked().await;
    first.spend(LIMIT / 2, 20).await;
    first.link.abort();
    let kept = first.spent();
    let mut second = Node::start(&redis.url(), 7, OnRedisLoss::Lease);
    second.accounts.restore([(ACCOUNT, 0, kept)], Timestamp::now());
    second.linked().await;
    second.spend(i64::MAX, 20).await;
    let total = kept + second.spent();
    assert!((LIMIT * 99 / 100..=LIMIT).contains(&total), "{total}");
    assert_eq!(second.account.reading(Timestamp::now()).used, total);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_used_that_took_over_is_counted_once() {
    let redis = Redis::start(&[]);
    let settings = config::Redis { url: Some(Secret::written(&redis.url())), ..nowhere() };
    let mut old = Node::with(&settings, 7, OnRedisLoss::Lease);
    let mut new = Node::at(&settings, Desk::taking_over(8, 7, OnRedisLoss::Lease, MOST_WISHES));
    old.linked().await;
    new.linked().await;
    old.spend(LIMIT / 4, 20).await;
    new.spend(LIMIT / 4, 20).await;
    let first = old.spent();
    // A busy machine may have made Redis too slow for one of them.
    old.linked().await;
    old.leave().await;
    new.accounts.restore([(ACCOUNT, 0, first)], Timestamp::now());
    new.spend(LIMIT / 2, 20).await;
    let both = first + new.spent();
    assert!(both > LIMIT * 70 / 100, "{both}: what the first had used was counted twice");
    new.linked().await;
    new.leave().await;
    let mut next = Node::with(&settings, 7, OnRedisLoss::Lease);
    next.accounts.restore([(ACCOUNT, 0, both)], Timestamp::now());
    next.linked().await;
    next.spend(i64::MAX, 20).await;
    let total = both + next.spent();
    assert!((LIMIT * 99 / 100..=LIMIT).contains(&total), "{total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_over_all_nodes_in_each_minute() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, OnRedisLoss::Lease).await;
    let minute = || Timestamp::now().as_second() / 60;
    loop {
        let (began, mut admitted, mut refused) = (minute(), 0, 0);
        let registries = nodes.iter().map(|node| limit::Registry::shared(Arc::clone(&node.accounts)));
        let id = ScopeId::tenant(&format!("acme-{began}"));
        let limits = Limits { rpm: Some(200), tpm: None, concurrent: None };
        let scopes: Vec<limit::Scopes> =
            registries.map(|all| [all.scope(id.clone(), limits, Instant::now())].into_iter().collect()).collect();
        for _ in 0..100 {
            for scopes in &scopes {
                match scopes.admit(Instant::now()).await {
                    Ok(permit) => {
                        admitted += 1;
                        drop(permit);
                    }
                    Err(rejection) => {
                        refused += 1;
                        assert_eq!((rejection.what, rejection.limit), (What::Requests, 200));
                        assert!(rejection.retry_after <= Duration::from_secs(60));
                    }
                }
            }
        }
        // A minute that ended meanwhile has a limit of its own.
        if minute() == began {
            assert_eq!(admitted + refused, 400);
            assert!((190..=200).contains(&admitted), "{admitted}");
            return;
        }
    }
}

/// One node spends all there is by way of `redis`.
async fn spends_all(redis: &config::Redis) {
    let mut node = Node::with(redis, 1, OnRedisLoss::Reject);
    node.linked().await;
    node.spend(i64::MAX, 20).await;
    assert!((LIMIT * 99 / 100..=LIMIT).contains(&node.spent()), "{}", node.spent());
    node.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_as_good_as_a_server() {
    let redis = Redis::cluster();
    spends_all(&config::Redis { cluster: vec![Secret::written(&redis.url())], ..nowhere() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_master() {
    let master = Redis::start(&["--requirepass", "open sesame"]);
    let sentinel = Redis::sentinel(&master);
    let nodes = vec![Secret::written(&sentinel.url())];
    let sentinel = Some(config::Sentinel { master: "weir".to_owned(), nodes });
    spends_all(&config::Redis { sentinel, password: Some(Secret::written("open sesame")), ..nowhere() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_an_access_list_needs_no_more_than_hashes() {
    let rules =
        ["on", ">open", "~weir:*", "-@all", "+ping", "+hgetall", "+hset", "+hincrby", "+hdel", "+expire", "+expireat"];
    let arguments: Vec<_> = ["--user", "weir"].into_iter().chain(rules).collect();
    let redis = Redis::start(&arguments);
    let (username, password) = (Some("weir".to_owned()), Some(Secret::written("open")));
    spends_all(&config::Redis { url: Some(Secret::written(&redis.url())), username, password, ..nowhere() }).await;
}
