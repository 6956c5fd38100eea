//! The one task that speaks with Redis: it fetches slices that accounts wish for, tells and asks once a second how
//! things stand, and cuts everybody off at once when an answer is slow or does not come.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use redis::Pipeline;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::budget::desk::{Claimant, Claimants, Desk, Wishes};
use crate::budget::lease::{Claim, Reason};
use crate::redis::claiming::{Claiming, Fields, Trouble, bequeath, in_time, locked, numbers, remove};
use crate::redis::connection::{Connection, Settings};
use crate::redis::cooldowns::{Clock, Cooldowns};
use crate::redis::nodes::Nodes;
use crate::redis::raises::Raised;

/// How many accounts and scopes may wait for a slice; more wait for their next request.
pub const MOST_WISHES: usize = 4096;

/// How many claims are under way together.
const BATCH: usize = 64;

/// How often this node shows that it is there, and looks at what it shares.
const BEAT: Duration = Duration::from_secs(1);

/// How often what others have to give back first is asked for again while somebody waits for it.
const PRESS: Duration = Duration::from_millis(200);

/// How long to wait before Redis is tried again.
const PROBE: Duration = Duration::from_millis(500);

/// After Redis lost its data each node tells what it has as soon as it notices, at its next beat or probe. Until all
/// have had the time for it nobody takes anything new.
const GRACE: Duration = Duration::from_secs(3);

/// How long going may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where the beats are.
const BEATS: &str = "weir:{nodes}";

/// The beats of processes: what is only a running process's is nobody's when it died.
const PROCESSES: &str = "weir:{nodes}:processes";

/// The beats are forgotten when nobody has been there for so many seconds.
const BEATS_LAST: i64 = 3600;

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

impl Link {
    /// A link for these cooldowns and for what these hold, which was made with the same desk. `told` hears `true` when
    /// Redis is reached and `false` when it is lost.
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
