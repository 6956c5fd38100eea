//! What the tests share: fixtures, and for end-to-end tests the real binary as a process, a caller, and providers
//! played over raw sockets.
//!
//! | room | for |
//! | --- | --- |
//! | `ask` | requests that are asked again and again |
//! | `fixtures` | what providers send, kept in files |
//! | `weir` | the process under test, its configuration and its access log |
//! | `client` | calls and their answers, read as events with their times |
//! | `priced` | a model with a price, and rows of the ledger |
//! | `provider` | a provider that answers byte for byte what a test says |
//! | `raw` | bytes that no client would send |
//! | `http2` | calls over HTTP/2 |
//! | `redis` | a redis-server that freezes, dies and comes back |
//! | `tls` | certificates, and clients that trust them |
//! | `process` | the binary with any arguments, and its memory |
//! | `patience` | the bound on every wait |

pub mod ask;
pub mod client;
pub mod fixtures;
pub mod http2;
pub mod patience;
pub mod priced;
pub mod process;
pub mod provider;
pub mod raw;
pub mod redis;
pub mod tls;
pub mod weir;
