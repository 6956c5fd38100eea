//! What one node of several may spend of an account that they share, worked out without a network: claims and answers
//! in, claims out.
//!
//! The shared store holds, for each account and window, one number a node: its *claim*, what that node has used, holds
//! for requests and keeps in hand. A node writes only its own number and then reads all of them; what the claims exceed
//! the limit by, the last to write takes back. So no two nodes can be granted the same money in whatever order their
//! writes arrive, and a claim that is written twice is written once: nothing is lost or counted twice when an answer
//! does not come. A store that has lost what it held is filled again by what the nodes remember, and until all had the
//! time to tell it nobody believes that another node's claim has fallen.
//!
//! What is in hand is kept small, so that it is there for all: whatever is more than a slice or two goes back as soon
//! as it is free, and all of it while another node was refused. Beside its claim a node writes what of it is
//! [spent](Beside): when its process dies that is all that it keeps. A process that was not answered for so long that
//! others may take it for dead takes nothing that it had in hand.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::budget::desk::{Desk, Mode};
use crate::budget::peers::Peers;
use crate::budget::window::Window;
use crate::config::OnRedisLoss;

/// The name of a node in the shared store.
pub type NodeId = u64;

/// The longest time that an admission waits for a slice. The link answers, or cuts off, long before: only where many
/// nodes ask for the last of an account at once, and the store is far away, are there some rounds to wait for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A slice is this part of what each node could have of the remainder: small enough to leave the others theirs.
const PART: i64 = 4;

/// How long an account that was seen to be spent is refused without asking again.
const SPENT_FOR: SignedDuration = SignedDuration::from_secs(1);

/// For how long after the store lost its data nobody believes that a claim has fallen: what it has may be old. By then
/// every node that can reach it has told it anew, twice over.
pub const DOUBT: SignedDuration = SignedDuration::from_secs(6);

/// How long a slice may lie unused before it goes back.
pub const IDLE: SignedDuration = SignedDuration::from_secs(3);

/// How long one that lacks only what others hold or have in hand is refused without asking again: that is given back as
/// soon as it is free.
const HELD_FOR: SignedDuration = SignedDuration::from_millis(50);

/// For how long what is in hand can be trusted without an answer: others take it from a process that was silent for
/// twice as long.
const TRUSTED: SignedDuration = SignedDuration::from_secs(5);

/// How long somebody who was refused counts as one who wants what others have in hand: they look once a second, and
/// callers come again.
const HUNGER: SignedDuration = SignedDuration::from_millis(2500);

/// What a node writes into the shared store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it is of, and its window.
    pub key: String,
    /// The window; `None`: it holds for as long as it is renewed.
    pub window: Option<Window>,
    /// What to write.
    pub amount: Amount,
    /// What to write beside it; `None`: nothing.
    pub beside: Option<Beside>,
}

/// What a node tells of a claim of an account, that the others may have what is only in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// What of it is used.
    pub used: i64,
    /// What of it is used, held, or waited for. It stays the node's when its process dies.
    pub spent: i64,
    /// Whether somebody was refused here lately who might have been served with what others have in hand.
    pub wants: bool,
}

/// The amount of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So much more than what stands there of this node: for the first claim of a process, which does not know yet what
    /// the one before it left.
    More(i64),
    /// So much in all.
    Total(i64),
}

/// What stands in the store for one account and window: each node with its claim.
pub type Claims = Vec<(NodeId, i64)>;

/// The store's answer to a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What stood there before it was written.
    pub before: Claims,
    /// What stands there now; what dead processes had in hand is left out.
    pub after: Claims,
    /// What stands beside that.
    pub beside: Vec<(NodeId, Beside)>,
    /// Nodes that have not been heard of for so long that they are taken for dead.
    pub dead: Vec<NodeId>,
}

/// Why a claim is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A slice is wanted.
    Want,
    /// To see what the others claim, if this node is using the account; else to give back what lies idle.
    Look,
    /// The store was away, and may know nothing of what this node has.
    Tell,
    /// The node goes: what is in hand goes back.
    Leave,
}

/// What an account says to someone who wants to hold an amount.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It may.
    Yes,
    /// It may, and a new slice should be fetched.
    YesAndAsk,
    /// When the turn is called it may ask again; `ask`: it is the first that wants a slice.
    Wait { turn: Arc<Notify>, ask: bool },
    /// There is not enough.
    No,
    /// The store is away, and the configuration refuses everything then.
    NoStore,
}

