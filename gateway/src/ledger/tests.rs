//! The laws of the ledger, over a disk that can refuse and forget.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::books::{Books, Counters};
use super::row::tests::row;
use super::shipper::Shipper;
use super::waiting::{Note, Waiting};
use super::*;
use crate::store::backend::{Backend, Batch, Direction, Span};
use crate::store::memory::Memory;
use crate::store::{Patience, Store};

const SETTINGS: Settings = Settings { commit_within: Duration::from_millis(2), retention: Duration::from_secs(86_400) };

fn opened(id: &str) -> Opened<'_> {
    let started_at = Timestamp::now();
    Opened { request_id: id, tenant: "acme", key: "ci", model: "gpt-main", kind: "llm", started_at }
}

fn charge(account: &str, window: i64, amount: i64) -> Charge {
    Charge { account: account.into(), window, amount }
}

fn open(memory: &Memory) -> Ledger {
    Ledger::open(&memory.disk(), SETTINGS, drop).unwrap()
}

fn ids(reader: &Reader, filter: &Filter) -> Vec<String> {
    let mut ids = Vec::new();
    reader.all().rows(filter, None, usize::MAX, |row| ids.push(row.request_id.to_string())).unwrap();
    ids
}

fn settled(ledger: &Ledger) {
    while !ledger.lag().is_zero() {
        std::thread::yield_now();
    }
}

#[test]
fn a_finished_request_has_its_row_and_its_charges() {
    let memory = Memory::default();
    let ledger = open(&memory);
    let (own, ours) = ("their-own-id", id::new(Timestamp::now()));
    let (day, today, long_ago) = ("tenant/acme/usd/day", Timestamp::now().as_second(), 100);
    ledger.admit(opened(own).intent()).finish(&row(own), [charge(day, today, 7), charge(day, long_ago, 1)]);
    ledger.admit(opened(&ours).intent()).finish(&row(&ours), [charge(day, today, 5)]);
    settled(&ledger);
    for id in [own, &ours] {
        assert_eq!(ledger.reader().find(id, Some("acme"), |found| *found == row(id)).unwrap(), Some(true));
        assert_eq!(ledger.reader().find(id, None, |_| ()).unwrap(), Some(()));
        assert_eq!(ledger.reader().find(id, Some("other"), |_| ()).unwrap(), None, "another tenant's");
    }
    assert_eq!(ledger.used(day, today), 12);
    ledger.close();
    let again = open(&memory);
    assert_eq!(again.counters(), [charge(day, today, 12)], "a window that is long over is forgotten");
    again.close();
}

#[test]
fn an_entry_that_is_dropped_leaves_a_row_that_says_so() {
    let ledger = open(&Memory::default());
    drop(ledger.admit(opened("dropped").intent()));
    settled(&ledger);
    let found = ledger.reader().find("dropped", None, |row| (row.accuracy, row.error.as_deref().map(str::to_owned)));
    assert_eq!(found.unwrap(), Some((Accuracy::Estimated, Some("gateway_fault".to_owned()))));
    ledger.close();
}

#[test]
fn what_was_open_when_the_process_was_killed_has_a_row() {
    let memory = Memory::default();
    let killed = open(&memory);
    let entries = ["one", "two", "three"].map(|id| killed.admit(opened(id).intent()));
    settled(&killed);
    let [one, two, _three] = entries;
    one.finish(&row("one"), []);
    settled(&killed);
    // The process is gone here: nothing of it is heard any more.
    std::mem::forget((two, _three));
    std::mem::forget(killed);
    let next = open(&memory);
    let mut errors = BTreeMap::new();
    next.reader()
        .all()
        .rows(&Filter::default(), None, 9, |row| {
            errors.insert(row.request_id.to_string(), row.error.is_some());
        })
        .unwrap();
    assert_eq!(errors, BTreeMap::from([("one".into(), false), ("three".into(), true), ("two".into(), true)]));
    assert!(next.reader().find("two", Some("acme"), |_| ()).unwrap().is_some());
    next.close();
}

