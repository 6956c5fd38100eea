//! What the other nodes claim of what several share.

use jiff::Timestamp;

use crate::budget::lease::{Claims, DOUBT, NodeId};

/// What the other nodes claim, as far as the store can be believed.
#[derive(Debug, Default)]
pub struct Peers {
    claims: Claims,
    /// What nodes claimed that the store does not know any more and that have not told it anew.
    lost: Claims,
    /// When the store was seen to have lost what it held, or may have.
    lost_at: Option<Timestamp>,
}

impl Peers {
    /// What all of them claim.
    #[must_use]
    pub fn sum(&self) -> i64 {
        self.each().fold(0, |sum, (_, claim)| sum.saturating_add(claim))
    }

    /// Each with its claim.
    pub fn each(&self) -> impl Iterator<Item = (NodeId, i64)> {
        self.claims.iter().chain(&self.lost).copied()
    }

    /// The store may have lost what it held.
    pub fn doubt(&mut self, now: Timestamp) {
        self.lost_at = Some(now);
    }

    /// Whether it may have lost it so lately that nobody believes that a claim has fallen.
    #[must_use]
    pub fn is_doubted(&self, now: Timestamp) -> bool {
        self.lost_at.is_some_and(|at| now.duration_since(at) < DOUBT)
    }

    /// Takes over what the store says of nodes other than `node`. Claims are never removed while they hold: one that is
    /// not there was lost by the store, and is remembered until its node tells it anew.
    pub fn learn(&mut self, node: NodeId, claims: &Claims, now: Timestamp) {
        let mut others: Claims = claims.iter().copied().filter(|(id, _)| *id != node).collect();
        let is_told = |id: NodeId, others: &Claims| others.iter().any(|(other, _)| *other == id);
        let lost = self.claims.iter().filter(|(id, _)| !is_told(*id, &others));
        let before = self.lost.len();
        self.lost.extend(lost);
        if self.lost.len() > before {
            self.doubt(now);
        }
        if self.is_doubted(now) {
            for (id, known) in self.claims.iter().chain(&self.lost) {
                if let Some((_, claim)) = others.iter_mut().find(|(other, _)| other == id) {
                    *claim = (*claim).max(*known);
                }
            }
        }
        self.lost.retain(|(id, _)| !is_told(*id, &others));
        self.claims = others;
    }

    /// What dead nodes claimed is free.
    pub fn bury(&mut self, dead: &[NodeId]) {
        self.claims.retain(|(id, _)| !dead.contains(id));
        self.lost.retain(|(id, _)| !dead.contains(id));
    }
}
