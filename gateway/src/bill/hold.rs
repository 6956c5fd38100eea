//! What is held for an attempt while it runs, and what one is charged that did not answer.

use std::time::Instant;

use super::spent::Spent;
use crate::budget::{self, QuotaReservation, Reservations};
use crate::limit;
use crate::price::Nanos;

/// What is held for one attempt. Dropped, all of it is given back.
#[derive(Debug, Default)]
pub(super) struct Hold {
    pub(super) reservations: Option<Reservations>,
    pub(super) quota: Option<QuotaReservation>,
    pub(super) credential: Option<(limit::Permit, limit::Charge)>,
    /// The most tokens that the attempt is allowed to answer with, where its caller or its budget says.
    pub(super) most_output: Option<u64>,
}

/// What an attempt that did not answer is charged when the request has ended.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub(super) reservations: Option<(Reservations, Nanos)>,
    pub(super) quota: Option<(QuotaReservation, i64)>,
}

impl Hold {
    /// What is charged if the attempt ends now, having used so much.
    pub(super) fn due(&self, spent: &Spent) -> impl Iterator<Item = (&str, i64, i64)> + use<'_> {
        let money = self.reservations.as_ref().zip(spent.cost).map(|(held, cost)| held.due(cost));
        let quota = self.quota.as_ref().and_then(|held| held.due(amount(spent.usage.total_tokens())));
        money.into_iter().flatten().chain(quota)
    }

    /// The attempt is over: its slot is free, and no more stays held than what it is to be charged.
    pub(super) fn given_up(mut self, spent: &Spent) -> GivenUp {
        let tokens = amount(spent.usage.total_tokens());
        self.leave_credential(tokens);
        let reservations = self.reservations.take().zip(spent.cost).map(|(mut held, cost)| {
            held.shrink(cost);
            (held, cost)
        });
        GivenUp { reservations, quota: self.quota.take().map(|held| (held, tokens)) }
    }

    /// The credential is free for others, and has been used so much.
    pub(super) fn leave_credential(&mut self, tokens: i64) {
        if let Some((_permit, charge)) = self.credential.take() {
            charge.settle(tokens, Instant::now());
        }
    }
}

impl Drop for Hold {
    /// What was not charged cost nothing, the credential's tokens too: an estimate that stayed there would be
    /// everybody's.
    fn drop(&mut self) {
        self.leave_credential(0);
    }
}

impl GivenUp {
    /// What is charged if the request ends now.
    pub(super) fn due(&self) -> impl Iterator<Item = (&str, i64, i64)> {
        let money = self.reservations.as_ref().map(|(held, cost)| held.due(*cost));
        let quota = self.quota.as_ref().and_then(|(held, tokens)| held.due(*tokens));
        money.into_iter().flatten().chain(quota)
    }

    pub(super) fn settle(self, priced: bool) -> impl Iterator<Item = budget::Charge> {
        let money = self.reservations.filter(|_| priced).map(|(held, cost)| held.settle(cost));
        let quota = self.quota.and_then(|(held, tokens)| held.settle(tokens));
        money.into_iter().flatten().chain(quota)
    }
}

pub(super) fn amount(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
