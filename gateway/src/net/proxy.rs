//! HTTP proxies on the way to a provider: which one, if any, and the tunnel through it.
//!
//! The usual variables are understood (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, lower
//! case first) and read once, at a door ([`Proxies::from_environment`]). Loopback hosts are never
//! proxied. A proxy is reached over plain HTTP; `https://` and `socks5://` proxies are refused by name.

use std::env;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use http::uri::{Authority, Uri};
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, OrErr as _, Result as PingoraResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::upstream::Host;

/// The longest answer to a CONNECT that is read: a status line and a few headers.
const LONGEST_ANSWER: usize = 8 * 1024;
/// The error type that tells a refused tunnel from a failed connection.
pub(super) const PROXY_REFUSED: ErrorType = ErrorType::new("ProxyRefused");

/// Which proxy serves which host.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    except: Vec<Exception>,
}

/// One HTTP proxy. Its `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) authorization: Option<HeaderValue>,
}

/// Why a proxy's address is not one. No variant shows a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not `http://[user:password@]host[:port]`.
    #[error("{0} is not a proxy's address: write http://[user:password@]host[:port]")]
    Malformed(String),
    /// `https://`, `socks5://` and others.
    #[error("{0} names a {1} proxy; only http:// proxies are supported")]
    Scheme(String, String),
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    /// The domain and all below it, at this port or any.
    Domain(String, Option<u16>),
    Network(IpAddr, u8, Option<u16>),
}

impl Proxies {
    /// No proxy for any host.
    pub fn none() -> Proxies {
        Proxies::default()
    }

    /// This proxy for every host.
    pub fn only(proxy: Proxy) -> Proxies {
        let proxy = Some(Arc::new(proxy));
        Proxies { http: proxy.clone(), https: proxy, except: Vec::new() }
    }

    /// Reads the process's environment; call it once, at start.
    pub fn from_environment() -> Result<Proxies, ProxyError> {
        Proxies::from_variables(|name| env::var(name).ok())
    }

    /// The same from any source of variables.
    pub fn from_variables(read: impl Fn(&str) -> Option<String>) -> Result<Proxies, ProxyError> {
        let variable = |name: &str| {
            read(&name.to_ascii_lowercase()).or_else(|| read(name)).filter(|value| !value.trim().is_empty())
        };
        let proxy = |name: &str| {
            let named = variable(name).map(|value| (name, value));
            let (name, value) = match named.or(variable("ALL_PROXY").map(|v| ("ALL_PROXY", v))) {
                Some(found) => found,
                None => return Ok(None),
            };
            Proxy::named(name, value.trim()).map(|proxy| Some(Arc::new(proxy)))
        };
        let except = variable("NO_PROXY").unwrap_or_default();
        Ok(Proxies { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, except: exceptions(&except) })
    }

