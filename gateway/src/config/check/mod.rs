//! What the parts of a configuration mean together: names that must exist, weights that must not be nothing, chains
//! that must end, listeners that must not stand open. It knows only types; a place is looked up when there is a fault.

mod direct;
mod model;
mod pending;
mod price;
mod provider;
mod server;
mod tenant;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::SystemTime;

pub(super) use server::{NO_MASTER_KEY, is_master_key};
pub use tenant::fault_of_tenant_id;

use super::file::{Config, ModelType};
use super::preset::Manifests;
use super::read::{Found, Step, nearest, spell};
use super::tree::{Mark, Node, Value};
use super::value::Secret;

/// Looking for the nearest name stops after so many, so that a large file with many slips is still answered at once.
const MOST_COMPARED: usize = 2_000;

/// What the checking is told.
pub(super) struct Subject<'c> {
    pub(super) config: &'c Config,
    pub(super) manifests: &'c Manifests,
    pub(super) root: &'c Node<'c>,
    pub(super) now: SystemTime,
    /// Where the reading found a fault: what stands there is a placeholder, and no second fault is worth telling.
    pub(super) suspect: HashSet<String>,
}

/// Looks for all that is wrong, and adds it to `findings`.
pub(super) fn check(subject: Subject<'_>, findings: Findings) -> Findings {
    let Subject { config, manifests, root, now, suspect } = subject;
    let names = Names::of(config, &suspect);
    let mut check = Check { config, manifests, root, now, suspect, names, findings };
    let top = At::TOP;
    server::server(&mut check, &config.server, &top.key("server"));
    server::store(&mut check, &config.store, &top.key("store"));
    server::rest(&mut check, &top);
    provider::providers(&mut check, &top.key("providers"));
    model::models(&mut check, &top.key("models"));
    tenant::tenants(&mut check, &top.key("tenants"));
    price::unpriced(&mut check, &top.key("models"));
    direct::passed_by(&mut check, &top.key("models"));
    pending::pending(&mut check, &top);
    check.findings
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<Found>,
    pub(super) warnings: Vec<Found>,
    /// Settings that have no effect yet.
    pub(super) pending: Vec<Found>,
    /// Faults that were too many to keep.
    pub(super) more: usize,
}

/// The way to a value, built on the stack and spelled only when something is wrong.
#[derive(Debug, Clone, Copy)]
struct At<'a> {
    up: Option<&'a Self>,
    step: Option<Step<'a>>,
}

impl<'a> At<'a> {
    const TOP: At<'static> = At { up: None, step: None };

    fn key(&'a self, key: &'a str) -> Self {
        Self { up: Some(self), step: Some(Step::Key(key)) }
    }

    fn index(&'a self, index: usize) -> Self {
        Self { up: Some(self), step: Some(Step::Index(index)) }
    }

    fn path(&self) -> Vec<Step<'a>> {
        let mut path = self.up.map(At::path).unwrap_or_default();
        path.extend(self.step);
        path
    }
}

/// The checking in progress.
struct Check<'c> {
    config: &'c Config,
    manifests: &'c Manifests,
    root: &'c Node<'c>,
    now: SystemTime,
    suspect: HashSet<String>,
    names: Names<'c>,
    findings: Findings,
}

impl Check<'_> {
    fn fault(&mut self, at: &At<'_>, message: impl Into<String>, help: impl Into<Option<String>>) {
        if !self.has_enough() && !self.is_suspect(at) {
            let found = self.found(at, message.into(), help.into());
            self.findings.faults.push(found);
        }
    }

    /// Counts one that is not worth more work, when there are enough.
    fn has_enough(&mut self) -> bool {
        let enough = self.findings.faults.len() >= super::MOST_FAULTS;
        self.findings.more += usize::from(enough);
        enough
    }

    fn is_suspect(&self, at: &At<'_>) -> bool {
        let path = at.path();
        (0..=path.len()).any(|depth| path.get(..depth).is_some_and(|part| self.suspect.contains(&spell(part))))
    }

    fn warn(&mut self, at: &At<'_>, message: impl Into<String>, help: impl Into<Option<String>>) {
        if self.findings.warnings.len() < super::MOST_FAULTS {
            let found = self.found(at, message.into(), help.into());
            self.findings.warnings.push(found);
        }
    }

    fn found(&self, at: &At<'_>, message: String, help: Option<String>) -> Found {
        let path = at.path();
        Found { mark: place(self.root, &path), path: spell(&path), message, help }
    }

    /// Warns of a secret that is written in the file in plain text.
    fn secret(&mut self, secret: Option<&Secret>, at: &At<'_>) {
        if secret.is_some_and(Secret::is_literal) {
            let help = "keep it in the environment (`env:NAME`) or in a file (`file:/path`)".to_owned();
            self.warn(at, "this secret is written in plain text", help);
        }
    }

    /// Says which of several ids are given twice.
    fn unique<K: Hash + Eq>(
        &mut self,
        ids: impl Iterator<Item = (K, String)>,
        at: &At<'_>,
        field: &'static str,
        what: &str,
    ) {
        let mut seen: HashMap<K, usize> = HashMap::new();
        for (i, (key, id)) in ids.enumerate() {
            match seen.get(&key) {
                _ if id.is_empty() => {}
                Some(first) => {
                    let message = format!("{what} `{id}` is given twice");
                    self.fault(
                        &at.index(i).key(field),
                        message,
                        format!("the first is {}", spell(&at.index(*first).path())),
                    );
                }
                None => {
                    seen.insert(key, i);
                }
            }
        }
    }

    /// A provider of that name must be there.
    fn provider(&mut self, name: &str, at: &At<'_>) {
        if name.is_empty() || !self.names.all_providers || self.config.providers.contains_key(name) {
            return;
        }
        if self.has_enough() {
            return;
        }
        let known = self.config.providers.keys().map(String::as_str);
        let help = near(name, known).or_else(|| {
            let known = self.config.providers.keys().take(10).map(|name| format!("`{name}`")).collect::<Vec<_>>();
            (!known.is_empty()).then(|| format!("the providers are {}", known.join(", ")))
        });
        self.fault(at, format!("there is no provider `{name}`"), help);
    }

    /// A model of that name must be there, of that type if one is given. True if nothing is wrong with it.
    fn model(&mut self, name: &str, wanted: Option<ModelType>, at: &At<'_>) -> bool {
        if name.is_empty() {
            return false;
        }
        match self.names.find(name, wanted) {
            Known::Yes => return true,
            Known::OtherType(found) => {
                let wanted = wanted.map_or("", ModelType::as_str);
                self.fault(at, format!("the model `{name}` is of type {found}, not {wanted}"), None);
            }
            Known::No if !self.names.all_models || self.has_enough() => {}
            Known::No => {
                let known = self.config.models.iter().map(|model| model.name.as_str());
                self.fault(at, format!("there is no model `{name}`"), near(name, known));
            }
        }
        false
    }
}

