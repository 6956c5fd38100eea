//! The one task that speaks with Redis: it fetches slices that accounts wish for, tells and asks once a second how things
//! stand, and cuts everybody off at once when an answer is slow or does not come.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redis::{Pipeline, RedisError};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::budget::lease::{Amount, Answer, Claim, Claims, Desk, NodeId, Reason};
use crate::budget::{Account, Registry};
use crate::redis::connection::{Connection, Settings};
use crate::redis::cooldowns::{Clock, Cooldowns};
use crate::redis::nodes::Nodes;

/// How many accounts may wait for a slice; more wait for their next request.
pub const MOST_WISHES: usize = 4096;

/// How many claims are under way together.
const BATCH: usize = 64;

/// An answer that takes longer is as good as none: Redis in the same building answers in a tenth of a millisecond. So long at
/// most those wait who have no slice in hand when it stops.
const SLOW: Duration = Duration::from_millis(40);

/// How often this node shows that it is there, and looks at what it shares.
const BEAT: Duration = Duration::from_secs(1);

/// How long to wait before Redis is tried again.
const PROBE: Duration = Duration::from_millis(500);

/// After Redis lost its data each node tells what it has as soon as it notices, at its next beat or probe. Until all have
/// had the time for it nobody takes anything new.
const GRACE: Duration = Duration::from_secs(3);

/// How long going may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where the beats are.
const BEATS: &str = "weir:{nodes}";

/// The beats are forgotten when nobody has been there for so many seconds.
const BEATS_LAST: i64 = 3600;

/// Claims outlive their window by its own length within these bounds, in seconds, for clocks that are not quite the same.
const AFTERWARDS: (i64, i64) = (60, 3600);

/// Who is told when Redis is reached or lost.
pub type Told = Box<dyn Fn(bool) + Send + Sync>;

/// Who is told, on a thread that may block, that there are more or fewer gateways.
pub type Counted = Arc<dyn Fn() + Send + Sync>;

/// The link of a process to its Redis.
pub struct Link {
    settings: Settings,
    desk: Arc<Desk>,
    wishes: Receiver<Arc<Account>>,
    accounts: Arc<Registry>,
    cooldowns: Cooldowns,
    told: Told,
    counted: Counted,
    nodes: Nodes,
    /// Whether Redis lost what it held and has not been told all of it anew.
    lossy: bool,
    /// The accounts that have something in hand or are in use.
    active: HashMap<Arc<str>, Arc<Account>>,
}

/// The fields of a hash, as Redis tells them.
type Fields = Vec<(String, String)>;

/// Why Redis is not used.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("it did not answer within {} ms", SLOW.as_millis())]
    Slow,
    #[error("it has lost what it held, and is told anew")]
    Lossy,
    #[error("{0}")]
    Redis(#[from] RedisError),
}

impl Link {
    /// A link for these cooldowns and for the accounts of a registry that was made with the same desk. `told` hears `true` when Redis is reached and
    /// `false` when it is lost.
    #[must_use]
    pub fn new(
        settings: Settings,
        (desk, wishes): (Arc<Desk>, Receiver<Arc<Account>>),
        accounts: Arc<Registry>,
        cooldowns: Cooldowns,
        told: Told,
    ) -> Self {
        let (counted, nodes, active): (Counted, _, _) = (Arc::new(|| {}), Nodes::default(), HashMap::new());
        Self { settings, desk, wishes, accounts, cooldowns, told, counted, nodes, lossy: false, active }
    }

    /// The same, that tells when the number of gateways changes.
    #[must_use]
    pub fn counting(self, counted: Counted) -> Self {
        Self { counted, ..self }
    }

    /// Keeps the link up until `over`, then gives back what is in hand.
    pub async fn run(mut self, over: impl Future<Output = ()>) {
        let mut over = pin!(over);
        let mut known_down = false;
        while let Some(joined) = self.join(over.as_mut()).await {
            let trouble = match joined {
                Ok(mut connection) => {
                    self.up();
                    known_down = false;
                    match self.serve(&mut connection, over.as_mut()).await {
                        Some(trouble) => trouble,
                        None => return self.leave(Some(connection)).await,
                    }
                }
                Err(trouble) => trouble,
            };
            self.down(&trouble, !std::mem::replace(&mut known_down, true));
            if self.pause(over.as_mut()).await {
                break;
            }
        }
        self.leave(None).await;
    }

    /// Connects, and tells Redis what this node has; `None` when it is all over.
    async fn join(&mut self, over: Pin<&mut impl Future<Output = ()>>) -> Option<Result<Connection, Trouble>> {
        tokio::select! {
            () = over => None,
            joined = self.introduce() => Some(joined),
        }
    }

    async fn introduce(&mut self) -> Result<Connection, Trouble> {
        let mut connection = Connection::open(&self.settings).await?;
        self.beat(&mut connection).await?;
        self.tell_all(&connection).await?;
        if self.lossy {
            let told = Instant::now();
            while told.elapsed() < GRACE {
                tokio::time::sleep(BEAT).await;
                self.beat(&mut connection).await?;
            }
            self.tell_all(&connection).await?;
            self.lossy = false;
        }
        self.hear_cooldowns(&mut connection).await?;
        Ok(connection)
    }

