//! Addresses to listen on.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;

use super::scalar::{Scalar, scalar};

scalar!(Address);

/// An address to listen on: `127.0.0.1:8080`, `[::]:8080`, `localhost:8080`, `:8080` (every interface).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(SocketAddr);

impl Address {
    /// This port on loopback.
    #[must_use]
    pub const fn loopback(port: u16) -> Self {
        Self(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// The socket address.
    #[must_use]
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl Scalar for Address {
    const WANTED: &'static str = "an address such as `127.0.0.1:8080`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let on = |host: Ipv4Addr, port: &str| port.parse::<u16>().ok().map(|port| Self((host, port).into()));
        match text.rsplit_once(':') {
            Some(("localhost", port)) => on(Ipv4Addr::LOCALHOST, port).ok_or(None),
            Some(("" | "*", port)) => on(Ipv4Addr::UNSPECIFIED, port).ok_or(None),
            Some(_) => Err(Some("listen on an IP address, not a host name".to_owned())),
            None => Err(Some("write the port too".to_owned())),
        }
    }

    fn stand_in() -> Self {
        Self::loopback(0)
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": ":[0-9]{1,5}$", "description": "An address to listen on: `127.0.0.1:8080`, `[::]:8080`, `:8080` (every interface)."})
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
