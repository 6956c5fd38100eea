//! What a request costs, in nano-dollars. Pure: prices and counts in, an amount out, rounded once at the end. A cost
//! that cannot be known, because a price is missing, is none, and never 0.

mod catalog;
mod input;
mod rates;
#[cfg(test)]
mod tests;

use adapters::{ServiceTier, Usage};

use self::rates::{Card, Rates};
use crate::config::{Expiry, Money, Pricing, Rounding};

pub use catalog::{Catalog, Entry};
pub use input::most_tokens;

/// Money in nano-dollars.
pub type Nanos = i64;

/// A ten millionth of a dollar: what `dify` rounds each part to.
const DIFY_STEP: u128 = 100;

/// A whole in ten thousandths. Amounts are added in these parts of what `per` tokens cost, and thousandths are parts of
/// them.
const WHOLE: u128 = 10_000;

/// The prices of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    standard: Card,
    services: Vec<(ServiceTier, Card)>,
    units: Units,
    /// What tokens cost more that were served in the US and nowhere else, in ten thousandths.
    us_inference: Option<u64>,
    per: u64,
    rounding: Rounding,
}

/// What a request costs beside its tokens, in nano-dollars for one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Units {
    request: Option<u64>,
    image: Option<u64>,
    character: Option<u64>,
    second: Option<u64>,
    search: Option<u64>,
    web_search: Option<u64>,
}

/// An amount of money before it is rounded: nano-dollars, or a part of one.
#[derive(Clone, Copy, Debug)]
struct Part {
    amount: u128,
    by: u128,
}

impl From<&Pricing> for Price {
    fn from(written: &Pricing) -> Self {
        let standard = Card::of(written.into(), &written.tiers);
        let services = &written.service_tiers;
        let services = [
            (ServiceTier::Flex, &services.flex),
            (ServiceTier::Priority, &services.priority),
            (ServiceTier::Ultrafast, &services.ultrafast),
            (ServiceTier::Fast, &services.fast),
            (ServiceTier::Batch, &services.batch),
        ];
        let services =
            services.into_iter().filter_map(|(tier, written)| Some((tier, standard.of_service(written.as_ref()?))));
        Self {
            services: services.collect(),
            standard,
            units: written.into(),
            us_inference: written.us_inference.map(|more| u64::from(more.hundredths())),
            per: written.per.get().max(1),
            rounding: written.rounding,
        }
    }
}

impl From<&Pricing> for Units {
    fn from(written: &Pricing) -> Self {
        let nanos = |money: Option<Money>| money.map(Money::nanos);
        Self {
            request: nanos(written.per_request),
            image: nanos(written.per_image),
            character: nanos(written.per_character),
            second: nanos(written.per_second),
            search: nanos(written.per_search_unit),
            web_search: nanos(written.per_web_search),
        }
    }
}

impl Units {
    fn has_price(&self) -> bool {
        [self.request, self.image, self.character, self.second, self.search].iter().any(Option::is_some)
    }

    /// How many of what at which price, and how many make one: a second is a thousand milliseconds. Searches of the web
    /// are apart: they come beside tokens, and are never free for want of a price.
    fn parts(&self, usage: &Usage) -> [(u64, Option<u64>, u64); 5] {
        [
            (u64::from(self.request.is_some()), self.request, 1),
            (usage.images, self.image, 1),
            (usage.characters, self.character, 1),
            (usage.audio_ms, self.second, 1_000),
            (usage.search_units, self.search, 1),
        ]
    }
}