    fn up(&self) {
        self.desk.set_linked(true);
        (self.told)(true);
        tracing::info!(nodes = self.desk.nodes(), "redis is reached: limits and budgets are shared");
    }

    /// Cuts everybody off, with one line in the log however often it is tried again.
    fn down(&mut self, trouble: &Trouble, first: bool) {
        self.desk.set_linked(false);
        if first {
            (self.told)(false);
            tracing::warn!(%trouble, "redis is away: limits and budgets go on without it until it is back");
        }
        self.dismiss();
    }

    /// Tells those who wait that nothing will come.
    fn dismiss(&mut self) {
        while let Ok(account) = self.wishes.try_recv() {
            account.unanswered();
        }
    }

    /// Waits for the next try; `true` when it is all over.
    async fn pause(&mut self, over: Pin<&mut impl Future<Output = ()>>) -> bool {
        tokio::select! {
            () = over => true,
            () = tokio::time::sleep(PROBE) => {
                self.dismiss();
                false
            }
        }
    }

    /// Serves wishes until Redis is lost; `None` when it is all over.
    async fn serve(
        &mut self,
        connection: &mut Connection,
        mut over: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Trouble> {
        let mut beats = tokio::time::interval_at(Instant::now() + BEAT, BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wishes = Vec::with_capacity(BATCH);
        loop {
            let done = tokio::select! {
                () = over.as_mut() => return None,
                _ = beats.tick() => self.look(connection).await,
                _ = self.wishes.recv_many(&mut wishes, BATCH) => self.fetch(connection, &mut wishes).await,
                () = self.cooldowns.noted() => self.tell_cooldowns(connection).await,
            };
            if let Err(trouble) = done {
                return Some(trouble);
            }
        }
    }

    async fn fetch(&mut self, connection: &Connection, wishes: &mut Vec<Arc<Account>>) -> Result<(), Trouble> {
        // Two claims of one account at once would each take back what the other took.
        wishes.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        wishes.dedup_by(|a, b| a.id() == b.id());
        let now = Timestamp::now();
        let claims = wishes.drain(..).filter_map(|account| {
            self.active.insert(Arc::clone(account.id()), Arc::clone(&account));
            let claim = account.claim(Reason::Want, now)?;
            Some((account, claim))
        });
        let claims = claims.collect();
        settle(connection, self.desk.node(), claims).await
    }

    /// What is done at each beat: tells that this node is there, sees what others claim, gives back what lies idle.
    async fn look(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        self.beat(connection).await?;
        if self.lossy {
            return Err(Trouble::Lossy);
        }
        let mut accounts: Vec<_> = self.active.values().cloned().collect();
        while !accounts.is_empty() {
            let batch = accounts.split_off(accounts.len().saturating_sub(BATCH));
            let claims = self.looks(batch);
            settle(connection, self.desk.node(), claims).await?;
            // Those who wait for a slice do not wait for all that is looked at.
            let mut wishes: Vec<_> = std::iter::from_fn(|| self.wishes.try_recv().ok()).take(BATCH).collect();
            self.fetch(connection, &mut wishes).await?;
        }
        self.hear_cooldowns(connection).await
    }

    async fn tell_cooldowns(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        if let Some(pipeline) = self.cooldowns.telling(Clock::now()) {
            let () = in_time(connection.run(&pipeline)).await?;
        }
        self.cooldowns.told();
        Ok(())
    }

    async fn hear_cooldowns(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        let (fields,): (Fields,) = in_time(connection.run(&Cooldowns::asking())).await?;
        if let Some(pipeline) = self.cooldowns.hear(fields, Clock::now()) {
            let () = in_time(connection.run(&pipeline)).await?;
        }
        Ok(())
    }

    /// The claims of accounts that are in use or have something to give back; the others are no longer active.
    fn looks(&mut self, accounts: Vec<Arc<Account>>) -> Vec<(Arc<Account>, Claim)> {
        let now = Timestamp::now();
        let mut claims = Vec::with_capacity(accounts.len());
        for account in accounts {
            match account.claim(Reason::Look, now) {
                Some(claim) => claims.push((account, claim)),
                None => drop(self.active.remove(account.id())),
            }
        }
        claims
    }

    async fn tell_all(&mut self, connection: &Connection) -> Result<(), Trouble> {
        let now = Timestamp::now();
        let accounts = self.accounts.all().into_iter();
        let claims = accounts.filter_map(|account| account.claim(Reason::Tell, now).map(|claim| (account, claim)));
        let claims: Vec<_> = claims.collect();
        // What the process before this one held is found with that, and goes back when nobody uses it.
        self.active.extend(claims.iter().map(|(account, _)| (Arc::clone(account.id()), Arc::clone(account))));
        in_batches(connection, self.desk.node(), claims).await
    }

    async fn beat(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        let node = self.desk.node();
        let mut pipeline = Pipeline::new();
        pipeline.hincr(BEATS, node, 1).expire(BEATS, BEATS_LAST).ignore().hgetall(BEATS);
        let (own, beats): (i64, Fields) = in_time(connection.run(&pipeline)).await?;
        let seen = self.nodes.look(node, own, &numbers(&beats), Instant::now());
        let before = self.desk.nodes();
        self.desk.set_nodes(seen.alive);
        if self.desk.nodes() != before {
            let counted = Arc::clone(&self.counted);
            drop(tokio::task::spawn_blocking(move || counted()));
        }
        self.lossy |= seen.lost;
        if !seen.gone.is_empty() {
            let mut pipeline = Pipeline::new();
            pipeline.hdel(BEATS, &seen.gone).ignore();
            let () = in_time(connection.run(&pipeline)).await?;
        }
        Ok(())
    }

    /// Gives back what is in hand. Nobody waits for it for long.
    async fn leave(mut self, connection: Option<Connection>) {
        let left = tokio::time::timeout(FAREWELL, self.farewell(connection)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("redis did not take back what was in hand; others have it when the window ends");
        }
    }

    async fn farewell(&mut self, connection: Option<Connection>) -> Result<(), Trouble> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => Connection::open(&self.settings).await?,
        };
        let (node, now) = (self.desk.node(), Timestamp::now());
        let accounts = self.active.drain().map(|(_, account)| account);
        let claims = accounts.filter_map(|account| account.claim(Reason::Leave, now).map(|claim| (account, claim)));
        in_batches(&connection, node, claims.collect()).await?;
        if let Some(heir_of) = self.desk.heir_of() {
            let all = self.accounts.all();
            bequeath(&mut connection, (node, heir_of), all.iter().filter_map(|account| account.legacy(now))).await?;
        }
        let mut pipeline = Pipeline::new();
        pipeline.hdel(BEATS, node).ignore();
        in_time(connection.run(&pipeline)).await
    }
}

