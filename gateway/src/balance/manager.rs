//! `LbModelManager`: picks a model's next target.
//!
//! Shares are met by a low-discrepancy sequence (multiples of the golden ratio), so closely within few picks, without a
//! lock and without a shared state beyond a counter. While nothing cools, a pick among any number of targets is one
//! binary search; else the usable ones are gathered first.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::health::Rules;
use super::{Availability, Held, Moment, Standing};
use crate::error::Cause;

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Of those that are usable when they are looked at, so many may be taken by others before this request gives up.
const MOST_LOST: u32 = 8;

/// When to come again where nobody here knows: a probe is under way, or a limit is used up.
const SOON: Duration = Duration::from_secs(1);

/// How a target is picked within a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In proportion to the weights.
    Weighted,
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest attempts in flight for its weight.
    LeastBusy,
    /// The faster of two that are drawn by weight.
    Latency,
    /// The cheapest; those of one price by weight, those without one last.
    Cost,
    /// The one with the most room left in its limits; with the same room by weight.
    Usage,
}

/// What a pick must know of one target.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Lower tiers are used up first.
    pub tier: u32,
    /// Within a tier, lower ranks are used up first: whose credential it is.
    pub rank: u32,
    /// Its share within its tier; 0: only when its tier has nothing else.
    pub weight: u64,
    /// What it costs beside others, in whatever unit all of a model's have.
    pub price: Option<u64>,
    /// How it stands.
    pub standing: Arc<Standing>,
}

/// Whose turn it is; one for each model, kept over reloads.
#[derive(Debug, Default)]
pub struct Rotation {
    turn: AtomicU64,
    /// A sequence of its own for picks whose first choice was not usable, so that shares are met among the rest too.
    spare: AtomicU64,
}

impl Rotation {
    fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn spare(&self) -> u64 {
        self.spare.fetch_add(1, Ordering::Relaxed)
    }
}

/// How a target came to be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the policy, or by nothing: no target was left.
    Turn,
    /// Related requests went there.
    Kept,
    /// All cool, and it is the soonest to be well.
    LeastIll,
}

/// The targets that one request has tried in this round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    places: Vec<usize>,
    /// Those that were picked and lost to another request before they were asked.
    lost: Vec<usize>,
    /// How the last pick was made, where it was no plain one.
    how: Option<How>,
}

impl Tried {
    /// Whether the candidate at this place was tried.
    #[must_use]
    pub fn has(&self, place: usize) -> bool {
        self.places.contains(&place) || self.lost.contains(&place)
    }

    /// The one that was picked last was lost to another request: it was not asked.
    pub fn lose(&mut self) {
        self.lost.extend(self.places.pop());
    }

    /// Those that were lost may be picked again.
    pub fn find_lost(&mut self) {
        self.lost.clear();
    }

    fn was_asked(&self, place: usize) -> bool {
        self.places.contains(&place)
    }

    /// The one that was tried last.
    #[must_use]
    pub fn last(&self) -> Option<usize> {
        self.places.last().copied()
    }

    /// How the picks since this was asked last were made: `None` for plain ones, that came upon no candidate that was
    /// not usable.
    pub fn strayed(&mut self) -> Option<How> {
        self.how.take()
    }

    fn add(&mut self, place: usize, how: How) {
        self.places.push(place);
        self.how = Some(how);
    }

    /// Begins a new round, in which each may be tried once more.
    pub fn forget(&mut self) {
        self.places.clear();
        self.lost.clear();
    }
}

/// Why no target is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpicked {
    /// Each was tried.
    Exhausted,
    /// None of those that are left may be used now.
    Unavailable {
        /// When the soonest may be.
        after: Duration,
        /// Whether any is left out because of a limit, and not of a failure.
        limited: bool,
    },
}

/// Picks targets for one model.
#[derive(Debug)]
pub struct LbModelManager {
    policy: Policy,
    candidates: Vec<Candidate>,
    /// The places of the candidates by their standings' marks.
    places: HashMap<u64, usize>,
    levels: Vec<Level>,
    rules: Arc<Rules>,
    rotation: Arc<Rotation>,
}

