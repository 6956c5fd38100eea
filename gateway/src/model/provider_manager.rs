//! `ProviderManager`: builds a snapshot from a configuration and the snapshot before it, off the request's path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use adapters::provider::openai::secret_header;
use adapters::{Adapter, EncodeError, Options};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::access::{Key, Keys, Tenant};
use crate::balance::{self, Candidate, CredentialHealth, LbModelManager, Registry, Rules};
use crate::bill;
use crate::budget::{self, Calendar, Owner};
use crate::config::{self, Auth, Balance, Config, Fault, Faults, Health, HttpVersion, Loaded, Manifest, Manifests};
use crate::limit::{self, ScopeId, Scopes};
use crate::model::names::Names;
use crate::model::pattern::Pattern;
use crate::model::provider::{Credential, Provider};
use crate::model::snapshot::{Clocks, Model, Models, Snapshot, Target, UpstreamName};
use crate::net::proxy::{Proxies, Proxy};
use crate::net::upstream::{Endpoint, EndpointSpec, Version};
use crate::price::{Catalog, Prices};
use crate::retry;
use crate::shelf::part;

/// What Weir tells providers that it is.
const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// Weights are multiplied by this before they are split among credentials, so that small ones stay exact.
const WEIGHT_SCALE: u64 = 1 << 20;

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
        let models = Balancing { registry: &self.registry, rules: Arc::new(rules(&config.health)), previous };
        Ok(Snapshot {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            hash: loaded.hash.clone(),
            max_body: config.server.max_body.get(),
            keys: self.keys(config),
            models: models.all(config, &providers),
            providers,
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
            provider: name,
            address: &base_url,
            adapter,
            auth: manifest.and_then(|manifest| manifest.auth.as_ref()),
            common: common_headers(name, written)?,
            registry: &self.registry,
            limits: &self.limits,
        };
        let credentials = making.credentials(written)?;
        let endpoint = Endpoint::new(self.endpoint(base_url, written)?).map_err(|error| at(error.to_string()))?;
        Ok(Provider {
            header: header_value(name, "the provider's name")?,
            name: name.to_owned(),
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

    fn keys(&self, config: &Config) -> Keys {
        let mut keys = Keys::default();
        for written in &config.tenants {
            let tenant = Arc::new(self.tenant(written));
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
                    tenant: Arc::clone(&tenant),
                    expires: key.expires,
                    models: key.models.as_ref().map(|models| models.iter().collect()),
                    limited: self.limits.key(&limits, &key.id, &key.limits, Instant::now()),
                    accounts: own.into_iter().chain(shared.iter().map(Arc::clone)).collect(),
                };
                keys.insert(*key.hash.bytes(), Arc::new(made));
            }
        }
        keys
    }

    fn tenant(&self, written: &config::Tenant) -> Tenant {
        let id: Arc<str> = written.id.as_str().into();
        let quotas = |provider: &str| self.budgets.quotas(&id, provider, &written.quotas);
        Tenant {
            id: written.id.clone(),
            models: written.models.as_ref().map(|models| models.iter().collect()),
            disabled: written.disabled_models.iter().collect(),
            defaults: written.default_models.iter().map(|(kind, model)| (*kind, model.clone())).collect(),
            quotas: written.quotas.iter().map(|quota| (quota.provider.clone(), quotas(&quota.provider))).collect(),
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

/// Makes the credentials of one provider.
struct Making<'a> {
    provider: &'a str,
    address: &'a str,
    adapter: &'static dyn Adapter,
    /// How its manifest says that keys are carried; else its dialect does.
    auth: Option<&'a Auth>,
    common: HeaderMap,
    registry: &'a Registry,
    limits: &'a limit::Registry,
}

impl Making<'_> {
    fn credentials(&self, written: &config::Provider) -> Result<Vec<Arc<Credential>>, Fault> {
        if written.simulated && written.credentials.is_empty() {
            return Ok(vec![Arc::new(self.simulated()?)]);
        }
        if written.credentials.is_empty() {
            return Ok(vec![Arc::new(self.none())]);
        }
        let enabled = written.credentials.iter().filter(|credential| credential.enabled);
        enabled.map(|credential| self.credential(credential).map(Arc::new)).collect()
    }

    fn none(&self) -> Credential {
        let headers = self.common.clone();
        Credential {
            id: None,
            header: None,
            weight: 1,
            scopes: Scopes::default(),
            health: self.health("none", &headers),
            headers,
        }
    }

    /// The simulator takes any key, but wants one, as the real providers do.
    fn simulated(&self) -> Result<Credential, Fault> {
        let mut headers = self.common.clone();
        headers.extend(self.carried("simulated").map_err(|error| fault("simulated".to_owned(), error.to_string()))?);
        let id = "simulated";
        Ok(Credential {
            id: Some(id.to_owned()),
            header: Some(HeaderValue::from_static(id)),
            weight: 1,
            scopes: Scopes::default(),
            health: self.health(id, &headers),
            headers,
        })
    }

    fn credential(&self, written: &config::Credential) -> Result<Credential, Fault> {
        let at = |message: String| fault(format!("providers.{}.credentials.{}", self.provider, written.id), message);
        let mut headers = self.common.clone();
        if let Some(secret) = &written.api_key {
            let key = secret.resolve().map_err(|error| at(error.to_string()))?;
            headers.extend(self.carried(&key).map_err(|error| at(error.to_string()))?);
        }
        Ok(Credential {
            header: Some(header_value(&written.id, "the credential's id")?),
            id: Some(written.id.clone()),
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
        let id = ScopeId::credential(self.provider, &written.id);
        std::iter::once(self.limits.scope(id, limits, Instant::now())).collect()
    }

    /// The headers that carry a key.
    fn carried(&self, key: &str) -> Result<Vec<(HeaderName, HeaderValue)>, EncodeError> {
        let one = |name: &HeaderName, value: &str| Ok(vec![(name.clone(), secret_header(value)?)]);
        match self.auth {
            Some(Auth::Bearer) => one(&header::AUTHORIZATION, &format!("Bearer {key}")),
            Some(Auth::Scheme(scheme)) => one(&header::AUTHORIZATION, &format!("{scheme} {key}")),
            Some(Auth::Header(name)) if self.adapter.name() == "openai" => one(name, key),
            Some(Auth::Header(_) | Auth::Query(_) | Auth::Aws | Auth::Google | Auth::None) | None => {
                self.adapter.authorize(key)
            }
        }
    }

    /// The health of a credential, that of before where all that it is called with is as before.
    fn health(&self, id: &str, headers: &HeaderMap) -> Arc<CredentialHealth> {
        let sent: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        self.registry.credential(&format!("{}/{}", part(self.provider), part(id)), (self.address, sent))
    }
}

fn fault(path: String, message: String) -> Fault {
    Fault { place: None, path, message, help: None }
}

/// The simulator serves each dialect at its native paths below one address.
fn simulated_url(adapter: &dyn Adapter, simulator: std::net::SocketAddr) -> String {
    match adapter.name() {
        "openai" => format!("http://{simulator}/v1"),
        _ => format!("http://{simulator}"),
    }
}

fn header_value(text: &str, what: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text)
        .map_err(|_| fault(text.to_owned(), format!("{what} has characters that cannot stand in a header")))
}

/// What all requests to a provider carry. Weir reads answers, so it asks for them uncompressed.
fn common_headers(name: &str, written: &config::Provider) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (header, secret) in &written.headers {
        let at = || format!("providers.{name}.headers.{}", header.0);
        let text = secret.resolve().map_err(|error| fault(at(), error.to_string()))?;
        let mut value = HeaderValue::from_str(&text).map_err(|_| fault(at(), "not a header's value".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(header.0.clone(), value);
    }
    Ok(headers)
}

/// Makes the models.
struct Balancing<'a> {
    registry: &'a Arc<Registry>,
    rules: Arc<Rules>,
    previous: Option<&'a Snapshot>,
}

impl Balancing<'_> {
    fn all(&self, config: &Config, providers: &HashMap<String, Arc<Provider>>) -> Models {
        let mut models = Models::default();
        for written in &config.models {
            models.insert(written.model_type, self.model(written, providers));
        }
        for (name, provider) in providers {
            models.direct.insert(name.clone(), Arc::new(self.direct(provider)));
        }
        models
    }

    fn model(&self, written: &config::Model, providers: &HashMap<String, Arc<Provider>>) -> Model {
        let kept = self.previous.and_then(|previous| previous.models.named(written.model_type, &written.name));
        let mut pool = Pool::default();
        for target in &written.targets {
            if let Some(provider) = providers.get(&target.provider) {
                pool.add(target, provider, written.pricing.as_ref(), self.registry);
            }
        }
        let balance = self.manager(policy(written.balance), pool.candidates, kept);
        Model {
            header: HeaderValue::from_str(&written.name).ok().filter(|_| !written.name.contains('*')),
            name: written.name.clone(),
            model_type: Some(written.model_type),
            names: self.names(&pool.targets, &balance, kept),
            balance,
            targets: pool.targets,
            timeouts: Clocks::from(&written.timeouts),
            retries: retries(&written.retries),
            ratio: kept.map_or_else(Arc::default, |model| Arc::clone(&model.ratio)),
            queue: written.on_busy.as_ref().map(bill::queue),
            fallbacks: written.fallbacks.clone(),
        }
    }

    /// `provider/model` for any model of a provider.
    fn direct(&self, provider: &Arc<Provider>) -> Model {
        let kept = self.previous.and_then(|previous| previous.models.direct.get(&provider.name));
        let (name, model) = (provider.name.clone(), "*".to_owned());
        let any = config::Target { provider: name, model, tier: 0, weight: 1, credential: None };
        let mut pool = Pool::default();
        pool.add(&any, provider, None, self.registry);
        let balance = self.manager(balance::Policy::Weighted, pool.candidates, kept);
        Model {
            name: format!("{}/*", provider.name),
            header: None,
            model_type: None,
            names: self.names(&pool.targets, &balance, kept),
            balance,
            targets: pool.targets,
            timeouts: Clocks::from(&config::Timeouts::default()),
            retries: retries(&config::Retries::default()),
            ratio: kept.map_or_else(Arc::default, |model| Arc::clone(&model.ratio)),
            queue: None,
            fallbacks: config::Fallbacks::default(),
        }
    }

    fn names(&self, targets: &[Target], balance: &LbModelManager, kept: Option<&Arc<Model>>) -> Option<Names> {
        let is_filled = |target: &Target| matches!(target.model, UpstreamName::Filled(_));
        if !targets.iter().any(is_filled) {
            return None;
        }
        let names = Names::new(Arc::clone(self.registry));
        if let Some(before) = kept.and_then(|model| model.names.as_ref()) {
            names.take_over(before, targets, balance);
        }
        Some(names)
    }

    fn manager(
        &self,
        policy: balance::Policy,
        candidates: Vec<Candidate>,
        kept: Option<&Arc<Model>>,
    ) -> LbModelManager {
        let rotation = kept.map_or_else(Arc::default, |model| Arc::clone(model.balance.rotation()));
        LbModelManager::new(policy, candidates, Arc::clone(&self.rules), rotation)
    }
}

/// A model's targets and, in the same order, what picking must know of them.
#[derive(Default)]
struct Pool {
    targets: Vec<Target>,
    candidates: Vec<Candidate>,
}

impl Pool {
    /// Adds a target with each credential that it may use; its weight is split among them.
    fn add(
        &mut self,
        written: &config::Target,
        provider: &Arc<Provider>,
        pricing: Option<&config::Pricing>,
        registry: &Registry,
    ) {
        let prices = Prices::new(pricing, provider.catalog);
        let price = prices.at(&written.model, std::time::SystemTime::now()).and_then(crate::price::Price::effective);
        let wanted = |credential: &&Arc<Credential>| {
            written.credential.is_none() || written.credential.as_deref() == credential.id.as_deref()
        };
        let credentials: Vec<_> = provider.credentials.iter().filter(wanted).collect();
        let total: u64 = credentials.iter().map(|credential| credential.weight).sum();
        for credential in credentials {
            let weight = u64::from(written.weight) * WEIGHT_SCALE * credential.weight / total.max(1);
            let standing = registry.standing(&credential.health, &written.model);
            self.candidates.push(Candidate { tier: written.tier, weight, price, standing });
            self.targets.push(Target {
                provider: Arc::clone(provider),
                credential: Arc::clone(credential),
                model: upstream_name(&written.model),
                prices: prices.clone(),
            });
        }
    }
}

fn upstream_name(written: &str) -> UpstreamName {
    Pattern::of(written).map_or_else(|| UpstreamName::Fixed(written.to_owned()), UpstreamName::Filled)
}

fn policy(written: Balance) -> balance::Policy {
    match written {
        Balance::Weighted => balance::Policy::Weighted,
        Balance::RoundRobin => balance::Policy::RoundRobin,
        Balance::LeastBusy => balance::Policy::LeastBusy,
        Balance::Latency => balance::Policy::Latency,
        Balance::Cost => balance::Policy::Cost,
        Balance::Usage => balance::Policy::Usage,
    }
}

fn retries(written: &config::Retries) -> retry::Policy {
    retry::Policy { max: written.max, first: written.backoff.from.get(), longest: written.backoff.to.get() }
}

fn rules(written: &Health) -> Rules {
    let Health { min_samples, error_rate, cooldown, max_cooldown } = written;
    Rules {
        min_samples: min_samples.get(),
        error_rate: error_rate.hundredths(),
        rate_limit: cooldown.rate_limit.get(),
        auth: cooldown.auth.get(),
        connection: cooldown.connection.get(),
        server: cooldown.server.get(),
        longest: max_cooldown.get(),
    }
}
