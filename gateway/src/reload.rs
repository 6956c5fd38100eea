//! A new configuration in the place of the old one: all or nothing, one at a time, whoever asks for it.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::{Config, Fault, Faults, Loaded, Model, Observability, Provider, Server, Store, Tenant};
use crate::gateway::Gateway;
use crate::model::ProviderManager;
use crate::net::tls::Identity;
use crate::store;

/// Reloads the configuration.
pub struct Reloader {
    gateway: Arc<Gateway>,
    providers: ProviderManager,
    identities: Vec<Arc<Identity>>,
    started: Started,
    served: ArcSwap<Loaded>,
    /// One reload at a time. Who only wants to know what is served does not wait for the files that one reads.
    turn: Mutex<()>,
}

/// What was served at first: listeners, the store and the logs are still as they were then.
struct Started {
    server: Server,
    store: Store,
    observability: Observability,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reloaded {
    /// Counts the configurations that were served.
    pub generation: u64,
    /// The configuration's hash.
    pub hash: String,
    /// What is other than before, as `models.gpt-main` or `server.max_body`.
    pub changed: Vec<String>,
    /// What the file says otherwise than the process does until it is started anew, as `server.listen`.
    pub restart: Vec<&'static str>,
}

impl Reloader {
    /// Reloads what was `loaded` at first, and the certificates.
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        providers: ProviderManager,
        loaded: Loaded,
        identities: Vec<Arc<Identity>>,
    ) -> Self {
        let (started, served) = (Started::with(&loaded.config), ArcSwap::from_pointee(loaded));
        Self { gateway, providers, identities, started, served, turn: Mutex::default() }
    }

    /// Reads the configuration again and serves it. Blocks while it reads; requests go on meanwhile.
    ///
    /// # Errors
    /// Every fault; the old configuration stays in use.
    pub fn reload(&self) -> Result<Reloaded, Faults> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace().inspect_err(|faults| {
            self.gateway.metrics.reload_failures.inc();
            tracing::error!("the new configuration is refused, the old one stays in use:\n{faults}");
        })
    }

    fn replace(&self) -> Result<Reloaded, Faults> {
        let (previous, served) = (self.gateway.models.load(), self.served.load());
        let Some(loaded) = served.origin.load()? else {
            let (generation, hash) = (previous.generation, previous.hash.clone());
            return Ok(Reloaded { generation, hash, changed: Vec::new(), restart: Vec::new() });
        };
        let snapshot = self.providers.build(&loaded, Some(&previous))?;
        self.renew_identities()?;
        let reloaded = Reloaded {
            generation: snapshot.generation,
            hash: snapshot.hash.clone(),
            changed: changes(&served.config, &loaded.config),
            restart: self.started.needs_restart(&loaded.config),
        };
        let now = jiff::Timestamp::now();
        self.gateway.recall(now);
        self.gateway.metrics.configured(snapshot.generation, &snapshot.hash);
        self.gateway.models.replace(snapshot);
        let (hash, changed) = (reloaded.hash.clone(), reloaded.changed.clone());
        self.gateway.store.served(store::Served { at: now, hash, changed });
        self.served.store(Arc::new(loaded));
        tracing::info!(generation = reloaded.generation, hash = %reloaded.hash, changed = ?reloaded.changed, "reloaded");
        if !reloaded.restart.is_empty() {
            tracing::warn!(settings = ?reloaded.restart, "these changes take effect when weir is started anew");
        }
        Ok(reloaded)
    }

    /// Shows what the certificates' files hold now; all of them or none.
    fn renew_identities(&self) -> Result<(), Faults> {
        let mut faults = Faults::default();
        let mut renewed = Vec::with_capacity(self.identities.len());
        for identity in &self.identities {
            match identity.renewed() {
                Ok(certified) => renewed.push(certified),
                Err(error) => faults.push(Fault {
                    place: None,
                    path: "server.tls".to_owned(),
                    message: error.to_string(),
                    help: None,
                }),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.identities.iter().zip(renewed).for_each(|(identity, certified)| identity.show(certified));
        Ok(())
    }

    /// Whether only the configuration's file may change anything.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.served.load().config.server.locked
    }

    /// The configuration that is served, its secrets masked.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        serde_json::to_value(&self.served.load().config).unwrap_or_default()
    }
}

impl Started {
    fn with(config: &Config) -> Self {
        let Config { server, store, observability, .. } = config;
        Self { server: server.clone(), store: store.clone(), observability: observability.clone() }
    }

    /// What a process takes from its configuration only when it starts, where that is otherwise `now`.
    fn needs_restart(&self, now: &Config) -> Vec<&'static str> {
        let (old, new) = (&self.server, &now.server);
        let settings = [
            ("server.listen", old.listen == new.listen),
            ("server.admin", old.admin == new.admin),
            ("server.admin_token", old.admin_token == new.admin_token),
            ("server.tls", old.tls == new.tls),
            ("server.drain", old.drain == new.drain),
            ("server.idle", old.idle == new.idle),
            ("server.stall", old.stall == new.stall),
            ("server.threads", old.threads == new.threads),
            ("store", self.store == now.store),
            ("observability", self.observability == now.observability),
        ];
        settings.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
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
    changed.extend(entries("providers", providers(before), providers(after)));
    changed.extend(entries("models", models(before), models(after)));
    changed.extend(entries("tenants", tenants(before), tenants(after)));
    changed
}

fn providers(config: &Config) -> impl Iterator<Item = (&str, &Provider)> {
    config.providers.iter().map(|(name, provider)| (name.as_str(), provider))
}

fn models(config: &Config) -> impl Iterator<Item = (&str, &Model)> {
    config.models.iter().map(|model| (model.name.as_str(), model))
}

fn tenants(config: &Config) -> impl Iterator<Item = (&str, &Tenant)> {
    config.tenants.iter().map(|tenant| (tenant.id.as_str(), tenant))
}

fn entries<'a, T: PartialEq + 'a>(
    section: &str,
    before: impl Iterator<Item = (&'a str, &'a T)>,
    after: impl Iterator<Item = (&'a str, &'a T)>,
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
