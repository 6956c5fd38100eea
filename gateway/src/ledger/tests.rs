//! The laws of the ledger, over a disk that can refuse and forget.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::books::{Books, Counters};
use super::row::tests::row;
use super::waiting::{Note, Waiting};
use super::*;
use crate::store::backend::{Direction, Span};
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
    reader.rows(filter, None, usize::MAX, |row| ids.push(row.request_id.to_string())).unwrap();
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
    ledger.admit(&opened(own)).finish(&row(own), [charge(day, today, 7), charge(day, long_ago, 1)]);
    ledger.admit(&opened(&ours)).finish(&row(&ours), [charge(day, today, 5)]);
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
    drop(ledger.admit(&opened("dropped")));
    settled(&ledger);
    let found = ledger.reader().find("dropped", None, |row| (row.accuracy, row.error.as_deref().map(str::to_owned)));
    assert_eq!(found.unwrap(), Some((Accuracy::Estimated, Some("gateway_fault".to_owned()))));
    ledger.close();
}

#[test]
fn what_was_open_when_the_process_was_killed_has_a_row() {
    let memory = Memory::default();
    let killed = open(&memory);
    let entries = ["one", "two", "three"].map(|id| killed.admit(&opened(id)));
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
    killed.waiting.open(frame::encode(0, &Opened { started_at: begun, ..opened("long") }.row()));
    killed.commit_at(begun);
    let number = killed.waiting.open(frame::encode(0, &opened("short").row()));
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
            let number = process.waiting.open(frame::encode(0, &opened(&id).row()));
            process.waiting.finish(number, &frame::encode(number, &row(&id)), [charge("a", 0, 1)]);
        }
        process.commit_at(at(commit));
    }
    while process.books.prune(at(150)).unwrap() {}
    let reader = Reader::new(memory.disk());
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
        let admitted = process.waiting.open(frame::encode(0, &opened("r").row()));
        process.waiting.finish(admitted, &frame::encode(admitted, &row), [charge("a", 0, row.cost.unwrap_or(0))]);
        (requests, charged) = (requests + 1, charged + row.cost.unwrap_or(0));
    }
    let mut taken = process.waiting.take(Note::New);
    assert!(taken.lost > 100, "{} had no room", taken.lost);
    let mut prepared = process.books.prepare(&mut taken, Note::New, Timestamp::now());
    process.books.commit(&mut prepared).unwrap();
    let sums = Reader::new(memory.disk()).sums(&Filter::default(), &[Field::Model]).unwrap();
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
    ledger.admit(&opened("first")).finish(&row("first"), [charge("a", 0, 1)]);
    while !disk.is_degraded() {
        std::thread::yield_now();
    }
    ledger.admit(&opened("second")).finish(&row("second"), [charge("a", 0, 1)]);
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
    later.admit(&opened("of the second")).finish(&row("of the second"), [charge("a", 0, 2)]);
    ledger.admit(&opened("of the first")).finish(&row("of the first"), [charge("a", 0, 40)]);
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
        ledger.admit(&opened(&id)).finish(&row, []);
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
            cursor = reader.rows(&all, cursor, limit, |row| found.push(row.request_id.to_string())).unwrap();
            let Some(at) = cursor else { break };
            assert_eq!(at.to_string().parse(), Ok(at));
        }
        assert_eq!(found, newest_first, "by {limit}");
    }
    let only_a = Filter { equal: vec![(Field::Model, "a".to_owned())], ..Filter::default() };
    assert_eq!(ids(&reader, &only_a).len(), 25);
    let sums = reader.sums(&all, &[Field::Model, Field::Key]).unwrap();
    let groups: Vec<_> = sums.groups.iter().map(|(group, sum)| (group.join(" "), sum.requests, sum.unpriced)).collect();
    assert_eq!(groups, [("a acme/ci".to_owned(), 25, 0), ("b acme/ci".to_owned(), 25, 1)]);
    assert_eq!((sums.total.requests, sums.total.cost), (50, Some(49 * 1_000_000_001)));
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
        let counters = Arc::<Mutex<Counters>>::default();
        Self { waiting: Arc::default(), books: Books::open(memory.disk(), counters, Timestamp::now()).unwrap() }
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

#[derive(Clone, Debug)]
enum Step {
    Admit,
    Finish(prop::sample::Index),
    Commit,
    Regroup,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Admit),
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
        // What is open, what has ended since the last commit, and what must be found at the end.
        let (mut open, mut ended, mut noted) = (Vec::new(), Vec::new(), Vec::new());
        let mut expected = BTreeMap::new();
        for (number, step) in steps.into_iter().chain([Step::Kill]).enumerate() {
            match step {
                Step::Admit => {
                    let id = format!("r{number}");
                    let frame = frame::encode(0, &opened(&id).row());
                    open.push((process.waiting.open(frame), id));
                }
                Step::Finish(which) if !open.is_empty() => {
                    let (number, id) = open.remove(which.index(open.len()));
                    process.waiting.finish(number, &frame::encode(number, &row(&id)), [charge("a", 0, 1)]);
                    ended.push(id);
                }
                Step::Finish(_) => {}
                Step::Commit | Step::Regroup => {
                    process.commit(if matches!(step, Step::Commit) { Note::New } else { Note::All });
                    expected.extend(ended.drain(..).map(|id| (id, true)));
                    noted = open.iter().map(|(_, id)| id.clone()).collect();
                }
                Step::Kill => {
                    process = Steps::start(&memory);
                    // What ended after its note but was not committed is told as open.
                    for id in noted.drain(..) {
                        expected.entry(id).or_insert(false);
                    }
                    (open, ended) = (Vec::new(), Vec::new());
                }
            }
        }
        let (reader, mut found) = (Reader::new(memory.disk()), BTreeMap::new());
        reader.rows(&Filter::default(), None, usize::MAX, |row| {
            assert_eq!(found.insert(row.request_id.to_string(), row.error.is_none()), None, "twice");
        }).unwrap();
        let ok = i64::try_from(expected.values().filter(|ok| **ok).count()).unwrap();
        prop_assert_eq!(found, expected);
        let counters = flat(&process.books.counters);
        prop_assert_eq!(counters.first().map_or(0, |counter| counter.amount), ok);
    }
}