/// Candidates of which one is as good as another until one is picked by its share.
#[derive(Debug, Default)]
struct Level {
    members: Vec<Member>,
    shares: Shares,
}

/// A candidate, by its place in the list.
#[derive(Clone, Copy, Debug)]
struct Member {
    place: usize,
    share: u64,
    /// What one attempt in flight weighs there: the share's inverse.
    load: f64,
}

/// Places and where the share of each ends if all are laid end to end.
#[derive(Debug, Default)]
struct Shares(Vec<(usize, u64)>);

impl Shares {
    fn with_capacity(places: usize) -> Self {
        Self(Vec::with_capacity(places))
    }

    fn add(&mut self, place: usize, share: u64) {
        self.0.push((place, self.total().saturating_add(share)));
    }

    fn total(&self) -> u64 {
        self.0.last().map_or(0, |(_, end)| *end)
    }

    /// The place whose share holds this part, of 2^64, of the whole.
    fn at(&self, fraction: u64) -> Option<usize> {
        let point = scaled(fraction, self.total());
        let index = self.0.partition_point(|(_, end)| *end <= point);
        self.0.get(index).map(|(place, _)| *place)
    }
}

impl Level {
    fn add(&mut self, place: usize, share: u64) {
        self.members.push(Member { place, share, load: 1.0 / share as f64 });
        self.shares.add(place, share);
    }

    fn usable(&self, usable: impl Fn(usize) -> bool) -> Shares {
        let mut shares = Shares::with_capacity(self.members.len());
        let members = self.members.iter().filter(|member| usable(member.place));
        members.for_each(|member| shares.add(member.place, member.share));
        shares
    }

    /// The usable ones for which `key` is the smallest.
    fn smallest(&self, usable: impl Fn(usize) -> bool, key: impl Fn(Member) -> f64) -> Shares {
        let mut least = f64::INFINITY;
        let mut smallest = Shares::with_capacity(self.members.len());
        for member in &self.members {
            let key = key(*member);
            if key > least || !usable(member.place) {
                continue;
            }
            if key < least {
                least = key;
                smallest.0.clear();
            }
            smallest.add(member.place, member.share);
        }
        smallest
    }

    /// The first usable one from that index on, then from the beginning, and its index.
    fn next(&self, from: usize, usable: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
        let mut around = self.members.iter().enumerate().cycle().skip(from).take(self.members.len());
        around.find(|(_, member)| usable(member.place)).map(|(index, member)| (index, member.place))
    }
}

impl LbModelManager {
    /// Picks among `candidates`, which cool by `rules`.
    #[must_use]
    pub fn new(policy: Policy, candidates: Vec<Candidate>, rules: Arc<Rules>, rotation: Arc<Rotation>) -> Self {
        let mut levels: BTreeMap<_, Level> = BTreeMap::new();
        for (place, candidate) in candidates.iter().enumerate() {
            let price = (policy == Policy::Cost).then_some(candidate.price.unwrap_or(u64::MAX));
            let share = if policy == Policy::RoundRobin { 1 } else { candidate.weight.max(1) };
            levels.entry((candidate.tier, candidate.rank, candidate.weight == 0, price)).or_default().add(place, share);
        }
        let marks = candidates.iter().map(|candidate| candidate.standing.mark());
        let places = marks.zip(0..).collect();
        Self { policy, candidates, places, levels: levels.into_values().collect(), rules, rotation }
    }

    /// The same with other standings; where there is none, with the same.
    #[must_use]
    pub fn with_standings(&self, standing: impl Fn(usize) -> Option<Arc<Standing>>) -> Self {
        let candidate = |(place, candidate): (usize, &Candidate)| Candidate {
            standing: standing(place).unwrap_or_else(|| Arc::clone(&candidate.standing)),
            ..candidate.clone()
        };
        let candidates = self.candidates.iter().enumerate().map(candidate).collect();
        Self::new(self.policy, candidates, Arc::clone(&self.rules), Arc::clone(&self.rotation))
    }

    /// The candidates, in the order in which they were given.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Whose turn it is.
    #[must_use]
    pub fn rotation(&self) -> &Arc<Rotation> {
        &self.rotation
    }

