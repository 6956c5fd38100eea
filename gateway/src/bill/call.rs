//! One call as a quota counts it, and what it is cut to, so that one has enough left.

use adapters::{Operation, Request};
use jiff::Timestamp;

use super::hold::amount;
use super::worst::{LEAST_OUTPUT, USUAL_OUTPUT, part_of};
use crate::budget::{Cause, Left, QuotaReservation, Quotas};

/// A call that is to be held in a quota.
pub(super) struct Call<'r> {
    pub(super) quotas: &'r Quotas,
    /// The provider's name of it.
    pub(super) model: &'r str,
    pub(super) request: &'r Request,
    pub(super) input: u64,
    /// The most of all answers together.
    pub(super) output: u64,
}

impl Call<'_> {
    /// Holds it, one that names no limit of its answer with a part of what is left of tokens; where none has enough for
    /// that, with as much of it as one has. Gives to how many tokens each answer is cut then.
    ///
    /// # Errors
    /// No quota has enough left even for that.
    pub(super) async fn hold(&self) -> Result<(Option<u64>, QuotaReservation), Cause> {
        let now = Timestamp::now();
        let part = self.part(self.quotas.tokens_left(self.model, now));
        match (self.cut_to(part, now).await, self.rest(self.quotas.tokens_left(self.model, now).all)) {
            (Err(cause), Some(rest)) if cause != Cause::NoStore => self.cut_to(Some(rest), now).await,
            (held, _) => held,
        }
    }

    async fn cut_to(&self, each: Option<u64>, now: Timestamp) -> Result<(Option<u64>, QuotaReservation), Cause> {
        let held = self.quotas.reserve(self.model, self.tokens(each), now).await?;
        Ok((each.filter(|_| held.is_of_tokens()), held))
    }

    /// All of its tokens where each answer is cut to so many.
    fn tokens(&self, each: Option<u64>) -> i64 {
        let output = each.map_or(self.output, |each| each.saturating_mul(self.request.choices()));
        amount(self.input.saturating_add(output))
    }

    /// How many each answer may have of so many in all.
    fn each(&self, all: i64) -> u64 {
        u64::try_from(all).unwrap_or_default().saturating_sub(self.input) / self.request.choices()
    }

    /// To how many each answer is cut that names no limit.
    fn part(&self, left: Left) -> Option<u64> {
        let each = self.each(part_of(left, self.tokens(Some(USUAL_OUTPUT)))).max(LEAST_OUTPUT);
        let is_less = each.saturating_mul(self.request.choices()) < self.output;
        (is_less && self.request.output_limit().is_none()).then_some(each)
    }

    /// How many each answer may have of the rest, if it is of use.
    fn rest(&self, left: i64) -> Option<u64> {
        let each = self.each(left);
        (self.request.operation() != Operation::Embeddings && each >= LEAST_OUTPUT).then_some(each)
    }
}
