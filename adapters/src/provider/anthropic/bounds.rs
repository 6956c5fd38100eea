//! How many things one request may hold. Each of them takes some hundred bytes while a request is said in Anthropic's
//! words, and the least of them is a few bytes long: without bounds a body would take twenty times its size, and
//! seconds of a thread.

use std::fmt::Display;

use serde::Deserialize;

use crate::adapter::EncodeError;
use crate::openai::message::{count, list};

/// Messages of a request: Anthropic's own limit.
pub(super) const MOST_MESSAGES: usize = 100_000;

/// Tools of a request: as many as Anthropic's search among tools takes.
pub(super) const MOST_TOOLS: usize = 10_000;

/// Stop sequences, and what else is a handful of words. Anthropic states none; OpenAI takes 4.
pub(super) const MOST_WORDS: usize = 1_000;

/// Parts, calls and blocks in all of a request's messages. Anthropic states none; each of them costs some tokens
/// whatever it says, so that a context of a million has no room for more.
pub(super) const MOST_BLOCKS: usize = 250_000;

/// Bytes of all schemas of a field that a model is to be held to. Anthropic states none, but what it compiles is far
/// shorter. Such a schema is written anew, which reads it once for each level that it nests.
pub(super) const LONGEST_SCHEMAS: usize = 4 * 1024 * 1024;

/// By how much a request may become longer. Most become shorter; a text file of control characters would become five
/// times as long.
pub(super) const MOST_GROWTH: usize = 16 * 1024 * 1024;

/// Refuses schemas in `param` of so many bytes in all, if a model can't be held to as many.
pub(super) fn enforces(param: &str, bytes: usize) -> Result<(), EncodeError> {
    if bytes <= LONGEST_SCHEMAS {
        return Ok(());
    }
    let message = format!(
        "The schemas in `{param}` that are to be enforced have {bytes} bytes; this model takes {LONGEST_SCHEMAS} at most."
    );
    Err(EncodeError::invalid(param, message))
}

/// How many parts, calls and blocks the messages may still hold.
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MOST_BLOCKS)
    }
}

impl Room {
    /// A list of things that stay.
    pub(super) fn list<'a, T: Deserialize<'a>>(
        &mut self,
        raw: &'a str,
        param: impl Display + Copy,
        expected: &str,
    ) -> Result<Vec<T>, EncodeError> {
        // Each item has two bytes at least, with its comma: most lists need not be counted before they are read.
        if raw.len() / 2 > self.0 {
            self.holds(count(raw).unwrap_or_default(), param)?;
        }
        let items = list(raw, param, expected, MOST_BLOCKS)?;
        self.0 = self.0.saturating_sub(items.len());
        Ok(items)
    }

    /// Things of which each stays, though nobody reads them yet.
    pub(super) fn take(&mut self, raw: &str, param: impl Display) -> Result<(), EncodeError> {
        let items = count(raw).unwrap_or_default();
        self.holds(items, param)?;
        self.0 = self.0.saturating_sub(items);
        Ok(())
    }

    fn holds(&self, items: usize, param: impl Display) -> Result<(), EncodeError> {
        if items <= self.0 {
            return Ok(());
        }
        let all = MOST_BLOCKS - self.0 + items;
        let message = format!(
            "With `{param}` the messages hold {all} parts, calls and blocks; this model takes {MOST_BLOCKS} at most."
        );
        Err(EncodeError::invalid(param.to_string(), message))
    }
}
