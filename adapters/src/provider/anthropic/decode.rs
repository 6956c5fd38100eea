//! Anthropic's whole answer as a chat completion, and what a stream reads in the same way.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::beside::Beside;
use super::format::ANSWER_TOOL;
use super::usage::Told;
use super::{error, is_legacy};
use crate::adapter::{DecodeError, Reply, Target};
use crate::handback::{Piece, ThinkingBlock};
use crate::openai::reply::{
    Annotation, Completion, FileCitation, FinishReason, Function, FunctionKind, Message, Raw, ToolCall, UrlCitation,
};
use crate::openai::text::{Text, joined, raw_string};
use crate::request::Request;

/// A whole answer.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    id: Option<Text<'a>>,
    content: Option<Vec<&'a RawValue>>,
    stop_reason: Option<Text<'a>>,
    stop_details: Option<StopDetails<'a>>,
    usage: Option<&'a RawValue>,
}

/// One block of an answer.
#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Text<'a>,
    pub(super) text: Option<&'a RawValue>,
    pub(super) citations: Option<Vec<&'a RawValue>>,
    pub(super) thinking: Option<&'a RawValue>,
    pub(super) signature: Option<&'a RawValue>,
    pub(super) data: Option<&'a RawValue>,
    pub(super) id: Option<Text<'a>>,
    pub(super) name: Option<Text<'a>>,
    pub(super) input: Option<&'a RawValue>,
    caller: Option<&'a RawValue>,
    toolset_name: Option<&'a RawValue>,
}

impl Block<'_> {
    /// Whether it is the call whose arguments are the answer.
    pub(super) fn is_answer(&self) -> bool {
        self.name.as_deref() == Some(ANSWER_TOOL)
    }

    /// What of Anthropic's own must be handed back with a call.
    pub(super) fn extra(&self) -> Option<Box<RawValue>> {
        let caller = self.caller.filter(|caller| !is_direct(caller));
        if caller.is_none() && self.toolset_name.is_none() {
            return None;
        }
        let extra = Extra { anthropic: OwnExtra { caller, toolset_name: self.toolset_name } };
        serde_json::value::to_raw_value(&extra).ok()
    }
}

#[derive(Serialize)]
struct Extra<'a> {
    anthropic: OwnExtra<'a>,
}

#[derive(Serialize)]
struct OwnExtra<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    toolset_name: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
}

fn is_direct(caller: &RawValue) -> bool {
    serde_json::from_str::<Kind<'_>>(caller.get()).is_ok_and(|caller| &*caller.kind == "direct")
}

/// Why the model would not answer.
#[derive(Deserialize)]
pub(super) struct StopDetails<'a> {
    #[serde(borrow)]
    category: Option<Text<'a>>,
    #[serde(borrow)]
    explanation: Option<Text<'a>>,
}

/// A refusal in words.
pub(super) fn refusal_text(details: Option<StopDetails<'_>>) -> Cow<'_, str> {
    match details {
        Some(StopDetails { explanation: Some(explanation), .. }) if !explanation.is_empty() => explanation.0,
        Some(StopDetails { category: Some(category), .. }) => {
            format!("The model refused to answer ({}).", &*category).into()
        }
        _ => "The model refused to answer.".into(),
    }
}

/// The calls that an answer makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// None of the caller's tools.
    None,
    /// In the form of `tools`.
    Tools,
    /// In the form of `functions`.
    Function,
}

/// Why the model stopped, in OpenAI's words. A paused turn, or one whose beginning was compacted, is not whole: it is
/// to be gone on with, as a cut one; and what is not known here is not called whole either.
pub(super) fn finish_reason(stop: &str, calls: Calls) -> FinishReason {
    match (stop, calls) {
        ("tool_use", Calls::Tools) => FinishReason::ToolCalls,
        ("tool_use", Calls::Function) => FinishReason::FunctionCall,
        ("end_turn" | "stop_sequence" | "tool_use", _) => FinishReason::Stop,
        ("refusal", _) => FinishReason::ContentFilter,
        _ => FinishReason::Length,
    }
}

/// Reads a whole answer.
pub(super) fn decode(request: &Request, to: &Target<'_>, body: &[u8]) -> Result<Reply, DecodeError> {
    let malformed = |what: &str| DecodeError::Malformed(format!("the provider's answer: {what}"));
    let text = simdutf8::basic::from_utf8(body).map_err(|_| malformed("bytes that are not UTF-8"))?;
    let answer: Answer<'_> = serde_json::from_str(text).map_err(|_| malformed("not a message"))?;
    if answer.kind.as_deref() == Some("error") {
        return Err(DecodeError::Refused(Box::new(error::read_in_success(body))));
    }
    let Some(content) = answer.content else {
        return Err(malformed("no `content`"));
    };
    let Some(stop) = answer.stop_reason else {
        return Err(malformed("no `stop_reason`"));
    };
    let mut said = Said::default();
    for raw in content {
        let block = serde_json::from_str(raw.get()).map_err(|_| malformed("a broken block"))?;
        said.take(raw, block);
    }
    let mut beside = Beside::default();
    beside.read(text);
    said.message.extra_content = beside.into_json();
    let refusal = (&*stop == "refusal").then(|| refusal_text(answer.stop_details));
    let (message, calls) = said.into_message(refusal, is_legacy(request));
    let told = answer.usage.and_then(Told::read);
    let counted = told.and_then(|told| told.counted(&told));
    let usage = counted.map(|counted| counted.usage);
    let completion = Completion {
        id: answer.id.as_deref().unwrap_or_default(),
        created: to.now,
        model: to.asked,
        message,
        finish_reason: finish_reason(&stop, calls),
        usage,
        service_tier: told.and_then(|told| told.tier()),
    };
    Ok(Reply {
        body: completion.into_json(body.len() + 256).into(),
        usage,
        extent: counted.map(|counted| counted.extent).unwrap_or_default(),
    })
}

