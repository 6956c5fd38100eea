//! The streamed chat answer: a role chunk, a chunk for each word, one for each piece of a call's arguments, the finish
//! of each choice, the usage where it was asked for, and `[DONE]`.

use serde::Serialize;

use super::super::fault::Fault;
use super::super::script::{Frames, Place};
use super::super::text;
use super::chat::Spoken;
use super::{CREATED, FINGERPRINT, Streaming, UsageObject, data, done};

/// Characters of a call's arguments that go into one chunk.
const ARGUMENT_PIECE: usize = 8;

/// What chunks are padded with.
const PADDING: &str = "ZxYwVuTsRqPoNmLk";

/// The frames of a streamed answer.
pub(super) fn frames(spoken: &Spoken<'_>, streaming: Streaming, fault: &Fault) -> Frames {
    let mut writer = Writer { spoken, streaming, frames: Frames::default(), written: 0 };
    writer.pings(fault.pings);
    for choice in 0..spoken.choices {
        writer.role(choice);
    }
    for choice in 0..spoken.choices {
        writer.content(choice, fault);
    }
    for choice in 0..spoken.choices {
        writer.put(Place::Tail, choice, Delta::default(), Some(spoken.finish_reason()));
    }
    writer.end(fault);
    writer.frames
}

struct Writer<'a> {
    spoken: &'a Spoken<'a>,
    streaming: Streaming,
    frames: Frames,
    written: usize,
}

impl Writer<'_> {
    fn pings(&mut self, count: usize) {
        for _ in 0..count {
            self.frames.push(Place::Ping, |out| out.extend_from_slice(b": processing\n\n"));
        }
    }

    fn role(&mut self, choice: u64) {
        let silent = self.spoken.reply.text.is_empty() && !self.spoken.reply.calls.is_empty();
        let content = if silent { None } else { Some("") };
        let delta = Delta { role: Some("assistant"), content: Some(content), refusal: Some(None), ..Delta::default() };
        self.put(Place::Preface, choice, delta, None);
    }

    fn content(&mut self, choice: u64, fault: &Fault) {
        let spoken = self.spoken;
        for word in text::pieces(spoken.reasoning().unwrap_or_default()) {
            let delta = Delta { reasoning_content: Some(word), ..Delta::default() };
            self.put(Place::Content(1), choice, delta, None);
        }
        let words = match fault.events {
            Some(events) => text::portions(&spoken.reply.text, events),
            None => text::pieces(&spoken.reply.text),
        };
        for word in words {
            let delta = Delta { content: Some(Some(word)), ..Delta::default() };
            self.put(Place::Content(text::count(word)), choice, delta, None);
        }
        for index in 0..spoken.reply.calls.len() {
            self.call(choice, index);
        }
    }

    fn call(&mut self, choice: u64, index: usize) {
        let spoken = self.spoken;
        let Some(call) = spoken.reply.calls.get(index) else {
            return;
        };
        let id = spoken.call_id(choice, index);
        if spoken.custom.contains(&call.name.as_str()) {
            let custom = Custom { name: &call.name, input: &call.arguments };
            let opening =
                CallDelta { index, id: Some(&id), kind: Some("custom"), function: None, custom: Some(custom) };
            return self.put(Place::Content(1 + text::count(&call.arguments)), choice, Delta::call(opening), None);
        }
        let function = Function { name: Some(&call.name), arguments: "" };
        let opening =
            CallDelta { index, id: Some(&id), kind: Some("function"), function: Some(function), custom: None };
        self.put(Place::Content(1), choice, Delta::call(opening), None);
        for piece in argument_pieces(&call.arguments) {
            let function = Function { name: None, arguments: piece };
            let more = CallDelta { index, id: None, kind: None, function: Some(function), custom: None };
            self.put(Place::Content(text::count(piece)), choice, Delta::call(more), None);
        }
    }

    fn end(&mut self, fault: &Fault) {
        if let Some(usage) = self.spoken.usage.reported(fault.usage).filter(|_| self.streaming.usage) {
            let chunk = Chunk { choices: &[], usage: Some(Some(usage.into())), ..chunk(self.spoken) };
            self.frames.push(Place::Tail, |out| data(out, &chunk));
        }
        self.frames.push(Place::Tail, done);
    }

    fn put(&mut self, place: Place, index: u64, delta: Delta<'_>, finish_reason: Option<&'static str>) {
        self.written += 1;
        let choices = [Choice { index, delta, logprobs: None, finish_reason }];
        let mut chunk = Chunk { choices: &choices, ..chunk(self.spoken) };
        if self.streaming.usage {
            chunk.usage = Some(None);
        }
        if self.streaming.obfuscation {
            chunk.obfuscation = PADDING.get(..self.written * 7 % PADDING.len());
        }
        self.frames.push(place, |out| data(out, &chunk));
    }
}

/// A chunk of nothing yet.
fn chunk<'a>(spoken: &'a Spoken<'_>) -> Chunk<'a> {
    Chunk {
        id: &spoken.id,
        object: "chat.completion.chunk",
        created: CREATED,
        model: spoken.model,
        service_tier: "default",
        system_fingerprint: FINGERPRINT,
        choices: &[],
        usage: None,
        obfuscation: None,
    }
}

fn argument_pieces(arguments: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), arguments);
    while !rest.is_empty() {
        let end = rest.char_indices().nth(ARGUMENT_PIECE).map_or(rest.len(), |(place, _)| place);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    service_tier: &'static str,
    system_fingerprint: &'static str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageObject>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    obfuscation: Option<&'static str>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u64,
    delta: Delta<'a>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

/// What is new; the outer `Option` tells whether the field is there, the inner whether it is null.
#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Option<()>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

impl<'a> Delta<'a> {
    fn call(call: CallDelta<'a>) -> Self {
        Self { tool_calls: Some([call]), ..Self::default() }
    }
}

#[derive(Serialize)]
struct CallDelta<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<Custom<'a>>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Custom<'a> {
    name: &'a str,
    input: &'a str,
}
