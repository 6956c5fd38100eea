//! What a base URL says of a provider, and its host, by name or address.

use std::fmt;
use std::net::IpAddr;

use http::HeaderValue;
use http::uri::{Authority, Scheme, Uri};
use rustls::pki_types::ServerName;

/// A host as a name or an address, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// To be resolved.
    Name(String),
    /// To be used as it is.
    Address(IpAddr),
}

impl Host {
    /// Reads a name or an address, IPv6 with or without brackets.
    pub fn parse(text: &str) -> Option<Host> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Some(Host::Address(address));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed);
        is_name.then(|| Host::Name(text.to_ascii_lowercase()))
    }

    pub(in crate::net) fn is_loopback(&self) -> bool {
        match self {
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Address(address) => address.is_loopback(),
        }
    }

    pub(super) fn bracketed(&self) -> String {
        match self {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => out.write_str(name),
            Host::Address(address) => write!(out, "{address}"),
        }
    }
}

/// A base URL taken apart.
pub(super) struct BaseUrl {
    pub(super) tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) authority: Authority,
    pub(super) host_header: HeaderValue,
    pub(super) base_path: String,
}

impl BaseUrl {
    pub(super) fn parse(text: &str) -> Option<BaseUrl> {
        let uri: Uri = text.parse().ok()?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let written = uri.authority().filter(|a| !a.as_str().contains('@'))?;
        if uri.query().is_some() || text.contains('#') {
            return None;
        }
        let host = Host::parse(written.host())?;
        if tls && ServerName::try_from(host.to_string()).is_err() {
            return None;
        }
        let usual = if tls { 443 } else { 80 };
        let after_host = written.as_str().strip_prefix(written.host())?;
        let port = match after_host.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None => usual,
        };
        // A server that is told its usual port in `host` may redirect or fail a signature check.
        let shown = if port == usual { host.bracketed() } else { format!("{}:{port}", host.bracketed()) };
        Some(BaseUrl {
            tls,
            port,
            authority: shown.parse().ok()?,
            host_header: HeaderValue::from_str(&shown).ok()?,
            base_path: uri.path().trim_end_matches('/').to_owned(),
            host,
        })
    }

    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.authority)
    }
}

/// A URL fit to be shown: without what stands before an `@`.
pub(super) fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        _ => url.to_owned(),
    }
}
