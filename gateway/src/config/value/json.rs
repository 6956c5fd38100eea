//! Values that are passed on as they are, in a request's JSON.

use std::borrow::Cow;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::json;

use crate::config::read::{Read, Reader};
use crate::config::tree::{Node, Value};

/// Any value, as it goes into a request's JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Json(pub serde_json::Value);

impl Read for Json {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        Self(match &node.value {
            Value::Scalar { .. } => plain_json(node, reader),
            Value::List(_) => {
                let items: Vec<Self> = Read::read(node, reader);
                items.into_iter().map(|item| item.0).collect()
            }
            Value::Map(_) => {
                let entries: IndexMap<String, Self> = Read::read(node, reader);
                serde_json::Value::Object(entries.into_iter().map(|(name, value)| (name, value.0)).collect())
            }
        })
    }

    fn placeholder() -> Self {
        Self(serde_json::Value::Null)
    }
}

/// A scalar by YAML's core schema; a number that JSON cannot hold is a fault.
fn plain_json(node: &Node<'_>, reader: &mut Reader<'_>) -> serde_json::Value {
    let Some(text) = node.plain() else {
        return node.text().map_or(serde_json::Value::Null, |text| json!(text));
    };
    match text {
        "true" => json!(true),
        "false" => json!(false),
        ".inf" | "-.inf" | ".nan" => {
            reader.fault(node.mark, "JSON has no such number", None);
            serde_json::Value::Null
        }
        _ => match text.parse::<serde_json::Number>() {
            Ok(number) => serde_json::Value::Number(number),
            Err(_) => json!(text),
        },
    }
}

impl JsonSchema for Json {
    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(json!({"description": "Any value."})).unwrap_or_default()
    }
}
