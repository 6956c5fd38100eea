//! What a configuration may say and this version does not do yet: it is named when the configuration is loaded, and never
//! ignored in silence.

use super::fault::Fault;
use super::file::{Config, LogBodies, Model};

/// One warning for each setting that has no effect yet.
pub(super) fn found(config: &Config) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut tell = |path: String, set: bool| {
        if set {
            found.push(warning(path));
        }
    };
    tell("observability.otlp".to_owned(), config.observability.otlp.is_some());
    tell("observability.log_bodies".to_owned(), config.observability.log_bodies != LogBodies::None);
    for model in &config.models {
        settings_of_model(model).into_iter().for_each(|(name, set)| tell(format!("models.{}.{name}", model.name), set));
    }
    found
}

fn warning(path: String) -> Fault {
    let message = "this version of Weir reads this setting, but it has no effect yet".to_owned();
    Fault { place: None, path, message, help: None }
}

fn settings_of_model(model: &Model) -> [(&'static str, bool); 1] {
    let params = &model.params;
    [("params", !(params.defaults.is_empty() && params.overrides.is_empty() && params.rules.is_empty()))]
}
