//! A model whose price is easy to reckon with, and what tests of accounting ask of it.

use serde_json::Value;
use simulator::Simulator;

use crate::client::Answer;
use crate::weir::{Config, KEY_HASH, Weir};

/// A dollar for a thousand tokens of either kind.
pub const PRICED: &str = "pricing: {input: 1000, output: 1000}";

/// A model `m` of that price, and a tenant with these settings.
#[must_use]
pub fn config(simulator: &Simulator, tenant: &str, key: &str) -> Config {
    Config::of(simulator)
        .model(&format!("{{name: m, targets: [{{provider: openai, model: gpt-5.5}}], {PRICED}}}"))
        .tenant(&format!("{{id: acme, {tenant} keys: [{{id: ci, hash: '{KEY_HASH}', {key}}}]}}"))
}

/// A chat request's answer.
pub async fn ask(weir: &Weir, body: &Value) -> Answer {
    weir.chat().json(body).send().await
}

/// The row of an answered request.
pub async fn row(weir: &Weir, id: &str) -> Value {
    let answer = weir.get(&format!("/v1/usage/{id}")).send().await;
    assert_eq!(answer.status.as_u16(), 200, "{id}");
    answer.json().await
}
