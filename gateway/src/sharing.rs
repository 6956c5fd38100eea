//! The link to the Redis that several gateways share, on a thread of its own: whatever happens there, no request waits
//! for that thread.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use crate::balance::{self, Note, Outbox};
use crate::budget::desk::{Claimants, Desk, Wishes};
use crate::budget::lease::NodeId;
use crate::config::OnRedisLoss;
use crate::redis::{Cooldowns, Link, MOST_WISHES, Raised, Settings, Told};
use crate::vital;

/// How long a start waits for Redis.
const FIRST_TRY: Duration = Duration::from_secs(1);

/// The file that remembers how many gateways there are.
const NODES: &str = "nodes";

/// What is to be shared, before it is.
#[derive(Debug)]
pub struct Share {
    settings: Settings,
    folder: PathBuf,
    desk: Arc<Desk>,
    wishes: Wishes,
    outbox: Outbox,
    notes: Receiver<Note>,
}

/// The link at work; [`Sharing::close`] gives back what this node has in hand.
#[derive(Debug)]
pub struct Sharing {
    over: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Share {
    /// Shares by way of this Redis, as the node whose store is in `folder`.
    ///
    /// # Errors
    /// The file that remembers which node that is cannot be read or written.
    pub fn new(settings: Settings, folder: &Path, policy: OnRedisLoss) -> io::Result<Self> {
        let desk = Desk::new(node(folder)?, policy, MOST_WISHES);
        Ok(Self::at(settings, folder, desk))
    }

    /// Shares by way of this Redis, as the process that takes over from the one that is that node.
    ///
    /// # Errors
    /// The file that remembers which node that is cannot be read or written.
    pub fn taking_over(settings: Settings, folder: &Path, policy: OnRedisLoss) -> io::Result<Self> {
        let desk = Desk::taking_over(rand::random(), node(folder)?, policy, MOST_WISHES);
        Ok(Self::at(settings, folder, desk))
    }

    fn at(settings: Settings, folder: &Path, (desk, wishes): (Arc<Desk>, Wishes)) -> Self {
        // Until Redis is reached this is the best that is known.
        desk.set_nodes(nodes(folder));
        let (outbox, notes) = Outbox::new();
        Self { settings, folder: folder.to_owned(), desk, wishes, outbox, notes }
    }

    /// Where accounts ask for slices.
    #[must_use]
    pub fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// Where it is noted what cools.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// Begins to share what these hold, the cooldowns and raised limits, which were made with this desk and outbox, and
    /// waits a little until Redis is reached.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        self,
        shared: Vec<Arc<dyn Claimants>>,
        cooling: Arc<balance::Registry>,
        raised: Raised,
        told: Told,
    ) -> io::Result<Sharing> {
        let (first, tried) = sync_channel(1);
        told(false);
        let told: Told = Box::new(move |linked| {
            told(linked);
            // Nobody listens after the first.
            let _listened = first.try_send(());
        });
        let (over, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (desk, folder) = (Arc::clone(&self.desk), self.folder);
        let cooldowns = Cooldowns::new(cooling, self.notes);
        let link = Link::new(self.settings, (self.desk, self.wishes), shared, cooldowns, told);
        let link = link.raising(raised).counting(Arc::new(move || remember(&folder, desk.nodes())));
        let ended = async {
            // A sender that is gone ends it too.
            let _told_or_gone = ended.await;
        };
        let thread = vital::vital("redis", move || runtime.block_on(link.run(ended)))?;
        // Until it has, the gateway does not know what the others have used.
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

/// How many gateways there were when this one last saw them; itself if that is not known.
fn nodes(folder: &Path) -> usize {
    let text = std::fs::read_to_string(folder.join(NODES)).unwrap_or_default();
    text.trim().parse().unwrap_or(1)
}

fn remember(folder: &Path, nodes: i64) {
    if let Err(error) = std::fs::write(folder.join(NODES), format!("{nodes}\n")) {
        tracing::debug!(%error, "the number of gateways cannot be remembered");
    }
}
