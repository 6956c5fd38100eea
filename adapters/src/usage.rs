//! What a request used, in one way of counting whatever the provider's.

/// Counts of one request. `input_tokens` holds all input, cached or not, and `output_tokens` all output, reasoning
/// included; the other counts of tokens say how many of those were of a kind (OpenAI's way of counting).
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
    /// Input tokens that were audio.
    pub audio_input_tokens: u64,
    /// Input tokens that were pictures.
    pub image_input_tokens: u64,
    /// All output tokens, reasoning included.
    pub output_tokens: u64,
    /// Output tokens that were spent on reasoning.
    pub reasoning_tokens: u64,
    /// Output tokens that were audio.
    pub audio_output_tokens: u64,
    /// Output tokens that were pictures.
    pub image_output_tokens: u64,
    /// Images made.
    pub images: u64,
    /// Characters spoken.
    pub characters: u64,
    /// Milliseconds of audio.
    pub audio_ms: u64,
    /// Units of search, as rerankers count.
    pub search_units: u64,
    /// Searches of the web that the provider made for the model.
    pub web_searches: u64,
    /// Whether it was served in the US and nowhere else, as the provider says.
    pub in_us: bool,
    /// How it was served.
    pub tier: ServiceTier,
}

impl Usage {
    /// Input and output together.
    #[must_use]
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// This and what else was used beside it; how and where it was served is told of this.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            cached_input_tokens: self.cached_input_tokens.saturating_add(other.cached_input_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            cache_write_1h_tokens: self.cache_write_1h_tokens.saturating_add(other.cache_write_1h_tokens),
            audio_input_tokens: self.audio_input_tokens.saturating_add(other.audio_input_tokens),
            image_input_tokens: self.image_input_tokens.saturating_add(other.image_input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
            audio_output_tokens: self.audio_output_tokens.saturating_add(other.audio_output_tokens),
            image_output_tokens: self.image_output_tokens.saturating_add(other.image_output_tokens),
            images: self.images.saturating_add(other.images),
            characters: self.characters.saturating_add(other.characters),
            audio_ms: self.audio_ms.saturating_add(other.audio_ms),
            search_units: self.search_units.saturating_add(other.search_units),
            web_searches: self.web_searches.saturating_add(other.web_searches),
            in_us: self.in_us,
            tier: self.tier,
        }
    }

    /// Pictures in and out together.
    #[must_use]
    pub fn image_tokens(&self) -> u64 {
        self.image_input_tokens.saturating_add(self.image_output_tokens)
    }

    /// Audio in and out together.
    #[must_use]
    pub fn audio_tokens(&self) -> u64 {
        self.audio_input_tokens.saturating_add(self.audio_output_tokens)
    }
}

/// What a provider counted of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The counts.
    pub usage: Usage,
    /// How much of the answer they are of.
    pub extent: Extent,
}

/// How much of an answer its provider counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Extent {
    /// What went in and what came out.
    #[default]
    Whole,
    /// What went in, and of what came out nothing to rely on: it is left out, or was told before it was known.
    Input,
}

/// How a provider served a request, where that has a price of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServiceTier {
    /// As usual, or in a way that costs no other price.
    #[default]
    Standard,
    /// When there was room (OpenAI).
    Flex,
    /// Before others (OpenAI, which takes `fast` for the same).
    Priority,
    /// At the highest speed that there is (OpenAI).
    Ultrafast,
    /// In fast mode (Anthropic's `speed`).
    Fast,
    /// In a batch.
    Batch,
}

impl ServiceTier {
    /// Its name in a configuration's prices; none for what is as usual.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Standard => None,
            Self::Flex => Some("flex"),
            Self::Priority => Some("priority"),
            Self::Ultrafast => Some("ultrafast"),
            Self::Fast => Some("fast"),
            Self::Batch => Some("batch"),
        }
    }

    /// OpenAI's word for it, raw as JSON. What is unknown is served as usual.
    pub(crate) fn read(raw: &[u8]) -> Self {
        match raw {
            b"\"flex\"" => Self::Flex,
            b"\"priority\"" | b"\"fast\"" => Self::Priority,
            b"\"ultrafast\"" => Self::Ultrafast,
            b"\"batch\"" => Self::Batch,
            _ => Self::Standard,
        }
    }
}