impl Price {
    /// What `usage` costs; `None` when it holds something that has no price.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Nanos> {
        let rates = self.card(usage.tier).rates_for(usage.input_tokens);
        let tokens = rates.parts(usage);
        self.sum(self.token_parts(&tokens, self.times(usage)).chain(self.unit_parts(usage)), Rounds::Usual)
    }

    /// The most that a request with these counts can cost, whatever kinds its tokens are of, if it is served as usual
    /// or in one of `tiers`.
    #[must_use]
    pub fn bound(&self, worst: &Usage, tiers: &[ServiceTier]) -> Option<Nanos> {
        let rate = |pick: fn(&Rates) -> Option<u64>| self.all_rates(tiers).filter_map(pick).max();
        let tokens =
            [(worst.input_tokens, rate(Rates::dearest_input)), (worst.output_tokens, rate(Rates::dearest_output))];
        self.sum(self.token_parts(&tokens, self.times(worst)).chain(self.unit_parts(worst)), Rounds::Up)
    }

    /// How many output tokens `left` pays for beside all else of `worst`; `None` where output costs nothing that is
    /// known.
    #[must_use]
    pub fn affordable_output(&self, left: Nanos, worst: &Usage, tiers: &[ServiceTier]) -> Option<u64> {
        let rate = self.all_rates(tiers).filter_map(Rates::dearest_output).max().filter(|rate| *rate > 0)?;
        let input = self.bound(&Usage { output_tokens: 0, ..*worst }, tiers)?;
        let left = u128::try_from(left.saturating_sub(input)).unwrap_or_default();
        let left = match self.rounding {
            Rounding::Exact => left,
            Rounding::Dify => left.saturating_sub(DIFY_STEP + Rounds::Up.slack()),
        };
        let rate = u128::from(rate).saturating_mul(self.times(worst));
        let left = left.saturating_mul(u128::from(self.per)).saturating_mul(WHOLE);
        Some(u64::try_from(left / rate).unwrap_or(u64::MAX))
    }

    /// One number to compare models by: a request with three times as much input as output.
    #[must_use]
    pub fn effective(&self) -> Option<u64> {
        let base = self.standard.rates_for(0);
        let (input, output) = (u128::from(base.input?), u128::from(base.output.or(base.input)?));
        u64::try_from((3 * input + output) * 250_000 / u128::from(self.per)).ok()
    }

    fn over(mut self, public: &Self) -> Self {
        self.units.web_search = self.units.web_search.or(public.units.web_search);
        self.us_inference = self.us_inference.or(public.us_inference);
        self
    }

    /// A tier without prices of its own costs what is usual.
    fn card(&self, tier: ServiceTier) -> &Card {
        self.services.iter().find(|(known, _)| *known == tier).map_or(&self.standard, |(_, card)| card)
    }

    fn all_rates<'p>(&'p self, tiers: &'p [ServiceTier]) -> impl Iterator<Item = &'p Rates> {
        let cards = std::iter::once(&self.standard).chain(tiers.iter().map(|tier| self.card(*tier)));
        cards.flat_map(Card::all)
    }

    /// How many ten thousandths of their price tokens cost, where they were served.
    fn times(&self, usage: &Usage) -> u128 {
        WHOLE + u128::from(self.us_inference.filter(|_| usage.in_us).unwrap_or_default())
    }

    /// Where units have a price, tokens need none.
    fn token_parts(&self, tokens: &[(u64, Option<u64>)], times: u128) -> impl Iterator<Item = Option<Part>> {
        let free = self.units.has_price().then_some(0);
        tokens.iter().map(move |(tokens, rate)| {
            let Part { amount, by } = part(*tokens, rate.or(free), self.per)?;
            // Most often a whole: then nothing is to be divided once more.
            Some(if times == WHOLE {
                Part { amount, by }
            } else {
                Part { amount: amount.saturating_mul(times), by: by * WHOLE }
            })
        })
    }

    /// Where tokens have a price, units need none.
    fn unit_parts(&self, usage: &Usage) -> impl Iterator<Item = Option<Part>> {
        let free = self.standard.has_price().then_some(0);
        let units = self.units.parts(usage).into_iter().map(move |(count, rate, by)| part(count, rate.or(free), by));
        units.chain(std::iter::once(part(usage.web_searches, self.units.web_search, 1)))
    }

    fn sum(&self, parts: impl Iterator<Item = Option<Part>>, rounds: Rounds) -> Option<Nanos> {
        let in_parts = u128::from(self.per).saturating_mul(WHOLE);
        let sum = match self.rounding {
            // All in parts of one size, so that rounding happens once.
            Rounding::Exact => {
                let exact = total(parts, |part| part.amount.saturating_mul(in_parts / part.by))?;
                rounds.divide(exact, in_parts)
            }
            Rounding::Dify => {
                match total(parts, |part| rounds.divide(part.amount, part.by.saturating_mul(DIFY_STEP)))? {
                    0 => 0,
                    steps => steps.saturating_mul(DIFY_STEP).saturating_add(rounds.slack()),
                }
            }
        };
        Some(Nanos::try_from(sum).unwrap_or(Nanos::MAX))
    }
}

