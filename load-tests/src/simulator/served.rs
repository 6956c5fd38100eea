//! What was served of each single request, where its caller named it: by `user`, or Anthropic's `metadata.user_id`.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::Value;

/// The requests that are told of; the oldest are forgotten. Only tests name their requests, so this is theirs: some
/// hundred a second for minutes.
pub(crate) const MAX_SERVED: usize = 100_000;

/// What was served of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// The model with its directives, as it was asked for.
    pub model: String,
    /// Its input tokens, if it was answered.
    pub input_tokens: u64,
    /// Output tokens that were sent.
    pub output_tokens: u64,
    /// How it ended.
    pub end: End,
    /// When its head had come.
    pub began: Instant,
    /// When its answer had ended.
    pub ended: Instant,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its answer was sent to the end, well or with a fault.
    Answered,
    /// The peer left before that.
    Left,
}

/// The name that a request's caller gave it.
pub(crate) fn name(request: &Value) -> Option<&str> {
    let anthropics = || request.get("metadata")?.get("user_id");
    request.get("user").or_else(anthropics)?.as_str()
}

/// Keeps one more.
pub(crate) fn keep(all: &mut VecDeque<Served>, one: Served) {
    if all.len() == MAX_SERVED {
        all.pop_front();
    }
    all.push_back(one);
}
