//! OpenAI's usage object, both ways. It counts inclusively: cached tokens are prompt tokens, reasoning is output.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::usage::{ServiceTier, Usage};

/// No request has more tokens than this; what says so counts something else.
const MOST_TOKENS: u64 = 1_000_000_000_000;

/// As a provider writes it; hosts of the same dialect leave out or null what they do not count, and write details in shapes
/// of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Read<'a> {
    #[serde(borrow)]
    prompt_tokens: Raw<'a>,
    completion_tokens: Raw<'a>,
    total_tokens: Raw<'a>,
    prompt_tokens_details: Raw<'a>,
    completion_tokens_details: Raw<'a>,
    prompt_cache_hit_tokens: Raw<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details<'a> {
    #[serde(borrow)]
    cached_tokens: Raw<'a>,
    cache_write_tokens: Raw<'a>,
    reasoning_tokens: Raw<'a>,
    audio_tokens: Raw<'a>,
}

/// A value of whatever shape; `None` where it is left out or null.
type Raw<'a> = Option<&'a RawValue>;

/// A value that is no count.
struct Odd;

fn count(raw: Raw<'_>) -> Result<Option<u64>, Odd> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let whole = || serde_json::from_str::<u64>(raw.get()).ok();
    let count = whole().or_else(|| fraction(raw.get())).filter(|count| *count <= MOST_TOKENS);
    count.map(Some).ok_or(Odd)
}

/// Some hosts write their counts with a point.
fn fraction(text: &str) -> Option<u64> {
    let count = serde_json::from_str::<f64>(text).ok().filter(|count| (0.0..=MOST_TOKENS as f64).contains(count))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was seen to be in range")]
    Some(count.ceil() as u64)
}

/// A count that says more of another one: where it is odd, that one holds all the same.
fn detail(raw: Raw<'_>) -> Option<u64> {
    count(raw).ok().flatten()
}

fn details(raw: Raw<'_>) -> Details<'_> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

impl Read<'_> {
    /// `None` where it counts nothing, or nothing that can be relied on.
    fn usage(&self) -> Option<Usage> {
        let (prompt, completion) = (count(self.prompt_tokens).ok()?, count(self.completion_tokens).ok()?);
        let total = detail(self.total_tokens);
        let rest = |of: Option<u64>| total.map(|total| total.saturating_sub(of.unwrap_or_default()));
        prompt.or(completion).or(total)?;
        let (input, output) = (details(self.prompt_tokens_details), details(self.completion_tokens_details));
        Some(Usage {
            input_tokens: prompt.or_else(|| rest(completion)).unwrap_or_default(),
            cached_input_tokens: detail(input.cached_tokens)
                .or_else(|| detail(self.prompt_cache_hit_tokens))
                .unwrap_or_default(),
            cache_write_tokens: detail(input.cache_write_tokens).unwrap_or_default(),
            output_tokens: completion.or_else(|| rest(prompt).filter(|_| prompt.is_some())).unwrap_or_default(),
            reasoning_tokens: detail(output.reasoning_tokens).unwrap_or_default(),
            audio_input_tokens: detail(input.audio_tokens).unwrap_or_default(),
            audio_output_tokens: detail(output.audio_tokens).unwrap_or_default(),
            ..Usage::default()
        })
    }
}

/// Reads a raw usage object of an answer that was served in this tier; `None` where it is null, counts nothing, or has another
/// shape.
#[must_use]
pub fn read(raw: &[u8], tier: ServiceTier) -> Option<Usage> {
    let read = serde_json::from_slice::<Option<Read<'_>>>(raw).ok().flatten()?;
    Some(Usage { tier, ..read.usage()? })
}

/// An answer, as far as it says something.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    #[serde(borrow)]
    message: Option<Message<'a>>,
    text: Raw<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    content: Raw<'a>,
    reasoning_content: Raw<'a>,
    refusal: Raw<'a>,
    tool_calls: Raw<'a>,
}

impl Choice<'_> {
    fn length(&self) -> usize {
        let said = |message: &Message<'_>| {
            [message.content, message.reasoning_content, message.refusal, message.tool_calls].map(length).iter().sum()
        };
        length(self.text) + self.message.as_ref().map_or(0, said)
    }
}

