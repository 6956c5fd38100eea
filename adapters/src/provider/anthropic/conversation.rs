//! A caller's messages as Anthropic's system prompt and turns.
//!
//! Anthropic wants turns that alternate, the results of tools first in the turn behind their calls, each call answered
//! once, and no blank text; a `system` turn only behind a user's, with an assistant's or nothing behind it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Notes;
use super::assistant::{Parts, Said, Told};
use super::bounds::Room;
use super::calls::{Call, Ids, Open};
use super::content::{Reader, Side, text_block};
use super::model::Model;
use super::native::{Block, Made, Speaker, Turn};
use crate::adapter::EncodeError;
use crate::openai::message::{Content, CustomCall, FunctionCall, Message, Role, ThinkingBlock, ToolCall};
use crate::openai::reply::Raw;
use crate::openai::text::{is_blank, is_string, raw_string, without_trailing_space};

/// What stands for the user where the assistant speaks first.
const ASSISTANT_FIRST: &str = "(The assistant speaks first.)";

/// What stands for a message that says nothing where the assistant would else go on with its own words.
const NOTHING_SAID: &str = "(Nothing is said.)";

/// A conversation in Anthropic's order.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    /// The system prompt.
    pub(super) system: Vec<Block<'a>>,
    /// The turns.
    pub(super) turns: Vec<Turn<'a>>,
    /// The names of the tools that were called, one for each call.
    pub(super) called: Vec<Cow<'a, str>>,
}

impl<'a> Conversation<'a> {
    /// Reads a request's messages.
    pub(super) fn read(messages: Vec<Message<'a>>, model: Model, notes: &mut Notes) -> Result<Self, EncodeError> {
        let mut scribe = Scribe::new(model, notes);
        let is_begun = messages.last().is_some_and(|message| message.role == Role::Assistant);
        for (at, message) in messages.into_iter().enumerate() {
            scribe.message(at, message)?;
        }
        scribe.finish(if is_begun { Answer::Begun } else { Answer::Due })
    }

    /// Whether the last answer called tools without the reasoning that led to it: with a budget to think, Anthropic
    /// then refuses to go on.
    pub(super) fn loop_lacks_thinking(&self) -> bool {
        let last = self.turns.iter().rfind(|turn| turn.speaker == Speaker::Assistant);
        last.is_some_and(|turn| {
            turn.blocks.iter().any(Block::is_tool_use) && !turn.blocks.first().is_some_and(Block::is_thinking)
        })
    }
}

/// What is wanted of the assistant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// That it goes on with what the caller put into its mouth.
    Begun,
    /// That it speaks.
    Due,
}

/// Writes turns as messages come.
struct Scribe<'a, 'n> {
    model: Model,
    notes: &'n mut Notes,
    room: Room,
    system: Vec<Block<'a>>,
    /// Instructions that wait for the end of the user's turn.
    held: Vec<Block<'a>>,
    turns: Vec<Turn<'a>>,
    /// The calls of the last assistant message.
    open: Open<'a>,
    ids: Ids,
    called: Vec<Cow<'a, str>>,
}

impl<'a, 'n> Scribe<'a, 'n> {
    fn new(model: Model, notes: &'n mut Notes) -> Self {
        Self {
            model,
            notes,
            room: Room::default(),
            system: Vec::new(),
            held: Vec::new(),
            turns: Vec::new(),
            open: Open::default(),
            ids: Ids::default(),
            called: Vec::new(),
        }
    }

    fn message(&mut self, at: usize, message: Message<'a>) -> Result<(), EncodeError> {
        if message.name.is_some() && message.role != Role::Function {
            self.notes.add("messages.name", "Anthropic's messages have no names");
        }
        self.notes.add_unknown("messages", &message.unknown, "Anthropic's messages have no such field");
        match message.role {
            Role::System | Role::Developer => self.instruct(at, message),
            Role::User => {
                let blocks = self.blocks(at, Side::User, &message)?;
                self.say(Speaker::User, blocks);
                Ok(())
            }
            Role::Assistant => self.assistant(at, message),
            Role::Tool => self.result(at, message),
            Role::Function => self.function_result(at, message),
        }
    }