/// This node's part of a shared account, in one window.
#[derive(Debug)]
pub(super) struct Lease {
    /// What may be used and held here. At least what is claimed stands in the store for it.
    granted: i64,
    /// What the store last had of us; `None`: it was not asked yet.
    told: Option<i64>,
    /// The least that it has of us if it lost nothing: claims whose answers did not come may have been written.
    least: i64,
    peers: Peers,
    /// What of the others' claims is only in hand.
    in_hand_elsewhere: i64,
    /// What of them is in hand, or held for requests under way.
    unused_elsewhere: i64,
    /// Whether another node wants what is in hand.
    is_called: bool,
    seen_at: Timestamp,
    /// Until when somebody who was refused counts.
    hungry_until: Timestamp,
    /// What was last written beside the claim, if it is sure.
    beside: Option<Beside>,
    /// Whether the share for the time without a store was taken.
    share_taken: bool,
    /// What all who wait for it want together.
    wanted: i64,
    /// The least that one of them wants, of those who came since the last answer.
    least_wanted: i64,
    /// The limit under which what is in hand was claimed.
    limit: i64,
    /// Whether a wish is under way.
    asked: bool,
    used_at: Timestamp,
    turn: Arc<Notify>,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            granted: 0,
            told: None,
            least: 0,
            peers: Peers::default(),
            in_hand_elsewhere: 0,
            unused_elsewhere: 0,
            is_called: false,
            seen_at: Timestamp::MIN,
            hungry_until: Timestamp::MIN,
            beside: None,
            share_taken: false,
            wanted: 0,
            least_wanted: i64::MAX,
            limit: 0,
            asked: false,
            used_at: Timestamp::MIN,
            turn: Arc::default(),
        }
    }
}

/// How an account stands when its lease is asked something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// What may be used by all nodes.
    pub(super) limit: i64,
    /// What is used here.
    pub(super) used: i64,
    /// What is used and held here.
    pub(super) taken: i64,
    /// How many nodes there are.
    pub(super) nodes: i64,
    /// The moment.
    pub(super) now: Timestamp,
}

impl Lease {
    /// A lease for the next window, with the same callers waiting.
    pub(super) fn renewed(&self) -> Self {
        Self { turn: Arc::clone(&self.turn), wanted: self.wanted, ..Self::default() }
    }

    /// What the other nodes claim.
    pub(super) fn elsewhere(&self) -> i64 {
        self.peers.sum()
    }

    /// What they have used and hold, as far as they say.
    pub(super) fn spent_elsewhere(&self) -> i64 {
        self.elsewhere().saturating_sub(self.in_hand_elsewhere).max(0)
    }

    /// What they have used, as far as they say.
    pub(super) fn used_elsewhere(&self) -> i64 {
        self.elsewhere().saturating_sub(self.unused_elsewhere).max(0)
    }

    /// Whether the store knows of this node.
    pub(super) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// What nobody claims.
    fn left(&self, need: Need) -> i64 {
        let mine = self.granted.max(need.taken);
        need.limit.saturating_sub(mine.saturating_add(self.elsewhere())).max(0)
    }

    fn slice(&self, need: Need) -> i64 {
        self.left(need) / need.nodes.saturating_mul(PART).max(1)
    }

    fn in_hand(&self, need: Need) -> i64 {
        self.granted.saturating_sub(need.taken).max(0)
    }

    /// What is to stay of what is in hand: all of two slices, else one of them, so that it does not swing; nothing
    /// while another node wants it, but what is waited for here.
    fn keep(&self, need: Need) -> i64 {
        let in_hand = self.in_hand(need);
        let slice = self.left(need).saturating_add(in_hand) / need.nodes.saturating_mul(PART).max(1);
        let (most, kept) = if self.is_called { (0, 0) } else { (slice.saturating_mul(2), slice) };
        if in_hand > most { kept.max(self.wanted).min(in_hand) } else { in_hand }
    }

    /// Whether some of what is in hand is to go back at once. It is asked for then.
    pub(super) fn asks_to_give_back(&mut self, need: Need) -> bool {
        let is_shared = need.nodes > 1 && self.told.is_some();
        let asks = is_shared && !self.asked && self.keep(need) < self.in_hand(need);
        self.asked |= asks;
        asks
    }

    /// What to write beside a claim.
    pub(super) fn beside(&self, need: Need) -> Beside {
        let spent = need.taken.saturating_add(self.wanted);
        Beside { used: need.used, spent, wants: need.now < self.hungry_until }
    }

