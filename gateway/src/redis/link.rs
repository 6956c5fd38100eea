//! The one task that speaks with Redis: it fetches slices that accounts wish for, tells and asks once a second how things
//! stand, and cuts everybody off at once when an answer is slow or does not come.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use redis::{Pipeline, RedisError};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::budget::Window;
use crate::budget::lease::{Amount, Answer, Beside, Claim, Claimant, Claimants, Claims, Desk, NodeId, Reason, Wishes};
use crate::redis::connection::{Connection, Settings};
use crate::redis::cooldowns::{Clock, Cooldowns};
use crate::redis::nodes::{Dead, Nodes};
use crate::redis::raises::Raised;

/// How many accounts and scopes may wait for a slice; more wait for their next request.
pub const MOST_WISHES: usize = 4096;

/// How many claims are under way together.
const BATCH: usize = 64;

/// An answer that takes longer is as good as none: Redis in the same building answers in a tenth of a millisecond. So long at
/// most those wait who have no slice in hand when it stops.
const SLOW: Duration = Duration::from_millis(40);

/// An answer that is read so late came before this process was stopped, and is old.
const STOPPED: Duration = Duration::from_secs(1);

/// How often this node shows that it is there, and looks at what it shares.
const BEAT: Duration = Duration::from_secs(1);

/// How often what others have to give back first is asked for again while somebody waits for it.
const PRESS: Duration = Duration::from_millis(200);

/// How long to wait before Redis is tried again.
const PROBE: Duration = Duration::from_millis(500);

/// After Redis lost its data each node tells what it has as soon as it notices, at its next beat or probe. Until all have
/// had the time for it nobody takes anything new.
const GRACE: Duration = Duration::from_secs(3);

/// How long going may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where the beats are.
const BEATS: &str = "weir:{nodes}";

/// The beats of processes: what is only a running process's is nobody's when it died.
const PROCESSES: &str = "weir:{nodes}:processes";

/// What holds for as long as it is renewed is forgotten when nobody has claimed any of it for so many seconds.
const UNCLAIMED: i64 = 3600;

/// How many rounds a claim has at most: what takes back claims nothing, but may learn that others want more of it.
const ROUNDS: usize = 4;

/// What follows a node's id in the name of the field that stands beside its claim.
const BESIDE: &str = ":beside";

