//! `weir store`: what is done to a store that no Weir has open.

use std::fmt::Write as _;
use std::io::{self, BufWriter};
use std::path::Path;
use std::process::ExitCode;

use super::{WRONG_INPUT, complain, say};
use crate::ledger::{self, ArchiveFault, Census};
use crate::store::{Patience, Served, Store, StoreFault, kept_raise, tools};

/// How many damaged values are told one by one.
const MOST_TOLD: u64 = 20;

/// What a store holds.
#[derive(Debug, Default)]
struct Findings {
    ledger: Census,
    configurations: u64,
    raises: u64,
    damaged: u64,
}

impl Findings {
    fn see(&mut self, key: &[u8], value: Result<Vec<u8>, StoreFault>) {
        if let Err(error) = value.and_then(|value| self.count(key, &value)) {
            self.damaged += 1;
            if self.damaged <= MOST_TOLD {
                complain(&format!("damage: {}\n", plain(&error)));
            }
        }
    }

    fn count(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreFault> {
        if self.ledger.count(key, value)? {
            return Ok(());
        }
        if kept_raise(key, value)?.is_some() {
            self.raises += 1;
            return Ok(());
        }
        self.configuration(value)
    }

    fn configuration(&mut self, value: &[u8]) -> Result<(), StoreFault> {
        let read = serde_json::from_slice::<Served>(value);
        self.configurations += 1;
        read.map(drop).map_err(|error| StoreFault::Damaged(format!("a configuration that was served: {error}")))
    }

    fn text(&self) -> String {
        let Census { rows, commits, span, open, ids, counters } = self.ledger;
        let mut text = format!("rows            {rows} in {commits} commits");
        if let Some((first, last)) = span {
            _ = write!(text, ", {first} to {last}");
        }
        _ = write!(text, "\nopen requests   {open}\nids             {ids}\ncounters        {counters}\n");
        _ = write!(text, "configurations  {}\nraised limits   {}\n", self.configurations, self.raises);
        text
    }
}

pub(super) fn check(path: &Path) -> ExitCode {
    let mut findings = Findings::default();
    let walked = tools::walk(path, |key, value| findings.see(key, value));
    say(&findings.text());
    match walked {
        Err(StoreFault::Damaged(why)) => complain(&format!("damage: {why}\n")),
        Err(error) => return refuse(path, &error),
        Ok(()) if findings.damaged == 0 => return say("no damage\n"),
        Ok(()) => complain(&format!("{} values are damaged\n", findings.damaged)),
    }
    complain(&format!("help: `weir store repair {}` makes it anew of what can be read\n", path.display()));
    ExitCode::from(WRONG_INPUT)
}

pub(super) fn repair(path: &Path) -> ExitCode {
    match tools::repair(path) {
        Ok(repaired) => say(&told(&repaired)),
        Err(error) => refuse(path, &error),
    }
}

fn told(repaired: &tools::Repaired) -> String {
    let tools::Repaired { kept, holes, cut, aside } = repaired;
    let mut text = format!("kept    {kept} values, with every checksum right\n");
    _ = match (holes, cut) {
        (0, Some(0)) => writeln!(text, "lost    nothing that was committed more than a second before the end"),
        (_, Some(0)) => writeln!(text, "lost    what stood in {holes} places of the files, if it stood nowhere else"),
        (_, Some(cut)) => writeln!(text, "lost    at least the newest {cut} commits; {holes} places cannot be read"),
        (_, None) => writeln!(text, "lost    nobody knows: {holes} places cannot be read, and its mark is gone"),
    };
    _ = writeln!(text, "counters of budgets are the newest that can be read");
    _ = writeln!(text, "the old files are in {}", aside.display());
    text
}

pub(super) fn export(path: &Path) -> ExitCode {
    if let Err(error) = tools::there(path) {
        return refuse(path, &error);
    }
    with(path, |store| ledger::export(store, &mut BufWriter::new(io::stdout().lock())))
}

pub(super) fn import(path: &Path) -> ExitCode {
    with(path, |store| {
        let rows = ledger::import(store, io::stdin().lock())?;
        complain(&format!("{rows} rows\n"));
        Ok(())
    })
}

/// Does it with the store in this folder.
fn with(path: &Path, work: impl FnOnce(&Store) -> Result<(), ArchiveFault>) -> ExitCode {
    let store = match Store::open(path, Patience::None) {
        Ok(store) => store,
        Err(error) => return refuse(path, &error),
    };
    let done = work(&store);
    store.close();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has left early (`| head`) is no fault.
        Err(ArchiveFault::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => refuse(path, &error),
    }
}

fn refuse(path: &Path, error: &dyn std::error::Error) -> ExitCode {
    complain(&format!("error: the store {}: {error}\n", path.display()));
    ExitCode::from(WRONG_INPUT)
}

/// What is damaged, without the way out.
fn plain(error: &StoreFault) -> String {
    match error {
        StoreFault::Damaged(what) => what.clone(),
        other => other.to_string(),
    }
}
