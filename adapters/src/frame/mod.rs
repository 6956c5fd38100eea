//! How a stream's bytes are cut into events, whatever the network's cuts.

pub mod sse;

/// What some hosts begin an answer with. It means nothing.
pub const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// How a provider frames its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
}

/// One event, borrowed from the framer's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'f> {
    /// The event's name, where the framing has one.
    pub name: &'f [u8],
    /// What it carries.
    pub data: &'f [u8],
    /// Its bytes as they came, the framing included.
    pub raw: &'f [u8],
}

/// Why a stream's bytes cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// One event is larger than any may be.
    #[error("an event is larger than {0} bytes")]
    TooLarge(usize),
}
