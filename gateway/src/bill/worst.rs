//! The worst that a request can be, and what it is cut to, so that it can be paid.

use std::borrow::Cow;

use adapters::{Operation, Request, ServiceTier, Usage};

use crate::budget::Left;
use crate::error::Fault;
use crate::price::{Nanos, Price};

/// A budget that pays for fewer tokens than this is spent: an answer cut so short helps nobody.
pub(super) const LEAST_OUTPUT: u64 = 16;

/// A request that names no limit of its answer holds this part of what its gateway could have of the rest: one that
/// held all of it would have every other refused while it runs, though it may come to a hundred tokens.
const PART: Nanos = 4;

/// But as much as so many tokens of each answer cost, where there is so much: a whole answer, of most that are asked
/// for.
pub(super) const USUAL_OUTPUT: u64 = 4_096;

/// What a request that names no limit of its answer may hold of what is `left`, where `usual` is as much as a whole
/// answer is.
pub(super) fn part_of(left: Left, usual: i64) -> i64 {
    usual.max(left.share / PART).min(left.all)
}

/// What a request is cut to, so that it can be paid.
pub struct Payable<'r> {
    /// The request, with a lower limit of its answer where the budget needs that.
    pub request: Cow<'r, Request>,
    /// That limit.
    pub limited_to: Option<u64>,
}

impl<'r> Payable<'r> {
    /// With at most so many tokens in each of its answers, where that was said.
    pub(super) fn cut(request: &'r Request, limited_to: Option<u64>) -> Result<Self, Fault> {
        let cut = limited_to.map(|each| request.limited_to(each)).transpose()?;
        Ok(Self { request: cut.map_or(Cow::Borrowed(request), Cow::Owned), limited_to })
    }

    /// The most tokens that all of its answers may have together, where that was said.
    pub(super) fn most_output(&self) -> Option<u64> {
        match self.request.operation() {
            Operation::Embeddings => Some(0),
            Operation::Chat | Operation::Completions => {
                let cut = self.limited_to.map(|each| each.saturating_mul(self.request.choices()));
                cut.or_else(|| self.request.output_limit())
            }
        }
    }
}

/// The worst that a request can be.
pub(super) struct Worst {
    /// All of it but the output.
    pub(super) usage: Usage,
    /// How it may be served.
    pub(super) tiers: &'static [ServiceTier],
}

impl Worst {
    /// What it costs with so many tokens of an answer; `None` where that cannot be known.
    pub(super) fn cost(&self, price: &Price, output_tokens: u64) -> Option<Nanos> {
        price.bound(&Usage { output_tokens, ..self.usage }, self.tiers)
    }

    /// To how many tokens each answer is cut where `left` is all that there is and the `whole` would cost that much, if
    /// to any; and what is to be held then. Where too little is left, that is the least that is of use: others may give
    /// it back.
    pub(super) fn fit(&self, price: &Price, whole: Nanos, left: Left, request: &Request) -> (Option<u64>, Nanos) {
        let most = self.most(price, left, request);
        let cut = if whole <= most { None } else { self.cut(price, most, request) };
        let held = cut.and_then(|each| self.cost(price, each.saturating_mul(request.choices())));
        (cut, held.unwrap_or(whole))
    }

    /// The most that a request may hold of what is left.
    fn most(&self, price: &Price, left: Left, request: &Request) -> Nanos {
        if request.output_limit().is_some() {
            return left.all;
        }
        let usual = self.cost(price, USUAL_OUTPUT.saturating_mul(request.choices()));
        usual.map_or(left.all, |usual| part_of(left, usual))
    }

    /// How many tokens each answer may have for what is left, and no fewer than are of use; `None` where the answer's
    /// length changes nothing.
    fn cut(&self, price: &Price, left: Nanos, request: &Request) -> Option<u64> {
        match request.operation() {
            Operation::Embeddings => None,
            Operation::Chat | Operation::Completions => {
                let all = price.affordable_output(left, &self.usage, self.tiers)?;
                let each = (all / request.choices()).max(LEAST_OUTPUT);
                let is_less = |asked: u64| each.saturating_mul(request.choices()) < asked;
                request.output_limit().is_none_or(is_less).then_some(each)
            }
        }
    }
}
