//! Anthropic's stream: blocks that open, grow and close, one after another, between a start and a stop of the message.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::beside::Beside;
use super::decode::{Block, Calls, StopDetails, annotation, finish_reason, refusal_text};
use super::unnamed::Unnamed;
use super::usage::Told;
use super::{error, is_legacy};
use crate::adapter::{DecodeError, EventDecoder, Target};
use crate::chunk::{ChunkWriter, ToolStart};
use crate::frame::Event;
use crate::handback::{Piece, ThinkingBlock};
use crate::openai::text::Text;
use crate::request::Request;

/// How some hosts that speak Anthropic's dialect end a stream, as OpenAI's do.
const DONE: &[u8] = b"[DONE]";

/// How many blocks may be open at a time; Anthropic opens one.
const MAX_OPEN: usize = 64;

/// How much of a stream is kept until its end: blocks to be handed back, their sources and their order.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// Reads one stream.
pub(super) struct Decoder {
    created: u64,
    model: String,
    legacy: bool,
    told: Told,
    /// What was told when the message had ended.
    ending: Told,
    beside: Beside,
    open: Vec<(u64, Open)>,
    kept: usize,
    /// Characters of text so far: citations count in them.
    chars: usize,
    calls: Calls,
    finished: bool,
}

/// A block that has not ended.
enum Open {
    Text {
        start: usize,
        citations: Vec<Box<RawValue>>,
    },
    Thinking {
        text: String,
        signature: String,
    },
    Call {
        sink: Sink,
        given: Option<Box<RawValue>>,
        any: bool,
    },
    /// It came whole.
    Whole,
    Unnamed(Unnamed),
}

/// Where a call's arguments go.
#[derive(Clone, Copy)]
enum Sink {
    /// Into the tool call of that index.
    Tool(u32),
    /// Into the one function call of the older form.
    Function,
    /// They are the answer; its text was so long before.
    Answer(usize),
}

impl Sink {
    fn write(self, piece: &str, out: &mut ChunkWriter) {
        match self {
            Self::Tool(index) => out.tool_arguments(index, piece),
            Self::Function => out.function_arguments(piece),
            Self::Answer(_) => out.text(piece),
        }
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    index: Option<u64>,
    message: Option<Start<'a>>,
    content_block: Option<&'a RawValue>,
    delta: Option<Delta<'a>>,
    usage: Option<&'a RawValue>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    usage: Option<&'a RawValue>,
}

/// What a block grows by, or how a message ends.
#[derive(Default, Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    pub(super) partial_json: Option<Text<'a>>,
    pub(super) thinking: Option<Text<'a>>,
    pub(super) signature: Option<Text<'a>>,
    pub(super) content: Option<&'a RawValue>,
    pub(super) encrypted_content: Option<&'a RawValue>,
    citation: Option<&'a RawValue>,
    stop_reason: Option<Text<'a>>,
    stop_details: Option<StopDetails<'a>>,
}

impl EventDecoder for Decoder {
    fn event(&mut self, event: Event<'_>, out: &mut ChunkWriter) -> Result<(), DecodeError> {
        if event.data == DONE {
            self.ended(out);
            return Ok(());
        }
        let text = simdutf8::basic::from_utf8(event.data).map_err(|_| malformed("bytes that are not UTF-8"))?;
        let wire: Wire<'_> = serde_json::from_str(text).map_err(|_| malformed("not an event of Anthropic's"))?;
        match wire.kind.as_deref() {
            Some("message_start") => {
                self.beside.read(text);
                self.start(wire.message, out);
            }
            Some("content_block_start") => self.open(wire.index, wire.content_block, out)?,
            Some("content_block_delta") => self.grow(wire.index, wire.delta, out)?,
            Some("content_block_stop") => self.close(wire.index.unwrap_or_default(), out),
            Some("message_delta") => {
                self.beside.read(text);
                self.stop(wire.delta, wire.usage, out);
            }
            Some("message_stop") => self.ended(out),
            Some("error") => return Err(DecodeError::Refused(Box::new(error::read_in_success(event.data)))),
            None if wire.error.is_some() => {
                return Err(DecodeError::Refused(Box::new(error::read_in_success(event.data))));
            }
            Some(_) | None => {}
        }
        Ok(())
    }
}

fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed(format!("the provider's event: {what}"))
}

impl Decoder {
    /// A decoder for the stream that answers `request`.
    pub(super) fn new(request: &Request, to: &Target<'_>) -> Self {
        Self {
            created: to.now,
            model: to.asked.to_owned(),
            legacy: is_legacy(request),
            told: Told::default(),
            ending: Told::default(),
            beside: Beside::default(),
            open: Vec::new(),
            kept: 0,
            chars: 0,
            calls: Calls::None,
            finished: false,
        }
    }

    /// The stream says that it has ended; it is whole if the message had ended before.
    fn ended(&self, out: &mut ChunkWriter) {
        if self.finished {
            out.complete();
        }
    }

    fn start(&mut self, message: Option<Start<'_>>, out: &mut ChunkWriter) {
        let (id, usage) = message.map_or((None, None), |message| (message.id, message.usage));
        out.begin(id.as_deref().unwrap_or_default(), self.created, &self.model);
        out.role();
        if let Some(told) = usage.and_then(Told::read) {
            self.count(&told, &Told::default(), out);
        }
    }

    fn count(&mut self, told: &Told, end: &Told, out: &mut ChunkWriter) {
        self.told.update(told);
        if let Some(counted) = self.told.counted(end) {
            out.usage(counted);
        }
    }

    fn open(&mut self, index: Option<u64>, raw: Option<&RawValue>, out: &mut ChunkWriter) -> Result<(), DecodeError> {
        let (Some(index), Some(raw)) = (index, raw) else {
            return Err(malformed("a block without index or content"));
        };
        let block: Block<'_> = serde_json::from_str(raw.get()).map_err(|_| malformed("a broken block"))?;
        if self.open.len() == MAX_OPEN {
            return Err(malformed("too many open blocks"));
        }
        self.kept = self.kept.saturating_add(size_of::<Piece>());
        out.begin("", self.created, &self.model);
        let open = self.opened(raw, &block, out);
        self.open.push((index, open));
        self.begun_with(index, &block, out)
    }

    /// What is to be remembered of a block; an encrypted one is whole at once.
    fn opened(&mut self, raw: &RawValue, block: &Block<'_>, out: &mut ChunkWriter) -> Open {
        match &*block.kind {
            "text" => Open::Text { start: self.chars, citations: Vec::new() },
            "thinking" => Open::Thinking { text: String::new(), signature: String::new() },
            "redacted_thinking" => {
                if let Some(data) = string(block.data) {
                    self.kept = self.kept.saturating_add(data.len());
                    out.thinking_block(ThinkingBlock::RedactedThinking { data: &data });
                }
                Open::Whole
            }
            "tool_use" => {
                Open::Call { sink: self.sink(block, out), given: block.input.map(ToOwned::to_owned), any: false }
            }
            _ => {
                self.kept = self.kept.saturating_add(raw.get().len());
                Open::Unnamed(Unnamed::new(raw))
            }
        }
    }

    fn sink(&mut self, block: &Block<'_>, out: &mut ChunkWriter) -> Sink {
        if block.is_answer() {
            return Sink::Answer(self.chars);
        }
        let name = block.name.as_deref().unwrap_or_default();
        if self.legacy && self.calls == Calls::None {
            self.calls = Calls::Function;
            out.function_start(name);
            return Sink::Function;
        }
        self.calls = Calls::Tools;
        let id = block.id.as_deref().unwrap_or_default();
        let extra = block.extra();
        Sink::Tool(out.tool_start(ToolStart { id, name, extra_content: extra.as_deref() }))
    }

    /// Some hosts put the first piece, or all of it, into the block's start.
    fn begun_with(&mut self, index: u64, block: &Block<'_>, out: &mut ChunkWriter) -> Result<(), DecodeError> {
        for citation in block.citations.iter().flatten() {
            self.cite(index, citation)?;
        }
        let delta = Delta {
            text: string(block.text),
            thinking: string(block.thinking),
            signature: string(block.signature),
            ..Delta::default()
        };
        self.grow(Some(index), Some(delta), out)
    }

