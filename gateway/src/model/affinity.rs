//! What makes requests related, and which target the related ones go to.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use adapters::Request;
use http::{HeaderMap, HeaderValue};

use crate::access::Key;
use crate::balance::{Moment, Pins, beginning};
use crate::config::{self, AffinityBy};
use crate::headers;

/// How long a target is remembered for callers that name their related requests themselves.
const TTL: Duration = Duration::from_secs(3_600);

/// A model's memory of where related requests went; kept over reloads.
#[derive(Debug, Default)]
pub struct Affinity {
    /// With a key of its own, so that nobody can make two sessions one.
    hasher: RandomState,
    pins: Pins,
}

/// What makes the requests to a model related, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    by: Vec<AffinityBy>,
    ttl: Duration,
}

impl Relation {
    /// As it is written; without that, only a caller can relate its requests.
    #[must_use]
    pub fn new(written: Option<&config::Affinity>) -> Self {
        written.map_or(Self { by: Vec::new(), ttl: TTL }, |written| Self {
            by: written.by.clone(),
            ttl: written.ttl.get(),
        })
    }

    /// By what this request is related to others, in the words of the configuration; `None`: it is not.
    #[must_use]
    pub fn found(&self, key: &Key, headers: &HeaderMap, request: &Request) -> Option<String> {
        if said(headers).is_some() {
            return Some(format!("header:{}", headers::CACHE_AFFINITY));
        }
        let by = self.by.iter().find(|by| hash(by, key, headers, request, &mut DefaultHasher::new()))?;
        Some(by.to_string())
    }
}

/// What the caller itself says that its related requests have in common.
fn said(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(headers::CACHE_AFFINITY).filter(|said| !said.is_empty())
}

impl Affinity {
    /// What this request has in common with those that are related to it: what its caller says, else the first of the
    /// model's criteria that it has. Two tenants' are never related.
    #[must_use]
    pub fn related(
        &self,
        relation: &Relation,
        name: &str,
        key: &Key,
        headers: &HeaderMap,
        request: &Request,
    ) -> Option<u64> {
        let said = said(headers);
        if said.is_none() && relation.by.is_empty() {
            return None;
        }
        let mut hasher = self.hasher.build_hasher();
        (&key.tenant.id, name).hash(&mut hasher);
        if let Some(said) = said {
            said.as_bytes().hash(&mut hasher);
            return Some(hasher.finish());
        }
        let found = (0_u8..).zip(&relation.by).find(|(_, by)| hash(by, key, headers, request, &mut hasher));
        let (place, _) = found?;
        place.hash(&mut hasher);
        Some(hasher.finish())
    }

    pub(super) fn target(&self, relation: &Relation, related: u64, now: Moment) -> Option<u64> {
        self.pins.get(related, relation.ttl, now)
    }

    pub(super) fn remember(&self, related: u64, target: u64, now: Moment) {
        self.pins.set(related, target, now);
    }
}

/// Takes one criterion into account, if the request has it.
fn hash(by: &AffinityBy, key: &Key, headers: &HeaderMap, request: &Request, hasher: &mut impl Hasher) -> bool {
    let mut take = |what: Option<&[u8]>| what.filter(|what| !what.is_empty()).map(|what| what.hash(hasher)).is_some();
    match by {
        AffinityBy::Header(name) => take(headers.get(name).map(HeaderValue::as_bytes)),
        AffinityBy::User => take(request.get("user")),
        AffinityBy::Key => take(Some(key.id.as_bytes())),
        AffinityBy::PromptPrefix => {
            let prompt = request.get("messages").or_else(|| request.get("prompt"));
            prompt.map(|prompt| beginning(prompt).hash(hasher)).is_some()
        }
    }
}
