//! A chat request read into a prompt, and what the real service refuses of it.

use std::borrow::Cow;

use serde_json::Value;

use super::super::dialect::{Ask, Refusal};
use super::super::fault::Fault;
use super::super::reply::{Choice, Format, Parallel, Prompt, Thinking, Tool};
use super::super::{schema, text};
use super::{field, missing, wrong_type};

/// Tokens of an image, a sound and a file, whatever is in them.
const MEDIA_TOKENS: u64 = 100;

/// Tokens of a tool's definition, whatever is in it.
const TOOL_TOKENS: u64 = 20;

/// Prompts from this size on are cached, in steps of `CACHE_STEP`.
const CACHE_FROM: u64 = 1024;

/// See `CACHE_FROM`.
const CACHE_STEP: u64 = 128;

const ROLES: [&str; 6] = ["system", "assistant", "user", "function", "tool", "developer"];

const FIELDS: [&str; 39] = [
    "messages",
    "model",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
    "think",
    "chat_template_kwargs",
];

/// Reads a chat request.
pub(super) fn read<'a>(ask: &Ask<'_>, json: &'a Value) -> Result<Prompt<'a>, Refusal> {
    check_fields(json, ask.fault)?;
    check_sampling(json, ask.model)?;
    let messages = messages(json)?;
    let mut talk = Talk::default();
    for (index, message) in messages.iter().enumerate() {
        talk.hear(index, message)?;
    }
    talk.end()?;
    let tools = tools(json)?;
    let input = (talk.total + tools.len() as u64 * TOOL_TOKENS).max(1);
    check_context(input, ask)?;
    let cached = if input >= CACHE_FROM { talk.before_last / CACHE_STEP * CACHE_STEP } else { 0 };
    Ok(Prompt {
        choice: choice(json, &tools)?,
        parallel: if json.get("parallel_tool_calls") == Some(&Value::Bool(false)) {
            Parallel::Forbidden
        } else {
            Parallel::Allowed
        },
        format: format(json, messages)?,
        limit: limit(json, ask.model)?,
        stops: stops(json)?,
        thinking: thinking(json, ask),
        tool_said: talk.tool_said,
        text: talk.text,
        tools,
        input,
        cached,
        cache_write: 0,
    })
}

fn messages(json: &Value) -> Result<&Vec<Value>, Refusal> {
    let messages = field(json, "messages").ok_or_else(|| missing("messages"))?;
    let messages = messages.as_array().ok_or_else(|| wrong_type("messages", "an array of objects", messages))?;
    if messages.is_empty() {
        let message =
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(Refusal::invalid(message).param("messages").code("empty_array"));
    }
    Ok(messages)
}

/// The conversation so far.
#[derive(Default)]
struct Talk<'a> {
    text: Cow<'a, str>,
    tool_said: Option<String>,
    total: u64,
    before_last: u64,
    /// Calls that no result has answered, with the place of the message that made them.
    unanswered: Vec<&'a str>,
    made_at: usize,
}

impl<'a> Talk<'a> {
    fn hear(&mut self, index: usize, message: &'a Value) -> Result<(), Refusal> {
        let at = |name: &str| format!("messages[{index}].{name}");
        let Some(role) = message.get("role") else {
            return Err(missing(&at("role")));
        };
        let role = role.as_str().ok_or_else(|| wrong_type(at("role"), "a string", role))?;
        if !ROLES.contains(&role) {
            let message = format!("Invalid value: '{role}'. Supported values are: '{}'.", ROLES.join("', '"));
            return Err(Refusal::invalid(message).param(at("role")).code("invalid_value"));
        }
        if role != "tool" {
            self.end()?;
        }
        let said = content(index, role, message)?;
        self.before_last = self.total;
        self.total += said.tokens;
        match role {
            "user" => (self.text, self.tool_said) = (said.text, None),
            "tool" => self.hear_result(index, message, &said.text)?,
            "assistant" => self.hear_calls(index, message)?,
            _ => {}
        }
        Ok(())
    }

    fn hear_result(&mut self, index: usize, message: &Value, said: &str) -> Result<(), Refusal> {
        let Some(id) = message.get("tool_call_id").and_then(Value::as_str) else {
            return Err(missing(&format!("messages[{index}].tool_call_id")));
        };
        let Some(place) = self.unanswered.iter().position(|call| *call == id) else {
            let message = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.";
            return Err(Refusal::invalid(message).param(format!("messages.[{index}].role")));
        };
        self.unanswered.remove(place);
        let so_far = self.tool_said.take().map(|so_far| so_far + " ").unwrap_or_default();
        self.tool_said = Some(so_far + said);
        Ok(())
    }