    /// Who was silent for so long may have lost what it had in hand, and claims it anew.
    fn is_out_of_touch(&self, need: Need) -> bool {
        self.told.is_some() && need.now.duration_since(self.seen_at) >= TRUSTED
    }

    fn let_go(&mut self, need: Need) {
        self.granted = self.granted.min(need.taken);
    }

    /// What was claimed under a higher limit than holds now is claimed anew.
    fn heed_limit(&mut self, need: Need) {
        if std::mem::replace(&mut self.limit, need.limit) > need.limit {
            self.let_go(need);
        }
    }

    /// Whether `worst` may be held now.
    pub(super) fn verdict(&mut self, worst: i64, mode: Mode, need: Need) -> Verdict {
        self.used_at = need.now;
        self.heed_limit(need);
        match mode {
            Mode::Cut(OnRedisLoss::Reject) => return Verdict::NoStore,
            Mode::Cut(OnRedisLoss::Local) => return Verdict::Yes,
            Mode::Cut(OnRedisLoss::Lease) => self.take_share(need),
            Mode::Linked if self.is_out_of_touch(need) => self.let_go(need),
            Mode::Linked => {}
        }
        let covered = need.taken.saturating_add(worst) <= self.granted;
        match (mode, covered) {
            (Mode::Linked, true) if self.runs_low(worst, need) => Verdict::YesAndAsk,
            (_, true) => Verdict::Yes,
            (Mode::Cut(_), false) => Verdict::No,
            (Mode::Linked, false) if self.is_known_to_lack(worst, need) => self.refuse(need),
            (Mode::Linked, false) => self.wait_for(worst),
        }
    }

    /// Takes this node's share of what was left when the store was last seen, once.
    fn take_share(&mut self, need: Need) {
        if !std::mem::replace(&mut self.share_taken, true) {
            if self.is_out_of_touch(need) {
                self.let_go(need);
            }
            let share = self.surely_left(need) / need.nodes.max(1);
            self.granted = self.granted.max(need.taken).saturating_add(share);
        }
    }

    /// What is left if each other node has claimed one more slice since it was last seen. A window that was never seen
    /// began without a store: then the others have claimed nothing either.
    fn surely_left(&self, need: Need) -> i64 {
        let claimed = if self.told.is_some() { self.slice(need).saturating_mul(need.nodes - 1) } else { 0 };
        self.left(need).saturating_sub(claimed).max(0)
    }

    /// Whether less than half a slice is in hand and there is more to be had.
    fn runs_low(&mut self, worst: i64, need: Need) -> bool {
        let in_hand = self.granted.saturating_sub(need.taken.saturating_add(worst));
        let low = !self.asked && !self.is_called && in_hand < self.slice(need) / 2;
        self.asked |= low;
        low
    }

    fn is_known_to_lack(&self, worst: i64, need: Need) -> bool {
        let unspent = need.limit.saturating_sub(need.used.saturating_add(self.used_elsewhere()));
        let length = if worst > unspent { SPENT_FOR } else { HELD_FOR };
        let fresh = need.now.duration_since(self.seen_at) < length;
        fresh && self.left(need).saturating_add(self.in_hand(need)) < worst
    }

    /// Refuses; what others have in hand is wanted here then, if they have any.
    fn refuse(&mut self, need: Need) -> Verdict {
        if self.in_hand_elsewhere > 0 {
            self.hungry_until = need.now.saturating_add(HUNGER).unwrap_or(need.now);
        }
        Verdict::No
    }

    /// Whoever is told to wait says [when it waits no more](Self::waits_no_more).
    fn wait_for(&mut self, worst: i64) -> Verdict {
        self.wanted = self.wanted.saturating_add(worst);
        self.least_wanted = self.least_wanted.min(worst);
        let ask = !std::mem::replace(&mut self.asked, true);
        Verdict::Wait { turn: Arc::clone(&self.turn), ask }
    }

    /// One who was to wait for `worst` has come to its turn, or has gone.
    pub(super) fn waits_no_more(&mut self, worst: i64) {
        self.wanted = self.wanted.saturating_sub(worst);
    }

