//! Names of request headers.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::config::read::Name;

/// The name of a request header, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header(pub http::HeaderName);

impl Name for Header {
    fn name(text: &str) -> Result<Self, String> {
        match http::HeaderName::try_from(text.to_ascii_lowercase()) {
            Ok(name) => Ok(Self(name)),
            Err(_) => Err("that is no name of a header".to_owned()),
        }
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl JsonSchema for Header {
    fn schema_name() -> Cow<'static, str> {
        "Header".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(json!({"type": "string"})).unwrap_or_default()
    }
}
