//! A whole `chat.completion` as Weir writes it for providers of other dialects. Texts come raw where the provider's can
//! be passed on as they are.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::usage::Written;
use crate::chunk::push_json;
use crate::handback::{Order, ThinkingBlock};
use crate::usage::Usage;

/// A raw JSON value, the provider's own or made here.
pub type Raw<'a> = Cow<'a, RawValue>;

/// What all completions have around their message.
#[derive(Debug)]
pub struct Completion<'a> {
    /// Its id.
    pub id: &'a str,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The model, by the caller's name for it.
    pub model: &'a str,
    /// What the model said.
    pub message: Message<'a>,
    /// Why it stopped.
    pub finish_reason: FinishReason,
    /// What was counted.
    pub usage: Option<Usage>,
    /// The tier that served it, in OpenAI's words.
    pub service_tier: Option<&'static str>,
}

/// Why a model stopped, in OpenAI's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It was done, or met a stop sequence.
    Stop,
    /// `max_tokens` or the context's end.
    Length,
    /// It waits for the results of tools.
    ToolCalls,
    /// It waits for a function's result, told to a caller that uses the older form.
    FunctionCall,
    /// It was stopped by a filter.
    ContentFilter,
}

/// What the model said.
#[derive(Debug, Default, Serialize)]
pub struct Message<'a> {
    /// Always the assistant.
    pub role: Assistant,
    /// The answer's text.
    pub content: Option<Raw<'a>>,
    /// Why the model would not answer.
    pub refusal: Option<Raw<'a>>,
    /// The text of its reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<Raw<'a>>,
    /// Its reasoning, to be handed back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thinking_blocks: Vec<ThinkingBlock<&'a RawValue>>,
    /// Where the answer has its facts from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation<'a>>,
    /// The calls that it makes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall<'a>>,
    /// The call that it makes, for a caller that uses the older form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<Function<'a>>,
    /// Blocks that OpenAI's format has no word for, to be handed back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub provider_blocks: Vec<&'a RawValue>,
    /// In which order all blocks came, where it is not the usual one.
    #[serde(skip_serializing_if = "Order::is_usual")]
    pub block_order: Order,
    /// What the provider tells beside its blocks, under its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Box<RawValue>>,
}

/// The word `assistant`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Assistant {
    /// `assistant`
    #[default]
    Assistant,
}

/// A call of a tool.
#[derive(Debug, Serialize)]
pub struct ToolCall<'a> {
    /// Its id.
    pub id: Cow<'a, str>,
    /// Always `function`.
    #[serde(rename = "type")]
    pub kind: FunctionKind,
    /// What is called.
    pub function: Function<'a>,
    /// What the provider wants handed back with the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Raw<'a>>,
}

/// The word `function`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionKind {
    /// `function`
    #[default]
    Function,
}

/// A function's name and arguments.
#[derive(Debug, Serialize)]
pub struct Function<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its arguments: JSON, in a string.
    pub arguments: Cow<'a, str>,
}

/// Where a stretch of the answer has its facts from.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Annotation<'a> {
    /// A page of the web.
    UrlCitation {
        /// Which page, and for which stretch.
        url_citation: UrlCitation<'a>,
        /// The provider's own words for it.
        citation: &'a RawValue,
    },
    /// A document of the request's.
    FileCitation {
        /// Which document, and for which stretch.
        file_citation: FileCitation<'a>,
        /// The provider's own words for it.
        citation: &'a RawValue,
    },
}

/// A page, for a stretch of the answer in characters.
#[derive(Debug, Serialize)]
pub struct UrlCitation<'a> {
    /// The stretch's first character.
    pub start_index: usize,
    /// The first character behind it.
    pub end_index: usize,
    /// The page's title.
    pub title: Cow<'a, str>,
    /// The page's address.
    pub url: Cow<'a, str>,
}

/// A document, for a stretch of the answer in characters.
#[derive(Debug, Serialize)]
pub struct FileCitation<'a> {
    /// The stretch's first character.
    pub start_index: usize,
    /// The first character behind it.
    pub end_index: usize,
    /// Which of the request's documents it is, from 0.
    pub index: u64,
    /// Its id, if it was uploaded.
    pub file_id: Option<Cow<'a, str>>,
    /// Its name.
    pub filename: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    usage: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: FinishReason,
}

impl Completion<'_> {
    /// The completion as JSON; `room` is about how long it will be.
    #[must_use]
    pub fn into_json(self, room: usize) -> Vec<u8> {
        let Self { id, created, model, message, finish_reason, usage, service_tier } = self;
        let mut json = Vec::with_capacity(room);
        let whole = Envelope {
            id,
            object: "chat.completion",
            created,
            model,
            choices: [Choice { index: 0, message, logprobs: None, finish_reason }],
            usage: usage.map(Written::from),
            service_tier,
        };
        push_json(&mut json, &whole);
        json
    }
}
