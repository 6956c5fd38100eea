//! One consistent view of the configuration, immutable once built, with every lookup that a request needs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adapters::Request;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::access::{Guesses, Key, Keys, Tenant};
use crate::balance::LbModelManager;
use crate::config::{self, Fallbacks, Timeouts, Unsupported, WhenAllCool};
use crate::error::{Fault, Kind};
use crate::hedge::Hedge;
use crate::limit::{Queue, Ratio};
use crate::model::Type;
use crate::model::affinity::{Affinity, Relation};
use crate::model::direct::{Namesake, Namesakes};
use crate::model::instance::ModelInstance;
use crate::model::names::Names;
use crate::model::pattern::Pattern;
use crate::model::provider::{Credential, Provider};
use crate::model::source::ModelStatus;
use crate::params::{Adjusted, Params};
use crate::price::Prices;
use crate::retry;

/// All that requests look up.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the reloads.
    pub generation: u64,
    /// The configuration's hash, the same on every node that read the same files.
    pub hash: String,
    /// The largest body that is taken.
    pub max_body: u64,
    /// Who may call.
    pub keys: Keys,
    /// How often an address may try wrong keys; `None`: for ever. Kept over reloads.
    pub guesses: Option<Arc<Guesses>>,
    /// The tenants by their ids.
    pub tenants: HashMap<String, Arc<Tenant>>,
    /// What callers ask for.
    pub models: Models,
    /// All that may be listed of it, by name; made when somebody first asks.
    pub listed: OnceLock<Vec<Listed>>,
    /// How many new rounds of tries all requests together may begin; kept over reloads.
    pub rounds: Arc<retry::Budget>,
}

/// A model in the list of all.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What callers are told of it.
    pub told: Bytes,
}

/// The models by type and name.
#[derive(Debug, Default)]
pub struct Models {
    pub(super) exact: HashMap<Type, HashMap<String, Arc<Model>>>,
    pub(super) wild: HashMap<Type, Wildcards>,
    /// `provider/model` for each provider, whatever the type.
    pub(super) direct: HashMap<String, Arc<Model>>,
    /// What else names a target that is asked for so.
    namesakes: Namesakes,
}

/// Models with a `*`, found by what stands before it; the longest that fits wins.
#[derive(Debug, Default)]
pub(super) struct Wildcards {
    by_prefix: HashMap<String, Vec<(Pattern, Arc<Model>)>>,
    lengths: Vec<usize>,
}

/// A model.
#[derive(Debug)]
pub struct Model {
    /// Its name in the configuration, the `*` included: what metrics call it.
    pub name: String,
    /// The same as a header's value, where it has no `*`.
    pub header: Option<HeaderValue>,
    /// What it is for; `None` for a provider's own names.
    pub model_type: Option<Type>,
    /// Where its requests can go: each target with each of its credentials.
    pub targets: Vec<Target>,
    /// What makes its requests related.
    pub relation: Relation,
    /// Where related ones went; kept over reloads.
    pub affinity: Arc<Affinity>,
    /// Whether it is a tenant's own version.
    pub is_own: bool,
    /// Whether a target is left out because none of its credentials is enabled.
    pub is_removed: bool,
    /// What picks among them; its candidates are the targets, in the same order.
    pub balance: LbModelManager,
    /// The same for each name, where the model's own has a `*` that its targets take over.
    pub names: Option<Names>,
    /// How long each part may take.
    pub timeouts: Clocks,
    /// How often it is tried.
    pub retries: retry::Policy,
    /// How many bytes of a request make a token; kept over reloads.
    pub ratio: Arc<Ratio>,
    /// A wait when every slot is taken.
    pub queue: Option<Queue>,
    /// When a second target is asked.
    pub hedge: Option<Arc<Hedge>>,
    /// What happens when all targets cool.
    pub when_all_cool: WhenAllCool,
    /// How long is waited for them at most, where that is what happens.
    pub longest_wait: Duration,
    /// Who takes over.
    pub fallbacks: Fallbacks,
    /// What it makes of its requests' parameters; `None`: nothing.
    pub params: Option<Params>,
    /// What becomes of a parameter that a target does not take.
    pub unsupported: Unsupported,
}

/// How long each part of a request may take; `None`: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// To connect, TLS included.
    pub connect: Duration,
    /// The longest silence of a stream before its first content.
    pub first_byte: Option<Duration>,
    /// Between two reads of the answer.
    pub idle: Option<Duration>,
    /// From the first attempt to the end of the answer.
    pub total: Option<Duration>,
    /// Silence before a stream's head and a comment go out.
    pub keepalive: Option<Duration>,
}

/// A connect without a limit of its own still ends.
const LONGEST_CONNECT: Duration = Duration::from_secs(60);

