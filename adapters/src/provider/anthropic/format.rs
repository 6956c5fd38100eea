//! `response_format`: a JSON Schema goes into `output_config.format` on the models that have it. On the others, and for
//! JSON without a schema, which Anthropic has no word for, the model is made to call a tool whose arguments become the
//! answer; where it can't be made to, it is told so in the system prompt.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Notes;
use crate::adapter::EncodeError;
use crate::openai::reply::Raw;
use crate::openai::text::{Text, raw_string};

/// The tool whose arguments are the answer.
pub(super) const ANSWER_TOOL: &str = "weir_json_answer";

/// The form that the answer must have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format<'a> {
    /// Any.
    Text,
    /// Any JSON object.
    Object,
    /// JSON of this schema.
    Schema(&'a RawValue),
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    json_schema: Option<Named<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    description: Option<IgnoredAny>,
}

impl<'a> Format<'a> {
    /// Reads a raw `response_format`.
    pub(super) fn read(raw: Option<&'a str>, notes: &mut Notes) -> Result<Self, EncodeError> {
        let Some(raw) = raw else {
            return Ok(Self::Text);
        };
        let asked = serde_json::from_str::<Asked<'a>>(raw).ok();
        if asked.iter().any(|asked| asked.json_schema.as_ref().is_some_and(|named| named.description.is_some())) {
            notes.add("response_format.json_schema.description", "Anthropic takes the schema only: say it in there");
        }
        let format = asked.and_then(|asked| match &*asked.kind {
            "text" => Some(Self::Text),
            "json_object" => Some(Self::Object),
            "json_schema" => asked.json_schema.map(|named| named.schema.map_or(Self::Object, Self::Schema)),
            _ => None,
        });
        format.ok_or_else(|| {
            let message =
                "`response_format` must be of type `text`, `json_object`, or `json_schema` with a `json_schema`.";
            EncodeError::invalid("response_format", message)
        })
    }

    /// What a tool's arguments must be to be the answer; nothing where any text will do.
    pub(super) fn arguments(self) -> Option<Raw<'a>> {
        match self {
            Self::Text => None,
            Self::Object => Some(super::tools::raw(r#"{"type":"object","additionalProperties":true}"#)),
            Self::Schema(schema) => Some(Cow::Borrowed(schema)),
        }
    }

    /// The same as an instruction.
    pub(super) fn instruction(self) -> Option<Raw<'a>> {
        let asked = "Answer with one JSON object and nothing else: no text around it, no code fence.";
        match self {
            Self::Text => None,
            Self::Object => Some(Cow::Owned(raw_string(asked))),
            Self::Schema(schema) => {
                let asked = format!("{asked} It must satisfy this JSON Schema:\n{}", schema.get());
                Some(Cow::Owned(raw_string(&asked)))
            }
        }
    }
}
