//! OpenAI, and every host that speaks as it does: the caller's bytes go out with two or three spans spliced, and what
//! comes back passes unchanged but for the model's name, where it was an alias, and the usage.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::adapter::{Adapter, DecodeError, EncodeError, EventDecoder, NativeRequest, Reply, Target};
use crate::chunk::ChunkWriter;
use crate::frame::{BYTE_ORDER_MARK, Event};
use crate::index::{Field, Index, IndexError, has_text_field};
use crate::openai::embedding::{Encoding, in_encoding};
use crate::openai::{error, usage};
use crate::refusal::Refusal;
use crate::request::{Edit, Operation, Request, rewrite, rewrite_into, rewrite_part_into};
use crate::usage::ServiceTier;

/// The dialect.
pub struct OpenAi;

/// Headers of the caller's that go on to the provider.
static PASSED_ON: [HeaderName; 1] = [HeaderName::from_static("openai-beta")];

impl Adapter for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn serves(&self, _operation: Operation) -> bool {
        true
    }

    fn authorize(&self, api_key: &str) -> Result<Vec<(HeaderName, HeaderValue)>, EncodeError> {
        Ok(vec![(header::AUTHORIZATION, secret_header(&format!("Bearer {api_key}"))?)])
    }

    fn encode(&self, request: &Request, to: &Target<'_>) -> Result<NativeRequest, EncodeError> {
        let mut edits = Vec::with_capacity(2);
        if request.get("model") != Some(quoted(to.model).as_ref()) {
            edits.push(Edit::Set("model", quoted(to.model)));
        }
        match request.operation() {
            Operation::Embeddings => edits.extend(without_null_encoding(request)),
            Operation::Chat | Operation::Completions => edits.extend(with_usage(request)),
        }
        Ok(NativeRequest {
            path: path(request.operation()).to_owned(),
            headers: passed_on(to.caller),
            body: request.rewrite(&edits),
            dropped: Vec::new(),
        })
    }

    fn decode(&self, request: &Request, to: &Target<'_>, body: Bytes) -> Result<Reply, DecodeError> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).map_or_else(|| body.clone(), |rest| body.slice_ref(rest));
        let index = Index::of(&body).map_err(|e| DecodeError::Malformed(format!("the provider's answer: {e}")))?;
        let names = ["error", "object", "choices", "service_tier", "usage"];
        let [error, object, choices, tier, usage] = index.values(&body, names);
        if is_error(error, object) {
            return Err(DecodeError::Refused(Box::new(error::read_in_success(&body))));
        }
        if request.operation() != Operation::Embeddings && choices.is_none_or(is_none) {
            return Err(DecodeError::Malformed("the provider's answer: no choices".to_owned()));
        }
        let tier = tier.map(ServiceTier::read).unwrap_or_default();
        let usage = usage.and_then(|raw| usage::read(raw, tier));
        let mut edits: Vec<Edit<'_>> = renamed(to).map(as_model).into_iter().collect();
        if request.operation() == Operation::Embeddings {
            let wanted = Encoding::asked(request.get("encoding_format"));
            let data = wanted.map(|wanted| in_encoding(&body, &index, wanted)).transpose()?.flatten();
            edits.extend(data.map(|data| Edit::Set("data", data)));
        }
        let body = rewrite(&body, &index, &edits);
        Ok(Reply { body, usage })
    }

    fn events(&self, request: &Request, to: &Target<'_>) -> Box<dyn EventDecoder> {
        Box::new(PassThrough {
            index: Index::default(),
            begin: Begin::default(),
            name: renamed(to),
            wants_usage: request.wants_usage(),
            answers: request.answers(),
            finished: BTreeSet::new(),
            begun: false,
        })
    }

    fn refusal(&self, status: StatusCode, _headers: &HeaderMap, body: &[u8]) -> Refusal {
        error::read(status, body)
    }
}

/// A header value that is never shown in logs.
///
/// # Errors
/// Characters that cannot stand in a header.
pub fn secret_header(value: &str) -> Result<HeaderValue, EncodeError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| EncodeError::Invalid {
        param: "api_key".to_owned(),
        message: "The key has characters that cannot stand in a header.".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn path(operation: Operation) -> &'static str {
    match operation {
        Operation::Chat => "/chat/completions",
        Operation::Completions => "/completions",
        Operation::Embeddings => "/embeddings",
    }
}

fn passed_on(caller: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let all = |name: &'static HeaderName| caller.get_all(name).iter().map(|value| (name.clone(), value.clone()));
    PASSED_ON.iter().flat_map(all).collect()
}

fn quoted(text: &str) -> Bytes {
    let mut json = Vec::with_capacity(text.len() + 2);
    crate::chunk::push_json(&mut json, text);
    json.into()
}

/// The caller's name for the model as JSON, where it is not the provider's.
fn renamed(to: &Target<'_>) -> Option<Bytes> {
    (to.asked != to.model).then(|| quoted(to.asked))
}

/// Usage is always asked for, whatever the caller wants to see of it.
fn with_usage(request: &Request) -> Option<Edit<'static>> {
    if !request.is_stream() || request.wants_usage() {
        return None;
    }
    let ask = Edit::Set("include_usage", Bytes::from_static(b"true"));
    let options = request.get("stream_options").unwrap_or(b"null");
    let asked = match Index::of(options) {
        Ok(index) => rewrite(&Bytes::copy_from_slice(options), &index, &[ask]).joined(),
        Err(_) => Bytes::from_static(b"{\"include_usage\":true}"),
    };
    Some(Edit::Set("stream_options", asked))
}

fn as_model(name: Bytes) -> Edit<'static> {
    Edit::Set("model", name)
}

/// `"encoding_format": null` means what its absence means, but some hosts refuse it.
fn without_null_encoding(request: &Request) -> Option<Edit<'static>> {
    (request.get("encoding_format") == Some(b"null")).then(|| Edit::Remove("encoding_format".into()))
}

/// An error in the clothes of a success: an `error` that says something, whatever stands beside it (some hosts send their
/// last words along), or an object that calls itself one.
fn is_error(error: Option<&[u8]>, object: Option<&[u8]>) -> bool {
    error.is_some_and(|error| !matches!(error, b"null" | b"\"\"" | b"{}" | b"false")) || object == Some(b"\"error\"")
}

/// Whether a chunk's choices are none at all.
fn is_none(raw: &[u8]) -> bool {
    raw == b"null" || raw.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start() == b"]")
}

/// A stream in the pivot's own dialect.
struct PassThrough {
    index: Index,
    begin: Begin,
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
        self.pass(event, Said { known, has_model, choices: choices.unwrap_or(b"[]"), tier, usage }, out);
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

/// What chunks say before their choices is remembered up to this length: an id, a model's name and the like.
const MOST_BEGIN: usize = 512;

/// The ends of so many answers are told apart: far over what providers write to one request.
const MOST_ANSWERS: usize = 16 * 1024;

impl PassThrough {
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
            if is_none(choices) {
                out.usage_event(self.told(event.data, &said, Vec::new()));
                return;
            }
            if self.wants_usage {
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
        if has_text_field(choices, &FINISH_REASON) {
            self.note_finished(choices);
        }
        if out.has_content() || (!is_none(choices) && has_content(choices)) {
            out.content_begun();
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

    /// Where a host never counts, or in its last chunk of content, the usage chunk at the end is ours, under this stream's
    /// id. Some hosts' first chunk has none yet.
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
