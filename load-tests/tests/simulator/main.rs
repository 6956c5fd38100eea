//! The simulator over real sockets: each dialect, each directive, and the server itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anthropic;
mod faults;
mod openai;
mod server;
mod support;
