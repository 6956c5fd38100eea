//! `provider/model`: a target by its provider's own name. What is configured for the models that go to that very target holds
//! for it too, so that nobody escapes a price, a limit or a refusal by asking for it under another name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::pattern::Pattern;
use crate::model::snapshot::{Model, Target, UpstreamName};
use crate::price::Prices;

/// The configured models by the providers of their targets.
#[derive(Debug, Default)]
pub(super) struct Namesakes(HashMap<String, Vec<Arc<Model>>>);

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
    pub(super) fn insert(&mut self, model: &Arc<Model>) {
        for target in &model.targets {
            let models = self.0.entry(target.provider.name.clone()).or_default();
            if !models.iter().any(|known| Arc::ptr_eq(known, model)) {
                models.push(Arc::clone(model));
            }
        }
    }

    /// Those of the target that `name`, a `provider/model`, is.
    pub(super) fn of(&self, name: &str) -> Vec<Namesake<'_>> {
        let Some((provider, upstream)) = name.split_once('/') else {
            return Vec::new();
        };
        let models = self.0.get(provider).into_iter().flatten();
        models.filter_map(|model| Namesake::of(model, provider, upstream)).collect()
    }
}

impl<'s> Namesake<'s> {
    fn of(model: &'s Model, provider: &str, upstream: &str) -> Option<Self> {
        let of_provider = model.targets.iter().filter(|target| target.provider.name == provider);
        of_provider
            .filter_map(|target| Some((name_of(model, target, upstream)?, &target.prices)))
            .next()
            .map(|(name, prices)| Self { name, model, prices })
    }

    /// Of several the price that was configured for the dearest.
    pub(super) fn dearest(namesakes: &[Self], now: SystemTime) -> Option<&'s Prices> {
        let configured = namesakes.iter().filter_map(|namesake| Some((namesake.prices.configured(now)?, namesake)));
        configured.max_by_key(|(price, _)| price.effective()).map(|(_, namesake)| namesake.prices)
    }
}

/// The name by which `model` goes to `upstream` at that target, if it does.
fn name_of<'s>(model: &'s Model, target: &Target, upstream: &str) -> Option<Cow<'s, str>> {
    match &target.model {
        UpstreamName::Fixed(name) => (name == upstream).then_some(Cow::Borrowed(model.name.as_str())),
        UpstreamName::Filled(pattern) => {
            let rest = pattern.rest(upstream)?;
            Some(Pattern::of(&model.name).map_or(Cow::Borrowed(model.name.as_str()), |name| name.filled(rest).into()))
        }
    }
}
