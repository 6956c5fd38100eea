//! What Anthropic tells beside the blocks of an answer and OpenAI's format has no word for: the message's
//! `extra_content.anthropic`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Its fields, as they were written.
#[derive(Debug, Default, Serialize)]
pub(super) struct Beside {
    anthropic: BTreeMap<&'static str, Box<RawValue>>,
}

#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    container: Option<&'a RawValue>,
    context_management: Option<&'a RawValue>,
    diagnostics: Option<&'a RawValue>,
    input_transformations: Option<&'a RawValue>,
    stop_reason: Option<&'a RawValue>,
    stop_sequence: Option<&'a RawValue>,
}

/// An event of a stream, which tells some of it inside.
#[derive(Deserialize)]
struct Within<'a> {
    #[serde(borrow)]
    message: Option<Told<'a>>,
    delta: Option<Told<'a>>,
}

impl Beside {
    /// Takes what a message tells, or an event that begins or ends one; a later word replaces an earlier one.
    pub(super) fn read(&mut self, json: &str) {
        if let Ok(told) = serde_json::from_str(json) {
            self.take(&told);
        }
        if let Ok(Within { message, delta }) = serde_json::from_str(json) {
            message.iter().chain(&delta).for_each(|told| self.take(told));
        }
    }

    /// As the message's `extra_content`; nothing where nothing was told.
    pub(super) fn into_json(self) -> Option<Box<RawValue>> {
        if self.anthropic.is_empty() {
            return None;
        }
        serde_json::value::to_raw_value(&self).ok()
    }

    fn take(&mut self, told: &Told<'_>) {
        let fields = [
            ("container", told.container),
            ("context_management", told.context_management),
            ("diagnostics", told.diagnostics),
            ("input_transformations", told.input_transformations),
            ("stop_reason", told.stop_reason.filter(|reason| !has_a_word(reason))),
            ("stop_sequence", told.stop_sequence),
        ];
        let said = fields.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned())));
        self.anthropic.extend(said);
    }
}

/// Whether OpenAI's `finish_reason` says all that this reason does.
fn has_a_word(reason: &RawValue) -> bool {
    matches!(
        reason.get(),
        r#""end_turn""# | r#""stop_sequence""# | r#""max_tokens""# | r#""tool_use""# | r#""refusal""#
    )
}
