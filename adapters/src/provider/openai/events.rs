//! A stream in the pivot's own dialect: its chunks pass as they came, but for the model's name and the usage.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::alike::{Alike, Passed};
use super::{as_model, is_error};
use crate::adapter::{DecodeError, EventDecoder};
use crate::chunk::ChunkWriter;
use crate::frame::Event;
use crate::index::{Field, Index, IndexError, has_text_field};
use crate::openai::{error, texts, usage};
use crate::request::{Edit, rewrite_into, rewrite_part_into};
use crate::usage::{Extent, ServiceTier};

/// What passes a stream on.
#[derive(Default)]
pub(super) struct PassThrough {
    index: Index,
    begin: Begin,
    alike: Alike,
    name: Option<Bytes>,
    wants_usage: bool,
    answers: u64,
    /// The choices that have said their reason to stop.
    finished: BTreeSet<u64>,
    begun: bool,
}

/// What the last chunk said before its choices: the next one begins with the same bytes nearly always.
#[derive(Default)]
struct Begin {
    said: Vec<u8>,
    /// The same with the model's name as the caller knows it.
    told: Vec<u8>,
    /// How many fields it has; none where it is not worth knowing.
    fields: usize,
    has_model: bool,
}

static FINISH_REASON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"finish_reason\""));

impl EventDecoder for PassThrough {
    fn event(&mut self, event: Event<'_>, out: &mut ChunkWriter) -> Result<(), DecodeError> {
        if let Some(passed) = self.alike(&event) {
            self.pass_alike(&event, passed, out);
            return Ok(());
        }
        match event.data.trim_ascii() {
            b"" => return Ok(()),
            b"[DONE]" if out.has_content() => {
                out.complete();
                return Ok(());
            }
            b"[DONE]" => return Err(DecodeError::Malformed("a stream without an answer".to_owned())),
            _ => {}
        }
        let known = self.read(event.data).map_err(|e| DecodeError::Malformed(format!("the provider's event: {e}")))?;
        let names = ["error", "object", "model", "choices", "service_tier", "usage"];
        let [error, object, model, choices, tier, usage] = self.index.values_from(known, event.data, names);
        if event.name == b"error" || is_error(error, object) {
            return Err(DecodeError::Refused(Box::new(error::read_in_success(event.data))));
        }
        let has_model = model.is_some() || (known > 0 && self.begin.has_model);
        let said = Said { known, has_model, choices: choices.unwrap_or(b"[]"), tier, usage };
        let is_plain = object.is_none() && model.is_none() && said.is_plain();
        self.pass(event, said, out);
        if is_plain && event.name.is_empty() && out.has_content() {
            self.learn_alike(event.data, known);
        }
        Ok(())
    }

    /// Some hosts end without `[DONE]`; a stream whose every choice has its reason to stop is whole all the same.
    fn end(&mut self, out: &mut ChunkWriter) -> Result<(), DecodeError> {
        if u64::try_from(self.finished.len()).is_ok_and(|finished| finished >= self.answers) {
            out.complete();
        }
        Ok(())
    }
}

/// What is looked at of a chunk, as far as the chunk before it did not say the same.
struct Said<'a> {
    /// How many fields that one had said.
    known: usize,
    has_model: bool,
    choices: &'a [u8],
    tier: Option<&'a [u8]>,
    usage: Option<&'a [u8]>,
}

impl Said<'_> {
    /// Whether it brings some text and nothing else, behind a begin that is known.
    fn is_plain(&self) -> bool {
        self.known > 0
            && self.tier.is_none()
            && self.usage.is_none_or(|raw| raw == b"null")
            && !is_none(self.choices)
            && !has_text_field(self.choices, &FINISH_REASON)
    }
}

/// What chunks say before their choices is remembered up to this length: an id, a model's name and the like.
const MOST_BEGIN: usize = 512;

/// The ends of so many answers are told apart: far over what providers write to one request.
const MOST_ANSWERS: usize = 16 * 1024;

impl PassThrough {
    /// For a caller who knows the model by this name, where it is not the provider's, and is to be told so many
    /// answers.
    pub(super) fn new(name: Option<Bytes>, wants_usage: bool, answers: u64) -> Self {
        Self { name, wants_usage, answers, ..Self::default() }
    }

