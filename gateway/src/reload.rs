//! A new configuration in the place of the old one: all or nothing, one at a time, whoever asks for it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::config::{Config, Faults, Loaded};
use crate::gateway::Gateway;
use crate::model::ProviderManager;
use crate::store::Served;

/// Reloads the configuration.
pub struct Reloader {
    gateway: Arc<Gateway>,
    providers: ProviderManager,
    served: Mutex<Loaded>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Counts the configurations that were served.
    pub generation: u64,
    /// The configuration's hash.
    pub hash: String,
    /// What is other than before, as `models.gpt-main` or `server.max_body`.
    pub changed: Vec<String>,
}

impl Reloader {
    /// Reloads what was `loaded` at first.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, providers: ProviderManager, loaded: Loaded) -> Self {
        Self { gateway, providers, served: Mutex::new(loaded) }
    }

    /// Reads the configuration again and serves it. Blocks while it reads; requests go on meanwhile.
    ///
    /// # Errors
    /// Every fault; the old configuration is served on.
    pub fn reload(&self) -> Result<Reloaded, Faults> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(&mut served).inspect_err(|faults| {
            self.gateway.metrics.reload_failures.inc();
            tracing::error!("the new configuration is refused, the old one is served on:\n{faults}");
        })
    }

    fn replace(&self, served: &mut Loaded) -> Result<Reloaded, Faults> {
        let previous = self.gateway.models.load();
        let Some(loaded) = served.origin.load()? else {
            return Ok(Reloaded { generation: previous.generation, hash: previous.hash.clone(), changed: Vec::new() });
        };
        let snapshot = self.providers.build(&loaded, Some(&previous))?;
        let changed = changes(&served.config, &loaded.config);
        let reloaded = Reloaded { generation: snapshot.generation, hash: snapshot.hash.clone(), changed };
        self.gateway.metrics.configured(snapshot.generation, &snapshot.hash);
        self.gateway.models.replace(snapshot);
        let now = jiff::Timestamp::now();
        self.gateway.store.served(Served { at: now, hash: reloaded.hash.clone(), changed: reloaded.changed.clone() });
        *served = loaded;
        tracing::info!(generation = reloaded.generation, hash = %reloaded.hash, changed = ?reloaded.changed, "reloaded");
        Ok(reloaded)
    }

    /// The configuration that is served, its secrets masked.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_value(&served.config).unwrap_or_default()
    }
}

/// What is other: named entries by their name, the rest by section.
fn changes(before: &Config, after: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    let mut section = |name: &str, same: bool| {
        if !same {
            changed.push(name.to_owned());
        }
    };
    section("server", before.server == after.server);
    section("store", before.store == after.store);
    section("health", before.health == after.health);
    section("observability", before.observability == after.observability);
    changed.extend(entries("providers", before.providers.iter(), after.providers.iter()));
    let models = |config: &'_ Config| -> Vec<_> {
        config.models.iter().map(|model| (model.name.clone(), model.clone())).collect()
    };
    let (old, new) = (models(before), models(after));
    changed.extend(entries(
        "models",
        old.iter().map(|(name, model)| (name, model)),
        new.iter().map(|(name, model)| (name, model)),
    ));
    let tenants = |config: &'_ Config| -> Vec<_> {
        config.tenants.iter().map(|tenant| (tenant.id.clone(), tenant.clone())).collect()
    };
    let (old, new) = (tenants(before), tenants(after));
    changed.extend(entries(
        "tenants",
        old.iter().map(|(id, tenant)| (id, tenant)),
        new.iter().map(|(id, tenant)| (id, tenant)),
    ));
    changed
}

fn entries<'a, T: PartialEq + 'a>(
    section: &str,
    before: impl Iterator<Item = (&'a String, &'a T)>,
    after: impl Iterator<Item = (&'a String, &'a T)>,
) -> Vec<String> {
    let mut old: std::collections::HashMap<_, _> = before.collect();
    let mut changed: Vec<String> = after
        .filter(|(name, entry)| old.remove(name).as_ref() != Some(entry))
        .map(|(name, _)| format!("{section}.{name}"))
        .collect();
    changed.extend(old.keys().map(|name| format!("{section}.{name}")));
    changed.sort();
    changed
}