#[test]
fn a_killed_requests_row_lasts_until_the_newest_commit() {
    let memory = Memory::default();
    let mut killed = Steps::start(&memory);
    let begun = Timestamp::from_second(1_795_406_400).unwrap();
    killed.waiting.open(frame::note(Opened { started_at: begun, ..opened("long") }.intent()));
    killed.commit_at(begun);
    let number = killed.waiting.open(frame::note(opened("short").intent()));
    killed.waiting.finish(number, &frame::encode(number, &row("short")), []);
    killed.commit_at(begun + Duration::from_millis(61_234));
    drop(killed);
    let next = open(&memory);
    let found = next.reader().find("long", None, |row| (row.accuracy, row.duration_ms, row.error.is_some()));
    assert_eq!(found.unwrap(), Some((Accuracy::Estimated, 61_234, true)));
    next.close();
}

#[test]
fn rows_older_than_the_retention_are_taken_away_with_their_entries() {
    let memory = Memory::default();
    let mut process = Steps::start(&memory);
    let begun = Timestamp::from_second(1_795_406_400).unwrap();
    let at = |commit: u32| begun + Duration::from_secs(3_600) * commit;
    for commit in 0..200 {
        // One id is used again and again: its entry leads to the newest.
        for id in [format!("own-{commit}"), "again".to_owned()] {
            let number = process.waiting.open(frame::note(opened(&id).intent()));
            process.waiting.finish(number, &frame::encode(number, &row(&id)), [charge("a", 0, 1)]);
        }
        process.commit_at(at(commit));
    }
    while process.books.prune(at(150)).unwrap() {}
    let reader = Reader::new(memory.disk(), None);
    assert_eq!(ids(&reader, &Filter::default()).len(), 100);
    let found = |id: &str| reader.find(id, Some("acme"), |_| ()).unwrap().is_some();
    assert_eq!([found("own-149"), found("own-150"), found("again")], [false, true, true]);
    assert_eq!(memory.disk().range(&Span::under(b"i"), Direction::Up, usize::MAX).unwrap().len(), 51);
    assert_eq!(flat(&process.books.counters), [charge("a", 0, 400)], "money is not forgotten with its rows");
}

#[test]
fn rows_past_the_bound_are_added_up_so_that_rows_come_to_what_accounts_were_charged() {
    let memory = Memory::default();
    let mut process = Steps::start(&memory);
    let large = row(&"x".repeat(60_000));
    let (mut requests, mut charged) = (0, 0);
    for number in 0..1_300_usize {
        let mut row = large.clone();
        row.model = ["a", "b"][number % 2].into();
        row.cost = (number % 3 > 0).then_some(7);
        let admitted = process.waiting.open(frame::note(opened("r").intent()));
        process.waiting.finish(admitted, &frame::encode(admitted, &row), [charge("a", 0, row.cost.unwrap_or(0))]);
        (requests, charged) = (requests + 1, charged + row.cost.unwrap_or(0));
    }
    let mut taken = process.waiting.take(Note::New);
    assert!(taken.lost > 100, "{} had no room", taken.lost);
    let mut prepared = process.books.prepare(&mut taken, Note::New, Timestamp::now());
    process.books.commit(&mut prepared).unwrap();
    let sums = Reader::new(memory.disk(), None).all().sums(&Filter::default(), &[Field::Model]).unwrap();
    assert_eq!(sums.total.requests, requests - taken.lost + 4, "one row for each model, priced and not");
    assert_eq!((sums.total.cost, sums.total.input_tokens), (Some(charged), requests * 1_000));
    assert_eq!(flat(&process.books.counters), [charge("a", 0, charged)]);
}

#[test]
fn a_disk_that_refuses_keeps_rows_waiting_and_then_takes_them() {
    let memory = Memory::default();
    let disk = memory.disk();
    let ledger = Ledger::open(&disk, SETTINGS, drop).unwrap();
    memory.refuse(true);
    ledger.admit(opened("first").intent()).finish(&row("first"), [charge("a", 0, 1)]);
    while !disk.is_degraded() {
        std::thread::yield_now();
    }
    ledger.admit(opened("second").intent()).finish(&row("second"), [charge("a", 0, 1)]);
    assert!(!ledger.lag().is_zero());
    memory.refuse(false);
    settled(&ledger);
    assert!(!disk.is_degraded());
    assert_eq!(ids(&ledger.reader(), &Filter::default()), ["second", "first"]);
    assert_eq!(ledger.used("a", 0), 2);
    ledger.close();
}

