//! A text file in base64, which Anthropic wants as a text. It is unpacked while it is written, piece by piece: it may
//! be as long as a whole request, and would be there once more.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read as _};

use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use serde::{Serialize, Serializer};

/// How much is unpacked at a time.
const PIECE: usize = 8 * 1024;

/// A text, in base64.
#[derive(Debug)]
pub(super) struct PlainText<'a>(Cow<'a, str>);

impl<'a> PlainText<'a> {
    /// The text in `base64`, if it is one.
    pub(super) fn of(base64: Cow<'a, str>) -> Option<Self> {
        let text = Self(base64);
        text.read(|_| Ok(())).ok()?;
        Some(text)
    }

    /// Hands over the text piece by piece.
    fn read(&self, mut take: impl FnMut(&str) -> fmt::Result) -> io::Result<()> {
        let mut unpacked = DecoderReader::new(self.0.as_bytes(), &STANDARD);
        let mut buffer = [0; PIECE];
        let mut kept = 0;
        loop {
            let read = unpacked.read(buffer.get_mut(kept..).unwrap_or_default())?;
            let bytes = buffer.get(..kept + read).unwrap_or_default();
            let text = text_of(bytes).filter(|text| read > 0 || text.len() == bytes.len());
            let text = text.ok_or(io::ErrorKind::InvalidData)?;
            take(text).map_err(|fmt::Error| io::ErrorKind::Other)?;
            if read == 0 {
                return Ok(());
            }
            let (from, to) = (text.len(), bytes.len());
            buffer.copy_within(from..to, 0);
            kept = to - from;
        }
    }
}

impl fmt::Display for PlainText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|piece| f.write_str(piece)).map_err(|_| fmt::Error)
    }
}

impl Serialize for PlainText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is text from the beginning of `bytes`, but for a character that is cut at its end; `None` where it is none.
fn text_of(bytes: &[u8]) -> Option<&str> {
    match str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => str::from_utf8(bytes.get(..error.valid_up_to())?).ok(),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use base64::Engine as _;

    use super::*;

    fn packed(bytes: &[u8]) -> Option<PlainText<'static>> {
        PlainText::of(STANDARD.encode(bytes).into())
    }

    #[test]
    fn a_text_is_whole_wherever_its_pieces_end() {
        for lead in 0..4 {
            let text = "x".repeat(lead) + &"a\u{e9}\u{20ac}\u{1f600}\u{0}\"\n".repeat(PIECE / 5);
            let read = packed(text.as_bytes()).unwrap();
            assert_eq!(read.to_string(), text);
            assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&text).unwrap());
        }
        assert_eq!(packed(b"").unwrap().to_string(), "");
    }

    #[test]
    fn what_is_no_base64_or_no_text_is_none() {
        let long = "x".repeat(PIECE);
        for bytes in [
            b"\xff".as_slice(),
            b"\xe2\x82",
            &[long.as_bytes(), b"\xf0\x9f"].concat(),
            &[b"\xc3", long.as_bytes()].concat(),
        ] {
            assert!(packed(bytes).is_none());
        }
        for broken in ["a", "!!!!", "YQ", "YQ==YQ==", "Y Q="] {
            assert!(PlainText::of(broken.into()).is_none(), "{broken}");
        }
    }
}
