//! A disk that is full under a real store: requests go on, a line says so, and it recovers by itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gateway::ledger::{Accuracy, Charge, Filter, Ledger, Opened, Row, Settings};
use gateway::store::{Patience, Store};
use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Tells the child where its store is.
const FOLDER: &str = "WEIR_TEST_FOLDER";

/// How long the child waits for what must come.
const SOON: Duration = Duration::from_secs(60);

fn open(folder: &Path) -> (Store, Ledger) {
    let settings = Settings { commit_within: Duration::from_millis(2), retention: Duration::from_secs(86_400) };
    // Threads of sled's may have a closed store's files open for a moment longer.
    let store = Store::open(folder, Patience::UntilFree).unwrap();
    store.disk().wait_until_open().unwrap();
    let ledger = Ledger::open(store.disk(), settings, drop).unwrap();
    (store, ledger)
}

/// Serves request `number`; how long the ledger kept it.
fn serve(ledger: &Ledger, number: usize) -> Duration {
    let (id, started_at) = (format!("r{number}"), Timestamp::now());
    let opened = Opened { request_id: &id, tenant: "acme", key: "ci", model: "m", kind: "llm", started_at };
    let row = Row {
        status: Some(200),
        error: None,
        accuracy: Accuracy::Exact,
        cost: Some(1),
        tags: vec!["x".repeat(500).into()],
        ..opened.row()
    };
    let begun = Instant::now();
    ledger.admit(opened.intent()).finish(&row, [Charge { account: "a".into(), window: 0, amount: 1 }]);
    begun.elapsed()
}

/// No file may grow beyond this.
fn limit_files(current: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: current.or(maximum), maximum }).unwrap();
}

fn wait_until(what: &str, mut come: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !come() {
        assert!(begun.elapsed() < SOON, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn all_there(ledger: &Ledger, served: usize) {
    let mut found = HashSet::new();
    ledger
        .reader()
        .all()
        .rows(&Filter::default(), None, usize::MAX, |row| assert!(found.insert(row.request_id.to_string())))
        .unwrap();
    assert_eq!(found.len(), served);
    assert_eq!(ledger.used("a", 0), i64::try_from(served).unwrap());
}

/// Not a test: the process whose disk is full, which must not be ended by the signal that tells it so.
#[test]
#[ignore = "run by a_full_disk_is_survived_and_said_once, with its limit of files"]
fn a_process_whose_disk_becomes_full() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let (store, ledger) = open(&folder);
    let mut served = 0;
    let mut longest = Duration::ZERO;
    let mut go_on = |ledger: &Ledger, requests: usize| {
        for _ in 0..requests {
            longest = longest.max(serve(ledger, served));
            served += 1;
        }
        served
    };
    for _ in 0..3 {
        go_on(&ledger, 100);
        wait_until("what is safe", || ledger.lag().is_zero());
        limit_files(Some(fs::metadata(folder.join("store/db")).unwrap().len()));
        wait_until("a degraded store", || {
            go_on(&ledger, 20);
            store.is_degraded()
        });
        // Asked again each second, and refused.
        std::thread::sleep(Duration::from_millis(2_500));
        go_on(&ledger, 100);
        // A little may fit at each time, until that is full too.
        wait_until("a store that is degraded yet", || {
            go_on(&ledger, 20);
            store.is_degraded()
        });
        limit_files(None);
        wait_until("recovery", || !store.is_degraded() && ledger.lag().is_zero());
        let served = go_on(&ledger, 0);
        all_there(&ledger, served);
    }
    ledger.close();
    store.close();
    let (store, ledger) = open(&folder);
    all_there(&ledger, served);
    assert_eq!(ledger.lost(), 0);
    ledger.close();
    store.close();
    println!("longest {longest:?} of {served}");
}

#[test]
fn a_full_disk_is_survived_and_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_process_whose_disk_becomes_full", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(child.stderr).unwrap();
    assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stdout));
    let times = |words: &str| said.lines().filter(|line| line.contains(words)).count();
    // A little may fit yet, and it is full again a second later: that is one trouble.
    assert_eq!(times("the store cannot be written; requests are served on"), 1, "{said}");
    assert_eq!(times("panicked"), 0, "{said}");
}
