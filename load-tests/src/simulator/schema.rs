//! A value that fits a JSON Schema, made from the prompt's words.
//! It knows what tools and response formats use: objects, arrays, enums, const, unions and references into the schema.

use serde_json::{Map, Value};

/// How deep a recursive schema is followed before it is cut off with `null`.
const MAX_DEPTH: usize = 12;

/// A value that fits `schema`, its strings taken from `words` in turn.
pub(crate) fn example(schema: &Value, words: &mut dyn Iterator<Item = &str>) -> Value {
    Example { root: schema, words }.value(schema, 0)
}

/// The first place in `schema` where an object does not forbid further properties, as strict formats demand.
pub(crate) fn open_object(schema: &Value) -> Option<String> {
    find_open(schema, &mut Vec::new())
}

struct Example<'s, 'w, 'a> {
    root: &'s Value,
    words: &'w mut dyn Iterator<Item = &'a str>,
}

impl Example<'_, '_, '_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if depth > MAX_DEPTH {
            return Value::Null;
        }
        if let Some(target) = self.resolve(schema) {
            return self.value(&target, depth + 1);
        }
        if let Some(fixed) = schema.get("const").or_else(|| schema.pointer("/enum/0")) {
            return fixed.clone();
        }
        if let Some(branch) = ["anyOf", "oneOf", "allOf"].iter().find_map(|key| first_branch(schema.get(*key)?)) {
            return self.value(branch, depth + 1);
        }
        self.of_type(schema, depth)
    }

    fn of_type(&mut self, schema: &Value, depth: usize) -> Value {
        match type_name(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" => schema.get("minimum").cloned().unwrap_or_else(|| Value::from(1)),
            "number" => schema.get("minimum").cloned().unwrap_or_else(|| Value::from(1.5)),
            "boolean" => Value::Bool(true),
            "null" => Value::Null,
            _ => Value::from(self.words.next().unwrap_or("weir")),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let properties = schema.get("properties").and_then(Value::as_object);
        let fields = properties.into_iter().flatten();
        fields.map(|(name, field)| (name.clone(), self.value(field, depth + 1))).collect::<Map<_, _>>().into()
    }

    fn array(&mut self, schema: &Value, depth: usize) -> Value {
        match schema.get("items") {
            Some(items) if depth < MAX_DEPTH / 2 => vec![self.value(items, depth + 1)].into(),
            _ => Value::Array(Vec::new()),
        }
    }

    fn resolve(&self, schema: &Value) -> Option<Value> {
        let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(pointer).cloned()
    }
}

fn first_branch(union: &Value) -> Option<&Value> {
    let branches = union.as_array()?;
    branches.iter().find(|branch| type_name(branch) != "null").or_else(|| branches.first())
}

fn type_name(schema: &Value) -> &str {
    let named = match schema.get("type") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        Some(name) => name.as_str(),
        None => None,
    };
    named.unwrap_or(if schema.get("properties").is_some() { "object" } else { "string" })
}

fn find_open(schema: &Value, path: &mut Vec<String>) -> Option<String> {
    match schema {
        Value::Object(fields) => {
            let is_object = fields.get("type").and_then(Value::as_str) == Some("object");
            if is_object && fields.get("additionalProperties") != Some(&Value::Bool(false)) {
                return Some(path.join("."));
            }
            fields.iter().find_map(|(name, value)| descend(name, value, path))
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(i, value)| descend(&i.to_string(), value, path)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn descend(name: &str, value: &Value, path: &mut Vec<String>) -> Option<String> {
    path.push(name.to_owned());
    let found = find_open(value, path);
    path.pop();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_unions_and_enums_are_followed() {
        let schema = json!({
            "type": "object",
            "$defs": {"Colour": {"enum": ["red", "blue"]}},
            "properties": {
                "city": {"type": "string"},
                "colour": {"$ref": "#/$defs/Colour"},
                "days": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 3}]},
                "tags": {"type": "array", "items": {"type": ["null", "boolean"]}}
            }
        });
        let value = example(&schema, &mut ["Berlin"].into_iter());
        assert_eq!(value, json!({"city": "Berlin", "colour": "red", "days": 3, "tags": [true]}));
    }

    #[test]
    fn a_recursive_schema_comes_to_an_end() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(example(&schema, &mut std::iter::empty()).is_object());
    }

    #[test]
    fn the_first_open_object_is_named() {
        let schema = json!({"type": "object", "additionalProperties": false, "properties": {"a": {"type": "object"}}});
        assert_eq!(open_object(&schema), Some("properties.a".to_owned()));
    }
}
