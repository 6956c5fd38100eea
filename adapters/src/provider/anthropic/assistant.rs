//! What an assistant said, put back into the blocks that it was made of, in the order in which they came.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Notes;
use super::native::Block;
use crate::handback::Piece;
use crate::openai::reply::Raw;
use crate::openai::text::{Text, array, is_blank, raw_string};

/// The blocks of one message, by their kind.
pub(super) struct Parts<'a> {
    pub(super) thinking: Vec<Block<'a>>,
    pub(super) provider: Vec<Block<'a>>,
    pub(super) said: Said<'a>,
    pub(super) refusal: Option<Block<'a>>,
    pub(super) calls: Vec<Block<'a>>,
}

/// What a message's content says.
pub(super) enum Said<'a> {
    /// One text, which may have been several blocks.
    Text(&'a RawValue),
    /// Parts, in an order of their own; none where nothing is said.
    Blocks(Vec<Block<'a>>),
}

/// What a message tells of its blocks beside them, raw.
pub(super) struct Told<'a> {
    pub(super) order: Option<&'a RawValue>,
    pub(super) annotations: Option<&'a RawValue>,
}

impl<'a> Parts<'a> {
    /// The blocks in the order that is told, where it fits them; else in the order that most answers have.
    pub(super) fn into_blocks(self, told: &Told<'a>, notes: &mut Notes) -> Vec<Block<'a>> {
        let mut citations = Citations::read(told.annotations, notes);
        let blocks = match told.order.map(|order| self.fitting(order)) {
            Some(Some(order)) => self.in_order(order, &mut citations),
            unfit => {
                if unfit.is_some() {
                    notes.add("messages.block_order", "it does not fit the message that it came with");
                }
                self.in_usual_order(&mut citations)
            }
        };
        if !citations.0.is_empty() {
            notes.add("messages.annotations", "they do not fit the text that they came with");
        }
        blocks
    }

    /// The order, if it has a place for each block and for each character.
    fn fitting(&self, order: &RawValue) -> Option<Vec<Piece>> {
        let order: Vec<Piece> = serde_json::from_str(order.get()).ok()?;
        let count = |kind| order.iter().filter(|piece| **piece == kind).count();
        let chars = order.iter().try_fold(0_usize, |chars, piece| match piece {
            Piece::Text(more) => chars.checked_add(*more),
            Piece::Thinking | Piece::Provider | Piece::Call => Some(chars),
        });
        let fits = count(Piece::Thinking) == self.thinking.len()
            && count(Piece::Provider) == self.provider.len()
            && count(Piece::Call) == self.calls.len()
            && chars? == self.said.text()?.chars().count();
        fits.then_some(order)
    }

    fn in_order(self, order: Vec<Piece>, citations: &mut Citations<'a>) -> Vec<Block<'a>> {
        let text = self.said.text().unwrap_or_default();
        let mut pages = Pages { rest: &text, at: 0 };
        let (mut thinking, mut provider) = (self.thinking.into_iter(), self.provider.into_iter());
        let mut calls = self.calls.into_iter();
        let blocks = order.into_iter().filter_map(|piece| match piece {
            Piece::Thinking => thinking.next(),
            Piece::Provider => provider.next(),
            Piece::Call => calls.next(),
            Piece::Text(chars) => {
                let (page, stretch) = pages.next(chars);
                cited(Cow::Owned(raw_string(page)), citations.of(stretch))
            }
        });
        blocks.chain(self.refusal).collect()
    }

    fn in_usual_order(self, citations: &mut Citations<'a>) -> Vec<Block<'a>> {
        let Self { thinking, provider, said, refusal, calls } = self;
        let said = match said {
            Said::Blocks(blocks) => blocks,
            Said::Text(raw) => {
                let cited_by = citations.of_all(raw);
                cited(Cow::Borrowed(raw), cited_by).into_iter().collect()
            }
        };
        thinking.into_iter().chain(provider).chain(said).chain(refusal).chain(calls).collect()
    }
}

impl<'a> Said<'a> {
    /// All of it as one text, if it is no more than that.
    fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(raw) => serde_json::from_str::<Text<'a>>(raw.get()).ok().map(|text| text.0),
            Self::Blocks(blocks) => blocks.is_empty().then_some(Cow::Borrowed("")),
        }
    }
}

/// A text that is read stretch by stretch.
struct Pages<'t> {
    rest: &'t str,
    at: usize,
}

impl<'t> Pages<'t> {
    /// So many characters, and where they stand.
    fn next(&mut self, chars: usize) -> (&'t str, Range<usize>) {
        let end = self.rest.char_indices().nth(chars).map_or(self.rest.len(), |(end, _)| end);
        let (page, rest) = self.rest.split_at(end);
        self.rest = rest;
        let start = self.at;
        self.at += chars;
        (page, start..self.at)
    }
}

/// The citations that were handed out as annotations, by the stretch of text that each stands behind.
struct Citations<'a>(HashMap<Range<usize>, Vec<&'a RawValue>>);

impl<'a> Citations<'a> {
    fn read(annotations: Option<&'a RawValue>, notes: &mut Notes) -> Self {
        let mut citations = HashMap::<_, Vec<_>>::new();
        let all = annotations.map_or(Ok(Vec::new()), |raw| serde_json::from_str::<Vec<Annotation<'a>>>(raw.get()));
        let told = all.as_ref().map_or(1, Vec::len);
        for (stretch, citation) in all.into_iter().flatten().filter_map(Annotation::into_citation) {
            citations.entry(stretch).or_default().push(citation);
        }
        if citations.values().map(Vec::len).sum::<usize>() < told {
            notes.add("messages.annotations", "Anthropic takes no sources but those that it told");
        }
        Self(citations)
    }

    /// Those of a stretch, as an array.
    fn of(&mut self, stretch: Range<usize>) -> Option<Raw<'a>> {
        self.0.remove(&stretch).map(|citations| Cow::Owned(array(&citations)))
    }

    /// Those of a whole text.
    fn of_all(&mut self, text: &RawValue) -> Option<Raw<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let chars = serde_json::from_str::<Text<'_>>(text.get()).ok()?.chars().count();
        self.of(0..chars)
    }
}

#[derive(Deserialize)]
struct Annotation<'a> {
    url_citation: Option<Stretch>,
    file_citation: Option<Stretch>,
    #[serde(borrow)]
    citation: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Stretch {
    start_index: usize,
    end_index: usize,
}

impl<'a> Annotation<'a> {
    fn into_citation(self) -> Option<(Range<usize>, &'a RawValue)> {
        let Stretch { start_index, end_index } = self.url_citation.or(self.file_citation)?;
        Some((start_index..end_index, self.citation?))
    }
}

/// A text with its sources; nothing for a blank one, which Anthropic refuses.
fn cited<'a>(text: Raw<'a>, citations: Option<Raw<'a>>) -> Option<Block<'a>> {
    (!is_blank(&text)).then(|| Block::cited(text, citations))
}
