//! The streamed message: `message_start`, a ping, each block with its start, deltas and stop, `message_delta` with the
//! reason and the usage, `message_stop`.

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::fault::Fault;
use super::super::script::{Frames, Place};
use super::super::text;
use super::message::{Block, FinalUsage, Message, Spoken, Stop};

/// Characters of a call's input that go into one event.
const INPUT_PIECE: usize = 8;

/// The frames of a streamed message.
pub(super) fn frames(spoken: &Spoken<'_>, fault: &Fault) -> Frames {
    let mut frames = Frames::default();
    let usage = spoken.usage(fault.usage);
    let start = Event::MessageStart { message: opening(spoken, fault) };
    frames.event(Place::Preface, Some("message_start"), &start);
    for _ in 0..fault.pings.max(1) {
        let place = if fault.pings == 0 { Place::Preface } else { Place::Ping };
        frames.event(place, Some("ping"), &Event::Ping);
    }
    let mut calls = 0;
    for (index, block) in spoken.blocks().into_iter().enumerate() {
        calls += usize::from(matches!(block, Block::ToolUse { .. }));
        let arguments = spoken.arguments(calls.saturating_sub(1));
        write_block(&mut frames, index, &block, arguments, fault);
    }
    let end = Event::MessageDelta { delta: spoken.stop(), usage: usage.map(FinalUsage::from) };
    frames.event(Place::Tail, Some("message_delta"), &end);
    frames.event(Place::Tail, Some("message_stop"), &Event::MessageStop);
    frames
}

/// The message before it has content: one output token so far, as the real service says.
fn opening<'a>(spoken: &'a Spoken<'_>, fault: &Fault) -> Message<'a> {
    let mut message = spoken.message(Vec::new(), Stop::default(), fault.usage);
    if let Some(usage) = message.usage_mut() {
        usage.output_tokens = usage.output_tokens.min(1);
        usage.output_tokens_details = None;
    }
    message
}

fn write_block(frames: &mut Frames, index: usize, block: &Block<'_>, arguments: &str, fault: &Fault) {
    let Ok(empty) = RawValue::from_string("{}".to_owned()) else {
        return;
    };
    let content_block = match block {
        Block::Text { .. } => Block::Text { citations: None, text: "" },
        Block::Thinking { .. } => Block::Thinking { thinking: "", signature: "" },
        Block::RedactedThinking { data } => Block::RedactedThinking { data },
        Block::ToolUse { id, name, caller, .. } => Block::ToolUse { id, name, input: &empty, caller: *caller },
    };
    frames.event(Place::Preface, Some("content_block_start"), &Event::ContentBlockStart { index, content_block });
    match block {
        Block::Text { text, .. } => write_text(frames, index, text, fault),
        Block::Thinking { thinking, signature } => write_thinking(frames, index, thinking, signature),
        Block::ToolUse { .. } => write_input(frames, index, arguments),
        Block::RedactedThinking { .. } => {}
    }
    frames.event(Place::Preface, Some("content_block_stop"), &Event::ContentBlockStop { index });
}

fn write_text(frames: &mut Frames, index: usize, text: &str, fault: &Fault) {
    let words = fault.events.map_or_else(|| text::pieces(text), |events| text::portions(text, events));
    for word in words {
        delta(frames, index, text::count(word), Delta::Text { text: word });
    }
}

fn write_thinking(frames: &mut Frames, index: usize, thinking: &str, signature: &str) {
    for word in text::pieces(thinking) {
        delta(frames, index, 1, Delta::Thinking { thinking: word });
    }
    delta(frames, index, 0, Delta::Signature { signature });
}

/// An empty piece comes first, as there; empty arguments are an empty object all the same.
fn write_input(frames: &mut Frames, index: usize, arguments: &str) {
    delta(frames, index, 1, Delta::Input { partial_json: "" });
    if arguments == "{}" {
        return;
    }
    let mut rest = arguments;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(INPUT_PIECE).map_or(rest.len(), |(place, _)| place);
        let (piece, after) = rest.split_at(end);
        delta(frames, index, text::count(piece), Delta::Input { partial_json: piece });
        rest = after;
    }
}

fn delta(frames: &mut Frames, index: usize, tokens: u64, delta: Delta<'_>) {
    frames.event(Place::Content(tokens), Some("content_block_delta"), &Event::ContentBlockDelta { index, delta });
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event<'a> {
    MessageStart {
        message: Message<'a>,
    },
    Ping,
    ContentBlockStart {
        index: usize,
        content_block: Block<'a>,
    },
    ContentBlockDelta {
        index: usize,
        delta: Delta<'a>,
    },
    ContentBlockStop {
        index: usize,
    },
    MessageDelta {
        delta: Stop<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<FinalUsage>,
    },
    MessageStop,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Delta<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "input_json_delta")]
    Input { partial_json: &'a str },
}
