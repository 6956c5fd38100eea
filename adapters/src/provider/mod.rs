//! The dialects, one file each, and the list of them.

use crate::adapter::Adapter;

pub mod anthropic;
pub mod openai;

/// All dialects.
static ALL: &[&dyn Adapter] = &[&openai::OpenAi, &anthropic::Anthropic];

/// The dialect of that `kind`.
#[must_use]
pub fn of_kind(kind: &str) -> Option<&'static dyn Adapter> {
    ALL.iter().copied().find(|adapter| adapter.name() == kind)
}

/// The kinds there are.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|adapter| adapter.name())
}
