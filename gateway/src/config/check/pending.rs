//! What a configuration may say and this version does not do yet: it is named when the configuration is loaded, and never
//! ignored in silence.

use super::{At, Check};
use crate::config::MOST_FAULTS;
use crate::config::file::{Config, Credential, LogBodies, Model, Pricing, Provider};

/// Names each setting that has no effect yet.
pub(super) fn pending(check: &mut Check<'_>, top: &At<'_>) {
    let config = check.config;
    let (store, observability) = (top.key("store"), top.key("observability"));
    tell(check, &store, [("master_key", config.store.master_key.is_some())]);
    tell(check, &observability, of_observability(config));
    let providers = top.key("providers");
    for (name, provider) in &config.providers {
        let at = providers.key(name);
        tell(check, &at, of_provider(provider));
        let credentials = at.key("credentials");
        for (i, credential) in provider.credentials.iter().enumerate() {
            tell(check, &credentials.index(i), of_credential(credential));
        }
    }
    let models = top.key("models");
    for (i, model) in config.models.iter().enumerate() {
        let at = models.index(i);
        tell(check, &at, of_model(model));
        tell(check, &at.key("pricing"), model.pricing.as_ref().map(of_pricing).into_iter().flatten());
    }
}

fn tell(check: &mut Check<'_>, at: &At<'_>, settings: impl IntoIterator<Item = (&'static str, bool)>) {
    let room = MOST_FAULTS.saturating_sub(check.findings.pending.len());
    for (name, _) in settings.into_iter().filter(|(_, is_set)| *is_set).take(room) {
        let message = "this version of Weir reads this setting, but it has no effect yet".to_owned();
        let found = check.found(&at.key(name), message, None);
        check.findings.pending.push(found);
    }
}

fn of_observability(config: &Config) -> [(&'static str, bool); 2] {
    let observability = &config.observability;
    [("otlp", observability.otlp.is_some()), ("log_bodies", observability.log_bodies != LogBodies::None)]
}

fn of_provider(provider: &Provider) -> [(&'static str, bool); 3] {
    [
        ("region", provider.region.is_some()),
        ("project", provider.project.is_some()),
        ("organization", provider.organization.is_some()),
    ]
}

fn of_credential(credential: &Credential) -> [(&'static str, bool); 4] {
    [
        ("access_key_id", credential.access_key_id.is_some()),
        ("secret_access_key", credential.secret_access_key.is_some()),
        ("session_token", credential.session_token.is_some()),
        ("service_account", credential.service_account.is_some()),
    ]
}

fn of_model(model: &Model) -> [(&'static str, bool); 1] {
    [("type", !model.model_type.is_served())]
}

/// Prices of what no endpoint of this version counts.
fn of_pricing(pricing: &Pricing) -> [(&'static str, bool); 4] {
    [
        ("per_image", pricing.per_image.is_some()),
        ("per_second", pricing.per_second.is_some()),
        ("per_character", pricing.per_character.is_some()),
        ("per_search_unit", pricing.per_search_unit.is_some()),
    ]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use crate::config::parse_str;

    #[test]
    fn the_example_is_told_of_just_what_has_no_effect() {
        let example = include_str!("../../../../config/weir.example.yaml");
        let pending = parse_str("weir.example.yaml", example).unwrap().pending;
        let paths: Vec<_> = pending.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["store.master_key"]);
    }

    #[test]
    fn each_setting_without_an_effect_is_told_where_it_stands() {
        let text = "providers:
  openai:
    region: eu
    project: p
    organization: o
    credentials: [{id: a, access_key_id: env:A, secret_access_key: env:B, session_token: env:C, service_account: env:D}]
models:
  - {name: m, type: image, targets: [{provider: openai, model: x}], pricing: {per_image: 1}}
tenants: []
store: {master_key: env:M}
observability: {otlp: 'http://127.0.0.1:4317', log_bodies: errors}";
        let pending = parse_str("weir.yaml", text).unwrap().pending;
        let paths: Vec<_> = pending.iter().map(|fault| fault.path.as_str()).collect();
        let of_credential = ["access_key_id", "secret_access_key", "session_token", "service_account"];
        let of_credential = of_credential.map(|name| format!("providers.openai.credentials[0].{name}"));
        let last = ["store.master_key", "observability.otlp", "observability.log_bodies"];
        let of_provider = ["providers.openai.region", "providers.openai.project", "providers.openai.organization"];
        let of_model = ["models[0].type", "models[0].pricing.per_image"];
        let of_credential: Vec<_> = of_credential.iter().map(String::as_str).collect();
        assert_eq!(paths, [&of_provider[..], &of_credential, &of_model, &last].concat());
        let places: Vec<_> = pending.iter().map(|fault| fault.place.as_ref().unwrap().to_string()).collect();
        assert_eq!((&*places[0], &*places[7]), ("weir.yaml:3:13", "weir.yaml:8:21"));
    }

    #[test]
    fn a_model_of_a_type_without_an_endpoint_is_told() {
        let text = "providers: {openai: {credentials: [{id: a, api_key: env:K}]}}
models: [{name: m, type: tts, targets: [{provider: openai, model: x}]}]
tenants: []";
        let pending = parse_str("weir.yaml", text).unwrap().pending;
        assert_eq!(pending.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["models[0].type"]);
    }
}
