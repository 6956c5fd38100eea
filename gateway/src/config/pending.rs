//! What a configuration may say and this version does not do yet: it is named when the configuration is loaded, and never
//! ignored in silence.

use super::fault::Fault;
use super::file::{Config, Credential, LogBodies, Model, Pricing, Provider};

/// One warning for each setting that has no effect yet.
pub(super) fn found(config: &Config) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut tell = |path: String, set: bool| {
        if set {
            found.push(warning(path));
        }
    };
    settings(config).into_iter().for_each(|(name, set)| tell(name.to_owned(), set));
    for (name, provider) in &config.providers {
        let at = format!("providers.{name}");
        settings_of_provider(provider).into_iter().for_each(|(name, set)| tell(format!("{at}.{name}"), set));
        for credential in &provider.credentials {
            let at = format!("{at}.credentials.{}", credential.id);
            settings_of_credential(credential).into_iter().for_each(|(name, set)| tell(format!("{at}.{name}"), set));
        }
    }
    for model in &config.models {
        settings_of_model(model).into_iter().for_each(|(name, set)| tell(format!("models.{}.{name}", model.name), set));
    }
    found
}

fn warning(path: String) -> Fault {
    let message = "this version of Weir reads this setting, but it has no effect yet".to_owned();
    Fault { place: None, path, message, help: None }
}

fn settings(config: &Config) -> [(&'static str, bool); 3] {
    [
        ("store.master_key", config.store.master_key.is_some()),
        ("observability.otlp", config.observability.otlp.is_some()),
        ("observability.log_bodies", config.observability.log_bodies != LogBodies::None),
    ]
}

fn settings_of_provider(provider: &Provider) -> [(&'static str, bool); 3] {
    [
        ("region", provider.region.is_some()),
        ("project", provider.project.is_some()),
        ("organization", provider.organization.is_some()),
    ]
}

fn settings_of_credential(credential: &Credential) -> [(&'static str, bool); 4] {
    [
        ("access_key_id", credential.access_key_id.is_some()),
        ("secret_access_key", credential.secret_access_key.is_some()),
        ("session_token", credential.session_token.is_some()),
        ("service_account", credential.service_account.is_some()),
    ]
}

fn settings_of_model(model: &Model) -> [(&'static str, bool); 2] {
    let prices_more = model.pricing.as_ref().is_some_and(prices_more);
    let prices_more = ("pricing: per_image, per_second, per_character, per_search_unit", prices_more);
    [("type", !model.model_type.is_served()), prices_more]
}

/// Whether it prices what no endpoint of this version counts.
fn prices_more(pricing: &Pricing) -> bool {
    let units = [pricing.per_image, pricing.per_second, pricing.per_character, pricing.per_search_unit];
    units.iter().any(Option::is_some)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use crate::config::parse_str;

    #[test]
    fn the_example_is_told_of_just_what_has_no_effect() {
        let example = include_str!("../../../config/weir.example.yaml");
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
        let of_credential = of_credential.map(|name| format!("providers.openai.credentials.a.{name}"));
        let first = ["store.master_key", "observability.otlp", "observability.log_bodies"];
        let of_provider = ["providers.openai.region", "providers.openai.project", "providers.openai.organization"];
        let of_model = ["models.m.type", "models.m.pricing: per_image, per_second, per_character, per_search_unit"];
        let of_credential: Vec<_> = of_credential.iter().map(String::as_str).collect();
        assert_eq!(paths, [&first[..], &of_provider, &of_credential, &of_model].concat());
    }

    #[test]
    fn a_model_of_a_type_without_an_endpoint_is_told() {
        let text = "providers: {openai: {credentials: [{id: a, api_key: env:K}]}}
models: [{name: m, type: tts, targets: [{provider: openai, model: x}]}]
tenants: []";
        let pending = parse_str("weir.yaml", text).unwrap().pending;
        assert_eq!(pending.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["models.m.type"]);
    }
}
