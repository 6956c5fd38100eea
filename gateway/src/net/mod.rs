//! The rooms that touch a socket: where providers live ([`dns`], [`proxy`]), whom we believe
//! ([`tls`]) and how one request reaches them ([`upstream`]). Nothing here knows what a request means.

pub mod client;
pub mod dns;
pub mod door;
pub mod proxy;
pub mod server;
pub mod sockets;
pub mod tls;
pub mod upstream;
