//! `ProviderManager`: builds a snapshot from a configuration and the snapshot before it, off the request's path.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use adapters::{Adapter, Options};
use http::{HeaderMap, HeaderValue};

use crate::access::{Guesses, Key, Keys, Tenant};
use crate::balance::Registry;
use crate::budget::{self, Calendar, Owner};
use crate::config::{
    self, Auth, BaseUrl, Config, CredentialSource, Fault, Faults, HttpVersion, Loaded, Manifest, Manifests, Upstream,
};
use crate::limit;
use crate::model::balancing::{Balancing, Own, OwnModels, Sources};
use crate::model::credentials::{Making, common_headers};
use crate::model::provider::{Credential, Provider};
use crate::model::snapshot::{Models, Snapshot};
use crate::model::source;
use crate::net::proxy::{Proxies, Proxy};
use crate::net::upstream::{Endpoint, EndpointSpec, Reach, Version};
use crate::price::Catalog;
use crate::shelf::part;

/// Builds snapshots.
#[derive(Clone, Debug)]
pub struct ProviderManager {
    /// The proxies that the environment names, for providers that name none.
    pub proxies: Proxies,
    /// Where simulated providers are, when there are any.
    pub simulator: Option<std::net::SocketAddr>,
    /// How targets stand; what outlives a reload.
    pub registry: Arc<Registry>,
    /// What keys, tenants and credentials have used of their limits.
    pub limits: Arc<limit::Registry>,
    /// What they have used of their budgets and quotas.
    pub budgets: Arc<budget::Registry>,
}

impl ProviderManager {
    /// Makes a snapshot of a configuration; what did not change since `previous` lives on.
    ///
    /// # Errors
    /// Everything that cannot be made: secrets that are not there, certificates that cannot be read.
    pub fn build(&self, loaded: &Loaded, previous: Option<&Snapshot>) -> Result<Snapshot, Faults> {
        let config = &loaded.config;
        let mut faults = Faults::default();
        let mut providers = HashMap::with_capacity(config.providers.len());
        for (name, written) in &config.providers {
            match self.provider(name, written, &loaded.manifests) {
                Ok(provider) => drop(providers.insert(name.clone(), Arc::new(provider))),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let balancing = Balancing::new(&self.registry, &config.health, previous);
        let models = balancing.all(config, &providers);
        let tenants = self.tenants(loaded, &providers, &models, &balancing)?;
        Ok(Snapshot {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            hash: loaded.hash.clone(),
            max_body: config.server.max_body.get(),
            keys: self.keys(config, &tenants),
            guesses: guesses(config, previous),
            tenants,
            models,
            listed: OnceLock::new(),
            rounds: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.rounds)),
        })
    }

    fn provider(&self, name: &str, written: &config::Provider, manifests: &Manifests) -> Result<Provider, Fault> {
        let at = |message: String| fault(format!("providers.{name}"), message);
        let kind = written.kind.as_deref().unwrap_or(name);
        let manifest = manifests.get(kind);
        let dialect = manifest.map_or(kind, |manifest| manifest.kind.as_str());
        let adapter = adapters::provider::of_kind(dialect)
            .ok_or_else(|| at(format!("this version of Weir does not speak {dialect:?}")))?;
        let base_url = self.base_url(written, manifest, adapter).map_err(at)?;
        let making = Making {
            owner: name.to_owned(),
            path: format!("providers.{name}"),
            source: CredentialSource::System,
            address: &base_url,
            adapter,
            manifest,
            common: written_headers(name, written)?,
            registry: &self.registry,
            limits: &self.limits,
        };
        let credentials = credentials(written, manifest, &making)?;
        let endpoint = Endpoint::new(self.endpoint(base_url, written)?).map_err(|error| at(error.to_string()))?;
        Ok(Provider {
            header: header_value(name, "the provider's name")?,
            name: name.to_owned(),
            is_removed: credentials.is_empty() && !written.credentials.is_empty(),
            credentials,
            adapter,
            endpoint: Arc::new(endpoint),
            options: Options {
                api_version: written.api_version.clone(),
                default_max_tokens: written.default_max_tokens.map(config::Count::get),
            },
            catalog: Catalog::of(kind),
            on_disconnect: written.on_disconnect,
        })
    }

