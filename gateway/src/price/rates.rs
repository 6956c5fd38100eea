//! What tokens of each kind cost: for usual prompts and for longer ones.

use adapters::Usage;

use crate::config::{Money, PriceTier, Pricing, ServicePricing};

/// What `per` tokens of each kind cost, in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) input: Option<u64>,
    pub(super) cached_input: Option<u64>,
    pub(super) cache_write: Option<u64>,
    pub(super) cache_write_1h: Option<u64>,
    pub(super) audio_input: Option<u64>,
    pub(super) image_input: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) reasoning: Option<u64>,
    pub(super) audio_output: Option<u64>,
    pub(super) image_output: Option<u64>,
}

/// Rates for prompts of any length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) base: Rates,
    /// For prompts with more input tokens than this; the longest last.
    pub(super) tiers: Vec<(u64, Rates)>,
}

macro_rules! rates_of {
    ($($written:ty),*) => {$(
        impl From<&$written> for Rates {
            fn from(written: &$written) -> Self {
                let nanos = |money: Option<Money>| money.map(Money::nanos);
                Self {
                    input: nanos(written.input),
                    cached_input: nanos(written.cached_input),
                    cache_write: nanos(written.cache_write),
                    cache_write_1h: nanos(written.cache_write_1h),
                    audio_input: nanos(written.audio_input),
                    image_input: nanos(written.image_input),
                    output: nanos(written.output),
                    reasoning: nanos(written.reasoning),
                    audio_output: nanos(written.audio_output),
                    image_output: nanos(written.image_output),
                }
            }
        }
    )*};
}
rates_of!(Pricing, PriceTier, ServicePricing);

impl Rates {
    /// What `choose` makes of each rate and its like.
    fn zip(self, other: Self, choose: fn(Option<u64>, Option<u64>) -> Option<u64>) -> Self {
        Self {
            input: choose(self.input, other.input),
            cached_input: choose(self.cached_input, other.cached_input),
            cache_write: choose(self.cache_write, other.cache_write),
            cache_write_1h: choose(self.cache_write_1h, other.cache_write_1h),
            audio_input: choose(self.audio_input, other.audio_input),
            image_input: choose(self.image_input, other.image_input),
            output: choose(self.output, other.output),
            reasoning: choose(self.reasoning, other.reasoning),
            audio_output: choose(self.audio_output, other.audio_output),
            image_output: choose(self.image_output, other.image_output),
        }
    }

    /// These, and `base` where they say nothing.
    fn over(self, base: Self) -> Self {
        self.zip(base, Option::or)
    }

    fn dearer(self, other: Self) -> Self {
        self.zip(other, Option::max)
    }

    /// How many tokens at which rate. What is not priced apart costs as much as what it is a part of, and each token is
    /// paid once, whatever the counts of kinds come to together.
    pub(super) fn parts(&self, usage: &Usage) -> [(u64, Option<u64>); 10] {
        let write = self.cache_write.or(self.input);
        let mut input = usage.input_tokens;
        let mut output = usage.output_tokens;
        [
            (take(&mut input, usage.cached_input_tokens), self.cached_input.or(self.input)),
            (take(&mut input, usage.cache_write_tokens), write),
            (take(&mut input, usage.cache_write_1h_tokens), self.cache_write_1h.or(write)),
            (take(&mut input, usage.audio_input_tokens), self.audio_input.or(self.input)),
            (take(&mut input, usage.image_input_tokens), self.image_input.or(self.input)),
            (input, self.input),
            (take(&mut output, usage.reasoning_tokens), self.reasoning.or(self.output)),
            (take(&mut output, usage.audio_output_tokens), self.audio_output.or(self.output)),
            (take(&mut output, usage.image_output_tokens), self.image_output.or(self.output)),
            (output, self.output),
        ]
    }

    pub(super) fn dearest_input(&self) -> Option<u64> {
        let kinds = [self.cached_input, self.cache_write, self.cache_write_1h, self.audio_input, self.image_input];
        self.input.max(kinds.into_iter().flatten().max())
    }

    pub(super) fn dearest_output(&self) -> Option<u64> {
        self.output.max(self.reasoning).max(self.audio_output).max(self.image_output)
    }
}

/// As many of what is left, if there are so many.
fn take(left: &mut u64, count: u64) -> u64 {
    let taken = count.min(*left);
    *left -= taken;
    taken
}

impl Card {
    pub(super) fn of(base: Rates, tiers: &[PriceTier]) -> Self {
        let mut tiers: Vec<_> = tiers.iter().map(|tier| (tier.above.get(), longer(tier, base))).collect();
        tiers.sort_by_key(|(above, _)| *above);
        Self { base, tiers }
    }

    /// The card of a way to be served, over this one. Where it says nothing of long prompts, the dearer of its price
    /// and the usual one for them holds: it is surely no less.
    pub(super) fn of_service(&self, written: &ServicePricing) -> Self {
        let own = Self::of(Rates::from(written).over(self.base), &written.tiers);
        let mut bounds: Vec<u64> = self.tiers.iter().chain(&own.tiers).map(|(above, _)| *above).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let shortest = own.tiers.first().map_or(u64::MAX, |(above, _)| *above);
        let rates = |above: u64| {
            let rates = *own.rates_for(above.saturating_add(1));
            if above >= shortest { rates } else { rates.dearer(*self.rates_for(above.saturating_add(1))) }
        };
        let tiers = bounds.into_iter().map(|above| (above, rates(above))).collect();
        Self { base: own.base, tiers }
    }

    pub(super) fn rates_for(&self, input_tokens: u64) -> &Rates {
        let tier = self.tiers.iter().rev().find(|(above, _)| input_tokens > *above);
        tier.map_or(&self.base, |(_, rates)| rates)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Rates> {
        std::iter::once(&self.base).chain(self.tiers.iter().map(|(_, rates)| rates))
    }

    pub(super) fn has_price(&self) -> bool {
        self.base.input.is_some() || self.base.output.is_some()
    }
}

/// A longer prompt's rates. To keep something for an hour costs no less than to keep it for minutes.
fn longer(tier: &PriceTier, base: Rates) -> Rates {
    let rates = Rates::from(tier).over(base);
    let kept =
        if tier.cache_write_1h.is_some() { None } else { rates.cache_write.filter(|_| base.cache_write_1h.is_some()) };
    Rates { cache_write_1h: rates.cache_write_1h.max(kept), ..rates }
}
