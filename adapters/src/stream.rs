//! The only streaming loop: bytes in, framed, decoded, written as chunks.

use crate::adapter::{DecodeError, EventDecoder};
use crate::chunk::ChunkWriter;
use crate::frame::sse::Framer;
use crate::frame::{FrameError, Framing};
use crate::refusal::Refusal;

/// Why a stream cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamFault {
    /// The provider reported an error inside of the stream.
    Refused(Box<Refusal>),
    /// Its bytes are not its dialect.
    Malformed(String),
    /// It ended before it was complete.
    Incomplete,
    /// It ended without an event: what came is no stream.
    Absent,
}

impl From<FrameError> for StreamFault {
    fn from(error: FrameError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<DecodeError> for StreamFault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Refused(refusal) => Self::Refused(refusal),
            DecodeError::Malformed(what) => Self::Malformed(what),
        }
    }
}

/// One stream's way from a provider's bytes to OpenAI chunks.
pub struct Translator {
    framer: Framer,
    decoder: Box<dyn EventDecoder>,
    writer: ChunkWriter,
    /// Whether an event has come.
    begun: bool,
}

impl Translator {
    /// A translator for one stream.
    #[must_use]
    pub fn new(framing: Framing, decoder: Box<dyn EventDecoder>, wants_usage: bool) -> Self {
        match framing {
            Framing::Sse => {
                Self { framer: Framer::default(), decoder, writer: ChunkWriter::new(wants_usage), begun: false }
            }
        }
    }

    /// Takes what was read and writes the chunks that it makes. What follows a complete answer is ignored.
    ///
    /// # Errors
    /// The stream can't go on; what was written before the fault is still to be taken.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), StreamFault> {
        self.framer.feed(bytes);
        while !self.writer.is_complete() {
            let Some(event) = self.framer.next_event()? else {
                break;
            };
            self.begun = true;
            self.decoder.event(event, &mut self.writer)?;
        }
        Ok(())
    }

    /// The provider's body has ended. Some hosts leave out the empty line behind the last event; one that was cut in
    /// its middle cannot be read.
    ///
    /// # Errors
    /// It ended before the answer was complete, or was none.
    pub fn end(&mut self) -> Result<(), StreamFault> {
        if self.framer.has_rest() {
            self.feed(b"\n\n").map_err(|fault| match fault {
                StreamFault::Malformed(_) => StreamFault::Incomplete,
                fault => fault,
            })?;
        }
        if !self.writer.is_complete() {
            self.decoder.end(&mut self.writer)?;
        }
        match (self.writer.is_complete(), self.begun) {
            (true, _) => Ok(()),
            (false, true) => Err(StreamFault::Incomplete),
            (false, false) => Err(StreamFault::Absent),
        }
    }

    /// What has been written so far.
    #[must_use]
    pub fn writer(&self) -> &ChunkWriter {
        &self.writer
    }

    /// What has been written so far, to take bytes from or to close.
    pub fn writer_mut(&mut self) -> &mut ChunkWriter {
        &mut self.writer
    }
}
