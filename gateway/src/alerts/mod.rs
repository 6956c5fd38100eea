//! Alerts of budgets, posted to where the configuration says, by a thread of its own: a request only leaves an alert in a
//! bounded queue.
//!
//! Each receiver has its own queue and gets its alerts one after the other, in order. What it does not take with a 2xx is
//! tried again for some minutes, and then lost with a line in the log. Redirects are not followed.

mod notice;
mod receiver;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::notice::Notice;
pub use self::receiver::{Receiver, ReceiverError};
use crate::budget::Alert;
use crate::net::dns::Resolver;
use crate::net::upstream::Upstreams;

/// How many alerts may wait for a receiver that is away: a few hundred tenants with both thresholds.
const MOST_WAITING: usize = 1024;

/// What the process's end waits for alerts to be taken.
const FAREWELL: Duration = Duration::from_secs(3);

/// What became of an alert at one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Delivered,
    /// It was not, however often it was tried.
    Failed,
    /// There were too many before it.
    Dropped,
}

impl Outcome {
    /// Its word in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// Who counts what becomes of alerts.
pub type Told = Arc<dyn Fn(Outcome) + Send + Sync>;

/// Where alerts are left. The default has nobody to tell.
#[derive(Default)]
pub struct Alerts {
    queues: Vec<mpsc::Sender<Arc<Notice>>>,
    told: Option<Told>,
    posting: Mutex<Option<Posting>>,
}

/// The thread that posts.
struct Posting {
    over: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Alerts {
    /// Begins to post to these receivers; with none there is no thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(receivers: Vec<Receiver>, told: Told) -> io::Result<Self> {
        if receivers.is_empty() {
            return Ok(Self::default());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (queues, queued): (Vec<_>, Vec<_>) = receivers.iter().map(|_| mpsc::channel(MOST_WAITING)).unzip();
        let (over, ending) = watch::channel(false);
        let served: Vec<_> = receivers.into_iter().zip(queued).collect();
        let counts = Arc::clone(&told);
        let thread = std::thread::Builder::new().name("alerts".to_owned());
        let thread = thread.spawn(move || runtime.block_on(post(served, &counts, ending)))?;
        Ok(Self { queues, told: Some(told), posting: Mutex::new(Some(Posting { over, thread })) })
    }

    /// Leaves an alert to be posted. Never waits.
    pub fn tell(&self, alert: &Alert) {
        if self.queues.is_empty() {
            return;
        }
        let notice = Arc::new(Notice::of(alert, Timestamp::now()));
        let refused = self.queues.iter().filter(|queue| queue.try_send(Arc::clone(&notice)).is_err()).count();
        for _ in 0..refused {
            self.told.iter().for_each(|told| told(Outcome::Dropped));
        }
    }

    /// Lets what waits be posted, for a moment, and ends.
    pub fn close(&self) {
        let posting = self.posting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Posting { over, thread }) = posting else {
            return;
        };
        let _already_ended = over.send(true);
        if thread.join().is_err() {
            tracing::error!("the thread that posts alerts panicked");
        }
    }
}

async fn post(receivers: Vec<(Receiver, mpsc::Receiver<Arc<Notice>>)>, told: &Told, mut ending: watch::Receiver<bool>) {
    // Of its own: connections belong to the runtime that opened them.
    let upstreams = Upstreams::new(Resolver::system());
    let mut tasks: JoinSet<()> = receivers
        .into_iter()
        .map(|(receiver, queue)| receiver.serve(upstreams.clone(), queue, Arc::clone(told), ending.clone()))
        .collect();
    let _or_gone = ending.wait_for(|over| *over).await;
    let farewell = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        tracing::error!("some alerts of budgets were not taken before the process's end");
    }
}