/// The sum of what `size` makes of parts, most of which are nothing; `None` where one of them has no price.
fn total(mut parts: impl Iterator<Item = Option<Part>>, size: impl Fn(Part) -> u128) -> Option<u128> {
    parts.try_fold(0_u128, |sum, part| {
        let part = part?;
        Some(if part.amount == 0 { sum } else { sum.saturating_add(size(part)) })
    })
}

/// So many at that rate; `None` where there are any and no rate.
fn part(count: u64, rate: Option<u64>, by: u64) -> Option<Part> {
    let rate = if count == 0 { 0 } else { rate? };
    Some(Part { amount: u128::from(count).saturating_mul(u128::from(rate)), by: u128::from(by) })
}

/// The prices of a target: the operator's, from their date on, over the catalog's.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    configured: Option<(Option<Expiry>, Price)>,
    catalog: Option<&'static Catalog>,
}

impl Prices {
    /// A model's own prices, and those that the catalog knows of its provider's models. What the own ones do not say of
    /// what is used beside tokens or costs a share more, the catalog says of the provider's `upstream_model`: a caller
    /// may ask for it at any time, and it must not make a cost unknown that is public.
    #[must_use]
    pub fn new(configured: Option<&Pricing>, catalog: Option<&'static Catalog>, upstream_model: &str) -> Self {
        let public = catalog.and_then(|catalog| catalog.get(upstream_model)?.price.as_ref());
        let over = |own: Price| match public {
            Some(public) => own.over(public),
            None => own,
        };
        Self { configured: configured.map(|pricing| (pricing.effective, over(pricing.into()))), catalog }
    }

    /// The price that was configured, where it holds now.
    #[must_use]
    pub fn configured(&self, now: std::time::SystemTime) -> Option<&Price> {
        let configured = self.configured.as_ref().filter(|(from, _)| from.is_none_or(|from| from.is_past(now)));
        configured.map(|(_, price)| price)
    }

    /// The price of the provider's model of that name now, if it is known.
    #[must_use]
    pub fn at(&self, upstream_model: &str, now: std::time::SystemTime) -> Option<&Price> {
        self.configured(now).or_else(|| self.entry(upstream_model)?.price.as_ref())
    }

    /// What the catalog knows of the provider's model of that name.
    #[must_use]
    pub fn entry(&self, upstream_model: &str) -> Option<&'static Entry> {
        self.catalog?.get(upstream_model)
    }
}

/// Which way an amount is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounds {
    /// Half up, as what is charged.
    Usual,
    /// Up, as what is held.
    Up,
}

impl Rounds {
    fn divide(self, amount: u128, by: u128) -> u128 {
        match self {
            Self::Usual => amount.saturating_add(by / 2) / by,
            Self::Up => amount.div_ceil(by),
        }
    }

    /// What rounding each part can come to beyond the sum of two of them: half a step for each of the ten kinds of
    /// tokens.
    fn slack(self) -> u128 {
        match self {
            Self::Usual => 0,
            Self::Up => 5 * DIFY_STEP,
        }
    }
}
