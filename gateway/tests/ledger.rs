//! The ledger of a process that is killed: what was said to be safe is there after it, and counters are what rows say.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway::ledger::{Accuracy, Charge, Filter, Ledger, Opened, Row, Settings, id};
use gateway::store::{Patience, Store};
use jiff::Timestamp;

/// Tells the child where its store is.
const FOLDER: &str = "WEIR_TEST_FOLDER";

/// The account that every finished request is charged to, with 1.
const ACCOUNT: &str = "tenant/acme/requests";

fn open(folder: &Path) -> (Store, Ledger) {
    let settings = Settings { commit_within: Duration::from_millis(2), retention: Duration::from_secs(86_400) };
    let store = Store::open(folder, Patience::None).unwrap();
    let ledger = Ledger::open(store.disk(), settings, drop).unwrap();
    (store, ledger)
}

fn opened(request_id: &str) -> Opened<'_> {
    Opened { request_id, tenant: "acme", key: "ci", model: "gpt-main", kind: "llm", started_at: Timestamp::now() }
}

fn row(request_id: &str) -> Row<'_> {
    Row { status: Some(200), error: None, accuracy: Accuracy::Exact, cost: Some(1), ..opened(request_id).row() }
}

/// Not a test: the process that is killed. It says of each round what is safe, and goes on without waiting.
#[test]
#[ignore = "run, and killed, by a_process_that_is_killed_has_lost_nothing_that_was_safe"]
fn a_process_that_admits_and_finishes() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let (_store, ledger) = open(&folder);
    let mut open = Vec::new();
    loop {
        let mut said = String::new();
        for number in 0..40 {
            let id = if number % 3 == 0 { format!("own-{}", rand::random::<u64>()) } else { id::new(Timestamp::now()) };
            open.push((ledger.admit(opened(&id).intent()), id));
            if number % 2 == 0 {
                let (entry, id) = open.swap_remove(rand::random_range(0..open.len()));
                entry.finish(&row(&id), [Charge { account: ACCOUNT.into(), window: 0, amount: 1 }]);
                said.push_str(&format!("done {id}\n"));
            }
        }
        while !ledger.lag().is_zero() {
            std::thread::yield_now();
        }
        open.iter().for_each(|(_, id)| said.push_str(&format!("open {id}\n")));
        std::io::stdout().write_all(said.as_bytes()).unwrap();
    }
}

#[test]
fn a_process_that_is_killed_has_lost_nothing_that_was_safe() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = HashMap::new();
    for _ in 0..3 {
        expected.extend(run_and_kill(folder.path()));
        let (store, ledger) = open(folder.path());
        let mut found = HashMap::new();
        ledger
            .reader()
            .all()
            .rows(&Filter::default(), None, usize::MAX, |row| {
                assert_eq!(
                    found.insert(row.request_id.to_string(), row.error.is_none()),
                    None,
                    "{} twice",
                    row.request_id
                );
            })
            .unwrap();
        for (id, done) in &expected {
            let row = found.get(id).copied();
            assert!(row.is_some() && (row == Some(true) || !done), "{id} is {row:?}");
            assert_eq!(ledger.reader().find(id, Some("acme"), |row| row.error.is_none()).unwrap(), row, "{id}");
        }
        let done = found.values().filter(|done| **done).count();
        assert_eq!(ledger.used(ACCOUNT, 0), i64::try_from(done).unwrap());
        ledger.close();
        store.close();
    }
}

/// What a process said before it was killed: ids, and whether each had ended.
fn run_and_kill(folder: &Path) -> HashMap<String, bool> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_admits_and_finishes", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = HashMap::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().take(rand::random_range(1_000..4_000)) {
        match line.unwrap().split_once(' ') {
            Some(("done", id)) => drop(said.insert(id.to_owned(), true)),
            Some(("open", id)) => drop(said.entry(id.to_owned()).or_insert(false)),
            _ => {}
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.len() > 20, "it said {said:?}");
    said
}
