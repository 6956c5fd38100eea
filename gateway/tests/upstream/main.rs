//! The sending side over real sockets: what a provider may do, and what becomes of it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may end at the first surprise")]
#![expect(unreachable_pub, reason = "the modules of a test are no one's interface")]

mod coding;
mod http1;
mod http2;
mod names;
mod provider;
mod proxies;
mod tls;