    fn blocks(&mut self, at: usize, side: Side, message: &Message<'a>) -> Result<Vec<Block<'a>>, EncodeError> {
        let mut blocks = self.reader(at, side).blocks(message.content)?;
        if let (Some(mark), Some(last)) = (message.cache_control, blocks.last_mut()) {
            last.mark(mark);
        }
        Ok(blocks)
    }

    fn reader(&mut self, message: usize, side: Side) -> Reader<'_> {
        Reader { message, side, notes: self.notes, room: &mut self.room }
    }

    fn instruct(&mut self, at: usize, message: Message<'a>) -> Result<(), EncodeError> {
        let blocks = self.blocks(at, Side::System, &message)?;
        if self.turns.is_empty() {
            self.system.extend(blocks);
        } else {
            self.held.extend(blocks);
        }
        Ok(())
    }

    fn assistant(&mut self, at: usize, message: Message<'a>) -> Result<(), EncodeError> {
        if message.audio.is_some() {
            return Err(EncodeError::unsupported(format!("messages[{at}].audio"), "This model does not take audio."));
        }
        self.close_calls()?;
        self.place_held();
        let said = match message.content {
            Content::Text(text) => Said::Text(text),
            content => Said::Blocks(self.reader(at, Side::Assistant).blocks(content)?),
        };
        let mut calls = Vec::new();
        for call in self.list(message.tool_calls, at, "tool_calls", "an array of tool calls")? {
            calls.push(self.call(at, call)?);
        }
        calls.extend(message.function_call.map(|call| self.function(at, None, call, None)));
        let thoughts = self.list(message.thinking_blocks, at, "thinking_blocks", "an array of blocks")?;
        let provider = self.list(message.provider_blocks, at, "provider_blocks", "an array of blocks")?;
        for (field, raw) in [("block_order", message.block_order), ("annotations", message.annotations)] {
            self.room.take(raw.map_or("[]", RawValue::get), format_args!("messages[{at}].{field}"))?;
        }
        let parts = Parts {
            thinking: thoughts.into_iter().filter_map(thinking).collect(),
            provider: provider.into_iter().map(Block::Native).collect(),
            said,
            refusal: message.refusal.filter(|raw| is_string(raw)).and_then(|text| text_block(text, None)),
            calls,
        };
        let told = Told { order: message.block_order, annotations: message.annotations };
        let mut blocks = parts.into_blocks(&told, self.notes);
        if let (Some(mark), Some(last)) = (message.cache_control, blocks.last_mut()) {
            last.mark(mark);
        }
        self.say(Speaker::Assistant, blocks);
        Ok(())
    }

