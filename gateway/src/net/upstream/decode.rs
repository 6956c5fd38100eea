//! Answers that come compressed although nobody asked: gzip and deflate are undone as they come.
//! Each step is bounded, so an answer that inflates without end costs its reader no more memory
//! than any other endless answer.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use super::fault::Fault;

/// The most that one step gives out, roughly: flate2 may overshoot by its own 32 KiB.
const MOST_AT_ONCE: usize = 64 * 1024;
/// Compressed bytes handed to flate2 at once, so that it cannot overshoot by much.
const FED_AT_ONCE: usize = 1024;

/// Undoes one content coding.
pub(super) struct Decoder {
    coding: Coding,
    /// Made at the first byte, which tells the two kinds of `deflate` apart.
    inflater: Option<Inflater>,
    waiting: Bytes,
}

#[derive(Clone, Copy)]
enum Coding {
    Gzip,
    Deflate,
}

enum Inflater {
    Gzip(GzDecoder<Vec<u8>>),
    Zlib(ZlibDecoder<Vec<u8>>),
    Raw(DeflateDecoder<Vec<u8>>),
}

impl Decoder {
    /// The decoder that an answer needs, if any. Headers that would be wrong afterwards are removed.
    pub(super) fn of(headers: &mut HeaderMap) -> Result<Option<Box<Decoder>>, Fault> {
        let Some(coding) = Coding::of(headers)? else {
            return Ok(None);
        };
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        Ok(Some(Box::new(Decoder { coding, inflater: None, waiting: Bytes::new() })))
    }

    /// Takes compressed bytes; all earlier ones must have been decoded.
    pub(super) fn feed(&mut self, bytes: Bytes) {
        self.waiting = bytes;
    }

    /// The next decoded bytes; `None` when more must be fed.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let Some(first) = self.waiting.first() else {
            return Ok(None);
        };
        let inflater = self.inflater.get_or_insert_with(|| Inflater::new(self.coding, *first));
        let decoded = inflater.inflate(&mut self.waiting).map_err(|_| broken())?;
        Ok((!decoded.is_empty()).then(|| decoded.into()))
    }

    /// Checks at the end of the body that the compressed stream has ended too, and gives its rest.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, Fault> {
        let Some(mut inflater) = self.inflater.take() else {
            return Ok(None);
        };
        let rest = inflater.finish().map_err(|_| Fault::truncated())?;
        Ok((!rest.is_empty()).then(|| rest.into()))
    }
}

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Option<Coding>, Fault> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(value), more) = (values.next(), values.next().is_some()) else {
            return Ok(None);
        };
        let name = value.as_bytes().trim_ascii().to_ascii_lowercase();
        match name.as_slice() {
            b"gzip" | b"x-gzip" if !more => Ok(Some(Coding::Gzip)),
            b"deflate" if !more => Ok(Some(Coding::Deflate)),
            b"identity" | b"" if !more => Ok(None),
            _ => Err(Fault::malformed("the provider's answer has a content-encoding that was not asked for")),
        }
    }
}

impl Inflater {
    /// `deflate` means zlib's format, but some servers send it bare; its first byte tells.
    fn new(coding: Coding, first: u8) -> Inflater {
        const ZLIB_METHOD: u8 = 8;
        match coding {
            Coding::Gzip => Inflater::Gzip(GzDecoder::new(Vec::new())),
            Coding::Deflate if first & 0x0f == ZLIB_METHOD => Inflater::Zlib(ZlibDecoder::new(Vec::new())),
            Coding::Deflate => Inflater::Raw(DeflateDecoder::new(Vec::new())),
        }
    }

    /// Inflates until enough came out or nothing is left to put in.
    fn inflate(&mut self, waiting: &mut Bytes) -> io::Result<Vec<u8>> {
        while self.inflated().len() < MOST_AT_ONCE {
            let piece = waiting.get(..FED_AT_ONCE).unwrap_or(waiting);
            let used = self.writer().write(piece)?;
            if used == 0 {
                // Behind the end of the compressed stream nothing means anything.
                waiting.clear();
            }
            waiting.advance(used);
            if waiting.is_empty() {
                // What a flush on the other side completed is to leave now, not with later bytes.
                self.writer().flush()?;
                break;
            }
        }
        Ok(std::mem::take(self.inflated()))
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Inflater::Gzip(decoder) => decoder.try_finish()?,
            Inflater::Zlib(decoder) => decoder.try_finish()?,
            Inflater::Raw(decoder) => decoder.try_finish()?,
        }
        Ok(std::mem::take(self.inflated()))
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Inflater::Gzip(decoder) => decoder,
            Inflater::Zlib(decoder) => decoder,
            Inflater::Raw(decoder) => decoder,
        }
    }

    fn inflated(&mut self) -> &mut Vec<u8> {
        match self {
            Inflater::Gzip(decoder) => decoder.get_mut(),
            Inflater::Zlib(decoder) => decoder.get_mut(),
            Inflater::Raw(decoder) => decoder.get_mut(),
        }
    }
}

fn broken() -> Fault {
    Fault::malformed("the compressed body of the provider's answer is broken").sent(true)
}
