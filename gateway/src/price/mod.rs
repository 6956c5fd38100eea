//! What a request costs, in nano-dollars. Pure: prices and counts in, an amount out, rounded once at the end. A cost that
//! cannot be known, because a price is missing, is none, and never 0.

mod catalog;

use adapters::Usage;

use crate::config::{Expiry, Money, PriceTier, Pricing, Rounding};

pub use catalog::{Catalog, Entry};

/// Money in nano-dollars.
pub type Nanos = i64;

/// A ten millionth of a dollar: what `dify` rounds each part to.
const DIFY_STEP: u128 = 100;

/// The prices of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    base: Rates,
    tiers: Vec<(u64, Rates)>,
    per_request: Option<u64>,
    per: u64,
    rounding: Rounding,
}

/// What `per` tokens of each kind cost, in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rates {
    input: Option<u64>,
    cached_input: Option<u64>,
    cache_write: Option<u64>,
    cache_write_1h: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
}

impl From<&Pricing> for Price {
    fn from(written: &Pricing) -> Self {
        let nanos = |money: Option<Money>| money.map(Money::nanos);
        let base = Rates {
            input: nanos(written.input),
            cached_input: nanos(written.cached_input),
            cache_write: nanos(written.cache_write),
            cache_write_1h: nanos(written.cache_write_1h),
            output: nanos(written.output),
            reasoning: nanos(written.reasoning),
        };
        let mut tiers: Vec<_> = written.tiers.iter().map(|tier| (tier.above.get(), base.over(tier))).collect();
        tiers.sort_by_key(|(above, _)| *above);
        let per_request = nanos(written.per_request);
        Self { base, tiers, per_request, per: written.per.get().max(1), rounding: written.rounding }
    }
}

impl Rates {
    fn over(self, tier: &PriceTier) -> Self {
        let or = |given: Option<Money>, base| given.map(Money::nanos).or(base);
        Self {
            input: or(tier.input, self.input),
            cached_input: or(tier.cached_input, self.cached_input),
            cache_write: or(tier.cache_write, self.cache_write),
            cache_write_1h: or(tier.cache_write, self.cache_write_1h),
            output: or(tier.output, self.output),
            ..self
        }
    }

    /// How many tokens at which rate. What is not priced apart costs as much as what it is a part of.
    fn parts(&self, usage: &Usage) -> [(u64, Option<u64>); 6] {
        let cached = usage.cached_input_tokens;
        let (written, written_1h) = (usage.cache_write_tokens, usage.cache_write_1h_tokens);
        let plain = usage.input_tokens.saturating_sub(cached).saturating_sub(written).saturating_sub(written_1h);
        let write = self.cache_write.or(self.input);
        [
            (plain, self.input),
            (cached, self.cached_input.or(self.input)),
            (written, write),
            (written_1h, self.cache_write_1h.or(write)),
            (usage.output_tokens.saturating_sub(usage.reasoning_tokens), self.output),
            (usage.reasoning_tokens, self.reasoning.or(self.output)),
        ]
    }

    fn dearest_input(&self) -> Option<u64> {
        [self.input, self.cached_input, self.cache_write, self.cache_write_1h].into_iter().flatten().max()
    }

    fn dearest_output(&self) -> Option<u64> {
        self.output.max(self.reasoning)
    }
}

impl Price {
    /// What `usage` costs; `None` when it holds tokens of a kind that has no price.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Nanos> {
        let mut sum: u128 = 0;
        for (tokens, rate) in self.rates_for(usage.input_tokens).parts(usage) {
            if tokens > 0 {
                sum += self.part(tokens, self.known(rate)?);
            }
        }
        let tokens = match self.rounding {
            Rounding::Exact => rounded(sum, u128::from(self.per)),
            Rounding::Dify => sum,
        };
        Some(nanos(tokens + u128::from(self.per_request.unwrap_or_default())))
    }

    /// The most that a request of so many tokens can cost, whatever kinds they are of.
    #[must_use]
    pub fn bound(&self, input_tokens: u64, output_tokens: u64) -> Option<Nanos> {
        let rates = |pick: fn(&Rates) -> Option<u64>| self.all_rates().filter_map(pick).max();
        let part = |tokens: u64, rate| Some(u128::from(tokens) * u128::from(self.known(rate)?));
        let sum = part(input_tokens, rates(Rates::dearest_input))? + part(output_tokens, rates(Rates::dearest_output))?;
        Some(nanos(sum.div_ceil(u128::from(self.per)) + u128::from(self.per_request.unwrap_or_default())))
    }

    /// How many output tokens `left` pays for beside the input; `None` where output costs nothing that is known.
    #[must_use]
    pub fn affordable_output(&self, left: Nanos, input_tokens: u64) -> Option<u64> {
        let rate = self.all_rates().filter_map(Rates::dearest_output).max().filter(|rate| *rate > 0)?;
        let left = u128::try_from(left - self.bound(input_tokens, 0)?).unwrap_or_default();
        Some(u64::try_from(left * u128::from(self.per) / u128::from(rate)).unwrap_or(u64::MAX))
    }

    /// One number to compare models by: a request with three times as much input as output.
    #[must_use]
    pub fn effective(&self) -> Option<u64> {
        let (input, output) = (u128::from(self.base.input?), u128::from(self.base.output.or(self.base.input)?));
        u64::try_from((3 * input + output) * 250_000 / u128::from(self.per)).ok()
    }

    fn rates_for(&self, input_tokens: u64) -> &Rates {
        let tier = self.tiers.iter().rev().find(|(above, _)| input_tokens > *above);
        tier.map_or(&self.base, |(_, rates)| rates)
    }

    fn all_rates(&self) -> impl Iterator<Item = &Rates> {
        std::iter::once(&self.base).chain(self.tiers.iter().map(|(_, rates)| rates))
    }

    /// Where a request has a price, its tokens need none.
    fn known(&self, rate: Option<u64>) -> Option<u64> {
        rate.or(self.per_request.and(Some(0)))
    }

    fn part(&self, tokens: u64, rate: u64) -> u128 {
        let exact = u128::from(tokens) * u128::from(rate);
        match self.rounding {
            Rounding::Exact => exact,
            Rounding::Dify => rounded(exact, u128::from(self.per) * DIFY_STEP) * DIFY_STEP,
        }
    }
}

