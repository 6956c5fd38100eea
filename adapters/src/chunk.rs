//! The only writer of OpenAI chunks.
//!
//! A decoder says what a provider's event meant; the writer makes `chat.completion.chunk` events of it, keeps what must
//! be constant over a stream (id, created, model), numbers the tool calls, holds the usage back until the stream's end,
//! and knows whether content has begun.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::handback::{Handback, Piece, ThinkingBlock};
use crate::openai::reply::FinishReason;
use crate::usage::{Counted, Extent, ServiceTier, Usage};

/// Room for one usual chunk, so that it is not grown into step by step.
const ROOM: usize = 512;

/// A stream of chunks being written. Bytes gather until they are [taken](ChunkWriter::take).
#[derive(Debug, Default)]
pub struct ChunkWriter {
    out: Vec<u8>,
    head: Vec<u8>,
    state: State,
    usage: Option<Counted>,
    tier: ServiceTier,
    usage_event: Option<Vec<u8>>,
    handback: Handback,
    wants_usage: bool,
    content_events: u64,
    content_length: usize,
    tools: u32,
    role_sent: bool,
}

/// How far the stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing but roles, pings and empty events so far.
    #[default]
    Before,
    /// Content has been written.
    Content,
    /// The provider said that its answer is complete.
    Complete,
}

/// A tool call's first chunk.
#[derive(Clone, Copy, Debug)]
pub struct ToolStart<'a> {
    /// The call's id.
    pub id: &'a str,
    /// The function's name.
    pub name: &'a str,
    /// What the provider wants handed back with the call.
    pub extra_content: Option<&'a RawValue>,
}

impl ChunkWriter {
    /// A writer whose caller did or did not ask for usage.
    #[must_use]
    pub fn new(wants_usage: bool) -> Self {
        Self { wants_usage, ..Self::default() }
    }

    /// Sets what all chunks have in common. To be said before the first chunk; later calls are ignored, so that a
    /// stream keeps its id.
    pub fn begin(&mut self, id: &str, created: u64, model: &str) {
        if !self.head.is_empty() {
            return;
        }
        self.head.extend_from_slice(b"data: {\"id\":");
        push_json(&mut self.head, id);
        self.head.extend_from_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        push_json(&mut self.head, &created);
        self.head.extend_from_slice(b",\"model\":");
        push_json(&mut self.head, model);
    }

    /// The opening chunk with the role; not content. Written once.
    pub fn role(&mut self) {
        if !self.role_sent {
            self.role_sent = true;
            self.delta(br#""role":"assistant","content":"""#);
        }
    }

    /// Text of the answer.
    pub fn text(&mut self, text: &str) {
        self.text_field(b"\"content\":", text);
    }

    /// Text of a refusal.
    pub fn refusal(&mut self, text: &str) {
        self.text_field(b"\"refusal\":", text);
    }

    /// Text of the model's reasoning.
    pub fn reasoning(&mut self, text: &str) {
        self.text_field(b"\"reasoning_content\":", text);
    }

    /// A whole block of reasoning, to be handed back by the caller.
    pub fn thinking_block(&mut self, block: ThinkingBlock<&str>) {
        self.handback.thinking_blocks.push(&block);
        self.handback.block_order.push(Piece::Thinking);
        self.gathered();
    }

    /// A block of text of so many characters has ended.
    pub fn text_ends(&mut self, chars: usize) {
        self.handback.block_order.push(Piece::Text(chars));
    }

    /// Where the text before it has its facts from.
    pub fn annotation(&mut self, annotation: &impl Serialize) {
        self.handback.annotations.push(annotation);
        self.gathered();
    }

    /// A block that OpenAI's format has no word for, to be handed back by the caller.
    pub fn provider_block(&mut self, block: &RawValue) {
        self.handback.provider_blocks.push(block);
        self.handback.block_order.push(Piece::Provider);
        self.gathered();
    }

    /// What the provider tells beside its blocks, for the message's `extra_content`.
    pub fn extra_content(&mut self, json: Box<RawValue>) {
        self.handback.extra_content = Some(json);
    }

    /// A tool call begins; the index is what its arguments are written under.
    pub fn tool_start(&mut self, start: ToolStart<'_>) -> u32 {
        let index = self.tools;
        self.tools += 1;
        self.handback.block_order.push(Piece::Call);
        self.content_delta(|out| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            push_json(out, &index);
            out.extend_from_slice(b",\"id\":");
            push_json(out, start.id);
            out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
            let length = push_text(out, start.name);
            out.extend_from_slice(b",\"arguments\":\"\"}");
            if let Some(extra) = start.extra_content {
                out.extend_from_slice(b",\"extra_content\":");
                push_json(out, extra);
            }
            out.extend_from_slice(b"}]");
            length
        });
        index
    }

