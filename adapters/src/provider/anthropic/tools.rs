//! A caller's tools and its choice among them, in Anthropic's words.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Notes;
use super::bounds::{MOST_TOOLS, enforces};
use super::format::ANSWER_TOOL;
use super::model::Model;
use super::native::{Function, Tool, ToolChoice};
use super::schema;
use crate::adapter::EncodeError;
use crate::index::Index;
use crate::openai::message::list;
use crate::openai::reply::Raw;
use crate::openai::text::Text;
use crate::openai::tool::{Function as Asked, Tool as AskedTool, ToolChoice as Choice};
use crate::request::{Edit, Texts, rewrite_into};

/// A schema for a function without parameters.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

/// Why a field of a tool that nobody knows is left out.
const NO_SUCH_FIELD: &str = "Anthropic's tools have no such field";

/// The tools of a request.
#[derive(Debug, Default)]
pub(super) struct Tools<'a> {
    /// What the model may use.
    pub(super) list: Vec<Tool<'a>>,
    /// Which of it.
    pub(super) choice: Option<ToolChoice<'a>>,
}

impl<'a> Tools<'a> {
    /// Reads a request's tools, or its `functions`.
    pub(super) fn read(fields: Texts<'a>, model: Model, notes: &mut Notes) -> Result<Self, EncodeError> {
        let mut tools = Self::default();
        if let Some(raw) = fields.get("tools") {
            let asked: Vec<AskedTool<'a>> = list(raw, "tools", "an array of tools", MOST_TOOLS)?;
            enforces("tools", strict_bytes(asked.iter().filter_map(|tool| tool.function.as_ref())))?;
            let written = LazyCell::new(|| serde_json::from_str::<Vec<&'a RawValue>>(raw).unwrap_or_default());
            for (at, tool) in asked.into_iter().enumerate() {
                let native = || written.get(at).copied();
                tools.list.extend(tool_of(native, at, tool, model, notes)?);
            }
        }
        let is_legacy = tools.list.is_empty();
        if let Some(raw) = fields.get("functions").filter(|_| is_legacy) {
            let asked: Vec<Asked<'a>> = list(raw, "functions", "an array of functions", MOST_TOOLS)?;
            enforces("functions", strict_bytes(asked.iter()))?;
            tools.list =
                asked.into_iter().map(|function| Tool::Function(function_of(function, model, notes))).collect();
        }
        let choice = match (fields.get("tool_choice"), fields.get("function_call")) {
            (Some(raw), _) => Some(Choice::read(raw, MOST_TOOLS)?),
            (None, Some(raw)) => Some(Choice::read_legacy(raw)?),
            (None, None) => None,
        };
        let one_at_a_time = fields.get("parallel_tool_calls") == Some("false")
            || fields.get("functions").is_some() && is_legacy
            || fields.get("tool_choice").is_some_and(Choice::is_one_at_a_time);
        tools.choose(choice, one_at_a_time)?;
        Ok(tools)
    }

    fn choose(&mut self, choice: Option<Choice<'a>>, one_at_a_time: bool) -> Result<(), EncodeError> {
        let disable_parallel_tool_use = one_at_a_time;
        let none_there = self.list.is_empty();
        self.choice = match choice {
            None | Some(Choice::Auto) if none_there => None,
            None if !one_at_a_time => None,
            None | Some(Choice::Auto) => Some(ToolChoice::Auto { disable_parallel_tool_use }),
            Some(Choice::None) => (!none_there).then_some(ToolChoice::None),
            Some(Choice::Required) if none_there => return Err(nothing_to_choose()),
            Some(Choice::Required) => Some(ToolChoice::Any { disable_parallel_tool_use }),
            Some(Choice::Function(name) | Choice::Custom(name)) => {
                self.must_have(&name)?;
                Some(ToolChoice::Tool { name: name.0, disable_parallel_tool_use })
            }
            Some(Choice::Allowed { required, names }) => {
                self.narrow(&names)?;
                Some(match required {
                    true => ToolChoice::Any { disable_parallel_tool_use },
                    false => ToolChoice::Auto { disable_parallel_tool_use },
                })
            }
        };
        Ok(())
    }

    /// Anthropic has no list of allowed tools: the others are not told of.
    fn narrow(&mut self, names: &[Text<'a>]) -> Result<(), EncodeError> {
        if names.is_empty() {
            return Err(EncodeError::invalid("tool_choice", "`allowed_tools` must name at least one tool."));
        }
        let known: HashSet<Cow<'_, str>> = self.list.iter().flat_map(names_of).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(&name.0)) {
            return Err(not_among(unknown));
        }
        let names: HashSet<&str> = names.iter().map(|name| &**name).collect();
        self.list.retain(|tool| names_of(tool).any(|name| names.contains(&*name)));
        Ok(())
    }

    fn must_have(&self, name: &str) -> Result<(), EncodeError> {
        if self.list.iter().any(|tool| is_named(tool, name)) { Ok(()) } else { Err(not_among(name)) }
    }

    /// Some models can't be forced; they get the tool that was meant, and the freedom to use it.
    pub(super) fn unforce(&mut self, model: Model, notes: &mut Notes) {
        let Some(choice) = self.choice.take_if(|choice| choice.is_forced() && !model.can_be_forced()) else {
            return;
        };
        notes.change("tool_choice", "auto", "this model can't be forced to call a tool; it may");
        let disable_parallel_tool_use = match choice {
            ToolChoice::Tool { name, disable_parallel_tool_use } => {
                self.list.retain(|tool| is_named(tool, &name));
                disable_parallel_tool_use
            }
            ToolChoice::Any { disable_parallel_tool_use } | ToolChoice::Auto { disable_parallel_tool_use } => {
                disable_parallel_tool_use
            }
            ToolChoice::None => false,
        };
        self.choice = Some(ToolChoice::Auto { disable_parallel_tool_use });
    }

    /// Calls in the conversation whose tools are no longer there, each named once: Anthropic wants them defined all the
    /// same.
    pub(super) fn recall(&mut self, called: &[Cow<'a, str>]) {
        if !self.list.is_empty() || called.is_empty() {
            return;
        }
        let mut seen = HashSet::new();
        let called = called.iter().filter(|name| seen.insert(&***name));
        self.list = called.map(|name| Tool::Function(bare(name.clone(), raw(NO_PARAMETERS)))).collect();
        self.choice = Some(ToolChoice::None);
    }

    /// Makes the model answer by a call whose arguments are the answer, or by one of the caller's tools where it has
    /// some.
    pub(super) fn answer_by(&mut self, schema: Raw<'a>) {
        let is_alone = self.list.is_empty() || self.choice == Some(ToolChoice::None);
        let disable_parallel_tool_use = match self.choice {
            Some(ToolChoice::Auto { disable_parallel_tool_use }) => disable_parallel_tool_use,
            _ => false,
        };
        self.choice = Some(match is_alone {
            true => ToolChoice::Tool { name: ANSWER_TOOL.into(), disable_parallel_tool_use: true },
            false => ToolChoice::Any { disable_parallel_tool_use },
        });
        self.list.push(Tool::Function(bare(ANSWER_TOOL.into(), schema)));
    }

    /// Whether the choice leaves the model no other way than a call.
    pub(super) fn is_forced(&self) -> bool {
        self.choice.as_ref().is_some_and(ToolChoice::is_forced)
    }
}

/// How long the schemas are in all that the model is to be held to.
fn strict_bytes<'f, 'a: 'f>(functions: impl Iterator<Item = &'f Asked<'a>>) -> usize {
    let strict = functions.filter(|function| function.strict == Some(true));
    strict.filter_map(|function| function.parameters).map(|schema| schema.get().len()).sum()
}

fn nothing_to_choose() -> EncodeError {
    EncodeError::invalid("tool_choice", "`tool_choice` asks for a call, but there are no `tools`.")
}

fn not_among(name: &str) -> EncodeError {
    EncodeError::invalid("tool_choice", format!("`tool_choice` names `{name}`, which is not among the tools."))
}

fn is_named(tool: &Tool<'_>, name: &str) -> bool {
    names_of(tool).any(|own| own == name)
}

/// By what a choice may name it: its name, or a toolset's server; one of Anthropic's own also by its kind.
fn names_of<'t>(tool: &'t Tool<'_>) -> impl Iterator<Item = Cow<'t, str>> {
    let [name, kind] = match tool {
        Tool::Function(function) => [Some(Cow::Borrowed(&*function.name)), None],
        Tool::Native(raw) => serde_json::from_str::<Own<'t>>(raw.get())
            .map_or([None, None], |own| [own.name.or(own.mcp_server_name), Some(own.kind)].map(|name| Some(name?.0))),
    };
    name.into_iter().chain(kind)
}

/// One of Anthropic's own tools.
#[derive(Deserialize)]
struct Own<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    name: Option<Text<'a>>,
    mcp_server_name: Option<Text<'a>>,
}

