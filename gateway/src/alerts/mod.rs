//! Alerts of budgets, posted to where the configuration says, by a thread of its own: a request only leaves an alert in
//! a bounded queue.
//!
//! Each receiver has its own queue and gets its alerts one after the other, in order. What it does not take with a 2xx
//! is tried again for some minutes, and then lost with a line in the log. Redirects are not followed.

mod notice;
mod receiver;

use std::io;
use std::panic::resume_unwind;
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
use crate::vital;

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

/// What waits for one receiver. It outlives a panic of who posts it.
type Queue = Arc<tokio::sync::Mutex<mpsc::Receiver<Arc<Notice>>>>;

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
        let queued = queued.into_iter().map(|queue| Queue::new(queue.into()));
        let served: Vec<_> = receivers.into_iter().zip(queued).collect();
        let counts = Arc::clone(&told);
        let work = move || runtime.block_on(post(&served, &counts, ending.clone()));
        let thread = vital::tireless("alerts", work)?;
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

/// Posts until the process ends. A panic of one receiver's task is one of the whole, which then begins anew; the alert
/// that it was at is lost.
async fn post(receivers: &[(Receiver, Queue)], told: &Told, mut ending: watch::Receiver<bool>) {
    // Of its own: connections belong to the runtime that opened them.
    let upstreams = Upstreams::new(Resolver::system());
    let serve = |(receiver, queue): &(Receiver, Queue)| {
        receiver.clone().serve(upstreams.clone(), Arc::clone(queue), Arc::clone(told), ending.clone())
    };
    let mut tasks: JoinSet<()> = receivers.iter().map(serve).collect();
    let mut finish = async || {
        while let Some(ended) = tasks.join_next().await {
            if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
                resume_unwind(panic);
            }
        }
    };
    tokio::select! {
        () = finish() => return,
        _or_gone = ending.wait_for(|over| *over) => {}
    }
    if tokio::time::timeout(FAREWELL, finish()).await.is_err() {
        tracing::error!("some alerts of budgets were not taken before the process's end");
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::sync_channel;

    use super::notice::tests::alert;
    use super::*;
    use crate::config::{Secret, Webhook};
    use crate::net::proxy::Proxies;

    /// Takes whatever comes.
    fn webhook() -> Webhook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Secret::written(&format!("http://{}/", listener.local_addr().unwrap()));
        std::thread::spawn(move || {
            for mut caller in listener.incoming().map(Result::unwrap) {
                let _head = caller.read(&mut [0; 4096]).unwrap();
                caller.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
            }
        });
        Webhook { url, secret: None }
    }

    #[test]
    fn a_panic_costs_one_alert_and_those_behind_it_are_posted() {
        let (outcomes, told) = sync_channel(9);
        let panicked = AtomicBool::new(false);
        let tell = move |outcome| {
            assert!(panicked.swap(true, Ordering::SeqCst), "as a test wants it");
            outcomes.send(outcome).unwrap();
        };
        let receiver = Receiver::of(&webhook(), &Proxies::none()).unwrap();
        let alerts = Alerts::start(vec![receiver], Arc::new(tell)).unwrap();
        (0..3).for_each(|_| alerts.tell(&alert()));
        assert_eq!([told.recv().unwrap(), told.recv().unwrap()], [Outcome::Delivered; 2]);
        alerts.close();
        drop(alerts);
        assert!(told.recv().is_err(), "nothing is left");
    }
}
