//! What an attempt used.

use adapters::Usage;

use crate::ledger::Accuracy;
use crate::price::Nanos;

/// What an attempt used, and what that costs at its own price, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// What it used.
    pub usage: Usage,
    /// How far that is to be relied on.
    pub accuracy: Accuracy,
    /// What it costs.
    pub cost: Option<Nanos>,
}

impl Spent {
    /// This and another one together, as far as to be relied on as the less reliable of the two; costs that are not
    /// known are left out.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let cost = match (self.cost, other.cost) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self { usage: self.usage.and(&other.usage), accuracy: self.accuracy.max(other.accuracy), cost }
    }
}
