//! What a caller is to hand back with an answer. Over a stream it gathers, and is written as one delta before the finish:
//! clients add lists up in ways of their own, or keep the last only, but all take one that comes once.

use serde::Serialize;

use crate::chunk::push_json;

/// A block of reasoning that must be handed back as it is.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ThinkingBlock<T> {
    /// Text and its signature.
    Thinking {
        /// The text; may be empty where the provider omits it.
        thinking: T,
        /// What proves it.
        signature: T,
    },
    /// Encrypted.
    RedactedThinking {
        /// The provider's bytes.
        data: T,
    },
}

/// What gathers over a stream.
#[derive(Debug, Default)]
pub struct Handback {
    /// Blocks of reasoning.
    pub thinking_blocks: List,
    /// Where the answer has its facts from.
    pub annotations: List,
    /// Blocks that OpenAI's format has no word for.
    pub provider_blocks: List,
}

impl Handback {
    /// The fields of a delta that says all of it; nothing where there is nothing.
    #[must_use]
    pub fn into_fields(self) -> Vec<u8> {
        let lists = [
            ("thinking_blocks", self.thinking_blocks),
            ("annotations", self.annotations),
            ("provider_blocks", self.provider_blocks),
        ];
        let mut fields = Vec::new();
        for (name, list) in lists {
            list.write(name, &mut fields);
        }
        fields
    }
}

/// Items of JSON, written one behind the other.
#[derive(Debug, Default)]
pub struct List(Vec<u8>);

impl List {
    /// Adds an item.
    pub fn push(&mut self, item: &(impl Serialize + ?Sized)) {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        push_json(&mut self.0, item);
    }

    fn write(&self, name: &str, fields: &mut Vec<u8>) {
        if self.0.is_empty() {
            return;
        }
        if !fields.is_empty() {
            fields.push(b',');
        }
        push_json(fields, name);
        fields.extend_from_slice(b":[");
        fields.extend_from_slice(&self.0);
        fields.push(b']');
    }
}