    /// A hold on the next target, and its place in the list. `room` is what a candidate's own limits have left, from 0
    /// (nothing: it is left out) to 1; below 0 it is none of this request's candidates.
    ///
    /// # Errors
    /// Nothing is left to be picked.
    pub fn pick(&self, tried: &mut Tried, now: Moment, room: impl Fn(usize) -> f32) -> Result<(usize, Held), Unpicked> {
        let strayed = Cell::new(false);
        let picked = self.levels.iter().find_map(|level| self.pick_in(level, tried, &strayed, now, &room));
        tried.how = tried.how.or(strayed.get().then_some(How::Turn));
        let (place, held) = picked.ok_or_else(|| self.unpicked(tried, now, room))?;
        tried.places.push(place);
        Ok((place, held))
    }

    /// A hold on the one that is the soonest to be well, for when all cool: one that was not tried, and whose own
    /// limits have `room`.
    pub fn pick_least_ill(&self, tried: &mut Tried, now: Moment, room: impl Fn(usize) -> f32) -> Option<(usize, Held)> {
        let left = self.candidates.iter().enumerate().filter(|(place, _)| !tried.has(*place) && room(*place) > 0.0);
        let (place, candidate) =
            left.min_by_key(|(_, candidate)| (candidate.standing.wait(now).after, candidate.tier, candidate.rank))?;
        tried.add(place, How::LeastIll);
        Some((place, Held::force(&candidate.standing, &self.rules, now)))
    }

    fn pick_in(
        &self,
        level: &Level,
        tried: &Tried,
        strayed: &Cell<bool>,
        now: Moment,
        room: impl Fn(usize) -> f32,
    ) -> Option<(usize, Held)> {
        let usable = |place| {
            let is_usable = self.is_usable(place, tried, now) && room(place) > 0.0;
            if !is_usable {
                strayed.set(true);
            }
            is_usable
        };
        for _ in 0..MOST_LOST {
            let place = self.choose(level, now, usable, &room)?;
            if let Some(held) = self.hold(place, now) {
                return Some((place, held));
            }
        }
        None
    }

    /// A hold on the target with that mark, unless it may not be used now, or a better tier may.
    #[must_use]
    pub fn pick_marked(
        &self,
        mark: u64,
        tried: &mut Tried,
        now: Moment,
        room: impl Fn(usize) -> f32,
    ) -> Option<(usize, Held)> {
        let place = *self.places.get(&mark)?;
        let usable = |place| self.is_usable(place, tried, now) && room(place) > 0.0;
        let rank = |place: usize| self.candidates.get(place).map(|candidate| (candidate.tier, candidate.rank));
        let is_used = |level: &&Level| level.members.iter().any(|member| usable(member.place));
        let best = self.levels.iter().find(is_used)?.members.first()?;
        if !usable(place) || rank(place) != rank(best.place) {
            tried.how = Some(How::Turn);
            return None;
        }
        let held = self.hold(place, now)?;
        tried.add(place, How::Kept);
        Some((place, held))
    }

    fn hold(&self, place: usize, now: Moment) -> Option<Held> {
        Held::take(&self.candidates.get(place)?.standing, &self.rules, now)
    }

    fn is_usable(&self, place: usize, tried: &Tried, now: Moment) -> bool {
        let available = |candidate: &Candidate| {
            matches!(candidate.standing.availability(now), Availability::Ready | Availability::Probe)
        };
        !tried.has(place) && self.candidates.get(place).is_some_and(available)
    }

    fn choose(
        &self,
        level: &Level,
        now: Moment,
        usable: impl Fn(usize) -> bool,
        room: impl Fn(usize) -> f32,
    ) -> Option<usize> {
        match self.policy {
            Policy::Weighted | Policy::Cost => self.by_share(level, usable),
            Policy::RoundRobin => self.in_turn(level, usable),
            Policy::LeastBusy => {
                let busy = |member: Member| f64::from(self.in_flight(member.place)) * member.load;
                level.smallest(usable, busy).at(self.fraction())
            }
            Policy::Usage => level.smallest(usable, |member| -f64::from(room(member.place))).at(self.fraction()),
            Policy::Latency => self.faster_of_two(level, now, usable),
        }
    }

