//! One row of the ledger: what one request was, used and cost.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One row. As JSON it is what `GET /v1/usage/{id}` answers; on the disk it is MessagePack without names, so a field may be
/// added at the end (with a default) and none may move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Row")]
pub struct Row<'a> {
    /// The request's id, which may be the caller's own.
    pub request_id: Cow<'a, str>,
    /// Who pays.
    pub tenant: Cow<'a, str>,
    /// The key's id.
    pub key: Cow<'a, str>,
    /// The configured model; empty if it did not come to that.
    pub model: Cow<'a, str>,
    /// The model's type.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// The status that the caller got, 499 for one that left.
    pub status: Option<u16>,
    /// The word of `x-weir-error`.
    pub error: Option<Cow<'a, str>>,
    /// How far `usage` is to be relied on.
    pub accuracy: Accuracy,
    /// Who answered, or was asked last.
    pub provider: Option<Cow<'a, str>>,
    /// The provider's name for the model.
    pub upstream_model: Option<Cow<'a, str>>,
    /// The credential's id.
    pub credential: Option<Cow<'a, str>>,
    /// What was used.
    pub usage: Counts,
    /// What that cost, in nano-dollars; `None` without a price.
    #[serde(rename = "cost_usd", with = "dollars")]
    #[schemars(with = "Option<f64>")]
    pub cost: Option<i64>,
    /// Where it went, in order.
    pub attempts: Vec<Attempt<'a>>,
    /// When the request's head had come.
    #[serde(with = "moment")]
    #[schemars(with = "String")]
    pub started_at: Timestamp,
    /// From then to the first content.
    pub first_byte_ms: Option<u64>,
    /// From then to the end.
    pub duration_ms: u64,
    /// What the caller named it with.
    #[serde(default)]
    pub tags: Vec<Cow<'a, str>>,
    /// How the provider served it, as far as that has prices of its own: by these it was priced, where there were some.
    #[serde(default)]
    pub service_tier: Option<Cow<'a, str>>,
    /// Where it was served, where that costs more: `us`.
    #[serde(default)]
    pub inference_geo: Option<Cow<'a, str>>,
}

impl Row<'_> {
    /// What it cost in dollars, with every digit.
    #[must_use]
    pub fn cost_usd(&self) -> Option<String> {
        self.cost.map(dollars::text)
    }

    /// Whether something was answered or used for which there was no price. Who was refused before a provider was asked, or
    /// by a provider that did nothing, used nothing.
    pub(super) fn is_unpriced(&self) -> bool {
        self.cost.is_none() && (self.error.is_none() || self.usage != Counts::default())
    }
}

/// How far a count is to be relied on; the least reliable last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accuracy {
    /// The provider counted, to the end.
    Exact,
    /// The provider counted a part: until the answer broke off, or only what went in.
    Partial,
    /// The provider did not count.
    Estimated,
}

impl Accuracy {
    /// Its word in rows and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Partial => "partial",
            Self::Estimated => "estimated",
        }
    }
}

/// Where a request went once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Attempt")]
pub struct Attempt<'a> {
    /// The target's name, such as `openai/gpt-5.5`.
    pub target: Cow<'a, str>,
    /// The credential's id.
    pub credential: Option<Cow<'a, str>>,
    /// `ok`, or the word of the error.
    pub outcome: Cow<'a, str>,
    /// The provider's status.
    pub status: Option<u16>,
    /// How long it took.
    pub ms: u64,
    /// What it used though it did not answer: its part of the row's usage and cost. `None` for the one that answered, and
    /// where the provider refused or was not reached.
    #[serde(default)]
    pub spent: Option<Spent>,
}

/// What an attempt used that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spent {
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// What that cost, in nano-dollars; `None` without a price.
    #[serde(rename = "cost_usd", with = "dollars")]
    #[schemars(with = "Option<f64>")]
    pub cost: Option<i64>,
    /// How far the count is to be relied on.
    pub accuracy: Accuracy,
}

/// What a request used; input and output as in [`adapters::Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// All input tokens.
    pub input_tokens: u64,
    /// Those that were read from a cache.
    pub cached_input_tokens: u64,
    /// Those that were written to one.
    pub cache_write_tokens: u64,
    /// All output tokens.
    pub output_tokens: u64,
    /// Those that were spent on reasoning.
    pub reasoning_tokens: u64,
    /// Tokens of either kind that were audio.
    pub audio_tokens: u64,
    /// Images made.
    pub images: u64,
    /// Characters spoken.
    pub characters: u64,
    /// Seconds of audio.
    pub seconds: f64,
    /// Units of search, as rerankers count.
    pub search_units: u64,
    /// Tokens of either kind that were pictures.
    pub image_tokens: u64,
    /// Searches of the web that the provider made for the model.
    pub web_searches: u64,
}