    fn hear_calls(&mut self, index: usize, message: &'a Value) -> Result<(), Refusal> {
        let calls = field(message, "tool_calls").and_then(Value::as_array);
        for (place, call) in calls.into_iter().flatten().enumerate() {
            let Some(id) = call.get("id").and_then(Value::as_str) else {
                return Err(missing(&format!("messages[{index}].tool_calls[{place}].id")));
            };
            let arguments = call.pointer("/function/arguments").or_else(|| call.pointer("/custom/input"));
            let Some(arguments) = arguments.and_then(Value::as_str) else {
                return Err(missing(&format!("messages[{index}].tool_calls[{place}].function.arguments")));
            };
            self.total += 1 + text::count(arguments);
            self.unanswered.push(id);
        }
        self.made_at = index;
        Ok(())
    }

    /// No call may go unanswered.
    fn end(&self) -> Result<(), Refusal> {
        if self.unanswered.is_empty() {
            return Ok(());
        }
        let message = format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. \
             The following tool_call_ids did not have response messages: {}",
            self.unanswered.join(", ")
        );
        Err(Refusal::invalid(message).param(format!("messages.[{}].role", self.made_at + 1)))
    }
}

/// What a message says.
#[derive(Default)]
struct Said<'a> {
    text: Cow<'a, str>,
    tokens: u64,
}

fn content<'a>(index: usize, role: &str, message: &'a Value) -> Result<Said<'a>, Refusal> {
    let param = format!("messages.[{index}].content");
    match field(message, "content") {
        Some(Value::String(text)) => Ok(Said { tokens: text::count(text), text: text.into() }),
        Some(Value::Array(parts)) => parts_content(index, role, parts),
        Some(other) => {
            Err(wrong_type(format!("messages[{index}].content"), "one of a string or array of objects", other))
        }
        None if role == "assistant" && has_substance(message) => Ok(Said::default()),
        None if role == "function" => Ok(Said::default()),
        None => Err(Refusal::invalid("Invalid value for 'content': expected a string, got null.").param(param)),
    }
}

fn has_substance(message: &Value) -> bool {
    ["tool_calls", "function_call", "refusal", "audio"].iter().any(|name| field(message, name).is_some())
}

fn parts_content<'a>(index: usize, role: &str, parts: &'a [Value]) -> Result<Said<'a>, Refusal> {
    let mut said = Said::default();
    for (place, part) in parts.iter().enumerate() {
        let at = format!("messages[{index}].content[{place}]");
        let piece = part_content(&at, role, part)?;
        if !said.text.is_empty() && !piece.text.is_empty() {
            said.text.to_mut().push(' ');
        }
        said.text.to_mut().push_str(&piece.text);
        said.tokens += piece.tokens;
    }
    Ok(said)
}

fn part_content<'a>(at: &str, role: &str, part: &'a Value) -> Result<Said<'a>, Refusal> {
    let kind = part.get("type").and_then(Value::as_str).ok_or_else(|| missing(&format!("{at}.type")))?;
    let allowed: &[&str] = match role {
        "user" => &["text", "image_url", "input_audio", "file"],
        "assistant" => &["text", "refusal"],
        _ => &["text"],
    };
    if !allowed.contains(&kind) {
        let message = format!("Invalid value: '{kind}'. Supported values are: '{}'.", allowed.join("', '"));
        return Err(Refusal::invalid(message).param(format!("{at}.type")).code("invalid_value"));
    }
    let pointer = match kind {
        "text" => "/text",
        "refusal" => "/refusal",
        "image_url" => "/image_url/url",
        "input_audio" => "/input_audio/data",
        _ => "/file",
    };
    let value = part.pointer(pointer).ok_or_else(|| missing(&format!("{at}{}", pointer.replace('/', "."))))?;
    match (kind, value.as_str()) {
        ("text" | "refusal", Some(text)) => Ok(Said { tokens: text::count(text), text: text.into() }),
        ("image_url", Some(url)) if !is_image(url) => {
            Err(Refusal::invalid("Invalid image URL: expected an http(s) URL or a base64-encoded data URL.")
                .param(at)
                .code("invalid_image_url"))
        }
        ("file", _) | (_, Some(_)) => Ok(Said { tokens: MEDIA_TOKENS, text: Cow::default() }),
        (_, None) => Err(wrong_type(format!("{at}{}", pointer.replace('/', ".")), "a string", value)),
    }
}

fn is_image(url: &str) -> bool {
    url.starts_with("http://")
        || url.starts_with("https://")
        || (url.starts_with("data:image/") && url.contains(";base64,"))
}

