//! The link to the Redis that several gateways share, on a thread of its own: whatever happens there, no request waits for
//! that thread.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use crate::budget::lease::{Desk, NodeId};
use crate::budget::{Account, Registry};
use crate::config::OnRedisLoss;
use crate::redis::{Link, MOST_WISHES, Settings, Told};

/// How long a start waits for Redis.
const FIRST_TRY: Duration = Duration::from_secs(1);

/// What is to be shared, before it is.
#[derive(Debug)]
pub struct Share {
    settings: Settings,
    desk: Arc<Desk>,
    wishes: Receiver<Arc<Account>>,
}

/// The link at work; [`Sharing::close`] gives back what this node has in hand.
#[derive(Debug)]
pub struct Sharing {
    over: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Share {
    /// Shares by way of this Redis, as this node.
    #[must_use]
    pub fn new(settings: Settings, node: NodeId, policy: OnRedisLoss) -> Self {
        let (desk, wishes) = Desk::new(node, policy, MOST_WISHES);
        Self { settings, desk, wishes }
    }

    /// Shares by way of this Redis, as the process that takes over from the one that is the node `heir_of`.
    #[must_use]
    pub fn taking_over(settings: Settings, heir_of: NodeId, policy: OnRedisLoss) -> Self {
        let (desk, wishes) = Desk::taking_over(rand::random(), heir_of, policy, MOST_WISHES);
        Self { settings, desk, wishes }
    }

    /// Where accounts ask for slices.
    #[must_use]
    pub fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// Begins to share the accounts, which were made with this desk, and waits a little until Redis is reached.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self, accounts: Arc<Registry>, told: Told) -> io::Result<Sharing> {
        let (first, tried) = sync_channel(1);
        told(false);
        let told: Told = Box::new(move |linked| {
            told(linked);
            // Nobody listens after the first.
            let _listened = first.try_send(());
        });
        let (over, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let link = Link::new(self.settings, (self.desk, self.wishes), accounts, told);
        let ended = async {
            // A sender that is gone ends it too.
            let _told_or_gone = ended.await;
        };
        let thread = std::thread::Builder::new().name("redis".to_owned());
        let thread = thread.spawn(move || runtime.block_on(link.run(ended)))?;
        // A gateway that has not seen the others yet takes itself for the only one.
        let _in_vain = tried.recv_timeout(FIRST_TRY);
        Ok(Sharing { over, thread })
    }
}

impl Sharing {
    /// Gives back what is in hand, and ends.
    pub fn close(self) {
        let _already_ended = self.over.send(());
        if self.thread.join().is_err() {
            tracing::error!("the thread of the link to Redis panicked");
        }
    }
}

/// Who this node is: the same after a restart, so that it finds again what it had claimed.
///
/// # Errors
/// The file that remembers it cannot be read or written.
pub fn node(folder: &Path) -> io::Result<NodeId> {
    let path = folder.join("node");
    match std::fs::read_to_string(&path) {
        Ok(text) => NodeId::from_str_radix(text.trim(), 16).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no node's id: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let node = rand::random();
            std::fs::create_dir_all(folder)?;
            std::fs::write(path, format!("{node:016x}\n"))?;
            Ok(node)
        }
        Err(error) => Err(error),
    }
}
