//! Makes credentials: the headers that carry a secret, made once, with the health and the limits that outlive a reload.

use std::sync::Arc;
use std::time::Instant;

use adapters::provider::openai::secret_header;
use adapters::{Adapter, EncodeError};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::provider_manager::{fault, header_value};
use crate::balance::{CredentialHealth, Registry};
use crate::config::{self, Auth, CredentialSource, Fault, Manifest};
use crate::limit::{self, ScopeId, Scopes};
use crate::model::provider::Credential;
use crate::shelf::part;

/// What Weir tells providers that it is.
const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// Makes the credentials for one provider, the operator's or a tenant's.
pub(super) struct Making<'a> {
    /// Whose: the provider's name, for a tenant's own with the tenant before it.
    pub(super) owner: String,
    /// Where they stand in the configuration.
    pub(super) path: String,
    pub(super) source: CredentialSource,
    /// The provider's address: a credential for another one is another credential.
    pub(super) address: &'a str,
    pub(super) adapter: &'static dyn Adapter,
    pub(super) manifest: Option<&'a Manifest>,
    /// The headers that all requests carry.
    pub(super) common: HeaderMap,
    pub(super) registry: &'a Registry,
    pub(super) limits: &'a limit::Registry,
}

impl Making<'_> {
    /// The enabled ones.
    pub(super) fn all(&self, written: &[config::Credential]) -> Result<Vec<Arc<Credential>>, Fault> {
        let enabled = written.iter().filter(|credential| credential.enabled);
        enabled.map(|credential| self.one(credential).map(Arc::new)).collect()
    }

    /// The one that carries no secret.
    pub(super) fn none(&self) -> Credential {
        self.plain(None, self.common.clone())
    }

    /// The simulator takes any key, but wants one, as the real providers do.
    pub(super) fn simulated(&self) -> Result<Credential, Fault> {
        let mut headers = self.common.clone();
        headers.extend(self.carried("simulated").map_err(|error| fault("simulated".to_owned(), error.to_string()))?);
        Ok(self.plain(Some("simulated"), headers))
    }

    fn plain(&self, id: Option<&'static str>, headers: HeaderMap) -> Credential {
        Credential {
            id: id.map(str::to_owned),
            header: id.map(HeaderValue::from_static),
            source: self.source,
            weight: 1,
            scopes: Scopes::default(),
            health: self.health(id.unwrap_or("none"), &headers),
            headers,
        }
    }

    fn one(&self, written: &config::Credential) -> Result<Credential, Fault> {
        let at = |message: String| fault(format!("{}.credentials.{}", self.path, written.id), message);
        let mut headers = self.common.clone();
        if let Some(secret) = &written.api_key {
            let key = secret.resolve().map_err(|error| at(error.to_string()))?;
            headers.extend(self.carried(&key).map_err(|error| at(error.to_string()))?);
        }
        Ok(Credential {
            header: Some(header_value(&written.id, "the credential's id")?),
            id: Some(written.id.clone()),
            source: self.source,
            weight: u64::from(written.weight),
            scopes: self.scopes(written),
            health: self.health(&written.id, &headers),
            headers,
        })
    }

    /// What the provider allows a credential.
    fn scopes(&self, written: &config::Credential) -> Scopes {
        let limits = limit::Limits {
            rpm: written.rpm.map(config::Count::get),
            tpm: written.tpm.map(config::Count::get),
            concurrent: written.concurrent.map(config::Count::get),
        };
        let id = ScopeId::credential(&self.owner, &written.id);
        std::iter::once(self.limits.scope(id, limits, Instant::now())).collect()
    }

    /// The headers that carry a key: as the provider's manifest says, else as its dialect does.
    fn carried(&self, key: &str) -> Result<Vec<(HeaderName, HeaderValue)>, EncodeError> {
        let one = |name: &HeaderName, value: &str| Ok(vec![(name.clone(), secret_header(value)?)]);
        match self.manifest.and_then(|manifest| manifest.auth.as_ref()) {
            Some(Auth::Bearer) => one(&header::AUTHORIZATION, &format!("Bearer {key}")),
            Some(Auth::Scheme(scheme)) => one(&header::AUTHORIZATION, &format!("{scheme} {key}")),
            Some(Auth::Header(name)) => one(name, key),
            Some(auth @ (Auth::Query(_) | Auth::Aws | Auth::Google)) => Err(EncodeError::unsupported(
                "auth",
                format!("this version of Weir cannot carry a key by `auth: {auth}`"),
            )),
            Some(Auth::None) | None => self.adapter.authorize(key),
        }
    }

    /// The health of a credential, that of before where all that it is called with is as before.
    fn health(&self, id: &str, headers: &HeaderMap) -> Arc<CredentialHealth> {
        let sent: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        self.registry.credential(&format!("{}/{}", part(&self.owner), part(id)), (self.address, sent))
    }
}

/// What all requests to providers carry. Weir reads answers, so it asks for them uncompressed.
pub(super) fn common_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}
