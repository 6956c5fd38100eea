//! What can go wrong between Weir and a provider, in words that a caller may read.

use std::net::SocketAddr;

use pingora::{Error, ErrorType};

use crate::net::dns::Unresolved;
use crate::net::proxy::PROXY_REFUSED;

/// A request that failed, or an answer that did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// What happened.
    pub cause: Cause,
    /// The same in words; names no secret and no address.
    pub detail: String,
    /// Whether the provider may have acted on the request: it was handed all of it.
    pub sent: bool,
    /// The address that failed, for the log only.
    pub address: Option<SocketAddr>,
}

/// The kinds of failure that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The provider's name has no address.
    Resolve,
    /// Every address of the provider is one that this endpoint may not reach.
    Forbidden,
    /// Nothing listens there.
    Refused,
    /// No way there, or a connection that failed before TLS.
    Unreachable,
    /// The HTTP proxy refused the tunnel.
    Proxy,
    /// No agreement on TLS, or a certificate that is not to be believed.
    Tls,
    /// Name, connection, proxy and TLS together took longer than the connect timeout.
    ConnectTimeout,
    /// Closed before the first byte of an answer.
    Closed,
    /// Reset before the first byte of an answer, or the HTTP/2 stream was.
    Reset,
    /// What came is not an HTTP answer.
    Malformed,
    /// The answer's body ended before its end.
    Truncated,
    /// The answer's head is larger than any sane one.
    TooLarge,
    /// The request cannot be written down: its path is not one.
    Unsendable,
}

impl Fault {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> Fault {
        Fault { cause, detail: detail.into(), sent: false, address: None }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Fault {
        Fault::new(Cause::Malformed, detail)
    }

    pub(super) fn unresolved(why: &Unresolved) -> Fault {
        let detail = format!("the provider's address cannot be resolved: {why}");
        Fault::new(Cause::Resolve, detail)
    }

    pub(super) fn connect_timeout() -> Fault {
        Fault::new(Cause::ConnectTimeout, "no connection to the provider within the connect timeout")
    }

    /// What a failed connection attempt means.
    pub(super) fn connecting(error: &Error) -> Fault {
        match error.etype() {
            ErrorType::ConnectRefused => Fault::new(Cause::Refused, "the provider refuses connections"),
            ErrorType::ConnectTimedout => Fault::connect_timeout(),
            ErrorType::TLSHandshakeFailure | ErrorType::TLSHandshakeTimedout | ErrorType::InvalidCert => {
                Fault::new(Cause::Tls, tls_detail(error))
            }
            kind if *kind == PROXY_REFUSED => Fault::new(Cause::Proxy, proxy_detail(error)),
            _ => Fault::new(Cause::Unreachable, "no connection to the provider"),
        }
    }

    /// What an I/O error before the first byte of the answer means.
    pub(super) fn before_answer(error: &std::io::Error) -> Fault {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Fault::closed()
        } else {
            Fault::new(Cause::Reset, "the provider reset the connection before answering")
        }
    }

    pub(super) fn closed() -> Fault {
        Fault::new(Cause::Closed, "the provider closed the connection before answering")
    }

    pub(super) fn unsendable() -> Fault {
        let detail = "the request's path has characters that no URL may have";
        Fault::new(Cause::Unsendable, detail)
    }

    pub(super) fn truncated() -> Fault {
        let mut fault = Fault::new(Cause::Truncated, "the provider's answer ended before it was complete");
        fault.sent = true;
        fault
    }

    /// Whether the connection ended, as against its bytes being wrong.
    pub(super) fn is_disconnect(&self) -> bool {
        matches!(self.cause, Cause::Closed | Cause::Reset)
    }

    pub(super) fn sent(mut self, sent: bool) -> Fault {
        self.sent = sent;
        self
    }

    pub(super) fn at(mut self, address: SocketAddr) -> Fault {
        self.address = Some(address);
        self
    }
}

/// TLS errors come as text only; the common ones get a sentence that says what to do about them.
fn tls_detail(error: &Error) -> String {
    const KNOWN: [(&str, &str); 10] = [
        ("certificate expired", "the provider's certificate has expired"),
        ("certificate not valid yet", "the provider's certificate is not valid yet"),
        ("not valid for name", "the provider's certificate is for another host"),
        ("UnknownIssuer", UNKNOWN_ISSUER),
        ("CaUsedAsEndEntity", UNKNOWN_ISSUER),
        ("BadSignature", UNKNOWN_ISSUER),
        ("Revoked", "the provider's certificate is revoked"),
        ("NoApplicationProtocol", "the provider does not speak the configured HTTP version"),
        ("corrupt message", "the provider does not speak TLS there"),
        ("eof", "the provider closed the connection during TLS"),
    ];
    let text = error.to_string();
    let found = KNOWN.iter().find(|(word, _)| text.contains(word));
    let sentence = found.map_or("TLS with the provider failed", |(_, sentence)| sentence);
    sentence.to_owned()
}

const UNKNOWN_ISSUER: &str =
    "the provider's certificate is not signed by a trusted authority (see `ca` of the provider)";

/// The proxy's own words are ours already: see `net::proxy`.
fn proxy_detail(error: &Error) -> String {
    match &error.context {
        Some(context) if error.cause.is_none() => context.as_str().to_owned(),
        _ => "the proxy broke the connection off".to_owned(),
    }
}