    /// The amount to claim, if there is anything to say.
    pub(super) fn claim(&mut self, reason: Reason, need: Need) -> Option<Amount> {
        self.heed_limit(need);
        if self.is_out_of_touch(need) {
            // Others may have cut what stands there.
            self.least = i64::MIN;
            if reason != Reason::Tell {
                self.let_go(need);
            }
        }
        let amount = self.amount(reason, need)?;
        if let Amount::Total(total) = amount {
            self.least = self.least.min(total);
        }
        self.beside = Some(self.beside(need));
        Some(amount)
    }

    fn amount(&mut self, reason: Reason, need: Need) -> Option<Amount> {
        let mine = self.granted.max(need.taken);
        let idle = need.now.duration_since(self.used_at) >= IDLE;
        match reason {
            Reason::Want => {
                self.trim(need);
                Some(self.more(self.granted.max(need.taken), need))
            }
            Reason::Tell => self.told.map(|_| Amount::Total(mine)).or((mine > 0).then_some(Amount::More(mine))),
            Reason::Look if !idle => {
                self.trim(need);
                self.told.map(|_| Amount::Total(self.granted.max(need.taken)))
            }
            Reason::Look | Reason::Leave => {
                self.let_go(need);
                let is_news = |told: &i64| *told > need.taken || self.beside != Some(self.beside(need));
                self.told.filter(is_news).map(|_| Amount::Total(need.taken))
            }
        }
    }

    /// Gives back what is more than is to stay in hand: of what a request held at most and did not use, or of a share
    /// that was taken without a store.
    fn trim(&mut self, need: Need) {
        self.granted = self.granted.min(need.taken.saturating_add(self.keep(need)));
    }

    /// What those who wait lack, or where less than half a slice is in hand the next one.
    fn more(&self, mine: i64, need: Need) -> Amount {
        let (lacking, slice) = (self.lacking(self.to_claim(need), need), self.slice(need));
        let is_low = lacking > 0 || (!self.is_called && self.in_hand(need) < slice / 2);
        let next = if is_low { lacking.max(slice) } else { 0 };
        let more = next.min(need.limit.saturating_sub(mine)).max(0);
        match self.told {
            Some(_) => Amount::Total(mine.saturating_add(more)),
            None => Amount::More(more),
        }
    }

    /// All that is waited for; while nobody believes that a claim falls again, only what one of them waits for: what
    /// then turned out too much would be nobody's for as long.
    fn to_claim(&self, need: Need) -> i64 {
        if self.peers.is_doubted(need.now) { self.least_wanted.min(self.wanted) } else { self.wanted }
    }

    /// What is lacking of `wanted`.
    fn lacking(&self, wanted: i64, need: Need) -> i64 {
        need.taken.saturating_add(wanted).saturating_sub(self.granted).max(0)
    }

    /// Learns what the store holds after a claim. Gives the claim that takes back what is too much.
    pub(super) fn answered(&mut self, desk: &Desk, answer: &Answer, need: Need) -> Option<Amount> {
        let node = desk.node();
        let own = |claims: &Claims| claims.iter().find(|(id, _)| *id == node).map(|(_, claim)| *claim);
        let (before, after) = (own(&answer.before), own(&answer.after).unwrap_or(0));
        if self.told.is_some() && before.unwrap_or(i64::MIN) < self.least {
            self.peers.doubt(need.now);
        }
        self.learn(node, answer, need.now);
        self.granted = self.kept(after, need);
        if self.wanted == 0 && need.nodes > 1 {
            // What was much was in use, or asked for, when this was claimed.
            self.trim(need);
        }
        let kept = self.granted.max(need.taken);
        (self.told, self.least) = (Some(after), kept.min(after));
        self.seen_at = need.now;
        (self.least_wanted, self.asked) = (i64::MAX, false);
        // A share that is taken while the store comes back would be claimed too late.
        self.share_taken &= !desk.is_linked();
        self.turn.notify_waiters();
        (kept < after).then(|| {
            self.beside = Some(self.beside(need));
            Amount::Total(kept)
        })
    }

    fn learn(&mut self, node: NodeId, answer: &Answer, now: Timestamp) {
        self.peers.learn(node, &answer.after, now);
        let others = || answer.beside.iter().filter(|(id, _)| *id != node);
        self.is_called = others().any(|(_, beside)| beside.wants);
        let claimed = |node| answer.after.iter().find(|(id, _)| *id == node).map_or(0, |(_, claim)| *claim);
        let beyond = |part: fn(&Beside) -> i64| {
            let rests = others().map(|(id, beside)| claimed(*id).saturating_sub(part(beside)).max(0));
            rests.fold(0, i64::saturating_add)
        };
        self.in_hand_elsewhere = beyond(|beside| beside.spent);
        self.unused_elsewhere = beyond(|beside| beside.used);
    }