    fn grow(&mut self, index: Option<u64>, delta: Option<Delta<'_>>, out: &mut ChunkWriter) -> Result<(), DecodeError> {
        let (Some(index), Some(delta)) = (index, delta) else {
            return Err(malformed("a delta without index or content"));
        };
        if let Some(citation) = delta.citation {
            self.cite(index, citation)?;
        }
        let Some((_, open)) = self.open.iter_mut().find(|(at, _)| *at == index) else {
            return Err(malformed("a delta of a block that is not open"));
        };
        match open {
            Open::Whole => {}
            Open::Text { .. } => {
                let text = delta.text.unwrap_or_default();
                self.chars += text.chars().count();
                out.text(&text);
            }
            Open::Thinking { text, signature } => {
                let (more, proof) = (delta.thinking.unwrap_or_default(), delta.signature.unwrap_or_default());
                self.kept = self.kept.saturating_add(more.len() + proof.len());
                text.push_str(&more);
                signature.push_str(&proof);
                out.reasoning(&more);
            }
            Open::Call { sink, any, .. } => {
                let piece = delta.partial_json.unwrap_or_default();
                *any |= !piece.is_empty();
                if matches!(sink, Sink::Answer(_)) {
                    self.chars += piece.chars().count();
                }
                sink.write(&piece, out);
            }
            Open::Unnamed(block) => self.kept = self.kept.saturating_add(block.grow(&delta)),
        }
        self.bounded()
    }

    fn cite(&mut self, index: u64, citation: &RawValue) -> Result<(), DecodeError> {
        if let Some((_, Open::Text { citations, .. })) = self.open.iter_mut().find(|(at, _)| *at == index) {
            self.kept = self.kept.saturating_add(citation.get().len());
            citations.push(citation.to_owned());
        }
        self.bounded()
    }

    fn bounded(&self) -> Result<(), DecodeError> {
        if self.kept > MAX_KEPT { Err(malformed("blocks larger than any may be")) } else { Ok(()) }
    }

    fn close(&mut self, index: u64, out: &mut ChunkWriter) {
        let Some(at) = self.open.iter().position(|(open, _)| *open == index) else {
            return;
        };
        let (_, open) = self.open.swap_remove(at);
        match open {
            Open::Text { start, citations } => {
                let annotations = citations.iter().filter_map(|raw| annotation(raw, start, self.chars));
                annotations.for_each(|annotation| out.annotation(&annotation));
                out.text_ends(self.chars - start);
            }
            Open::Thinking { text, signature } if !signature.is_empty() => {
                out.thinking_block(ThinkingBlock::Thinking { thinking: &text, signature: &signature });
            }
            Open::Thinking { .. } | Open::Whole => {}
            Open::Call { sink, given, any } => {
                let given = given.as_deref().map_or("{}", RawValue::get);
                if !any {
                    sink.write(given, out);
                }
                if let Sink::Answer(start) = sink {
                    self.chars += if any { 0 } else { given.chars().count() };
                    out.text_ends(self.chars - start);
                }
            }
            Open::Unnamed(block) => out.provider_block(&block.into_json()),
        }
    }

    fn stop(&mut self, delta: Option<Delta<'_>>, usage: Option<&RawValue>, out: &mut ChunkWriter) {
        if let Some(told) = usage.and_then(Told::read) {
            self.ending.update(&told);
            let ending = self.ending;
            self.count(&told, &ending, out);
        }
        let Some((reason, details)) = delta.and_then(|delta| Some((delta.stop_reason?, delta.stop_details))) else {
            return;
        };
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        out.begin("", self.created, &self.model);
        let left: Vec<u64> = self.open.iter().map(|(index, _)| *index).collect();
        left.into_iter().for_each(|index| self.close(index, out));
        if &*reason == "refusal" {
            out.refusal(&refusal_text(details));
        }
        if let Some(extra) = std::mem::take(&mut self.beside).into_json() {
            out.extra_content(extra);
        }
        out.finish(finish_reason(&reason, self.calls));
    }
}

/// A raw string's text; nothing for another type.
fn string(raw: Option<&RawValue>) -> Option<Text<'_>> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}
