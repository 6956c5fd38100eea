//! Hosts and networks that may be reached although they are private.

use std::fmt;

use serde_json::json;

use super::scalar::{Scalar, scalar};

scalar!(Upstream);

/// A host that may be reached although it is private: an IP address, a network in CIDR notation, or a host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// Every address of this network; a single address is a network of one.
    Net {
        /// An address in it.
        address: std::net::IpAddr,
        /// How many leading bits count.
        prefix: u8,
    },
    /// This host by name, lower case.
    Host(String),
}

impl Upstream {
    /// Whether a host, as it is written, is meant.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        match (self, host.parse::<std::net::IpAddr>()) {
            (Self::Net { .. }, Ok(ip)) => self.holds(ip),
            (Self::Host(name), Err(_)) => name.eq_ignore_ascii_case(host.trim_end_matches('.')),
            (Self::Net { .. }, Err(_)) | (Self::Host(_), Ok(_)) => false,
        }
    }

    /// Whether the network has this address; an IPv4 address in IPv6 clothes counts as what it is.
    #[must_use]
    pub fn holds(&self, ip: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        let Self::Net { address, prefix } = self else {
            return false;
        };
        let shift = |width: u8| u32::from(width.saturating_sub(*prefix));
        match (address.to_canonical(), ip.to_canonical()) {
            (V4(a), V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0,
            (V6(a), V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0,
            (V4(_), V6(_)) | (V6(_), V4(_)) => false,
        }
    }
}

impl Scalar for Upstream {
    const WANTED: &'static str = "an IP address, a network such as `10.0.0.0/8`, or a host name";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (host, prefix) = text.split_once('/').map_or((text, None), |(host, prefix)| (host, Some(prefix)));
        let Ok(address) = host.parse::<std::net::IpAddr>() else {
            return host_name(text).map(Self::Host).ok_or(None);
        };
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(widest), |p| p.parse().ok());
        let prefix = prefix.filter(|p| *p <= widest).ok_or_else(|| Some(format!("the prefix is 0 to {widest}")))?;
        Ok(Self::Net { address, prefix })
    }

    fn stand_in() -> Self {
        Self::Host(String::new())
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "minLength": 1, "description": "An IP address, a network such as `10.0.0.0/8`, or a host name."})
    }
}

fn host_name(text: &str) -> Option<String> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    (fits && !text.is_empty()).then(|| text.to_ascii_lowercase())
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net { address, prefix } => write!(f, "{address}/{prefix}"),
            Self::Host(host) => f.write_str(host),
        }
    }
}
