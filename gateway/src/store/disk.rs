//! The backend while it is there: opened, closed, and opened again after a failure. All of it may block.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, Batch, Direction, Pair, Span};
use super::sled::Embedded;
use super::{Patience, StoreFault, format, seal};

/// How long to wait before the backend is opened again, while another process still has it.
const AGAIN: Duration = Duration::from_millis(100);

/// For how long all must be written before it is said that it can be: a disk that is nearly full takes what is small
/// and refuses what is large, and that is one trouble.
const CALM: Duration = Duration::from_secs(10);

/// Opens a backend.
type Opener = dyn Fn() -> Result<Arc<dyn Backend>, StoreFault> + Send + Sync;

/// Where bytes are kept. Shared by those who write and those who ask.
pub struct Disk {
    opener: Box<Opener>,
    state: Mutex<State>,
    changed: Condvar,
    degraded: AtomicBool,
    /// When it was last refused to be written, as long as that has not been taken back.
    refused: Mutex<Option<Instant>>,
}

enum State {
    /// Another process has it still, or it failed.
    Away,
    Open(Arc<dyn Backend>),
    Closed,
}

impl Disk {
    /// The embedded store in the folder `path`.
    pub(super) fn open(path: &Path, patience: Patience) -> Result<Self, StoreFault> {
        let path: PathBuf = path.to_owned();
        Self::with(move || Ok(Arc::new(embedded(&path)?)), patience)
    }

    /// Whatever `opener` opens.
    pub(crate) fn with(
        opener: impl Fn() -> Result<Arc<dyn Backend>, StoreFault> + Send + Sync + 'static,
        patience: Patience,
    ) -> Result<Self, StoreFault> {
        let state = match (opener(), patience) {
            (Err(StoreFault::Busy), Patience::UntilFree) => State::Away,
            (opened, _) => State::Open(opened?),
        };
        Ok(Self::of(Box::new(opener), state))
    }

    /// What somebody else writes to `backend`, to be read.
    pub(crate) fn reading(backend: Arc<dyn Backend>) -> Self {
        let opened = Arc::clone(&backend);
        Self::of(Box::new(move || Ok(Arc::clone(&opened))), State::Open(backend))
    }

    fn of(opener: Box<Opener>, state: State) -> Self {
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Self { opener, state, changed, degraded: AtomicBool::new(false), refused: Mutex::default() }
    }

    /// Whether what should be on it is not, since it cannot be written.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.degraded.load(Ordering::Relaxed)
    }

    /// Whether it is open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.state(), State::Open(_))
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// The store is away, cannot be read, or the value is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        unsealed(&*self.backend()?, key)
    }

    /// At most `limit` pairs of `span`.
    ///
    /// # Errors
    /// The store is away, cannot be read, or a value is damaged.
    pub fn range(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<Pair>, StoreFault> {
        self.sealed_range(span, direction, limit)?
            .into_iter()
            .map(|(key, value)| seal::open(&key, value).map(|value| (key, value)))
            .collect()
    }

    /// The same, for those who go on behind a damaged value: each with what is wrong with it.
    ///
    /// # Errors
    /// The store is away or cannot be read.
    #[expect(clippy::type_complexity, reason = "a key and what is under it")]
    pub fn readable(
        &self,
        span: &Span,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Result<Vec<u8>, StoreFault>)>, StoreFault> {
        let pairs = self.sealed_range(span, direction, limit)?;
        Ok(pairs.into_iter().map(|(key, value)| (key.clone(), seal::open(&key, value))).collect())
    }

    fn sealed_range(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<Pair>, StoreFault> {
        self.backend()?.range(span, direction, limit)
    }

    /// Writes `batch` out, whole or not at all. After an error the backend is opened again when it is next needed;
    /// the same batch may then be written once more.
    ///
    /// # Errors
    /// It is not known to be written.
    pub fn commit(&self, batch: &Batch) -> Result<(), StoreFault> {
        let written = self.reopened().and_then(|backend| {
            backend.apply(batch)?;
            backend.flush()
        });
        self.judge(&written);
        written
    }

    fn judge(&self, written: &Result<(), StoreFault>) {
        self.degraded.store(written.is_err(), Ordering::Relaxed);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match (written, said(&mut refused, written.is_ok(), Instant::now())) {
            (Err(StoreFault::Closed), _) | (_, false) => {}
            (Ok(()), true) => tracing::warn!("the store can be written again"),
            (Err(error), true) => {
                tracing::error!(%error, "the store cannot be written; requests are served on, and rows wait in memory");
            }
        }
        drop(refused);
        if written.is_err() {
            self.put_away();
        }
    }

    /// sled goes on failing after its first failure: only a new one can do better.
    fn put_away(&self) {
        let mut state = self.state();
        if matches!(*state, State::Open(_)) {
            *state = State::Away;
        }
    }

    fn backend(&self) -> Result<Arc<dyn Backend>, StoreFault> {
        match &*self.state() {
            State::Open(backend) => Ok(Arc::clone(backend)),
            State::Away => Err(StoreFault::Away),
            State::Closed => Err(StoreFault::Closed),
        }
    }

    fn reopened(&self) -> Result<Arc<dyn Backend>, StoreFault> {
        match self.backend() {
            Err(StoreFault::Away) => {}
            known => return known,
        }
        let opened = (self.opener)()?;
        let mut state = self.state();
        if matches!(*state, State::Closed) {
            return Err(StoreFault::Closed);
        }
        *state = State::Open(Arc::clone(&opened));
        self.changed.notify_all();
        Ok(opened)
    }

    /// Waits until the backend is open, while another process has it.
    ///
    /// # Errors
    /// It cannot be opened, or it was closed.
    pub fn wait_until_open(&self) -> Result<(), StoreFault> {
        loop {
            match self.reopened() {
                Err(StoreFault::Busy) => self.pause(AGAIN),
                other => return other.map(drop),
            }
        }
    }

    /// Lets time pass, but no more once it is open or closed.
    pub fn pause(&self, most: Duration) {
        let state = self.state();
        let away = |state: &mut State| matches!(state, State::Away);
        drop(self.changed.wait_timeout_while(state, most, away).unwrap_or_else(PoisonError::into_inner));
    }

    /// Closes the backend, once those who read it are done.
    pub fn close(&self) {
        *self.state() = State::Closed;
        self.changed.notify_all();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("degraded", &self.is_degraded()).finish_non_exhaustive()
    }
}

/// Whether it is worth saying that something could be written, or not: the first refusal, and the first write when all
/// was calm for a while.
fn said(refused: &mut Option<Instant>, written: bool, now: Instant) -> bool {
    if !written {
        return refused.replace(now).is_none();
    }
    let calm = refused.is_some_and(|last| now.saturating_duration_since(last) >= CALM);
    if calm {
        *refused = None;
    }
    calm
}

/// The value under `key` in `backend`.
pub(crate) fn unsealed(backend: &dyn Backend, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
    backend.get(key)?.map(|value| seal::open(key, value)).transpose()
}

fn embedded(path: &Path) -> Result<Embedded, StoreFault> {
    let backend = Embedded::open(path)?;
    format::settle(&backend)?;
    Ok(backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_some_and_refuses_some_is_one_trouble() {
        let (mut refused, begun) = (None, Instant::now());
        let mut heard = Vec::new();
        // A write each second; every third of the first 30 is refused.
        for second in 0..60 {
            let written = second >= 30 || second % 3 != 0;
            if said(&mut refused, written, begun + Duration::from_secs(second)) {
                heard.push((second, written));
            }
        }
        assert_eq!(heard, [(0, false), (37, true)]);
    }
}
