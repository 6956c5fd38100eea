//! The common tongue: OpenAI's shapes, as far as they are read or written here.

pub mod embedding;
pub mod error;
pub mod usage;
