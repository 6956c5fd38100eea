//! The laws of prices: each token once, nothing unknown for free, and never more than was held.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;
use crate::config;

/// A price as it is written under `pricing`.
fn price(pricing: &str) -> Price {
    let text = format!(
        "version: 1\nproviders: {{p: {{kind: openai, base_url: 'http://127.0.0.1:1/v1'}}}}\n\
         models: [{{name: m, targets: [{{provider: p, model: m}}], pricing: {pricing}}}]\ntenants: []"
    );
    let loaded = config::parse_str("test", &text).unwrap();
    Price::from(loaded.config.models.first().unwrap().pricing.as_ref().unwrap())
}

fn usage(input_tokens: u64, output_tokens: u64) -> Usage {
    Usage { input_tokens, output_tokens, ..Usage::default() }
}

fn long(input_tokens: u64) -> Usage {
    usage(input_tokens, 1_000)
}

/// All that may serve a request.
const ALL: &[ServiceTier] =
    &[ServiceTier::Flex, ServiceTier::Priority, ServiceTier::Ultrafast, ServiceTier::Fast, ServiceTier::Batch];

#[test]
fn each_kind_of_token_is_paid_once_at_its_own_price() {
    let price = price(
        "{input: 3, cached_input: 0.3, cache_write: 3.75, cache_write_1h: 6, audio_input: 40, output: 15, \
         reasoning: 20, audio_output: 80}",
    );
    let usage = Usage {
        input_tokens: 1_000,
        cached_input_tokens: 500,
        cache_write_tokens: 200,
        cache_write_1h_tokens: 100,
        audio_input_tokens: 50,
        output_tokens: 40,
        reasoning_tokens: 20,
        audio_output_tokens: 10,
        ..Usage::default()
    };
    let (input, output) = (150_000 * 3 + 150_000 + 750_000 + 600_000 + 2_000_000, 150_000 + 400_000 + 800_000);
    assert_eq!(price.cost(&usage), Some(input + output));
}

#[test]
fn no_price_that_can_be_written_is_too_much_to_reckon_with() {
    let price = price("{input: 9000000000, output: 0.000000001, per: 18446744073709551615, us_inference: 100%}");
    let most = usage(u64::MAX, u64::MAX);
    let most = Usage { in_us: true, web_searches: u64::MAX, audio_ms: u64::MAX, ..most };
    assert!(price.bound(&usage(1, 1), ALL).is_some());
    assert!(price.affordable_output(Nanos::MAX, &usage(1, 1), ALL) > Some(1_000_000));
    assert_eq!(price.cost(&most), None);
    assert!(price.effective().is_some());
}

#[test]
fn kinds_that_overlap_are_not_paid_twice() {
    let price = price("{input: 1000, cached_input: 1000, audio_input: 1000, output: 1000, audio_output: 1000}");
    let usage = Usage {
        cached_input_tokens: 80,
        audio_input_tokens: 50,
        reasoning_tokens: 8,
        audio_output_tokens: 8,
        ..usage(100, 10)
    };
    assert_eq!(price.cost(&usage), Some(110_000_000));
}

#[test]
fn what_is_not_priced_apart_costs_as_much_as_what_it_is_a_part_of() {
    let price = price("{input: 2, cache_write: 3, output: 5}");
    let all = Usage { audio_input_tokens: 1_000, cache_write_1h_tokens: 1_000, ..usage(3_000, 0) };
    assert_eq!(price.cost(&all), Some(2_000_000 + 3_000_000 + 2_000_000));
    let all = Usage { reasoning_tokens: 500, audio_output_tokens: 500, ..usage(0, 1_000) };
    assert_eq!(price.cost(&all), Some(5_000_000));
}

#[test]
fn a_price_that_is_missing_makes_the_cost_unknown_and_not_free() {
    let input_only = price("{input: 1}");
    assert_eq!((input_only.cost(&usage(5, 1)), input_only.cost(&usage(0, 0))), (None, Some(0)));
    assert_eq!(input_only.bound(&usage(5, 1), ALL), None);
    let spoken = price("{per_character: 0.000015}");
    assert_eq!(spoken.cost(&Usage { audio_ms: 1, ..Usage::default() }), None);
    assert_eq!(price("{}").cost(&Usage { images: 1, ..Usage::default() }), None);
}

