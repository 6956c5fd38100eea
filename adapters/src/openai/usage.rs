//! OpenAI's usage object, both ways. It counts inclusively: cached tokens are prompt tokens, reasoning is output.

use serde::{Deserialize, Serialize};

use crate::usage::{ServiceTier, Usage};

/// As a provider writes it; hosts of the same dialect leave out or null what they do not count.
#[derive(Debug, Default, Deserialize)]
pub struct Read {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    prompt_cache_hit_tokens: Option<u64>,
    /// OpenRouter's, who has it from Anthropic.
    server_tool_use: Option<ServerTools>,
    /// Perplexity's.
    num_search_queries: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct ServerTools {
    web_search_requests: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    image_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    image_tokens: Option<u64>,
}

impl From<Read> for Usage {
    fn from(read: Read) -> Self {
        let prompt = read.prompt_tokens_details.unwrap_or_default();
        let completion = read.completion_tokens_details.unwrap_or_default();
        let searches = read.server_tool_use.and_then(|tools| tools.web_search_requests).or(read.num_search_queries);
        let input_tokens = read.prompt_tokens.or(read.total_tokens).unwrap_or_default();
        Self {
            input_tokens,
            cached_input_tokens: prompt.cached_tokens.or(read.prompt_cache_hit_tokens).unwrap_or_default(),
            cache_write_tokens: prompt.cache_write_tokens.unwrap_or_default(),
            output_tokens: read.completion_tokens.unwrap_or_default(),
            reasoning_tokens: completion.reasoning_tokens.unwrap_or_default(),
            audio_input_tokens: prompt.audio_tokens.unwrap_or_default(),
            audio_output_tokens: completion.audio_tokens.unwrap_or_default(),
            image_input_tokens: prompt.image_tokens.unwrap_or_default(),
            image_output_tokens: completion.image_tokens.unwrap_or_default(),
            web_searches: searches.unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// Reads a raw usage object of an answer that was served in this tier; `None` where it is null or has another shape.
#[must_use]
pub fn read(raw: &[u8], tier: ServiceTier) -> Option<Usage> {
    let read = serde_json::from_slice::<Option<Read>>(raw).ok().flatten()?;
    Some(Usage { tier, ..Usage::from(read) })
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
