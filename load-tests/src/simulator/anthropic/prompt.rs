//! A messages request read into a prompt, and what the real service refuses of its conversation.
//! Consecutive messages of one role are one turn, as there; roles need not alternate.

use std::borrow::Cow;

use serde_json::Value;

use super::super::dialect::{Ask, Refusal};
use super::super::reply::{Choice, Format, Parallel, Prompt, Thinking, Tool};
use super::super::{schema, text};
use super::check::{Generation, fields, known};
use super::{Version, signature};

/// Tokens of an image or a document, whatever is in it.
const MEDIA_TOKENS: u64 = 100;

/// Tokens of a tool's definition, whatever is in it.
const TOOL_TOKENS: u64 = 20;

/// Block types that are taken as they are, each with the fields it may have.
const BLOCKS: [(&str, &[&str]); 8] = [
    ("text", &["type", "text", "cache_control", "citations"]),
    ("image", &["type", "source", "cache_control", "transformations"]),
    ("document", &["type", "source", "cache_control", "citations", "context", "title"]),
    ("search_result", &["type", "source", "title", "content", "cache_control", "citations"]),
    ("thinking", &["type", "thinking", "signature"]),
    ("redacted_thinking", &["type", "data"]),
    ("tool_use", &["type", "id", "name", "input", "cache_control", "caller", "toolset_name"]),
    ("tool_result", &["type", "tool_use_id", "content", "is_error", "cache_control", "toolset_name"]),
];

/// What the request is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Answering,
    Counting,
}

/// Reads a request.
pub(super) fn read<'a>(
    ask: &Ask<'_>,
    json: &'a Value,
    version: Version,
    purpose: Purpose,
) -> Result<Prompt<'a>, Refusal> {
    let model = Generation::of(ask.model);
    fields(json, version, model, purpose)?;
    let tools = tools(json)?;
    let mut talk = Talk { version, ..Talk::default() };
    talk.count(tools.len() as u64 * TOOL_TOKENS);
    if json.get("tools").is_some_and(has_breakpoint) {
        talk.mark();
    }
    talk.hear_system(json)?;
    for (index, message) in messages(json)?.iter().enumerate() {
        talk.hear(index, message)?;
    }
    talk.end(model)?;
    if json.get("cache_control").is_some_and(Value::is_object) {
        talk.mark();
    }
    check_context(talk.total, ask)?;
    let choice = choice(json, &tools)?;
    let thinking = thinking(json, &choice, talk.tool_said.is_some())?;
    let (cached, cache_write) = talk.cache();
    Ok(Prompt {
        input: talk.total.max(1),
        cached,
        cache_write,
        parallel: parallel(json),
        format: format(json)?,
        limit: json.get("max_tokens").and_then(Value::as_u64),
        stops: stops(json)?,
        text: talk.text,
        tool_said: talk.tool_said,
        choice,
        thinking,
        tools,
    })
}

fn messages(json: &Value) -> Result<&Vec<Value>, Refusal> {
    let messages = json.get("messages").ok_or_else(|| Refusal::invalid("messages: Field required"))?;
    let messages = messages.as_array().ok_or_else(|| Refusal::invalid("messages: Input should be a valid array"))?;
    if messages.is_empty() {
        return Err(Refusal::invalid("messages: at least one message is required"));
    }
    Ok(messages)
}

/// The conversation so far.
#[derive(Default)]
struct Talk<'a> {
    version: Version,
    text: Cow<'a, str>,
    tool_said: Option<String>,
    total: u64,
    /// The tokens up to the last mark for the cache.
    marked: u64,
    has_answers: bool,
    role: &'a str,
    /// The calls of the turn before, until the turn that answers them is over.
    calls: Vec<&'a str>,
    /// The calls of this turn.
    making: Vec<&'a str>,
    all_calls: Vec<&'a str>,
    index: usize,
    last_text: &'a str,
}

impl<'a> Talk<'a> {
    fn count(&mut self, tokens: u64) {
        self.total += tokens;
    }

