//! What a caller is to hand back with an answer. Over a stream it gathers, and is written as one delta before the
//! finish: clients add lists up in ways of their own, or keep the last only, but all take one that comes once.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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

/// One of an answer's blocks, in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The next of the `thinking_blocks`.
    Thinking,
    /// The next of the `provider_blocks`.
    Provider,
    /// The next so many characters of the text.
    Text(usize),
    /// The next call.
    Call,
}

impl Piece {
    fn rank(self) -> u8 {
        match self {
            Self::Thinking => 0,
            Self::Provider => 1,
            Self::Text(_) => 2,
            Self::Call => 3,
        }
    }
}

/// The order of an answer's blocks.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Order(Vec<Piece>);

impl Order {
    /// One more block; a text without a character is none.
    pub fn push(&mut self, piece: Piece) {
        if piece != Piece::Text(0) {
            self.0.push(piece);
        }
    }

    /// Whether a message need not tell it: reasoning first, then blocks of the provider's own, one text, calls.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        self.0.array_windows().all(|[one, next]| {
            let one_text = !matches!((one, next), (Piece::Text(_), Piece::Text(_)));
            one.rank() <= next.rank() && one_text
        })
    }
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
    /// In which order all blocks came.
    pub block_order: Order,
    /// What the provider tells beside them. It need not come back, but like them comes once.
    pub extra_content: Option<Box<RawValue>>,
}

impl Handback {
    /// The fields of a delta that says all of it; nothing where there is nothing.
    #[must_use]
    pub fn into_fields(self) -> Vec<u8> {
        let mut order = List::default();
        if !self.block_order.is_usual() {
            self.block_order.0.iter().for_each(|piece| order.push(piece));
        }
        let mut fields = Vec::new();
        self.thinking_blocks.write("thinking_blocks", &mut fields);
        self.annotations.write("annotations", &mut fields);
        self.provider_blocks.write("provider_blocks", &mut fields);
        order.write("block_order", &mut fields);
        if let Some(extra) = &self.extra_content {
            name_field("extra_content", &mut fields);
            fields.extend_from_slice(extra.get().as_bytes());
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
        name_field(name, fields);
        fields.push(b'[');
        fields.extend_from_slice(&self.0);
        fields.push(b']');
    }
}

fn name_field(name: &str, fields: &mut Vec<u8>) {
    if !fields.is_empty() {
        fields.push(b',');
    }
    push_json(fields, name);
    fields.push(b':');
}
