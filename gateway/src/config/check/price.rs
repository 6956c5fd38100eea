//! Models whose price nobody knows, and that somebody with a budget may call.

use super::{At, Check, matches};
use crate::config::catalog;
use crate::config::file::{Model, ModelType, Pricing, Target, Tenant, Unpriced};

/// Warns of each such model once.
pub(super) fn unpriced(check: &mut Check<'_>, models: &At<'_>) {
    let config = check.config;
    let budgeted: Vec<_> = config.tenants.iter().filter(|tenant| has_budget(tenant)).collect();
    for (i, model) in config.models.iter().enumerate() {
        let Some(tenant) = budgeted.iter().find(|tenant| may_call(tenant, &model.name)) else {
            continue;
        };
        let Some(target) = model.targets.iter().find(|target| !is_priced(check, model, target)) else {
            continue;
        };
        let (name, tenant, comes) = (&target.model, &tenant.id, what_comes(tenant.unpriced));
        let message = format!("no price of `{name}` is known, so a budget of tenant `{tenant}` {comes}");
        check.warn(
            &models.index(i),
            message,
            "add `pricing: {input: …, output: …}`, in dollars for a million tokens".to_owned(),
        );
    }
}

fn what_comes(unpriced: Unpriced) -> &'static str {
    match unpriced {
        Unpriced::Allow => "does not count its requests",
        Unpriced::Refuse => "refuses its requests",
    }
}

fn has_budget(tenant: &Tenant) -> bool {
    !tenant.budgets.is_empty() || tenant.keys.iter().any(|key| !key.budgets.is_empty())
}

/// A pattern may call more than can be told here.
fn may_call(tenant: &Tenant, name: &str) -> bool {
    let has = |names: &[String]| names.iter().any(|known| matches(known, name));
    !name.contains('*') && tenant.models.as_deref().is_none_or(has) && !has(&tenant.disabled_models)
}

fn is_priced(check: &Check<'_>, model: &Model, target: &Target) -> bool {
    if let Some(pricing) = &model.pricing {
        return says_enough(pricing, model.model_type);
    }
    let Some(provider) = check.config.providers.get(&target.provider) else {
        return true;
    };
    let kind = provider.kind.as_deref().unwrap_or(&target.provider);
    provider.simulated || target.model.contains('*') || catalog::is_priced(kind, &target.model)
}

fn says_enough(pricing: &Pricing, of: ModelType) -> bool {
    let units =
        [pricing.per_request, pricing.per_image, pricing.per_second, pricing.per_character, pricing.per_search_unit];
    let has_output = pricing.output.is_some() || of == ModelType::TextEmbedding;
    (pricing.input.is_some() && has_output) || units.iter().any(Option::is_some)
}
