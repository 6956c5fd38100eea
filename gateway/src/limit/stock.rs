//! What one node of several may take of slots that they share, worked out without a network: claims and answers in,
//! claims out.
//!
//! Slots are a stock and no flow: what is given back can be taken again, so a claim may fall, and one of a process that
//! died is nobody's. Each process writes how many slots it keeps for itself, and how many more it wants, into one
//! number; it has more only once it has read that all claims together do not pass the limit. What nobody else wants may
//! stay where it is; when somebody was refused, the others give back what lies unused, and of what they use all that is
//! more than their fair share, as it comes free. What cannot be shared out evenly goes round: with its claim each says
//! how many turns it has had, and what comes free is for who has had the fewest.

use jiff::{SignedDuration, Timestamp};

use crate::budget::lease::{Amount, Answer, Claims, NodeId, Reason};
use crate::budget::peers::Peers;

/// The most slots that are counted: more than a machine has connections, and few enough for all that is counted of them
/// to fit one atomic number.
pub(super) const MOST: i64 = (1 << 21) - 1;

/// What is kept beside what is in use is this part of what each node could have of the rest.
const PART: i64 = 2;

/// How long slots that nobody uses stay here while nobody else wants them.
const IDLE: SignedDuration = SignedDuration::from_secs(3);

/// How long somebody who was refused counts as one who wants a slot: others look once a second, and callers come again.
const HUNGER: SignedDuration = SignedDuration::from_millis(2500);

/// For how long what is free is left to those whose turn it is: they ask several times in that time, unless they stand
/// still.
const COURTESY: SignedDuration = SignedDuration::from_millis(500);

/// How many turns it has had stands above what is kept in a claim's number.
const TURNS: u32 = 21;

/// What is wanted stands above that.
const WANTED: u32 = 32;

/// After so many turns they are counted from 0 again: those of who waits are never far apart.
const ROUND: i64 = 1 << (WANTED - TURNS);

/// This process's part of the slots.
#[derive(Debug)]
pub(super) struct Stock {
    /// How many may be taken here. At least as many stand in the store for this process.
    granted: i64,
    /// How many it is to be when the claim under way is answered.
    goal: i64,
    /// The number that the store last had of us; `None`: it was not asked yet.
    told: Option<i64>,
    /// Whether a claim was not answered, and may stand there.
    is_unsure: bool,
    /// The least that it has of us if it lost nothing.
    least: i64,
    peers: Peers,
    /// How many the others want.
    wanted: i64,
    /// How many processes have slots or want some, this one included.
    contenders: i64,
    /// The most that were in use together lately, and when that was.
    peak: (i64, Timestamp),
    /// How many were refused since the last claim, and before it.
    refused: (i64, i64),
    hungry_until: Timestamp,
    /// How many turns this process has had at what goes round.
    turns: i64,
    /// Others that want some: how many each keeps, and how many turns it has had.
    queue: Vec<(i64, i64)>,
    /// Since when something is free that is left to others.
    yields_since: Option<Timestamp>,
    /// Whether the claim under way is a second one, for what the first has found free.
    is_second: bool,
    /// Whether the share for the time without a store was taken.
    share_taken: bool,
}

impl Default for Stock {
    fn default() -> Self {
        Self {
            granted: 0,
            goal: 0,
            told: None,
            is_unsure: false,
            least: 0,
            peers: Peers::default(),
            wanted: 0,
            contenders: 1,
            peak: (0, Timestamp::MIN),
            refused: (0, 0),
            hungry_until: Timestamp::MIN,
            turns: 0,
            queue: Vec::new(),
            yields_since: None,
            is_second: false,
            share_taken: false,
        }
    }
}

/// How slots stand when their stock is asked something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// What may be taken by all.
    pub(super) limit: i64,
    /// What is taken here.
    pub(super) taken: i64,
    /// The most that was, since the last look.
    pub(super) peak: i64,
    /// How many wait here.
    pub(super) waiting: i64,
    /// How many nodes there are.
    pub(super) nodes: i64,
    /// The moment.
    pub(super) now: Timestamp,
}

impl Stock {
    /// How many may be taken here.
    pub(super) fn granted(&self) -> i64 {
        self.granted
    }

    /// Whether others want what this process has beyond its due, as soon as it is free.
    pub(super) fn is_called(&self, need: Need) -> bool {
        let mine = self.mine(need);
        self.wanted > 0 && mine > self.due(mine, need)
    }

    /// Whether somebody who comes now would ask in vain.
    pub(super) fn is_lacking(&self, need: Need) -> bool {
        let one_more = Need { waiting: need.waiting.saturating_add(1), ..need };
        self.told.is_some() && self.is_hungry(need) && self.granted <= need.taken && self.aim(one_more) <= need.taken
    }

