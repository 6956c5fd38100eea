//! The answers that need no provider: the models that a key may call, and health.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::access::Key;
use crate::error::Fault;
use crate::model::{Model, Snapshot};

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

/// The models that `key` may call, by name. One with a `*` stands for any name and is not one itself.
#[must_use]
pub fn models(snapshot: &Snapshot, key: &Key) -> Bytes {
    let models = snapshot.models.all().filter(|model| !model.name.contains('*') && snapshot.allows(key, &model.name));
    let mut data: Vec<Entry<'_>> = models.map(|model| Entry::of(&model.name, model)).collect();
    data.sort_by_key(|entry| entry.id);
    data.dedup_by_key(|entry| entry.id);
    written(&List { object: "list", data })
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
