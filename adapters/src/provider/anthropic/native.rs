//! Anthropic's request, borrowed from the caller's. What only passes through stays raw.

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::plain::PlainText;
use crate::openai::reply::Raw;
use crate::openai::text::Text;

/// The body of `POST /v1/messages`.
pub(super) struct Body<'a> {
    pub(super) model: &'a str,
    pub(super) max_tokens: u64,
    pub(super) system: Vec<Block<'a>>,
    pub(super) messages: Vec<Turn<'a>>,
    pub(super) tools: Vec<Tool<'a>>,
    pub(super) tool_choice: Option<ToolChoice<'a>>,
    pub(super) thinking: Option<Thinking<'a>>,
    pub(super) output_config: Option<Raw<'a>>,
    pub(super) stop_sequences: Vec<&'a RawValue>,
    pub(super) metadata: Option<Metadata<'a>>,
    pub(super) service_tier: Option<&'static str>,
    pub(super) stream: bool,
    /// Sampling parameters and what is Anthropic's own, as the caller wrote it.
    pub(super) as_written: Vec<(Cow<'a, str>, Raw<'a>)>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        map.serialize_entry("max_tokens", &self.max_tokens)?;
        if !self.system.is_empty() {
            map.serialize_entry("system", &Said(&[], &self.system))?;
        }
        map.serialize_entry("messages", &self.messages)?;
        if !self.tools.is_empty() {
            map.serialize_entry("tools", &self.tools)?;
        }
        entry(&mut map, "tool_choice", self.tool_choice.as_ref())?;
        entry(&mut map, "thinking", self.thinking.as_ref())?;
        entry(&mut map, "output_config", self.output_config.as_ref())?;
        if !self.stop_sequences.is_empty() {
            map.serialize_entry("stop_sequences", &self.stop_sequences)?;
        }
        entry(&mut map, "metadata", self.metadata.as_ref())?;
        entry(&mut map, "service_tier", self.service_tier.as_ref())?;
        for (name, value) in &self.as_written {
            map.serialize_entry(name, value)?;
        }
        if self.stream {
            map.serialize_entry("stream", &true)?;
        }
        map.end()
    }
}

fn entry<M: SerializeMap>(map: &mut M, name: &str, value: Option<&impl Serialize>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, value))
}

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Speaker {
    User,
    Assistant,
    System,
}

/// All that one speaker says before the next does.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) speaker: Speaker,
    /// The results of tools, which must come first.
    pub(super) results: Vec<Block<'a>>,
    /// All else.
    pub(super) blocks: Vec<Block<'a>>,
}

impl<'a> Turn<'a> {
    /// The results and all else, as Anthropic is told them.
    pub(super) fn all_blocks(&self) -> impl Iterator<Item = &Block<'a>> {
        self.results.iter().chain(&self.blocks)
    }
}

impl Serialize for Turn<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("role", &self.speaker)?;
        map.serialize_entry("content", &Said(&self.results, &self.blocks))?;
        map.end()
    }
}

/// Results and then other blocks; a single plain text is written as a string.
struct Said<'b, 'a>(&'b [Block<'a>], &'b [Block<'a>]);

impl Serialize for Said<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let ([], [Block::Made(Made::Text { text, citations: None, cache_control: None })]) = (self.0, self.1) {
            return text.serialize(serializer);
        }
        serializer.collect_seq(self.0.iter().chain(self.1))
    }
}

