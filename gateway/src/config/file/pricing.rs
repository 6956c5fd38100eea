//! What a model costs.

use crate::config::read::{Read, choices, section};
use crate::config::value::{Count, Expiry, Money, Percent};

section! {
    /// What a model costs. Each price is for `per` units.
    pub struct Pricing {
        /// Input tokens.
        input: Option<Money> = None;
        /// Output tokens.
        output: Option<Money> = None;
        /// Input tokens that the provider had in its cache.
        cached_input: Option<Money> = None;
        /// Input tokens written to the cache for five minutes.
        cache_write: Option<Money> = None;
        /// Input tokens written to the cache for an hour.
        cache_write_1h: Option<Money> = None;
        /// Reasoning tokens, where they cost other than output.
        reasoning: Option<Money> = None;
        /// Audio tokens in.
        audio_input: Option<Money> = None;
        /// Audio tokens out.
        audio_output: Option<Money> = None;
        /// Tokens of pictures in.
        image_input: Option<Money> = None;
        /// Tokens of pictures out.
        image_output: Option<Money> = None;
        /// One image.
        per_image: Option<Money> = None;
        /// One request.
        per_request: Option<Money> = None;
        /// One second of audio.
        per_second: Option<Money> = None;
        /// One character of text to be spoken.
        per_character: Option<Money> = None;
        /// One search unit of a rerank.
        per_search_unit: Option<Money> = None;
        /// One search of the web that the provider makes for the model. Without it the catalog's; where that has none, a request with such searches has no known cost.
        per_web_search: Option<Money> = None;
        /// What tokens cost more where the provider says that they were served in the US and nowhere else (Anthropic's `inference_geo: us`). Without it the catalog's.
        us_inference: Option<Percent> = None;
        /// Other prices for longer prompts.
        tiers: Vec<PriceTier> = Vec::new();
        /// Other prices for requests that the provider served in another way than usual.
        service_tiers: ServiceTiers = Read::placeholder();
        /// The currency; budgets count dollars.
        currency: Currency = Currency::Usd;
        /// How many tokens a price is for.
        per: Count = Count::of(1_000_000);
        /// How amounts are rounded.
        rounding: Rounding = Rounding::Exact;
        /// From when on these prices hold; before it the catalog's do.
        effective: Option<Expiry> = None;
    }
}

section! {
    /// Prices for prompts over a length.
    pub struct PriceTier {
        /// For prompts with more input tokens than this.
        above: Count;
        /// Input tokens.
        input: Option<Money> = None;
        /// Output tokens.
        output: Option<Money> = None;
        /// Input tokens that the provider had in its cache.
        cached_input: Option<Money> = None;
        /// Input tokens written to the cache for five minutes.
        cache_write: Option<Money> = None;
        /// Input tokens written to the cache for an hour.
        cache_write_1h: Option<Money> = None;
        /// Reasoning tokens, where they cost other than output.
        reasoning: Option<Money> = None;
        /// Audio tokens in.
        audio_input: Option<Money> = None;
        /// Audio tokens out.
        audio_output: Option<Money> = None;
        /// Tokens of pictures in.
        image_input: Option<Money> = None;
        /// Tokens of pictures out.
        image_output: Option<Money> = None;
    }
}

section! {
    /// Prices by how a provider served a request, which its answer tells. One that is left out costs what is usual.
    pub struct ServiceTiers {
        /// OpenAI's flex processing.
        flex: Option<ServicePricing> = None;
        /// OpenAI's priority processing, which it calls `fast` too; Anthropic's priority tier.
        priority: Option<ServicePricing> = None;
        /// OpenAI's ultrafast processing.
        ultrafast: Option<ServicePricing> = None;
        /// Anthropic's fast mode.
        fast: Option<ServicePricing> = None;
        /// Batches.
        batch: Option<ServicePricing> = None;
    }
}

section! {
    /// Prices of one way to be served. What they leave out costs what is usual.
    pub struct ServicePricing {
        /// Input tokens.
        input: Option<Money> = None;
        /// Output tokens.
        output: Option<Money> = None;
        /// Input tokens that the provider had in its cache.
        cached_input: Option<Money> = None;
        /// Input tokens written to the cache for five minutes.
        cache_write: Option<Money> = None;
        /// Input tokens written to the cache for an hour.
        cache_write_1h: Option<Money> = None;
        /// Reasoning tokens, where they cost other than output.
        reasoning: Option<Money> = None;
        /// Audio tokens in.
        audio_input: Option<Money> = None;
        /// Audio tokens out.
        audio_output: Option<Money> = None;
        /// Tokens of pictures in.
        image_input: Option<Money> = None;
        /// Tokens of pictures out.
        image_output: Option<Money> = None;
        /// Other prices for longer prompts. Without any, the dearer of this price and the usual one for them holds.
        tiers: Vec<PriceTier> = Vec::new();
    }
}

choices! {
    /// A currency.
    pub enum Currency {
        /// The dollar of the United States.
        Usd = "USD",
    }
}

choices! {
    /// How amounts are rounded.
    pub enum Rounding {
        /// Once, at the end, to a nano-unit.
        Exact = "exact",
        /// Each part to a ten millionth, half up, as Dify does.
        Dify = "dify",
    }
}
