//! The listeners, their limits and their certificates.

use std::path::PathBuf;

use crate::config::read::section;
use crate::config::value::{Address, ByteSize, Count, Duration, Secret, Upstream};

section! {
    /// The listeners and their limits.
    pub struct Server {
        /// Where the OpenAI-compatible API listens: one address or a list.
        listen: Listeners = Listeners(vec![Listener::loopback(8080)]);
        /// Where the admin API, `/metrics` and health listen; `null`: nowhere. Off loopback it needs a token and TLS, or `insecure_admin`.
        admin: Option<Listener> = Some(Listener::loopback(8081));
        /// What an administrator sends as `Authorization: Bearer`. Without one, anybody who reaches the admin listener is the owner.
        admin_token: Option<Secret> = None;
        /// Allows an admin listener off loopback without a token or without TLS.
        insecure_admin: bool = false;
        /// TLS for every listener that has none of its own.
        tls: Option<Tls> = None;
        /// The largest request body that is accepted; a larger one is a 413.
        max_body: ByteSize = ByteSize::mebibytes(64);
        /// How long requests in flight may take to end after SIGTERM.
        drain: Duration = Duration::secs(30);
        /// How long a connection may be idle between requests, and how long a request's head may take to come.
        idle: Duration = Duration::secs(75);
        /// How long a client may send nothing more of a body that it has begun, or take nothing of its answer.
        stall: Duration = Duration::secs(60);
        /// How many wrong keys a minute one address may try; then it is refused for a while, whatever key it sends. By default any number: behind a proxy all callers have one address.
        wrong_keys: Option<Count> = None;
        /// Refuses every change but the file's (GitOps).
        locked: bool = false;
        /// Private, loopback or link-local hosts and networks that a tenant's own provider address may reach all the same.
        allow_private_upstreams: Vec<Upstream> = Vec::new();
        /// How many worker threads serve the API; by default one a core.
        threads: Option<Count> = None;
    }
}

section! {
    /// An address to listen on; a text is its `address`.
    pub struct Listener short address: Address {
        /// The address and the port.
        address: Address;
        /// The certificate of this listener.
        tls: Option<Tls> = None;
    }
}

impl Listener {
    /// Without TLS on loopback.
    #[must_use]
    pub const fn loopback(port: u16) -> Self {
        Self { address: Address::loopback(port), tls: None }
    }
}

/// The listeners of the API: written as one, or as a list.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Listeners(pub Vec<Listener>);

section! {
    /// A certificate and its key.
    pub struct Tls {
        /// The certificate with its chain, PEM.
        cert: PathBuf;
        /// The private key, PEM.
        key: PathBuf;
    }
}
