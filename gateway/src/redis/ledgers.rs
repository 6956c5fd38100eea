//! The ledgers of all gateways in their Redis: a [`Map`] for each, and one hash that says whose there are. A ledger
//! that nobody has written to for as long as rows are kept is forgotten by itself.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use redis::Pipeline;

use crate::budget::lease::NodeId;
use crate::ledger::{Fleet, Member, Others, State};
use crate::redis::connection::Settings;
use crate::redis::line::Line;
use crate::redis::map::Map;
use crate::store::StoreFault;
use crate::store::backend::Backend;

/// Whose ledgers there are: each node with when it last said so, and whether all of its ledger is there.
const MEMBERS: &str = "weir:{ledgers}";

/// Where the hash has the time at which it began: it was empty then, or Redis had lost it.
const BORN: &str = "born";

/// How long it takes until all who run have said again that they are there: each looks every 2 s, and again a second
/// after a failure.
const SETTLED: Duration = Duration::from_secs(5);

/// What began longer ago by the clocks of all gateways, in seconds, has settled. They differ by less.
const LONG_AGO: i64 = 60;

/// What follows the time of one whose ledger is not all there.
const FILLING: &str = " filling";

/// How much longer than rows are kept the ledger of a node that is gone stays, for clocks that are not quite the same.
const AFTERWARDS: Duration = Duration::from_secs(3600);

/// For how long one that Redis has lost is waited for, in seconds: a gateway that runs says once a minute that it is
/// there.
const MISSED: i64 = 600;

/// More ledgers are not read; each is one folder of a store, so these are very many gateways that come and go.
const MOST: usize = 4096;

/// The ledgers in one Redis, as one node sees them.
#[derive(Debug)]
pub struct Ledgers {
    line: Arc<Line>,
    node: NodeId,
    /// Who was seen, and when it had last said so: one that Redis knows no more has to tell its ledger anew.
    seen: Mutex<BTreeMap<NodeId, i64>>,
    /// When the hash began, and when this process first saw that.
    born: Mutex<Option<(i64, Instant)>>,
}

impl Ledgers {
    /// The ledgers in this Redis; that of `node` is this process's own.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(settings: Settings, node: NodeId) -> io::Result<Self> {
        Ok(Self { line: Arc::new(Line::new(settings)?), node, seen: Mutex::default(), born: Mutex::default() })
    }

    fn map(&self, node: NodeId) -> Map {
        Map::new(Arc::clone(&self.line), &format!("ledger:{node}"))
    }

    /// What the hash says, without what no gateway wrote.
    fn members(&self) -> Result<Members, StoreFault> {
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(MEMBERS);
        let (fields,): (Vec<(String, String)>,) = self.line.ask(&pipeline)?;
        let born = fields.iter().find(|(field, _)| field == BORN).and_then(|(_, at)| at.parse().ok());
        let noted = fields.iter().filter_map(|(node, text)| Noted::read(node, text)).take(MOST).collect();
        Ok(Members { born, noted })
    }

    /// Whether all who run have had the time to say that they are there.
    fn state(&self, born: Option<i64>, now: i64) -> State {
        let mut known = self.born.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(born) = born else {
            *known = None;
            return State::Filling;
        };
        let (_, since) = known.filter(|(at, _)| *at == born).unwrap_or_else(|| (born, Instant::now()));
        *known = Some((born, since));
        let is_old = now.saturating_sub(born) >= LONG_AGO || since.elapsed() >= SETTLED;
        if is_old { State::Whole } else { State::Filling }
    }

    /// Who was there a moment ago and is no more, since Redis lost what it held.
    fn lost(&self, noted: &[Noted], now: i64) -> Vec<NodeId> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(noted.iter().map(|noted| (noted.node, noted.at)));
        seen.retain(|_, at| *at > now.saturating_sub(MISSED));
        let is_there = |node: &NodeId| noted.iter().any(|noted| noted.node == *node);
        seen.keys().copied().filter(|node| !is_there(node)).collect()
    }

    /// Takes those out of the hash whose ledgers are forgotten.
    fn forget(&self, noted: &[Noted], before: i64) -> Result<(), StoreFault> {
        let gone = noted.iter().filter(|noted| noted.at < before).map(|noted| noted.node);
        let gone: Vec<_> = gone.collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        pipeline.hdel(MEMBERS, gone).ignore();
        self.line.ask(&pipeline)
    }
}

