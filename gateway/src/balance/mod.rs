//! Which target is next. Pure: weights, what was tried and a turn's number in, a place in the list out.
//!
//! Weighted picks follow a low-discrepancy sequence (multiples of the golden ratio), so that weights are met closely
//! within few picks, without a lock and without a shared state beyond one counter.

use std::sync::atomic::{AtomicU64, Ordering};

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// How a target is picked within a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In proportion to the weights.
    Weighted,
    /// Each in turn.
    RoundRobin,
}

/// What a pick must know of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Lower tiers are used up first.
    pub tier: u32,
    /// Its share within its tier.
    pub weight: u64,
}

/// Whose turn it is; one for each model, kept over reloads.
#[derive(Debug, Default)]
pub struct Rotation(AtomicU64);

impl Rotation {
    /// This request's turn.
    pub fn turn(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The place of the candidate to try in this `turn`, of those that `left` still allows. The lowest tier that has one
/// comes first; a weight of 0 is used only when its tier has nothing else.
#[must_use]
pub fn pick(policy: Policy, candidates: &[Candidate], turn: u64, left: impl Fn(usize) -> bool) -> Option<usize> {
    let usable = || candidates.iter().enumerate().filter(|(place, _)| left(*place));
    let tier = usable().map(|(_, candidate)| candidate.tier).min()?;
    let in_tier = || usable().filter(move |(_, candidate)| candidate.tier == tier);
    let weighs = in_tier().any(|(_, candidate)| candidate.weight > 0);
    let share = |candidate: &Candidate| match (policy, weighs) {
        (Policy::Weighted, true) => candidate.weight,
        (Policy::RoundRobin, true) => u64::from(candidate.weight > 0),
        (_, false) => 1,
    };
    let total = in_tier().fold(0_u64, |sum, (_, candidate)| sum.saturating_add(share(candidate)));
    let mut point = match policy {
        Policy::Weighted => scaled(turn.wrapping_mul(GOLDEN), total),
        Policy::RoundRobin => turn % total,
    };
    for (place, candidate) in in_tier() {
        let share = share(candidate);
        if point < share {
            return Some(place);
        }
        point -= share;
    }
    None
}

/// `fraction` / 2^64 of `total`.
fn scaled(fraction: u64, total: u64) -> u64 {
    u64::try_from((u128::from(fraction) * u128::from(total)) >> 64).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(policy: Policy, candidates: &[Candidate], turns: u64) -> Vec<u64> {
        let mut counts = vec![0; candidates.len()];
        for turn in 0..turns {
            if let Some(count) = pick(policy, candidates, turn, |_| true).and_then(|place| counts.get_mut(place)) {
                *count += 1;
            }
        }
        counts
    }

    fn of(shares: &[(u32, u64)]) -> Vec<Candidate> {
        shares.iter().map(|&(tier, weight)| Candidate { tier, weight }).collect()
    }

    #[test]
    fn weights_are_met_within_three_percent_over_ten_thousand_picks() {
        for weights in [vec![1, 1], vec![9, 1], vec![3, 5, 7, 11], vec![1; 100], vec![1000, 1, 1]] {
            let candidates = of(&weights.iter().map(|w| (0, *w)).collect::<Vec<_>>());
            let total: u64 = weights.iter().sum();
            for (count, weight) in counts(Policy::Weighted, &candidates, 10_000).iter().zip(&weights) {
                let want = 10_000.0 * *weight as f64 / total as f64;
                assert!((*count as f64 - want).abs() <= 3.0 + want * 0.03, "{weights:?}: {count} for {want}");
            }
        }
    }

    #[test]
    fn round_robin_takes_each_in_turn() {
        let candidates = of(&[(0, 5), (0, 1), (0, 0), (0, 2)]);
        let places: Vec<_> = (0..6).map(|turn| pick(Policy::RoundRobin, &candidates, turn, |_| true)).collect();
        assert_eq!(places, [Some(0), Some(1), Some(3), Some(0), Some(1), Some(3)]);
    }

    #[test]
    fn a_higher_tier_is_used_only_when_the_lower_is_used_up() {
        let candidates = of(&[(1, 9), (0, 1), (0, 0)]);
        assert_eq!(counts(Policy::Weighted, &candidates, 100), [0, 100, 0]);
        assert_eq!(pick(Policy::Weighted, &candidates, 7, |place| place != 1), Some(2));
        assert_eq!(pick(Policy::Weighted, &candidates, 7, |place| place == 0), Some(0));
        assert_eq!(pick(Policy::Weighted, &candidates, 7, |_| false), None);
    }
}