/// `native` is the tool as it was written.
fn tool_of<'a>(
    native: impl Fn() -> Option<&'a RawValue>,
    at: usize,
    tool: AskedTool<'a>,
    model: Model,
    notes: &mut Notes,
) -> Result<Option<Tool<'a>>, EncodeError> {
    match (&*tool.kind, tool.function) {
        ("function", Some(function)) => {
            notes.add_unknown("tools", &tool.unknown, NO_SUCH_FIELD);
            let inside = function_of(function, model, notes);
            Ok(Some(Tool::Function(Function {
                cache_control: tool.cache_control.or(inside.cache_control),
                allowed_callers: tool.allowed_callers.or(inside.allowed_callers),
                defer_loading: tool.defer_loading.or(inside.defer_loading),
                eager_input_streaming: tool.eager_input_streaming.or(inside.eager_input_streaming),
                input_examples: tool.input_examples.or(inside.input_examples),
                ..inside
            })))
        }
        ("function", None) => {
            Err(EncodeError::invalid(format!("tools[{at}]"), "A tool of type `function` must have a `function`."))
        }
        ("custom", _) => Err(EncodeError::unsupported(
            format!("tools[{at}]"),
            "Custom tools, whose input is free text, are not there on this model: give a function.",
        )),
        _ => Ok(native().map(Tool::Native)),
    }
}