impl Fleet for Ledgers {
    fn node(&self) -> NodeId {
        self.node
    }

    fn own(&self) -> Arc<dyn Backend> {
        Arc::new(self.map(self.node))
    }

    fn others(&self) -> Result<Others, StoreFault> {
        let Members { born, noted } = self.members()?;
        let now = Timestamp::now().as_second();
        let (state, lost) = (self.state(born, now), self.lost(&noted, now));
        let there = noted.into_iter().map(|noted| (noted.node, noted.state));
        let lost = lost.into_iter().map(|node| (node, State::Filling));
        let others = there.chain(lost).filter(|(node, _)| *node != self.node).take(MOST);
        let member = |(node, state)| Member { node, state, backend: Arc::new(self.map(node)) };
        Ok(Others { members: others.map(member).collect(), state })
    }

    fn note(&self, state: State, kept: Duration, now: Timestamp) -> Result<(), StoreFault> {
        let kept = i64::try_from((kept + AFTERWARDS).as_secs()).unwrap_or(i64::MAX);
        let now = now.as_second();
        let mut pipeline = Pipeline::new();
        pipeline.hset(MEMBERS, self.node, Noted { node: self.node, at: now, state }.text()).ignore();
        let () = self.line.ask(&pipeline)?;
        self.map(self.node).last(kept)?;
        let Members { born, noted } = self.members()?;
        if born.is_none() {
            let mut pipeline = Pipeline::new();
            pipeline.hset(MEMBERS, BORN, now).ignore();
            let () = self.line.ask(&pipeline)?;
        }
        // From here on it settles, and not only from the first question on.
        let _for_questions = self.state(born.or(Some(now)), now);
        self.forget(&noted, now.saturating_sub(kept))
    }
}

/// What the hash says.
struct Members {
    /// When it began.
    born: Option<i64>,
    noted: Vec<Noted>,
}

/// What is noted of a node.
struct Noted {
    node: NodeId,
    at: i64,
    state: State,
}

impl Noted {
    fn read(node: &str, text: &str) -> Option<Self> {
        let (at, state) = match text.strip_suffix(FILLING) {
            Some(at) => (at, State::Filling),
            None => (text, State::Whole),
        };
        Some(Self { node: node.parse().ok()?, at: at.parse().ok()?, state })
    }