impl Counts {
    /// Adds what another request used.
    pub(super) fn add(&mut self, other: Self) {
        let add = |to: &mut u64, count: u64| *to = to.saturating_add(count);
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.cached_input_tokens, other.cached_input_tokens);
        add(&mut self.cache_write_tokens, other.cache_write_tokens);
        add(&mut self.output_tokens, other.output_tokens);
        add(&mut self.reasoning_tokens, other.reasoning_tokens);
        add(&mut self.audio_tokens, other.audio_tokens);
        add(&mut self.images, other.images);
        add(&mut self.characters, other.characters);
        self.seconds += other.seconds;
        add(&mut self.search_units, other.search_units);
        add(&mut self.image_tokens, other.image_tokens);
        add(&mut self.web_searches, other.web_searches);
    }
}

impl From<adapters::Usage> for Counts {
    fn from(usage: adapters::Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            cache_write_tokens: usage.cache_write_tokens.saturating_add(usage.cache_write_1h_tokens),
            output_tokens: usage.output_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            audio_tokens: usage.audio_tokens(),
            images: usage.images,
            characters: usage.characters,
            seconds: Duration::from_millis(usage.audio_ms).as_secs_f64(),
            search_units: usage.search_units,
            image_tokens: usage.image_tokens(),
            web_searches: usage.web_searches,
        }
    }
}

/// An amount that an account is charged with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Charge {
    /// The account's stable id, such as `tenant/acme/usd/month`. It holds no byte 0.
    pub account: Arc<str>,
    /// The window, by the Unix second of its start; 0 for an account without windows.
    pub window: i64,
    /// Nano-dollars or plain counts.
    pub amount: i64,
}

