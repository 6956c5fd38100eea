//! The bytes of a body that is made of pieces: mostly slices of what the caller sent, with a few new bytes between.

use bytes::{Bytes, BytesMut};

/// Below this, pieces are joined: one write and one allocation are cheaper than several small ones.
const JOIN_BELOW: usize = 32 * 1024;

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