#[test]
fn an_explicit_zero_is_a_price() {
    let free = price("{input: 0, output: 0}");
    assert_eq!((free.cost(&usage(5, 1)), free.bound(&usage(5, 1), ALL)), (Some(0), Some(0)));
    let cached = price("{input: 1, cached_input: 0, output: 1}");
    assert_eq!(cached.cost(&Usage { cached_input_tokens: 5, ..usage(5, 0) }), Some(0));
    let flex = price("{input: 1, output: 1, service_tiers: {flex: {input: 0, output: 0}}}");
    assert_eq!(flex.cost(&Usage { tier: ServiceTier::Flex, ..usage(5, 5) }), Some(0));
}

#[test]
fn requests_images_characters_seconds_and_searches_have_prices_of_their_own() {
    let cost = |pricing: &str, usage: Usage| price(pricing).cost(&usage);
    let none = Usage::default();
    assert_eq!(cost("{per_request: 0.01}", usage(5, 1)), Some(10_000_000));
    assert_eq!(cost("{per_image: 0.04}", Usage { images: 3, ..none }), Some(120_000_000));
    assert_eq!(cost("{per_character: 0.000015}", Usage { characters: 1_001, ..none }), Some(15_015_000));
    assert_eq!(cost("{per_second: 0.0001}", Usage { audio_ms: 1_234, ..none }), Some(123_400));
    assert_eq!(cost("{per_search_unit: 0.002}", Usage { search_units: 2, ..none }), Some(4_000_000));
    // What a price of tokens is for needs no other, and the other way round; both together add up.
    assert_eq!(cost("{per_image: 0.04}", Usage { images: 1, ..usage(5, 5) }), Some(40_000_000));
    assert_eq!(cost("{input: 1, output: 1}", Usage { images: 1, ..usage(5, 5) }), Some(10_000));
    assert_eq!(cost("{input: 1, per_request: 0.001}", usage(1_000, 0)), Some(2_000_000));
}

#[test]
fn searches_of_the_web_come_beside_tokens_and_are_never_free_for_want_of_a_price() {
    let searched = Usage { web_searches: 3, ..usage(1_000, 100) };
    let known = price("{input: 3, output: 15, per_web_search: 0.01}");
    assert_eq!(known.cost(&searched), Some(3_000_000 + 1_500_000 + 30_000_000));
    let own = price("{input: 3, output: 15}");
    assert_eq!((own.cost(&searched), own.bound(&searched, ALL)), (None, None));
    let left = known.bound(&Usage { output_tokens: 0, ..searched }, &[]).unwrap() + 15_000;
    assert_eq!(known.affordable_output(left, &searched, &[]), Some(1));
}

#[test]
fn what_a_models_own_prices_do_not_say_of_searches_and_places_the_catalog_says() {
    let written = |pricing: &str| {
        let text = format!(
            "version: 1\nproviders: {{p: {{kind: openai, base_url: 'http://127.0.0.1:1/v1'}}}}\n\
             models: [{{name: m, targets: [{{provider: p, model: m}}], pricing: {pricing}}}]\ntenants: []"
        );
        config::parse_str("test", &text).unwrap().config.models.first().unwrap().pricing.clone().unwrap()
    };
    let (now, model, catalog) = (std::time::SystemTime::now(), "claude-opus-5", Catalog::of("anthropic"));
    let cost = |pricing: &str, model: &str, usage: Usage| {
        Prices::new(Some(&written(pricing)), catalog, model).at(model, now).unwrap().cost(&usage)
    };
    let searched = Usage { web_searches: 1, in_us: true, ..usage(1_000, 0) };
    assert_eq!(cost("{input: 1}", model, searched), Some(1_100_000 + 10_000_000));
    assert_eq!(cost("{input: 1, per_web_search: 0, us_inference: 0%}", model, searched), Some(1_000_000));
    assert_eq!(cost("{input: 1}", "nobody-knows-it", searched), None);
}