    fn mark(&mut self) {
        self.marked = self.total;
    }

    /// What was read from the cache and what was written to it: what is marked was there already when the model has
    /// answered before.
    fn cache(&self) -> (u64, u64) {
        if self.has_answers { (self.marked, 0) } else { (0, self.marked) }
    }

    fn hear_system(&mut self, json: &Value) -> Result<(), Refusal> {
        match json.get("system") {
            None => {}
            Some(Value::String(text)) => self.count(text::count(text)),
            Some(Value::Array(blocks)) => self.hear_texts("system", blocks)?,
            Some(_) => {
                return Err(Refusal::invalid("system: Input should be a valid string or a list of text blocks"));
            }
        }
        Ok(())
    }

    fn hear_texts(&mut self, path: &str, blocks: &[Value]) -> Result<(), Refusal> {
        for (place, block) in blocks.iter().enumerate() {
            let at = format!("{path}.{place}");
            let text =
                block.get("text").and_then(Value::as_str).filter(|_| block.get("type") == Some(&Value::from("text")));
            let text = text.ok_or_else(|| Refusal::invalid(format!("{at}: Input should be a valid text block")))?;
            known(block, &["type", "text", "cache_control", "citations"], &at)?;
            if text.is_empty() {
                return Err(Refusal::invalid(format!("{path}: text content blocks must be non-empty")));
            }
            self.count(text::count(text));
            if has_breakpoint(block) {
                self.mark();
            }
        }
        Ok(())
    }

    fn hear(&mut self, index: usize, message: &'a Value) -> Result<(), Refusal> {
        known(message, &["role", "content"], &format!("messages.{index}"))?;
        let role = message.get("role").and_then(Value::as_str);
        match role {
            Some("system") if self.version == Version::V2026 => self.hear_system_message(index, message),
            Some(role @ ("user" | "assistant")) => {
                self.index = index;
                self.take_turn(role)?;
                self.hear_message(index, message)
            }
            Some(role) => Err(Refusal::invalid(format!(
                "messages: Unexpected role \"{role}\". Allowed roles are \"user\" or \"assistant\"."
            ))),
            None => Err(Refusal::invalid(format!("messages.{index}.role: Field required"))),
        }
    }

    fn hear_system_message(&mut self, index: usize, message: &Value) -> Result<(), Refusal> {
        let path = format!("messages.{index}.content");
        match message.get("content") {
            Some(Value::String(text)) if !text.is_empty() => self.count(text::count(text)),
            Some(Value::Array(blocks)) if !blocks.is_empty() => self.hear_texts(&path, blocks)?,
            _ => {
                return Err(Refusal::invalid(format!("{path}: system messages must have non-empty content")));
            }
        }
        Ok(())
    }

    /// A change of role ends a turn.
    fn take_turn(&mut self, role: &'a str) -> Result<(), Refusal> {
        if self.role == role {
            return Ok(());
        }
        if self.role == "user" {
            self.all_answered()?;
        } else {
            self.calls = std::mem::take(&mut self.making);
        }
        if role == "user" {
            (self.text, self.tool_said) = (Cow::default(), None);
        }
        self.has_answers |= role == "assistant";
        self.role = role;
        Ok(())
    }

    fn all_answered(&self) -> Result<(), Refusal> {
        if self.calls.is_empty() {
            return Ok(());
        }
        Err(Refusal::invalid(format!(
            "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` \
             block must have a corresponding `tool_result` block in the next message.",
            self.index.saturating_sub(1),
            self.calls.join(", ")
        )))
    }

    fn hear_message(&mut self, index: usize, message: &'a Value) -> Result<(), Refusal> {
        let path = format!("messages.{index}");
        match message.get("content") {
            Some(Value::String(text)) if !text.is_empty() => self.hear_text(text),
            Some(Value::String(_)) => {
                return Err(Refusal::invalid(format!("{path}: {} messages must have non-empty content", self.role)));
            }
            Some(Value::Array(blocks)) if blocks.is_empty() && self.role == "user" => {
                return Err(Refusal::invalid(format!("{path}: user messages must have non-empty content")));
            }
            Some(Value::Array(blocks)) => {
                for (place, block) in blocks.iter().enumerate() {
                    self.hear_block(&format!("{path}.content.{place}"), block)?;
                }
            }
            Some(_) => {
                return Err(Refusal::invalid(format!("{path}.content: Input should be a valid string or list")));
            }
            None => return Err(Refusal::invalid(format!("{path}.content: Field required"))),
        }
        Ok(())
    }

