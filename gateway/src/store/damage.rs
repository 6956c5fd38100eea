//! What becomes of a store whose files are damaged: real files, with bytes that are flipped, zeroed, cut off and gone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::backend::{Backend as _, Batch};
use super::sled::Embedded;
use super::tools::{repair, walk};
use super::{StoreFault, format};

/// In how many places of a file each damage is tried.
const PLACES: u64 = 8;

/// How many values one damaged place takes with it at most: those of a leaf that has no older copy.
const MOST_MISSING: usize = 20;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// How many batches a store is made of, in three runs of the process.
const BATCHES: u64 = 900;

fn key(number: u64) -> Vec<u8> {
    [b"r".as_slice(), &number.to_be_bytes()].concat()
}

/// What a ledger does: a value of its own for each batch, a counter, old values taken away.
fn batch(number: u64, all: &mut Pairs) -> Batch {
    let mut batch = Batch::default();
    let value = vec![u8::try_from(number % 251).unwrap(); 900 + usize::try_from(number % 97).unwrap() * 20];
    for (key, value) in [(key(number), value), (b"counter".to_vec(), number.to_be_bytes().to_vec())] {
        batch.put(key.clone(), value.clone());
        all.insert(key, value);
    }
    if number > BATCHES / 3 && !number.is_multiple_of(5) {
        let gone = key(number - BATCHES / 3);
        batch.delete(gone.clone());
        all.remove(&gone);
    }
    batch
}

/// sled lets a lock go some time after it was closed.
fn in_time<T>(mut work: impl FnMut() -> Result<T, StoreFault>) -> Result<T, StoreFault> {
    loop {
        match work() {
            Err(StoreFault::Busy) => std::thread::yield_now(),
            done => return done,
        }
    }
}

fn open(folder: &Path) -> Embedded {
    in_time(|| Embedded::open(folder)).unwrap()
}

/// A store, and what is in it.
fn store(folder: &Path) -> Pairs {
    let mut all = Pairs::new();
    for run in 0..3 {
        let backend = open(folder);
        format::settle(&backend).unwrap();
        for number in 1 + run * BATCHES / 3..=(run + 1) * BATCHES / 3 {
            backend.apply(&batch(number, &mut all)).unwrap();
            backend.flush().unwrap();
        }
    }
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("store")).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.filter(|entry| entry.file_type().unwrap().is_file()).map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// What is in the files.
fn bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(folder).into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    fs::create_dir_all(to.join("store")).unwrap();
    for file in ["store.mark", "store.journal"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    for file in files(from) {
        fs::copy(&file, to.join("store").join(file.file_name().unwrap())).unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Gone,
    CutAt(u64),
    Flip(u64),
    Zero(u64),
}

impl Damage {
    fn of(length: u64) -> Vec<Self> {
        let places = (0..PLACES).map(|part| length * part / PLACES + part * 7);
        let places: Vec<_> = places.filter(|place| *place < length).collect();
        let each = |make: fn(u64) -> Self| places.iter().copied().map(make).collect::<Vec<_>>();
        [vec![Self::Gone], each(Self::CutAt), each(Self::Flip), each(Self::Zero)].concat()
    }

    fn strike(self, path: &Path) {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        match self {
            Self::Gone => fs::remove_file(path).unwrap(),
            Self::CutAt(length) => file.set_len(length).unwrap(),
            Self::Flip(at) => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            }
            Self::Zero(at) => {
                let length = (file.metadata().unwrap().len() - at).min(4096);
                file.write_all_at(&vec![0; usize::try_from(length).unwrap()], at).unwrap();
            }
        }
    }
}

/// All that a store gives, as a start would see it.
fn read(folder: &Path) -> Result<Pairs, StoreFault> {
    loop {
        let (mut all, mut damaged) = (Pairs::new(), None);
        let walked = walk(folder, |key, value| match value {
            Ok(value) => drop(all.insert(key.to_vec(), value)),
            Err(error) => damaged = Some(error),
        });
        match walked {
            Err(StoreFault::Busy) => std::thread::yield_now(),
            walked => return walked.and(damaged.map_or(Ok(all), Err)),
        }
    }
}