#[test]
fn what_was_served_in_the_us_alone_costs_a_share_more_for_its_tokens() {
    let price = price(
        "{input: 3, output: 15, us_inference: 10%, per_web_search: 0.01, service_tiers: {fast: {input: 30, output: 150}}}",
    );
    let usage = Usage { web_searches: 1, in_us: true, ..usage(1_001, 100) };
    assert_eq!(price.cost(&usage), Some(4_953_300 + 10_000_000));
    assert_eq!(price.cost(&Usage { in_us: false, ..usage }), Some(4_503_000 + 10_000_000));
    assert_eq!(price.cost(&Usage { tier: ServiceTier::Fast, ..usage }), Some(49_533_000 + 10_000_000));
}

#[test]
fn pictures_are_tokens_of_their_own_price() {
    let pictures =
        Usage { image_input_tokens: 600, image_output_tokens: 50, cached_input_tokens: 500, ..usage(1_000, 100) };
    let price = |pricing: &str| price(pricing).cost(&pictures).unwrap();
    assert_eq!(
        price("{input: 5, cached_input: 1, output: 10, image_input: 8, image_output: 32}"),
        500 * 1_000 + 500 * 8_000 + 50 * 32_000 + 50 * 10_000
    );
    assert_eq!(price("{input: 5, output: 10}"), 5_000_000 + 1_000_000);
}

#[test]
fn rounding_happens_once_at_the_end_and_difys_for_each_part() {
    assert_eq!(price("{input: 0.0004, output: 0.0004}").cost(&usage(1, 1)), Some(1), "0.4 + 0.4 nano-dollars");
    let dify = price("{input: 0.049, output: 0.05, rounding: dify}");
    assert_eq!(dify.cost(&usage(1, 1)), Some(100), "49 is rounded down to 0, 50 up to 100");
}

#[test]
fn a_long_prompt_is_paid_at_its_tier() {
    let price = price(
        "{input: 1, cached_input: 0.1, cache_write: 1.25, cache_write_1h: 2, output: 2, \
         tiers: [{above: 100, input: 10, cached_input: 1, cache_write: 12.5}, {above: 200, input: 30, output: 40}]}",
    );
    assert_eq!(price.cost(&usage(100, 0)), Some(100_000));
    assert_eq!(price.cost(&usage(101, 1)), Some(1_010_000 + 2_000));
    assert_eq!(price.cost(&Usage { cached_input_tokens: 101, ..usage(101, 0) }), Some(101_000));
    assert_eq!(price.cost(&Usage { cache_write_1h_tokens: 101, ..usage(101, 0) }), Some(1_262_500));
    assert_eq!(price.cost(&usage(201, 1)), Some(6_030_000 + 40_000));
}

#[test]
fn how_a_request_was_served_has_prices_of_its_own_for_prompts_of_any_length() {
    let price = price(
        "{input: 10, cached_input: 1, output: 50, tiers: [{above: 272k, input: 20, output: 75}], service_tiers: {\
         flex: {input: 5, output: 25}, priority: {input: 20, output: 100, tiers: [{above: 272k, input: 40, output: 150}]}}}",
    );
    let cost = |tier, input| price.cost(&Usage { tier, ..long(input) }).unwrap();
    assert_eq!(cost(ServiceTier::Standard, 1_000), 10_000_000 + 50_000_000);
    assert_eq!(cost(ServiceTier::Flex, 1_000), 5_000_000 + 25_000_000);
    assert_eq!(cost(ServiceTier::Priority, 1_000), 20_000_000 + 100_000_000);
    assert_eq!(cost(ServiceTier::Priority, 300_000), 12_000_000_000 + 150_000_000);
    // Nothing is said of long prompts with flex: they cost no less than what is usual.
    assert_eq!(cost(ServiceTier::Flex, 300_000), 6_000_000_000 + 75_000_000);
    // Nothing is said of batches at all, nor of what flex reads from a cache.
    assert_eq!(cost(ServiceTier::Batch, 1_000), cost(ServiceTier::Standard, 1_000));
    let cached = Usage { tier: ServiceTier::Flex, cached_input_tokens: 1_000, ..usage(1_000, 0) };
    assert_eq!(price.cost(&cached), Some(1_000_000));
}