/// One block of a content.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Block<'a> {
    /// One of Anthropic's own, as the caller wrote it.
    Native(&'a RawValue),
    /// One made of a part of OpenAI's.
    Made(Made<'a>),
}

impl<'a> Block<'a> {
    /// A text.
    pub(super) fn text(text: Raw<'a>, cache_control: Option<&'a RawValue>) -> Self {
        Self::Made(Made::Text { text, citations: None, cache_control })
    }

    /// A text with its sources.
    pub(super) fn cited(text: Raw<'a>, citations: Option<Raw<'a>>) -> Self {
        Self::Made(Made::Text { text, citations, cache_control: None })
    }

    /// Marks it as the end of a cached prefix, where its kind can be marked.
    pub(super) fn mark(&mut self, mark: &'a RawValue) {
        let Self::Made(made) = self else { return };
        match made {
            Made::Text { cache_control, .. }
            | Made::Image { cache_control, .. }
            | Made::Document { cache_control, .. }
            | Made::ToolUse { cache_control, .. }
            | Made::ToolResult { cache_control, .. } => *cache_control = Some(mark),
            Made::Thinking { .. } | Made::RedactedThinking { .. } => {}
        }
    }

    /// Whether it is reasoning.
    pub(super) fn is_thinking(&self) -> bool {
        match self {
            Self::Made(made) => {
                matches!(made, Made::Thinking { .. } | Made::RedactedThinking { .. })
            }
            Self::Native(raw) => Own::read(raw).is_thinking(),
        }
    }

    /// Whether it is, or holds, a file that was uploaded before.
    pub(super) fn is_uploaded(&self) -> bool {
        match self {
            Self::Made(Made::Image { source, .. } | Made::Document { source, .. }) => {
                matches!(source, Source::File { .. })
            }
            Self::Made(Made::ToolResult { content, .. }) => content.iter().any(Self::is_uploaded),
            Self::Made(_) => false,
            Self::Native(raw) => Own::read(raw).is_uploaded(),
        }
    }

    /// Whether it is a call of a tool of the caller's.
    pub(super) fn is_tool_use(&self) -> bool {
        matches!(self, Self::Made(Made::ToolUse { .. }))
    }
}

/// What matters here of a block that the caller wrote in Anthropic's words.
#[derive(Default, Deserialize)]
struct Own<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    source: Option<OwnSource<'a>>,
}

#[derive(Deserialize)]
struct OwnSource<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
}

impl<'a> Own<'a> {
    fn read(raw: &'a RawValue) -> Self {
        serde_json::from_str(raw.get()).unwrap_or_default()
    }

    fn is_thinking(&self) -> bool {
        matches!(&*self.kind, "thinking" | "redacted_thinking")
    }

    fn is_uploaded(&self) -> bool {
        &*self.kind == "container_upload" || self.source.as_ref().is_some_and(|source| &*source.kind == "file")
    }
}

/// A block made of a part of OpenAI's.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Made<'a> {
    Text {
        text: Raw<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        citations: Option<Raw<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Image {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Thinking {
        thinking: Raw<'a>,
        signature: &'a RawValue,
    },
    RedactedThinking {
        data: &'a RawValue,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        input: Raw<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        caller: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        toolset_name: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "said")]
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        toolset_name: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
}

fn said<S: Serializer>(blocks: &[Block<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    Said(&[], blocks).serialize(serializer)
}

/// Where an image's or a document's bytes are.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Source<'a> {
    Base64 { media_type: &'static str, data: Cow<'a, str> },
    Url { url: Cow<'a, str> },
    Text { media_type: &'static str, data: PlainText<'a> },
    File { file_id: Cow<'a, str> },
}

/// A tool that the model may use.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Tool<'a> {
    /// One of Anthropic's own, as the caller wrote it.
    Native(&'a RawValue),
    /// A function.
    Function(Function<'a>),
}

/// A function that the model may call.
#[derive(Debug, Serialize)]
pub(super) struct Function<'a> {
    pub(super) name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<&'a RawValue>,
    pub(super) input_schema: Raw<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) strict: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache_control: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allowed_callers: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) defer_loading: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) eager_input_streaming: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input_examples: Option<&'a RawValue>,
}

/// Which tools it may or must use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ToolChoice<'a> {
    None,
    Auto {
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        disable_parallel_tool_use: bool,
    },
    Any {
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        disable_parallel_tool_use: bool,
    },
    Tool {
        name: Cow<'a, str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        disable_parallel_tool_use: bool,
    },
}

impl ToolChoice<'_> {
    /// Whether the model must use a tool.
    pub(super) fn is_forced(&self) -> bool {
        matches!(self, Self::Any { .. } | Self::Tool { .. })
    }
}

/// How the model is to think.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Thinking<'a> {
    /// As the caller wrote it.
    Native(&'a RawValue),
    /// As its effort asks for.
    Made(MadeThinking),
}

/// How the model is to think, made of an effort.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum MadeThinking {
    /// As much as it likes. Without `display` the text of it would stay empty on most models.
    Adaptive { display: Display },
    /// Up to so many tokens.
    Enabled {
        budget_tokens: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        display: Option<Display>,
    },
    /// Not at all.
    Disabled,
}

/// Whether the text of the reasoning is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Display {
    Summarized,
    Omitted,
}

/// Whom the request is for.
#[derive(Debug, Serialize)]
pub(super) struct Metadata<'a> {
    pub(super) user_id: Cow<'a, str>,
}