    fn hear_text(&mut self, text: &'a str) {
        self.count(text::count(text));
        self.last_text = text;
        if self.role == "user" {
            if self.text.is_empty() {
                self.text = text.into();
                return;
            }
            let so_far = self.text.to_mut();
            so_far.push(' ');
            so_far.push_str(text);
        }
    }

    fn hear_block(&mut self, at: &str, block: &'a Value) -> Result<(), Refusal> {
        let kind = block
            .get("type")
            .and_then(Value::as_str)
            .ok_or_else(|| Refusal::invalid(format!("{at}.type: Field required")))?;
        let Some((_, fields)) = BLOCKS.iter().find(|(name, _)| *name == kind) else {
            return Err(Refusal::invalid(format!(
                "{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
            )));
        };
        known(block, fields, &format!("{at}.{kind}"))?;
        self.last_text = "";
        match kind {
            "text" => self.hear_text_block(at, block)?,
            "image" | "document" => self.hear_media(at, kind, block)?,
            "thinking" | "redacted_thinking" => self.hear_thinking(at, kind, block)?,
            "tool_use" => self.hear_call(at, block)?,
            "tool_result" => self.hear_result(at, block)?,
            _ => self.count(MEDIA_TOKENS),
        }
        if has_breakpoint(block) {
            self.mark();
        }
        Ok(())
    }

    fn hear_text_block(&mut self, at: &str, block: &'a Value) -> Result<(), Refusal> {
        let text = string(block, "text", &format!("{at}.text"))?;
        if text.is_empty() {
            return Err(Refusal::invalid("messages: text content blocks must be non-empty"));
        }
        if text.trim().is_empty() {
            return Err(Refusal::invalid("messages: text content blocks must contain non-whitespace text"));
        }
        self.hear_text(text);
        Ok(())
    }

    fn hear_media(&mut self, at: &str, kind: &str, block: &Value) -> Result<(), Refusal> {
        self.count(MEDIA_TOKENS);
        let at = format!("{at}.{kind}.source");
        let source = block.get("source").ok_or_else(|| Refusal::invalid(format!("{at}: Field required")))?;
        match source.get("type").and_then(Value::as_str) {
            Some("base64") => base64_source(&at, source),
            Some("url") => {
                let url = string(source, "url", &at)?;
                let is_url = url.starts_with("https://") || url.starts_with("http://");
                if is_url {
                    Ok(())
                } else {
                    Err(Refusal::invalid(format!("{at}.url.url: Only HTTPS URLs are supported.")))
                }
            }
            Some("file" | "text" | "content") => Ok(()),
            _ => Err(Refusal::invalid(format!(
                "{at}: Input tag does not match any of the expected tags: 'base64', 'url', 'file'"
            ))),
        }
    }

    fn hear_thinking(&mut self, at: &str, kind: &str, block: &Value) -> Result<(), Refusal> {
        if self.role != "assistant" {
            return Err(Refusal::invalid(format!("{at}: `{kind}` blocks are only allowed in assistant messages")));
        }
        let (text, mark) = match kind {
            "thinking" => (
                string(block, "thinking", &format!("{at}.thinking"))?,
                string(block, "signature", &format!("{at}.thinking"))?,
            ),
            _ => ("", string(block, "data", &format!("{at}.redacted_thinking"))?),
        };
        if !signature::is_ours(mark, text) {
            let field = if kind == "thinking" { "`signature`" } else { "`data`" };
            return Err(Refusal::invalid(format!("{at}: Invalid {field} in `{kind}` block")));
        }
        self.count(text::count(text));
        Ok(())
    }