#[test]
fn what_is_held_is_the_dearest_of_the_ways_to_be_served_that_may_apply() {
    let price = price(
        "{input: 10, output: 50, service_tiers: {flex: {input: 5, output: 25}, priority: {input: 20, output: 100}}}",
    );
    let worst = usage(1_000, 1_000);
    assert_eq!(price.bound(&worst, &[]), Some(60_000_000));
    assert_eq!(price.bound(&worst, &[ServiceTier::Flex]), Some(60_000_000));
    assert_eq!(price.bound(&worst, &[ServiceTier::Flex, ServiceTier::Priority]), Some(120_000_000));
}

/// A few prices with everything that a price can have.
const PRICES: &[&str] = &[
    "{input: 1.5, output: 3.7, cache_write: 1.9, tiers: [{above: 50, input: 2.1, output: 5.3}]}",
    "{input: 0.0015, cached_input: 0.00037, output: 0.0051, reasoning: 0.0093, rounding: dify}",
    "{input: 3, audio_input: 40, output: 15, audio_output: 80, per_request: 0.001, per: 1k}",
    "{input: 10, cached_input: 1, cache_write: 12.5, cache_write_1h: 20, output: 50, tiers: [{above: 300, input: 20, output: 75}], \
     service_tiers: {flex: {input: 5, output: 25}, priority: {input: 20, output: 100, tiers: [{above: 100, input: 41}]}, \
     fast: {output: 100, tiers: [{above: 700, cache_write_1h: 99}]}}}",
    "{input: 0.7, output: 0, per_image: 0.04, per_second: 0.0001, rounding: dify}",
    "{input: 3, output: 15, image_input: 7, image_output: 31, us_inference: 10%, per: 3}",
    "{input: 0.0031, output: 0.0157, us_inference: 12.34%, rounding: dify}",
];

prop_compose! {
    fn usages()(
        tokens in prop::array::uniform10(0_u64..1_000),
        in_us: bool,
        images in 0_u64..3,
        audio_ms in 0_u64..5_000,
        tier in prop::sample::select([&[ServiceTier::Standard], ALL].concat()),
    ) -> Usage {
        let [input_tokens, cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, ..] = tokens;
        let [.., image_input_tokens, image_output_tokens, audio_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens] = tokens;
        Usage {
            input_tokens, cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, audio_input_tokens,
            image_input_tokens, image_output_tokens,
            output_tokens, reasoning_tokens, audio_output_tokens, images, audio_ms, tier, in_us, ..Usage::default()
        }
    }
}

proptest! {
    /// No usage within the counts costs more than was held for them.
    #[test]
    fn no_usage_costs_more_than_its_bound(which in 0..PRICES.len(), usage in usages(), less in 0_u64..1_000) {
        let price = price(PRICES.get(which).unwrap());
        let bound = price.bound(&usage, ALL).unwrap();
        let used = Usage { output_tokens: usage.output_tokens.saturating_sub(less), ..usage };
        prop_assert!(price.cost(&used).unwrap() <= bound, "{used:?}");
        prop_assert!(price.cost(&used).unwrap() <= price.bound(&usage, &[usage.tier]).unwrap());
    }

    /// What is affordable is within what is left.
    #[test]
    fn what_is_affordable_can_be_held(which in 0..PRICES.len(), input in 0_u64..1_000, in_us: bool, left in 0_i64..3_000_000_000) {
        let price = price(PRICES.get(which).unwrap());
        let worst = |output| Usage { in_us, ..usage(input, output) };
        let Some(output) = price.affordable_output(left, &worst(0), ALL) else { return Ok(()) };
        prop_assert!(output == 0 || price.bound(&worst(output), ALL).unwrap() <= left, "{output}");
    }

    /// No counts are too large to be priced.
    #[test]
    fn any_counts_have_a_cost(which in 0..PRICES.len(), input: u64, output: u64, images: u64, audio_ms: u64) {
        let usage = Usage { images, audio_ms, ..usage(input, output) };
        let price = price(PRICES.get(which).unwrap());
        prop_assert!(price.cost(&usage).unwrap() >= 0);
        let _affordable = price.affordable_output(i64::MAX, &usage, ALL);
    }
}

#[test]
fn what_is_affordable_is_all_that_is_left() {
    let price = price("{input: 1.5, output: 3.7}");
    for left in [0, 1, 1_000, 1_234_500] {
        let output = price.affordable_output(left, &usage(10, 0), &[]).unwrap();
        assert!(price.bound(&usage(10, output + 1), &[]).unwrap() > left);
    }
}