#[test]
fn the_counters_are_given_back_at_the_start_even_when_another_process_has_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path(), Patience::None).unwrap();
    let ledger = Ledger::open(first.disk(), SETTINGS, drop).unwrap();
    let second = Store::open(folder.path(), Patience::UntilFree).unwrap();
    let (restored, restores) = std::sync::mpsc::sync_channel(1);
    let later = Ledger::open(second.disk(), SETTINGS, move |counters| restored.send(counters).unwrap()).unwrap();
    later.admit(opened("of the second").intent()).finish(&row("of the second"), [charge("a", 0, 2)]);
    ledger.admit(opened("of the first").intent()).finish(&row("of the first"), [charge("a", 0, 40)]);
    ledger.close();
    first.close();
    assert_eq!(restores.recv().unwrap(), [charge("a", 0, 40)]);
    settled(&later);
    assert_eq!(later.used("a", 0), 42);
    assert_eq!(ids(&later.reader(), &Filter::default()), ["of the second", "of the first"]);
    later.close();
    second.close();
}

#[test]
fn rows_come_page_by_page_and_sums_are_of_all() {
    let ledger = open(&Memory::default());
    for number in 0..50 {
        let id = format!("r{number}");
        let mut row = row(&id);
        row.model = ["a", "b"][number % 2].into();
        row.cost = (number != 3).then_some(1_000_000_001);
        if number == 8 {
            // No provider was asked, which has nothing to do with prices.
            (row.error, row.usage, row.cost) = (Some("policy_budget".into()), Counts::default(), None);
        }
        ledger.admit(opened(&id).intent()).finish(&row, []);
        if number % 7 == 0 {
            settled(&ledger);
        }
    }
    settled(&ledger);
    let (reader, all) = (ledger.reader(), Filter::default());
    let newest_first: Vec<_> = (0..50).rev().map(|number| format!("r{number}")).collect();
    for limit in [1, 3, 7, 50] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            cursor = reader.all().rows(&all, cursor, limit, |row| found.push(row.request_id.to_string())).unwrap();
            let Some(at) = cursor else { break };
            assert_eq!(at.to_string().parse(), Ok(at));
        }
        assert_eq!(found, newest_first, "by {limit}");
    }
    let only_a = Filter { equal: vec![(Field::Model, "a".to_owned())], ..Filter::default() };
    assert_eq!(ids(&reader, &only_a).len(), 25);
    let sums = reader.all().sums(&all, &[Field::Model, Field::Key]).unwrap();
    let groups: Vec<_> = sums.groups.iter().map(|(group, sum)| (group.join(" "), sum.requests, sum.unpriced)).collect();
    assert_eq!(groups, [("a acme/ci".to_owned(), 25, 0), ("b acme/ci".to_owned(), 25, 1)]);
    assert_eq!((sums.total.requests, sums.total.cost), (50, Some(48 * 1_000_000_001)));
    let credentials = |sums: Sums| sums.groups.into_keys().flatten().collect::<Vec<_>>();
    let by_credential = reader.all().sums(&all, &[Field::Credential]).unwrap();
    assert_eq!(credentials(by_credential), ["openai/oa-1"]);
    let past = Filter { to: Some(Timestamp::UNIX_EPOCH), ..Filter::default() };
    assert_eq!(ids(&reader, &past), [""; 0]);
    ledger.close();
}

/// One process's ledger, step by step instead of by a thread.
struct Steps {
    waiting: Arc<Waiting>,
    books: Books,
}

impl Steps {
    fn start(memory: &Memory) -> Self {
        Self::on(memory.disk())
    }

    fn on(disk: Arc<Disk>) -> Self {
        let counters = Arc::<Mutex<Counters>>::default();
        Self { waiting: Arc::default(), books: Books::open(disk, counters, Timestamp::now()).unwrap() }
    }

    fn commit(&mut self, note: Note) {
        let mut prepared = self.books.prepare(&mut self.waiting.take(note), note, Timestamp::now());
        self.books.commit(&mut prepared).unwrap();
    }

    fn commit_at(&mut self, at: Timestamp) {
        let mut prepared = self.books.prepare(&mut self.waiting.take(Note::New), Note::New, at);
        self.books.commit(&mut prepared).unwrap();
    }
}

