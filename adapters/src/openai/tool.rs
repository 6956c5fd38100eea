//! OpenAI's tools and the ways to choose among them, as a caller wrote them, borrowed.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::message::list;
use super::text::Text;
use super::unknown::{Unknown, note_unknown};
use crate::adapter::EncodeError;

/// One tool.
#[derive(Debug, Deserialize)]
#[serde(remote = "Self")]
pub struct Tool<'a> {
    /// `function`, `custom`, or a provider's own.
    #[serde(rename = "type", borrow)]
    pub kind: Text<'a>,
    /// A function.
    pub function: Option<Function<'a>>,
    /// Anthropic's cache mark.
    pub cache_control: Option<&'a RawValue>,
    /// Anthropic's: who may call it.
    pub allowed_callers: Option<&'a RawValue>,
    /// Anthropic's: loaded only when it was searched for.
    pub defer_loading: Option<&'a RawValue>,
    /// Anthropic's: arguments stream as they are made.
    pub eager_input_streaming: Option<&'a RawValue>,
    /// Anthropic's: examples of arguments.
    pub input_examples: Option<&'a RawValue>,
    /// Fields that are not known.
    #[serde(skip)]
    pub unknown: Unknown,
}

note_unknown!(Tool);

/// A function that the model may call.
#[derive(Debug, Deserialize)]
#[serde(remote = "Self")]
pub struct Function<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// What it is for, raw.
    pub description: Option<&'a RawValue>,
    /// The JSON Schema of its arguments, raw.
    pub parameters: Option<&'a RawValue>,
    /// Whether the arguments must match exactly.
    pub strict: Option<bool>,
    /// Anthropic's cache mark, where it stands inside; so may what follows.
    pub cache_control: Option<&'a RawValue>,
    /// Who may call it.
    pub allowed_callers: Option<&'a RawValue>,
    /// Loaded only when it was searched for.
    pub defer_loading: Option<&'a RawValue>,
    /// Arguments stream as they are made.
    pub eager_input_streaming: Option<&'a RawValue>,
    /// Examples of arguments.
    pub input_examples: Option<&'a RawValue>,
    /// Fields that are not known.
    #[serde(skip)]
    pub unknown: Unknown,
}

note_unknown!(Function);

/// Which tools the model may or must call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    /// None.
    None,
    /// As it likes.
    Auto,
    /// At least one.
    Required,
    /// This function.
    Function(Text<'a>),
    /// This custom tool.
    Custom(Text<'a>),
    /// Some of those that are there.
    Allowed {
        /// Whether at least one must be called.
        required: bool,
        /// Their names.
        names: Vec<Text<'a>>,
    },
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    function: Option<Named<'a>>,
    custom: Option<Named<'a>>,
    /// Anthropic's place for it.
    name: Option<Text<'a>>,
    allowed_tools: Option<Allowed<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize)]
struct Allowed<'a> {
    #[serde(borrow)]
    mode: Option<Text<'a>>,
    #[serde(borrow)]
    tools: &'a RawValue,
}

/// A tool by its name, wherever its kind has it; a provider's own that has none goes by its kind.
#[derive(Deserialize)]
struct AllowedTool<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    function: Option<Named<'a>>,
    custom: Option<Named<'a>>,
    name: Option<Text<'a>>,
    mcp_server_name: Option<Text<'a>>,
}

impl<'a> AllowedTool<'a> {
    fn into_name(self) -> Option<Text<'a>> {
        let named = self.function.or(self.custom).map(|named| named.name);
        named.or(self.name).or(self.mcp_server_name).or(self.kind)
    }
}

/// Whether an object asks for one call at a time, in Anthropic's words.
#[derive(Deserialize)]
struct OneAtATime {
    disable_parallel_tool_use: bool,
}

impl<'a> ToolChoice<'a> {
    /// Reads a raw `tool_choice`, which may allow `most` tools at most.
    ///
    /// # Errors
    /// What is none of its forms, and too many allowed tools.
    pub fn read(raw: &'a str, most: usize) -> Result<Self, EncodeError> {
        let read = if raw.starts_with('"') { Self::of_word(raw) } else { Self::of_object(raw, most)? };
        read.ok_or_else(|| {
            EncodeError::invalid(
                "tool_choice",
                "`tool_choice` must be `none`, `auto`, `required`, or an object that names a function, a custom tool or \
                 the allowed tools.",
            )
        })
    }

