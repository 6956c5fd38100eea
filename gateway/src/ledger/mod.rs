//! The ledger: one row a request, and the counters of the accounts that it is charged to, together or not at all.
//!
//! Nobody who serves a request waits: a request is [admitted](Ledger::admit) to a buffer and [finished](Entry::finish)
//! in it, and a thread commits what waits as a group, every `store.commit_within`. A request that is still open then
//! leaves a note in that commit, which becomes its row if the process ends without a word: charged for what it had sent
//! by then. So after a `kill -9` the ledger misses nothing that was admitted longer ago than `commit_within` and one
//! flush of the disk, and what the counters say is what the rows were charged.

mod archive;
mod books;
mod census;
mod fleet;
mod frame;
pub mod id;
mod intent;
mod overflow;
mod query;
mod row;
mod shipper;
#[cfg(test)]
mod tests;
mod volumes;
mod waiting;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::archive::{ArchiveFault, export, import};
use self::books::Counters;
pub use self::census::Census;
pub use self::fleet::{Fleet, Member, Others, State};
use self::frame::{Form, Frames};
pub use self::intent::{Intent, UnderWay};
pub use self::query::{Cursor, Field, Filter, Reader, Sum, Sums};
pub(crate) use self::row::dollars::{parse as dollars_parsed, serialize as dollars, text as dollars_text};
pub use self::row::{Accuracy, Attempt, Charge, Counts, Row, Spent};
use self::shipper::{Bell, Shipper, Shipping};
pub use self::volumes::Volumes;
use self::waiting::Waiting;
use self::writer::Writer;
use crate::error::Kind;
use crate::store::{Disk, StoreFault};
use crate::vital;

/// How the ledger is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The longest time that a row waits before it is written out.
    pub commit_within: Duration,
    /// How long rows are kept.
    pub retention: Duration,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    disk: Arc<Disk>,
    waiting: Arc<Waiting>,
    counters: Arc<Mutex<Counters>>,
    lost: Arc<Lost>,
    open: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    retention: Duration,
    reader: Reader,
    /// Rung at each commit.
    bell: Arc<Bell>,
    shipping: Mutex<Option<Shipping>>,
}

/// Rows that there was no room for, since the disk refused for too long.
#[derive(Debug, Default)]
pub(crate) struct Lost(AtomicU64);

impl Lost {
    fn add(&self, rows: u64) {
        if rows > 0 {
            self.0.fetch_add(rows, Ordering::Relaxed);
            tracing::error!(
                rows,
                "the store could not be written for so long that rows of the ledger are added up into a few"
            );
        }
    }
}

/// What is known of a request when it is admitted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Opened<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// Who pays.
    pub tenant: &'a str,
    /// The key's id.
    pub key: &'a str,
    /// The configured model; empty if it has not come to that.
    pub model: &'a str,
    /// The model's type.
    pub kind: &'a str,
    /// When the request's head had come.
    #[serde(with = "row::moment")]
    pub started_at: Timestamp,
}

impl<'a> Opened<'a> {
    /// What is written if nothing more is heard of it.
    #[must_use]
    pub fn row(&self) -> Row<'a> {
        Row {
            request_id: self.request_id.into(),
            tenant: self.tenant.into(),
            key: self.key.into(),
            model: self.model.into(),
            kind: self.kind.into(),
            status: None,
            error: Some(Kind::GatewayFault.name().into()),
            accuracy: Accuracy::Estimated,
            provider: None,
            upstream_model: None,
            credential: None,
            usage: Counts::default(),
            cost: None,
            attempts: Vec::new(),
            started_at: self.started_at,
            first_byte_ms: None,
            duration_ms: 0,
            tags: Vec::new(),
            service_tier: None,
            inference_geo: None,
        }
    }

    /// The same, of a request that was sent nowhere yet.
    #[must_use]
    pub fn intent(&self) -> Intent<'a, [(&'static str, i64, i64); 0]> {
        Intent { opened: *self, so_far: None, under_way: [None, None], charges: [] }
    }
}