fn tools(json: &Value) -> Result<Vec<Tool<'_>>, Refusal> {
    let Some(tools) = field(json, "tools") else {
        return Ok(Vec::new());
    };
    let tools = tools.as_array().ok_or_else(|| wrong_type("tools", "an array of objects", tools))?;
    if tools.is_empty() {
        let message =
            "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(Refusal::invalid(message).param("tools").code("empty_array"));
    }
    tools.iter().enumerate().map(|(index, tool)| one_tool(index, tool)).collect()
}

fn one_tool(index: usize, tool: &Value) -> Result<Tool<'_>, Refusal> {
    let kind = tool.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind != "function" && kind != "custom" {
        let message = format!("Invalid value: '{kind}'. Supported values are: 'function' and 'custom'.");
        return Err(Refusal::invalid(message).param(format!("tools[{index}].type")).code("invalid_value"));
    }
    let param = format!("tools[{index}].{kind}.name");
    let definition = tool.get(kind).ok_or_else(|| missing(&format!("tools[{index}].{kind}")))?;
    let name = definition.get("name").and_then(Value::as_str).ok_or_else(|| missing(&param))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        let message = format!(
            "Invalid '{param}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        );
        return Err(Refusal::invalid(message).param(param).code("invalid_value"));
    }
    Ok(Tool { name, schema: definition.get("parameters") })
}

fn choice<'a>(json: &'a Value, tools: &[Tool<'_>]) -> Result<Choice<'a>, Refusal> {
    let Some(choice) = field(json, "tool_choice") else {
        return Ok(Choice::Auto);
    };
    if tools.is_empty() {
        let message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.";
        return Err(Refusal::invalid(message).param("tool_choice"));
    }
    let invalid = || Refusal::invalid("Invalid value for 'tool_choice'.").param("tool_choice").code("invalid_value");
    match (choice.as_str(), choice.get("type").and_then(Value::as_str)) {
        (Some("none"), _) => Ok(Choice::Never),
        (Some("auto"), _) => Ok(Choice::Auto),
        (Some("required"), _) => Ok(Choice::Any),
        (None, Some("allowed_tools")) if choice.pointer("/allowed_tools/mode") == Some(&Value::from("required")) => {
            let first = choice.pointer("/allowed_tools/tools/0/function/name").and_then(Value::as_str);
            Ok(first.map_or(Choice::Any, Choice::Named))
        }
        (None, Some("allowed_tools")) => Ok(Choice::Auto),
        (None, Some(kind @ ("function" | "custom"))) => {
            let name = choice.get(kind).and_then(|named| named.get("name")?.as_str()).ok_or_else(invalid)?;
            if !tools.iter().any(|tool| tool.name == name) {
                return Err(Refusal::invalid(format!("Tool choice '{name}' not found in 'tools' parameter."))
                    .param("tool_choice"));
            }
            Ok(Choice::Named(name))
        }
        _ => Err(invalid()),
    }
}

fn format<'a>(json: &'a Value, messages: &[Value]) -> Result<Format<'a>, Refusal> {
    let Some(format) = field(json, "response_format") else {
        return Ok(Format::Text);
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Format::Text),
        Some("json_object") if !messages.iter().any(says_json) => {
            let message =
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.";
            Err(Refusal::invalid(message).param("messages"))
        }
        Some("json_object") => Ok(Format::Object),
        Some("json_schema") => json_schema(format),
        _ => {
            let message = "Invalid value. Supported values are: 'json_object', 'json_schema', and 'text'.";
            Err(Refusal::invalid(message).param("response_format.type").code("invalid_value"))
        }
    }
}

