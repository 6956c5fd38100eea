//! `POST /v1/messages`: the whole answer; `events` writes the streamed one.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::dialect::{Answer, Ask, Refusal};
use super::super::fault::UsageReport;
use super::super::reply::{Finish, Reply, Usage};
use super::{Version, events, prompt, signature};

/// Answers a messages request.
pub(super) fn answer(ask: &Ask<'_>, json: &Value, version: Version) -> Result<Answer, Refusal> {
    let streams = match json.get("stream") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| Refusal::invalid("stream: Input should be a valid boolean"))?,
    };
    let prompt = prompt::read(ask, json, version, prompt::Purpose::Answering)?;
    let spoken = Spoken::of(ask, json, Reply::to(&prompt, ask.fault));
    let usage = spoken.reply.usage;
    if streams {
        return Ok(Answer::events(events::frames(&spoken, ask.fault), usage));
    }
    Ok(Answer::json(&spoken.message(spoken.blocks(), spoken.stop(), ask.fault.usage), usage))
}

/// A reply with what Anthropic adds to it.
pub(super) struct Spoken<'a> {
    pub(super) id: String,
    pub(super) model: &'a str,
    pub(super) reply: Reply,
    ids: Vec<String>,
    inputs: Vec<Box<RawValue>>,
    thought: Thought,
    signature: String,
    filtered: bool,
    hour: bool,
}

/// How thinking is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thought {
    Shown,
    Omitted,
    Redacted,
}

impl<'a> Spoken<'a> {
    fn of(ask: &Ask<'a>, json: &Value, mut reply: Reply) -> Self {
        let filtered = ask.fault.filtered;
        if filtered {
            reply.text.clear();
            reply.calls.clear();
        }
        let omitted = json.pointer("/thinking/display") == Some(&Value::from("omitted"));
        let thought = match (ask.fault.redacted, omitted) {
            (true, _) => Thought::Redacted,
            (false, true) => Thought::Omitted,
            (false, false) => Thought::Shown,
        };
        let call_id = |index| ask.seed.with(index as u64 + 2).id("toolu_01", 22);
        Self {
            id: ask.seed.id("msg_01", 22),
            model: ask.model,
            ids: (0..reply.calls.len()).map(call_id).collect(),
            inputs: reply.calls.iter().filter_map(|call| RawValue::from_string(call.arguments.clone()).ok()).collect(),
            signature: signature::sign(&reply.reasoning),
            reply,
            thought,
            filtered,
            hour: marks_an_hour(json),
        }
    }

    /// The content, block by block.
    pub(super) fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        if !self.reply.reasoning.is_empty() {
            blocks.push(self.thinking_block());
        }
        if !self.reply.text.is_empty() {
            blocks.push(Block::Text { citations: None, text: &self.reply.text });
        }
        let calls = self.reply.calls.iter().zip(&self.ids).zip(&self.inputs);
        blocks.extend(calls.map(|((call, id), input)| Block::ToolUse {
            id,
            name: &call.name,
            input,
            caller: Caller { kind: "direct" },
        }));
        blocks
    }

    fn thinking_block(&self) -> Block<'_> {
        match self.thought {
            Thought::Redacted => Block::RedactedThinking { data: &self.signature },
            Thought::Omitted => Block::Thinking { thinking: "", signature: &self.signature },
            Thought::Shown => Block::Thinking { thinking: &self.reply.reasoning, signature: &self.signature },
        }
    }

    /// The arguments of the call at `index`, as text.
    pub(super) fn arguments(&self, index: usize) -> &str {
        self.reply.calls.get(index).map_or("", |call| &call.arguments)
    }

    /// Why it stopped.
    pub(super) fn stop(&self) -> Stop<'_> {
        if self.filtered {
            let details = StopDetails { kind: "refusal", category: Some("general_harms"), explanation: None };
            return Stop { stop_reason: Some("refusal"), stop_sequence: None, stop_details: Some(details) };
        }
        let (reason, sequence) = match &self.reply.finish {
            Finish::Stop => ("end_turn", None),
            Finish::Length => ("max_tokens", None),
            Finish::Calls => ("tool_use", None),
            Finish::Sequence(stop) => ("stop_sequence", Some(stop.as_str())),
        };
        Stop { stop_reason: Some(reason), stop_sequence: sequence, stop_details: None }
    }

    /// The message with this content.
    pub(super) fn message<'b>(&'b self, content: Vec<Block<'b>>, stop: Stop<'b>, report: UsageReport) -> Message<'b> {
        let usage = self.usage(report);
        Message { model: self.model, id: &self.id, kind: "message", role: "assistant", content, stop, usage }
    }

    /// The usage as Anthropic counts it: without the cached tokens among the input.
    pub(super) fn usage(&self, report: UsageReport) -> Option<UsageObject> {
        let usage = self.reply.usage.reported(report)?;
        let (short, long) = if self.hour { (0, usage.cache_write) } else { (usage.cache_write, 0) };
        Some(UsageObject {
            input_tokens: uncached(usage),
            cache_creation_input_tokens: usage.cache_write,
            cache_read_input_tokens: usage.cached,
            cache_creation: CacheCreation { ephemeral_5m_input_tokens: short, ephemeral_1h_input_tokens: long },
            output_tokens: usage.output,
            output_tokens_details: (usage.reasoning > 0).then_some(OutputDetails { thinking_tokens: usage.reasoning }),
            service_tier: "standard",
        })
    }
}

fn uncached(usage: Usage) -> u64 {
    usage.input.saturating_sub(usage.cached).saturating_sub(usage.cache_write)
}

/// Whether any mark for the cache asks for an hour.
fn marks_an_hour(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            let own = fields.get("cache_control").and_then(|mark| mark.get("ttl")) == Some(&Value::from("1h"));
            own || fields.values().any(marks_an_hour)
        }
        Value::Array(items) => items.iter().any(marks_an_hour),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[derive(Serialize)]
pub(super) struct Message<'a> {
    model: &'a str,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    content: Vec<Block<'a>>,
    #[serde(flatten)]
    stop: Stop<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageObject>,
}

impl Message<'_> {
    /// The usage, to be changed for a stream's start.
    pub(super) fn usage_mut(&mut self) -> Option<&mut UsageObject> {
        self.usage.as_mut()
    }
}

/// Why a message stopped; all null while it goes on.
#[derive(Default, Serialize)]
pub(super) struct Stop<'a> {
    stop_reason: Option<&'static str>,
    stop_sequence: Option<&'a str>,
    stop_details: Option<StopDetails>,
}

#[derive(Serialize)]
struct StopDetails {
    #[serde(rename = "type")]
    kind: &'static str,
    category: Option<&'static str>,
    explanation: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Text { citations: Option<()>, text: &'a str },
    Thinking { thinking: &'a str, signature: &'a str },
    RedactedThinking { data: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: &'a RawValue, caller: Caller },
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Caller {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct UsageObject {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation: CacheCreation,
    pub(super) output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_tokens_details: Option<OutputDetails>,
    service_tier: &'static str,
}

#[derive(Clone, Copy, Serialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: u64,
    ephemeral_1h_input_tokens: u64,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct OutputDetails {
    thinking_tokens: u64,
}

/// The usage at a stream's end.
#[derive(Serialize)]
pub(super) struct FinalUsage {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputDetails>,
}

impl From<UsageObject> for FinalUsage {
    fn from(usage: UsageObject) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            cache_creation_input_tokens: usage.cache_creation_input_tokens,
            cache_read_input_tokens: usage.cache_read_input_tokens,
            output_tokens: usage.output_tokens,
            output_tokens_details: usage.output_tokens_details,
        }
    }
}