    /// The tenants by their ids.
    fn tenants(
        &self,
        loaded: &Loaded,
        providers: &HashMap<String, Arc<Provider>>,
        models: &Models,
        balancing: &Balancing<'_>,
    ) -> Result<HashMap<String, Arc<Tenant>>, Faults> {
        let mut faults = Faults::default();
        let mut tenants = HashMap::with_capacity(loaded.config.tenants.len());
        for written in &loaded.config.tenants {
            match self.own_providers(written, loaded, providers) {
                Ok(own) => {
                    let own = balancing.own(&loaded.config, models, Sources { providers, own: &own }, &written.id);
                    drop(tenants.insert(written.id.clone(), Arc::new(self.tenant(written, own))));
                }
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(tenants) } else { Err(faults) }
    }

    /// The providers as a tenant calls them with credentials of its own.
    fn own_providers(
        &self,
        tenant: &config::Tenant,
        loaded: &Loaded,
        providers: &HashMap<String, Arc<Provider>>,
    ) -> Result<HashMap<String, Own>, Fault> {
        let known = tenant.providers.iter().filter_map(|(name, own)| Some((name, own, providers.get(name)?)));
        let made = known.map(|(name, own, shared)| {
            let preferred = source::preferred(tenant.prefer.as_ref(), name, true);
            Ok((name.clone(), Own { provider: Arc::new(self.own_provider(tenant, own, shared, loaded)?), preferred }))
        });
        made.collect()
    }

    fn own_provider(
        &self,
        tenant: &config::Tenant,
        own: &config::TenantProvider,
        shared: &Provider,
        loaded: &Loaded,
    ) -> Result<Provider, Fault> {
        let path = format!("tenants.{}.providers.{}", tenant.id, shared.name);
        let written = loaded.config.providers.get(&shared.name);
        let kind = written.and_then(|written| written.kind.as_deref()).unwrap_or(&shared.name);
        let endpoint = match (&own.base_url, written) {
            (Some(url), Some(written)) => {
                let spec = self.own_endpoint(url, written, &loaded.config.server.allow_private_upstreams)?;
                Arc::new(Endpoint::new(spec).map_err(|error| fault(path.clone(), error.to_string()))?)
            }
            _ => Arc::clone(&shared.endpoint),
        };
        let making = Making {
            owner: format!("~{}/{}", part(&tenant.id), part(&shared.name)),
            source: CredentialSource::Custom,
            address: &format!("{endpoint:?}"),
            adapter: shared.adapter,
            manifest: loaded.manifests.get(kind),
            common: common_headers(),
            registry: &self.registry,
            limits: &self.limits,
            path,
        };
        let credentials = making.all(&own.credentials)?;
        Ok(Provider {
            name: shared.name.clone(),
            header: shared.header.clone(),
            is_removed: credentials.is_empty(),
            credentials,
            adapter: shared.adapter,
            endpoint,
            options: shared.options.clone(),
            catalog: shared.catalog,
            on_disconnect: shared.on_disconnect,
        })
    }

    /// A tenant's own address, which reaches no private host but those that are `allowed`.
    fn own_endpoint(
        &self,
        url: &BaseUrl,
        written: &config::Provider,
        allowed: &[Upstream],
    ) -> Result<EndpointSpec, Fault> {
        let mut spec = self.endpoint(url.as_str().to_owned(), written)?;
        let is_listed = allowed.iter().any(|upstream| upstream.covers(url.host()));
        spec.reach = if is_listed { Reach::Anywhere } else { Reach::Public };
        // The operator's authorities are for its own addresses.
        spec.ca_file = None;
        Ok(spec)
    }

    fn keys(&self, config: &Config, tenants: &HashMap<String, Arc<Tenant>>) -> Keys {
        let mut keys = Keys::default();
        for written in &config.tenants {
            let Some(tenant) = tenants.get(&written.id) else {
                continue;
            };
            let limits = self.limits.tenant(&tenant.id, &written.limits, Instant::now());
            let calendar = Calendar { zone: written.timezone.rules().clone(), week_start: written.week_start };
            let calendar = Arc::new(calendar);
            let owner: Arc<str> = written.id.as_str().into();
            let shared = self.budgets.budgets(&Owner::Tenant(Arc::clone(&owner)), &written.budgets, &calendar);
            for key in &written.keys {
                let own = Owner::Key(Arc::clone(&owner), key.id.as_str().into());
                let own = self.budgets.budgets(&own, &key.budgets, &calendar);
                let made = Key {
                    id: key.id.clone(),
                    tenant: Arc::clone(tenant),
                    expires: key.expires,
                    models: key.models.as_ref().map(|models| Box::new(models.iter().collect())),
                    chooses_credential: key.choose_credential,
                    limited: self.limits.key(&limits, &key.id, key.limits.as_deref(), Instant::now()),
                    accounts: own.into_iter().chain(shared.iter().map(Arc::clone)).collect(),
                };
                keys.insert(*key.hash.bytes(), Arc::new(made));
            }
        }
        keys
    }

    fn tenant(&self, written: &config::Tenant, own: OwnModels) -> Tenant {
        let id: Arc<str> = written.id.as_str().into();
        let quotas = |provider: &str| self.budgets.quotas(&id, provider, &written.quotas);
        Tenant {
            id: written.id.clone(),
            models: written.models.as_ref().map(|models| models.iter().collect()),
            disabled: written.disabled_models.iter().collect(),
            defaults: written.default_models.iter().map(|(kind, model)| (*kind, model.clone())).collect(),
            quotas: written.quotas.iter().map(|quota| (quota.provider.clone(), quotas(&quota.provider))).collect(),
            unpriced: written.unpriced,
            preferred: written.prefer.clone(),
            own,
        }
    }

    fn base_url(
        &self,
        written: &config::Provider,
        manifest: Option<&Manifest>,
        adapter: &dyn Adapter,
    ) -> Result<String, String> {
        if written.simulated {
            let simulator = self.simulator.ok_or("the simulator is not running")?;
            return Ok(simulated_url(adapter, simulator));
        }
        let known = manifest.and_then(|manifest| manifest.base_url.as_ref());
        written.base_url.as_ref().or(known).map(|url| url.as_str().to_owned()).ok_or("base_url is missing".to_owned())
    }

    fn endpoint(&self, base_url: String, written: &config::Provider) -> Result<EndpointSpec, Fault> {
        let mut spec = EndpointSpec::new(base_url);
        spec.version = match written.http {
            HttpVersion::Auto => Version::Auto,
            HttpVersion::Http1 => Version::Http1,
            HttpVersion::Http2 => Version::Http2,
        };
        spec.ca_file = written.ca.clone();
        spec.proxies = match &written.proxy {
            None => self.proxies.clone(),
            Some(config::Proxy::None) => Proxies::none(),
            Some(config::Proxy::Via(url)) => {
                Proxies::only(Proxy::parse(url.as_str()).map_err(|error| fault("proxy".to_owned(), error.to_string()))?)
            }
        };
        Ok(spec)
    }
}

/// What addresses have guessed, as long as they may guess as often.
fn guesses(config: &Config, previous: Option<&Snapshot>) -> Option<Arc<Guesses>> {
    let most = u32::try_from(config.server.wrong_keys?.get()).unwrap_or(u32::MAX);
    let a_minute = NonZeroU32::new(most)?;
    let kept = previous.and_then(|previous| previous.guesses.clone()).filter(|kept| kept.a_minute() == a_minute);
    Some(kept.unwrap_or_else(|| Arc::new(Guesses::new(a_minute))))
}

/// The operator's, or what stands for them where none is written.
fn credentials(
    written: &config::Provider,
    manifest: Option<&Manifest>,
    making: &Making<'_>,
) -> Result<Vec<Arc<Credential>>, Fault> {
    match written.credentials.as_slice() {
        [] if written.simulated => Ok(vec![Arc::new(making.simulated()?)]),
        [] if needs_credential(written, manifest) => Ok(Vec::new()),
        [] => Ok(vec![Arc::new(making.none())]),
        written => making.all(written),
    }
}

/// Whether a public provider would refuse every request without a credential.
fn needs_credential(written: &config::Provider, manifest: Option<&Manifest>) -> bool {
    let is_public = written.base_url.is_none() && written.headers.is_empty();
    is_public && manifest.is_some_and(|manifest| !matches!(manifest.auth, Some(Auth::None)))
}

pub(super) fn fault(path: String, message: String) -> Fault {
    Fault { place: None, path, message, help: None }
}

/// The simulator serves each dialect at its native paths below one address.
fn simulated_url(adapter: &dyn Adapter, simulator: std::net::SocketAddr) -> String {
    match adapter.name() {
        "openai" => format!("http://{simulator}/v1"),
        _ => format!("http://{simulator}"),
    }
}

pub(super) fn header_value(text: &str, what: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text)
        .map_err(|_| fault(text.to_owned(), format!("{what} has characters that cannot stand in a header")))
}

/// The headers that the operator wrote for all requests to a provider. A tenant's own requests do not carry them.
fn written_headers(name: &str, written: &config::Provider) -> Result<HeaderMap, Fault> {
    let mut headers = common_headers();
    for (header, secret) in &written.headers {
        let at = || format!("providers.{name}.headers.{}", header.0);
        let text = secret.resolve().map_err(|error| fault(at(), error.to_string()))?;
        let mut value = HeaderValue::from_str(&text).map_err(|_| fault(at(), "not a header's value".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(header.0.clone(), value);
    }
    Ok(headers)
}