/// What the blocks of an answer say.
#[derive(Default)]
struct Said<'a> {
    texts: Vec<Raw<'a>>,
    thoughts: Vec<&'a RawValue>,
    chars: usize,
    message: Message<'a>,
}

impl<'a> Said<'a> {
    fn take(&mut self, raw: &'a RawValue, block: Block<'a>) {
        match &*block.kind {
            "text" => self.text(block),
            "thinking" => self.thinking(&block),
            "redacted_thinking" => {
                self.thought(block.data.map(|data| ThinkingBlock::RedactedThinking { data }));
            }
            "tool_use" if block.is_answer() => {
                let json = block.input.map_or("{}", RawValue::get);
                self.say(Cow::Owned(raw_string(json)), json.chars().count());
            }
            "tool_use" => self.call(block),
            _ => {
                self.message.provider_blocks.push(raw);
                self.message.block_order.push(Piece::Provider);
            }
        }
    }

    fn text(&mut self, block: Block<'a>) {
        let Some(text) = block.text else { return };
        let start = self.chars;
        self.say(
            Cow::Borrowed(text),
            serde_json::from_str::<Text<'_>>(text.get()).map_or(0, |text| text.chars().count()),
        );
        let citations = block.citations.into_iter().flatten();
        self.message.annotations.extend(citations.filter_map(|raw| annotation(raw, start, self.chars)));
    }

    fn say(&mut self, text: Raw<'a>, chars: usize) {
        self.chars += chars;
        self.texts.push(text);
        self.message.block_order.push(Piece::Text(chars));
    }

    fn thinking(&mut self, block: &Block<'a>) {
        let Some(thinking) = block.thinking else {
            return;
        };
        self.thoughts.push(thinking);
        self.thought(block.signature.map(|signature| ThinkingBlock::Thinking { thinking, signature }));
    }

    fn thought(&mut self, block: Option<ThinkingBlock<&'a RawValue>>) {
        if let Some(block) = block {
            self.message.thinking_blocks.push(block);
            self.message.block_order.push(Piece::Thinking);
        }
    }

    fn call(&mut self, block: Block<'a>) {
        let extra_content = block.extra().map(Cow::Owned);
        let name = block.name.map(|name| name.0).unwrap_or_default();
        let function = Function { name, arguments: block.input.map_or("{}", RawValue::get).into() };
        let id = block.id.map(|id| id.0).unwrap_or_default();
        self.message.block_order.push(Piece::Call);
        self.message.tool_calls.push(ToolCall { id, kind: FunctionKind::Function, function, extra_content });
    }

    fn into_message(self, refusal: Option<Cow<'_, str>>, legacy: bool) -> (Message<'a>, Calls) {
        let Self { texts, thoughts, mut message, .. } = self;
        let texts: Vec<&RawValue> = texts.iter().map(AsRef::as_ref).collect();
        message.content = joined(&texts).map(|text| Cow::Owned(text.into_owned()));
        message.reasoning_content = joined(&thoughts).filter(|text| text.get() != "\"\"");
        message.refusal = refusal.map(|text| Cow::Owned(raw_string(&text)));
        if message.content.is_none() && message.tool_calls.is_empty() && message.refusal.is_none() {
            message.content = Some(super::tools::raw("\"\""));
        }
        let calls = match (message.tool_calls.len(), legacy) {
            (0, _) => Calls::None,
            (1, true) => {
                message.function_call = message.tool_calls.pop().map(|call| call.function);
                Calls::Function
            }
            _ => Calls::Tools,
        };
        (message, calls)
    }
}

/// A citation in any of Anthropic's forms.
#[derive(Deserialize)]
struct Citation<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    url: Option<Text<'a>>,
    source: Option<Text<'a>>,
    title: Option<Text<'a>>,
    document_index: Option<u64>,
    document_title: Option<Text<'a>>,
    file_id: Option<Text<'a>>,
}

/// A citation as an annotation of the stretch of text that it stands behind, in characters.
pub(super) fn annotation(raw: &RawValue, start_index: usize, end_index: usize) -> Option<Annotation<'_>> {
    let told: Citation<'_> = serde_json::from_str(raw.get()).ok()?;
    let is_page = matches!(&*told.kind, "web_search_result_location" | "search_result_location");
    Some(if is_page {
        let url = told.url.or(told.source).unwrap_or_default().0;
        let title = told.title.unwrap_or_default().0;
        Annotation::UrlCitation { url_citation: UrlCitation { start_index, end_index, title, url }, citation: raw }
    } else {
        let file_citation = FileCitation {
            start_index,
            end_index,
            index: told.document_index.unwrap_or_default(),
            file_id: told.file_id.map(|id| id.0),
            filename: told.document_title.map(|title| title.0),
        };
        Annotation::FileCitation { file_citation, citation: raw }
    })
}