    fn by_share(&self, level: &Level, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let first = level.shares.at(self.fraction()).filter(|place| usable(*place));
        first.or_else(|| level.usable(usable).at(self.rotation.spare().wrapping_mul(GOLDEN)))
    }

    /// The next after the one that was picked last; so each usable one has the same share, however many are not.
    fn in_turn(&self, level: &Level, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let last = usize::try_from(self.rotation.turn.load(Ordering::Relaxed)).unwrap_or_default();
        let (index, place) = level.next(last % level.members.len().max(1), usable)?;
        self.rotation.turn.store(index as u64 + 1, Ordering::Relaxed);
        Some(place)
    }

    fn faster_of_two(&self, level: &Level, now: Moment, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let one = self.by_share(level, &usable)?;
        let Some(other) = self.by_share(level, |place| place != one && usable(place)) else {
            return Some(one);
        };
        let cost = |place: usize| self.candidates.get(place).map_or(f64::MAX, |it| it.standing.load.cost(now));
        Some(if cost(other) < cost(one) { other } else { one })
    }

    fn fraction(&self) -> u64 {
        self.rotation.turn().wrapping_mul(GOLDEN)
    }

    fn in_flight(&self, place: usize) -> u32 {
        self.candidates.get(place).map_or(u32::MAX, |candidate| candidate.standing.load.in_flight())
    }

    /// The part of the requests that goes to each candidate as things are, by weight and however it is picked: that of
    /// the first level that has a usable one. `may` says which may be used at all.
    #[must_use]
    pub fn shares(&self, now: Moment, may: impl Fn(usize) -> bool) -> Vec<f64> {
        let mut shares = vec![0.0; self.candidates.len()];
        let usable = |place| may(place) && self.is_usable(place, &Tried::default(), now);
        let is_used = |level: &&Level| level.members.iter().any(|member| usable(member.place));
        let Some(level) = self.levels.iter().find(is_used) else {
            return shares;
        };
        let used = || level.members.iter().filter(|member| usable(member.place));
        let total: f64 = used().map(|member| member.share as f64).sum();
        for member in used() {
            if let Some(share) = shares.get_mut(member.place) {
                *share = member.share as f64 / total;
            }
        }
        shares
    }

    fn unpicked(&self, tried: &Tried, now: Moment, room: impl Fn(usize) -> f32) -> Unpicked {
        let is_left = |place| !tried.has(place) && room(place) >= 0.0;
        let left = self.candidates.iter().enumerate().filter(|(place, _)| is_left(*place));
        let waits = left.map(|(_, candidate)| candidate.standing.wait(now));
        waits.reduce(Wait::with).map_or(Unpicked::Exhausted, |wait| Unpicked::Unavailable {
            after: if wait.after.is_zero() { SOON } else { wait.after },
            limited: wait.limited,
        })
    }

    /// The longest that a target is made to cool.
    #[must_use]
    pub fn longest_cooldown(&self) -> Duration {
        self.rules.longest
    }

    /// When the soonest of all targets that were not `tried` may be used, where its own limits have no room before what
    /// `room_in` says of it; `None`: that one may not be used at all.
    #[must_use]
    pub fn soonest_with_room(
        &self,
        tried: &Tried,
        now: Moment,
        room_in: impl Fn(usize) -> Option<Duration>,
    ) -> Option<Duration> {
        let left = self.candidates.iter().enumerate().filter(|(place, _)| !tried.has(*place));
        left.filter_map(|(place, candidate)| Some(room_in(place)?.max(candidate.standing.wait(now).after))).min()
    }

    /// The targets that `may` be used and were not asked in this round, the better ones first, and how long until each
    /// is well.
    #[must_use]
    pub fn left(&self, tried: &Tried, now: Moment, may: impl Fn(usize) -> bool) -> Vec<(usize, Duration)> {
        let places = self.levels.iter().flat_map(|level| &level.members).map(|member| member.place);
        let left = places.filter(|place| !tried.was_asked(*place) && may(*place));
        left.filter_map(|place| Some((place, self.candidates.get(place)?.standing.wait(now).after))).collect()
    }