    /// With fewer free ones than this the next are to be claimed.
    pub(super) fn low(&self, need: Need) -> i64 {
        let more = self.aim(need).saturating_sub(self.mine(need));
        if more > 0 { self.spare(need.taken, need).saturating_add(1) / 2 } else { 0 }
    }

    /// Somebody was refused.
    pub(super) fn refuse(&mut self) {
        self.refused.0 = self.refused.0.saturating_add(1);
    }

    /// Takes this process's share of what was left when the store was last seen, once; one where it is less, so that a
    /// small limit is no outage.
    pub(super) fn take_share(&mut self, need: Need) {
        if std::mem::replace(&mut self.share_taken, true) {
            return;
        }
        let mine = self.mine(need);
        let left = need.limit.saturating_sub(mine.saturating_add(self.peers.sum())).max(0);
        let share = mine.saturating_add(left / need.nodes.max(1));
        self.granted = share.max(1).min(need.limit);
    }

    /// The number to write, if there is anything to say.
    pub(super) fn claim(&mut self, reason: Reason, need: Need) -> Option<Amount> {
        if reason == Reason::Look && (need.peak >= self.peak.0 || need.now.duration_since(self.peak.1) >= IDLE) {
            self.peak = (need.peak, need.now);
        }
        self.remember_refusals(need.now);
        self.is_second = false;
        self.heed_turns(need);
        self.goal = match reason {
            // What came free goes back first: only the answer shows whose turn it is.
            Reason::Want | Reason::Look => self.aim_of(self.mine(need).max(self.told.map_or(0, kept)), need),
            Reason::Tell => self.mine(need),
            Reason::Leave => 0,
        };
        // What is given up is so before that is written, and what is to come only after.
        self.granted = self.granted.min(self.goal);
        let kept = self.goal.max(need.taken);
        let number = if reason == Reason::Leave { kept } else { self.number(kept, need) };
        if number == 0 && self.told.unwrap_or(0) == 0 && !self.is_unsure {
            // What is known of the others is old when this is used again.
            *self = Self { share_taken: self.share_taken, ..Self::default() };
            return None;
        }
        Some(self.written(kept, number))
    }

    fn written(&mut self, kept: i64, number: i64) -> Amount {
        self.least = self.least.min(kept);
        self.is_unsure = true;
        Amount::Total(number)
    }

    /// Learns what the store holds after a claim of `process`. Gives the claim that takes back what is too much, or
    /// takes what is free and waited for here.
    pub(super) fn answered(&mut self, process: NodeId, answer: &Answer, need: Need) -> Option<Amount> {
        let own = |claims: &Claims| claims.iter().find(|(id, _)| *id == process).map(|(_, number)| *number);
        let (before, after) = (own(&answer.before), own(&answer.after).unwrap_or(0));
        if self.told.is_some() && before.map_or(i64::MIN, kept) < self.least {
            self.peers.doubt(need.now);
        }
        (self.told, self.is_unsure) = (Some(after), false);
        let after = kept(after);
        self.learn(process, answer, need.now);
        self.heed_turns(need);
        let left = need.limit.saturating_sub(self.peers.sum()).max(0);
        // Of what the others turn out to want nothing is kept for later.
        let aim = if self.wanted > 0 { self.goal.min(self.aim(need)) } else { self.goal };
        let had = std::mem::replace(&mut self.granted, aim.min(left).min(after));
        if self.granted > had.max(self.fair(need)) {
            self.turns = (self.turns + 1) % ROUND;
        }
        self.goal = self.granted;
        let still = self.granted.max(need.taken);
        self.least = still.min(after);
        if still >= after {
            return self.second(need);
        }
        let number = self.number(still, need);
        Some(self.written(still, number))
    }

    /// Who waits and finds something free claims it at once, or another one would have it by then.
    fn second(&mut self, need: Need) -> Option<Amount> {
        let more = self.aim(need);
        if need.waiting == 0 || more <= self.mine(need) || std::mem::replace(&mut self.is_second, true) {
            return None;
        }
        self.goal = more;
        let number = self.number(more, need);
        Some(self.written(more, number))
    }

    /// The store is there: a share can be taken when it is lost again.
    pub(super) fn linked(&mut self) {
        self.share_taken = false;
    }

    fn learn(&mut self, process: NodeId, answer: &Answer, now: Timestamp) {
        let keeps: Claims = answer.after.iter().map(|(id, number)| (*id, kept(*number))).collect();
        self.peers.learn(process, &keeps, now);
        self.peers.bury(&answer.dead);
        let others = answer.after.iter().filter(|(id, _)| *id != process && !answer.dead.contains(id));
        self.wanted = others.clone().fold(0, |sum, (_, number)| (sum + wanted(*number)).min(MOST));
        let wanting = others.clone().filter(|(_, number)| wanted(*number) > 0);
        self.queue = wanting.map(|(_, number)| (kept(*number), turns(*number))).collect();
        let others = i64::try_from(others.filter(|(_, number)| *number > 0).count()).unwrap_or(MOST);
        self.contenders = others.saturating_add(1);
    }