/// A moment: RFC 3339 for people, microseconds since 1970 on the disk.
pub(super) mod moment {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(moment: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { moment.serialize(to) } else { to.serialize_i64(moment.as_microsecond()) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        if from.is_human_readable() {
            return Timestamp::deserialize(from);
        }
        Timestamp::from_microsecond(i64::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Money: a JSON number of dollars with every digit of its nano-dollars, and nano-dollars on the disk.
pub(super) mod dollars {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
    use serde_json::value::RawValue;

    const NANO: u64 = 1_000_000_000;

    /// How many characters an amount takes at most.
    const LONGEST: usize = 24;

    pub(crate) fn serialize<S: Serializer>(nanos: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
        if !to.is_human_readable() {
            return nanos.serialize(to);
        }
        let number = nanos.map(|nanos| RawValue::from_string(text(nanos))).transpose();
        number.map_err(S::Error::custom)?.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
        if !from.is_human_readable() {
            return Option::deserialize(from);
        }
        let number = Option::<Box<RawValue>>::deserialize(from)?;
        let no_amount = || D::Error::custom("an amount of dollars has at most nine digits behind its point");
        number.map(|number| parse(number.get()).ok_or_else(no_amount)).transpose()
    }

    /// Dollars, with as many digits behind the point as it takes.
    pub(crate) fn text(nanos: i64) -> String {
        let sign = if nanos < 0 { "-" } else { "" };
        let (whole, rest) = (nanos.unsigned_abs() / NANO, nanos.unsigned_abs() % NANO);
        let mut text = String::with_capacity(LONGEST);
        text.extend([sign, itoa::Buffer::new().format(whole)]);
        if rest > 0 {
            text.push('.');
            // With a one in front, its zeros keep their places.
            let (mut digits, rest) = (itoa::Buffer::new(), NANO + rest);
            text.push_str(digits.format(rest).split_at(1).1.trim_end_matches('0'));
        }
        text
    }

    pub(crate) fn parse(text: &str) -> Option<i64> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
        let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || rest.len() > 9 || !whole.bytes().chain(rest.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let nanos: i128 = format!("{whole}{rest:0<9}").parse().ok()?;
        i64::try_from(sign * nanos).ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn row(id: &str) -> Row<'static> {
        Row {
            request_id: id.to_owned().into(),
            tenant: "acme".into(),
            key: "ci".into(),
            model: "gpt-main".into(),
            kind: "llm".into(),
            status: Some(200),
            error: None,
            accuracy: Accuracy::Exact,
            provider: Some("openai".into()),
            upstream_model: Some("gpt-5.5".into()),
            credential: Some("oa-1".into()),
            usage: Counts { input_tokens: 1_000, output_tokens: 20, ..Counts::default() },
            cost: Some(1_450_000),
            attempts: vec![Attempt {
                target: "openai/gpt-5.5".into(),
                credential: Some("oa-1".into()),
                outcome: "ok".into(),
                status: Some(200),
                ms: 812,
                spent: None,
            }],
            started_at: Timestamp::from_microsecond(1_795_406_400_123_456).unwrap(),
            first_byte_ms: Some(301),
            duration_ms: 815,
            tags: vec!["team-a".into()],
            service_tier: Some("priority".into()),
            inference_geo: None,
        }
    }

    #[test]
    fn a_row_is_the_contracts_json_and_survives_both_ways() {
        let row = row("req_1");
        let json = serde_json::to_string(&row).unwrap();
        let expected = concat!(
            r#"{"request_id":"req_1","tenant":"acme","key":"ci","model":"gpt-main","type":"llm","status":200,"error":null,"#,
            r#""accuracy":"exact","provider":"openai","upstream_model":"gpt-5.5","credential":"oa-1","usage":{"#,
            r#""input_tokens":1000,"cached_input_tokens":0,"cache_write_tokens":0,"output_tokens":20,"#,
            r#""reasoning_tokens":0,"audio_tokens":0,"images":0,"characters":0,"seconds":0.0,"search_units":0,"image_tokens":0,"web_searches":0},"#,
            r#""cost_usd":0.00145,"attempts":[{"target":"openai/gpt-5.5","credential":"oa-1","outcome":"ok","status":200,"#,
            r#""ms":812,"spent":null}],"started_at":"2026-11-23T04:00:00.123456Z","first_byte_ms":301,"duration_ms":815,"#,
            r#""tags":["team-a"],"service_tier":"priority","#,
            r#""inference_geo":null}"#,
        );
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Row<'_>>(&json).unwrap(), row);
        let packed = rmp_serde::to_vec(&row).unwrap();
        assert!(packed.len() < 200, "{} bytes", packed.len());
        assert_eq!(rmp_serde::from_slice::<Row<'_>>(&packed).unwrap(), row);
    }

    #[test]
    fn a_row_of_before_is_read_with_what_it_did_not_have_left_out() {
        let new = Row { service_tier: None, ..row("req_1") };
        let who = ("req_1", "acme", "ci", "gpt-main", "llm", Some(200), None::<&str>, Accuracy::Exact);
        let counts = [1_000_u64, 0, 0, 20, 0, 0, 0, 0, 0, 0];
        let what = (Some("openai"), Some("gpt-5.5"), Some("oa-1"), counts, Some(1_450_000));
        let attempts = [("openai/gpt-5.5", Some("oa-1"), "ok", Some(200), 812)];
        let when = (1_795_406_400_123_456_i64, Some(301), 815, ["team-a"]);
        // On the disk all of it is one array of eighteen.
        let [who, what, when] =
            [rmp_serde::to_vec(&who), rmp_serde::to_vec(&what), rmp_serde::to_vec(&when)].map(Result::unwrap);
        let attempts = rmp_serde::to_vec(&attempts).unwrap();
        let packed = [&[0xdc, 0, 18], &who[1..], &what[1..], &attempts, &when[1..]].concat();
        assert_eq!(rmp_serde::from_slice::<Row<'_>>(&packed).unwrap(), new);
        let json = serde_json::to_string(&new).unwrap();
        let json = json.replace(r#","service_tier":null,"inference_geo":null"#, "").replace(r#","spent":null"#, "");
        assert_eq!(serde_json::from_str::<Row<'_>>(&json).unwrap(), new);
    }

    #[test]
    fn a_cost_that_nobody_knows_is_null_and_none_at_all_is_0() {
        let cost = |cost| serde_json::to_value(Row { cost, ..row("a") }).unwrap()["cost_usd"].clone();
        assert_eq!((cost(None), cost(Some(0))), (serde_json::Value::Null, 0.into()));
    }

    #[test]
    fn what_is_no_amount_of_nano_dollars_is_refused() {
        for text in ["1e3", "1.0000000001", "99999999999999999999", ".", "--1", "1.-5"] {
            assert_eq!(dollars::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn dollars_keep_every_digit(nanos: i64) {
            let text = dollars::text(nanos);
            prop_assert_eq!(dollars::parse(&text), Some(nanos));
            let number: serde_json::Number = serde_json::from_str(&text).unwrap();
            prop_assert!(number.as_f64().is_some());
        }
    }
}
