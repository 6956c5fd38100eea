//! A streamed block that OpenAI's format has no word for: as it began, and what followed.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::events::Delta;
use crate::index::Index;
use crate::openai::text::raw_string;
use crate::request::{Edit, rewrite_into};

/// Such a block while it grows.
pub(super) struct Unnamed {
    block: Box<RawValue>,
    /// A call's arguments, a text, reasoning.
    pieces: BTreeMap<&'static str, String>,
    /// What comes whole: the summary of a compaction, a signature.
    wholes: BTreeMap<&'static str, Box<RawValue>>,
}

impl Unnamed {
    /// A block as it began.
    pub(super) fn new(block: &RawValue) -> Self {
        Self { block: block.to_owned(), pieces: BTreeMap::new(), wholes: BTreeMap::new() }
    }

    /// Takes what a delta adds, and says how long that is.
    pub(super) fn grow(&mut self, delta: &Delta<'_>) -> usize {
        let mut added = 0;
        for (name, piece) in [("input", &delta.partial_json), ("text", &delta.text), ("thinking", &delta.thinking)] {
            if let Some(piece) = piece {
                added += piece.len();
                self.pieces.entry(name).or_default().push_str(piece);
            }
        }
        let signature = delta.signature.as_deref().map(raw_string);
        let wholes = [
            ("content", delta.content.map(ToOwned::to_owned)),
            ("encrypted_content", delta.encrypted_content.map(ToOwned::to_owned)),
            ("signature", signature),
        ];
        for (name, whole) in wholes.into_iter().filter_map(|(name, whole)| Some((name, whole?))) {
            added += whole.get().len();
            self.wholes.insert(name, whole);
        }
        added
    }

    /// The block with all that followed.
    pub(super) fn into_json(self) -> Box<RawValue> {
        let Self { block, pieces, wholes } = self;
        let Ok(index) = Index::of(block.get().as_bytes()) else {
            return block;
        };
        let pieces = pieces.into_iter().filter_map(|(name, piece)| Some((name, said(name, piece)?)));
        let edits: Vec<Edit<'_>> = pieces
            .chain(wholes)
            .map(|(name, value)| Edit::Set(name, String::from(Box::<str>::from(value)).into()))
            .collect();
        let mut whole = Vec::with_capacity(block.get().len());
        rewrite_into(block.get().as_bytes(), &index, &edits, &mut whole);
        String::from_utf8(whole).ok().and_then(|json| RawValue::from_string(json).ok()).unwrap_or(block)
    }
}

/// A field that came in pieces: arguments are JSON, all else is text. Broken arguments and an empty text say nothing.
fn said(name: &str, piece: String) -> Option<Box<RawValue>> {
    match name {
        "input" => RawValue::from_string(piece).ok(),
        _ => (!piece.is_empty()).then(|| raw_string(&piece)),
    }
}