    /// A piece of a tool call's arguments.
    pub fn tool_arguments(&mut self, index: u32, piece: &str) {
        if piece.is_empty() {
            return;
        }
        self.content_delta(|out| {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            push_json(out, &index);
            out.extend_from_slice(b",\"function\":{\"arguments\":");
            let length = push_text(out, piece);
            out.extend_from_slice(b"}}]");
            length
        });
    }

    /// A function call begins, for a caller that uses the older form.
    pub fn function_start(&mut self, name: &str) {
        self.handback.block_order.push(Piece::Call);
        self.content_delta(|out| {
            out.extend_from_slice(b"\"function_call\":{\"name\":");
            let length = push_text(out, name);
            out.extend_from_slice(b",\"arguments\":\"\"}");
            length
        });
    }

    /// A piece of a function call's arguments.
    pub fn function_arguments(&mut self, piece: &str) {
        if piece.is_empty() {
            return;
        }
        self.content_delta(|out| {
            out.extend_from_slice(b"\"function_call\":{\"arguments\":");
            let length = push_text(out, piece);
            out.push(b'}');
            length
        });
    }

    /// The choice has ended.
    pub fn finish(&mut self, reason: FinishReason) {
        self.role();
        self.hand_back();
        self.out.extend_from_slice(&self.head);
        self.out.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":");
        push_json(&mut self.out, &reason);
        self.out.extend_from_slice(b"}]}\n\n");
        self.content_begun();
    }

    /// An event of the pivot's own dialect, as it came.
    pub fn raw(&mut self, event: &[u8]) {
        self.out.extend_from_slice(event);
    }

    /// One `data:` event whose JSON is written by `write`.
    pub fn data(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.make_room();
        self.out.extend_from_slice(b"data: ");
        let start = self.out.len();
        write(&mut self.out);
        on_one_line(&mut self.out, start);
        self.out.extend_from_slice(b"\n\n");
    }

    /// Content has begun: from here on the answer's head can go out and the provider can't be changed.
    pub fn content_begun(&mut self) {
        if self.state == State::Before {
            self.state = State::Content;
        }
    }

    /// An event had content, of which the model wrote so many bytes.
    pub fn wrote(&mut self, length: usize) {
        self.content_begun();
        self.content_events += 1;
        self.content_length += length;
    }

    /// What the provider counted; the last word wins.
    pub fn usage(&mut self, counted: Counted) {
        self.usage = Some(counted);
        if counted.extent == Extent::Input {
            self.usage_event = None;
        }
    }

    /// What it used, known at its end by whatever else was there to count by.
    pub fn settle(&mut self, usage: Usage) {
        self.usage = Some(Counted { usage, extent: Extent::Whole });
    }

    /// How the stream is served, once the provider says so: also one that ends before its usage.
    pub fn served_in(&mut self, tier: ServiceTier) {
        self.tier = tier;
    }

    /// How the stream is served, as far as that is known.
    #[must_use]
    pub fn tier(&self) -> ServiceTier {
        self.tier
    }

    /// The provider's own usage event (its JSON), to be sent at the end if the caller asked for one.
    pub fn usage_event(&mut self, json: Vec<u8>) {
        self.usage_event = Some(json);
    }

    /// The provider said that its answer is complete.
    pub fn complete(&mut self) {
        self.state = State::Complete;
    }

    /// Whether content has been written.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.state != State::Before
    }

    /// Whether the provider said that its answer is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// What the provider counted, as far as it said.
    #[must_use]
    pub fn counted(&self) -> Option<Usage> {
        self.usage.map(|counted| counted.usage)
    }

    /// How much of the answer that is of.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.usage.map(|counted| counted.extent).unwrap_or_default()
    }

    /// How many events carried content: about one a token with most providers, for when they do not count.
    #[must_use]
    pub fn content_events(&self) -> u64 {
        self.content_events
    }

    /// How many bytes the model has written, as [`content_length`](crate::content_length) counts them.
    #[must_use]
    pub fn content_length(&self) -> usize {
        self.content_length
    }

    /// Ends the stream: the usage chunk where the caller asked for it, with `extra` (a JSON value) under `weir`, and
    /// `[DONE]`.
    pub fn close(&mut self, extra: Option<&[u8]>) {
        if self.wants_usage {
            self.close_usage(extra);
        }
        self.out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// The bytes that wait to be sent.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.out
    }

    /// Takes the bytes that wait to be sent.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn close_usage(&mut self, extra: Option<&[u8]>) {
        let Some(mut json) = self.usage_event.take().or_else(|| self.own_usage_event()) else {
            return;
        };
        if let (Some(extra), Some(end)) = (extra, json.iter().rposition(|b| *b == b'}')) {
            json.truncate(end);
            json.extend_from_slice(b",\"weir\":");
            json.extend_from_slice(extra);
            json.push(b'}');
        }
        self.data(|out| out.extend_from_slice(&json));
    }

    fn own_usage_event(&self) -> Option<Vec<u8>> {
        let usage = self.counted()?;
        let mut json = self.head.get(b"data: ".len()..).unwrap_or(b"{\"object\":\"chat.completion.chunk\"").to_vec();
        json.extend_from_slice(b",\"choices\":[],\"usage\":");
        push_json(&mut json, &crate::openai::usage::Written::from(usage));
        json.push(b'}');
        Some(json)
    }

    /// What gathers is content, though it is written at the end.
    fn gathered(&mut self) {
        self.role();
        self.wrote(0);
    }

    fn hand_back(&mut self) {
        let mut fields = std::mem::take(&mut self.handback).into_fields();
        if !fields.is_empty() {
            on_one_line(&mut fields, 0);
            self.delta(&fields);
        }
    }

    fn text_field(&mut self, name: &[u8], text: &str) {
        if text.is_empty() {
            return;
        }
        self.content_delta(|out| {
            out.extend_from_slice(name);
            push_text(out, text)
        });
    }

    fn make_room(&mut self) {
        if self.out.capacity() == 0 {
            self.out.reserve(ROOM);
        }
    }

    /// Writes a chunk's fields; `write` tells how many bytes of them the model wrote.
    fn content_delta(&mut self, write: impl FnOnce(&mut Vec<u8>) -> usize) {
        self.role();
        self.make_room();
        self.out.extend_from_slice(&self.head);
        self.out.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":{");
        let start = self.out.len();
        let length = write(&mut self.out);
        on_one_line(&mut self.out, start);
        self.out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
        self.wrote(length);
    }

    fn delta(&mut self, fields: &[u8]) {
        self.make_room();
        self.out.extend_from_slice(&self.head);
        self.out.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":{");
        self.out.extend_from_slice(fields);
        self.out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    }
}

