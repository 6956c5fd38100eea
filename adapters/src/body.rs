//! The bytes of a body that is made of pieces: mostly slices of what the caller sent, with a few new bytes between.

use std::io;

use bytes::{Bytes, BytesMut};

/// Below this, pieces are joined: one write and one allocation are cheaper than several small ones.
pub(crate) const JOIN_BELOW: usize = 32 * 1024;

/// From this length on, what was taken from elsewhere stays a slice of it; less is cheaper copied than kept.
const SHARE_FROM: usize = 16 * 1024;

/// New bytes are kept in pieces of this size at most: one that grows is there twice while it does.
const PIECE: usize = 1024 * 1024;

/// A body in one or more segments, to be sent one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    segments: Vec<Bytes>,
    length: usize,
}

impl Body {
    /// A body of these pieces; small ones are joined, large ones stay slices of what they were cut from.
    #[must_use]
    pub fn of(segments: Vec<Bytes>) -> Self {
        let length = segments.iter().map(Bytes::len).sum();
        if segments.len() > 1 && length <= JOIN_BELOW {
            let mut joined = BytesMut::with_capacity(length);
            segments.iter().for_each(|s| joined.extend_from_slice(s));
            return Self { segments: vec![joined.freeze()], length };
        }
        Self { segments, length }
    }

    /// The segments, in order.
    #[must_use]
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// The number of bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All in one piece; copies where there are several.
    #[must_use]
    pub fn joined(&self) -> Bytes {
        match self.segments.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { length: bytes.len(), segments: vec![bytes] }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

/// Writes a body that is made of another one: long parts of that are shared, not copied.
#[derive(Debug)]
pub struct BodyWriter<'b> {
    source: &'b Bytes,
    /// How many bytes there may still be.
    room: usize,
    segments: Vec<Bytes>,
    /// What is written behind them.
    last: Vec<u8>,
}

impl<'b> BodyWriter<'b> {
    /// A body made of `source`, which may have `most` bytes.
    #[must_use]
    pub fn new(source: &'b Bytes, most: usize) -> Self {
        let last = Vec::with_capacity((source.len() + 256).min(SHARE_FROM));
        Self { source, room: most, segments: Vec::new(), last }
    }

    /// All that was written.
    #[must_use]
    pub fn into_body(mut self) -> Body {
        self.cut();
        Body::of(self.segments)
    }

    /// The source's part that these bytes are, if they are one.
    fn shared(&self, bytes: &[u8]) -> Option<Bytes> {
        let start = bytes.as_ptr().addr().checked_sub(self.source.as_ptr().addr())?;
        let end = start.checked_add(bytes.len())?;
        (end <= self.source.len()).then(|| self.source.slice(start..end))
    }

    /// Ends the piece that is written.
    fn cut(&mut self) {
        if !self.last.is_empty() {
            self.segments.push(std::mem::take(&mut self.last).into());
        }
    }
}

/// Fails where there is no more room.
impl io::Write for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room = self.room.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let shared = if bytes.len() < SHARE_FROM { None } else { self.shared(bytes) };
        if shared.is_some() || self.last.len() + bytes.len() > PIECE {
            self.cut();
        }
        match shared {
            Some(shared) => self.segments.push(shared),
            None => self.last.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn long_parts_of_the_source_are_shared_and_all_else_is_copied() {
        let source = Bytes::from(vec![b'x'; 4 * PIECE]);
        let mut writer = BodyWriter::new(&source, usize::MAX);
        let long = source.get(7..3 * PIECE).unwrap();
        let copy = long.to_vec();
        for bytes in [b"<", long, b"|", source.get(..9).unwrap(), &copy, b">"] {
            writer.write_all(bytes).unwrap();
        }
        let body = writer.into_body();
        assert_eq!(body.joined(), [b"<", long, b"|xxxxxxxxx", long, b">"].concat());
        let shared = |segment: &&Bytes| source.as_ptr_range().contains(&segment.as_ptr());
        assert_eq!(body.segments().iter().filter(shared).map(Bytes::len).collect::<Vec<_>>(), [long.len()]);
    }

    #[test]
    fn no_more_is_written_than_there_is_room_for_in_pieces_that_stay_small() {
        let source = Bytes::new();
        let mut writer = BodyWriter::new(&source, 3 * PIECE);
        while writer.write_all(b"0123456789").is_ok() {}
        assert_eq!(writer.write_all(b"0123456789").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let body = writer.into_body();
        assert!(body.len() <= 3 * PIECE && body.len() > 3 * PIECE - 10);
        assert!(body.segments().iter().all(|segment| segment.len() <= PIECE));
    }
}
