//! The body of an HTTP/1.1 answer, taken out of its framing. Holds no bytes: what comes in goes
//! out in the same call, so that a silent stream costs nothing here.

use bytes::{Buf as _, Bytes, BytesMut};

use super::fault::Fault;

/// The longest chunk-size line with its extensions.
const LONGEST_LINE: u16 = 1024;
/// All trailers together; they are read and dropped.
const LONGEST_TRAILERS: u16 = 16 * 1024;

/// Where a body stands and how its end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// In chunks.
    Chunked(Chunk),
    /// Until the connection ends.
    UntilClose,
    /// Complete.
    Done,
}

/// A place in the chunked framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the digits of a size.
    Size { size: u64, digits: u8 },
    /// After the digits, up to the line's CR.
    Extension { size: u64, read: u16 },
    /// Before the LF of the size line.
    SizeEnd { size: u64 },
    /// So many bytes of data are left.
    Data { left: u64 },
    /// Before the CR after the data.
    DataCr,
    /// Before the LF after the data.
    DataLf,
    /// In the trailers; `line` bytes of this line were read.
    Trailers { line: u16, read: u16 },
    /// Before the LF of a trailer line, or of the last line.
    TrailerLf { last: bool, read: u16 },
}

impl Framing {
    pub(super) fn chunked() -> Framing {
        Framing::Chunked(Chunk::start())
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Framing::Done | Framing::Length(0))
    }

    /// Takes what came and gives the body's bytes in it, and how much of it belonged to the body.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<(Bytes, usize), Fault> {
        match self {
            Framing::Done => Ok((Bytes::new(), 0)),
            Framing::UntilClose => Ok((Bytes::copy_from_slice(input), input.len())),
            Framing::Length(left) => {
                let (body, _) = split(input, *left);
                *left -= body.len() as u64;
                Ok((Bytes::copy_from_slice(body), body.len()))
            }
            Framing::Chunked(chunk) => {
                let mut chunk = *chunk;
                let mut body = BytesMut::with_capacity(input.len());
                let mut rest = input;
                while let Some((byte, after)) = rest.split_first() {
                    if let Chunk::Data { left } = chunk {
                        let (data, after) = split(rest, left);
                        body.extend_from_slice(data);
                        chunk = Chunk::after_data(left - data.len() as u64);
                        rest = after;
                        continue;
                    }
                    rest = after;
                    match chunk.step(*byte)? {
                        Some(next) => chunk = next,
                        None => {
                            *self = Framing::Done;
                            return Ok((body.freeze(), input.len() - rest.len()));
                        }
                    }
                }
                *self = Framing::Chunked(chunk);
                Ok((body.freeze(), input.len()))
            }
        }
    }

    /// The same of bytes that are held already: where nothing stands between them, they are not copied.
    pub(super) fn take_held(&mut self, held: &mut Bytes) -> Result<Bytes, Fault> {
        if let Framing::Length(left) = self {
            let body = held.split_to(held.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
            *left -= body.len() as u64;
            return Ok(body);
        }
        let (body, used) = self.take(held)?;
        held.advance(used);
        Ok(body)
    }

    /// What the end of the connection means for the body.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        match self {
            Framing::UntilClose | Framing::Done | Framing::Length(0) => {
                *self = Framing::Done;
                Ok(())
            }
            Framing::Length(_) | Framing::Chunked(_) => Err(Fault::truncated()),
        }
    }
}

impl Chunk {
    fn start() -> Chunk {
        Chunk::Size { size: 0, digits: 0 }
    }

    fn after_data(left: u64) -> Chunk {
        match left {
            0 => Chunk::DataCr,
            left => Chunk::Data { left },
        }
    }

