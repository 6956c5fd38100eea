//! What a request used, in one way of counting whatever the provider's.

/// Counts of one request. `input_tokens` holds all input, cached or not, and `output_tokens` all output, reasoning
/// included; the other fields say how much of those was of a kind (OpenAI's way of counting).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// All input tokens, those read from or written to a cache included.
    pub input_tokens: u64,
    /// Input tokens that were read from a cache.
    pub cached_input_tokens: u64,
    /// Input tokens that were written to a cache that lives for 5 minutes, or as long as the provider says.
    pub cache_write_tokens: u64,
    /// Input tokens that were written to a cache that lives for an hour.
    pub cache_write_1h_tokens: u64,
    /// All output tokens, reasoning included.
    pub output_tokens: u64,
    /// Output tokens that were spent on reasoning.
    pub reasoning_tokens: u64,
    /// Input and output tokens that were audio.
    pub audio_tokens: u64,
}

impl Usage {
    /// Input and output together.
    #[must_use]
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}