/// What stands there if the node wants what others have in hand.
const WANTS: &str = "wants";

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
    wishes: Wishes,
    shared: Vec<Arc<dyn Claimants>>,
    cooldowns: Cooldowns,
    raised: Option<Raised>,
    told: Told,
    counted: Counted,
    nodes: Nodes,
    processes: Arc<Mutex<Nodes>>,
    /// Whether Redis lost what it held and has not been told all of it anew.
    lossy: bool,
    /// What has something in hand or is in use.
    active: HashMap<Arc<str>, Arc<dyn Claimant>>,
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
    /// A link for these cooldowns and for what these hold, which was made with the same desk. `told` hears `true` when Redis
    /// is reached and `false` when it is lost.
    #[must_use]
    pub fn new(
        settings: Settings,
        (desk, wishes): (Arc<Desk>, Wishes),
        shared: Vec<Arc<dyn Claimants>>,
        cooldowns: Cooldowns,
        told: Told,
    ) -> Self {
        let (counted, nodes, active): (Counted, _, _) = (Arc::new(|| {}), Nodes::default(), HashMap::new());
        let processes = Arc::default();
        Self {
            settings,
            desk,
            wishes,
            shared,
            cooldowns,
            raised: None,
            told,
            counted,
            nodes,
            processes,
            lossy: false,
            active,
        }
    }

    /// The same, that tells when the number of gateways changes.
    #[must_use]
    pub fn counting(self, counted: Counted) -> Self {
        Self { counted, ..self }
    }

    /// The same, that tells and hears of raised limits.
    #[must_use]
    pub fn raising(self, raised: Raised) -> Self {
        Self { raised: Some(raised), ..self }
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
        self.hear_raises(&mut connection).await?;
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
            let until = self.desk.until_it_is_back();
            tracing::warn!(%trouble, "redis is away: until it is back, {until}");
        }
        self.dismiss();
        self.active.values().for_each(|claimant| claimant.unanswered());
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
        let mut presses = tokio::time::interval(PRESS);
        presses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wishes = Vec::with_capacity(BATCH);
        loop {
            let done = tokio::select! {
                () = over.as_mut() => return None,
                _ = beats.tick() => self.look(connection).await,
                _ = self.wishes.recv_many(&mut wishes, BATCH) => self.fetch(connection, &mut wishes).await,
                _ = presses.tick() => self.press(connection).await,
                () = said(self.raised.as_ref()) => self.hear_raises(connection).await,
                () = self.cooldowns.noted() => self.tell_cooldowns(connection).await,
            };
            if let Err(trouble) = done {
                return Some(trouble);
            }
        }
    }

    async fn fetch(&mut self, connection: &Connection, wishes: &mut Vec<Arc<dyn Claimant>>) -> Result<(), Trouble> {
        // Two claims of one account at once would each take back what the other took.
        wishes.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        wishes.dedup_by(|a, b| a.id() == b.id());
        let now = Timestamp::now();
        let claims = wishes.drain(..).filter_map(|account| {
            let account = newest(&self.shared, account);
            self.active.insert(Arc::clone(account.id()), Arc::clone(&account));
            let claim = account.claim(Reason::Want, now)?;
            Some((account, claim))
        });
        let claims = claims.collect();
        self.settle(connection, claims).await
    }

    /// Asks again for what somebody waits for; as much at a time as does not hold the others up.
    async fn press(&mut self, connection: &Connection) -> Result<(), Trouble> {
        let now = Timestamp::now();
        let pressing = self.active.values().filter(|claimant| claimant.presses()).take(BATCH);
        let claims = pressing.filter_map(|claimant| Some((Arc::clone(claimant), claimant.claim(Reason::Want, now)?)));
        let claims = claims.collect();
        self.settle(connection, claims).await
    }

    /// Makes claims together, and takes back what is too much of them.
    async fn settle(&self, connection: &Connection, claims: Vec<(Arc<dyn Claimant>, Claim)>) -> Result<(), Trouble> {
        let mut under_way = JoinSet::new();
        for (claimant, claim) in claims {
            let claiming = Claiming {
                connection: connection.clone(),
                node: self.desk.node(),
                process: self.desk.process(),
                processes: Arc::clone(&self.processes),
            };
            under_way.spawn(claiming.settle(claimant, claim));
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

    async fn in_batches(
        &self,
        connection: &Connection,
        mut claims: Vec<(Arc<dyn Claimant>, Claim)>,
    ) -> Result<(), Trouble> {
        while !claims.is_empty() {
            let batch = claims.split_off(claims.len().saturating_sub(BATCH));
            self.settle(connection, batch).await?;
        }
        Ok(())
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
            self.settle(connection, claims).await?;
            // Those who wait for a slice do not wait for all that is looked at.
            let mut wishes: Vec<_> = std::iter::from_fn(|| self.wishes.try_recv().ok()).take(BATCH).collect();
            self.fetch(connection, &mut wishes).await?;
        }
        self.hear_cooldowns(connection).await?;
        self.hear_raises(connection).await
    }

    async fn hear_raises(&self, connection: &mut Connection) -> Result<(), Trouble> {
        let Some(raised) = &self.raised else { return Ok(()) };
        let (fields,): (Fields,) = in_time(connection.run(&Raised::asking())).await?;
        if let Some(pipeline) = raised.hear(fields, Timestamp::now()) {
            let () = in_time(connection.run(&pipeline)).await?;
        }
        Ok(())
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
    fn looks(&mut self, accounts: Vec<Arc<dyn Claimant>>) -> Vec<(Arc<dyn Claimant>, Claim)> {
        let now = Timestamp::now();
        let mut claims = Vec::with_capacity(accounts.len());
        for account in accounts.into_iter().map(|account| newest(&self.shared, account)) {
            match account.claim(Reason::Look, now) {
                Some(claim) => claims.push((account, claim)),
                None => drop(self.active.remove(account.id())),
            }
        }
        claims
    }

    async fn tell_all(&mut self, connection: &Connection) -> Result<(), Trouble> {
        let now = Timestamp::now();
        let all = self.all().into_iter();
        let claims = all.filter_map(|account| account.claim(Reason::Tell, now).map(|claim| (account, claim)));
        let claims: Vec<_> = claims.collect();
        // What the process before this one held is found with that, and goes back when nobody uses it.
        self.active.extend(claims.iter().map(|(account, _)| (Arc::clone(account.id()), Arc::clone(account))));
        self.in_batches(connection, claims).await
    }

    fn all(&self) -> Vec<Arc<dyn Claimant>> {
        self.shared.iter().flat_map(|holder| holder.claimants()).collect()
    }

    async fn beat(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        let node = self.desk.node();
        let mut pipeline = Pipeline::new();
        for (hash, id) in [(BEATS, node), (PROCESSES, self.desk.process())] {
            pipeline.hincr(hash, id, 1).expire(hash, BEATS_LAST).ignore().hgetall(hash);
        }
        let (own, beats, of_process, processes): (i64, Fields, i64, Fields) =
            in_time(connection.run(&pipeline)).await?;
        let processes =
            locked(&self.processes).look(self.desk.process(), of_process, &numbers(&processes), Instant::now());
        let seen = self.nodes.look(node, own, &numbers(&beats), Instant::now());
        let before = self.desk.nodes();
        self.desk.set_nodes(seen.alive);
        if self.desk.nodes() != before {
            let counted = Arc::clone(&self.counted);
            drop(tokio::task::spawn_blocking(move || counted()));
        }
        self.lossy |= seen.lost;
        for (hash, gone) in [(BEATS, seen.gone), (PROCESSES, processes.gone)] {
            remove(connection, hash, &gone).await?;
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
        let claims = claims.collect();
        self.in_batches(&connection, claims).await?;
        if let Some(heir_of) = self.desk.heir_of() {
            let all = self.all();
            bequeath(&mut connection, (node, heir_of), all.iter().filter_map(|account| account.legacy(now))).await?;
        }
        let mut pipeline = Pipeline::new();
        pipeline.hdel(BEATS, node).ignore().hdel(PROCESSES, self.desk.process()).ignore();
        in_time(connection.run(&pipeline)).await
    }
}

/// Makes what one node used another's. What is written twice, since this ends in between, is freed with its window.
async fn bequeath(
    connection: &mut Connection,
    (from, to): (NodeId, NodeId),
    legacies: impl Iterator<Item = Claim>,
) -> Result<(), Trouble> {
    for legacy in legacies {
        let mut next = pipeline((to, 0), &legacy);
        // What was told beside the two claims is true of them no more.
        next.hset(&legacy.key, from, 0).ignore().hdel(&legacy.key, vec![beside(from), beside(to)]).ignore();
        let _known: (Fields, Fields) = in_time(connection.run(&next)).await?;
    }
    Ok(())
}

/// What a reload has put in the place of `claimant`: a lower limit holds from then on for what is in hand, too.
fn newest(shared: &[Arc<dyn Claimants>], claimant: Arc<dyn Claimant>) -> Arc<dyn Claimant> {
    shared.iter().find_map(|holder| holder.newest(claimant.id())).unwrap_or(claimant)
}

/// Waits for a raise to be told, where there are any.
async fn said(raised: Option<&Raised>) {
    match raised {
        Some(raised) => raised.said().await,
        None => std::future::pending().await,
    }
}

/// What makes one claim.
struct Claiming {
    connection: Connection,
    node: NodeId,
    process: NodeId,
    processes: Arc<Mutex<Nodes>>,
}

impl Claiming {
    async fn settle(mut self, claimant: Arc<dyn Claimant>, claim: Claim) -> Result<(), Trouble> {
        let mut next = Some(claim);
        for _ in 0..ROUNDS {
            let Some(claim) = next else { break };
            let answer = self.write(&claim).await.inspect_err(|_| claimant.unanswered())?;
            next = claimant.answered(&claim, &answer, Timestamp::now());
        }
        Ok(())
    }

    /// Writes a claim as the node's, or as the process's where it holds only while that lives.
    async fn write(&mut self, claim: &Claim) -> Result<Answer, Trouble> {
        let by = if claim.window.is_some() { self.node } else { self.process };
        let pipeline = pipeline((by, self.process), claim);
        let (before, after): (Fields, Fields) = in_time(self.connection.run(&pipeline)).await?;
        let (before, noted, after) = (numbers(&before), noted(&after), numbers(&after));
        if claim.window.is_some() {
            return self.without_hands(&claim.key, Answer { before, after, ..Answer::default() }, noted).await;
        }
        let Dead { all, buried } = self.dead(&after);
        remove(&mut self.connection, &claim.key, &buried).await?;
        Ok(Answer { before, after, dead: all, ..Answer::default() })
    }

    fn dead(&self, processes: &Claims) -> Dead {
        locked(&self.processes).dead(self.process, processes, Instant::now())
    }

    /// Leaves out what dead processes had in hand, and in the end writes that down: who comes later cannot know that they died.
    async fn without_hands(&mut self, key: &str, mut answer: Answer, noted: Vec<Noted>) -> Result<Answer, Trouble> {
        let processes = noted.iter().map(|noted| (noted.process, 0)).collect();
        let Dead { all, buried } = self.dead(&processes);
        let mut cuts = Pipeline::new();
        for Noted { node, process, mut beside } in noted {
            let is_dead = all.contains(&process);
            let claim = answer.after.iter_mut().find(|(id, claim)| *id == node && *claim > beside.spent);
            if let Some((_, claim)) = claim.filter(|_| is_dead) {
                *claim = beside.spent;
                if buried.contains(&process) {
                    cuts.hset(key, node, beside.spent).ignore();
                }
            }
            beside.wants &= !is_dead;
            answer.beside.push((node, beside));
        }
        if !cuts.is_empty() {
            let () = in_time(self.connection.run(&cuts)).await?;
        }
        Ok(answer)
    }
}

/// What stands beside a node's claim, and which process wrote it.
struct Noted {
    node: NodeId,
    process: NodeId,
    beside: Beside,
}

impl Noted {
    fn read(field: &str, text: &str) -> Option<Self> {
        let node = field.strip_suffix(BESIDE)?.parse().ok()?;
        let mut words = text.split(' ');
        let process = words.next()?.parse().ok()?;
        let (used, spent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { node, process, beside: Beside { used, spent, wants: words.next() == Some(WANTS) } })
    }

    fn text(&self) -> String {
        let Self { process, beside: Beside { used, spent, wants }, .. } = self;
        let wants = if *wants { format!(" {WANTS}") } else { String::new() };
        format!("{process} {used} {spent}{wants}")
    }
}

/// The field beside a node's claim.
fn beside(node: NodeId) -> String {
    format!("{node}{BESIDE}")
}

/// What no gateway wrote is passed over.
fn noted(fields: &[(String, String)]) -> Vec<Noted> {
    fields.iter().filter_map(|(field, text)| Noted::read(field, text)).collect()
}

fn locked(nodes: &Mutex<Nodes>) -> std::sync::MutexGuard<'_, Nodes> {
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn remove(connection: &mut Connection, hash: &str, ids: &[NodeId]) -> Result<(), Trouble> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut pipeline = Pipeline::new();
    pipeline.hdel(hash, ids).ignore();
    in_time(connection.run(&pipeline)).await
}

fn pipeline((node, process): (NodeId, NodeId), claim: &Claim) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.hgetall(&claim.key);
    match claim.amount {
        Amount::More(more) => pipeline.hincr(&claim.key, node, more).ignore(),
        Amount::Total(total) => pipeline.hset(&claim.key, node, total).ignore(),
    };
    if let Some(told) = claim.beside {
        pipeline.hset(&claim.key, beside(node), Noted { node, process, beside: told }.text()).ignore();
    }
    match claim.window {
        None => pipeline.expire(&claim.key, UNCLAIMED).ignore(),
        Some(Window { end: i64::MAX, .. }) => &mut pipeline,
        Some(Window { start, end }) => {
            let afterwards = end.saturating_sub(start).clamp(AFTERWARDS.0, AFTERWARDS.1);
            pipeline.expire_at(&claim.key, end.saturating_add(afterwards)).ignore()
        }
    };
    pipeline.hgetall(&claim.key);
    pipeline
}

async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, Trouble> {
    let asked = Instant::now();
    let answer = tokio::time::timeout(SLOW, answer).await.map_err(|_| Trouble::Slow)??;
    if asked.elapsed() < STOPPED { Ok(answer) } else { Err(Trouble::Slow) }
}

/// What no gateway wrote is passed over.
fn numbers(fields: &[(String, String)]) -> Claims {
    fields.iter().filter_map(|(node, number)| Some((node.parse().ok()?, number.parse().ok()?))).collect()
}
