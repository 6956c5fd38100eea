//! One line a request, written by a thread of its own: requests only append to a buffer. The buffer is bounded; what
//! does not fit, because the disk or the pipe behind it is too slow, is dropped and counted.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::vital;

/// How much may wait to be written.
const MOST_WAITING: usize = 8 * 1024 * 1024;

/// How long a line waits at most.
const EVERY: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Clone, Debug)]
pub struct AccessLog {
    waiting: Option<Arc<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Mutex<Vec<u8>>,
    closing: AtomicBool,
}

/// The writing thread; [`Writer::close`] writes what waits and ends it.
#[derive(Debug)]
pub struct Writer {
    waiting: Arc<Waiting>,
    thread: JoinHandle<()>,
}

impl AccessLog {
    /// Writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { waiting: None }
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn stdout() -> io::Result<(Self, Writer)> {
        Self::to(io::stdout())
    }

    /// Writes to standard error.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn stderr() -> io::Result<(Self, Writer)> {
        Self::to(io::stderr())
    }

    /// Appends to a file.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread be started.
    pub fn file(path: &Path) -> io::Result<(Self, Writer)> {
        Self::to(OpenOptions::new().create(true).append(true).open(path)?)
    }

    fn to(mut sink: impl Write + Send + 'static) -> io::Result<(Self, Writer)> {
        let waiting = Arc::new(Waiting::default());
        let shared = Arc::clone(&waiting);
        let thread = vital::tireless("access-log", move || shared.write_to(&mut sink))?;
        Ok((Self { waiting: Some(Arc::clone(&waiting)) }, Writer { waiting, thread }))
    }

    /// Whether lines are written at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.waiting.is_some()
    }

    /// Appends what `write` writes, with a line's end; false when it was dropped.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(waiting) = &self.waiting else {
            return true;
        };
        let mut lines = waiting.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() > MOST_WAITING {
            return false;
        }
        write(&mut lines);
        lines.push(b'\n');
        true
    }
}

impl Waiting {
    fn write_to(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        loop {
            let closing = self.closing.load(Ordering::Acquire);
            std::mem::swap(&mut batch, &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
            if !batch.is_empty() {
                if let Err(error) = sink.write_all(&batch).and_then(|()| sink.flush()) {
                    tracing::warn!(%error, "the access log cannot be written");
                }
                batch.clear();
            }
            if closing {
                return;
            }
            std::thread::park_timeout(EVERY);
        }
    }
}

impl Writer {
    /// Writes what waits and ends the thread.
    pub fn close(self) {
        self.waiting.closing.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}