    /// How many there should be here.
    fn aim(&self, need: Need) -> i64 {
        self.aim_of(self.mine(need), need)
    }

    /// As there, where there are so many.
    fn aim_of(&self, has: i64, need: Need) -> i64 {
        let left = need.limit.saturating_sub(self.peers.sum()).max(0);
        if self.wanted == 0 {
            let used = need.taken.max(need.peak).max(self.peak.0).saturating_add(need.waiting);
            return used.saturating_add(self.spare(used, need)).min(left);
        }
        let most = left.saturating_sub(self.wanted).max(self.due(has, need)).min(left);
        let used = need.taken.max(need.peak.min(self.fair(need)));
        used.saturating_add(need.waiting).min(most).max(0)
    }

    /// What may be had here while several want slots. What cannot be shared out evenly is had in turn: who has one of
    /// those gives it back.
    fn due(&self, mine: i64, need: Need) -> i64 {
        let fair = self.fair(need);
        let goes_round = need.limit % self.contenders.max(1) > 0;
        let has_turn = goes_round && mine <= fair && (self.is_next(need) || self.was_patient(need.now));
        fair.saturating_add(i64::from(has_turn))
    }

    /// Whether something would be free though all had some whose turn comes before ours.
    fn is_next(&self, need: Need) -> bool {
        let before = self.line(need).filter(|more| *more < 0).count();
        self.free(need) > i64::try_from(before).unwrap_or(MOST)
    }

    /// How many turns more than this process each of those has had that wait for theirs.
    fn line(&self, need: Need) -> impl Iterator<Item = i64> {
        let fair = self.fair(need);
        let more = |turns: i64| (turns - self.turns + ROUND / 2).rem_euclid(ROUND) - ROUND / 2;
        self.queue.iter().filter(move |(kept, _)| *kept <= fair).map(move |(_, turns)| more(*turns))
    }

    /// Whether something was left to others for so long that they seem not to come for it.
    fn was_patient(&self, now: Timestamp) -> bool {
        self.yields_since.is_some_and(|since| now.duration_since(since) >= COURTESY)
    }

    /// Who is new, or was away, is no more than one turn apart from those who wait.
    fn heed_turns(&mut self, need: Need) {
        let (least, most) = (self.line(need).min().unwrap_or(0), self.line(need).max().unwrap_or(0));
        self.turns = (self.turns + (least - 1).max(0) + (most + 1).min(0)).rem_euclid(ROUND);
        let yields = self.free(need) > 0 && !self.is_next(need);
        self.yields_since = if yields { self.yields_since.or(Some(need.now)) } else { None };
    }

    /// What nobody has.
    fn free(&self, need: Need) -> i64 {
        need.limit.saturating_sub(self.mine(need).saturating_add(self.peers.sum())).max(0)
    }

    fn fair(&self, need: Need) -> i64 {
        need.limit / self.contenders.max(1)
    }

    /// What is kept beside what is used, for those who come next.
    fn spare(&self, used: i64, need: Need) -> i64 {
        if used == 0 {
            return 0;
        }
        let rest = need.limit.saturating_sub(used.saturating_add(self.peers.sum())).max(0);
        rest / need.nodes.saturating_mul(PART).max(1)
    }

    fn mine(&self, need: Need) -> i64 {
        self.granted.max(need.taken)
    }

    /// What is written: how many are kept, how many turns were had, and how many more are wanted.
    fn number(&self, kept: i64, need: Need) -> i64 {
        let free = self.goal.saturating_sub(need.taken).max(0);
        let wants = need.waiting.saturating_add(self.refused.1).saturating_sub(free);
        let (kept, wants) = (kept.clamp(0, MOST), wants.clamp(0, MOST));
        // Who has nothing and wants nothing says nothing.
        if kept == 0 && wants == 0 { 0 } else { kept | self.turns << TURNS | wants << WANTED }
    }

    fn is_hungry(&self, need: Need) -> bool {
        need.waiting > 0 || self.refused.0 > 0 || need.now < self.hungry_until
    }

    fn remember_refusals(&mut self, now: Timestamp) {
        let new = std::mem::take(&mut self.refused.0);
        if new > 0 {
            self.refused.1 = new;
            self.hungry_until = now.saturating_add(HUNGER).unwrap_or(now);
        } else if now >= self.hungry_until {
            self.refused.1 = 0;
        }
    }
}

fn kept(number: i64) -> i64 {
    number & MOST
}

fn wanted(number: i64) -> i64 {
    (number >> WANTED).clamp(0, MOST)
}

fn turns(number: i64) -> i64 {
    number >> TURNS & (ROUND - 1)
}