    /// When the soonest of all targets that `may` be used may be, tried or not; `None` where one may be at once.
    #[must_use]
    pub fn soonest(&self, now: Moment, may: impl Fn(usize) -> bool) -> Option<Duration> {
        let candidates = self.candidates.iter().enumerate().filter(|(place, _)| may(*place));
        candidates.map(|(_, candidate)| candidate.standing.wait(now).after).min().filter(|after| !after.is_zero())
    }
}

/// How long until a target may be used.
#[derive(Clone, Copy, Debug)]
struct Wait {
    after: Duration,
    limited: bool,
}

impl Wait {
    fn with(self, other: Self) -> Self {
        Self { after: self.after.min(other.after), limited: self.limited || other.limited }
    }
}

impl Standing {
    /// One that may be used at once and is not was left out by a limit of its own.
    fn wait(&self, now: Moment) -> Wait {
        let is_limit = |cause| matches!(cause, Cause::RateLimit | Cause::Credit);
        let causes = [self.health.cooldown(), self.credential().health.cooldown()];
        let cooled = causes.into_iter().flatten().any(|cooldown| is_limit(cooldown.cause));
        match self.availability(now) {
            Availability::Cooling(until) => Wait { after: until.since(now), limited: cooled },
            Availability::Probing => Wait { after: SOON, limited: cooled },
            Availability::Ready | Availability::Probe => Wait { after: Duration::ZERO, limited: true },
        }
    }
}