    pub(super) fn serving(&self, tls: bool, host: &Host, port: u16) -> Option<Arc<Proxy>> {
        let proxy = if tls { &self.https } else { &self.http };
        let spared = host.is_loopback() || self.except.iter().any(|e| e.covers(host, port));
        proxy.clone().filter(|_| !spared)
    }
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`; the scheme may be left out, the port is 80 then.
    pub fn parse(url: &str) -> Result<Proxy, ProxyError> {
        Proxy::named("the proxy", url)
    }

    fn named(name: &str, url: &str) -> Result<Proxy, ProxyError> {
        let malformed = || ProxyError::Malformed(name.to_owned());
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(ProxyError::Scheme(name.to_owned(), scheme.to_owned()));
        }
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(malformed());
        }
        Ok(Proxy {
            host: Host::parse(authority.host()).ok_or_else(malformed)?,
            port: authority.port_u16().unwrap_or(80),
            authorization: authorization(authority).map_err(|()| malformed())?,
        })
    }
}

impl Hash for Proxy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.host.hash(state);
        self.port.hash(state);
        self.authorization.as_ref().map(HeaderValue::as_bytes).hash(state);
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Proxy({}:{})", self.host, self.port)
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Exception> {
        if entry == "*" {
            return Some(Exception::Everything);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
            return Some(Exception::Network(address, bits, None));
        }
        let (host, port) = split_port(entry);
        let host = host.trim_start_matches('.').trim_start_matches("*.");
        match Host::parse(host)? {
            Host::Address(address) => Some(Exception::Network(address, width(address), port)),
            Host::Name(name) => Some(Exception::Domain(name, port)),
        }
    }

    fn covers(&self, host: &Host, port: u16) -> bool {
        let right_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match (self, host) {
            (Exception::Everything, _) => true,
            (Exception::Domain(domain, wanted), Host::Name(name)) => right_port(wanted) && is_within(name, domain),
            (Exception::Network(network, bits, wanted), Host::Address(address)) => {
                right_port(wanted) && shares_prefix(*network, *address, *bits)
            }
            _ => false,
        }
    }
}

/// The CONNECT tunnel that stands in for a TCP connection, under pingora's TLS.
#[derive(Debug)]
pub(super) struct Tunnel {
    request: Vec<u8>,
}

impl Tunnel {
    pub(super) fn new(proxy: &Proxy, authority: &str) -> Tunnel {
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n").into_bytes();
        if let Some(authorization) = &proxy.authorization {
            request.extend_from_slice(b"proxy-authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        Tunnel { request }
    }

    async fn open(&self, proxy: std::net::SocketAddr) -> PingoraResult<Stream> {
        let mut stream = TcpStream::connect(proxy).await.map_err(|error| connect_error(&error))?;
        stream.write_all(&self.request).await.or_err(PROXY_REFUSED, "while asking the proxy for a tunnel")?;
        let mut answer = Vec::with_capacity(256);
        let head = loop {
            let read =
                stream.read_buf(&mut answer).await.or_err(PROXY_REFUSED, "while asking the proxy for a tunnel")?;
            if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
                break end + 4;
            }
            if read == 0 || answer.len() > LONGEST_ANSWER {
                return Error::e_explain(PROXY_REFUSED, "the proxy gave no answer to CONNECT");
            }
        };
        let (head, early) = answer.split_at(head);
        accepted(head)?;
        let mut stream = Stream::from(stream);
        // What the provider said already, as an HTTP/2 server may.
        stream.rewind(early);
        Ok(stream)
    }
}

#[async_trait]
impl L4Connect for Tunnel {
    async fn connect(&self, address: &SocketAddr) -> PingoraResult<Stream> {
        match address.as_inet() {
            Some(proxy) => self.open(*proxy).await,
            None => Error::e_explain(PROXY_REFUSED, "the proxy has no network address"),
        }
    }
}

fn connect_error(error: &std::io::Error) -> Box<Error> {
    let kind = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        std::io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        _ => ErrorType::ConnectError,
    };
    Error::explain(kind, "while connecting to the proxy")
}

/// Whether the answer to CONNECT is a 2xx.
fn accepted(answer: &[u8]) -> PingoraResult<()> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(answer);
    match (parsed, response.code) {
        (Ok(_), Some(200..=299)) => Ok(()),
        (Ok(_), Some(code)) => {
            Error::e_explain(PROXY_REFUSED, format!("the proxy answered CONNECT with status {code}"))
        }
        _ => Error::e_explain(PROXY_REFUSED, "the proxy's answer to CONNECT is not HTTP"),
    }
}

fn authorization(authority: &Authority) -> Result<Option<HeaderValue>, ()> {
    let Some((credentials, _)) = authority.as_str().rsplit_once('@') else {
        return Ok(None);
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut plain = percent_decoded(user)?;
    plain.push(b':');
    plain.extend(percent_decoded(password)?);
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(plain))).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn percent_decoded(text: &str) -> Result<Vec<u8>, ()> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next())? << 4 | hex_digit(bytes.next())?,
            other => other,
        });
    }
    Ok(decoded)
}

fn hex_digit(byte: Option<u8>) -> Result<u8, ()> {
    let digit = byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or(())?;
    u8::try_from(digit).map_err(|_| ())
}

fn exceptions(list: &str) -> Vec<Exception> {
    list.split([',', ' ', '\t'])
        .filter(|entry| !entry.is_empty())
        .filter_map(|entry| Exception::parse(&entry.to_ascii_lowercase()))
        .collect()
}

/// Splits `host:port`, leaving bare IPv6 addresses whole.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if entry.parse::<IpAddr>().is_ok() {
        return (entry, None);
    }
    match entry.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        None => (entry, None),
    }
}

fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn shares_prefix(network: IpAddr, address: IpAddr, bits: u8) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let differing = (network ^ address).checked_shr(u32::from(width - bits.min(width))).unwrap_or(0);
    differing == 0
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn serving(proxies: &Proxies, tls: bool, host: &str, port: u16) -> Option<String> {
        let proxy = proxies.serving(tls, &Host::parse(host).unwrap(), port)?;
        Some(format!("{}:{}", proxy.host, proxy.port))
    }

    #[test]
    fn each_scheme_has_its_proxy_and_all_proxy_fills_in() {
        let all = proxies(&[("HTTPS_PROXY", "http://a:1"), ("ALL_PROXY", "b:2")]).unwrap();
        assert_eq!(serving(&all, true, "x.test", 443).as_deref(), Some("a:1"));
        assert_eq!(serving(&all, false, "x.test", 80).as_deref(), Some("b:2"));
    }

    #[test]
    fn lower_case_wins_over_upper_case() {
        let both = proxies(&[("https_proxy", "http://low"), ("HTTPS_PROXY", "http://up")]).unwrap();
        assert_eq!(serving(&both, true, "x.test", 443).as_deref(), Some("low:80"));
    }

    #[test]
    fn no_proxy_spares_domains_networks_and_ports() {
        let list = "Example.com, .corp.test internal:8443,10.0.0.0/8,192.168.1.7,fd00::/8";
        let some = proxies(&[("ALL_PROXY", "http://p"), ("NO_PROXY", list)]).unwrap();
        for (host, port) in [
            ("example.com", 443),
            ("api.EXAMPLE.com", 443),
            ("a.corp.test", 1),
            ("corp.test", 1),
            ("internal", 8443),
            ("10.200.3.4", 80),
            ("192.168.1.7", 80),
            ("fd12::1", 80),
        ] {
            assert_eq!(serving(&some, true, host, port), None, "{host}:{port}");
        }
        for (host, port) in
            [("notexample.com", 443), ("internal", 443), ("11.0.0.1", 80), ("192.168.1.8", 80), ("fe00::1", 80)]
        {
            assert!(serving(&some, true, host, port).is_some(), "{host}:{port}");
        }
    }

    #[test]
    fn a_star_and_loopback_hosts_are_never_proxied() {
        let starred = proxies(&[("ALL_PROXY", "http://p"), ("no_proxy", "*")]).unwrap();
        assert_eq!(serving(&starred, true, "x.test", 443), None);
        let plain = proxies(&[("ALL_PROXY", "http://p")]).unwrap();
        for host in ["localhost", "127.0.0.9", "::1"] {
            assert_eq!(serving(&plain, false, host, 80), None, "{host}");
        }
    }

    #[test]
    fn credentials_are_decoded_into_basic_authorization_and_never_shown() {
        let proxy = Proxy::parse("http://us%40er:p%3Aw@p.test:3128").unwrap();
        let expected = format!("Basic {}", BASE64_STANDARD.encode("us@er:p:w"));
        assert_eq!(proxy.authorization.as_ref().unwrap(), &expected);
        assert_eq!(format!("{proxy:?}"), "Proxy(p.test:3128)");
    }

    #[test]
    fn other_kinds_of_proxy_are_refused_by_name() {
        let refused = proxies(&[("ALL_PROXY", "socks5://u:secret@p:1080")]).unwrap_err();
        assert!(refused.to_string().contains("socks5"));
        assert!(!refused.to_string().contains("secret"));
        assert!(proxies(&[("HTTP_PROXY", "http://u:secret@")]).is_err());
    }
}
