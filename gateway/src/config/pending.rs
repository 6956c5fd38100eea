//! What a configuration may say and this version does not do yet: it is named when the configuration is loaded, and never
//! ignored in silence.

use super::fault::Fault;
use super::file::{Balance, Config, Credential, Limits, LogBodies, Model, Tenant};

/// One warning for each setting that has no effect yet.
pub(super) fn found(config: &Config) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut tell = |path: String, set: bool| {
        if set {
            found.push(warning(path));
        }
    };
    tell("store.redis".to_owned(), config.store.redis.is_some());
    tell("observability.otlp".to_owned(), config.observability.otlp.is_some());
    tell("observability.log_bodies".to_owned(), config.observability.log_bodies != LogBodies::None);
    for (name, provider) in &config.providers {
        for credential in &provider.credentials {
            tell(
                format!("providers.{name}.credentials.{}: rpm, tpm, concurrent", credential.id),
                is_limited(credential),
            );
        }
    }
    for model in &config.models {
        settings_of_model(model).into_iter().for_each(|(name, set)| tell(format!("models.{}.{name}", model.name), set));
    }
    for tenant in &config.tenants {
        settings_of_tenant(tenant)
            .into_iter()
            .for_each(|(name, set)| tell(format!("tenants.{}.{name}", tenant.id), set));
    }
    found
}

fn warning(path: String) -> Fault {
    let message = "this version of Weir reads this setting, but it has no effect yet".to_owned();
    Fault { place: None, path, message, help: None }
}

fn is_limited(credential: &Credential) -> bool {
    credential.rpm.is_some() || credential.tpm.is_some() || credential.concurrent.is_some()
}

fn settings_of_model(model: &Model) -> [(&'static str, bool); 6] {
    let fallbacks = &model.fallbacks;
    let params = &model.params;
    [
        ("balance", matches!(model.balance, Balance::Cost | Balance::Usage)),
        ("affinity", model.affinity.is_some()),
        ("hedge", model.hedge.is_some()),
        ("on_busy", model.on_busy.is_some()),
        (
            "fallbacks",
            !(fallbacks.any.is_empty() && fallbacks.context_window.is_empty() && fallbacks.content_policy.is_empty()),
        ),
        ("params", !(params.defaults.is_empty() && params.overrides.is_empty() && params.rules.is_empty())),
    ]
}

fn settings_of_tenant(tenant: &Tenant) -> [(&'static str, bool); 5] {
    let keys = || tenant.keys.iter();
    [
        ("prefer", tenant.prefer.is_some()),
        ("providers", !tenant.providers.is_empty()),
        ("quotas", !tenant.quotas.is_empty()),
        ("limits", limits(&tenant.limits) || keys().any(|key| limits(&key.limits))),
        ("budgets", !tenant.budgets.is_empty() || keys().any(|key| !key.budgets.is_empty())),
    ]
}

fn limits(limits: &Limits) -> bool {
    limits.rpm.is_some() || limits.tpm.is_some() || limits.concurrent.is_some() || !limits.per_model.is_empty()
}