async fn in_batches(
    connection: &Connection,
    node: NodeId,
    mut claims: Vec<(Arc<Account>, Claim)>,
) -> Result<(), Trouble> {
    while !claims.is_empty() {
        let batch = claims.split_off(claims.len().saturating_sub(BATCH));
        settle(connection, node, batch).await?;
    }
    Ok(())
}

/// Makes what one node used another's. What is written twice, since this ends in between, is freed with its window.
async fn bequeath(
    connection: &mut Connection,
    (from, to): (NodeId, NodeId),
    legacies: impl Iterator<Item = Claim>,
) -> Result<(), Trouble> {
    for legacy in legacies {
        let mut next = pipeline(to, &legacy);
        next.hset(&legacy.key, from, 0).ignore();
        let _known: (Fields, Fields) = in_time(connection.run(&next)).await?;
    }
    Ok(())
}

/// Makes claims together, and takes back what is too much of them.
async fn settle(connection: &Connection, node: NodeId, claims: Vec<(Arc<Account>, Claim)>) -> Result<(), Trouble> {
    let mut under_way = JoinSet::new();
    for (account, claim) in claims {
        let connection = connection.clone();
        under_way.spawn(one(connection, node, account, claim));
    }
    let mut first = Ok(());
    while let Some(done) = under_way.join_next().await {
        let done = done.unwrap_or_else(|error| {
            tracing::error!(%error, "a claim ended badly");
            Ok(())
        });
        first = first.and(done);
    }
    first
}

async fn one(mut connection: Connection, node: NodeId, account: Arc<Account>, claim: Claim) -> Result<(), Trouble> {
    let mut next = Some(claim);
    // At most two rounds: what takes back claims nothing, so it has nothing to take back.
    while let Some(claim) = next {
        let answered = in_time(connection.run(&pipeline(node, &claim))).await;
        let (before, after): (Fields, Fields) = answered.inspect_err(|_| {
            account.unanswered();
        })?;
        let answer = Answer { before: numbers(&before), after: numbers(&after) };
        next = account.answered(&claim, &answer, Timestamp::now());
    }
    Ok(())
}

fn pipeline(node: NodeId, claim: &Claim) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.hgetall(&claim.key);
    match claim.amount {
        Amount::More(more) => pipeline.hincr(&claim.key, node, more).ignore(),
        Amount::Total(total) => pipeline.hset(&claim.key, node, total).ignore(),
    };
    if claim.window.end < i64::MAX {
        let length = claim.window.end.saturating_sub(claim.window.start);
        let afterwards = length.clamp(AFTERWARDS.0, AFTERWARDS.1);
        pipeline.expire_at(&claim.key, claim.window.end.saturating_add(afterwards)).ignore();
    }
    pipeline.hgetall(&claim.key);
    pipeline
}

async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, Trouble> {
    Ok(tokio::time::timeout(SLOW, answer).await.map_err(|_| Trouble::Slow)??)
}

/// What no gateway wrote is passed over.
fn numbers(fields: &[(String, String)]) -> Claims {
    fields.iter().filter_map(|(node, number)| Some((node.parse().ok()?, number.parse().ok()?))).collect()
}
