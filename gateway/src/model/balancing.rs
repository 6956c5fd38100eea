//! Makes the models of a snapshot: their targets with all credentials, and what picks among them.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;

use crate::balance::{self, Candidate, LbModelManager, Registry, Rules};
use crate::bill;
use crate::config::{self, Balance, Config, CredentialSource, Health};
use crate::hedge::Hedge;
use crate::model::Type;
use crate::model::affinity::Relation;
use crate::model::names::Names;
use crate::model::pattern::Pattern;
use crate::model::provider::{Credential, Provider};
use crate::model::snapshot::{Clocks, Model, Models, Snapshot, Target, UpstreamName};
use crate::params::Params;
use crate::price::Prices;
use crate::retry;

/// Weights are multiplied by this before they are split among credentials, so that small ones stay exact.
const WEIGHT_SCALE: u64 = 1 << 20;

/// Makes the models.
pub(super) struct Balancing<'a> {
    registry: &'a Arc<Registry>,
    rules: Arc<Rules>,
    health: &'a Health,
    previous: Option<&'a Snapshot>,
}

/// A provider as a tenant calls it with credentials of its own.
pub(super) struct Own {
    pub(super) provider: Arc<Provider>,
    /// Whose credentials that tenant wants to be used first.
    pub(super) preferred: CredentialSource,
}

/// A tenant's own versions of models, by type and name: those that its own credentials take part in.
#[derive(Debug, Default)]
pub struct OwnModels(HashMap<Option<Type>, HashMap<String, Arc<Model>>>);

impl OwnModels {
    /// The tenant's version of `model`.
    #[must_use]
    pub fn version_of(&self, model: &Model) -> Option<&Arc<Model>> {
        self.0.get(&model.model_type)?.get(&model.name)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.0.values().flat_map(HashMap::values)
    }

    /// Those that the configuration names.
    pub fn configured(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.all().filter(|model| model.model_type.is_some())
    }

    fn insert(&mut self, model: Model) {
        self.0.entry(model.model_type).or_default().insert(model.name.clone(), Arc::new(model));
    }
}

/// Where credentials come from: the operator's providers, and those of a tenant.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) providers: &'a HashMap<String, Arc<Provider>>,
    pub(super) own: &'a HashMap<String, Own>,
}

impl<'a> Sources<'a> {
    /// The provider of that name, once for each whose credentials may be used, in the order of use.
    fn of(self, name: &str) -> Vec<&'a Arc<Provider>> {
        let shared = self.providers.get(name);
        let Some(own) = self.own.get(name) else {
            return shared.into_iter().collect();
        };
        // Where there is no credential of the operator's, none is not one.
        let shared = shared.filter(|shared| shared.credentials.iter().any(|credential| credential.id.is_some()));
        match own.preferred {
            CredentialSource::Custom => std::iter::once(&own.provider).chain(shared).collect(),
            CredentialSource::System => shared.into_iter().chain(std::iter::once(&own.provider)).collect(),
        }
    }

    fn is_own(self, written: &config::Model) -> bool {
        written.targets.iter().any(|target| self.own.contains_key(&target.provider))
    }
}

impl<'a> Balancing<'a> {
    pub(super) fn new(registry: &'a Arc<Registry>, health: &'a Health, previous: Option<&'a Snapshot>) -> Self {
        let rules = Arc::new(rules(health));
        registry.cool_at_most(rules.longest);
        Self { registry, rules, health, previous }
    }

    /// The models as all tenants without credentials of their own call them.
    pub(super) fn all(&self, config: &Config, providers: &HashMap<String, Arc<Provider>>) -> Models {
        let sources = Sources { providers, own: &HashMap::new() };
        let mut models = Models::default();
        for written in &config.models {
            let kept = self.previous.and_then(|previous| previous.models.named(written.model_type, &written.name));
            models.insert(written, self.model(written, sources, kept), providers);
        }
        for name in providers.keys() {
            let kept = self.previous.and_then(|previous| previous.models.direct.get(name));
            models.direct.insert(name.clone(), Arc::new(self.direct(name, sources, kept)));
        }
        models
    }