/// Appends a value's JSON. Writing to a `Vec` cannot fail, and what is written here has no maps with odd keys.
pub(crate) fn push_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let _infallible = serde_json::to_writer(out, value);
}

/// Appends a text, and tells how long it is between its quotes.
fn push_text(out: &mut Vec<u8>, text: &str) -> usize {
    let start = out.len();
    push_json(out, text);
    out.len().saturating_sub(start + 2)
}

/// A provider's own JSON may be written over several lines; in an event it must be one. Line ends stand only between
/// tokens: inside of a string they are escaped.
fn on_one_line(out: &mut [u8], start: usize) {
    let mut rest = out.get_mut(start..).unwrap_or_default();
    while let Some(found) = memchr::memchr2(b'\n', b'\r', rest) {
        let (before, behind) = rest.split_at_mut(found + 1);
        if let Some(end) = before.last_mut() {
            *end = b' ';
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn json_over_several_lines_stays_one_event() {
        let mut writer = ChunkWriter::new(true);
        writer.begin("id", 1, "m");
        let block: &RawValue = serde_json::from_str("{\n \"a\":\r\n1}").unwrap();
        writer.provider_block(block);
        writer.finish(FinishReason::Stop);
        writer.data(|out| out.extend_from_slice(b"{\n}"));
        writer.usage_event(b"{\n}".to_vec());
        writer.close(None);
        let text = String::from_utf8_lossy(writer.pending()).into_owned();
        assert!(text.split("\n\n").all(|event| !event.contains('\n') && !event.contains('\r')), "{text}");
        assert!(text.contains(r#""provider_blocks":[{  "a":  1}]"#) && text.ends_with("data: { }\n\ndata: [DONE]\n\n"));
    }
}
