//! `ProviderManager`: builds a snapshot from a configuration and the snapshot before it, off the request's path.

use std::collections::HashMap;
use std::sync::Arc;

use adapters::provider::openai::secret_header;
use adapters::{Adapter, EncodeError, Options};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::access::{Key, Keys, Tenant};
use crate::balance::{self, Rotation};
use crate::config::{self, Auth, Balance, Config, Fault, Faults, HttpVersion, Loaded, Manifest, Manifests};
use crate::model::pattern::Pattern;
use crate::model::provider::{Credential, Provider};
use crate::model::snapshot::{Clocks, Model, Models, Snapshot, Target, UpstreamName};
use crate::net::proxy::{Proxies, Proxy};
use crate::net::upstream::{Endpoint, EndpointSpec, Version};
use crate::retry;

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
        Ok(Snapshot {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            hash: loaded.hash.clone(),
            max_body: config.server.max_body.get(),
            keys: keys(config),
            models: models(config, &providers, previous),
            providers,
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
        let endpoint = Endpoint::new(self.endpoint(base_url, written)?).map_err(|error| at(error.to_string()))?;
        let carrier = Carrier { adapter, auth: manifest.and_then(|manifest| manifest.auth.as_ref()) };
        Ok(Provider {
            header: header_value(name, "the provider's name")?,
            name: name.to_owned(),
            credentials: credentials(name, written, &carrier, &common_headers(name, written)?)?,
            adapter,
            endpoint: Arc::new(endpoint),
            options: Options {
                api_version: written.api_version.clone(),
                default_max_tokens: written.default_max_tokens.map(config::Count::get),
            },
            on_disconnect: written.on_disconnect,
        })
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

/// How a provider's keys are carried: as its manifest says, else as its dialect does.
struct Carrier<'a> {
    adapter: &'static dyn Adapter,
    auth: Option<&'a Auth>,
}

impl Carrier<'_> {
    fn headers(&self, key: &str) -> Result<Vec<(HeaderName, HeaderValue)>, EncodeError> {
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

fn credentials(
    name: &str,
    written: &config::Provider,
    carrier: &Carrier<'_>,
    common: &HeaderMap,
) -> Result<Vec<Arc<Credential>>, Fault> {
    if written.simulated && written.credentials.is_empty() {
        return Ok(vec![Arc::new(simulated(carrier, common)?)]);
    }
    if written.credentials.is_empty() {
        let none = Credential { id: None, header: None, headers: common.clone(), weight: 1 };
        return Ok(vec![Arc::new(none)]);
    }
    let enabled = written.credentials.iter().filter(|credential| credential.enabled);
    enabled.map(|credential| self::credential(name, credential, carrier, common).map(Arc::new)).collect()
}

/// The simulator takes any key, but wants one, as the real providers do.
fn simulated(carrier: &Carrier<'_>, common: &HeaderMap) -> Result<Credential, Fault> {
    let mut headers = common.clone();
    headers.extend(carrier.headers("simulated").map_err(|error| fault("simulated".to_owned(), error.to_string()))?);
    let id = "simulated";
    Ok(Credential { id: Some(id.to_owned()), header: Some(HeaderValue::from_static(id)), headers, weight: 1 })
}

fn credential(
    provider: &str,
    written: &config::Credential,
    carrier: &Carrier<'_>,
    common: &HeaderMap,
) -> Result<Credential, Fault> {
    let at = |message: String| fault(format!("providers.{provider}.credentials.{}", written.id), message);
    let mut headers = common.clone();
    if let Some(secret) = &written.api_key {
        let key = secret.resolve().map_err(|error| at(error.to_string()))?;
        headers.extend(carrier.headers(&key).map_err(|error| at(error.to_string()))?);
    }
    Ok(Credential {
        header: Some(header_value(&written.id, "the credential's id")?),
        id: Some(written.id.clone()),
        headers,
        weight: u64::from(written.weight),
    })
}

fn keys(config: &Config) -> Keys {
    let mut keys = Keys::default();
    for written in &config.tenants {
        let tenant = Arc::new(tenant(written));
        for key in &written.keys {
            let made = Key {
                id: key.id.clone(),
                tenant: Arc::clone(&tenant),
                expires: key.expires,
                models: key.models.as_ref().map(|models| models.iter().collect()),
            };
            keys.insert(*key.hash.bytes(), Arc::new(made));
        }
    }
    keys
}

fn tenant(written: &config::Tenant) -> Tenant {
    Tenant {
        id: written.id.clone(),
        models: written.models.as_ref().map(|models| models.iter().collect()),
        disabled: written.disabled_models.iter().collect(),
        defaults: written.default_models.iter().map(|(kind, model)| (*kind, model.clone())).collect(),
    }
}

fn models(config: &Config, providers: &HashMap<String, Arc<Provider>>, previous: Option<&Snapshot>) -> Models {
    let mut models = Models::default();
    for written in &config.models {
        let kept = previous.and_then(|previous| previous.models.named(written.model_type, &written.name));
        let rotation = kept.map_or_else(Arc::default, |model| Arc::clone(&model.rotation));
        models.insert(written.model_type, model(written, providers, rotation));
    }
    for (name, provider) in providers {
        let kept = previous.and_then(|previous| previous.models.direct.get(name));
        let rotation = kept.map_or_else(Arc::default, |model| Arc::clone(&model.rotation));
        models.direct.insert(name.clone(), Arc::new(direct(provider, rotation)));
    }
    models
}

fn model(written: &config::Model, providers: &HashMap<String, Arc<Provider>>, rotation: Arc<Rotation>) -> Model {
    let mut made = Model {
        header: HeaderValue::from_str(&written.name).ok().filter(|_| !written.name.contains('*')),
        name: written.name.clone(),
        model_type: Some(written.model_type),
        targets: Vec::new(),
        shares: Vec::new(),
        policy: match written.balance {
            Balance::RoundRobin => balance::Policy::RoundRobin,
            _ => balance::Policy::Weighted,
        },
        rotation,
        timeouts: Clocks::from(&written.timeouts),
        retries: retry::Policy { max: written.retries.max },
    };
    for target in &written.targets {
        if let Some(provider) = providers.get(&target.provider) {
            add_target(&mut made, target, provider);
        }
    }
    made
}

/// A target with each credential that it may use; its weight is split among them.
fn add_target(model: &mut Model, written: &config::Target, provider: &Arc<Provider>) {
    let wanted = |credential: &&Arc<Credential>| {
        written.credential.is_none() || written.credential.as_deref() == credential.id.as_deref()
    };
    let credentials: Vec<_> = provider.credentials.iter().filter(wanted).collect();
    let total: u64 = credentials.iter().map(|credential| credential.weight).sum();
    for credential in credentials {
        let share = u64::from(written.weight) * WEIGHT_SCALE * credential.weight / total.max(1);
        model.shares.push(balance::Candidate { tier: written.tier, weight: share });
        model.targets.push(Target {
            provider: Arc::clone(provider),
            credential: Arc::clone(credential),
            model: upstream_name(&written.model),
        });
    }
}

fn upstream_name(written: &str) -> UpstreamName {
    Pattern::of(written).map_or_else(|| UpstreamName::Fixed(written.to_owned()), UpstreamName::Filled)
}

/// `provider/model` for any model of a provider.
fn direct(provider: &Arc<Provider>, rotation: Arc<Rotation>) -> Model {
    let mut model = Model {
        name: format!("{}/*", provider.name),
        header: None,
        model_type: None,
        targets: Vec::new(),
        shares: Vec::new(),
        policy: balance::Policy::Weighted,
        rotation,
        timeouts: Clocks::from(&config::Timeouts::default()),
        retries: retry::Policy { max: config::Retries::default().max },
    };
    let any =
        config::Target { provider: provider.name.clone(), model: "*".to_owned(), tier: 0, weight: 1, credential: None };
    add_target(&mut model, &any, provider);
    model
}