    /// The versions of the models that a tenant calls with credentials of its own.
    pub(super) fn own(&self, config: &Config, shared: &Models, sources: Sources<'_>, tenant: &str) -> OwnModels {
        let before = self.previous.and_then(|previous| previous.tenants.get(tenant));
        let mut own = OwnModels::default();
        for written in config.models.iter().filter(|written| sources.is_own(written)) {
            let Some(shared) = shared.named(written.model_type, &written.name) else {
                continue;
            };
            let kept = before.and_then(|tenant| tenant.own.version_of(shared)).unwrap_or(shared);
            own.insert(Model { is_own: true, ..self.model(written, sources, Some(kept)) });
        }
        for name in sources.own.keys() {
            let Some(shared) = shared.direct.get(name) else {
                continue;
            };
            let kept = before.and_then(|tenant| tenant.own.version_of(shared)).unwrap_or(shared);
            own.insert(Model { is_own: true, ..self.direct(name, sources, Some(kept)) });
        }
        own
    }

    fn model(&self, written: &config::Model, sources: Sources<'_>, kept: Option<&Arc<Model>>) -> Model {
        let mut pool = Pool::new(self.registry);
        for target in &written.targets {
            pool.add_all(target, written.pricing.as_ref(), sources);
        }
        let balance = self.manager(policy(written.balance), pool.candidates, kept);
        Model {
            header: HeaderValue::from_str(&written.name).ok().filter(|_| !written.name.contains('*')),
            name: written.name.clone(),
            model_type: Some(written.model_type),
            names: self.names(&pool.targets, &balance, kept),
            balance,
            targets: pool.targets,
            relation: Relation::new(written.affinity.as_ref()),
            affinity: kept.map_or_else(Arc::default, |model| Arc::clone(&model.affinity)),
            is_own: false,
            is_removed: pool.is_removed,
            timeouts: Clocks::from(&written.timeouts),
            retries: retries(&written.retries),
            ratio: kept.map_or_else(Arc::default, |model| Arc::clone(&model.ratio)),
            queue: written.on_busy.as_ref().map(bill::queue),
            hedge: written
                .hedge
                .as_ref()
                .map(|hedge| Arc::new(Hedge::new(hedge, kept.and_then(|model| model.hedge.as_deref())))),
            fallbacks: written.fallbacks.clone(),
            when_all_cool: written.when_all_cool.unwrap_or(self.health.when_all_cool),
            longest_wait: self.health.max_wait.get(),
            params: Params::of(&written.params),
            unsupported: written.params.unsupported,
        }
    }

    /// `provider/model` for any model of a provider.
    fn direct(&self, provider: &str, sources: Sources<'_>, kept: Option<&Arc<Model>>) -> Model {
        let written = config::Model::plain(format!("{provider}/*"), provider.to_owned(), "*".to_owned());
        Model { model_type: None, ..self.model(&written, sources, kept) }
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
struct Pool<'a> {
    registry: &'a Registry,
    targets: Vec<Target>,
    candidates: Vec<Candidate>,
    /// Whether a target is left out because none of its credentials is enabled.
    is_removed: bool,
}

impl<'a> Pool<'a> {
    fn new(registry: &'a Registry) -> Self {
        Self { registry, targets: Vec::new(), candidates: Vec::new(), is_removed: false }
    }

    /// Adds a target with all the credentials that it may use.
    fn add_all(&mut self, written: &config::Target, pricing: Option<&config::Pricing>, sources: Sources<'_>) {
        for (rank, provider) in (0..).zip(sources.of(&written.provider)) {
            self.is_removed |= provider.is_removed;
            self.add(written, provider, pricing, rank);
        }
    }

    /// Adds a target with each credential of `provider` that it may use; its weight is split among them.
    fn add(
        &mut self,
        written: &config::Target,
        provider: &Arc<Provider>,
        pricing: Option<&config::Pricing>,
        rank: u32,
    ) {
        let prices = Prices::new(pricing, provider.catalog, &written.model);
        let price = prices.at(&written.model, std::time::SystemTime::now()).and_then(crate::price::Price::effective);
        // A target's credential is the operator's; a tenant's own stand in for it.
        let wanted = |credential: &&Arc<Credential>| {
            let is_custom = credential.source == CredentialSource::Custom;
            is_custom || written.credential.is_none() || written.credential.as_deref() == credential.id.as_deref()
        };
        let credentials: Vec<_> = provider.credentials.iter().filter(wanted).collect();
        let total: u64 = credentials.iter().map(|credential| credential.weight).sum();
        for credential in credentials {
            let weight = u64::from(written.weight) * WEIGHT_SCALE * credential.weight / total.max(1);
            let standing = self.registry.standing(&credential.health, &written.model);
            self.candidates.push(Candidate { tier: written.tier, rank, weight, price, standing });
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
    let Health { min_samples, error_rate, cooldown, max_cooldown, .. } = written;
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