fn near<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    nearest(name, known.take(MOST_COMPARED)).map(|known| format!("did you mean `{known}`?"))
}

/// The place of the deepest part of `path` that was written.
fn place(root: &Node<'_>, path: &[Step<'_>]) -> Mark {
    let mut node = root;
    for step in path {
        let next = match (&node.value, step) {
            (Value::Map(entries), Step::Key(name)) => {
                entries.iter().find(|(key, _)| key.text == *name).map(|(_, node)| node)
            }
            (Value::List(items), Step::Index(i)) => items.get(*i),
            (Value::Scalar { .. } | Value::List(_) | Value::Map(_), _) => None,
        };
        let Some(next) = next else { break };
        node = next;
    }
    node.mark
}

/// Whether a name is one of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    OtherType(ModelType),
    No,
}

/// The names that others refer to.
struct Names<'c> {
    config: &'c Config,
    models: HashMap<&'c str, Vec<ModelType>>,
    patterns: Vec<(&'c str, ModelType)>,
    /// What was asked before: many keys name the same few models.
    asked: HashMap<(String, Option<ModelType>), Known>,
    /// False when some name could not be read, so that one that is missing may be it.
    all_models: bool,
    all_providers: bool,
}

impl<'c> Names<'c> {
    fn of(config: &'c Config, suspect: &HashSet<String>) -> Self {
        let mut models: HashMap<&str, Vec<ModelType>> = HashMap::new();
        let mut patterns = Vec::new();
        for model in &config.models {
            models.entry(&model.name).or_default().push(model.model_type);
            if model.name.contains('*') {
                patterns.push((model.name.as_str(), model.model_type));
            }
        }
        let all_models = !models.contains_key("") && !suspect.contains("models") && !suspect.contains("");
        let all_providers = !suspect.contains("providers") && !suspect.contains("");
        Self { config, models, patterns, asked: HashMap::new(), all_models, all_providers }
    }

    /// Whether a name with a `*` is itself a model's, or a provider's for all of its models.
    fn is_one(&self, name: &str) -> bool {
        let provider = name.strip_suffix("/*");
        self.models.contains_key(name) || provider.is_some_and(|name| self.config.providers.contains_key(name))
    }

    /// Whether a model of that type takes this name.
    fn is_configured(&self, name: &str, wanted: ModelType) -> bool {
        let is_of = |types: &Vec<ModelType>| types.contains(&wanted);
        let takes = |(pattern, found): &(&str, ModelType)| *found == wanted && matches(pattern, name);
        self.models.get(name).is_some_and(is_of) || self.patterns.iter().any(takes)
    }

    fn find(&mut self, name: &str, wanted: Option<ModelType>) -> Known {
        let fits = |types: &Vec<ModelType>| wanted.is_none_or(|wanted| types.contains(&wanted));
        if self.models.get(name).is_some_and(fits) {
            return Known::Yes;
        }
        let question = (name.to_owned(), wanted);
        if let Some(known) = self.asked.get(&question) {
            return *known;
        }
        let known = self.search(name, wanted);
        self.asked.insert(question, known);
        known
    }

    fn search(&self, name: &str, wanted: Option<ModelType>) -> Known {
        let fits = |found: ModelType| wanted.is_none_or(|wanted| wanted == found);
        if self.patterns.iter().any(|(pattern, found)| fits(*found) && matches(pattern, name)) {
            return Known::Yes;
        }
        let covered = |(known, types): (&&str, &Vec<ModelType>)| matches(name, known) && types.iter().any(|t| fits(*t));
        if name.contains('*') && self.models.iter().any(covered) {
            return Known::Yes;
        }
        // `provider/model` names a model that is not listed.
        if name.split_once('/').is_some_and(|(provider, _)| self.config.providers.contains_key(provider)) {
            return Known::Yes;
        }
        self.models.get(name).and_then(|types| types.first()).map_or(Known::No, |found| Known::OtherType(*found))
    }
}

/// Whether `name` is what `pattern` says; one `*` stands for any text.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        }
    }
}
