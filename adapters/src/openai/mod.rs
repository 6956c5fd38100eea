//! The common tongue: OpenAI's shapes, as far as they are read or written here.

pub mod embedding;
pub mod error;
pub mod message;
pub mod reply;
pub mod text;
pub(crate) mod texts;
pub mod tool;
pub mod unknown;
pub mod usage;
