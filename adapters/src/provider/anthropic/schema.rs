//! A JSON Schema that Anthropic can hold a model to. It enforces a part of JSON Schema and refuses the rest (types,
//! enums,
//! `$ref`, `anyOf` and closed objects pass; bounds and lengths don't), so what it can't enforce moves into the
//! description, where the model reads it, as Anthropic's own SDK does. A schema that needs no change is not copied.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::chunk::push_json;
use crate::index::{Index, text};
use crate::openai::reply::Raw;
use crate::openai::text::Text;

/// Keywords that are refused.
const REFUSED: [&str; 24] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "prefixItems",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "if",
    "then",
    "else",
    "not",
];

/// Formats of strings that are enforced.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

/// Keywords whose value is a map of schemas.
const MAPS: [&str; 3] = ["properties", "$defs", "definitions"];

/// Keywords whose value is a list of schemas.
const LISTS: [&str; 3] = ["anyOf", "allOf", "oneOf"];

/// The schema in the part of JSON Schema that is enforced.
pub(super) fn enforceable(schema: Raw<'_>) -> Raw<'_> {
    let mut writer = Writer { out: Vec::with_capacity(schema.get().len() + 64), changed: false };
    writer.schema(schema.get().as_bytes());
    if !writer.changed {
        return schema;
    }
    let written = String::from_utf8(writer.out).ok().and_then(|json| RawValue::from_string(json).ok());
    written.map_or(schema, Cow::Owned)
}

/// Writes a schema anew and remembers whether it had to change anything. Depth is bounded by [`Index`].
struct Writer {
    out: Vec<u8>,
    changed: bool,
}

impl Writer {
    fn schema(&mut self, schema: &[u8]) {
        let Ok(index) = Index::of(schema) else {
            return self.out.extend_from_slice(schema);
        };
        let mut notes = Vec::new();
        let mut first = true;
        self.out.push(b'{');
        for (name, value) in members(schema, &index) {
            if is_refused(&name, value) || (name == "oneOf" && index.find(schema, "anyOf").is_some()) {
                notes.push((name, value));
                continue;
            }
            if name == "description" || (name == "additionalProperties" && is_object(schema, &index)) {
                continue;
            }
            self.name(&name, &mut first);
            self.keyword(&name, value);
        }
        self.describe(index.get(schema, "description"), &notes, &mut first);
        if is_object(schema, &index) {
            self.changed |= index.get(schema, "additionalProperties") != Some(b"false");
            self.name("additionalProperties", &mut first);
            self.out.extend_from_slice(b"false");
        }
        self.out.push(b'}');
    }

    fn name(&mut self, name: &str, first: &mut bool) {
        if !std::mem::replace(first, false) {
            self.out.push(b',');
        }
        let name = if name == "oneOf" { "anyOf" } else { name };
        push_json(&mut self.out, name);
        self.out.push(b':');
    }

    fn keyword(&mut self, name: &str, value: &[u8]) {
        self.changed |= name == "oneOf";
        match name {
            "items" => self.schema(value),
            _ if MAPS.contains(&name) => self.map(value),
            _ if LISTS.contains(&name) => self.list(value),
            _ => self.out.extend_from_slice(value),
        }
    }

    fn map(&mut self, map: &[u8]) {
        let Ok(index) = Index::of(map) else {
            return self.out.extend_from_slice(map);
        };
        self.out.push(b'{');
        let mut first = true;
        for (name, value) in members(map, &index) {
            if !std::mem::replace(&mut first, false) {
                self.out.push(b',');
            }
            push_json(&mut self.out, &*name);
            self.out.push(b':');
            self.schema(value);
        }
        self.out.push(b'}');
    }

    fn list(&mut self, list: &[u8]) {
        let Ok(schemas) = serde_json::from_slice::<Vec<&RawValue>>(list) else {
            return self.out.extend_from_slice(list);
        };
        self.out.push(b'[');
        for (at, schema) in schemas.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.schema(schema.get().as_bytes());
        }
        self.out.push(b']');
    }

    /// The description with what can't be enforced behind it.
    fn describe(&mut self, description: Option<&[u8]>, notes: &[(Cow<'_, str>, &[u8])], first: &mut bool) {
        if notes.is_empty() {
            if let Some(description) = description {
                self.name("description", first);
                self.out.extend_from_slice(description);
            }
            return;
        }
        self.changed = true;
        let mut told = description.and_then(text).map_or_else(String::new, |text| format!("{text}\n\n"));
        let notes: Vec<String> =
            notes.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect();
        told.push_str(&format!("{{{}}}", notes.join(", ")));
        self.name("description", first);
        push_json(&mut self.out, &told);
    }
}

fn members<'b>(bytes: &'b [u8], index: &Index) -> Vec<(Cow<'b, str>, &'b [u8])> {
    let member = |field: &crate::index::Field| {
        let name = match field.name(bytes) {
            Cow::Borrowed(name) => String::from_utf8_lossy(name),
            Cow::Owned(name) => Cow::Owned(String::from_utf8_lossy(&name).into_owned()),
        };
        (name, bytes.get(field.value()).unwrap_or_default())
    };
    index.fields().iter().map(member).collect()
}

fn is_refused(name: &str, value: &[u8]) -> bool {
    match name {
        "minItems" => !matches!(value, b"0" | b"1"),
        "format" => text(value).is_none_or(|format| !FORMATS.contains(&&*format)),
        _ => REFUSED.contains(&name),
    }
}

/// Whether it may be an object, alone or among other types.
fn is_object(schema: &[u8], index: &Index) -> bool {
    let Some(kind) = index.get(schema, "type") else {
        return false;
    };
    let among = serde_json::from_slice::<Vec<Text<'_>>>(kind).unwrap_or_default();
    text(kind).is_some_and(|kind| kind == "object") || among.iter().any(|kind| &**kind == "object")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn enforced(schema: &str) -> String {
        enforceable(Cow::Borrowed(serde_json::from_str(schema).unwrap())).get().to_owned()
    }

    #[test]
    fn a_schema_that_is_fine_passes_as_it_was_written() {
        let schema = r##"{ "type":"object", "properties":{"a":{"$ref":"#/$defs/A"}}, "required":["a"],
            "additionalProperties":false, "$defs":{"A":{"anyOf":[{"type":"string","format":"date"},{"type":"null"}]}} }"##;
        assert_eq!(enforced(schema), schema);
    }

    #[test]
    fn what_cannot_be_enforced_moves_into_the_description_and_objects_are_closed() {
        let schema = r##"{"type":"object","properties":{"n":{"type":"integer","minimum":1,"description":"A count"}},
            "$defs":{"B":{"type":"object","properties":{"l":{"type":"array","items":{"oneOf":[{"type":"string","maxLength":3}]}}}}}}"##;
        let want = r##"{"type":"object","properties":{"n":{"type":"integer","description":"A count\n\n{minimum: 1}"}},"$defs":{"B":{"type":"object","properties":{"l":{"type":"array","items":{"anyOf":[{"type":"string","description":"{maxLength: 3}"}]}}},"additionalProperties":false}},"additionalProperties":false}"##;
        assert_eq!(enforced(schema), want);
    }

    #[test]
    fn an_object_among_other_types_is_closed_too() {
        let schema = r#"{"type":["object","null"],"properties":{"a":{"type":["null"],"additionalProperties":true}}}"#;
        let want = r#"{"type":["object","null"],"properties":{"a":{"type":["null"],"additionalProperties":true}},"additionalProperties":false}"#;
        assert_eq!(enforced(schema), want);
    }

    #[test]
    fn one_of_beside_any_of_becomes_a_note() {
        let schema = r#"{"oneOf":[{"type":"string"}],"anyOf":[{"type":"null"}]}"#;
        assert_eq!(enforced(schema), r#"{"anyOf":[{"type":"null"}],"description":"{oneOf: [{\"type\":\"string\"}]}"}"#);
    }

    #[test]
    fn a_property_may_be_named_like_a_keyword() {
        let schema = r#"{"type":"object","properties":{"format":{"type":"string"},"not":{"type":"string"}},"additionalProperties":false}"#;
        assert_eq!(enforced(schema), schema);
    }
}
