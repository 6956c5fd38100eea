//! Rows, or notes of open requests, one behind the other: each with its length and the number of its admission before
//! it, so that a reader finds the next without reading this one.

use std::fmt::Display;

use serde::Serialize as _;

use super::id;
use super::intent::{self, Intent};
use super::row::Row;
use crate::store::StoreFault;

/// How the frames of a value are written: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Each is a row.
    Row = 1,
    /// Each is what is noted of a request that is open.
    Note = 2,
}

/// Length, number, and the time in the row's id.
const HEAD: usize = size_of::<u32>() + 2 * size_of::<u64>();

/// How many bytes a frame is given at first: few are longer.
const USUAL: usize = 256;

/// Where the number is.
const NUMBER: usize = size_of::<u32>();

/// Where the time is.
const BEGUN: usize = NUMBER + size_of::<u64>();

/// Stands for the time of an id that holds none.
const NO_TIME: u64 = u64::MAX;

/// The number of a row that no admission had.
pub(super) const NO_NUMBER: u64 = u64::MAX;

/// A framed row.
pub(super) fn encode(number: u64, row: &Row<'_>) -> Vec<u8> {
    let begun = id::micros(&row.request_id);
    framed(number, begun, |frame| row.serialize(&mut rmp_serde::Serializer::new(frame)))
}

/// What is noted of a request that is open, framed as its row would be.
pub(super) fn note<'c>(intent: Intent<'_, impl IntoIterator<Item = (&'c str, i64, i64)>>) -> Vec<u8> {
    framed(NO_NUMBER, None, |frame| intent::write(intent, frame))
}

/// What `write` writes, in a frame. What cannot be written, which is a mistake in this room, is empty.
fn framed<E: Display>(number: u64, begun: Option<u64>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(USUAL);
    frame.extend_from_slice(&[0; HEAD]);
    if let Err(error) = write(&mut frame) {
        tracing::error!(%error, "a row of the ledger cannot be written");
        return Vec::new();
    }
    let length = u32::try_from(frame.len() - HEAD).unwrap_or(u32::MAX);
    let begun = begun.unwrap_or(NO_TIME);
    set(&mut frame, 0, length.to_le_bytes());
    set(&mut frame, BEGUN, begun.to_le_bytes());
    renumber(&mut frame, number);
    frame
}

/// Gives a framed row its number.
pub(super) fn renumber(frame: &mut [u8], number: u64) {
    set(frame, NUMBER, number.to_le_bytes());
}

fn set<const N: usize>(frame: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(place) = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = bytes;
    }
}

/// A value that holds `frames`.
pub(super) fn value(form: Form, frames: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(frames.len() + 8);
    value.push(form as u8);
    value.extend_from_slice(frames);
    value
}

/// The rows of a value, in order.
pub(super) fn decode(value: &[u8]) -> Result<Frames<'_>, StoreFault> {
    frames(value).filter(|frames| frames.form == Form::Row).ok_or_else(unknown)
}

/// What a value notes of open requests.
pub(super) fn decode_notes(value: &[u8]) -> Result<Frames<'_>, StoreFault> {
    frames(value).ok_or_else(unknown)
}

fn frames(value: &[u8]) -> Option<Frames<'_>> {
    let (first, rest) = value.split_first()?;
    let form = [Form::Row, Form::Note].into_iter().find(|form| *form as u8 == *first)?;
    Some(Frames::bare(form, rest))
}

fn unknown() -> StoreFault {
    StoreFault::Damaged("rows of the ledger in a form that this Weir does not know".to_owned())
}

/// Frames that are still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames<'a> {
    form: Form,
    rest: &'a [u8],
}

/// One row or note, not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The number of its admission.
    pub(super) number: u64,
    /// The time in the row's id, in microseconds since 1970.
    pub(super) begun: Option<u64>,
    pub(super) form: Form,
    /// With its head.
    pub(super) whole: &'a [u8],
    pub(super) packed: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Frames without the byte before them.
    pub(super) fn bare(form: Form, rest: &'a [u8]) -> Self {
        Self { form, rest }
    }

    fn split(&mut self) -> Option<Frame<'a>> {
        let (length, after) = self.rest.split_first_chunk()?;
        let (number, after) = after.split_first_chunk()?;
        let (begun, after) = after.split_first_chunk()?;
        let packed = after.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let (whole, rest) = self.rest.split_at_checked(HEAD + packed.len())?;
        self.rest = rest;
        let begun = Some(u64::from_le_bytes(*begun)).filter(|begun| *begun != NO_TIME);
        Some(Frame { number: u64::from_le_bytes(*number), begun, form: self.form, whole, packed })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        self.split()
    }
}

impl<'a> Frame<'a> {
    pub(super) fn row(&self) -> Result<Row<'a>, StoreFault> {
        rmp_serde::from_slice(self.packed).map_err(|error| StoreFault::Damaged(format!("a row of the ledger: {error}")))
    }

    /// Whether `text` stands in it somewhere; much cheaper than reading it.
    pub(super) fn mentions(&self, text: &memchr::memmem::Finder<'_>) -> bool {
        text.find(self.packed).is_some()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn rows_come_back_in_their_order() {
        let frames: Vec<u8> = (0..3).flat_map(|number| encode(number, &row(&format!("r{number}")))).collect();
        let value = value(Form::Row, &frames);
        let read: Vec<_> = decode(&value).unwrap().map(|frame| (frame.number, frame.row().unwrap())).collect();
        assert_eq!(read, [(0, row("r0")), (1, row("r1")), (2, row("r2"))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let frames = Frames::bare(Form::Row, &bytes);
            prop_assert!(frames.filter(|frame| frame.row().is_ok()).count() <= bytes.len());
        }
    }
}