impl Ledger {
    /// Opens the ledger on `disk`. `restore` is given what the accounts were charged with before, once that is read:
    /// before this returns, or, while another process still has the disk, as soon as it lets it go.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(
        disk: &Arc<Disk>,
        settings: Settings,
        restore: impl FnOnce(Vec<Charge>) + Send + 'static,
    ) -> Result<Self, StoreFault> {
        let ledger = Self {
            disk: Arc::clone(disk),
            waiting: Arc::default(),
            counters: Arc::default(),
            lost: Arc::default(),
            open: Arc::default(),
            thread: Mutex::default(),
            retention: settings.retention,
            reader: Reader::new(Arc::clone(disk), None),
            bell: Arc::default(),
            shipping: Mutex::default(),
        };
        let (counters, open) = (Arc::clone(&ledger.counters), Arc::clone(&ledger.open));
        let work = ledger.writer(settings).begin(move || {
            restore(flat(&counters));
            open.store(true, Ordering::Release);
        })?;
        *ledger.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(vital::vital("ledger", work)?);
        Ok(ledger)
    }

    fn writer(&self, settings: Settings) -> Writer {
        Writer {
            disk: Arc::clone(&self.disk),
            waiting: Arc::clone(&self.waiting),
            counters: Arc::clone(&self.counters),
            lost: Arc::clone(&self.lost),
            bell: Arc::clone(&self.bell),
            settings,
        }
    }

    /// Copies what is committed to where other gateways read it, and reads from there what is theirs.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn share(&mut self, fleet: &Arc<dyn Fleet>) -> Result<(), StoreFault> {
        let (disk, bell) = (Arc::clone(&self.disk), Arc::clone(&self.bell));
        let shipper = Shipper::new(disk, Arc::clone(fleet), self.retention, bell);
        self.shipping = Mutex::new(Some(shipper.start()?));
        self.reader = Reader::new(Arc::clone(&self.disk), Some(Arc::clone(fleet)));
        Ok(())
    }

    /// Whether other gateways' rows are read too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.reader.is_shared()
    }

    /// A request begins. Never waits.
    #[must_use]
    pub fn admit<'c>(&self, intent: Intent<'_, impl IntoIterator<Item = (&'c str, i64, i64)>>) -> Entry {
        let number = self.waiting.open(frame::note(intent));
        Entry { waiting: Arc::clone(&self.waiting), number: Some(number) }
    }

    /// What the accounts are charged with, as far as it is committed.
    #[must_use]
    pub fn counters(&self) -> Vec<Charge> {
        flat(&self.counters)
    }

    /// What `account` is charged with in a window, as far as it is committed.
    #[must_use]
    pub fn used(&self, account: &str, window: i64) -> i64 {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.get(account).and_then(|windows| windows.get(&window)).copied().unwrap_or(0)
    }

    /// Whether what was kept before is known: not while another process still has the disk.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// For how long the oldest row that is not on the disk has waited.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.waiting.lag()
    }

    /// How many requests have no row of their own, since the disk refused for too long; what they used and cost is in
    /// rows for all of a kind.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.0.load(Ordering::Relaxed)
    }

    /// Who answers what was asked of the ledger; it blocks.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Commits what waits, and ends.
    pub fn close(&self) {
        self.waiting.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the ledger's thread panicked");
        }
        let shipping = self.shipping.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(shipping) = shipping {
            shipping.close();
        }
    }
}

/// A request that has been admitted. Dropped without a word, it leaves a row that says so.
#[derive(Debug)]
pub struct Entry {
    waiting: Arc<Waiting>,
    /// `None` once it has its row.
    number: Option<u64>,
}

impl Entry {
    /// More is known of what becomes of it if nothing more is heard. Never waits.
    pub fn renew<'c>(&self, intent: Intent<'_, impl IntoIterator<Item = (&'c str, i64, i64)>>) {
        if let Some(number) = self.number {
            self.waiting.renew(number, frame::note(intent));
        }
    }

    /// The request has ended. Never waits.
    pub fn finish(mut self, row: &Row<'_>, charges: impl IntoIterator<Item = Charge>) {
        if let Some(number) = self.number.take() {
            self.waiting.finish(number, &frame::encode(number, row), charges);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else { return };
        let intent = self.waiting.intent(number).unwrap_or_default();
        let noted = Frames::bare(Form::Note, &intent).next();
        let (row, charges) = noted.map(|noted| books::cut(&noted, Timestamp::now())).unwrap_or_default();
        self.waiting.finish(number, &row, charges);
    }
}

fn flat(counters: &Mutex<Counters>) -> Vec<Charge> {
    let counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
    let flat = counters.iter().flat_map(|(account, windows)| {
        windows.iter().map(|(window, amount)| Charge { account: Arc::clone(account), window: *window, amount: *amount })
    });
    flat.collect()
}