impl From<&Timeouts> for Clocks {
    fn from(timeouts: &Timeouts) -> Self {
        let limit = |duration: crate::config::Duration| Some(duration.get()).filter(|limit| !limit.is_zero());
        Self {
            connect: limit(timeouts.connect).unwrap_or(LONGEST_CONNECT),
            first_byte: limit(timeouts.first_byte),
            idle: limit(timeouts.idle),
            total: limit(timeouts.total),
            keepalive: limit(timeouts.keepalive),
        }
    }
}

/// One place where requests can go, with one credential.
#[derive(Debug)]
pub struct Target {
    /// Whose.
    pub provider: Arc<Provider>,
    /// With which credential.
    pub credential: Arc<Credential>,
    /// The provider's name for the model.
    pub model: UpstreamName,
    /// What it costs.
    pub prices: Prices,
}

/// A provider's name for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamName {
    /// Always the same.
    Fixed(String),
    /// Takes over what the model's `*` stood for.
    Filled(Pattern),
}

impl UpstreamName {
    /// The name, with `rest` in the place of a `*`.
    #[must_use]
    pub fn filled(&self, rest: &str) -> Cow<'_, str> {
        match self {
            Self::Fixed(name) => Cow::Borrowed(name),
            Self::Filled(pattern) => Cow::Owned(pattern.filled(rest)),
        }
    }
}

impl Model {
    /// A request as the model wants it.
    ///
    /// # Errors
    /// A parameter that it does not allow, or misses.
    pub fn adjust<'r>(&self, request: &'r Request) -> Result<Adjusted<'r>, Fault> {
        let unchanged = || Ok(Adjusted::unchanged(request, self.unsupported));
        self.params.as_ref().map_or_else(unchanged, |params| params.adjust(request))
    }

    /// What picks among the targets where the `*` stands for `rest`; `None` where that makes no difference.
    pub(super) fn of_name(&self, rest: &str) -> Option<Arc<LbModelManager>> {
        self.names.as_ref()?.manager(rest, &self.targets, &self.balance)
    }
}

impl Snapshot {
    /// The model that `key` asked for under the name `asked` (`None`, empty or `default`: its tenant's default).
    ///
    /// # Errors
    /// 404 for a model that is not there, 400 for one of another type, 403 for one that the key may not call.
    pub fn resolve<'s>(&'s self, key: &'s Key, wanted: Type, asked: Option<&str>) -> Result<ModelInstance<'s>, Fault> {
        let asked = match asked {
            None | Some("" | "default") => Cow::Borrowed(default_model(key, wanted)?),
            Some(name) => Cow::Owned(name.to_owned()),
        };
        let found = self.models.find(wanted, &asked).ok_or_else(|| self.not_found(wanted, &asked));
        refuse_forbidden(key, &asked, found.is_ok())?;
        let (model, rest) = found?;
        let namesakes = self.models.namesakes(model, &asked);
        refuse_disabled(key, &asked, &namesakes)?;
        let model = key.tenant.own.version_of(model).map_or(model, Arc::as_ref);
        Ok(ModelInstance::new(model, asked, rest, &key.tenant).with_namesakes(namesakes))
    }

    /// Whether `key` may call the model of that name.
    ///
    /// # Errors
    /// 403.
    pub fn check_allowed(&self, key: &Key, name: &str) -> Result<(), Fault> {
        refuse_forbidden(key, name, true)?;
        let namesakes = self.models.any(name).map(|model| self.models.namesakes(model, name));
        refuse_disabled(key, name, &namesakes.unwrap_or_default())
    }

    fn not_found(&self, wanted: Type, name: &str) -> Fault {
        if let Some(other) = self.models.type_of(name) {
            let message = format!("The model `{name}` is of type {other}; this endpoint needs {wanted}.");
            return Fault::request(StatusCode::BAD_REQUEST, "wrong_model_type", message).of_param("model");
        }
        let message = format!("The model `{name}` does not exist or this key may not call it.");
        Fault::request(StatusCode::NOT_FOUND, "model_not_found", message).of_param("model")
    }
}

fn default_model(key: &Key, wanted: Type) -> Result<&str, Fault> {
    key.tenant.defaults.get(&wanted).map(String::as_str).ok_or_else(|| {
        let message = format!("`model` is missing, and no default model of type {wanted} is set.");
        Fault::request(StatusCode::BAD_REQUEST, "invalid_request", message).of_param("model")
    })
}

/// A model that is there but not this key's is forbidden; one that is not there is not found, even where a list would
/// forbid it.
fn refuse_forbidden(key: &Key, name: &str, exists: bool) -> Result<(), Fault> {
    let forbidden =
        |code, message| Err(Fault::new(Kind::PolicyForbidden, StatusCode::FORBIDDEN, code, message).of_param("model"));
    if exists && key.tenant.disabled.has(name) {
        return forbidden("model_disabled", format!("The model `{name}` is disabled."));
    }
    if exists && !key.has(name) {
        return forbidden("model_not_allowed", format!("This key may not call the model `{name}`."));
    }
    Ok(())
}