/// The prices of a target: the operator's, from their date on, over the catalog's.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    configured: Option<(Option<Expiry>, Price)>,
    catalog: Option<&'static Catalog>,
}

impl Prices {
    /// A model's own prices, and those that the catalog knows of its provider's models.
    #[must_use]
    pub fn new(configured: Option<&Pricing>, catalog: Option<&'static Catalog>) -> Self {
        Self { configured: configured.map(|pricing| (pricing.effective, Price::from(pricing))), catalog }
    }

    /// The price of the provider's model of that name now, if it is known.
    #[must_use]
    pub fn at(&self, upstream_model: &str, now: std::time::SystemTime) -> Option<&Price> {
        let configured = self.configured.as_ref().filter(|(from, _)| from.is_none_or(|from| from.is_past(now)));
        configured.map(|(_, price)| price).or_else(|| self.entry(upstream_model)?.price.as_ref())
    }

    /// What the catalog knows of the provider's model of that name.
    #[must_use]
    pub fn entry(&self, upstream_model: &str) -> Option<&'static Entry> {
        self.catalog?.get(upstream_model)
    }
}

/// Half up.
fn rounded(amount: u128, by: u128) -> u128 {
    (amount + by / 2) / by
}

fn nanos(amount: u128) -> Nanos {
    Nanos::try_from(amount).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn price(input: u64, output: u64) -> Price {
        let base = Rates { input: Some(input), output: Some(output), ..Rates::default() };
        Price { base, tiers: Vec::new(), per_request: None, per: 1_000_000, rounding: Rounding::Exact }
    }

    fn usage(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage { input_tokens, output_tokens, ..Usage::default() }
    }

    #[test]
    fn each_kind_of_token_is_paid_once_at_its_own_price() {
        let mut price = price(3_000_000_000, 15_000_000_000);
        price.base.cached_input = Some(300_000_000);
        price.base.cache_write = Some(3_750_000_000);
        price.base.cache_write_1h = Some(6_000_000_000);
        let usage = Usage {
            input_tokens: 1_000,
            cached_input_tokens: 500,
            cache_write_tokens: 200,
            cache_write_1h_tokens: 100,
            output_tokens: 40,
            reasoning_tokens: 30,
            ..Usage::default()
        };
        // 200 plain at 3, 500 cached at 0.3, 200 written at 3.75, 100 at 6, 40 out at 15 dollars a million.
        assert_eq!(price.cost(&usage), Some(600_000 + 150_000 + 750_000 + 600_000 + 600_000));
    }

    #[test]
    fn a_price_that_is_missing_makes_the_cost_unknown_and_not_free() {
        let mut price = price(1, 1);
        price.base.output = None;
        assert_eq!(price.cost(&usage(5, 1)), None);
        assert_eq!(price.cost(&usage(0, 0)), Some(0));
        price.per_request = Some(7);
        price.base.input = None;
        assert_eq!(price.cost(&usage(5, 1)), Some(7));
    }

    #[test]
    fn rounding_happens_once_at_the_end_and_difys_for_each_part() {
        let mut price = price(400_000, 400_000);
        assert_eq!(price.cost(&usage(1, 1)), Some(1), "0.4 + 0.4 nano-dollars");
        price.base = Rates { input: Some(49_000_000), output: Some(50_000_000), ..Rates::default() };
        price.rounding = Rounding::Dify;
        assert_eq!(price.cost(&usage(1, 1)), Some(100), "49 is rounded down to 0, 50 up to 100");
    }

    #[test]
    fn a_long_prompt_is_paid_at_its_tier() {
        let mut price = price(1_000_000, 2_000_000);
        price.tiers = vec![(100, Rates { input: Some(10_000_000), ..price.base })];
        assert_eq!(price.cost(&usage(100, 0)), Some(100));
        assert_eq!(price.cost(&usage(101, 1)), Some(1_010 + 2));
    }

    #[test]
    fn no_usage_within_the_counts_costs_more_than_the_bound() {
        let mut price = price(1_500_000, 3_700_000);
        price.base.cache_write = Some(1_900_000);
        price.tiers = vec![(50, Rates { input: Some(2_100_000), output: Some(5_300_000), ..price.base })];
        for (input, output) in [(0, 0), (1, 1), (50, 9), (51, 9), (1_000, 333)] {
            let bound = price.bound(input, output).unwrap();
            for cached in [0, input / 2, input] {
                let usage = Usage { cache_write_tokens: cached, ..usage(input, output) };
                assert!(price.cost(&usage).unwrap() <= bound, "{usage:?}");
            }
        }
    }

    #[test]
    fn what_is_affordable_is_within_what_is_left() {
        let price = price(1_500_000, 3_700_000);
        for left in [0, 1, 1_000, 12_345] {
            let output = price.affordable_output(left, 10).unwrap();
            assert!(output == 0 || price.bound(10, output).unwrap() <= left, "{left}");
            assert!(price.bound(10, output + 1).unwrap() > left);
        }
    }
}
