//! OpenAI's usage object, both ways. It counts inclusively: cached tokens are prompt tokens, reasoning is output.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::index::Index;
use crate::openai::texts;
use crate::usage::{Counted, Extent, ServiceTier, Usage};

/// No request has more tokens than this; what says so counts something else.
const MOST_TOKENS: u64 = 1_000_000_000_000;

/// A raw value; `None` where it is left out.
type Value<'a> = Option<&'a [u8]>;

/// A value that is no count.
struct Odd;

/// Hosts of this dialect leave out or null what they do not count.
fn count(raw: Value<'_>) -> Result<Option<u64>, Odd> {
    let Some(raw) = raw.filter(|raw| *raw != b"null") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(raw).map_err(|_| Odd)?;
    let count = text.parse().ok().or_else(|| fraction(text)).filter(|count| *count <= MOST_TOKENS);
    count.map(Some).ok_or(Odd)
}

/// Some hosts write their counts with a point.
fn fraction(text: &str) -> Option<u64> {
    let count = serde_json::from_str::<f64>(text).ok().filter(|count| (0.0..=MOST_TOKENS as f64).contains(count))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was seen to be in range")]
    Some(count.ceil() as u64)
}

/// A count that says more of another one: where it is odd, that one holds all the same.
fn detail(raw: Value<'_>) -> Option<u64> {
    count(raw).ok().flatten()
}

/// The details of these names in an object, of whatever shape it is, which is read into `index`.
fn details<const N: usize>(index: &mut Index, raw: Value<'_>, names: [&str; N]) -> [Option<u64>; N] {
    match raw {
        Some(raw) if index.read(raw).is_ok() => index.values(raw, names).map(detail),
        _ => [None; N],
    }
}

/// Reads a raw usage object of an answer that was served in this tier; `None` where it is null, counts nothing, or has
/// another shape.
#[must_use]
pub fn read(raw: &[u8], tier: ServiceTier) -> Option<Counted> {
    let mut index = Index::of(raw).ok()?;
    let [prompt, completion, total] = index.values(raw, ["prompt_tokens", "completion_tokens", "total_tokens"]);
    let [input, output, hits] =
        index.values(raw, ["prompt_tokens_details", "completion_tokens_details", "prompt_cache_hit_tokens"]);
    // OpenRouter's, who has it from Anthropic, and Perplexity's.
    let [tools, queries] = index.values(raw, ["server_tool_use", "num_search_queries"]);
    let (prompt, completion, total) = (count(prompt).ok()?, count(completion).ok()?, detail(total));
    prompt.or(completion).or(total)?;
    let beside_completion = || total.map(|total| total.saturating_sub(completion.unwrap_or_default()));
    let [cached, written, audio_input, image_input] =
        details(&mut index, input, ["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens"]);
    let [reasoning, audio_output, image_output] =
        details(&mut index, output, ["reasoning_tokens", "audio_tokens", "image_tokens"]);
    let [searches] = details(&mut index, tools, ["web_search_requests"]);
    let all_output = all_output(prompt, completion, total, cached.unwrap_or_default());
    let usage = Usage {
        tier,
        input_tokens: prompt.or_else(beside_completion).unwrap_or_default(),
        cached_input_tokens: cached.or_else(|| detail(hits)).unwrap_or_default(),
        cache_write_tokens: written.unwrap_or_default(),
        output_tokens: all_output.unwrap_or_default(),
        reasoning_tokens: reasoning.unwrap_or_default(),
        audio_input_tokens: audio_input.unwrap_or_default(),
        audio_output_tokens: audio_output.unwrap_or_default(),
        image_input_tokens: image_input.unwrap_or_default(),
        image_output_tokens: image_output.unwrap_or_default(),
        web_searches: searches.or_else(|| detail(queries)).unwrap_or_default(),
        ..Usage::default()
    };
    // A total that is no more than its prompt says nothing of what came out either.
    let tells_output = completion.is_some() || prompt.is_none() || all_output.is_some_and(|output| output > 0);
    Some(Counted { usage, extent: if tells_output { Extent::Whole } else { Extent::Input } })
}

/// All output. What a total holds beyond prompt and completion is the reasoning that xAI and Gemini leave out of the
/// latter, unless it is just what was read from a cache, which some leave out of the former.
fn all_output(prompt: Option<u64>, completion: Option<u64>, total: Option<u64>, cached: u64) -> Option<u64> {
    let beside_prompt = prompt.zip(total).map(|(prompt, total)| total.saturating_sub(prompt));
    let (Some(completion), Some(beside_prompt)) = (completion, beside_prompt) else {
        return completion.or(beside_prompt);
    };
    let left_out = beside_prompt.saturating_sub(completion);
    Some(if left_out == cached { completion } else { completion.saturating_add(left_out) })
}

