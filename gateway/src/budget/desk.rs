//! Where slices are asked for: what several nodes share speaks here with whoever speaks with the shared store.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::budget::lease::{Answer, Claim, NodeId, Reason};
use crate::config::OnRedisLoss;

/// What several nodes share: an account, or slots. It says what to write of this node into the shared store, and learns
/// what the others wrote there.
pub trait Claimant: fmt::Debug + Send + Sync {
    /// Its stable name.
    fn id(&self) -> &Arc<str>;

    /// What to tell the shared store, if anything.
    fn claim(&self, reason: Reason, now: Timestamp) -> Option<Claim>;

    /// The store's answer to a claim. Gives the claim that takes back what is too much.
    fn answered(&self, claim: &Claim, answer: &Answer, now: Timestamp) -> Option<Claim>;

    /// The store did not answer.
    fn unanswered(&self);

    /// Whether somebody waits for what another node has to give back first.
    fn presses(&self) -> bool {
        false
    }

    /// What this node leaves to the one that it took over from.
    fn legacy(&self, _now: Timestamp) -> Option<Claim> {
        None
    }
}

/// Who holds things that are shared.
pub trait Claimants: Send + Sync {
    /// All of them.
    fn claimants(&self) -> Vec<Arc<dyn Claimant>>;

    /// The one of that id that a reload has made last, where it makes them anew.
    fn newest(&self, _id: &str) -> Option<Arc<dyn Claimant>> {
        None
    }
}

/// Those who wish for a slice, to be read by whoever speaks with the store.
pub type Wishes = mpsc::Receiver<Arc<dyn Claimant>>;

/// Where slices are asked for: what is known of the shared store.
#[derive(Debug)]
pub struct Desk {
    node: NodeId,
    process: NodeId,
    heir_of: Option<NodeId>,
    policy: OnRedisLoss,
    linked: AtomicBool,
    nodes: AtomicI64,
    wishes: mpsc::Sender<Arc<dyn Claimant>>,
}

/// How the desk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The store is there.
    Linked,
    /// It is not; this is what the configuration wants then.
    Cut(OnRedisLoss),
}

impl Desk {
    /// A desk whose wishes are to be read from the receiver; cut off until the store has answered.
    #[must_use]
    pub fn new(node: NodeId, policy: OnRedisLoss, most_wishes: usize) -> (Arc<Self>, Wishes) {
        Self::of(node, None, policy, most_wishes)
    }

    /// A desk of a process that takes over from another one on this machine while that still runs. It is a node of its
    /// own,
    /// `node`, until it ends; then it leaves what it has used to `heir_of`, so that the next process, which is that
    /// node again, finds all of it in one claim.
    #[must_use]
    pub fn taking_over(node: NodeId, heir_of: NodeId, policy: OnRedisLoss, most_wishes: usize) -> (Arc<Self>, Wishes) {
        Self::of(node, Some(heir_of), policy, most_wishes)
    }

    fn of(node: NodeId, heir_of: Option<NodeId>, policy: OnRedisLoss, most_wishes: usize) -> (Arc<Self>, Wishes) {
        let (wishes, waiting) = mpsc::channel(most_wishes);
        let (linked, nodes) = (AtomicBool::new(false), AtomicI64::new(1));
        let desk = Self { node, process: rand::random(), heir_of, policy, linked, nodes, wishes };
        (Arc::new(desk), waiting)
    }

    /// The node that this process took over from.
    #[must_use]
    pub fn heir_of(&self) -> Option<NodeId> {
        self.heir_of
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// This process: another one after a restart, which has none of the requests of the one before.
    #[must_use]
    pub fn process(&self) -> NodeId {
        self.process
    }

    /// Whether the store is there.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Acquire)
    }

    /// The store is there or not.
    pub fn set_linked(&self, linked: bool) {
        self.linked.store(linked, Ordering::Release);
    }

    /// How many nodes there are, this one included.
    #[must_use]
    pub fn nodes(&self) -> i64 {
        self.nodes.load(Ordering::Relaxed)
    }

    /// So many nodes were seen.
    pub fn set_nodes(&self, nodes: usize) {
        self.nodes.store(i64::try_from(nodes).unwrap_or(i64::MAX).max(1), Ordering::Relaxed);
    }

    /// What holds while there is no link, as the log tells it.
    #[must_use]
    pub fn until_it_is_back(&self) -> &'static str {
        match self.policy {
            OnRedisLoss::Lease => "each gateway keeps to its share of limits and budgets",
            OnRedisLoss::Local => "each gateway has limits and budgets for itself",
            OnRedisLoss::Reject => "what has a limit or a budget is refused",
        }
    }

    /// How it answers now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.is_linked() { Mode::Linked } else { Mode::Cut(self.policy) }
    }

    /// Asks for a slice; an answer comes, or word that none will. `false`: too many ask.
    pub fn wish(&self, claimant: Arc<dyn Claimant>) -> bool {
        self.wishes.try_send(claimant).is_ok()
    }
}
