//! `GET /v1/models` and `/v1/models/{id}`, Anthropic's way.

use serde_json::{Value, json};

use super::super::dialect::{Answer, Refusal};
use super::super::reply::Usage;

const MODELS: [(&str, &str); 4] = [
    ("claude-opus-4-7", "Claude Opus 4.7"),
    ("claude-sonnet-4-6", "Claude Sonnet 4.6"),
    ("claude-haiku-4-5", "Claude Haiku 4.5"),
    ("claude-sonnet-4-20250514", "Claude Sonnet 4"),
];

/// Every model.
pub(super) fn list() -> Answer {
    let data: Vec<Value> = MODELS.iter().map(|model| object(*model)).collect();
    let first = MODELS.first().map(|(id, _)| id);
    let last = MODELS.last().map(|(id, _)| id);
    Answer::json(&json!({"data": data, "has_more": false, "first_id": first, "last_id": last}), Usage::default())
}

/// One model.
pub(super) fn one(id: &str) -> Result<Answer, Refusal> {
    let found = MODELS.iter().find(|(model, _)| *model == id);
    let found = found.ok_or_else(|| Refusal::new(404, "not_found_error", format!("model: {id}")))?;
    Ok(Answer::json(&object(*found), Usage::default()))
}

fn object((id, name): (&str, &str)) -> Value {
    json!({"type": "model", "id": id, "display_name": name, "created_at": "2026-01-01T00:00:00Z", "lifecycle": "active"})
}
