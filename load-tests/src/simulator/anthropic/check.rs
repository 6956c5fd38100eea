//! What Anthropic refuses of a request's top level: unknown fields, wrong types, and what a version or a model no
//! longer takes.

use serde_json::Value;

use super::super::dialect::Refusal;
use super::Version;
use super::prompt::Purpose;

const FIELDS: [&str; 17] = [
    "max_tokens",
    "messages",
    "model",
    "cache_control",
    "container",
    "diagnostics",
    "inference_geo",
    "metadata",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "system",
    "thinking",
    "tool_choice",
    "tools",
    "stream",
];

/// What counting tokens takes.
const COUNTED_FIELDS: [&str; 9] =
    ["messages", "model", "cache_control", "output_config", "speed", "system", "thinking", "tool_choice", "tools"];

const SAMPLING: [&str; 3] = ["temperature", "top_p", "top_k"];

/// The most blocks that may be marked for the cache.
const MAX_BREAKPOINTS: usize = 4;

/// Checks the fields of the request.
pub(super) fn fields(json: &Value, version: Version, model: Generation, purpose: Purpose) -> Result<(), Refusal> {
    let allowed: &[&str] = match purpose {
        Purpose::Answering => &FIELDS,
        Purpose::Counting => &COUNTED_FIELDS,
    };
    for name in json.as_object().into_iter().flat_map(|fields| fields.keys()) {
        let sampling = SAMPLING.contains(&name.as_str()) && purpose == Purpose::Answering;
        match version {
            Version::V2023 if sampling => old_sampling(json, name, model)?,
            Version::V2023 | Version::V2026 if !allowed.contains(&name.as_str()) => {
                return Err(extra(name));
            }
            Version::V2023 | Version::V2026 => {}
        }
    }
    max_tokens(json, purpose)?;
    metadata(json)?;
    breakpoints(json)
}

/// A field that is not known.
pub(super) fn extra(path: &str) -> Refusal {
    Refusal::invalid(format!("{path}: Extra inputs are not permitted"))
}

/// Refuses the fields of `object` that are not in `known`.
pub(super) fn known(object: &Value, known: &[&str], path: &str) -> Result<(), Refusal> {
    let unknown =
        object.as_object().into_iter().flat_map(|fields| fields.keys()).find(|name| !known.contains(&name.as_str()));
    unknown.map_or(Ok(()), |name| Err(extra(&format!("{path}.{name}"))))
}

fn old_sampling(json: &Value, name: &str, model: Generation) -> Result<(), Refusal> {
    if model >= Generation(4, 7) {
        return Err(Refusal::invalid(format!("`{name}` is deprecated for this model.")));
    }
    let value = json.get(name).and_then(Value::as_f64);
    let fits = match name {
        "top_k" => value.is_some_and(|k| k >= 0.0),
        _ => value.is_some_and(|share| (0.0..=1.0).contains(&share)),
    };
    if fits { Ok(()) } else { Err(Refusal::invalid(format!("{name}: range: 0..1"))) }
}

fn max_tokens(json: &Value, purpose: Purpose) -> Result<(), Refusal> {
    match (json.get("max_tokens"), purpose) {
        (_, Purpose::Counting) => Ok(()),
        (None, Purpose::Answering) => Err(Refusal::invalid("max_tokens: Field required")),
        (Some(value), Purpose::Answering) if value.as_u64().is_some() => Ok(()),
        (Some(value), Purpose::Answering) if value.is_i64() => {
            Err(Refusal::invalid("max_tokens: Input should be greater than or equal to 0"))
        }
        (Some(_), Purpose::Answering) => Err(Refusal::invalid("max_tokens: Input should be a valid integer")),
    }
}

fn metadata(json: &Value) -> Result<(), Refusal> {
    json.get("metadata").map_or(Ok(()), |metadata| known(metadata, &["user_id"], "metadata"))
}

fn breakpoints(json: &Value) -> Result<(), Refusal> {
    let count = count_breakpoints(json);
    if count <= MAX_BREAKPOINTS {
        return Ok(());
    }
    let message = format!("A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {count}.");
    Err(Refusal::invalid(message))
}

fn count_breakpoints(value: &Value) -> usize {
    match value {
        Value::Object(fields) => {
            let own = usize::from(fields.get("cache_control").is_some_and(Value::is_object));
            let inside = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "input" | "input_schema"));
            own + inside.map(|(_, value)| count_breakpoints(value)).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(count_breakpoints).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// A model's generation, as its name tells it: `claude-sonnet-4-6` is 4.6, and so is `claude-sonnet-4-6-20260217`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(pub(super) u32, pub(super) u32);

impl Generation {
    pub(super) fn of(model: &str) -> Self {
        let is_version = |number: &u32| *number < 100;
        let mut parts = model.split(['-', '.', '@']).skip_while(|part| part.parse::<u32>().is_err());
        let mut next = || parts.next().and_then(|part| part.parse().ok()).filter(is_version);
        match next() {
            Some(major) => Self(major, next().unwrap_or(0)),
            None => Self(0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_read_off_the_name() {
        assert_eq!(Generation::of("claude-sonnet-4-6"), Generation(4, 6));
        assert_eq!(Generation::of("claude-opus-4-7-20260401"), Generation(4, 7));
        assert_eq!(Generation::of("claude-sonnet-4-20250514"), Generation(4, 0));
        assert_eq!(Generation::of("claude-3-7-sonnet-20250219"), Generation(3, 7));
        assert_eq!(Generation::of("claude-opus-5"), Generation(5, 0));
        assert_eq!(Generation::of("something"), Generation(0, 0));
    }
}
