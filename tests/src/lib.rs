//! What the tests share: fixtures, and for end-to-end tests the real binary as a process, a caller, and providers played
//! over raw sockets.
//!
//! | room | for |
//! | --- | --- |
//! | `ask` | requests that are asked again and again |
//! | `fixtures` | what providers send, kept in files |
//! | `weir` | the process under test, its configuration and its access log |
//! | `client` | calls and their answers, read as events with their times |
//! | `provider` | a provider that answers byte for byte what a test says |
//! | `patience` | the bound on every wait |

pub mod ask;
pub mod client;
pub mod fixtures;
pub mod patience;
pub mod provider;
pub mod weir;