    /// What is passed on behind the begin that is known, of a chunk that is like the ones before it but for its texts.
    fn alike<'e>(&self, event: &Event<'e>) -> Option<Passed<'e>> {
        if self.begin.fields == 0 || !event.name.is_empty() {
            return None;
        }
        self.alike.passed(event.data.strip_prefix(self.begin.said.as_slice())?)
    }

    fn pass_alike(&self, event: &Event<'_>, passed: Passed<'_>, out: &mut ChunkWriter) {
        let [before, behind] = passed.parts;
        if behind.is_empty() && (self.name.is_none() || !self.begin.has_model) {
            out.raw(event.raw);
        } else {
            out.data(|json| {
                [self.begin.told.as_slice(), before, behind].iter().for_each(|part| json.extend_from_slice(part));
            });
        }
        out.wrote(passed.length);
    }

    /// A usage that counts nothing is left out for who did not ask for it.
    fn learn_alike(&mut self, data: &[u8], known: usize) {
        let begin = self.begin.said.len();
        let fields = self.index.fields().get(known..).unwrap_or_default();
        let usage = fields.windows(2).find(|pair| matches!(pair, [_, field] if field.is_named(data, b"usage")));
        let span = |pair: &[Field]| Some(pair.first()?.value().end - begin..pair.last()?.value().end - begin);
        let cut = usage.and_then(span).filter(|_| !self.wants_usage);
        self.alike.learn(data.get(begin..).unwrap_or_default(), cut);
    }

    /// How many fields it begins with that are those of the chunk before it.
    fn read(&mut self, data: &[u8]) -> Result<usize, IndexError> {
        let kept = std::mem::take(&mut self.begin.fields);
        if kept > 0 && data.starts_with(&self.begin.said) {
            self.index.read_on(data, kept, self.begin.said.len())?;
            self.begin.fields = kept;
            return Ok(kept);
        }
        self.index.read(data)?;
        self.learn_begin(data);
        Ok(0)
    }

    fn learn_begin(&mut self, data: &[u8]) {
        let fields = self.index.fields();
        let is_named = |field: &Field, name: &str| field.is_named(data, name.as_bytes());
        // Usage is looked at in every chunk, so one that begins with it is read whole.
        let place = fields.iter().take_while(|field| !is_named(field, "choices") && !is_named(field, "usage")).count();
        let choices = fields.get(place).filter(|field| is_named(field, "choices") && field.start() <= MOST_BEGIN);
        let (Some(choices), Some((before, _))) = (choices, fields.split_at_checked(place)) else {
            return;
        };
        let Begin { said, told, fields, has_model } = &mut self.begin;
        said.clear();
        said.extend_from_slice(data.get(..choices.start()).unwrap_or_default());
        told.clear();
        told.extend_from_slice(data.get(..before.first().map_or(choices.start(), Field::start)).unwrap_or_default());
        rewrite_part_into(data, before, choices.start(), self.name.clone().map(as_model).as_slice(), told);
        *has_model = before.iter().any(|field| is_named(field, "model"));
        *fields = place;
    }

    fn pass(&mut self, event: Event<'_>, said: Said<'_>, out: &mut ChunkWriter) {
        let Said { choices, tier, usage, .. } = said;
        // Some hosts tell it in the first chunks only.
        if let Some(tier) = tier.filter(|raw| *raw != b"null") {
            out.served_in(ServiceTier::read(tier));
        }
        let counted = usage.filter(|raw| *raw != b"null").and_then(|raw| usage::read(raw, out.tier()));
        if self.wants_usage && !self.begun {
            self.begin_own_usage(event.data, out);
        }
        let is_usage_alone = is_none(choices) && usage.is_some_and(|raw| raw != b"null");
        if is_usage_alone && counted.is_none() {
            // What counts nothing is nothing to the caller, who gets the estimate.
            return;
        }
        if let Some(counted) = counted {
            out.usage(counted);
            let is_whole = counted.extent == Extent::Whole;
            if is_none(choices) && is_whole {
                out.usage_event(self.told(event.data, &said, Vec::new()));
            }
            if is_none(choices) {
                return;
            }
            if self.wants_usage && is_whole {
                let without_choices = Edit::Set("choices", Bytes::from_static(b"[]"));
                out.usage_event(self.told(event.data, &said, vec![without_choices]));
            }
        }
        let is_only_ours = usage.is_some() && (counted.is_some() || !self.wants_usage);
        if is_only_ours || (said.has_model && self.name.is_some()) {
            let edits = if is_only_ours { vec![Edit::Remove("usage".into())] } else { Vec::new() };
            out.data(|json| self.tell(event.data, &said, edits, json));
        } else {
            out.raw(event.raw);
        }
        let is_last = has_text_field(choices, &FINISH_REASON);
        if is_last {
            self.note_finished(choices);
        }
        if !out.has_content() && (is_none(choices) || !has_content(choices)) {
            return;
        }
        match texts::length(choices) {
            0 if is_last || is_none(choices) => out.content_begun(),
            length => out.wrote(length),
        }
    }

    /// Some say their reason twice, and with an empty one hosts mean none.
    fn note_finished(&mut self, choices: &[u8]) {
        let choices = serde_json::from_slice::<Vec<Choice<'_>>>(choices).unwrap_or_default();
        let finished = choices.iter().filter(|choice| choice.is_finished());
        for index in finished.map(|choice| choice.index.unwrap_or_default()) {
            if self.finished.len() < MOST_ANSWERS {
                self.finished.insert(index);
            }
        }
    }

    fn told(&self, data: &[u8], said: &Said<'_>, edits: Vec<Edit<'_>>) -> Vec<u8> {
        let mut json = Vec::with_capacity(data.len());
        self.tell(data, said, edits, &mut json);
        json
    }

    /// A chunk as the caller is to see it: with its own name for the model, and these edits.
    fn tell(&self, data: &[u8], said: &Said<'_>, mut edits: Vec<Edit<'_>>, json: &mut Vec<u8>) {
        let rest = self.index.fields().get(said.known..).unwrap_or_default();
        if said.known > 0 && (self.name.is_none() || self.begin.has_model) {
            json.extend_from_slice(&self.begin.told);
            return rewrite_part_into(data, rest, data.len(), &edits, json);
        }
        if said.has_model {
            edits.extend(self.name.clone().map(as_model));
        }
        rewrite_into(data, &self.index, &edits, json);
    }

    /// Where a host never counts, or in its last chunk of content, the usage chunk at the end is ours, under this
    /// stream's id. Some hosts' first chunk has none yet.
    fn begin_own_usage(&mut self, data: &[u8], out: &mut ChunkWriter) {
        let text = |name| self.index.get(data, name).and_then(crate::index::text).unwrap_or_default();
        if text("id").is_empty() {
            return;
        }
        let created = self.index.get(data, "created").and_then(|raw| serde_json::from_slice(raw).ok());
        let asked = self.name.as_deref().and_then(crate::index::text);
        out.begin(&text("id"), created.unwrap_or_default(), &asked.unwrap_or_else(|| text("model")));
        self.begun = true;
    }
}

