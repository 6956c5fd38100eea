//! Four gateways, a Redis and a provider, while callers leave and hurry, targets fail and are slow, and Redis freezes,
//! pauses, dies and forgets everything. Afterwards each request is held against the provider's own account of that very
//! request: to the token, and to the nano-dollar. In the first course gateways end as an operator ends them, and
//! nothing is allowed for; in the second they are killed too, and what was under way then is named one by one.
//!
//! `WEIR_CHAOS_SECONDS=300` makes each last longer than the few seconds of a usual run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod books;
mod callers;
mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use simulator::Simulator;
use tokio::task::JoinSet;
use weir_tests::ask::simulator;
use weir_tests::patience::within;
use weir_tests::redis::Redis;

use crate::books::Books;
use crate::callers::{Asked, Deed, caller, perform};
use crate::nodes::Node;

/// How many gateways there are.
const NODES: usize = 4;

/// Callers at once at each gateway.
const CALLERS: usize = 4;

/// How long each state of things lasts.
const STEP: Duration = Duration::from_millis(700);

/// What happens beside the requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Redis answers nothing.
    Freezes,
    Thaws,
    /// It answers nothing for less than a step.
    Pauses,
    Forgets,
    /// It dies, and comes back empty.
    Dies,
    /// A gateway is ended by SIGTERM and started again.
    Stop,
    /// A gateway is ended by SIGKILL and started again.
    Kill,
}

use Event::{Dies, Forgets, Freezes, Kill, Pauses, Stop, Thaws};

/// All that an operator may do, and all that may happen to Redis.
const GENTLE: &[Event] = &[Freezes, Thaws, Stop, Pauses, Forgets, Stop, Dies];

/// The same, and gateways that are killed while Redis is well, frozen, and newly empty.
const ROUGH: &[Event] = &[Kill, Freezes, Kill, Thaws, Stop, Pauses, Forgets, Kill, Dies];

/// All that takes part.
struct Fleet {
    simulator: Simulator,
    redis: Redis,
    nodes: Vec<Arc<Node>>,
}

impl Fleet {
    async fn start() -> Self {
        let (simulator, redis) = (simulator(), Redis::start(&[]));
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(Arc::new(Node::start(&simulator, &redis).await));
        }
        Self { simulator, redis, nodes }
    }

    /// Everything that `events` say, again and again, while callers ask; gives all that they asked.
    async fn run(&mut self, events: &[Event]) -> Vec<Asked> {
        let seconds = std::env::var("WEIR_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
        let over = Arc::<AtomicBool>::default();
        let mut callers = JoinSet::new();
        for number in 0..NODES * CALLERS {
            let place = number % NODES;
            callers.spawn(caller(number, Arc::clone(&self.nodes[place]), place, Arc::clone(&over)));
        }
        let (began, mut node) = (Instant::now(), 0);
        for event in events.iter().cycle() {
            if began.elapsed() > Duration::from_secs(seconds) {
                break;
            }
            tokio::time::sleep(STEP).await;
            match event {
                Freezes => self.redis.freeze(),
                Thaws => self.redis.thaw(),
                Pauses => self.redis.pause(STEP / 2),
                Forgets => self.redis.empty(),
                Dies => {
                    self.redis.kill();
                    self.redis.start_again();
                }
                Stop => self.nodes[node % NODES].stop().await,
                Kill => self.nodes[node % NODES].kill().await,
            }
            node += usize::from(matches!(event, Stop | Kill));
        }
        self.redis.thaw();
        over.store(true, Ordering::Relaxed);
        let asked = callers.join_all().await.into_iter().flatten().collect();
        self.simulator.until(|account| account.in_flight == 0).await;
        asked
    }

    /// All that is known of what happened. Each gateway is started anew before, so that it tells what it kept.
    async fn books(&self) -> Books {
        for node in &self.nodes {
            node.stop().await;
        }
        self.all_told().await;
        let mut books = Books::new(self.nodes[0].rows().await, &self.simulator);
        for node in &self.nodes {
            books.add(node.budget().await);
        }
        books
    }

    /// Waits until each gateway has told the others all that it has: they tell the same then, and again a moment later.
    async fn all_told(&self) {
        let telling = async {
            let mut before = None;
            loop {
                let mut told = Vec::new();
                for node in &self.nodes {
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
        // After a Redis that lost its data, ledgers are copied anew, on a machine that does other things as well.
        let told = tokio::time::timeout(Duration::from_secs(60), telling).await;
        assert!(told.is_ok(), "all gateways tell the same");
    }

    /// What a node had in hand comes back when it uses none of it, whatever happened before.
    async fn nothing_stays_claimed(&self) {
        // A slice goes back when it has lain idle for 3 s.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let mut used = 0;
        for node in &self.nodes[1..] {
            used += node.budget().await.used;
        }
        let told = async {
            // It looks at what others claim of the accounts that it uses.
            while self.nodes[0].budget().await.elsewhere != used {
                let call = self.nodes[0].call().await.unwrap();
                perform(Deed::Whole, call, "after-all".to_owned(), 0).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        within("the other gateways' claims to be what they used", told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_but_a_kill_every_request_is_in_the_books_exactly() {
    let mut fleet = Fleet::start().await;
    let asked = fleet.run(GENTLE).await;
    let books = fleet.books().await;
    for one in &asked {
        books.assert_tells_of(one);
    }
    books.assert_add_up();
    fleet.nothing_stays_claimed().await;
    eprintln!("{}", books.figures(&asked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_costs_the_books_nothing_but_what_was_under_way_and_that_is_named() {
    let mut fleet = Fleet::start().await;
    let asked = fleet.run(ROUGH).await;
    let books = fleet.books().await;
    let (mut caught, mut lost) = (Vec::new(), Vec::new());
    for one in &asked {
        match fleet.nodes[one.node].kill_of(one) {
            None => books.assert_tells_of(one),
            Some(_) if books.tells_of(one) => caught.push(one),
            Some(kill) => {
                books.assert_may_be_lost(one, kill);
                lost.push(one);
            }
        }
    }
    books.assert_add_up();
    fleet.nothing_stays_claimed().await;
    eprintln!("{}", books.figures(&asked));
    let kills: usize = fleet.nodes.iter().map(|node| node.kills()).sum();
    eprintln!("{kills} kills, under way at them or just before:\n{}", books.named(&caught, &lost));
}
