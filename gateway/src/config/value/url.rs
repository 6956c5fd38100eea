//! Where a provider is, and the way to it.

use std::fmt;

use serde_json::json;

use super::scalar::{Scalar, scalar};

scalar!(BaseUrl, Proxy);

/// Where a provider is: `http://` or `https://`, a host, and the path before the operation's; no query, no user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    uri: http::Uri,
    text: String,
}

impl BaseUrl {
    /// As written, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, without brackets or port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_matches(['[', ']'])
    }
}

impl Scalar for BaseUrl {
    const WANTED: &'static str = "a URL such as `https://api.example.com/v1`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let text = text.trim_end_matches('/');
        if !text.contains("://") {
            return Err(Some(format!("write the scheme too: `https://{text}`")));
        }
        if text.contains(['?', '#']) {
            return Err(Some("a base URL has no query and no fragment".to_owned()));
        }
        let uri: http::Uri = text.parse().map_err(|_| None)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Some("the scheme is http or https".to_owned()));
        }
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err(Some("put the secret into `credentials`, not into the URL".to_owned()));
        }
        match uri.host() {
            Some(host) if !host.is_empty() => Ok(Self { uri, text: text.to_owned() }),
            Some(_) | None => Err(None),
        }
    }

    fn stand_in() -> Self {
        Self { uri: http::Uri::from_static("http://localhost"), text: String::new() }
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^https?://[^?#@]+$", "description": "A URL: `https://api.example.com/v1`."})
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The way to a provider: straight, or through an HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// Straight.
    None,
    /// Through this one, by `CONNECT` for `https` targets.
    Via(BaseUrl),
}

impl Scalar for Proxy {
    const WANTED: &'static str = "`none` or a URL such as `http://proxy:3128`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text == "none" { Ok(Self::None) } else { BaseUrl::parse(text).map(Self::Via) }
    }

    fn stand_in() -> Self {
        Self::None
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^(none|https?://[^?#@]+)$", "description": "`none`, or the URL of an HTTP proxy."})
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Via(url) => fmt::Display::fmt(url, f),
        }
    }
}