fn length(raw: Raw<'_>) -> usize {
    raw.map_or(0, |raw| raw.get().trim_matches('"').len())
}

/// How many bytes of a whole answer the model has written: what its tokens are estimated by where nobody counted them.
#[must_use]
pub fn content_length(answer: &[u8]) -> usize {
    let answer = serde_json::from_slice::<Answer<'_>>(answer).unwrap_or_default();
    answer.choices.iter().map(Choice::length).sum()
}

/// As Weir writes it for providers of other dialects.
#[derive(Debug, Serialize)]
pub struct Written {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: WrittenPrompt,
    completion_tokens_details: WrittenCompletion,
}

#[derive(Debug, Serialize)]
struct WrittenPrompt {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Debug, Serialize)]
struct WrittenCompletion {
    reasoning_tokens: u64,
}

impl From<Usage> for Written {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.total_tokens(),
            prompt_tokens_details: WrittenPrompt {
                cached_tokens: usage.cached_input_tokens,
                cache_write_tokens: usage.cache_write_tokens.saturating_add(usage.cache_write_1h_tokens),
            },
            completion_tokens_details: WrittenCompletion { reasoning_tokens: usage.reasoning_tokens },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens in, cached, and out.
    fn counts(raw: &str) -> Option<(u64, u64, u64)> {
        let usage = read(raw.as_bytes(), ServiceTier::Standard)?;
        Some((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens))
    }

    #[test]
    fn a_usage_that_counts_nothing_is_none_and_an_explicit_zero_is_one() {
        for nothing in [
            "null",
            "{}",
            "[]",
            r#"{"prompt_tokens":null,"completion_tokens":null,"total_tokens":null}"#,
            r#"{"prompt_tokens_details":{"cached_tokens":3}}"#,
            r#"{"prompt_tokens":-1,"completion_tokens":5}"#,
            r#"{"prompt_tokens":10,"completion_tokens":"5"}"#,
            r#"{"prompt_tokens":18446744073709551615,"completion_tokens":5}"#,
            r#"{"prompt_tokens":1e300,"completion_tokens":5}"#,
        ] {
            assert_eq!(counts(nothing), None, "{nothing}");
        }
        assert_eq!(counts(r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#), Some((0, 0, 0)));
        assert_eq!(counts(r#"{"total_tokens":15}"#), Some((15, 0, 0)));
        assert_eq!(counts(r#"{"prompt_tokens":10,"total_tokens":15}"#), Some((10, 0, 5)));
        assert_eq!(counts(r#"{"completion_tokens":5,"total_tokens":15}"#), Some((10, 0, 5)));
    }

    #[test]
    fn what_a_model_has_written_is_its_content_and_not_what_is_around_it() {
        let call = r#"[{"function":{"name":"f","arguments":"{}"}}]"#;
        for (answer, length) in [
            (r#"{"id":"c","choices":[{"message":{"role":"assistant","content":"hi"}}],"x_unknown":"a long text"}"#, 2),
            (r#"{"choices":[{"text":"one"},{"text":"three"}]}"#, 8),
            (r#"{"choices":[{"message":{"content":null,"reasoning_content":"so"}}]}"#, 2),
            (r#"{"object":"list","data":[{"embedding":[0.1,0.2]}]}"#, 0),
            (&format!(r#"{{"choices":[{{"message":{{"content":"","tool_calls":{call}}}}}]}}"#), call.len()),
        ] {
            assert_eq!(content_length(answer.as_bytes()), length, "{answer}");
        }
    }

    #[test]
    fn an_odd_detail_leaves_the_rest_as_it_is() {
        for odd in ["[]", "7", "\"x\"", "null", r#"{"cached_tokens":-3}"#, r#"{"cached_tokens":[1]}"#] {
            let raw = format!(r#"{{"prompt_tokens":10,"completion_tokens":5.0,"prompt_tokens_details":{odd}}}"#);
            assert_eq!(counts(&raw), Some((10, 0, 5)), "{raw}");
        }
        let raw = r#"{"prompt_tokens":10.0,"completion_tokens":4.2,"total_tokens":"x","prompt_tokens_details":{"cached_tokens":8,"audio_tokens":"x"}}"#;
        assert_eq!(counts(raw), Some((10, 8, 5)));
    }
}