/// Each damage of each file, done to a copy of the store.
fn each_damage(whole: &Path, mut look: impl FnMut(&Path, &Path, Damage)) {
    for file in files(whole) {
        for damage in Damage::of(fs::metadata(&file).unwrap().len()) {
            let name = Path::new(file.file_name().unwrap());
            look(damaged(whole, name, damage).path(), name, damage);
        }
    }
}

/// A damaged copy of a store, in a folder of its own: sled lets a lock go some time after it was closed.
fn damaged(whole: &Path, file: &Path, damage: Damage) -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    copy(whole, copied.path());
    damage.strike(&copied.path().join("store").join(file));
    copied
}

/// What is there after a repair.
fn repaired(folder: &Path) -> Pairs {
    repair(folder).unwrap();
    read(folder).unwrap()
}

#[test]
fn a_damaged_store_is_whole_or_refused_and_never_silently_less() {
    let whole = tempfile::tempdir().unwrap();
    let all = store(whole.path());
    assert!(read(whole.path()).unwrap() == all);
    let (mut refused, mut unharmed, mut untouched) = (0, 0, 0);
    each_damage(whole.path(), |copied, file, damage| {
        let before = bytes(copied);
        match read(copied) {
            Ok(read) => {
                assert!(read == all, "{damage:?} of {}: what is read is not what was written", file.display());
                unharmed += 1;
            }
            Err(error) => {
                assert!(matches!(error, StoreFault::Damaged(_)), "{damage:?} of {}: {error}", file.display());
                assert!(read(copied).is_err(), "{damage:?} of {}: refused once only", file.display());
                refused += 1;
            }
        }
        // A repair must find all that was there before somebody checked the store or tried to start with it.
        if in_time(|| Embedded::open(copied)).is_err() {
            if bytes(copied) == before {
                untouched += 1;
            } else {
                // Where pages were only moved last, sled comes to all batches before it comes to the damage.
                let anew = damaged(whole.path(), file, damage);
                assert!(repaired(copied) == repaired(anew.path()), "{damage:?} of {}: less is left", file.display());
            }
        }
    });
    assert!(refused > 20 && unharmed > 3 && untouched > 13, "{refused}, {unharmed}, {untouched}");
}

#[test]
fn what_a_killed_process_left_in_the_journal_is_there_after_a_start_and_after_a_repair() {
    let [whole, started, repaired, flipped] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let mut all = store(whole.path());
    let backend = open(whole.path());
    for number in BATCHES + 1..BATCHES + 30 {
        backend.apply(&batch(number, &mut all)).unwrap();
    }
    for copied in [&started, &repaired, &flipped] {
        copy(whole.path(), copied.path());
    }
    drop(backend);
    assert!(read(started.path()).unwrap() == all);
    repair(repaired.path()).unwrap();
    assert!(read(repaired.path()).unwrap() == all);
    Damage::Flip(300).strike(&flipped.path().join("store.journal"));
    assert!(matches!(read(flipped.path()), Err(StoreFault::Damaged(_))));
    repair(flipped.path()).unwrap();
    assert!(read(flipped.path()).is_ok());
}

#[test]
fn a_repair_keeps_all_of_a_store_but_what_stood_where_the_damage_is() {
    let whole = tempfile::tempdir().unwrap();
    let all = store(whole.path());
    each_damage(whole.path(), |copied, file, damage| {
        let kept = repaired(copied);
        let missing = all.keys().filter(|key| !kept.contains_key(*key)).count();
        let in_log = file == Path::new("db");
        let most = match damage {
            Damage::Gone | Damage::CutAt(_) if in_log => all.len(),
            _ if in_log => MOST_MISSING,
            _ => 0,
        };
        assert!(missing <= most, "{damage:?} of {}: {missing} are missing", file.display());
    });
    let undamaged = repair(whole.path()).unwrap();
    assert_eq!((undamaged.holes, undamaged.cut), (0, Some(0)));
    assert!(read(whole.path()).unwrap() == all);
    assert!(undamaged.aside.join("db").is_file());
}
