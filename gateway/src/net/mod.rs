//! The sockets of requests, on Pingora. The callers' side: [`server`] starts and ends the listeners ([`sockets`]) or
//! hands them to the next process ([`handover`]), [`door`] takes connections and hands each request to `exchange` as a
//! [`client::Client`]. The providers' side: where they live ([`dns`], [`proxy`]), whom we believe ([`tls`]) and how one
//! request reaches them ([`upstream`]). Nothing here knows what a request means.

pub mod client;
pub mod dns;
pub mod door;
pub mod handover;
pub mod proxy;
pub mod server;
pub mod sockets;
pub mod tls;
pub mod upstream;