/// `fraction` / 2^64 of `total`.
fn scaled(fraction: u64, total: u64) -> u64 {
    u64::try_from((u128::from(fraction) * u128::from(total)) >> 64).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;
    use crate::balance::{Failure, Outcome, Registry};

    const PICKS: u32 = 10_000;

    fn rules() -> Arc<Rules> {
        let span = Duration::from_secs(10);
        let rules = Rules {
            min_samples: 5,
            error_rate: 5_000,
            rate_limit: span,
            auth: span,
            connection: span,
            server: span,
            longest: span * 60,
        };
        Arc::new(rules)
    }

    /// Targets with these tiers and weights, each with a credential of its own.
    fn of(policy: Policy, shares: &[(u32, u64)]) -> LbModelManager {
        let registry = Registry::default();
        let standing = |place: usize| registry.standing(&registry.credential(&place.to_string(), ""), "m");
        let candidates = shares.iter().enumerate().map(|(place, &(tier, weight))| Candidate {
            tier,
            rank: 0,
            weight,
            price: None,
            standing: standing(place),
        });
        LbModelManager::new(policy, candidates.collect(), rules(), Arc::default())
    }

    fn weighing(policy: Policy, weights: &[u64]) -> LbModelManager {
        of(policy, &weights.iter().map(|weight| (0, *weight)).collect::<Vec<_>>())
    }

    fn picked(manager: &LbModelManager, now: Moment) -> Option<usize> {
        manager.pick(&mut Tried::default(), now, |_| 1.0).ok().map(|(place, _)| place)
    }

    fn counts(manager: &LbModelManager, now: Moment) -> Vec<u32> {
        let mut counts = vec![0; manager.candidates.len()];
        for _ in 0..PICKS {
            if let Some(count) = picked(manager, now).and_then(|place| counts.get_mut(place)) {
                *count += 1;
            }
        }
        counts
    }

    fn cool(manager: &LbModelManager, place: usize, cause: Cause, now: Moment) {
        let held = manager.hold(place, now).unwrap();
        held.record(Outcome::Failure(Failure { cause, retry_after: None }), now).unwrap();
    }

    fn assert_shares(counts: &[u32], weights: &[u64]) {
        let total: u64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let want = f64::from(PICKS) * *weight as f64 / total as f64;
            assert!((f64::from(*count) - want).abs() <= 3.0 + want * 0.03, "{weights:?}: {counts:?}");
        }
    }

    #[test]
    fn weights_are_met_within_three_percent_over_ten_thousand_picks() {
        for weights in [vec![1, 1], vec![9, 1], vec![3, 5, 7, 11], vec![1; 100], vec![1000, 1, 1]] {
            assert_shares(&counts(&weighing(Policy::Weighted, &weights), Moment::now()), &weights);
            assert_shares(&counts(&weighing(Policy::Usage, &weights), Moment::now()), &weights);
        }
    }

    #[test]
    fn weights_are_met_among_the_others_while_some_cool() {
        let now = Moment::now();
        for (weights, cooling) in [
            (vec![3, 5, 7, 11], vec![3]),
            (vec![9, 1, 4], vec![0]),
            (vec![1; 50], (0..50).step_by(2).collect()),
            (vec![8, 1, 1, 1, 1], vec![0, 1]),
        ] {
            for policy in [Policy::Weighted, Policy::RoundRobin] {
                let manager = weighing(policy, &weights);
                cooling.iter().for_each(|place| cool(&manager, *place, Cause::RateLimit, now));
                let left = |place: usize, weight: u64| if cooling.contains(&place) { 0 } else { weight };
                let share = |weight: u64| if policy == Policy::RoundRobin { 1 } else { weight };
                let shares: Vec<u64> =
                    weights.iter().enumerate().map(|(place, weight)| left(place, share(*weight))).collect();
                assert_shares(&counts(&manager, now), &shares);
            }
        }
    }

    #[test]
    fn round_robin_takes_each_in_turn() {
        let manager = of(Policy::RoundRobin, &[(0, 5), (0, 1), (0, 0), (0, 2)]);
        let places: Vec<_> = (0..6).map(|_| picked(&manager, Moment::now()).unwrap()).collect();
        assert_eq!(places, [0, 1, 3, 0, 1, 3]);
    }

    #[test]
    fn a_higher_tier_or_a_weight_of_0_is_used_only_when_nothing_else_is_left() {
        let manager = of(Policy::Weighted, &[(1, 9), (0, 1), (0, 0)]);
        let mut tried = Tried::default();
        let mut order = Vec::new();
        while let Ok((place, _)) = manager.pick(&mut tried, Moment::now(), |_| 1.0) {
            order.push(place);
        }
        assert_eq!(order, [1, 2, 0]);
        assert_eq!(manager.pick(&mut tried, Moment::now(), |_| 1.0).unwrap_err(), Unpicked::Exhausted);
        tried.forget();
        assert_eq!(manager.pick(&mut tried, Moment::now(), |_| 1.0).unwrap().0, 1);
    }

    #[test]
    fn the_least_busy_has_the_fewest_in_flight_for_its_weight() {
        let manager = weighing(Policy::LeastBusy, &[3, 1, 2]);
        let now = Moment::now();
        let held: Vec<_> = (0..600).map(|_| manager.pick(&mut Tried::default(), now, |_| 1.0).unwrap()).collect();
        let in_flight: Vec<u32> = (0..3).map(|place| manager.in_flight(place)).collect();
        assert_eq!(in_flight, [300, 100, 200]);
        drop(held);
        assert_eq!(manager.in_flight(0), 0);
        assert_shares(&counts(&manager, now), &[3, 1, 2]);
    }

    #[test]
    fn the_faster_target_gets_nearly_all_and_the_slow_one_is_asked_again_some_day() {
        let manager = weighing(Policy::Latency, &[1, 1]);
        let mut now = Moment::now();
        for (place, millis) in [(0, 100), (1, 2_000)] {
            let held = manager.hold(place, now).unwrap();
            held.answers(now.plus(Duration::from_millis(millis)));
        }
        now = now.plus(Duration::from_secs(2));
        assert_eq!(counts(&manager, now), [PICKS, 0]);
        let fast = manager.hold(0, now).unwrap();
        now = now.plus(Duration::from_secs(300));
        fast.answers(now);
        assert_eq!(picked(&manager, now), Some(1));
    }

    #[test]
    fn the_cheapest_is_used_while_it_can_be_and_an_unknown_price_is_the_dearest() {
        let mut candidates = weighing(Policy::Cost, &[1, 5, 5, 9]).candidates;
        for (candidate, price) in candidates.iter_mut().zip([None, Some(20), Some(10), Some(20)]) {
            candidate.price = price;
        }
        let manager = LbModelManager::new(Policy::Cost, candidates, rules(), Arc::default());
        let now = Moment::now();
        assert_eq!(counts(&manager, now), [0, 0, PICKS, 0]);
        cool(&manager, 2, Cause::Auth, now);
        assert_shares(&counts(&manager, now), &[0, 5, 0, 9]);
        cool(&manager, 1, Cause::Auth, now);
        cool(&manager, 3, Cause::Auth, now);
        assert_eq!(picked(&manager, now), Some(0));
    }

    #[test]
    fn the_one_with_the_most_room_is_used_and_one_without_room_never() {
        let rooms = [0.2, 0.9, 0.0, 0.5];
        for policy in [Policy::Usage, Policy::Weighted, Policy::RoundRobin, Policy::Latency, Policy::LeastBusy] {
            let manager = weighing(policy, &[1; 4]);
            let mut tried = Tried::default();
            let room = |place: usize| rooms.get(place).copied().unwrap_or_default();
            let mut order = Vec::new();
            while let Ok((place, _)) = manager.pick(&mut tried, Moment::now(), room) {
                order.push(place);
            }
            if policy != Policy::Usage {
                order.sort_unstable();
            }
            assert_eq!(order, if policy == Policy::Usage { [1, 3, 0] } else { [0, 1, 3] }, "{policy:?}");
            let unpicked = manager.pick(&mut tried, Moment::now(), room).unwrap_err();
            assert!(matches!(unpicked, Unpicked::Unavailable { limited: true, .. }));
        }
    }

    #[test]
    fn while_all_cool_the_soonest_is_told_and_whether_it_is_for_a_limit() {
        for (cause, limited) in [(Cause::RateLimit, true), (Cause::Connection, false), (Cause::Auth, false)] {
            let manager = weighing(Policy::Weighted, &[1, 1]);
            let now = Moment::now();
            cool(&manager, 0, cause, now);
            let later = now.plus(Duration::from_secs(4));
            cool(&manager, 1, cause, later);
            let unpicked = manager.pick(&mut Tried::default(), later, |_| 1.0).unwrap_err();
            assert_eq!(unpicked, Unpicked::Unavailable { after: Duration::from_secs(6), limited });
            assert_eq!(manager.soonest(later, |_| true), Some(Duration::from_secs(6)));
            assert_eq!(manager.soonest(later, |place| place == 1), Some(Duration::from_secs(10)));
        }
    }

    #[test]
    fn what_is_none_of_a_requests_candidates_says_nothing_of_when_to_come_again() {
        let manager = weighing(Policy::Weighted, &[1, 1]);
        let now = Moment::now();
        cool(&manager, 0, Cause::RateLimit, now);
        let only = |mine: usize| move |place: usize| if place == mine { 1.0 } else { -1.0 };
        let unpicked = manager.pick(&mut Tried::default(), now, only(0)).unwrap_err();
        assert_eq!(unpicked, Unpicked::Unavailable { after: Duration::from_secs(10), limited: true });
        let mut tried = Tried::default();
        assert_eq!(manager.pick(&mut tried, now, only(1)).unwrap().0, 1);
        assert_eq!(manager.pick(&mut tried, now, only(1)).unwrap_err(), Unpicked::Exhausted);
    }

    #[test]
    fn the_least_ill_are_tried_each_once_the_soonest_to_be_well_first_and_a_success_makes_them_well() {
        let manager = of(Policy::Weighted, &[(0, 1), (0, 1), (1, 1), (0, 1)]);
        let now = Moment::now();
        for (place, seconds) in [(0, 4), (1, 2), (2, 0), (3, 1)] {
            cool(&manager, place, Cause::RateLimit, now.plus(Duration::from_secs(seconds)));
        }
        let now = now.plus(Duration::from_secs(5));
        let mut tried = Tried::default();
        let room = |place: usize| if place == 3 { 0.0 } else { 1.0 };
        let mut order = Vec::new();
        while let Some((place, held)) = manager.pick_least_ill(&mut tried, now, room) {
            assert_eq!(tried.strayed(), Some(How::LeastIll));
            held.record(Outcome::Success, now);
            order.push(place);
        }
        assert_eq!(order, [2, 1, 0]);
        assert_eq!(picked(&manager, now), Some(0));
    }

    #[test]
    fn after_a_cooldown_one_request_probes_and_the_others_go_elsewhere() {
        let manager = weighing(Policy::Weighted, &[1000, 1]);
        let now = Moment::now();
        cool(&manager, 0, Cause::Connection, now);
        let later = now.plus(Duration::from_secs(10));
        let (place, probe) = manager.pick(&mut Tried::default(), later, |_| 1.0).unwrap();
        assert_eq!(place, 0);
        assert_eq!(counts(&manager, later), [0, PICKS]);
        probe.record(Outcome::Success, later);
        drop(probe);
        assert_shares(&counts(&manager, later), &[1000, 1]);
    }

    #[test]
    fn a_marked_target_is_picked_unless_it_cools_was_tried_or_a_better_tier_can_be_used() {
        let manager = of(Policy::Weighted, &[(0, 1), (0, 1), (1, 1)]);
        let now = Moment::now();
        let marks: Vec<_> = manager.candidates.iter().map(|candidate| candidate.standing.mark()).collect();
        let marked = |place: usize, tried: &mut Tried| {
            manager.pick_marked(*marks.get(place).unwrap(), tried, now, |_| 1.0).map(|(place, _)| place)
        };
        let mut tried = Tried::default();
        assert_eq!((marked(1, &mut tried), marked(1, &mut tried)), (Some(1), None));
        assert_eq!(marked(2, &mut Tried::default()), None);
        cool(&manager, 1, Cause::RateLimit, now);
        assert_eq!(marked(1, &mut Tried::default()), None);
        cool(&manager, 0, Cause::RateLimit, now);
        assert_eq!(marked(2, &mut Tried::default()), Some(2));
        assert!(manager.pick_marked(0, &mut Tried::default(), now, |_| 1.0).is_none());
    }

    #[test]
    fn a_hold_that_is_dropped_without_a_word_leaves_the_target_as_it_was() {
        let manager = weighing(Policy::Weighted, &[1]);
        let now = Moment::now();
        for _ in 0..100 {
            drop(manager.pick(&mut Tried::default(), now, |_| 1.0).unwrap());
            manager.hold(0, now).unwrap().record(Outcome::Nothing, now);
        }
        assert_eq!((manager.in_flight(0), manager.soonest(now, |_| true)), (0, None));
    }

    fn policies() -> impl Strategy<Value = Policy> {
        use Policy::{Cost, Latency, LeastBusy, RoundRobin, Usage, Weighted};
        proptest::sample::select(vec![Weighted, RoundRobin, LeastBusy, Latency, Cost, Usage])
    }

    proptest! {
        #[test]
        fn each_target_is_tried_once_a_round_lower_tiers_first_and_a_cooling_one_never(
            policy in policies(),
            shares in proptest::collection::vec((0_u32..3, 0_u64..4), 1..40),
            cooling in proptest::collection::hash_set(0_usize..40, 0..10),
        ) {
            let manager = of(policy, &shares);
            let now = Moment::now();
            let cooling: Vec<_> = cooling.into_iter().filter(|place| *place < shares.len()).collect();
            cooling.iter().for_each(|place| cool(&manager, *place, Cause::Auth, now));
            let mut tried = Tried::default();
            let mut order = Vec::new();
            while let Ok((place, _)) = manager.pick(&mut tried, now, |_| 1.0) {
                order.push(place);
            }
            let mut want: Vec<_> = (0..shares.len()).filter(|place| !cooling.contains(place)).collect();
            let level = |place: usize| shares.get(place).map(|(tier, weight)| (*tier, *weight == 0));
            prop_assert!(order.is_sorted_by_key(|place| level(*place)));
            order.sort_unstable();
            want.sort_unstable();
            prop_assert_eq!(order, want);
        }
    }
}