    fn hear_call(&mut self, at: &str, block: &'a Value) -> Result<(), Refusal> {
        let at = format!("{at}.tool_use");
        if self.role != "assistant" {
            return Err(Refusal::invalid(format!(
                "messages: `tool_use` blocks can only be in `{}` messages",
                "assistant"
            )));
        }
        let id = string(block, "id", &at)?;
        let name = string(block, "name", &at)?;
        if !matches_name(id, usize::MAX) {
            return Err(Refusal::invalid(format!("{at}.id: String should match pattern '^[a-zA-Z0-9_-]+$'")));
        }
        if !matches_name(name, 128) {
            return Err(Refusal::invalid(format!("{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")));
        }
        let input = block.get("input").filter(|input| input.is_object());
        let input = input.ok_or_else(|| Refusal::invalid(format!("{at}.input: Input should be a valid dictionary")))?;
        if self.all_calls.contains(&id) {
            return Err(Refusal::invalid(format!("messages: `tool_use` ids must be unique: {id}")));
        }
        self.count(1 + text::count(&input.to_string()));
        self.all_calls.push(id);
        self.making.push(id);
        Ok(())
    }

    fn hear_result(&mut self, at: &str, block: &'a Value) -> Result<(), Refusal> {
        let id = string(block, "tool_use_id", &format!("{at}.tool_result"))?;
        let Some(place) = self.calls.iter().position(|call| *call == id).filter(|_| self.role == "user") else {
            return Err(Refusal::invalid(format!(
                "{at}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a \
                 corresponding `tool_use` block in the previous message."
            )));
        };
        if !self.text.is_empty() {
            self.all_answered()?;
        }
        self.calls.remove(place);
        let said = self.result_text(at, block)?;
        let so_far = self.tool_said.take().map(|so_far| so_far + " ").unwrap_or_default();
        self.tool_said = Some(so_far + &said);
        Ok(())
    }

    fn result_text(&mut self, at: &str, block: &'a Value) -> Result<String, Refusal> {
        let mut said = String::new();
        match block.get("content") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => said.push_str(text),
            Some(Value::Array(parts)) => {
                for (place, part) in parts.iter().enumerate() {
                    self.result_part(&format!("{at}.tool_result.content.{place}"), part, &mut said)?;
                }
            }
            Some(_) => {
                return Err(Refusal::invalid(format!(
                    "{at}.tool_result.content: Input should be a valid string or list"
                )));
            }
        }
        self.count(text::count(&said));
        Ok(said)
    }

    fn result_part(&mut self, at: &str, part: &'a Value, said: &mut String) -> Result<(), Refusal> {
        match part.get("type").and_then(Value::as_str) {
            Some("text") => {
                let text = string(part, "text", &format!("{at}.text"))?;
                if text.is_empty() {
                    return Err(Refusal::invalid("messages: text content blocks must be non-empty"));
                }
                if !said.is_empty() {
                    said.push(' ');
                }
                said.push_str(text);
                Ok(())
            }
            Some(kind @ ("image" | "document")) => self.hear_media(at, kind, part),
            Some("search_result" | "tool_reference" | "browser_state") => Ok(()),
            _ => Err(Refusal::invalid(format!("{at}: Input tag does not match any of the expected tags"))),
        }
    }

    fn end(&mut self, model: Generation) -> Result<(), Refusal> {
        if self.role == "user" {
            return self.all_answered();
        }
        if !self.making.is_empty() {
            self.calls = std::mem::take(&mut self.making);
            self.index += 1;
            return self.all_answered();
        }
        if model >= Generation(4, 6) {
            let message =
                "This model does not support assistant message prefill. The conversation must end with a user message.";
            return Err(Refusal::invalid(message));
        }
        if self.last_text.ends_with(char::is_whitespace) {
            return Err(Refusal::invalid("messages: final assistant content cannot end with trailing whitespace"));
        }
        Ok(())
    }
}

fn has_breakpoint(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_breakpoint),
        _ => value.get("cache_control").is_some_and(Value::is_object),
    }
}