    /// A list that a message has beside its content.
    fn list<T: Deserialize<'a>>(
        &mut self,
        raw: Option<&'a RawValue>,
        at: usize,
        field: &str,
        expected: &str,
    ) -> Result<Vec<T>, EncodeError> {
        raw.map_or(Ok(Vec::new()), |raw| self.room.list(raw.get(), format_args!("messages[{at}].{field}"), expected))
    }

    fn call(&mut self, at: usize, call: ToolCall<'a>) -> Result<Block<'a>, EncodeError> {
        let id = call.id.map(|id| id.0);
        let extra = call.extra_content.and_then(|extra| extra.anthropic);
        match (call.function, call.custom) {
            (Some(function), _) => Ok(self.function(at, id, function, extra)),
            (None, Some(CustomCall { name, input })) => {
                let input = input.map_or("\"\"", RawValue::get);
                let input = object(format!("{{\"input\":{input}}}"));
                Ok(self.tool_use(at, id, name.0, input, None))
            }
            (None, None) => Err(EncodeError::invalid(
                format!("messages[{at}].tool_calls"),
                "A tool call must have a `function` or a `custom`.",
            )),
        }
    }

    fn function(
        &mut self,
        at: usize,
        id: Option<Cow<'a, str>>,
        call: FunctionCall<'a>,
        extra: Option<&'a RawValue>,
    ) -> Block<'a> {
        let input = arguments(call.arguments.map_or(Cow::Borrowed(""), |text| text.0));
        self.tool_use(at, id, call.name.0, input, extra)
    }

    fn tool_use(
        &mut self,
        at: usize,
        id: Option<Cow<'a, str>>,
        name: Cow<'a, str>,
        input: Raw<'a>,
        extra: Option<&'a RawValue>,
    ) -> Block<'a> {
        let asked = id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{at}_{}", self.open.made()).into());
        let told = self.ids.told(&asked);
        let extra = extra.and_then(|raw| serde_json::from_str::<CallExtra<'a>>(raw.get()).ok()).unwrap_or_default();
        self.called.push(name.clone());
        let CallExtra { caller, toolset_name } = extra;
        let id = Cow::Owned(told.clone());
        self.open.push(Call { message: at, asked, name: name.clone(), told, toolset_name });
        Block::Made(Made::ToolUse { id, name, input, caller, toolset_name, cache_control: None })
    }

    fn result(&mut self, at: usize, message: Message<'a>) -> Result<(), EncodeError> {
        let Some(id) = message.tool_call_id.as_ref() else {
            let param = format!("messages[{at}].tool_call_id");
            return Err(EncodeError::invalid(param, "A message of role `tool` must have a `tool_call_id`."));
        };
        let call = self.open.answer(id).ok_or_else(|| {
            let message =
                format!("`tool_call_id` `{}` answers no open tool call of the assistant message before it.", &**id);
            EncodeError::invalid(format!("messages[{at}].tool_call_id"), message)
        })?;
        self.answer(at, call, message)
    }

    fn function_result(&mut self, at: usize, message: Message<'a>) -> Result<(), EncodeError> {
        let name = message.name.as_deref().unwrap_or_default();
        let call = self.open.answer_function(name).ok_or_else(|| {
            let message = format!("The function `{name}` was not called in the assistant message before its result.");
            EncodeError::invalid(format!("messages[{at}].name"), message)
        })?;
        self.answer(at, call, message)
    }

    fn answer(&mut self, at: usize, call: Call<'a>, message: Message<'a>) -> Result<(), EncodeError> {
        let content = self.reader(at, Side::ToolResult).blocks(message.content)?;
        let result = Block::Made(Made::ToolResult {
            tool_use_id: Cow::Owned(call.told),
            content,
            is_error: message.is_error,
            toolset_name: call.toolset_name,
            cache_control: message.cache_control,
        });
        self.in_turn(Speaker::User, |turn| turn.results.push(result));
        Ok(())
    }

    /// Adds to the speaker's turn, or begins it. Nothing said is no turn.
    fn say(&mut self, speaker: Speaker, blocks: Vec<Block<'a>>) {
        if !blocks.is_empty() {
            self.in_turn(speaker, |turn| turn.blocks.extend(blocks));
        }
    }

    fn in_turn(&mut self, speaker: Speaker, write: impl FnOnce(&mut Turn<'a>)) {
        match self.turns.last_mut() {
            Some(turn) if turn.speaker == speaker => write(turn),
            _ => {
                let mut turn = Turn { speaker, results: Vec::new(), blocks: Vec::new() };
                write(&mut turn);
                self.turns.push(turn);
            }
        }
    }

    /// Before the assistant speaks again, all that it called must be answered.
    fn close_calls(&mut self) -> Result<(), EncodeError> {
        if let Some(call) = self.open.unanswered() {
            let message = format!("The tool call `{}` has no message of role `tool` that answers it.", call.asked);
            return Err(EncodeError::invalid(format!("messages[{}].tool_calls", call.message), message));
        }
        self.open = Open::default();
        Ok(())
    }

    /// Instructions given in mid-conversation go behind the user's turn, or into the system prompt of a model that
    /// takes none there; behind the assistant's they are a user's turn, or it would go on with its own words.
    fn place_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return;
        }
        let is_behind_user = self.turns.last().is_some_and(|turn| turn.speaker == Speaker::User);
        if !is_behind_user {
            self.notes.change(
                "messages.role",
                "user",
                "Anthropic takes no instructions behind an answer: the user says them",
            );
            self.say(Speaker::User, held);
        } else if self.model.takes_system_turns() {
            self.say(Speaker::System, held);
        } else {
            self.notes.add("messages.role", "this model takes instructions only before all messages: they stand there");
            self.system.extend(held);
        }
    }

    fn finish(mut self, answer: Answer) -> Result<Conversation<'a>, EncodeError> {
        self.close_calls()?;
        self.place_held();
        let spoke_last = self.turns.last().map(|turn| turn.speaker);
        if answer == Answer::Due && spoke_last == Some(Speaker::Assistant) {
            self.say(Speaker::User, vec![stand_in(NOTHING_SAID)]);
        }
        if self.turns.is_empty() {
            let system = std::mem::take(&mut self.system);
            self.say(Speaker::User, system);
        }
        match self.turns.first().map(|turn| turn.speaker) {
            None => {
                return Err(EncodeError::invalid("messages", "`messages` must hold at least one that says something."));
            }
            Some(Speaker::Assistant) => self.begin_with_user(),
            Some(Speaker::User | Speaker::System) => {}
        }
        self.trim_last();
        Ok(Conversation { system: self.system, turns: self.turns, called: self.called })
    }

    fn begin_with_user(&mut self) {
        let blocks = vec![stand_in(ASSISTANT_FIRST)];
        self.turns.insert(0, Turn { speaker: Speaker::User, results: Vec::new(), blocks });
    }

    /// An answer that is begun by the caller may not end in white space.
    fn trim_last(&mut self) {
        let Some(turn) = self.turns.last_mut().filter(|turn| turn.speaker == Speaker::Assistant) else {
            return;
        };
        let Some(Block::Made(Made::Text { text, .. })) = turn.blocks.last_mut() else {
            return;
        };
        if let Some(trimmed) = without_trailing_space(text) {
            *text = Cow::Owned(trimmed);
        }
    }
}

