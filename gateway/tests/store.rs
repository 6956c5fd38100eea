//! `weir store`: stores that are whole, damaged, open elsewhere and not there, as whoever looks after them sees it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use gateway::budget::Raise;
use gateway::ledger::{Charge, Ledger, Opened, Row, Settings, id};
use gateway::store::{Patience, Served, Store, StoreFault};
use jiff::Timestamp;

const SETTINGS: Settings = Settings { commit_within: Duration::from_millis(1), retention: Duration::from_secs(86_400) };

fn weir(subcommand: &str, folder: &Path, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["store", subcommand])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone already.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A store with 40 rows of which 8 have ids of their callers', two counters, a configuration and a raised limit.
fn store(folder: &Path) {
    let store = Store::open(folder, Patience::None).unwrap();
    store.served(Served { at: Timestamp::now(), hash: "abc".into(), changed: vec!["models".into()] });
    store.history().unwrap();
    let raise = Raise { account: "a".into(), limit: 9, until: Timestamp::MAX, said: 0, ended: false };
    store.disk().keep_raise(&raise, Timestamp::now()).unwrap();
    let ledger = Ledger::open(store.disk(), SETTINGS, drop).unwrap();
    for number in 0..40 {
        let id = if number % 5 == 0 { format!("own-{number}") } else { id::new(Timestamp::now()) };
        let opened = Opened {
            request_id: &id,
            tenant: "acme",
            key: "ci",
            model: "m",
            kind: "llm",
            started_at: Timestamp::now(),
        };
        let charge = |account: &str| Charge { account: account.into(), window: 0, amount: 3 };
        let row: Row<'_> = serde_json::from_str(&row(&id, opened.started_at)).unwrap();
        ledger.admit(opened.intent()).finish(&row, [charge("a"), charge("b")]);
        while !ledger.lag().is_zero() {
            std::thread::yield_now();
        }
    }
    ledger.close();
    store.close();
}

fn row(id: &str, at: Timestamp) -> String {
    format!(
        r#"{{"request_id":"{id}","tenant":"acme","key":"ci","model":"m","type":"llm","status":200,"error":null,
        "accuracy":"exact","provider":"p","upstream_model":"u","credential":"c","usage":{{"input_tokens":7}},
        "cost_usd":0.000000001,"attempts":[],"started_at":"{at}","first_byte_ms":1,"duration_ms":2,"tags":["t"]}}"#
    )
}

#[test]
fn a_whole_store_is_counted_and_survives_the_way_out_and_in() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    let checked = weir("check", folder.path(), b"");
    let told = text(&checked.stdout);
    assert!(checked.status.success(), "{checked:?}");
    for line in [
        "rows            40 in 40 commits",
        "ids             8\n",
        "counters        2\n",
        "configurations  1\n",
        "raised limits   1\n",
        "no damage",
    ] {
        assert!(told.contains(line), "{line} is not in\n{told}");
    }
    let out = weir("export", folder.path(), b"");
    assert_eq!((out.status.code(), text(&out.stdout).lines().count()), (Some(0), 44), "{out:?}");
    let copy = tempfile::tempdir().unwrap();
    let imported = weir("import", copy.path(), &out.stdout);
    assert_eq!((imported.status.code(), text(&imported.stderr)), (Some(0), "40 rows\n"));
    assert_eq!(text(&weir("export", copy.path(), b"").stdout), text(&out.stdout));
    assert_eq!(text(&weir("check", copy.path(), b"").stdout), told);
    let again = weir("import", copy.path(), &out.stdout);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("it has a ledger already"), "{again:?}");
    let store = Store::open(copy.path(), Patience::None).unwrap();
    let ledger = Ledger::open(store.disk(), SETTINGS, drop).unwrap();
    assert_eq!(ledger.reader().find("own-5", Some("acme"), |row| row.tags.len()).unwrap(), Some(1));
    assert_eq!(ledger.used("a", 0), 120);
    ledger.close();
    store.close();
}

#[test]
fn lines_that_are_none_are_refused_with_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let refused =
        weir("import", folder.path(), b"{\"counter\":{\"account\":\"a\",\"window\":0,\"amount\":1}}\n{\"row\":7}\n");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("line 2: "), "{refused:?}");
}

#[test]
fn a_damaged_store_is_refused_with_the_way_out_which_works() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    let log = OpenOptions::new().write(true).open(folder.path().join("store").join("db")).unwrap();
    log.set_len(4_096).unwrap();
    let damaged = fs::read(folder.path().join("store").join("db")).unwrap();
    for _ in 0..2 {
        // sled lets a lock go some time after it was closed.
        let mut opened = (0..).map(|_| Store::open(folder.path(), Patience::None));
        let refused = opened.find(|opened| !matches!(opened, Err(StoreFault::Busy))).unwrap();
        assert!(matches!(refused, Err(StoreFault::Damaged(_))), "{refused:?}");
        assert!(refused.unwrap_err().to_string().contains("`weir store repair`"));
        let checked = weir("check", folder.path(), b"");
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        let told = text(&checked.stderr);
        assert!(text(&checked.stdout).starts_with("rows "), "{checked:?}");
        let exported = weir("export", folder.path(), b"");
        assert_eq!(exported.status.code(), Some(1), "{exported:?}");
        assert_eq!(fs::read(folder.path().join("store").join("db")).unwrap(), damaged, "a damaged log was changed");
        assert!(told.contains("damage: ") && told.contains("weir store repair /"), "{told}");
    }
    let repaired = weir("repair", folder.path(), b"");
    assert!(repaired.status.success(), "{repaired:?}");
    assert!(text(&repaired.stdout).contains("lost    at least the newest "), "{repaired:?}");
    assert!(folder.path().join("store.damaged-1").join("db").is_file());
    let checked = weir("check", folder.path(), b"");
    assert!(checked.status.success() && text(&checked.stdout).contains("no damage"), "{checked:?}");
    Store::open(folder.path(), Patience::None).unwrap().close();
}

#[test]
fn a_store_that_is_open_or_not_there_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let open = Store::open(folder.path(), Patience::None).unwrap();
    let nowhere = folder.path().join("nowhere");
    for subcommand in ["check", "repair", "export"] {
        let busy = weir(subcommand, folder.path(), b"");
        assert_eq!(busy.status.code(), Some(1), "{busy:?}");
        assert!(text(&busy.stderr).contains("another Weir has it open"), "{busy:?}");
        let missing = weir(subcommand, &nowhere, b"");
        assert_eq!(missing.status.code(), Some(1), "{missing:?}");
        assert!(text(&missing.stderr).contains("there is no store") && missing.stdout.is_empty(), "{missing:?}");
        assert!(!fs::exists(&nowhere).unwrap());
    }
    open.close();
}