fn string<'a>(block: &'a Value, name: &str, at: &str) -> Result<&'a str, Refusal> {
    let value = block.get(name).ok_or_else(|| Refusal::invalid(format!("{at}.{name}: Field required")))?;
    value.as_str().ok_or_else(|| Refusal::invalid(format!("{at}.{name}: Input should be a valid string")))
}

fn matches_name(name: &str, longest: usize) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= longest && name.chars().all(fits)
}

fn base64_source(at: &str, source: &Value) -> Result<(), Refusal> {
    let kind = string(source, "media_type", &format!("{at}.base64"))?;
    let data = string(source, "data", &format!("{at}.base64"))?;
    let known = ["image/jpeg", "image/png", "image/gif", "image/webp", "application/pdf"];
    if !known.contains(&kind) {
        return Err(Refusal::invalid(format!(
            "{at}.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
        )));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if data.is_empty() || !data.bytes().all(fits) {
        return Err(Refusal::invalid(format!("{at}.base64: invalid base64 data")));
    }
    Ok(())
}

fn tools(json: &Value) -> Result<Vec<Tool<'_>>, Refusal> {
    let Some(tools) = json.get("tools") else {
        return Ok(Vec::new());
    };
    let tools = tools.as_array().ok_or_else(|| Refusal::invalid("tools: Input should be a valid array"))?;
    let tools: Vec<Tool<'_>> =
        tools.iter().enumerate().map(|(index, tool)| one_tool(index, tool)).collect::<Result<_, _>>()?;
    let twice =
        tools.iter().enumerate().any(|(index, tool)| tools.iter().skip(index + 1).any(|other| other.name == tool.name));
    if twice { Err(Refusal::invalid("tools: Tool names must be unique.")) } else { Ok(tools) }
}