/// A text of Weir's own in a place where Anthropic needs one.
fn stand_in<'a>(text: &str) -> Block<'a> {
    Block::text(Cow::Owned(raw_string(text)), None)
}

/// What of Anthropic's own rides on a call.
#[derive(Default, Deserialize)]
struct CallExtra<'a> {
    #[serde(borrow)]
    caller: Option<&'a RawValue>,
    #[serde(borrow)]
    toolset_name: Option<&'a RawValue>,
}

/// A block of reasoning as it was handed out, byte for byte; nothing where it has no proof, as of another provider.
fn thinking(block: ThinkingBlock<'_>) -> Option<Block<'_>> {
    let proof = block.signature.filter(|raw| is_string(raw) && !is_blank(raw));
    let made = match (proof, block.data.filter(|raw| is_string(raw))) {
        (Some(signature), _) => {
            let thinking = block.thinking.map_or_else(|| Cow::Owned(raw_string("")), Cow::Borrowed);
            Made::Thinking { thinking, signature }
        }
        (None, Some(data)) => Made::RedactedThinking { data },
        (None, None) => return None,
    };
    Some(Block::Made(made))
}

/// A call's arguments as the object that Anthropic wants. What a model wrote that is no object is kept as a text, so
/// that one slip does not end a conversation.
fn arguments<'a>(text: Cow<'a, str>) -> Raw<'a> {
    let is_object = text.trim_start().starts_with('{');
    if text.trim().is_empty() {
        return object("{}".to_owned());
    }
    let raw = match text {
        Cow::Borrowed(text) if is_object => {
            serde_json::from_str::<&RawValue>(text).map(Cow::Borrowed).map_err(|_| text.into())
        }
        // Looked at first, for it may be long and is gone where it is no JSON.
        Cow::Owned(text) if is_object && serde_json::from_str::<&RawValue>(&text).is_ok() => Ok(object(text)),
        other => Err(other),
    };
    raw.unwrap_or_else(|text: Cow<'a, str>| object(format!("{{\"arguments\":{}}}", raw_string(&text))))
}

fn object<'a>(json: String) -> Raw<'a> {
    Cow::Owned(RawValue::from_string(json).unwrap_or_default())
}