/// Whether the word stands anywhere in a value.
fn says_json(value: &Value) -> bool {
    match value {
        Value::String(text) => text.to_ascii_lowercase().contains("json"),
        Value::Array(items) => items.iter().any(says_json),
        Value::Object(fields) => fields.values().any(says_json),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn json_schema(format: &Value) -> Result<Format<'_>, Refusal> {
    let Some(name) = format.pointer("/json_schema/name").and_then(Value::as_str) else {
        return Err(missing("response_format.json_schema.name"));
    };
    let Some(wanted) = format.pointer("/json_schema/schema") else {
        return Err(missing("response_format.json_schema.schema"));
    };
    let strict = format.pointer("/json_schema/strict") == Some(&Value::Bool(true));
    if let Some(place) = schema::open_object(wanted).filter(|_| strict) {
        let message = format!(
            "Invalid schema for response_format '{name}': In context=({place}), 'additionalProperties' is required to be supplied and to be false."
        );
        return Err(Refusal::invalid(message).param("response_format").code("invalid_json_schema"));
    }
    Ok(Format::Schema(wanted))
}

fn limit(json: &Value, model: &str) -> Result<Option<u64>, Refusal> {
    if field(json, "max_tokens").is_some() && is_o_series(model) {
        return Err(unsupported("max_tokens", "Use 'max_completion_tokens' instead."));
    }
    for name in ["max_completion_tokens", "max_tokens"] {
        let Some(value) = field(json, name) else {
            continue;
        };
        let limit = value.as_u64().filter(|limit| *limit > 0);
        let refused = || {
            Refusal::invalid(format!(
                "Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead."
            ))
        };
        return limit.map(Some).ok_or_else(|| refused().param(name).code("integer_below_min_value"));
    }
    Ok(None)
}

/// The models whose SDK documentation excludes `max_tokens` and `stop`.
fn is_o_series(model: &str) -> bool {
    model.starts_with("o1") || model.starts_with("o3") || model.starts_with("o4")
}

fn unsupported(name: &str, advice: &str) -> Refusal {
    let message = format!("Unsupported parameter: '{name}' is not supported with this model. {advice}");
    Refusal::invalid(message.trim_end().to_owned()).param(name).code("unsupported_parameter")
}

fn stops(json: &Value) -> Result<Vec<&str>, Refusal> {
    let stops: Vec<&str> = match field(json, "stop") {
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) => stops.iter().filter_map(Value::as_str).collect(),
        Some(other) => {
            return Err(wrong_type("stop", "one of a string or array of strings", other));
        }
        None => Vec::new(),
    };
    if stops.len() > 4 {
        let message = format!(
            "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length {} instead.",
            stops.len()
        );
        return Err(Refusal::invalid(message).param("stop").code("array_above_max_length"));
    }
    Ok(stops)
}

fn thinking(json: &Value, ask: &Ask<'_>) -> Thinking {
    let effort = field(json, "reasoning_effort").and_then(Value::as_str);
    let asked = effort.is_some_and(|effort| effort != "none");
    if asked || shows_reasoning(ask) { Thinking::On } else { Thinking::Off }
}

/// Whether the reasoning is shown, as compatible hosts of open models do and OpenAI does not.
pub(super) fn shows_reasoning(ask: &Ask<'_>) -> bool {
    ask.fault.reasoning || ask.model.contains("reasoner")
}

fn check_fields(json: &Value, fault: &Fault) -> Result<(), Refusal> {
    if fault.filtered {
        let message = "The response was filtered due to the prompt triggering our content management policy.";
        return Err(Refusal::invalid(message).param("prompt").code("content_policy_violation"));
    }
    let unknown =
        json.as_object().into_iter().flat_map(|fields| fields.keys()).find(|name| !FIELDS.contains(&name.as_str()));
    match unknown.filter(|_| fault.strict) {
        Some(name) => Err(Refusal::invalid(format!("Unrecognized request argument supplied: {name}"))),
        None => Ok(()),
    }
}

fn check_sampling(json: &Value, model: &str) -> Result<(), Refusal> {
    let ranges = [
        ("temperature", 0.0, 2.0),
        ("top_p", 0.0, 1.0),
        ("presence_penalty", -2.0, 2.0),
        ("frequency_penalty", -2.0, 2.0),
        ("n", 1.0, 128.0),
    ];
    for (name, least, most) in ranges {
        let Some(value) = field(json, name) else {
            continue;
        };
        let number = value.as_f64().ok_or_else(|| wrong_type(name, "a decimal", value))?;
        if number < least || number > most {
            let message = format!(
                "Invalid '{name}': decimal out of range. Expected a value between {least} and {most}, but got {value} instead."
            );
            let code = if number < least { "decimal_below_min_value" } else { "decimal_above_max_value" };
            return Err(Refusal::invalid(message).param(name).code(code));
        }
    }
    if field(json, "stop").is_some() && (model.starts_with("o3") || model.starts_with("o4")) {
        return Err(unsupported("stop", ""));
    }
    Ok(())
}

fn check_context(input: u64, ask: &Ask<'_>) -> Result<(), Refusal> {
    let Some(window) = ask.fault.context.filter(|window| input > *window) else {
        return Ok(());
    };
    let message = format!(
        "This model's maximum context length is {window} tokens. However, your messages resulted in {input} tokens. \
         Please reduce the length of the messages."
    );
    Err(Refusal::invalid(message).param("messages").code("context_length_exceeded"))
}