    /// What of the claim `after` does not pass the limit; nothing of what it adds, when that is less than any of those
    /// who wait lacks: it would lie here unused while another node may lack just that.
    fn kept(&self, after: i64, need: Need) -> i64 {
        let mine = self.granted.max(need.taken);
        let over = after.saturating_add(self.elsewhere()).saturating_sub(need.limit).max(0);
        let kept = after.saturating_sub(over).max(need.taken);
        // A first claim finds what the process before this one held; that is in hand too.
        let least = self.least_wanted.min(self.wanted);
        let lacking = if self.told.is_some() { self.lacking(least, need) } else { 0 };
        if over > 0 && kept.saturating_sub(mine) < lacking { mine.min(kept).max(need.taken) } else { kept }
    }

    /// The store did not answer.
    pub(super) fn unanswered(&mut self) {
        self.asked = false;
        self.beside = None;
        self.turn.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: i64 = 200;
    const COUNT: usize = 4;

    /// What can happen to one of several nodes, each step of a claim on its own, since others write in between.
    #[derive(Clone, Debug)]
    enum Step {
        Reserve(i64),
        Claim,
        Write,
        Read,
        Lose,
        Idle,
        Look,
        Settle(i64),
        /// The process stands still for so long that the others take it for dead, until its next step.
        Freeze,
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let step = prop_oneof![
            4 => (1_i64..80).prop_map(Step::Reserve),
            3 => Just(Step::Claim),
            3 => Just(Step::Write),
            3 => Just(Step::Read),
            1 => Just(Step::Lose),
            1 => Just(Step::Idle),
            1 => Just(Step::Look),
            2 => (0_i64..80).prop_map(Step::Settle),
            1 => Just(Step::Freeze),
        ];
        prop::collection::vec((0..COUNT, step), 1..400)
    }

    /// What stands in the store.
    #[derive(Clone, Default)]
    struct Store {
        claims: Claims,
        beside: Vec<(NodeId, Beside)>,
    }

    impl Store {
        fn tell(&mut self, node: NodeId, amount: Amount, beside: Beside) {
            if !self.claims.iter().any(|(id, _)| *id == node) {
                self.claims.push((node, 0));
            }
            for (_, claim) in self.claims.iter_mut().filter(|(id, _)| *id == node) {
                *claim = match amount {
                    Amount::More(more) => *claim + more,
                    Amount::Total(total) => total,
                };
            }
            self.beside.retain(|(id, _)| *id != node);
            self.beside.push((node, beside));
        }

        /// What is spent for sure of a node's claim.
        fn spent(&self, node: NodeId) -> i64 {
            self.beside.iter().find(|(id, _)| *id == node).map_or(0, |(_, beside)| beside.spent)
        }

        /// Without what those who are silent had in hand.
        fn without_hands(&self, silent: &[NodeId]) -> Claims {
            let cut = |(id, claim): &(NodeId, i64)| {
                let spent = if silent.contains(id) { self.spent(*id) } else { i64::MAX };
                (*id, spent.min(*claim))
            };
            self.claims.iter().map(cut).collect()
        }
    }

    /// A node, and its claim on the way.
    struct Node {
        desk: Arc<Desk>,
        lease: Lease,
        taken: i64,
        /// What those who wait want, each.
        waiting: Vec<i64>,
        now: Timestamp,
        claim: Option<(Amount, Beside)>,
        written: Option<Claims>,
        is_silent: bool,
    }

    impl Node {
        fn new(number: usize) -> Self {
            let (desk, _) = Desk::new(NodeId::try_from(number).unwrap_or(0), OnRedisLoss::Lease, 1);
            desk.set_linked(true);
            let lease = Lease::default();
            let (waiting, now) = (Vec::new(), Timestamp::UNIX_EPOCH);
            Self { desk, lease, taken: 0, waiting, now, claim: None, written: None, is_silent: false }
        }

        fn need(&self) -> Need {
            let nodes = i64::try_from(COUNT).unwrap_or(1);
            Need { limit: LIMIT, used: self.taken, taken: self.taken, nodes, now: self.now }
        }

        /// Whether it may hold so much now; else somebody waits for it, where that is of use.
        fn reserve(&mut self, worst: i64) -> bool {
            let verdict = self.lease.verdict(worst, Mode::Linked, self.need());
            let may = matches!(verdict, Verdict::Yes | Verdict::YesAndAsk);
            match verdict {
                Verdict::Wait { .. } => self.waiting.push(worst),
                _ if may => self.taken += worst,
                _ => {}
            }
            may
        }

        /// Those who wait come to their turn.
        fn call(&mut self) {
            for worst in std::mem::take(&mut self.waiting) {
                self.reserve(worst);
                self.lease.waits_no_more(worst);
            }
        }

        fn write(&mut self, store: &mut Store) {
            let Some((amount, beside)) = self.claim.filter(|_| self.written.is_none()) else {
                return;
            };
            self.written = Some(store.claims.clone());
            store.tell(self.desk.node(), amount, beside);
        }

        fn ask(&mut self, reason: Reason) {
            let need = self.need();
            self.claim = self.lease.claim(reason, need).map(|amount| (amount, self.lease.beside(need)));
        }

        /// What it may have now without a question.
        fn mine(&self) -> i64 {
            let in_hand = if self.lease.is_out_of_touch(self.need()) { 0 } else { self.lease.granted };
            in_hand.max(self.taken)
        }

        fn take(&mut self, step: Step, store: &mut Store, silent: &[NodeId]) {
            self.now += SignedDuration::from_millis(100);
            let need = self.need();
            match step {
                Step::Reserve(worst) => drop(self.reserve(worst)),
                Step::Settle(amount) => {
                    self.taken -= amount.min(self.taken);
                    self.lease.asks_to_give_back(self.need());
                }
                Step::Claim if self.claim.is_none() => self.ask(Reason::Want),
                Step::Idle if self.claim.is_none() => {
                    self.now += IDLE;
                    self.ask(Reason::Look);
                }
                Step::Look if self.claim.is_none() => self.ask(Reason::Look),
                // What is on the way then comes too late to be believed.
                Step::Freeze => {
                    self.now += TRUSTED;
                    (self.claim, self.written) = (None, None);
                    self.lease.unanswered();
                    self.call();
                }
                Step::Claim | Step::Idle | Step::Look => {}
                Step::Write => self.write(store),
                Step::Read => {
                    if let Some(before) = self.written.take() {
                        let (after, beside) = (store.without_hands(silent), store.beside.clone());
                        let answer = Answer { before, after, beside, ..Answer::default() };
                        let back = self.lease.answered(&self.desk, &answer, need);
                        self.claim = back.map(|amount| (amount, self.lease.beside(need)));
                        self.call();
                    }
                }
                // The answer does not come; whether it was written nobody knows.
                Step::Lose => {
                    (self.claim, self.written) = (None, None);
                    self.lease.unanswered();
                    self.call();
                }
            }
        }
    }

    proptest! {
        /// However the writes and reads of several nodes mix, whichever answers are lost, and whoever stands still for
        /// however long, no more is granted than there is, and what those who were frozen had used since they last said
        /// so.
        #[test]
        fn all_nodes_together_are_granted_no_more_than_there_is(steps in steps()) {
            let mut nodes: Vec<_> = (0..COUNT).map(Node::new).collect();
            let (mut store, mut unsaid) = (Store::default(), 0);
            for (number, step) in steps {
                let silent: Vec<_> = nodes.iter().filter(|node| node.is_silent).map(|node| node.desk.node()).collect();
                if let Some(node) = nodes.get_mut(number) {
                    node.is_silent = matches!(step, Step::Freeze);
                    if node.is_silent {
                        unsaid += (node.taken - store.spent(node.desk.node())).max(0);
                    }
                    node.take(step, &mut store, &silent);
                }
                let granted: i64 = nodes.iter().map(Node::mine).sum();
                prop_assert!(granted <= LIMIT + unsaid, "{granted}, and {unsaid} that nobody knew of");
            }
        }
    }

    #[test]
    fn without_a_store_all_nodes_have_their_shares_and_no_more() {
        let mut nodes: Vec<_> = (0..COUNT).map(Node::new).collect();
        for node in &mut nodes {
            let need = node.need();
            let cut = Mode::Cut(OnRedisLoss::Lease);
            assert!(matches!(node.lease.verdict(LIMIT / 4, cut, need), Verdict::Yes));
            node.taken = LIMIT / 4;
            assert!(matches!(node.lease.verdict(1, cut, node.need()), Verdict::No));
        }
    }

    #[test]
    fn an_answer_that_was_lost_is_not_taken_for_a_store_that_lost_its_data() {
        let mut node = Node { taken: 100, ..Node::new(0) };
        let (need, claims) = (node.need(), |own: i64, other: i64| vec![(0, own), (1, other)]);
        let first = Answer { before: vec![(1, 60)], after: claims(100, 60), ..Answer::default() };
        assert_eq!(node.lease.answered(&node.desk, &first, need), None);
        (node.now, node.taken) = (node.now + IDLE, 0);
        assert_eq!(node.lease.claim(Reason::Look, node.need()), Some(Amount::Total(0)), "written, but not answered");
        assert_eq!(node.lease.claim(Reason::Look, node.need()), Some(Amount::Total(0)), "so it is said again");
        let second = Answer { before: claims(0, 60), after: claims(0, 20), ..Answer::default() };
        assert_eq!(node.lease.answered(&node.desk, &second, need), None);
        assert_eq!(node.lease.elsewhere(), 20, "the other gave something back");
    }

    #[test]
    fn a_share_that_is_far_more_than_a_slice_goes_back() {
        let mut node = Node::new(0);
        let cut = Mode::Cut(OnRedisLoss::Lease);
        assert!(matches!(node.lease.verdict(1, cut, node.need()), Verdict::Yes));
        assert_eq!(node.lease.claim(Reason::Tell, node.need()), Some(Amount::More(LIMIT / 4)));
        let answer = Answer { before: vec![], after: vec![(0, LIMIT / 4)], ..Answer::default() };
        let slice = LIMIT / 4 / PART;
        assert_eq!(node.lease.answered(&node.desk, &answer, node.need()), Some(Amount::Total(slice)));
    }

    /// A node that has claimed `own` of it, beside another one that has claimed `other` and spent `spent`, and wants
    /// more or not.
    fn beside_another(own: i64, (other, spent): (i64, i64), wants: bool) -> Node {
        let mut node = Node::new(0);
        node.taken = own;
        let (after, beside) = (vec![(0, own), (1, other)], vec![(1, Beside { used: spent, spent, wants })]);
        let answer = Answer { before: vec![], after, beside, ..Answer::default() };
        assert_eq!(node.lease.answered(&node.desk, &answer, node.need()), None);
        node
    }

    #[test]
    fn what_a_large_request_did_not_use_goes_back_at_once_but_for_a_slice() {
        let mut node = beside_another(100, (20, 20), false);
        node.taken = 4;
        assert!(node.lease.asks_to_give_back(node.need()));
        assert!(!node.lease.asks_to_give_back(node.need()), "it is asked for already");
        let slice = (LIMIT - 20 - 4) / 16;
        assert_eq!(node.lease.claim(Reason::Want, node.need()), Some(Amount::Total(4 + slice)));
        let answer =
            Answer { before: vec![(0, 100), (1, 20)], after: vec![(0, 4 + slice), (1, 20)], ..Answer::default() };
        assert_eq!(node.lease.answered(&node.desk, &answer, node.need()), None);
        assert!(!node.lease.asks_to_give_back(node.need()), "a slice stays");
    }

    #[test]
    fn all_who_wait_are_claimed_for_together_and_served_as_far_as_there_is() {
        let mut node = beside_another(0, (100, 100), false);
        assert_eq!((1..=6).filter(|_| node.reserve(30)).count(), 0);
        let claim = node.lease.claim(Reason::Want, node.need());
        assert_eq!(claim, Some(Amount::Total(180)), "six times 30");
        let answer = Answer { before: vec![(0, 0), (1, 100)], after: vec![(0, 180), (1, 100)], ..Answer::default() };
        assert_eq!(node.lease.answered(&node.desk, &answer, node.need()), Some(Amount::Total(100)));
        node.call();
        assert_eq!((node.taken, node.waiting.len(), node.lease.wanted), (90, 0, 0));
    }

    #[test]
    fn what_was_claimed_under_a_higher_limit_is_claimed_anew() {
        let mut node = beside_another(100, (20, 20), false);
        node.taken = 4;
        assert!(node.reserve(1), "from what is in hand");
        let lowered = Need { limit: 50, ..node.need() };
        assert!(matches!(node.lease.verdict(1, Mode::Linked, lowered), Verdict::Wait { .. }));
        assert_eq!(node.lease.claim(Reason::Want, lowered), Some(Amount::Total(5 + 1)));
        let answer = Answer { before: vec![(0, 100), (1, 20)], after: vec![(0, 6), (1, 20)], ..Answer::default() };
        assert_eq!(node.lease.answered(&node.desk, &answer, lowered), None);
        assert!(matches!(node.lease.verdict(1, Mode::Linked, lowered), Verdict::Yes | Verdict::YesAndAsk));
    }

    #[test]
    fn what_others_hold_for_requests_is_not_used() {
        let mut node = Node::new(0);
        let beside = vec![(1, Beside { used: 10, spent: 120, wants: false })];
        let answer = Answer { before: vec![], after: vec![(0, 0), (1, 150)], beside, ..Answer::default() };
        assert_eq!(node.lease.answered(&node.desk, &answer, node.need()), None);
        assert_eq!((node.lease.elsewhere(), node.lease.used_elsewhere()), (150, 10));
    }

    #[test]
    fn who_is_refused_for_what_others_have_in_hand_says_so_and_they_give_it_back() {
        let mut node = beside_another(50, (150, 50), false);
        assert_eq!((node.lease.elsewhere(), node.lease.spent_elsewhere()), (150, 50));
        assert!(matches!(node.lease.verdict(10, Mode::Linked, node.need()), Verdict::No));
        assert!(node.lease.beside(node.need()).wants);
        node.now += HUNGER;
        assert!(!node.lease.beside(node.need()).wants, "nobody came again");
        let mut other = beside_another(50, (20, 20), true);
        other.taken = 48;
        assert!(other.lease.asks_to_give_back(other.need()), "though it is little");
        assert_eq!(other.lease.claim(Reason::Look, other.need()), Some(Amount::Total(48)));
        let mut spent = beside_another(50, (150, 150), false);
        assert!(matches!(spent.lease.verdict(10, Mode::Linked, spent.need()), Verdict::No));
        assert!(!spent.lease.beside(spent.need()).wants, "they have nothing to give");
    }

    #[test]
    fn who_was_not_answered_for_long_takes_nothing_that_it_had_in_hand() {
        let mut node = beside_another(10, (0, 0), false);
        node.taken = 0;
        assert!(matches!(node.lease.verdict(1, Mode::Linked, node.need()), Verdict::Yes | Verdict::YesAndAsk));
        node.now += TRUSTED;
        assert!(matches!(node.lease.verdict(1, Mode::Linked, node.need()), Verdict::Wait { .. }));
        assert_eq!(node.lease.claim(Reason::Look, node.need()), Some(Amount::Total(0)));
        // Another one has all of it; that the claim was cut is no loss of the store's.
        let answer = Answer { before: vec![(0, 0), (1, 200)], after: vec![(0, 0), (1, 200)], ..Answer::default() };
        assert_eq!(node.lease.answered(&node.desk, &answer, node.need()), None);
        assert!(matches!(node.lease.verdict(1, Mode::Linked, node.need()), Verdict::No));
    }

    #[test]
    fn a_store_that_lost_a_claim_is_not_believed_for_a_while_that_another_fell() {
        let mut node = Node { taken: 100, ..Node::new(0) };
        let answer = |before: &[(NodeId, i64)], after: &[(NodeId, i64)]| Answer {
            before: before.to_vec(),
            after: after.to_vec(),
            ..Answer::default()
        };
        let need = node.need();
        assert_eq!(node.lease.answered(&node.desk, &answer(&[(1, 50)], &[(0, 100), (1, 50)]), need), None);
        assert_eq!(node.lease.answered(&node.desk, &answer(&[(0, 100), (1, 50)], &[(0, 100), (1, 30)]), need), None);
        assert_eq!(node.lease.elsewhere(), 30, "another node gave something back");
        assert_eq!(node.lease.answered(&node.desk, &answer(&[], &[(0, 100)]), need), None);
        assert_eq!(node.lease.elsewhere(), 30, "what the store forgot is remembered");
        assert_eq!(node.lease.answered(&node.desk, &answer(&[(0, 100)], &[(0, 100), (1, 2)]), need), None);
        assert_eq!(node.lease.elsewhere(), 30);
        let later = Need { now: need.now + DOUBT, ..need };
        assert_eq!(node.lease.answered(&node.desk, &answer(&[(0, 100)], &[(0, 100), (1, 2)]), later), None);
        assert_eq!(node.lease.elsewhere(), 2, "all have told it anew");
    }
}
