//! OpenAI's messages as a caller wrote them, borrowed. Texts stay raw: most of them are only passed on.

use std::borrow::Cow;
use std::fmt::{self, Display};

use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::text::Text;
use super::unknown::{Unknown, note_unknown};
use crate::adapter::EncodeError;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, under their newer name.
    Developer,
    /// The caller's side.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// The result of a function call, under its older name.
    Function,
}

/// One message.
#[derive(Debug, Deserialize)]
#[serde(remote = "Self")]
pub struct Message<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[serde(borrow, default)]
    pub content: Content<'a>,
    /// The speaker's name; of a `function` message, the function's.
    pub name: Option<Text<'a>>,
    /// Calls that the model made, raw: see [`ToolCall`].
    pub tool_calls: Option<&'a RawValue>,
    /// The call that this message answers.
    pub tool_call_id: Option<Text<'a>>,
    /// A call under its older name.
    pub function_call: Option<FunctionCall<'a>>,
    /// A refusal of the model's.
    pub refusal: Option<&'a RawValue>,
    /// Reasoning that was handed out to be handed back, raw: see [`ThinkingBlock`].
    pub thinking_blocks: Option<&'a RawValue>,
    /// Blocks of the provider's own that were handed out to be handed back, raw.
    pub provider_blocks: Option<&'a RawValue>,
    /// In which order all blocks came, raw.
    pub block_order: Option<&'a RawValue>,
    /// Where the text has its facts from, raw.
    pub annotations: Option<&'a RawValue>,
    /// Anthropic's cache mark, for the message's last part.
    pub cache_control: Option<&'a RawValue>,
    /// A reference to audio that the model spoke.
    pub audio: Option<&'a RawValue>,
    /// Whether a tool's result is an error.
    pub is_error: Option<bool>,
    /// The text of reasoning that was handed out, which its blocks say too.
    pub reasoning_content: Option<IgnoredAny>,
    /// The same under the name that other hosts have for it.
    pub reasoning: Option<IgnoredAny>,
    /// What a provider told beside its blocks; it need not come back.
    pub extra_content: Option<IgnoredAny>,
    /// Fields that are not known.
    #[serde(skip)]
    pub unknown: Unknown,
}

note_unknown!(Message);

/// What a message says.
#[derive(Clone, Copy, Debug, Default)]
pub enum Content<'a> {
    /// Nothing: absent or null.
    #[default]
    Absent,
    /// One text, raw.
    Text(&'a RawValue),
    /// An array of parts, raw.
    Parts(&'a RawValue),
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        match raw.get().as_bytes().first() {
            Some(b'"') => Ok(Self::Text(raw)),
            Some(b'[') => Ok(Self::Parts(raw)),
            Some(b'n') => Ok(Self::Absent),
            _ => Err(D::Error::custom("`content` must be a string or an array of parts")),
        }
    }
}

/// One part of a content.
#[derive(Debug, Deserialize)]
pub struct Part<'a> {
    /// What kind of part it is.
    #[serde(rename = "type", borrow)]
    pub kind: Text<'a>,
    /// A text, raw.
    pub text: Option<&'a RawValue>,
    /// Anthropic's sources of a text.
    pub citations: Option<&'a RawValue>,
    /// A refusal's text, raw.
    pub refusal: Option<&'a RawValue>,
    /// An image.
    pub image_url: Option<ImageUrl<'a>>,
    /// A file.
    pub file: Option<File<'a>>,
    /// Anthropic's cache mark.
    pub cache_control: Option<&'a RawValue>,
    /// OpenAI's cache mark.
    pub prompt_cache_breakpoint: Option<CacheBreakpoint<'a>>,
}

/// Where an image is.
#[derive(Debug)]
pub struct ImageUrl<'a> {
    /// Its address, or its bytes as a `data:` URL.
    pub url: Text<'a>,
    /// How closely it is to be looked at.
    pub detail: Option<Text<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for ImageUrl<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ImageUrlVisitor)
    }
}

/// Takes the object that OpenAI wants, and the bare string that many callers send.
struct ImageUrlVisitor;

impl<'de> Visitor<'de> for ImageUrlVisitor {
    type Value = ImageUrl<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a `url`")
    }

    fn visit_borrowed_str<E: Error>(self, url: &'de str) -> Result<ImageUrl<'de>, E> {
        Ok(ImageUrl { url: Text(Cow::Borrowed(url)), detail: None })
    }

    fn visit_str<E: Error>(self, url: &str) -> Result<ImageUrl<'de>, E> {
        Ok(ImageUrl { url: Text(Cow::Owned(url.to_owned())), detail: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ImageUrl<'de>, A::Error> {
        let (mut url, mut detail) = (None, None);
        while let Some(name) = map.next_key::<Text<'de>>()? {
            match &*name {
                "url" => url = Some(map.next_value()?),
                "detail" => detail = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(ImageUrl { url: url.ok_or_else(|| A::Error::missing_field("url"))?, detail })
    }
}

/// A file, by its bytes or by the id under which the provider has it.
#[derive(Debug, Deserialize)]
pub struct File<'a> {
    /// Its bytes, as a `data:` URL or in bare base64.
    #[serde(borrow)]
    pub file_data: Option<Text<'a>>,
    /// Its id.
    pub file_id: Option<Text<'a>>,
    /// Its name.
    pub filename: Option<Text<'a>>,
}

/// OpenAI's mark of where a cached prefix ends.
#[derive(Debug, Deserialize)]
pub struct CacheBreakpoint<'a> {
    /// How long it is to live.
    #[serde(borrow)]
    pub ttl: Option<Text<'a>>,
}

