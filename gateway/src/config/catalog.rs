//! The files of `config/catalog/`: what is publicly known of providers' models, with its source and date. They are in the
//! binary; `make catalog` writes them anew.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use indexmap::IndexMap;

use super::file::{ModelType, Pricing};
use super::read::{Read, Reader, section};
use super::tree::parse;
use super::value::Count;

section! {
    /// The models of one provider.
    pub struct CatalogFile {
        /// Where the figures are from.
        source: String;
        /// When they were taken from there.
        date: String;
        /// The models by the provider's names.
        models: IndexMap<String, CatalogModel>;
    }
}

section! {
    /// A model.
    pub struct CatalogModel {
        /// What it is for.
        model_type as "type": ModelType = ModelType::Llm;
        /// The most tokens that it takes.
        context: Option<Count> = None;
        /// The most tokens that it answers with.
        output: Option<Count> = None;
        /// What it can do.
        features: Vec<String> = Vec::new();
        /// What it costs.
        pricing: Option<Pricing> = None;
    }
}

/// The files by the kind or preset of their provider.
const FILES: &[(&str, &str)] = &[
    ("openai", include_str!("../../../config/catalog/openai.yaml")),
    ("anthropic", include_str!("../../../config/catalog/anthropic.yaml")),
];

/// Whether a file knows the price of this model of a provider of this kind.
pub(super) fn is_priced(kind: &str, model: &str) -> bool {
    static PRICED: OnceLock<HashMap<&str, HashSet<String>>> = OnceLock::new();
    let priced = |file: CatalogFile| {
        let models = file.models.into_iter().filter(|(_, model)| model.pricing.is_some());
        models.map(|(name, _)| name).collect()
    };
    let read = || CatalogFile::built_in().map(|(kind, file)| (kind, priced(file))).collect();
    PRICED.get_or_init(read).get(kind).is_some_and(|models| models.contains(model))
}

impl CatalogFile {
    /// Those in the binary.
    pub fn built_in() -> impl Iterator<Item = (&'static str, Self)> {
        FILES
            .iter()
            .map(|(kind, text)| (*kind, Self::read(&parse(0, text).root.unwrap_or_default(), &mut Reader::default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_without_a_fault() {
        for (kind, text) in FILES {
            let mut reader = Reader::default();
            let parsed = parse(0, text);
            let root = parsed.root.unwrap_or_default();
            let file = CatalogFile::read(&root, &mut reader);
            assert!(reader.faults.is_empty() && parsed.flaws.is_empty(), "{kind}: {:?}", reader.faults);
            assert!(file.models.len() > 20 && file.models.values().any(|model| model.pricing.is_some()), "{kind}");
        }
    }
}