/// Whether a chunk's choices are none at all.
pub(super) fn is_none(raw: &[u8]) -> bool {
    raw == b"null" || raw.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start() == b"]")
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

impl Choice<'_> {
    fn is_finished(&self) -> bool {
        self.finish_reason.is_some_and(|raw| !matches!(raw.get(), "null" | "\"\"" | "\"null\""))
    }
}

/// Whether a chunk's choices say more than a role.
fn has_content(choices: &[u8]) -> bool {
    let Ok(choices) = serde_json::from_slice::<Vec<Choice<'_>>>(choices) else {
        return true;
    };
    let says = |raw: Option<&RawValue>| raw.is_some_and(|raw| !matches!(raw.get(), "null" | "\"\"" | "[]" | "{}"));
    choices.iter().any(|choice| says(choice.finish_reason) || says(choice.text) || choice.delta.is_some_and(delta_says))
}

fn delta_says(delta: &RawValue) -> bool {
    let bytes = delta.get().as_bytes();
    let Ok(index) = Index::of(bytes) else { return false };
    let says = |value: &[u8]| !matches!(value, b"null" | b"\"\"" | b"[]" | b"{}");
    index.fields().iter().any(|field| !field.is_named(bytes, b"role") && bytes.get(field.value()).is_some_and(says))
}