/// An attempt under way whose input costs so much, and an account that is charged for it.
fn sent(id: &str, cost: i64) -> Intent<'_, [(&'static str, i64, i64); 1]> {
    let attempt = UnderWay {
        provider: "openai".into(),
        upstream_model: "gpt-5.5".into(),
        credential: Some("oa-1".into()),
        input_tokens: 9,
        cost: Some(cost),
    };
    Intent { opened: opened(id), so_far: None, under_way: [Some(attempt), None], charges: [("a", 0, cost)] }
}

#[test]
fn what_was_sent_when_the_process_was_killed_costs_its_input_once() {
    let memory = Memory::default();
    let mut killed = Steps::start(&memory);
    let before = Attempt { ms: 1, ..row("x").attempts.remove(0) };
    let opened_both = opened("both");
    let so_far = Some(Row { attempts: vec![before.clone()], cost: Some(3), ..opened_both.row() });
    let beside = sent("both", 4).under_way[0].clone().map(|attempt| UnderWay { provider: "claude".into(), ..attempt });
    let both = sent("both", 5).under_way[0].clone();
    let (under_way, charges) = ([both, beside], [("a", 0, 7), ("a", 0, 5)]);
    killed.waiting.open(frame::note(Intent { opened: opened_both, so_far, under_way, charges }));
    killed.waiting.open(frame::note(opened("waits").intent()));
    killed.commit(Note::New);
    drop(killed);
    for start in 0..3 {
        let next = Steps::start(&memory);
        assert_eq!(flat(&next.books.counters), [charge("a", 0, 12)], "after start {start}");
    }
    let reader = Reader::new(memory.disk(), None);
    let found = reader.find("both", None, |row| serde_json::to_value(row).unwrap()).unwrap().unwrap();
    assert_eq!(found["attempts"][0], serde_json::to_value(before).unwrap());
    assert_eq!((&found["usage"]["input_tokens"], &found["accuracy"]), (&18.into(), &"estimated".into()));
    assert_eq!((found["cost_usd"].to_string(), &found["provider"]), ("1.2e-8".to_owned(), &"claude".into()));
    let cut = |place: usize| (&found["attempts"][place]["target"], &found["attempts"][place]["spent"]["input_tokens"]);
    assert_eq!([cut(1), cut(2)], [(&"openai/gpt-5.5".into(), &9.into()), (&"claude/gpt-5.5".into(), &9.into())]);
    let waits = reader.find("waits", None, |row| (row.attempts.len(), row.usage == Counts::default(), row.cost));
    assert_eq!(waits.unwrap(), Some((0, true, None)), "nobody knows of anything that was sent");
}

#[test]
fn a_note_of_a_version_before_is_a_row_alone() {
    let memory = Memory::default();
    let mut batch = Batch::default();
    batch.put(books::key(books::OPEN, 1), frame::value(Form::Row, &frame::encode(0, &opened("old").row())));
    memory.disk().commit(&batch).unwrap();
    let next = Steps::start(&memory);
    let found = Reader::new(memory.disk(), None).find("old", None, |row| (row.error.is_some(), row.cost));
    assert_eq!((found.unwrap(), flat(&next.books.counters)), (Some((true, None)), Vec::new()));
}

