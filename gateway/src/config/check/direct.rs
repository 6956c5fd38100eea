//! Models that somebody may pass by: who may call a target by its provider's own name, `provider/model`, is held to the model's
//! price and limits all the same, but not to what the model says of its parameters and its credential.

use super::{At, Check, matches};
use crate::config::file::{Model, Target, Tenant};

/// Warns of each such model once.
pub(super) fn passed_by(check: &mut Check<'_>, models: &At<'_>) {
    let config = check.config;
    let tenants: Vec<_> = config.tenants.iter().filter(|tenant| may_call_others(tenant)).collect();
    for (i, model) in config.models.iter().enumerate() {
        let found = model.targets.iter().find_map(|target| {
            let passed = passed(check, model, target)?;
            let name = format!("{}/{}", target.provider, target.model);
            let is_its_own = check.names.is_configured(&name, model.model_type);
            let tenant = tenants.iter().find(|tenant| !is_its_own && may_call(tenant, &name, model))?;
            Some((name, passed, tenant.id.as_str()))
        });
        let Some((name, passed, tenant)) = found else { continue };
        check.warn(
            &models.index(i),
            format!("tenant `{tenant}` may call `{name}` too, and {passed} does not hold there"),
            format!("give the tenant a list of `models`, or put `{name}` into its `disabled_models`"),
        );
    }
}

/// What a request does not meet that goes straight to the target.
fn passed(check: &Check<'_>, model: &Model, target: &Target) -> Option<&'static str> {
    if !model.params.rules.is_empty() {
        return Some("what `params.rules` says");
    }
    if !model.params.overrides.is_empty() {
        return Some("what `params.override` says");
    }
    let provider = check.config.providers.get(&target.provider)?;
    let has_others = provider.credentials.iter().any(|other| Some(&other.id) != target.credential.as_ref());
    (target.credential.is_some() && has_others).then_some("the choice of this target's `credential`")
}

/// Whether a tenant may call anything but models that it names.
fn may_call_others(tenant: &Tenant) -> bool {
    let is_open = |names: &Option<Vec<String>>| {
        names.as_ref().is_none_or(|names| names.iter().any(|name| name.contains(['*', '/'])))
    };
    is_open(&tenant.models) && tenant.keys.iter().any(|key| is_open(&key.models))
}

/// Who may not call the model may not call its target by another name either.
fn may_call(tenant: &Tenant, name: &str, model: &Model) -> bool {
    let has = |names: &[String]| names.iter().any(|known| matches(known, name) || matches(name, known));
    let may = |names: &Option<Vec<String>>| names.as_deref().is_none_or(has);
    let is_disabled =
        tenant.disabled_models.iter().any(|disabled| matches(disabled, name) || matches(disabled, &model.name));
    !is_disabled && may(&tenant.models) && tenant.keys.iter().any(|key| may(&key.models))
}
