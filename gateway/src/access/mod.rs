//! Who calls: a key is hashed once and looked up once.

mod guesses;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};

use crate::budget::{Accounts, Quotas};
use crate::config::{Expiry, Prefer, Unpriced};
use crate::error::Fault;
use crate::limit::Limited;
use crate::model::pattern::Patterns;
use crate::model::{OwnModels, Type};

pub use guesses::Guesses;

/// Someone who may call, as requests see them.
#[derive(Debug, Default)]
pub struct Tenant {
    /// The name in logs and metrics.
    pub id: String,
    /// The models that it may call; `None`: all.
    pub models: Option<Patterns>,
    /// Models that it may not call all the same.
    pub disabled: Patterns,
    /// The model for requests that name none.
    pub defaults: HashMap<Type, String>,
    /// What it may use of the operator's credentials, by provider; a provider that is not there is not limited so.
    pub quotas: HashMap<String, Quotas>,
    /// What becomes of requests under a budget whose cost cannot be known.
    pub unpriced: Unpriced,
    /// Whose credentials it wants to be used first, where it has chosen.
    pub preferred: Option<Prefer>,
    /// The models that it calls with credentials of its own.
    pub own: OwnModels,
}

/// A virtual key.
#[derive(Debug, Default)]
pub struct Key {
    /// Its name in logs and metrics.
    pub id: String,
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// From when on it is refused.
    pub expires: Option<Expiry>,
    /// The models that it may call, of those that its tenant may; `None`: all of them. Boxed, since few keys have such.
    pub models: Option<Box<Patterns>>,
    /// Whether its caller may name the credential that a request goes out with.
    pub chooses_credential: bool,
    /// Its limits and its tenant's.
    pub limited: Limited,
    /// Its budgets and its tenant's.
    pub accounts: Accounts,
}

impl Key {
    /// Whether the model of that name is among those that it may call, whether or not it is disabled.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        [self.tenant.models.as_ref(), self.models.as_deref()].into_iter().flatten().all(|listed| listed.has(name))
    }
}

/// A key's SHA-256.
pub type Hash = [u8; 32];

/// All keys by their hash.
pub type Keys = HashMap<Hash, Arc<Key>, BuildHasherDefault<AlreadyHashed>>;

/// A SHA-256 is spread evenly: its first eight bytes are hash enough.
#[derive(Debug, Default)]
pub struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Where callers put their key, in this order: OpenAI's, Anthropic's, Azure's, Google's way.
static CARRIERS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// The key that these headers carry, if it is one of `keys` and still valid.
///
/// # Errors
/// A 401 that says what is wrong with the key and never shows it.
pub fn authenticate<'k>(keys: &'k Keys, headers: &HeaderMap, now: SystemTime) -> Result<&'k Arc<Key>, Fault> {
    let Some(secret) = carried(headers) else {
        return Err(Fault::auth("No API key was given. Send it as `Authorization: Bearer YOUR_KEY`."));
    };
    let hash: Hash = Sha256::digest(secret).into();
    let Some(key) = keys.get(&hash) else {
        return Err(Fault::auth("The API key is not known here."));
    };
    if key.expires.is_some_and(|expires| expires.is_past(now)) {
        return Err(Fault::auth("The API key has expired."));
    }
    Ok(key)
}

/// As [`authenticate`], for whoever calls from `address`: where that has guessed too often, its key is not looked at.
///
/// # Errors
/// As there, and a 429 that says how long.
pub fn authenticate_from<'k>(
    address: IpAddr,
    guesses: &Guesses,
    keys: &'k Keys,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<&'k Arc<Key>, Fault> {
    guesses.look(address).map_err(Fault::guessed)?;
    let key = authenticate(keys, headers, now);
    if key.is_err() && carried(headers).is_some() {
        guesses.wrong(address);
    }
    key
}

fn carried(headers: &HeaderMap) -> Option<&[u8]> {
    CARRIERS.iter().find_map(|name| {
        let value = headers.get(name)?.as_bytes();
        let secret = if *name == header::AUTHORIZATION { bearer(value)? } else { value };
        Some(secret.trim_ascii()).filter(|secret| !secret.is_empty())
    })
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn keys(secret: &str) -> Keys {
        let key = Key { id: "k".into(), ..Key::default() };
        Keys::from_iter([(Sha256::digest(secret).into(), Arc::new(key))])
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_found_wherever_the_sdks_put_it() {
        let keys = keys("sk-weir-1");
        for (name, value) in [
            ("authorization", "Bearer sk-weir-1"),
            ("authorization", "bearer  sk-weir-1 "),
            ("x-api-key", "sk-weir-1"),
            ("api-key", "sk-weir-1"),
            ("x-goog-api-key", "sk-weir-1"),
        ] {
            assert!(authenticate(&keys, &with(name, value), SystemTime::UNIX_EPOCH).is_ok(), "{name}");
        }
    }

    #[test]
    fn no_key_an_empty_one_and_an_unknown_one_are_a_401() {
        let keys = keys("sk-weir-1");
        for (name, value) in
            [("accept", "x"), ("authorization", "Bearer "), ("authorization", "Basic x"), ("api-key", "no")]
        {
            let fault = authenticate(&keys, &with(name, value), SystemTime::UNIX_EPOCH).unwrap_err();
            assert_eq!((fault.status.as_u16(), fault.code.as_ref()), (401, "invalid_api_key"));
            assert!(!fault.message.contains("no\""));
        }
    }
}
