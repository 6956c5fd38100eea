//! The few parts of the configuration that have more than one shape, and so read themselves.

use std::borrow::Cow;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::file::{CredentialSource, Listener, Listeners, ModelType, Prefer, QuotaLimit};
use super::read::{Name, Read, Reader, nearest};
use super::tree::{Node, Value};
use super::value::Count;

impl Read for Listeners {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        match &node.value {
            Value::List(_) => Self(Read::read(node, reader)),
            Value::Scalar { .. } | Value::Map(_) => Self(vec![Read::read(node, reader)]),
        }
    }

    fn placeholder() -> Self {
        Self(Vec::new())
    }
}

impl JsonSchema for Listeners {
    fn schema_name() -> Cow<'static, str> {
        "Listeners".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Listener>();
        let many = generator.subschema_for::<Vec<Listener>>();
        either("One listener, or a list.", one, many)
    }
}

impl Read for Prefer {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        match &node.value {
            Value::Map(_) => Self::For(Read::read(node, reader)),
            Value::Scalar { .. } | Value::List(_) => Self::Always(Read::read(node, reader)),
        }
    }

    fn placeholder() -> Self {
        Self::Always(CredentialSource::System)
    }
}

impl JsonSchema for Prefer {
    fn schema_name() -> Cow<'static, str> {
        "Prefer".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let always = generator.subschema_for::<CredentialSource>();
        let each = generator.subschema_for::<IndexMap<String, CredentialSource>>();
        either("For every provider, or for each by its name.", always, each)
    }
}

fn either(description: &str, a: Schema, b: Schema) -> Schema {
    Schema::try_from(json!({"description": description, "anyOf": [a, b]})).unwrap_or_default()
}

impl Read for QuotaLimit {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        if node.plain() == Some("-1") { Self::Unlimited } else { Self::Of(Count::read(node, reader)) }
    }

    fn placeholder() -> Self {
        Self::Unlimited
    }
}

impl Serialize for QuotaLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unlimited => serializer.serialize_i64(-1),
            Self::Of(count) => count.serialize(serializer),
        }
    }
}

impl JsonSchema for QuotaLimit {
    fn schema_name() -> Cow<'static, str> {
        "QuotaLimit".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let count = generator.subschema_for::<Count>();
        Schema::try_from(json!({"description": "How much; -1 is unlimited.", "anyOf": [{"const": -1}, count]}))
            .unwrap_or_default()
    }
}

impl Name for ModelType {
    fn name(text: &str) -> Result<Self, String> {
        let Some(model_type) = Self::parse(text) else {
            let words = || Self::ALL.iter().map(|t| t.as_str());
            let meant = nearest(text, words()).map(|m| format!("; did you mean `{m}`?")).unwrap_or_default();
            return Err(format!("expected one of {}{meant}", words().collect::<Vec<_>>().join(", ")));
        };
        Ok(model_type)
    }
}