fn one_tool(index: usize, tool: &Value) -> Result<Tool<'_>, Refusal> {
    let at = format!("tools.{index}");
    let kind = tool.get("type").and_then(Value::as_str).unwrap_or("custom");
    let name = string(tool, "name", &at)?;
    if kind != "custom" {
        return Ok(Tool { name, schema: None });
    }
    let fields = [
        "name",
        "type",
        "description",
        "input_schema",
        "cache_control",
        "strict",
        "defer_loading",
        "eager_input_streaming",
        "input_examples",
        "allowed_callers",
    ];
    known(tool, &fields, &format!("{at}.custom"))?;
    if !matches_name(name, 128) {
        return Err(Refusal::invalid(format!(
            "{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        )));
    }
    let schema = tool
        .get("input_schema")
        .ok_or_else(|| Refusal::invalid(format!("{at}.custom.input_schema: Field required")))?;
    if schema.get("type") != Some(&Value::from("object")) {
        return Err(Refusal::invalid(format!("{at}.custom.input_schema.type: Input should be 'object'")));
    }
    Ok(Tool { name, schema: Some(schema) })
}

fn choice<'a>(json: &'a Value, tools: &[Tool<'_>]) -> Result<Choice<'a>, Refusal> {
    let Some(choice) = json.get("tool_choice") else {
        return Ok(Choice::Auto);
    };
    if tools.is_empty() {
        return Err(Refusal::invalid("tool_choice: may only be specified while providing tools"));
    }
    match choice.get("type").and_then(Value::as_str) {
        Some("auto") => Ok(Choice::Auto),
        Some("any") => Ok(Choice::Any),
        Some("none") => Ok(Choice::Never),
        Some("tool") => {
            let name = string(choice, "name", "tool_choice.tool")?;
            let offered = tools.iter().any(|tool| tool.name == name);
            if offered {
                Ok(Choice::Named(name))
            } else {
                Err(Refusal::invalid(format!("Tool '{name}' not found in provided tools")))
            }
        }
        _ => Err(Refusal::invalid(
            "tool_choice: Input tag does not match any of the expected tags: 'auto', 'any', 'tool', 'none'",
        )),
    }
}

fn parallel(json: &Value) -> Parallel {
    let forbidden = json.pointer("/tool_choice/disable_parallel_tool_use") == Some(&Value::Bool(true));
    if forbidden { Parallel::Forbidden } else { Parallel::Allowed }
}

fn thinking(json: &Value, choice: &Choice<'_>, after_tool: bool) -> Result<Thinking, Refusal> {
    let Some(config) = json.get("thinking") else {
        return Ok(Thinking::Off);
    };
    let thinking = match config.get("type").and_then(Value::as_str) {
        Some("disabled") => Thinking::Off,
        Some("adaptive") => Thinking::On,
        Some("between_tools") if after_tool => Thinking::On,
        Some("between_tools") => Thinking::Off,
        Some("enabled") => budget(config, json)?,
        _ => {
            return Err(Refusal::invalid(
                "thinking: Input tag does not match any of the expected tags: 'enabled', 'disabled', 'between_tools', 'adaptive'",
            ));
        }
    };
    if thinking == Thinking::On && matches!(choice, Choice::Any | Choice::Named(_)) {
        return Err(Refusal::invalid("Thinking may not be enabled when tool_choice forces tool use."));
    }
    if thinking == Thinking::On && json.get("temperature").and_then(Value::as_f64).is_some_and(|value| value != 1.0) {
        return Err(Refusal::invalid("`temperature` may only be set to 1 when thinking is enabled."));
    }
    Ok(thinking)
}

fn budget(config: &Value, json: &Value) -> Result<Thinking, Refusal> {
    let Some(budget) = config.get("budget_tokens").and_then(Value::as_u64) else {
        return Err(Refusal::invalid("thinking.enabled.budget_tokens: Field required"));
    };
    if budget < 1024 {
        return Err(Refusal::invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"));
    }
    if json.get("max_tokens").and_then(Value::as_u64).is_some_and(|limit| limit <= budget) {
        return Err(Refusal::invalid("`max_tokens` must be greater than `thinking.budget_tokens`."));
    }
    Ok(Thinking::On)
}

fn format(json: &Value) -> Result<Format<'_>, Refusal> {
    let Some(config) = json.get("output_config") else {
        return Ok(Format::Text);
    };
    known(config, &["effort", "format"], "output_config")?;
    let effort = config.get("effort").filter(|effort| !effort.is_null());
    let efforts = ["low", "medium", "high", "xhigh", "max"];
    if effort.is_some_and(|effort| !effort.as_str().is_some_and(|effort| efforts.contains(&effort))) {
        return Err(Refusal::invalid(
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'",
        ));
    }
    let Some(format) = config.get("format").filter(|format| !format.is_null()) else {
        return Ok(Format::Text);
    };
    if format.get("type") != Some(&Value::from("json_schema")) {
        return Err(Refusal::invalid("output_config.format.type: Input should be 'json_schema'"));
    }
    let wanted = format.get("schema").ok_or_else(|| Refusal::invalid("output_config.format.schema: Field required"))?;
    if schema::open_object(wanted).is_some() {
        return Err(Refusal::invalid(
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
        ));
    }
    Ok(Format::Schema(wanted))
}

fn stops(json: &Value) -> Result<Vec<&str>, Refusal> {
    let Some(stops) = json.get("stop_sequences") else {
        return Ok(Vec::new());
    };
    let stops = stops.as_array().ok_or_else(|| Refusal::invalid("stop_sequences: Input should be a valid array"))?;
    let stops: Vec<&str> = stops.iter().filter_map(Value::as_str).collect();
    if stops.iter().any(|stop| stop.trim().is_empty()) {
        return Err(Refusal::invalid("stop_sequences: each stop sequence must contain non-whitespace"));
    }
    Ok(stops)
}

fn check_context(input: u64, ask: &Ask<'_>) -> Result<(), Refusal> {
    let Some(window) = ask.fault.context.filter(|window| input > *window) else {
        return Ok(());
    };
    Err(Refusal::invalid(format!("prompt is too long: {input} tokens > {window} maximum")))
}
