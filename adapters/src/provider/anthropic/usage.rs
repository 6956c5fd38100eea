//! Anthropic's usage. It counts exclusively: `input_tokens` are those that were neither read from nor written to a
//! cache.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::usage::{Counted, Extent, ServiceTier, Usage};

/// As one event or answer tells it; what it leaves out was told before or is nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Told {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "if_known")]
    cache_creation: Option<CacheCreation>,
    #[serde(default, deserialize_with = "if_known")]
    output_tokens_details: Option<OutputDetails>,
    #[serde(default, deserialize_with = "if_known")]
    service_tier: Option<Tier>,
    #[serde(default, deserialize_with = "if_known")]
    speed: Option<Speed>,
    #[serde(default, deserialize_with = "if_known")]
    server_tool_use: Option<ServerTools>,
    #[serde(default, deserialize_with = "if_known")]
    inference_geo: Option<Geo>,
    /// What the other counts do not hold.
    #[serde(rename = "iterations")]
    beside: Option<Beside>,
}

/// A detail whose shape is not known says nothing, and spoils no count.
fn if_known<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// What compactions and advisors used: the steps that led to an answer name them, and no other count holds them.
#[derive(Clone, Copy, Debug, Default)]
struct Beside(Usage);

/// One step of those that led to an answer.
#[derive(Deserialize)]
struct Iteration {
    #[serde(rename = "type")]
    kind: IterationKind,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum IterationKind {
    Compaction,
    /// By another model; its tokens are counted as the asked one's, since an answer has one price.
    AdvisorMessage,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Beside {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let all: Vec<Iteration> = serde_json::from_str(raw.get()).unwrap_or_default();
        let beside = all.into_iter().filter(|one| one.kind != IterationKind::Other);
        Ok(Self(beside.fold(Usage::default(), |all, one| all.and(&Usage::from(Told::from(one))))))
    }
}

impl From<Iteration> for Told {
    fn from(one: Iteration) -> Self {
        Self {
            input_tokens: one.input_tokens,
            output_tokens: one.output_tokens,
            cache_read_input_tokens: one.cache_read_input_tokens,
            cache_creation_input_tokens: one.cache_creation_input_tokens,
            cache_creation: one.cache_creation,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct ServerTools {
    web_search_requests: Option<u64>,
}

/// Where the model ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Geo {
    /// In the US and nowhere else, as was asked.
    Us,
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tier {
    Standard,
    Priority,
    Batch,
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Speed {
    Fast,
    #[serde(other)]
    Other,
}

impl Told {
    /// Reads a raw usage; one that can't be read counts nothing, and costs nobody the answer.
    pub(super) fn read(raw: &RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// Takes over what a later word tells anew.
    pub(super) fn update(&mut self, later: &Self) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_read_input_tokens = later.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.cache_creation_input_tokens = later.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_creation = later.cache_creation.or(self.cache_creation);
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details);
        self.service_tier = later.service_tier.or(self.service_tier);
        self.speed = later.speed.or(self.speed);
        self.server_tool_use = later.server_tool_use.or(self.server_tool_use);
        self.inference_geo = later.inference_geo.or(self.inference_geo);
        self.beside = later.beside.or(self.beside);
    }

    /// What it counts, which is nothing where it names neither what went in nor what came out. What came out counts as
    /// it is told at the `end`; before, it is not known yet.
    pub(super) fn counted(&self, end: &Self) -> Option<Counted> {
        self.input_tokens.or(self.output_tokens)?;
        let extent = if end.output_tokens.is_some() { Extent::Whole } else { Extent::Input };
        Some(Counted { usage: Usage::from(*self), extent })
    }

    /// The tier that served, in OpenAI's words.
    pub(super) fn tier(&self) -> Option<&'static str> {
        match self.service_tier? {
            Tier::Standard => Some("default"),
            Tier::Priority => Some("priority"),
            Tier::Batch | Tier::Other => None,
        }
    }

    fn priced_as(&self) -> ServiceTier {
        match (self.speed, self.service_tier) {
            (Some(Speed::Fast), _) => ServiceTier::Fast,
            (_, Some(Tier::Priority)) => ServiceTier::Priority,
            (_, Some(Tier::Batch)) => ServiceTier::Batch,
            (_, Some(Tier::Standard | Tier::Other) | None) => ServiceTier::Standard,
        }
    }
}

impl From<Told> for Usage {
    fn from(told: Told) -> Self {
        let shares = told.cache_creation.unwrap_or_default();
        let for_an_hour = shares.ephemeral_1h_input_tokens.unwrap_or_default();
        let for_minutes = match told.cache_creation_input_tokens {
            Some(all) => all.saturating_sub(for_an_hour),
            None => shares.ephemeral_5m_input_tokens.unwrap_or_default(),
        };
        let read = told.cache_read_input_tokens.unwrap_or_default();
        let fresh = told.input_tokens.unwrap_or_default();
        let own = Self {
            input_tokens: fresh.saturating_add(read).saturating_add(for_minutes).saturating_add(for_an_hour),
            cached_input_tokens: read,
            cache_write_tokens: for_minutes,
            cache_write_1h_tokens: for_an_hour,
            output_tokens: told.output_tokens.unwrap_or_default(),
            reasoning_tokens: told.output_tokens_details.and_then(|d| d.thinking_tokens).unwrap_or_default(),
            web_searches: told.server_tool_use.and_then(|tools| tools.web_search_requests).unwrap_or_default(),
            in_us: told.inference_geo == Some(Geo::Us),
            tier: told.priced_as(),
            ..Self::default()
        };
        own.and(&told.beside.unwrap_or_default().0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn told(json: &str) -> Told {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn cached_tokens_are_counted_into_the_input_once() {
        let usage = Usage::from(told(
            r#"{"input_tokens":10,"cache_read_input_tokens":100,"cache_creation_input_tokens":30,"output_tokens":5,
                "cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":10},
                "output_tokens_details":{"thinking_tokens":3},"service_tier":"standard"}"#,
        ));
        assert_eq!(usage.input_tokens, 140);
        assert_eq!((usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens), (100, 20, 10));
        assert_eq!((usage.output_tokens, usage.reasoning_tokens), (5, 3));
    }

    #[test]
    fn what_came_out_counts_as_it_is_told_at_the_end() {
        let counted = |all: &str, end: &str| told(all).counted(&told(end)).map(|counted| counted.extent);
        let all = r#"{"input_tokens":10,"output_tokens":1}"#;
        assert_eq!(counted(all, "{}"), Some(Extent::Input));
        assert_eq!(counted(all, r#"{"output_tokens":null}"#), Some(Extent::Input));
        assert_eq!(counted(all, r#"{"output_tokens":0}"#), Some(Extent::Whole));
        assert_eq!(counted("{}", "{}"), None);
    }

    #[test]
    fn the_tier_that_served_is_the_one_that_is_paid_for() {
        let tier = |json: &str| Usage::from(told(json)).tier;
        assert_eq!(tier(r#"{"service_tier":"batch"}"#), ServiceTier::Batch);
        assert_eq!(tier(r#"{"service_tier":"priority","speed":"standard"}"#), ServiceTier::Priority);
        assert_eq!(tier(r#"{"service_tier":"standard","speed":"fast"}"#), ServiceTier::Fast);
        assert_eq!(tier(r#"{"service_tier":"new","speed":"warp"}"#), ServiceTier::Standard);
        let mut streamed = told(r#"{"input_tokens":1,"service_tier":"priority"}"#);
        streamed.update(&told(r#"{"output_tokens":2}"#));
        assert_eq!(Usage::from(streamed).tier, ServiceTier::Priority);
    }

    #[test]
    fn what_compactions_and_advisors_used_is_counted_once_and_the_other_steps_not_again() {
        let usage = Usage::from(told(
            r#"{"input_tokens":1000,"output_tokens":100,"service_tier":"priority","iterations":[
                {"type":"compaction","input_tokens":180000,"output_tokens":3500,"cache_read_input_tokens":20,
                 "cache_creation_input_tokens":7,"cache_creation":{"ephemeral_1h_input_tokens":7}},
                {"type":"advisor_message","model":"claude-opus-5","input_tokens":50,"output_tokens":5},
                {"type":"message","input_tokens":1000,"output_tokens":100},{"type":"new"}]}"#,
        ));
        assert_eq!((usage.input_tokens, usage.output_tokens), (1000 + 180_027 + 50, 3605));
        assert_eq!(
            (usage.cached_input_tokens, usage.cache_write_1h_tokens, usage.tier),
            (20, 7, ServiceTier::Priority)
        );
        let odd = Usage::from(told(r#"{"input_tokens":1,"iterations":{"odd":true}}"#));
        assert_eq!(odd.input_tokens, 1);
    }

    #[test]
    fn an_odd_detail_spoils_no_count() {
        let odd = told(
            r#"{"input_tokens":10,"output_tokens":5,"cache_creation":[],"output_tokens_details":7,"speed":1.5,
            "service_tier":null,"server_tool_use":"none","inference_geo":{}}"#,
        );
        assert_eq!(Usage::from(odd), Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() });
    }

    #[test]
    fn the_last_word_wins_and_a_zero_is_a_word() {
        let mut all = told(r#"{"input_tokens":10,"cache_read_input_tokens":7,"output_tokens":1}"#);
        all.update(&told(r#"{"input_tokens":0,"cache_read_input_tokens":null,"output_tokens":9}"#));
        let usage = Usage::from(all);
        assert_eq!((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens), (7, 7, 9));
    }
}
