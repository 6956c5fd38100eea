//! What is publicly known of providers' models: the files of `config/catalog/`, which are in the binary.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::config::{CatalogFile, Count, ModelType};
use crate::price::Price;

/// The models of one provider by its names for them.
#[derive(Debug)]
pub struct Catalog(HashMap<String, Entry>);

/// One model.
#[derive(Debug)]
pub struct Entry {
    /// What it is for.
    pub model_type: ModelType,
    /// What it costs, if that is known.
    pub price: Option<Price>,
    /// The most tokens that it answers with.
    pub output: Option<u64>,
}

impl Catalog {
    /// The models of the providers of this kind or preset; `None` where nothing is known of them.
    #[must_use]
    pub fn of(kind: &str) -> Option<&'static Self> {
        static CATALOGS: OnceLock<HashMap<&'static str, Catalog>> = OnceLock::new();
        let read = || CatalogFile::built_in().map(|(kind, file)| (kind, Self::from(file))).collect();
        CATALOGS.get_or_init(read).get(kind)
    }

    /// The models for that.
    pub fn names(&self, wanted: ModelType) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, entry)| entry.model_type == wanted).map(|(name, _)| name.as_str())
    }

    /// What is known of the model of that name.
    #[must_use]
    pub fn get(&self, model: &str) -> Option<&Entry> {
        self.0.get(model)
    }
}

impl From<CatalogFile> for Catalog {
    fn from(file: CatalogFile) -> Self {
        let entry = |model: crate::config::CatalogModel| Entry {
            model_type: model.model_type,
            price: model.pricing.as_ref().map(Price::from),
            output: model.output.map(Count::get),
        };
        Self(file.models.into_iter().map(|(name, model)| (name, entry(model))).collect())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use adapters::Usage;

    use super::*;

    #[test]
    fn a_price_of_the_catalog_is_for_a_million_tokens() {
        let sonnet = Catalog::of("anthropic").unwrap().get("claude-sonnet-4-6").unwrap();
        let usage = Usage { input_tokens: 1_000_000, ..Usage::default() };
        let cost = sonnet.price.as_ref().unwrap().cost(&Usage { input_tokens: 1_000, ..usage }).unwrap();
        assert!((100_000..100_000_000).contains(&cost), "{cost} nano-dollars for a thousand tokens");
        assert!(sonnet.output.unwrap() >= 1_000 && Catalog::of("nobody").is_none());
    }
}
