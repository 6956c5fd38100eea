//! A provider as requests see it: its dialect, its address, and credentials whose headers are made already.

use std::sync::Arc;

use adapters::{Adapter, Options};
use http::{HeaderMap, HeaderValue};

use crate::balance::CredentialHealth;
use crate::config::{CredentialSource, OnDisconnect};
use crate::limit::Scopes;
use crate::net::upstream::Endpoint;
use crate::price::Catalog;

/// A provider.
pub struct Provider {
    /// Its name in the configuration.
    pub name: String,
    /// The same as a header's value.
    pub header: HeaderValue,
    /// How it speaks.
    pub adapter: &'static dyn Adapter,
    /// Where it is.
    pub endpoint: Arc<Endpoint>,
    /// What its dialect must know.
    pub options: Options,
    /// The credentials: the operator's, or a tenant's own. One without a key stands for "none is sent".
    pub credentials: Vec<Arc<Credential>>,
    /// Whether it has none because none of them is enabled.
    pub is_removed: bool,
    /// What is publicly known of its models.
    pub catalog: Option<&'static Catalog>,
    /// What becomes of its request when the caller leaves.
    pub on_disconnect: OnDisconnect,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).field("kind", &self.adapter.name()).finish_non_exhaustive()
    }
}

/// A credential.
#[derive(Debug)]
pub struct Credential {
    /// Its name in answers, logs and metrics; `None` where no credential is sent.
    pub id: Option<String>,
    /// The same as a header's value.
    pub header: Option<HeaderValue>,
    /// Whose it is.
    pub source: CredentialSource,
    /// Every header that is the same for all requests with it: the secret, the host and the provider's own.
    pub headers: HeaderMap,
    /// Its share beside the provider's others.
    pub weight: u64,
    /// What the provider allows it.
    pub scopes: Scopes,
    /// Whether it is refused, spent or out of reach; kept over reloads while its secret is the same.
    pub health: Arc<CredentialHealth>,
}

impl Credential {
    /// What no answer and no log may show.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let sensitive = self.headers.values().filter(|value| value.is_sensitive());
        let text = sensitive.filter_map(|value| value.to_str().ok());
        text.map(|text| text.split_once(' ').map_or(text, |(_scheme, secret)| secret))
    }
}