#[derive(Clone, Debug)]
enum Step {
    Admit,
    Renew(prop::sample::Index),
    Finish(prop::sample::Index),
    Commit,
    Regroup,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Admit),
        2 => any::<prop::sample::Index>().prop_map(Step::Renew),
        3 => any::<prop::sample::Index>().prop_map(Step::Finish),
        2 => Just(Step::Commit),
        1 => Just(Step::Regroup),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #[test]
    fn whatever_is_killed_when_each_committed_request_has_one_row_and_counters_are_the_rows(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let memory = Memory::default();
        let mut process = Steps::start(&memory);
        // What is open, what has ended since the last commit, and what must be found at the end: each with its cost.
        let (mut open, mut ended, mut noted) = (Vec::<(u64, String, Option<i64>)>::new(), Vec::new(), Vec::new());
        let mut expected = BTreeMap::new();
        for (number, step) in steps.into_iter().chain([Step::Kill]).enumerate() {
            let cost = i64::try_from(number).unwrap();
            match step {
                Step::Admit => {
                    let id = format!("r{number}");
                    open.push((process.waiting.open(frame::note(opened(&id).intent())), id, None));
                }
                Step::Renew(which) if !open.is_empty() => {
                    let which = which.index(open.len());
                    let (admitted, id, known) = &mut open[which];
                    process.waiting.renew(*admitted, frame::note(sent(id, cost)));
                    *known = Some(cost);
                }
                Step::Finish(which) if !open.is_empty() => {
                    let (number, id, _) = open.remove(which.index(open.len()));
                    let row = Row { cost: Some(cost), ..row(&id) };
                    process.waiting.finish(number, &frame::encode(number, &row), [charge("a", 0, cost)]);
                    ended.push((id, (true, Some(cost))));
                }
                Step::Renew(_) | Step::Finish(_) => {}
                Step::Commit | Step::Regroup => {
                    process.commit(if matches!(step, Step::Commit) { Note::New } else { Note::All });
                    expected.extend(ended.drain(..));
                    noted = open.iter().map(|(_, id, cost)| (id.clone(), *cost)).collect();
                }
                Step::Kill => {
                    process = Steps::start(&memory);
                    // What ended after its note but was not committed is told as open.
                    for (id, cost) in noted.drain(..) {
                        expected.entry(id).or_insert((false, cost));
                    }
                    (open, ended) = (Vec::new(), Vec::new());
                }
            }
        }
        let (reader, mut found) = (Reader::new(memory.disk(), None), BTreeMap::new());
        reader.all().rows(&Filter::default(), None, usize::MAX, |row| {
            let told = (row.error.is_none(), row.cost);
            assert_eq!(found.insert(row.request_id.to_string(), told), None, "twice");
        }).unwrap();
        let cost = expected.values().filter_map(|(_, cost)| *cost).sum::<i64>();
        prop_assert_eq!(found, expected);
        let counters = flat(&process.books.counters);
        prop_assert_eq!(counters.first().map_or(0, |counter| counter.amount), cost);
    }
}

/// Gateways whose copies are in memory.
#[derive(Debug)]
struct InMemory {
    node: u64,
    copies: Arc<Mutex<BTreeMap<u64, (Memory, State)>>>,
    away: AtomicBool,
}

impl InMemory {
    fn reach(&self) -> Result<(), StoreFault> {
        if self.away.load(Ordering::SeqCst) { Err(StoreFault::Unreached("away".to_owned())) } else { Ok(()) }
    }

    /// Nothing is left of the copy.
    fn lose(&self) {
        self.copies.lock().unwrap().remove(&self.node);
    }
}

/// What is written is safe at once.
#[derive(Debug)]
struct Safe(Memory);