/// A part of it, of whatever shape; `None` where it is left out or null.
type Raw<'a> = Option<&'a RawValue>;

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
    reasoning: Raw<'a>,
    refusal: Raw<'a>,
    tool_calls: Raw<'a>,
    function_call: Raw<'a>,
}

impl Choice<'_> {
    fn length(&self) -> usize {
        length(self.text) + self.message.as_ref().map_or(0, Message::length)
    }
}

impl Message<'_> {
    fn length(&self) -> usize {
        // Some hosts tell it under both names.
        let thoughts = length(self.reasoning_content).max(length(self.reasoning));
        let said = [self.content, self.refusal, self.tool_calls, self.function_call].map(length);
        said.iter().sum::<usize>() + thoughts
    }
}

fn length(raw: Raw<'_>) -> usize {
    let json = raw.map_or("", RawValue::get);
    let text = json.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    text.map_or_else(|| texts::length(json.as_bytes()), str::len)
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
        let usage = read(raw.as_bytes(), ServiceTier::Standard)?.usage;
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
    fn a_usage_without_a_word_of_the_output_is_of_the_input() {
        let extent = |raw: &str| read(raw.as_bytes(), ServiceTier::Standard).map(|counted| counted.extent);
        for input in [
            r#"{"prompt_tokens":10}"#,
            r#"{"prompt_tokens":10,"total_tokens":10}"#,
            r#"{"prompt_tokens":10,"completion_tokens":null,"total_tokens":null}"#,
        ] {
            assert_eq!((extent(input), counts(input)), (Some(Extent::Input), Some((10, 0, 0))), "{input}");
        }
        for whole in [
            r#"{"prompt_tokens":10,"completion_tokens":0}"#,
            r#"{"prompt_tokens":10,"completion_tokens":0,"total_tokens":10}"#,
            r#"{"prompt_tokens":10,"total_tokens":15}"#,
            r#"{"completion_tokens":5}"#,
            r#"{"total_tokens":15}"#,
        ] {
            assert_eq!(extent(whole), Some(Extent::Whole), "{whole}");
        }
    }

    #[test]
    fn reasoning_that_a_host_counts_in_its_total_only_is_output() {
        let xai = r#"{"prompt_tokens":10,"completion_tokens":8,"total_tokens":118,"completion_tokens_details":{"reasoning_tokens":100}}"#;
        assert_eq!(counts(xai), Some((10, 0, 108)));
        assert_eq!(counts(r#"{"prompt_tokens":5,"completion_tokens":9,"total_tokens":93}"#), Some((5, 0, 88)));
        let only_thought = r#"{"prompt_tokens":21,"completion_tokens":0,"total_tokens":81,"completion_tokens_details":{"reasoning_tokens":60}}"#;
        assert_eq!(counts(only_thought), Some((21, 0, 60)));
    }

    #[test]
    fn a_total_that_says_no_more_than_its_parts_changes_nothing() {
        for total in ["15", "0", "14", "null", "\"x\"", "15.0"] {
            let raw = format!(
                r#"{{"prompt_tokens":10,"completion_tokens":5,"total_tokens":{total},"completion_tokens_details":{{"reasoning_tokens":4}}}}"#
            );
            assert_eq!(counts(&raw), Some((10, 0, 5)), "{raw}");
        }
        let cached_outside = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":105,"prompt_tokens_details":{"cached_tokens":90}}"#;
        assert_eq!(counts(cached_outside), Some((10, 90, 5)));
    }

    #[test]
    fn what_a_model_has_written_is_its_content_and_not_what_is_around_it() {
        let call = r#"[{"function":{"name":"f","arguments":"{}"}}]"#;
        for (answer, length) in [
            (r#"{"id":"c","choices":[{"message":{"role":"assistant","content":"hi"}}],"x_unknown":"a long text"}"#, 2),
            (r#"{"choices":[{"text":"one"},{"text":"three"}]}"#, 8),
            (r#"{"choices":[{"message":{"content":null,"reasoning_content":"so"}}]}"#, 2),
            (r#"{"object":"list","data":[{"embedding":[0.1,0.2]}]}"#, 0),
            (r#"{"choices":[{"message":{"content":null,"reasoning":"so","reasoning_content":"so"}}]}"#, 2),
            (r#"{"choices":[{"message":{"content":[{"type":"text","text":"hi"}]}}]}"#, 2),
            (&format!(r#"{{"choices":[{{"message":{{"content":"","tool_calls":{call}}}}}]}}"#), 3),
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