    fn text(&self) -> String {
        match self.state {
            State::Whole => self.at.to_string(),
            State::Filling => format!("{}{FILLING}", self.at),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use weir_tests::redis::Redis;

    use super::*;
    use crate::config::{self, Secret};

    const KEPT: Duration = Duration::from_secs(86_400);

    fn ledgers(redis: &Redis, node: NodeId) -> Ledgers {
        let url = Some(Secret::written(&redis.url()));
        let at = config::Redis { url, cluster: Vec::new(), sentinel: None, username: None, password: None };
        Ledgers::new(Settings::of(&at).unwrap(), node).unwrap()
    }

    fn seen(by: &Ledgers) -> Vec<(NodeId, State)> {
        let mut seen: Vec<_> = by.others().unwrap().members.iter().map(|member| (member.node, member.state)).collect();
        seen.sort_unstable_by_key(|(node, _)| *node);
        seen
    }

    #[test]
    fn a_ledger_that_redis_lost_is_missed_and_one_that_nobody_writes_is_forgotten() {
        let redis = Redis::start(&[]);
        let (one, two, old) = (ledgers(&redis, 1), ledgers(&redis, 2), ledgers(&redis, 3));
        let now = Timestamp::now();
        old.note(State::Whole, KEPT, now - KEPT).unwrap();
        two.note(State::Filling, KEPT, now).unwrap();
        one.note(State::Whole, KEPT, now).unwrap();
        assert_eq!(seen(&one), [(2, State::Filling), (3, State::Whole)]);
        assert_eq!(seen(&two), [(1, State::Whole), (3, State::Whole)]);
        two.note(State::Whole, KEPT, now + AFTERWARDS * 2).unwrap();
        assert_eq!(seen(&one), [(2, State::Whole)], "what it wrote is older than rows become");
        redis.empty();
        assert_eq!(seen(&one), [(2, State::Filling)], "it will tell it anew");
        two.note(State::Whole, KEPT, now).unwrap();
        assert_eq!(seen(&one), [(2, State::Whole)]);
    }

    #[test]
    fn who_has_just_come_does_not_take_what_redis_lost_for_all() {
        let redis = Redis::start(&[]);
        let (one, new, now) = (ledgers(&redis, 1), ledgers(&redis, 2), Timestamp::now());
        let state = |ledgers: &Ledgers| ledgers.others().unwrap().state;
        one.note(State::Whole, KEPT, now - Duration::from_secs(120)).unwrap();
        assert_eq!(state(&new), State::Whole, "it began long ago");
        redis.empty();
        assert_eq!(state(&ledgers(&redis, 3)), State::Filling, "nobody has said anything yet");
        new.note(State::Whole, KEPT, now).unwrap();
        let late = ledgers(&redis, 4);
        assert_eq!(state(&late), State::Filling, "others may not have");
        let since = Instant::now();
        while state(&late) == State::Filling {
            assert!(since.elapsed() < SETTLED * 2);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(since.elapsed() + Duration::from_millis(500) >= SETTLED);
        assert_eq!(state(&new), State::Whole, "it knew all the time, though nobody asked");
    }

    #[test]
    fn a_user_that_may_not_begin_or_end_a_transaction_is_refused_and_nothing_is_written() {
        let mut batch = crate::store::backend::Batch::default();
        batch.put("key", "value");
        for refused in ["multi", "exec"] {
            let rule = format!("-{refused}");
            let redis = Redis::start(&["--user", "default", "on", "nopass", "~*", "&*", "+@all", &rule]);
            let one = ledgers(&redis, 1);
            for _ in 0..2 {
                let error = one.own().apply(&batch).unwrap_err();
                assert!(matches!(&error, StoreFault::Backend(why) if why.contains(refused)), "{error}");
                assert_eq!(redis.say("EXISTS weir:{ledger:1}:keys weir:{ledger:1}:values"), ":0");
                // What failed is not asked again for a moment.
                while let Err(StoreFault::Unreached(_)) = one.own().get(b"key") {
                    std::thread::sleep(Duration::from_millis(50));
                }
                assert_eq!(one.own().get(b"key").unwrap(), None, "it can be read");
            }
        }
    }

    #[test]
    fn the_copy_of_a_gateway_that_never_comes_back_is_forgotten_by_itself() {
        let redis = Redis::start(&[]);
        let one = ledgers(&redis, 1);
        let mut batch = crate::store::backend::Batch::default();
        batch.put("key", "value");
        one.own().apply(&batch).unwrap();
        assert_eq!(redis.say("TTL weir:{ledger:1}:keys"), ":-1");
        one.note(State::Whole, KEPT, Timestamp::now()).unwrap();
        for part in ["keys", "values"] {
            let seconds: u64 = redis.say(&format!("TTL weir:{{ledger:1}}:{part}"))[1..].parse().unwrap();
            assert!((KEPT.as_secs()..=(KEPT + AFTERWARDS).as_secs()).contains(&seconds), "{seconds}");
        }
    }
}