impl Backend for Safe {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.0.backend().get(key)
    }

    fn range(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreFault> {
        self.0.backend().range(span, direction, limit)
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreFault> {
        let backend = self.0.backend();
        backend.apply(batch).and_then(|()| backend.flush())
    }

    fn flush(&self) -> Result<(), StoreFault> {
        Ok(())
    }
}

impl Fleet for InMemory {
    fn node(&self) -> u64 {
        self.node
    }

    fn own(&self) -> Arc<dyn Backend> {
        let mut copies = self.copies.lock().unwrap();
        let (copy, _) = copies.entry(self.node).or_insert((Memory::default(), State::Filling));
        Arc::new(Safe(copy.clone()))
    }

    fn others(&self) -> Result<Others, StoreFault> {
        self.reach()?;
        let copies = self.copies.lock().unwrap();
        let others = copies.iter().filter(|(node, _)| **node != self.node);
        let member = |(node, (copy, state)): (&u64, &(Memory, State))| Member {
            node: *node,
            state: *state,
            backend: Arc::new(Safe(copy.clone())),
        };
        Ok(Others { members: others.map(member).collect(), state: State::Whole })
    }

    fn note(&self, state: State, _: Duration, _: Timestamp) -> Result<(), StoreFault> {
        self.reach()?;
        self.copies.lock().unwrap().get_mut(&self.node).unwrap().1 = state;
        Ok(())
    }
}

/// One of several gateways, step by step.
struct One {
    memory: Memory,
    disk: Arc<Disk>,
    steps: Steps,
    fleet: Arc<InMemory>,
    shipper: Shipper,
}

impl One {
    fn start(memory: Memory, fleet: Arc<InMemory>) -> Self {
        let disk = memory.disk();
        let shared: Arc<dyn Fleet> = Arc::<InMemory>::clone(&fleet);
        let shipper = Shipper::new(Arc::clone(&disk), shared, SETTINGS.retention, Arc::default());
        Self { steps: Steps::on(Arc::clone(&disk)), memory, disk, fleet, shipper }
    }

    fn write(&mut self, id: &str, at: Timestamp) {
        let number = self.steps.waiting.open(frame::note(opened(id).intent()));
        self.steps.waiting.finish(number, &frame::encode(number, &row(id)), []);
        self.steps.commit_at(at);
    }

    /// The process ends by force and starts again.
    fn kill(&mut self) {
        *self = Self::start(self.memory.clone(), Arc::clone(&self.fleet));
    }

    fn reader(&self) -> Reader {
        let fleet: Arc<dyn Fleet> = Arc::<InMemory>::clone(&self.fleet);
        Reader::new(Arc::clone(&self.disk), Some(fleet))
    }
}

fn gateways(count: u64) -> Vec<One> {
    let copies = Arc::default();
    let fleet = |node| InMemory { node, copies: Arc::clone(&copies), away: AtomicBool::new(false) };
    (0..count).map(|node| One::start(Memory::default(), Arc::new(fleet(node)))).collect()
}

fn paged(reader: &Reader, limit: usize) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let mut volumes = reader.all();
        cursor = volumes.rows(&Filter::default(), cursor, limit, |row| found.push(row.request_id.to_string())).unwrap();
        assert!(volumes.is_complete());
        let Some(at) = cursor else { return found };
        assert_eq!(at.to_string().parse(), Ok(at));
    }
}

fn lose_all_but_the_mark(copy: &dyn Backend) {
    let everything = Span { from: Vec::new(), to: vec![u8::MAX] };
    let mut batch = Batch::default();
    let keys = copy.range(&everything, Direction::Up, usize::MAX).unwrap().into_iter().map(|(key, _)| key);
    keys.filter(|key| key != b"shipped").for_each(|key| batch.delete(key));
    copy.apply(&batch).unwrap();
}

#[derive(Clone, Debug)]
enum Turn {
    Write,
    Ship,
    Kill,
    /// What was copied is lost.
    Lose,
    /// It is lost between a look at it and a write of newer rows.
    LoseBefore,
    /// The copies cannot be reached, or again.
    Away(bool),
}

fn turn() -> impl Strategy<Value = (usize, Turn)> {
    let turn = prop_oneof![
        6 => Just(Turn::Write),
        3 => Just(Turn::Ship),
        1 => Just(Turn::Kill),
        1 => Just(Turn::Lose),
        1 => Just(Turn::LoseBefore),
        1 => any::<bool>().prop_map(Turn::Away),
    ];
    (0..3_usize, turn)
}

proptest! {
    #[test]
    fn whatever_is_lost_each_row_of_each_gateway_is_told_once_by_any_of_them(
        turns in proptest::collection::vec(turn(), 0..80),
        limit in 1..30_usize,
    ) {
        let (mut gateways, now) = (gateways(3), Timestamp::now());
        let mut written = Vec::new();
        for (number, (node, turn)) in turns.into_iter().enumerate() {
            let gateway = &mut gateways[node];
            match turn {
                Turn::Write => {
                    // Some moments are the same for several gateways.
                    let at = now + Duration::from_micros(u64::try_from(number / 3).unwrap());
                    let id = if number % 2 == 0 { format!("own-{number}") } else { id::new(at) };
                    gateway.write(&id, at);
                    written.push(id);
                }
                Turn::Ship => drop(gateway.shipper.round(now)),
                Turn::Kill => gateway.kill(),
                Turn::Lose => gateway.fleet.lose(),
                Turn::LoseBefore => lose_all_but_the_mark(&*gateway.fleet.own()),
                Turn::Away(away) => gateway.fleet.away.store(away, Ordering::SeqCst),
            }
        }
        for gateway in &mut gateways {
            gateway.fleet.away.store(false, Ordering::SeqCst);
            gateway.shipper.round(now).unwrap();
        }
        written.sort_unstable();
        let told: Vec<_> = gateways.iter().map(|gateway| paged(&gateway.reader(), limit)).collect();
        for (gateway, told) in gateways.iter().zip(&told) {
            prop_assert_eq!(told, &paged(&gateway.reader(), usize::MAX), "in the same order by any pages");
            let mut told = told.clone();
            told.sort_unstable();
            prop_assert_eq!(&told, &written);
            let sums = gateway.reader().all().sums(&Filter::default(), &[]).unwrap();
            prop_assert_eq!(usize::try_from(sums.total.requests).unwrap(), written.len());
            for id in &written {
                prop_assert_eq!(gateway.reader().find(id, Some("acme"), |_| ()).unwrap(), Some(()), "{}", id);
                prop_assert_eq!(gateway.reader().find(id, Some("other"), |_| ()).unwrap(), None, "{}", id);
            }
        }
        prop_assert_eq!(&told[0], &told[1], "any of them gives the same order");
    }
}

