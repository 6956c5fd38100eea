//! The answers that need no provider: the models that a key may call, and health.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::access::Key;
use crate::error::Fault;
use crate::model::pattern::Pattern;
use crate::model::{Model, Snapshot, Target, Type, UpstreamName};

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

/// The models that `key` may call, by name. One with a `*` stands for those that the catalog knows of its providers.
#[must_use]
pub fn models(snapshot: &Snapshot, key: &Key) -> Bytes {
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
    names.retain(|name, _| snapshot.allows(key, name));
    let data = names.iter().map(|(name, model)| Entry::of(name, model)).collect();
    written(&List { object: "list", data })
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
