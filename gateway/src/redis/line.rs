//! A way to Redis for threads that may wait: those that copy the ledger, and those that answer what is asked of it. It
//! has a connection of its own, so that nothing large stands before the claims of the [`Link`](super::Link).

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult};
use tokio::runtime::Runtime;

use crate::redis::connection::{Connection, Settings};
use crate::store::StoreFault;

/// The longest time for one answer: who waits is a thread that can, but a caller may wait for it.
const LONGEST: Duration = Duration::from_secs(1);

/// The longest time for the first answer, which has to be connected for: a cluster with TLS takes some round trips.
const LONGEST_FIRST: Duration = Duration::from_secs(3);

/// For how long a Redis that failed is not asked again.
const AWAY: Duration = Duration::from_millis(500);

/// The way, shared by all who ask.
#[derive(Debug)]
pub(super) struct Line {
    settings: Settings,
    /// `None` once this falls.
    runtime: Option<Runtime>,
    state: Mutex<State>,
    /// Whether it is known of this connection that its user may change several keys at once.
    transacts: AtomicBool,
}

#[derive(Default)]
enum State {
    #[default]
    Unknown,
    Open(Connection),
    AwayUntil(Instant),
}

impl Line {
    pub(super) fn new(settings: Settings) -> io::Result<Self> {
        // Its one thread drives the connection while those who ask wait.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("redis-line").enable_all().build()?;
        Ok(Self { settings, runtime: Some(runtime), state: Mutex::default(), transacts: AtomicBool::default() })
    }

    /// Makes these changes, all or none; blocks as [`Line::ask`] does.
    pub(super) fn transact(&self, mut changes: Pipeline) -> Result<(), StoreFault> {
        if !self.transacts.load(Ordering::Acquire) {
            // Where a user may not begin a transaction, Redis would make the changes all the same, one by one; and the
            // client counts on that one reply.
            let mut empty = Pipeline::new();
            empty.cmd("MULTI").ignore().cmd("EXEC").ignore();
            let () = self.ask(&empty)?;
            self.transacts.store(true, Ordering::Release);
        }
        self.ask(changes.atomic())
    }

    /// What Redis answers. Blocks for [`LONGEST`] at most, for [`LONGEST_FIRST`] while there is no connection; only one
    /// at a time waits for a connection, and after a failure nobody does for half a second.
    pub(super) fn ask<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreFault> {
        let known = self.known()?;
        let longest = if known.is_some() { LONGEST } else { LONGEST_FIRST };
        let runtime = self.runtime.as_ref().ok_or(StoreFault::Closed)?;
        let answered = runtime.block_on(async {
            let slow = |_| StoreFault::Unreached(format!("it did not answer within {} s", longest.as_secs()));
            tokio::time::timeout(longest, self.ask_by(known, pipeline))
                .await
                .map_err(slow)?
                .map_err(|error| fault(&error))
        });
        // Also a refusal may be of a master that no longer is one: only a new connection finds the other.
        answered.inspect_err(|_| *self.state() = State::AwayUntil(Instant::now() + AWAY))
    }

    /// The connection; `None` for the one who is to open it.
    fn known(&self) -> Result<Option<Connection>, StoreFault> {
        let (mut state, now) = (self.state(), Instant::now());
        match &*state {
            State::Open(connection) => return Ok(Some(connection.clone())),
            State::AwayUntil(then) if now < *then => {
                return Err(StoreFault::Unreached("it failed a moment ago".to_owned()));
            }
            State::AwayUntil(_) | State::Unknown => {}
        }
        *state = State::AwayUntil(now + LONGEST_FIRST);
        Ok(None)
    }

    async fn ask_by<T: FromRedisValue>(&self, known: Option<Connection>, pipeline: &Pipeline) -> RedisResult<T> {
        let mut connection = match known {
            Some(connection) => connection,
            None => {
                let opened = Connection::open(&self.settings).await?;
                self.transacts.store(false, Ordering::Release);
                *self.state() = State::Open(opened.clone());
                opened
            }
        };
        connection.run(pipeline).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A runtime that is merely dropped waits for its thread, and may not do so wherever this falls.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::Open(_) => "Open",
            Self::AwayUntil(_) => "AwayUntil",
        })
    }
}

fn fault(error: &RedisError) -> StoreFault {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => StoreFault::Backend(error.to_string()),
        _ => StoreFault::Unreached(error.to_string()),
    }
}
