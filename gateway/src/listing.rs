//! The answers that need no provider: the models that a key may call, and health.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::access::Key;
use crate::error::Fault;
use crate::model::pattern::Pattern;
use crate::model::{Listed, Model, Snapshot, Target, Type, UpstreamName};

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

/// What stands before and behind the models of the list.
const LIST: (&[u8], &[u8]) = (br#"{"object":"list","data":["#, b"]}");

/// The models that `key` may call, by name.
#[must_use]
pub fn models(snapshot: &Snapshot, key: &Key) -> Bytes {
    // Nothing in this list is a provider's own name, which would be disabled with its namesakes.
    let may_call = |name: &str| key.has(name) && !key.tenant.disabled.has(name);
    let all = snapshot.listed.get_or_init(|| listed(snapshot));
    let mut list = Vec::with_capacity(all.iter().map(|listed| listed.told.len() + 1).sum::<usize>() + 64);
    list.extend_from_slice(LIST.0);
    for (at, listed) in all.iter().filter(|listed| may_call(&listed.name)).enumerate() {
        list.extend_from_slice(if at == 0 { b"" } else { b"," });
        list.extend_from_slice(&listed.told);
    }
    list.extend_from_slice(LIST.1);
    list.into()
}

/// All models, by name. One with a `*` stands for those that the catalog knows of its providers.
fn listed(snapshot: &Snapshot) -> Vec<Listed> {
    let served = snapshot.models.all().filter(|model| model.model_type.is_some_and(Type::is_served));
    let mut names = BTreeMap::new();
    for model in served {
        match Pattern::of(&model.name) {
            None => drop(names.insert(model.name.clone(), model)),
            Some(pattern) => known(model, &pattern).for_each(|name| {
                names.entry(name).or_insert(model);
            }),
        }
    }
    let told = |(name, model): (String, &Arc<Model>)| Listed { told: written(&Entry::of(&name, model)), name };
    names.into_iter().map(told).collect()
}

/// The names that a model with a `*` has for the models that are known of its targets' providers.
fn known<'a>(model: &'a Model, pattern: &'a Pattern) -> impl Iterator<Item = String> + 'a {
    let of_target = |target: &'a Target| match &target.model {
        UpstreamName::Filled(upstream) => Some((upstream, target.provider.catalog?.names(model.model_type?))),
        UpstreamName::Fixed(_) => None,
    };
    let catalogs = model.targets.iter().filter_map(of_target);
    let names = catalogs.flat_map(|(upstream, names)| names.filter_map(|name| upstream.rest(name)));
    names.map(|rest| pattern.filled(rest))
}

/// The model of that name.
///
/// # Errors
/// 404 or 403, as a call to it would give.
pub fn model(snapshot: &Snapshot, key: &Key, name: &str) -> Result<Bytes, Fault> {
    let Some(model) = snapshot.models.any(name) else {
        let message = format!("The model `{name}` does not exist or this key may not call it.");
        return Err(Fault::request(StatusCode::NOT_FOUND, "model_not_found", message).of_param("model"));
    };
    snapshot.check_allowed(key, name)?;
    Ok(written(&Entry::of(name, model)))
}

/// The body of a health answer.
#[must_use]
pub fn health(status: &'static str) -> Bytes {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
    }
    written(&Health { status })
}

impl<'a> Entry<'a> {
    fn of(name: &'a str, model: &'a Model) -> Self {
        let owned_by = model.targets.first().map_or("weir", |target| target.provider.name.as_str());
        Self { id: name, object: "model", created: 0, owned_by }
    }
}

fn written(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::Value;

    use super::*;
    use crate::model::ProviderManager;
    use crate::{budget, config, limit};

    /// Two keys, each with models of its own; a tenant that has a model disabled.
    const CONFIG: &str = r#"
providers: {p: {kind: openai, base_url: "http://127.0.0.1:9", credentials: [{id: c, api_key: k}]}, anthropic: {base_url: "http://127.0.0.1:9", credentials: [{id: c, api_key: k}]}}
models:
  - {name: a-1, targets: [{provider: p, model: x}]}
  - {name: 'a-"2"', targets: [{provider: p, model: x}]}
  - {name: b, targets: [{provider: p, model: x}]}
  - {name: 'c/*', targets: [{provider: anthropic, model: 'claude-*'}]}
  - {name: voice, type: tts, targets: [{provider: p, model: x}]}
tenants:
  - {id: all, keys: [{id: all, hash: "sha256:0000000000000000000000000000000000000000000000000000000000000001"}]}
  - id: few
    models: ['a-*', 'c/*']
    disabled_models: [a-1]
    keys:
      - {id: few, hash: "sha256:0000000000000000000000000000000000000000000000000000000000000002"}
      - {id: fewer, models: ['a-*'], hash: "sha256:0000000000000000000000000000000000000000000000000000000000000003"}
"#;

    fn snapshot() -> Snapshot {
        let loaded = config::parse_str("test", CONFIG).unwrap();
        let providers = ProviderManager {
            proxies: crate::net::proxy::Proxies::from_environment().unwrap(),
            simulator: None,
            registry: Arc::default(),
            limits: Arc::new(limit::Registry::default()),
            budgets: Arc::new(budget::Registry::new(budget::Listener::new(|_alert| {}))),
        };
        providers.build(&loaded, None).unwrap()
    }

    fn names(list: &Bytes) -> Vec<String> {
        let list: Value = serde_json::from_slice(list).unwrap();
        assert_eq!(list["object"], "list");
        let data = list["data"].as_array().unwrap();
        data.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_list_that_is_made_once_has_for_each_key_just_what_it_may_call() {
        let snapshot = snapshot();
        let mut lengths = Vec::new();
        for key in snapshot.keys.values() {
            let listed = names(&models(&snapshot, key));
            let all = snapshot.listed.get().unwrap().iter().map(|listed| &listed.name);
            let want: Vec<&String> = all.filter(|name| snapshot.check_allowed(key, name).is_ok()).collect();
            assert_eq!(listed.iter().collect::<Vec<_>>(), want, "{}", key.id);
            assert!(listed.is_sorted() && !listed.iter().any(|name| name == "voice"));
            lengths.push((key.id.clone(), listed.len()));
        }
        lengths.sort();
        assert!(matches!(lengths[..], [(_, all), (_, few), (_, 1)] if few + 2 == all && few > 3), "{lengths:?}");
        let made = snapshot.listed.get().unwrap().as_ptr();
        let _again = models(&snapshot, snapshot.keys.values().next().unwrap());
        assert_eq!(snapshot.listed.get().unwrap().as_ptr(), made);
    }
}