/// A call that the model made.
#[derive(Debug, Deserialize)]
pub struct ToolCall<'a> {
    /// Its id.
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    /// The function that was called.
    pub function: Option<FunctionCall<'a>>,
    /// The custom tool that was called.
    pub custom: Option<CustomCall<'a>>,
    /// What a provider wants handed back with the call.
    pub extra_content: Option<ExtraContent<'a>>,
}

/// What a provider wants handed back with a call, under its name.
#[derive(Debug, Deserialize)]
pub struct ExtraContent<'a> {
    /// Anthropic's.
    #[serde(borrow)]
    pub anthropic: Option<&'a RawValue>,
}

/// A function's name and its arguments as JSON in a string.
#[derive(Debug, Deserialize)]
pub struct FunctionCall<'a> {
    /// The function's name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Its arguments.
    pub arguments: Option<Text<'a>>,
}

/// A custom tool's name and its input, which need not be JSON.
#[derive(Debug, Deserialize)]
pub struct CustomCall<'a> {
    /// The tool's name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Its input.
    pub input: Option<&'a RawValue>,
}

/// A block of reasoning, its values as they were written.
#[derive(Debug, Deserialize)]
pub struct ThinkingBlock<'a> {
    /// Its text.
    #[serde(borrow)]
    pub thinking: Option<&'a RawValue>,
    /// What proves it.
    pub signature: Option<&'a RawValue>,
    /// An encrypted block's bytes.
    pub data: Option<&'a RawValue>,
}

/// A list of things of one kind, and of `most` at most; `param` is where it stands.
///
/// # Errors
/// What is not such a list; the first that is wrong is named. One that is too long is refused before it takes memory.
pub fn list<'a, T: Deserialize<'a>>(
    raw: &'a str,
    param: impl Display,
    expected: &str,
    most: usize,
) -> Result<Vec<T>, EncodeError> {
    // Each item has two bytes at least, with its comma: most lists need not be counted.
    if raw.len() / 2 > most
        && let Some(items) = count(raw).filter(|items| *items > most)
    {
        let message = format!("`{param}` holds {items} items; this model takes {most} at most.");
        return Err(EncodeError::invalid(param.to_string(), message));
    }
    serde_json::from_str(raw).map_err(|_| first_fault::<T>(raw, &param.to_string(), expected))
}

/// How many items a list has, for no memory; nothing where it is none.
#[must_use]
pub fn count(raw: &str) -> Option<usize> {
    serde_json::from_str::<Vec<IgnoredAny>>(raw).ok().map(|items| items.len())
}

/// One value of a known type.
///
/// # Errors
/// What is not of that type.
pub fn value<T: DeserializeOwned>(raw: &str, param: &str, expected: &str) -> Result<T, EncodeError> {
    serde_json::from_str(raw).map_err(|_| EncodeError::invalid(param, format!("`{param}` must be {expected}.")))
}

/// Reads a list again, item by item, to say which one is wrong: serde tells only a column.
fn first_fault<'a, T: Deserialize<'a>>(raw: &'a str, param: &str, expected: &str) -> EncodeError {
    let items: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
    let fault =
        items.iter().enumerate().find_map(|(at, item)| Some((at, serde_json::from_str::<T>(item.get()).err()?)));
    match fault {
        Some((at, error)) => {
            let param = format!("{param}[{at}]");
            let message = format!("`{param}` is not as it must be: {}.", without_position(&error));
            EncodeError::invalid(param, message)
        }
        None => EncodeError::invalid(param, format!("`{param}` must be {expected}.")),
    }
}

/// Serde's words without its line and column, which count from an inner value's start and would mislead.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.find(" at line ").map_or(text.clone(), |at| text.get(..at).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_message_that_is_wrong_is_named() {
        let fault = |raw| match list::<Message<'_>>(raw, "messages", "an array", 2).unwrap_err() {
            EncodeError::Invalid { param, message } => (param, message),
            other => (String::new(), other.to_string()),
        };
        assert_eq!(fault("7").0, "messages");
        let (param, message) = fault(r#"[{"role":"user","content":"a"},{"role":"robot"}]"#);
        assert_eq!(param, "messages[1]");
        assert!(message.contains("robot") && !message.contains("column"), "{message}");
        assert_eq!(fault(r#"[{"role":"user","content":7}]"#).0, "messages[0]");
    }

    #[test]
    fn an_image_may_be_a_bare_string() {
        let image = |raw| serde_json::from_str::<ImageUrl<'_>>(raw).unwrap().url.to_string();
        assert_eq!(image(r#""https://a/b""#), "https://a/b");
        assert_eq!(image(r#"{"detail":"low","x":[1],"url":"https:\/\/a"}"#), "https://a");
    }
}
