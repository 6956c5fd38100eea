//! How each provider speaks: bytes in, bytes out.
//!
//! This crate is pure: no socket, no runtime, no file, no environment and no clock of its own (the time is passed in).
//! The gateway reads a caller's body and makes a [`Request`] of it: the bytes as they came and an [`index`] of their
//! top-level fields. An [`Adapter`] encodes it for one provider and decodes what comes back: whole, by
//! [`Adapter::decode`], or as a stream, by a [`Translator`] that feeds a [`frame`]r, an [`EventDecoder`] and the
//! [`chunk`] writer. OpenAI's format is the pivot between all of them.

pub mod adapter;
pub mod body;
pub mod chunk;
pub mod frame;
pub mod handback;
pub mod index;
pub mod openai;
pub mod provider;
pub mod refusal;
pub mod request;
pub mod stream;
pub mod usage;

pub use adapter::{Adapter, DecodeError, Dropped, EncodeError, EventDecoder, NativeRequest, Options, Reply, Target};
pub use body::{Body, BodyWriter};
pub use chunk::ChunkWriter;
pub use frame::{Event, Framing};
pub use openai::usage::content_length;
pub use refusal::{Class, Refusal};
pub use request::{Operation, Request};
pub use stream::{StreamFault, Translator};
pub use usage::{Extent, ServiceTier, Usage};
