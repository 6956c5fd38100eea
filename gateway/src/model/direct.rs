//! `provider/model`: a target by its provider's own name. What is configured for the models that go to that very target
//! holds for it too, so that nobody escapes a price, a limit or a refusal by asking for it under another name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config;
use crate::model::pattern::Pattern;
use crate::model::provider::Provider;
use crate::model::snapshot::Model;
use crate::price::Prices;

/// The configured models by what they go to, whoever has a credential for it.
#[derive(Debug, Default)]
pub(super) struct Namesakes {
    /// By `provider/model`.
    exact: HashMap<String, Vec<Way>>,
    /// By the provider: those whose target has a `*`.
    wild: HashMap<String, Vec<(Pattern, Way)>>,
}

/// A configured model, and what it costs where it goes.
#[derive(Debug)]
struct Way {
    model: Arc<Model>,
    prices: Prices,
}

/// A configured model that goes to a target which was asked for directly.
#[derive(Clone, Debug)]
pub(super) struct Namesake<'s> {
    /// The name by which it would go there.
    pub(super) name: Cow<'s, str>,
    /// The model.
    pub(super) model: &'s Model,
    prices: &'s Prices,
}

impl Namesakes {
    pub(super) fn insert(
        &mut self,
        model: &Arc<Model>,
        written: &config::Model,
        providers: &HashMap<String, Arc<Provider>>,
    ) {
        for target in &written.targets {
            let catalog = providers.get(&target.provider).and_then(|provider| provider.catalog);
            let prices = Prices::new(written.pricing.as_ref(), catalog, &target.model);
            let way = Way { model: Arc::clone(model), prices };
            match Pattern::of(&target.model) {
                None => self.exact.entry(format!("{}/{}", target.provider, target.model)).or_default().push(way),
                Some(pattern) => self.wild.entry(target.provider.clone()).or_default().push((pattern, way)),
            }
        }
    }

    /// Those of the target that `name`, a `provider/model`, is.
    pub(super) fn of(&self, name: &str) -> Vec<Namesake<'_>> {
        let exact = self.exact.get(name).into_iter().flatten().map(|way| way.by(way.model.name.as_str()));
        let (provider, upstream) = name.split_once('/').unwrap_or_default();
        let wild = self.wild.get(provider).into_iter().flatten();
        exact.chain(wild.filter_map(|(pattern, way)| Some(way.filled(pattern.rest(upstream)?)))).collect()
    }
}

impl Way {
    fn by<'s>(&'s self, name: impl Into<Cow<'s, str>>) -> Namesake<'s> {
        Namesake { name: name.into(), model: &self.model, prices: &self.prices }
    }

    /// By the model's name with `rest` in the place of its `*`.
    fn filled(&self, rest: &str) -> Namesake<'_> {
        match Pattern::of(&self.model.name) {
            None => self.by(self.model.name.as_str()),
            Some(name) => self.by(name.filled(rest)),
        }
    }
}

impl<'s> Namesake<'s> {
    /// Of several the price that was configured for the dearest.
    pub(super) fn dearest(namesakes: &[Self], now: SystemTime) -> Option<&'s Prices> {
        let configured = namesakes.iter().filter_map(|namesake| Some((namesake.prices.configured(now)?, namesake)));
        configured.max_by_key(|(price, _)| price.effective()).map(|(_, namesake)| namesake.prices)
    }
}