    /// Reads a raw `function_call`, the older form.
    ///
    /// # Errors
    /// What is none of its forms.
    pub fn read_legacy(raw: &'a str) -> Result<Self, EncodeError> {
        let read = if raw.starts_with('"') {
            Self::of_word(raw).filter(|choice| *choice != Self::Required)
        } else {
            serde_json::from_str(raw).ok().map(|Named { name }| Self::Function(name))
        };
        read.ok_or_else(|| {
            EncodeError::invalid("function_call", "`function_call` must be `none`, `auto` or an object with a `name`.")
        })
    }

    /// Whether a raw `tool_choice` asks, in Anthropic's words, for one call at a time.
    #[must_use]
    pub fn is_one_at_a_time(raw: &str) -> bool {
        serde_json::from_str::<OneAtATime>(raw).is_ok_and(|choice| choice.disable_parallel_tool_use)
    }

    fn of_word(raw: &'a str) -> Option<Self> {
        match &*serde_json::from_str::<Text<'a>>(raw).ok()? {
            "none" => Some(Self::None),
            "auto" => Some(Self::Auto),
            "required" | "any" => Some(Self::Required),
            _ => None,
        }
    }

    fn of_object(raw: &'a str, most: usize) -> Result<Option<Self>, EncodeError> {
        let Ok(choice) = serde_json::from_str::<Choice<'a>>(raw) else {
            return Ok(None);
        };
        Ok(match &*choice.kind {
            "function" => choice.function.map(|function| Self::Function(function.name)),
            "custom" => choice.custom.map(|custom| Self::Custom(custom.name)),
            "tool" => choice.name.map(Self::Function),
            "allowed_tools" => match choice.allowed_tools {
                Some(allowed) => Self::allowed(allowed, most)?,
                None => None,
            },
            "none" => Some(Self::None),
            "auto" => Some(Self::Auto),
            "required" | "any" => Some(Self::Required),
            _ => None,
        })
    }

    fn allowed(allowed: Allowed<'a>, most: usize) -> Result<Option<Self>, EncodeError> {
        let required = match allowed.mode.as_deref() {
            None | Some("auto") => false,
            Some("required") => true,
            Some(_) => return Ok(None),
        };
        let tools: Vec<AllowedTool<'a>> =
            list(allowed.tools.get(), "tool_choice.allowed_tools.tools", "an array of tools", most)?;
        let names = tools.into_iter().map(AllowedTool::into_name).collect::<Option<_>>();
        Ok(names.map(|names| Self::Allowed { required, names }))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_form_of_choice_is_read_and_others_are_refused() {
        let text = |name: &'static str| Text(name.into());
        let read = |raw| ToolChoice::read(raw, 3).ok();
        assert_eq!(read(r#""none""#), Some(ToolChoice::None));
        assert_eq!(read(r#""required""#), Some(ToolChoice::Required));
        assert_eq!(read(r#"{"type":"function","function":{"name":"f"}}"#), Some(ToolChoice::Function(text("f"))));
        assert_eq!(read(r#"{"type":"custom","custom":{"name":"c"}}"#), Some(ToolChoice::Custom(text("c"))));
        let allowed = r#"{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"f"}}]}}"#;
        assert_eq!(read(allowed), Some(ToolChoice::Allowed { required: true, names: vec![text("f")] }));
        let own = r#"{"type":"allowed_tools","allowed_tools":{"tools":[{"type":"web_search_20250305","name":"web_search"},{"type":"mcp_toolset","mcp_server_name":"s"},{"type":"browser_toolset_20260801"}]}}"#;
        let names = ["web_search", "s", "browser_toolset_20260801"].map(text).to_vec();
        assert_eq!(read(own), Some(ToolChoice::Allowed { required: false, names }));
        assert_eq!(read(r#"{"type":"tool","name":"f"}"#), Some(ToolChoice::Function(text("f"))));
        assert_eq!(read(r#""sometimes""#), None);
        assert_eq!(read(r#"{"type":"function"}"#), None);
        assert_eq!(ToolChoice::read_legacy(r#"{"name":"f"}"#).unwrap(), ToolChoice::Function(text("f")));
        assert!(ToolChoice::read_legacy(r#""required""#).is_err());
        assert!(ToolChoice::is_one_at_a_time(r#"{"type":"auto","disable_parallel_tool_use":true}"#));
        assert!(!ToolChoice::is_one_at_a_time(r#"{"type":"auto"}"#) && !ToolChoice::is_one_at_a_time(r#""auto""#));
    }
}
