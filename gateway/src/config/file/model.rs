//! The models that callers ask for, and where their requests can go.

use super::{Params, Pricing, WhenAllCool};
use crate::config::read::{Read, choices, section};
use crate::config::value::{AffinityBy, Count, Duration, DurationRange, Percent};

/// The longest name of a model: it goes out in a header.
pub const LONGEST_NAME: usize = 256;

section! {
    /// A model that callers ask for.
    pub struct Model {
        /// What callers write; one `*` stands for any text.
        name: String;
        /// What it is for.
        model_type as "type": ModelType = ModelType::Llm;
        /// Where its requests can go, the lowest tier first.
        targets: Vec<Target>;
        /// How a target is picked within a tier.
        balance: Balance = Balance::Weighted;
        /// What keeps related requests on one target.
        affinity: Option<Affinity> = None;
        /// How long each part of a request may take.
        timeouts: Timeouts = Read::placeholder();
        /// How a failed request is tried again.
        retries: Retries = Read::placeholder();
        /// A second request when the first is slow.
        hedge: Option<Hedge> = None;
        /// A short wait when every slot is taken; by default none.
        on_busy: Option<OnBusy> = None;
        /// What happens when every target is left out, where it is not what `health` says.
        when_all_cool: Option<WhenAllCool> = None;
        /// Other models that take over when this one's targets are exhausted.
        fallbacks: Fallbacks = Read::placeholder();
        /// What becomes of the request's parameters.
        params: Params = Read::placeholder();
        /// What it costs, over the catalog's figures. Without either, its cost is unknown, and no budget counts it.
        pricing: Option<Pricing> = None;
    }
}

impl Model {
    /// A model of that name with one target of a provider, and all else as it is where nothing is written.
    #[must_use]
    pub fn plain(name: String, provider: String, model: String) -> Self {
        Self { name, targets: vec![Target { provider, model, ..Read::placeholder() }], ..Read::placeholder() }
    }
}

choices! {
    /// What a model is for.
    pub enum ModelType {
        /// Chat and completion.
        Llm = "llm" | "text-generation",
        /// Embeddings.
        TextEmbedding = "text-embedding" | "embeddings",
        /// Reranking.
        Rerank = "rerank" | "reranking",
        /// Transcription and translation of speech.
        Speech2text = "speech2text",
        /// Speech from text.
        Tts = "tts",
        /// Moderation.
        Moderation = "moderation",
        /// Images.
        Image = "image",
    }
}

impl ModelType {
    /// Whether this version has an endpoint for it.
    #[must_use]
    pub const fn is_served(self) -> bool {
        matches!(self, Self::Llm | Self::TextEmbedding)
    }
}

section! {
    /// One place where a model's requests can go.
    pub struct Target {
        /// The provider, by its name.
        provider: String;
        /// The provider's name for the model; `*` takes over what the model's `*` stood for.
        model: String;
        /// Lower tiers are used first; a higher one when no target of the lower is usable.
        tier: u32 = 0;
        /// Its share within its tier.
        weight: u32 = 1;
        /// One credential of the provider by its id; by default all of them in turn.
        credential: Option<String> = None;
    }
}

choices! {
    /// How a target is picked within a tier.
    pub enum Balance {
        /// By weight, evenly spread.
        Weighted = "weighted",
        /// Each in turn.
        RoundRobin = "round_robin",
        /// The one with the fewest requests in flight for its weight.
        LeastBusy = "least_busy",
        /// The faster of two picked at random.
        Latency = "latency",
        /// The cheapest.
        Cost = "cost",
        /// The one with the most left of its limits.
        Usage = "usage",
    }
}

section! {
    /// What keeps related requests on one target.
    pub struct Affinity {
        /// What makes requests related; the first that a request has counts.
        by: Vec<AffinityBy>;
        /// How long a target is remembered after the last request.
        ttl: Duration = Duration::secs(3_600);
    }
}

section! {
    /// How long each part of a request may take; `0s` is no limit.
    pub struct Timeouts {
        /// To connect, TLS included.
        connect: Duration = Duration::secs(3);
        /// How long a stream may be silent before its first content: a ping, or an event without content, starts it anew. An answer that is not streamed has until `total`.
        first_byte: Duration = Duration::secs(60);
        /// Between two bytes of the answer.
        idle: Duration = Duration::secs(60);
        /// From the first attempt to the end of the answer.
        total: Duration = Duration::secs(900);
        /// How long a stream may be silent before headers and a comment go out; `0s`: never.
        keepalive: Duration = Duration::secs(25);
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Read::placeholder()
    }
}

section! {
    /// How a failed request is tried again.
    pub struct Retries {
        /// How many times, after the first attempt.
        max: u32 = 2;
        /// The wait before the second round, when every target was tried, and the longest before a later one; it doubles between them, with jitter.
        backoff: DurationRange = DurationRange { from: Duration::millis(250), to: Duration::secs(5) };
    }
}

impl Default for Retries {
    fn default() -> Self {
        Read::placeholder()
    }
}

section! {
    /// A second request when the first is slow; the first answer wins.
    pub struct Hedge {
        /// How long to wait for the first.
        after: Duration;
        /// How many more requests this may cost.
        max_extra: Percent = Percent::of(5);
    }
}

section! {
    /// A short wait when every slot is taken.
    pub struct OnBusy {
        /// How long a request waits before it is a 429.
        queue: Duration;
        /// How many may wait at once.
        max: Count = Count::of(100);
    }
}

section! {
    /// Other models that take over, each list in its order.
    pub struct Fallbacks {
        /// For every failure that another model may mend.
        any: Vec<String> = Vec::new();
        /// When the prompt is too long.
        context_window: Vec<String> = Vec::new();
        /// When the provider refuses the content.
        content_policy: Vec<String> = Vec::new();
    }
}

impl Default for Fallbacks {
    fn default() -> Self {
        Read::placeholder()
    }
}