/// A target all of whose models are disabled is not to be had by its provider's name either.
fn refuse_disabled(key: &Key, name: &str, namesakes: &[Namesake<'_>]) -> Result<(), Fault> {
    let is_disabled = |namesake: &Namesake<'_>| key.tenant.disabled.has(&namesake.name);
    if namesakes.is_empty() || !namesakes.iter().all(is_disabled) {
        return Ok(());
    }
    ModelStatus::Disabled.fault(name).map_or(Ok(()), Err)
}

type Found<'s> = (&'s Model, Option<(usize, usize)>);

impl Models {
    fn find(&self, wanted: Type, name: &str) -> Option<Found<'_>> {
        if let Some(model) = self.exact.get(&wanted).and_then(|models| models.get(name)) {
            return Some((model, None));
        }
        self.wild.get(&wanted).and_then(|wild| wild.find(name)).or_else(|| self.find_direct(name))
    }

    fn find_direct(&self, name: &str) -> Option<Found<'_>> {
        let (provider, model) = name.split_once('/')?;
        let found = self.direct.get(provider).filter(|_| !model.is_empty())?;
        Some((found, Some((provider.len() + 1, name.len()))))
    }

    /// The configured models that go where `model` does when it was asked for as `name`: none unless it is a provider's
    /// own.
    fn namesakes(&self, model: &Model, name: &str) -> Vec<Namesake<'_>> {
        if model.model_type.is_some() { Vec::new() } else { self.namesakes.of(name) }
    }

    fn type_of(&self, name: &str) -> Option<Type> {
        let exact = self.exact.iter().find(|(_, models)| models.contains_key(name)).map(|(kind, _)| *kind);
        exact.or_else(|| self.wild.iter().find(|(_, wild)| wild.find(name).is_some()).map(|(kind, _)| *kind))
    }

    /// The model that this name means, whatever its type.
    #[must_use]
    pub fn any(&self, name: &str) -> Option<&Model> {
        let exact = self.exact.values().find_map(|models| models.get(name)).map(Arc::as_ref);
        let wild = || self.wild.values().find_map(|wild| wild.find(name));
        exact.or_else(|| wild().or_else(|| self.find_direct(name)).map(|(model, _)| model))
    }

    /// All configured models.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Model>> {
        let wild = self.wild.values().flat_map(|wild| wild.by_prefix.values().flatten().map(|(_, model)| model));
        self.exact.values().flat_map(HashMap::values).chain(wild)
    }

    /// Those that stand for any model of a provider.
    pub fn direct(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.direct.values()
    }

    /// The configured model of that type and name, the `*` included.
    #[must_use]
    pub fn named(&self, wanted: Type, name: &str) -> Option<&Arc<Model>> {
        match Pattern::of(name) {
            None => self.exact.get(&wanted)?.get(name),
            Some(pattern) => self.wild.get(&wanted)?.named(&pattern),
        }
    }

    pub(super) fn insert(&mut self, written: &config::Model, model: Model, providers: &HashMap<String, Arc<Provider>>) {
        let (wanted, model) = (written.model_type, Arc::new(model));
        self.namesakes.insert(&model, written, providers);
        match Pattern::of(&model.name) {
            None => drop(self.exact.entry(wanted).or_default().insert(model.name.clone(), model)),
            Some(pattern) => self.wild.entry(wanted).or_default().insert(pattern, model),
        }
    }
}

impl Wildcards {
    fn insert(&mut self, pattern: Pattern, model: Arc<Model>) {
        let length = pattern.prefix().len();
        if let Err(place) = self.lengths.binary_search_by(|known| length.cmp(known)) {
            self.lengths.insert(place, length);
        }
        self.by_prefix.entry(pattern.prefix().to_owned()).or_default().push((pattern, model));
    }

    fn find(&self, name: &str) -> Option<Found<'_>> {
        self.lengths.iter().filter_map(|length| name.get(..*length)).find_map(|prefix| {
            let candidates = self.by_prefix.get(prefix)?;
            candidates.iter().find_map(|(pattern, model)| {
                let rest = pattern.rest(name)?;
                Some((model.as_ref(), Some((prefix.len(), prefix.len() + rest.len()))))
            })
        })
    }

    fn named(&self, wanted: &Pattern) -> Option<&Arc<Model>> {
        self.by_prefix.get(wanted.prefix())?.iter().find(|(pattern, _)| pattern == wanted).map(|(_, model)| model)
    }
}