fn function_of<'a>(function: Asked<'a>, model: Model, notes: &mut Notes) -> Function<'a> {
    notes.add_unknown("tools.function", &function.unknown, NO_SUCH_FIELD);
    let strict = function.strict == Some(true);
    if strict && !model.takes_schema() {
        notes.add("tools.function.strict", "this model does not hold strictly to a schema");
    }
    let strict = strict && model.takes_schema();
    let parameters = function.parameters.map_or_else(|| raw(NO_PARAMETERS), typed);
    let input_schema = if strict { schema::enforceable(parameters) } else { parameters };
    Function {
        description: function.description,
        strict: strict.then_some(true),
        cache_control: function.cache_control,
        allowed_callers: function.allowed_callers,
        defer_loading: function.defer_loading,
        eager_input_streaming: function.eager_input_streaming,
        input_examples: function.input_examples,
        ..bare(function.name.0, input_schema)
    }
}

fn bare<'a>(name: Cow<'a, str>, input_schema: Raw<'a>) -> Function<'a> {
    Function {
        name,
        description: None,
        input_schema,
        strict: None,
        cache_control: None,
        allowed_callers: None,
        defer_loading: None,
        eager_input_streaming: None,
        input_examples: None,
    }
}

/// The schema as it is; Anthropic only wants to be told that it is an object's.
fn typed(schema: &RawValue) -> Raw<'_> {
    let bytes = schema.get().as_bytes();
    let Ok(index) = Index::of(bytes) else {
        return Cow::Borrowed(schema);
    };
    if index.find(bytes, "type").is_some() {
        return Cow::Borrowed(schema);
    }
    let mut typed = Vec::with_capacity(bytes.len() + 16);
    rewrite_into(bytes, &index, &[Edit::Set("type", "\"object\"".into())], &mut typed);
    let typed = String::from_utf8(typed).ok().and_then(|json| RawValue::from_string(json).ok());
    typed.map_or(Cow::Borrowed(schema), Cow::Owned)
}

/// A constant as a raw value.
pub(super) fn raw(json: &'static str) -> Raw<'static> {
    serde_json::from_str::<&RawValue>(json).map_or_else(|_| Cow::Owned(Box::default()), Cow::Borrowed)
}