#[test]
fn while_the_copies_are_away_the_own_rows_are_told_and_that_others_are_missing() {
    let (mut gateways, now) = (gateways(2), Timestamp::now());
    for (number, gateway) in gateways.iter_mut().enumerate() {
        gateway.write(&format!("of {number}"), now);
        gateway.shipper.round(now).unwrap();
    }
    let reader = gateways[0].reader();
    gateways[0].fleet.away.store(true, Ordering::SeqCst);
    let (mut volumes, mut found) = (reader.all(), Vec::new());
    volumes.rows(&Filter::default(), None, 9, |row| found.push(row.request_id.to_string())).unwrap();
    assert_eq!((found.as_slice(), volumes.is_complete()), (["of 0".to_owned()].as_slice(), false));
    assert_eq!(reader.all().sums(&Filter::default(), &[]).unwrap().total.requests, 1);
    assert_eq!(reader.find("of 0", None, |_| ()).unwrap(), Some(()));
    assert!(
        matches!(reader.find("of 1", None, |_| ()), Err(StoreFault::Unreached(_))),
        "nobody knows that there is none"
    );
}

#[test]
fn a_copy_that_is_being_filled_is_not_taken_for_complete() {
    let (mut gateways, now) = (gateways(2), Timestamp::now());
    gateways[1].write("of 1", now);
    gateways[1].shipper.round(now).unwrap();
    gateways[1].fleet.note(State::Filling, SETTINGS.retention, now).unwrap();
    assert!(!gateways[0].reader().all().is_complete());
    assert_eq!(gateways[0].reader().find("of 1", None, |_| ()).unwrap(), Some(()), "what is there is told");
    assert!(gateways[0].reader().find("of none", None, |_| ()).is_err());
}

#[test]
fn rows_that_are_too_old_go_from_the_copy_with_their_ids() {
    let (mut gateways, now) = (gateways(2), Timestamp::now());
    let long_ago = now.checked_sub(SETTINGS.retention * 2).unwrap();
    gateways[1].write("old", long_ago);
    gateways[1].write("new", now);
    gateways[1].shipper.round(now).unwrap();
    assert_eq!(ids(&gateways[0].reader(), &Filter::default()), ["new"]);
    assert_eq!(gateways[0].reader().find("old", None, |_| ()).unwrap(), None);
    let copy = gateways[1].fleet.own();
    let left = copy.range(&Span { from: vec![], to: vec![255] }, Direction::Up, 99).unwrap();
    let tables: String = left.iter().map(|(key, _)| char::from(key[0])).collect();
    assert_eq!(tables, "firs", "format, one id, one commit, how far it came");
}

#[test]
fn a_copy_in_a_later_format_is_left_alone() {
    let (mut gateways, now) = (gateways(2), Timestamp::now());
    gateways[1].write("of 1", now);
    gateways[1].shipper.round(now).unwrap();
    let copy = gateways[1].fleet.own();
    copy.apply(&Batch { changes: vec![(b"format".to_vec(), Some(9_u32.to_be_bytes().to_vec()))] }).unwrap();
    let reader = gateways[0].reader();
    assert_eq!((ids(&reader, &Filter::default()).len(), reader.all().is_complete()), (0, false));
    gateways[1].kill();
    assert!(matches!(gateways[1].shipper.round(now), Err(StoreFault::Format { found: 9, known: 2 })));
}