    /// The place after one byte of framing; `None` after the last.
    fn step(self, byte: u8) -> Result<Option<Chunk>, Fault> {
        let next = match (self, byte) {
            (Chunk::Size { size, digits }, byte) => Chunk::in_size(size, digits, byte)?,
            (Chunk::Extension { size, .. }, b'\r') => Chunk::SizeEnd { size },
            (Chunk::Extension { size, read }, byte) if byte != b'\n' && read < LONGEST_LINE => {
                Chunk::Extension { size, read: read + 1 }
            }
            (Chunk::SizeEnd { size: 0 }, b'\n') => Chunk::Trailers { line: 0, read: 0 },
            (Chunk::SizeEnd { size }, b'\n') => Chunk::Data { left: size },
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::start(),
            (Chunk::Trailers { line, read }, b'\r') => Chunk::TrailerLf { last: line == 0, read },
            (Chunk::Trailers { line, read }, byte) if byte != b'\n' && read < LONGEST_TRAILERS => {
                Chunk::Trailers { line: line + 1, read: read + 1 }
            }
            (Chunk::TrailerLf { last: true, .. }, b'\n') => return Ok(None),
            (Chunk::TrailerLf { read, .. }, b'\n') => Chunk::Trailers { line: 0, read },
            _ => return Err(broken()),
        };
        Ok(Some(next))
    }

    fn in_size(size: u64, digits: u8, byte: u8) -> Result<Chunk, Fault> {
        match (char::from(byte).to_digit(16), byte) {
            // Sixteen digits are all that fit; leading zeros beyond that are somebody's trick.
            (Some(digit), _) if digits < 16 => {
                Ok(Chunk::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (None, b'\r') if digits > 0 => Ok(Chunk::SizeEnd { size }),
            (None, b';' | b' ' | b'\t') if digits > 0 => Ok(Chunk::Extension { size, read: 0 }),
            _ => Err(broken()),
        }
    }
}

fn split(input: &[u8], at: u64) -> (&[u8], &[u8]) {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    input.split_at_checked(at).unwrap_or((input, &[]))
}

fn broken() -> Fault {
    Fault::malformed("the chunks of the provider's answer are not HTTP").sent(true)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    fn feed(pieces: &[&[u8]]) -> Result<(Vec<u8>, Framing, usize), Fault> {
        let (mut framing, mut body, mut used) = (Framing::chunked(), Vec::new(), 0);
        for piece in pieces {
            let (bytes, taken) = framing.take(piece)?;
            body.extend_from_slice(&bytes);
            used += taken;
        }
        Ok((body, framing, used))
    }

    #[test]
    fn chunks_extensions_and_trailers_are_taken_off() {
        let wire = b"3;x=\"y\"\r\nabc\r\n0B \r\nhello world\r\n000\r\nx-t: 1\r\ny: 2\r\n\r\nNEXT";
        let (body, framing, used) = feed(&[wire]).unwrap();
        assert_eq!(body, b"abchello world");
        assert_eq!(framing, Framing::Done);
        assert_eq!(&wire[used..], b"NEXT");
    }

    #[test]
    fn broken_chunks_are_refused() {
        let long_line = [b"1;".as_slice(), &[b'x'; 2000], b"\r\n"].concat();
        let long_trailer = [b"0\r\n".as_slice(), &[b'x'; 20_000]].concat();
        for wire in [
            b"\r\n".as_slice(),
            b"-1\r\n",
            b"0x3\r\nabc",
            b"3\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n",
            b"11111111111111111\r\n",
            b"00000000000000003\r\n",
            b"1 \n",
            b"0\r\n\n",
            &long_line,
            &long_trailer,
        ] {
            assert!(feed(&[wire]).is_err(), "{:?}", String::from_utf8_lossy(wire));
        }
    }

    proptest! {
        #[test]
        fn where_the_network_cuts_does_not_matter(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cut in 1usize..9,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = wire.chunks(cut).collect();
            let (body, framing, used) = feed(&pieces).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(framing, Framing::Done);
            prop_assert_eq!(used, wire.len());
        }

        #[test]
        fn garbage_never_panics(wire in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = feed(&[&wire]);
        }
    }
}
