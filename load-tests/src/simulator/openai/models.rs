//! `GET /v1/models` and `/v1/models/{id}`.

use serde_json::{Value, json};

use super::super::dialect::{Answer, Refusal};
use super::super::reply::Usage;
use super::CREATED;

const MODELS: [&str; 6] =
    ["gpt-5.5", "gpt-5.5-mini", "gpt-4o", "o3", "text-embedding-3-small", "text-embedding-3-large"];

/// Every model.
pub(super) fn list() -> Answer {
    let data: Vec<Value> = MODELS.iter().map(|id| object(id)).collect();
    Answer::json(&json!({"object": "list", "data": data}), Usage::default())
}

/// One model.
pub(super) fn one(id: &str) -> Result<Answer, Refusal> {
    if MODELS.contains(&id) {
        return Ok(Answer::json(&object(id), Usage::default()));
    }
    let message = format!("The model '{id}' does not exist");
    Err(Refusal { status: 404, ..Refusal::invalid(message).param("model").code("model_not_found") })
}

fn object(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "simulated"})
}
