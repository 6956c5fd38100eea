//! `POST /v1/chat/completions`: the whole answer; `chunk` writes the streamed one.

use serde::Serialize;
use serde_json::Value;

use super::super::dialect::{Answer, Ask, Refusal};
use super::super::reply::{Call, Finish, Reply, Usage};
use super::super::text::Seed;
use super::chunk;
use super::{CREATED, FINGERPRINT, Streaming, UsageObject, prompt};

/// The most choices.
const MAX_CHOICES: u64 = 128;

/// Answers a chat request.
pub(super) fn answer(ask: &Ask<'_>, json: &Value) -> Result<Answer, Refusal> {
    let streaming = Streaming::of(json)?;
    let prompt = prompt::read(ask, json)?;
    let choices = json.get("n").and_then(Value::as_u64).unwrap_or(1).clamp(1, MAX_CHOICES);
    let reply = Reply::to(&prompt, ask.fault);
    let usage =
        Usage { output: reply.usage.output * choices, reasoning: reply.usage.reasoning * choices, ..reply.usage };
    let shown = if prompt::shows_reasoning(ask) { Reasoning::Shown } else { Reasoning::Counted };
    let spoken = Spoken {
        id: ask.seed.id("chatcmpl-", 29),
        model: ask.model,
        seed: ask.seed,
        reply,
        usage,
        choices,
        shown,
        custom: custom_tools(json),
    };
    if streaming.on {
        return Ok(Answer::events(chunk::frames(&spoken, streaming, ask.fault), usage));
    }
    Ok(Answer::json(&spoken.completion(ask.fault.usage), usage))
}

/// Whether reasoning is in the answer or only in its price.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reasoning {
    Counted,
    Shown,
}

/// A reply with what OpenAI adds to it.
pub(super) struct Spoken<'a> {
    pub(super) id: String,
    pub(super) model: &'a str,
    pub(super) seed: Seed,
    pub(super) reply: Reply,
    pub(super) usage: Usage,
    pub(super) choices: u64,
    pub(super) shown: Reasoning,
    /// The tools whose input is text instead of JSON.
    pub(super) custom: Vec<&'a str>,
}

impl<'a> Spoken<'a> {
    pub(super) fn finish_reason(&self) -> &'static str {
        match self.reply.finish {
            Finish::Stop | Finish::Sequence(_) => "stop",
            Finish::Length => "length",
            Finish::Calls => "tool_calls",
        }
    }

    pub(super) fn reasoning(&self) -> Option<&str> {
        Some(self.reply.reasoning.as_str()).filter(|text| self.shown == Reasoning::Shown && !text.is_empty())
    }

    pub(super) fn call_id(&self, choice: u64, index: usize) -> String {
        self.seed.with(choice * 1_000 + index as u64 + 2).id("call_", 24)
    }

    fn completion(&'a self, report: super::super::fault::UsageReport) -> Completion<'a> {
        Completion {
            id: &self.id,
            object: "chat.completion",
            created: CREATED,
            model: self.model,
            choices: (0..self.choices).map(|index| self.choice(index)).collect(),
            usage: self.usage.reported(report).map(UsageObject::from),
            service_tier: "default",
            system_fingerprint: FINGERPRINT,
        }
    }

    fn choice(&'a self, index: u64) -> Choice<'a> {
        let reply = &self.reply;
        let calls =
            reply.calls.iter().enumerate().map(|(place, call)| self.call(self.call_id(index, place), call)).collect();
        let silent = reply.text.is_empty() && !reply.calls.is_empty();
        let content = Some(reply.text.as_str()).filter(|_| !silent);
        let message = Message {
            role: "assistant",
            content,
            refusal: None,
            annotations: [],
            reasoning_content: self.reasoning(),
            tool_calls: calls,
        };
        Choice { index, message, logprobs: None, finish_reason: self.finish_reason() }
    }

    fn call(&self, id: String, call: &'a Call) -> ToolCall<'a> {
        if self.custom.contains(&call.name.as_str()) {
            return ToolCall::Custom { id, custom: Custom { name: &call.name, input: &call.arguments } };
        }
        ToolCall::Function { id, function: Function { name: &call.name, arguments: &call.arguments } }
    }
}

fn custom_tools(json: &Value) -> Vec<&str> {
    let tools = json.get("tools").and_then(Value::as_array);
    tools.into_iter().flatten().filter_map(|tool| tool.pointer("/custom/name")?.as_str()).collect()
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageObject>,
    service_tier: &'static str,
    system_fingerprint: &'static str,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u64,
    message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<()>,
    annotations: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ToolCall<'a> {
    Function { id: String, function: Function<'a> },
    Custom { id: String, custom: Custom<'a> },
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Custom<'a> {
    name: &'a str,
    input: &'a str,
}
