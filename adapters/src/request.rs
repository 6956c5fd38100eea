//! What a caller asked: the bytes as they came and where their top-level fields stand.
//!
//! A provider of the same dialect gets these bytes with one or two spans spliced ([`Request::rewrite`]) and the rest
//! untouched; a foreign one reads borrowed views of single fields.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::body::{Body, JOIN_BELOW};
use crate::chunk::push_json;
use crate::index::{self, Field, Index, IndexError};
use crate::usage::ServiceTier;

/// What is asked of a model: one for each endpoint of the contract that takes a JSON body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
}

impl Operation {
    /// The name that OpenTelemetry's GenAI conventions give it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }
}

/// Why a body cannot be taken as a request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// Not a JSON object in its structure.
    #[error("The request's body is not a valid JSON object: {0}.")]
    Json(#[from] IndexError),
    /// A field that the gateway itself reads has another type than it must have.
    #[error("`{field}` must be {expected}.")]
    Type {
        /// Which field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// How the types of tools begin that search the web.
const WEB_SEARCH: &str = "web_search";

/// About how often such a tool is used at most where nobody says: each answer is read before the next search.
const SEARCHES: u64 = 10;

/// A tool, as far as it may be one that the provider itself uses.
#[derive(Deserialize)]
struct ServerTool<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    max_uses: Option<u64>,
}

/// A change of one top-level field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<'n> {
    /// Gives the field this raw JSON value; it is added in front if it is not there.
    Set(&'n str, Bytes),
    /// Takes the field out.
    Remove(Cow<'n, str>),
}

impl Edit<'_> {
    /// The field that it changes.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Set(name, _) => name,
            Self::Remove(name) => name,
        }
    }

    /// How many bytes it adds at most: quotes, colon and comma too.
    fn room(&self) -> usize {
        match self {
            Self::Set(name, value) => name.len() + value.len() + 4,
            Self::Remove(_) => 0,
        }
    }
}

/// A caller's request.
#[derive(Clone, Debug)]
pub struct Request {
    body: Bytes,
    operation: Operation,
    index: Index,
    stream: bool,
    wants_usage: bool,
}

/// A request's top-level fields as text.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    request: &'a Request,
    text: &'a str,
}

impl<'a> Texts<'a> {
    /// A field's raw JSON; `None` where it is absent or null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let field = self.request.index.find(&self.request.body, name)?;
        self.text.get(field.value()).filter(|raw| *raw != "null")
    }

    /// All fields as name and raw JSON, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, str>, &'a str)> {
        let Self { request, text } = *self;
        request.index.fields().iter().map(move |field| {
            let name = match field.name(&request.body) {
                Cow::Borrowed(name) => String::from_utf8_lossy(name),
                Cow::Owned(name) => Cow::Owned(String::from_utf8_lossy(&name).into_owned()),
            };
            (name, text.get(field.value()).unwrap_or_default())
        })
    }
}

/// Where a caller limits the answer, what counts first: two names of one parameter.
pub const OUTPUT_LIMITS: [&str; 2] = ["max_completion_tokens", "max_tokens"];

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Request {
    /// Indexes `body`.
    ///
    /// # Errors
    /// What is not a JSON object in its structure, or whose `stream` is not a boolean.
    pub fn parse(operation: Operation, body: Bytes) -> Result<Self, RequestError> {
        let index = Index::of(&body)?;
        let stream = match index.get(&body, "stream") {
            Some(b"true") => true,
            Some(b"false" | b"null") | None => false,
            Some(_) => {
                return Err(RequestError::Type { field: "stream", expected: "a boolean" });
            }
        };
        let wants_usage = stream && asks_usage(index.get(&body, "stream_options"))?;
        Ok(Self { body, operation, index, stream, wants_usage })
    }

    /// Which endpoint it came to.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The bytes as they came.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the body is JSON throughout: when it came, only what was needed of it was looked at.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        std::str::from_utf8(&self.body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
    }

    /// Whether a stream was asked for.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Whether the caller asked for the usage chunk at a stream's end.
    #[must_use]
    pub fn wants_usage(&self) -> bool {
        self.wants_usage
    }

    /// A top-level field's raw value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.index.get(&self.body, name)
    }

    /// All top-level fields as name and raw value, in the order in which they were written.
    pub fn fields(&self) -> impl Iterator<Item = (Cow<'_, [u8]>, &[u8])> {
        self.index.fields().iter().map(|f| (f.name(&self.body), self.body.get(f.value()).unwrap_or_default()))
    }

    /// The fields as text, for a dialect that reads them; the body is checked to be UTF-8 once, here.
    ///
    /// # Errors
    /// A body that is not UTF-8.
    pub fn texts(&self) -> Result<Texts<'_>, RequestError> {
        let fault = IndexError { at: 0, what: "bytes that are not UTF-8" };
        let text = simdutf8::basic::from_utf8(&self.body).map_err(|_| fault)?;
        Ok(Texts { request: self, text })
    }

    /// The model that was asked for; `None` when it is absent or null.
    ///
    /// # Errors
    /// A model that is not a string.
    pub fn model(&self) -> Result<Option<Cow<'_, str>>, RequestError> {
        match self.get("model") {
            None | Some(b"null") => Ok(None),
            Some(raw) => index::text(raw).map(Some).ok_or(RequestError::Type { field: "model", expected: "a string" }),
        }
    }

    /// How many tokens the caller lets the model answer with at most, in all choices; `None` where it does not say.
    /// Which of two limits a host goes by is its own: the higher one counts.
    #[must_use]
    pub fn output_limit(&self) -> Option<u64> {
        let limit = OUTPUT_LIMITS.iter().filter_map(|name| self.number(name)).max()?;
        Some(limit.saturating_mul(self.choices()))
    }

    /// How many answers the model writes: `n`, or `best_of` where that is more, to each prompt.
    #[must_use]
    pub fn choices(&self) -> u64 {
        let each = ["n", "best_of"].iter().filter_map(|name| self.number(name)).fold(1, u64::max);
        each.saturating_mul(self.prompts())
    }

    /// How many answers come: `n` to each prompt.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.number("n").unwrap_or(1).max(1).saturating_mul(self.prompts())
    }

    /// A completion may have a list of prompts.
    fn prompts(&self) -> u64 {
        let prompt = self.get("prompt").filter(|_| self.operation == Operation::Completions);
        prompt.and_then(count).unwrap_or(1)
    }

    /// How many vectors an answer to it has; `None` where its input is of a form of the provider's own.
    #[must_use]
    pub fn inputs(&self) -> Option<u64> {
        self.get("input").and_then(count)
    }

    /// The tiers that it may be served in, beside the standard one: those that it asks for, or that its account is set
    /// to where it leaves that to the provider.
    #[must_use]
    pub fn service_tiers(&self) -> &'static [ServiceTier] {
        if self.get("speed") == Some(b"\"fast\"") {
            return &[ServiceTier::Fast, ServiceTier::Priority];
        }
        match self.get("service_tier") {
            Some(b"\"default\"" | b"\"standard_only\"" | b"\"scale\"") => &[],
            Some(b"\"flex\"") => &[ServiceTier::Flex],
            Some(b"\"ultrafast\"") => &[ServiceTier::Ultrafast, ServiceTier::Priority],
            Some(_) | None => &[ServiceTier::Priority, ServiceTier::Flex],
        }
    }

    /// Whether it may be served in the US and nowhere else: it asks for that, or leaves it to the account's own
    /// setting.
    #[must_use]
    pub fn may_be_in_us(&self) -> bool {
        self.get("inference_geo").is_none_or(|geo| geo != b"\"global\"")
    }

    /// How often the provider may search the web for it: as often as its tools say, where they do.
    #[must_use]
    pub fn web_searches(&self) -> u64 {
        let Some(tools) =
            self.get("tools").filter(|tools| memchr::memmem::find(tools, WEB_SEARCH.as_bytes()).is_some())
        else {
            return 0;
        };
        let Ok(tools) = serde_json::from_slice::<Vec<ServerTool<'_>>>(tools) else {
            return SEARCHES;
        };
        let searching =
            tools.iter().filter(|tool| tool.kind.as_deref().is_some_and(|kind| kind.starts_with(WEB_SEARCH)));
        searching.fold(0, |sum: u64, tool| sum.saturating_add(tool.max_uses.unwrap_or(SEARCHES)))
    }

    /// The same request, each of whose answers may have `tokens` tokens at most.
    ///
    /// # Errors
    /// None that [`Request::parse`] did not tell of this request already.
    pub fn limited_to(&self, tokens: u64) -> Result<Self, RequestError> {
        let set = |name| Edit::Set(name, tokens.to_string().into());
        let is_there = |name: &&&str| self.get(name).is_some();
        let is_over = |name: &&&str| self.number(name).is_none_or(|limit| limit > tokens);
        let mut edits: Vec<_> = OUTPUT_LIMITS.iter().filter(is_there).filter(is_over).map(|name| set(name)).collect();
        if !OUTPUT_LIMITS.iter().any(|name| is_there(&name)) {
            edits.push(set(match self.operation {
                Operation::Chat => "max_completion_tokens",
                Operation::Completions | Operation::Embeddings => "max_tokens",
            }));
        }
        self.with(&edits)
    }

    /// The same request with these fields changed.
    ///
    /// # Errors
    /// As [`Request::parse`], of the changed fields.
    pub fn with(&self, edits: &[Edit<'_>]) -> Result<Self, RequestError> {
        Self::parse(self.operation, self.rewrite(edits).joined())
    }

    /// A number of things, however it is written: `2`, `2.0` and `2e0` are the same to many hosts.
    fn number(&self, name: &str) -> Option<u64> {
        let text = std::str::from_utf8(self.get(name)?).ok()?;
        text.parse().ok().or_else(|| {
            let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it saturates, and is not negative"
            )]
            Some(number.ceil() as u64)
        })
    }

    /// The body with these fields changed and every other byte as it was.
    #[must_use]
    pub fn rewrite(&self, edits: &[Edit<'_>]) -> Body {
        rewrite(&self.body, &self.index, edits)
    }
}

/// How many a prompt or input is: a text, a list of texts or of lists of tokens; one list of tokens is one.
fn count(raw: &[u8]) -> Option<u64> {
    let Some(list) = raw.strip_prefix(b"[") else {
        return raw.starts_with(b"\"").then_some(1);
    };
    match list.trim_ascii_start().first() {
        Some(b'"' | b'[') => u64::try_from(serde_json::from_slice::<Vec<IgnoredAny>>(raw).ok()?.len()).ok(),
        Some(b'0'..=b'9') => Some(1),
        _ => None,
    }
}

fn asks_usage(options: Option<&[u8]>) -> Result<bool, RequestError> {
    let Some(raw) = options.filter(|raw| *raw != b"null") else {
        return Ok(false);
    };
    serde_json::from_slice::<StreamOptions>(raw)
        .map(|options| options.include_usage == Some(true))
        .map_err(|_| RequestError::Type { field: "stream_options", expected: "an object with a boolean include_usage" })
}

/// The indexed object `bytes` with these fields changed and every other byte as it was; large parts stay slices of it.
#[must_use]
pub fn rewrite(bytes: &Bytes, index: &Index, edits: &[Edit<'_>]) -> Body {
    if edits.is_empty() {
        return bytes.clone().into();
    }
    if bytes.len() <= JOIN_BELOW {
        let mut small = Vec::with_capacity(bytes.len() + edits.iter().map(Edit::room).sum::<usize>());
        rewrite_into(bytes, index, edits, &mut small);
        return small.into();
    }
    let mut segments = Vec::with_capacity(2 * edits.len() + 1);
    splice(bytes, index, edits, &mut |piece| {
        segments.push(match piece {
            Piece::Kept(span) => bytes.slice(span),
            Piece::New(new) => new.clone(),
        });
    });
    Body::of(segments)
}

/// As [`rewrite`], appended to `out`.
pub fn rewrite_into(bytes: &[u8], index: &Index, edits: &[Edit<'_>], out: &mut Vec<u8>) {
    splice(bytes, index, edits, &mut append(bytes, out));
}

/// A part of a rewritten object.
enum Piece<'p> {
    Kept(Range<usize>),
    New(&'p Bytes),
}

/// As [`rewrite_into`], of a part of an object: from the start of the first of these fields to `end`. What is not there
/// is not added.
pub fn rewrite_part_into(bytes: &[u8], fields: &[Field], end: usize, edits: &[Edit<'_>], out: &mut Vec<u8>) {
    let first = fields.first().map_or(end, Field::start);
    let mut splice = Splice { run: first..first, emit: &mut append(bytes, out) };
    splice.fields(bytes, fields, edits, false);
    splice.rest(fields, end);
}

fn append(bytes: &[u8], out: &mut Vec<u8>) -> impl FnMut(Piece<'_>) {
    |piece| match piece {
        Piece::Kept(span) => out.extend_from_slice(bytes.get(span).unwrap_or_default()),
        Piece::New(new) => out.extend_from_slice(new),
    }
}

fn splice(bytes: &[u8], index: &Index, edits: &[Edit<'_>], emit: &mut dyn FnMut(Piece<'_>)) {
    let first = index.fields().first().map_or(index.end(), Field::start);
    let mut splice = Splice { run: 0..first, emit };
    let any = splice.add_missing(bytes, index, edits);
    splice.fields(bytes, index.fields(), edits, any);
    splice.rest(index.fields(), bytes.len());
}

/// Emits spans of the old bytes, joined where they touch, and new bytes between them.
struct Splice<'e> {
    run: Range<usize>,
    emit: &'e mut dyn FnMut(Piece<'_>),
}

impl Splice<'_> {
    fn keep(&mut self, span: Range<usize>) {
        if self.run.end != span.start {
            self.flush();
            self.run.start = span.start;
        }
        self.run.end = span.end;
    }

    fn add(&mut self, bytes: &Bytes) {
        self.flush();
        (self.emit)(Piece::New(bytes));
    }

    /// The fields as edited; `any` tells whether there is one before them already.
    fn fields(&mut self, bytes: &[u8], fields: &[Field], edits: &[Edit<'_>], mut any: bool) {
        let first = fields.first().map_or(0, Field::start);
        let mut previous_end = first;
        for field in fields {
            let separator = std::mem::replace(&mut previous_end, field.value().end);
            let edit = edits.iter().find(|e| field.is_named(bytes, e.name().as_bytes()));
            if matches!(edit, Some(Edit::Remove(_))) {
                continue;
            }
            match any {
                true if separator == first => self.add(&Bytes::from_static(b",")),
                true => self.keep(separator..field.start()),
                false => {}
            }
            any = true;
            match edit {
                Some(Edit::Set(_, value)) => {
                    self.keep(field.start()..field.value().start);
                    self.add(value);
                }
                _ => self.keep(field.start()..field.value().end),
            }
        }
    }

    /// What stands behind the fields.
    fn rest(&mut self, fields: &[Field], end: usize) {
        let behind = fields.last().map_or(self.run.end, |field| field.value().end);
        self.keep(behind..end);
        self.flush();
    }

    /// Writes the fields that are set and not there yet; true if there were any.
    fn add_missing(&mut self, bytes: &[u8], index: &Index, edits: &[Edit<'_>]) -> bool {
        let mut any = false;
        for edit in edits {
            let Edit::Set(name, value) = edit else {
                continue;
            };
            if index.find(bytes, name).is_some() {
                continue;
            }
            let mut named = if any { b",".to_vec() } else { Vec::new() };
            push_json(&mut named, name);
            named.push(b':');
            self.add(&named.into());
            self.add(value);
            any = true;
        }
        any
    }

    fn flush(&mut self) {
        if !self.run.is_empty() {
            (self.emit)(Piece::Kept(self.run.clone()));
        }
        self.run.start = self.run.end;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn rewritten(text: &'static str, edits: &[Edit<'_>]) -> String {
        let request = Request::parse(Operation::Chat, Bytes::from_static(text.as_bytes())).unwrap();
        String::from_utf8(request.rewrite(edits).joined().to_vec()).unwrap()
    }

    fn set(name: &'static str, value: &'static str) -> Edit<'static> {
        Edit::Set(name, Bytes::from_static(value.as_bytes()))
    }

    fn remove(name: &'static str) -> Edit<'static> {
        Edit::Remove(name.into())
    }

    #[test]
    fn the_searches_that_a_request_may_lead_to_are_as_many_as_its_tools_say() {
        let searches = |tools: &str| {
            let body = format!(r#"{{"tools":{tools}}}"#);
            Request::parse(Operation::Chat, Bytes::from(body)).unwrap().web_searches()
        };
        assert_eq!(searches(r#"[{"type":"function","function":{"name":"web_search"}}]"#), 0);
        let limited = r#"{"type":"web_search_20250305","name":"web_search","max_uses":3}"#;
        assert_eq!(searches(&format!("[{limited},{limited}]")), 6);
        assert_eq!(searches(r#"[{"type":"web_search_20260209"}]"#), SEARCHES);
        assert_eq!(searches(r#"[{"type":"web_search_20250305","max_uses":-1}]"#), SEARCHES);
        assert_eq!(searches("null"), 0);
    }

    #[test]
    fn only_the_named_field_changes_and_all_other_bytes_stay() {
        let text = "{ \"seed\" : 12345678901234567890123,  \"model\":\"alias\" ,\"x\":[ 1,2 ] }\n";
        let want = "{ \"seed\" : 12345678901234567890123,  \"model\":\"real\" ,\"x\":[ 1,2 ] }\n";
        assert_eq!(rewritten(text, &[set("model", "\"real\"")]), want);
    }

    #[test]
    fn fields_are_added_and_removed_wherever_they_stand() {
        assert_eq!(rewritten("{}", &[set("a", "1"), set("b", "2")]), "{\"a\":1,\"b\":2}");
        assert_eq!(rewritten("{\"x\":0}", &[set("a", "1")]), "{\"a\":1,\"x\":0}");
        assert_eq!(rewritten("{\"x\":0}", &[remove("x")]), "{}");
        assert_eq!(rewritten("{\"x\":0, \"y\":1, \"z\":2}", &[remove("x")]), "{\"y\":1, \"z\":2}");
        assert_eq!(rewritten("{\"x\":0, \"y\":1, \"z\":2}", &[remove("y")]), "{\"x\":0, \"z\":2}");
        assert_eq!(rewritten("{\"x\":0, \"y\":1, \"z\":2 }", &[remove("y"), remove("z")]), "{\"x\":0 }");
        assert_eq!(rewritten("{\"x\":0, \"y\":1}", &[remove("x"), set("a", "1")]), "{\"a\":1, \"y\":1}");
        assert_eq!(rewritten("{\"x\":0}", &[remove("x"), set("a", "1")]), "{\"a\":1}");
        assert_eq!(rewritten("{\"x\":0}", &[remove("nothing")]), "{\"x\":0}");
        assert_eq!(rewritten("{\"x\":0}", &[set("a\"b", "1")]), r#"{"a\"b":1,"x":0}"#);
    }

    #[test]
    fn a_limit_of_the_answer_is_read_and_set_where_the_caller_set_it() {
        let limited = |text: &'static str| {
            let request = Request::parse(Operation::Chat, Bytes::from_static(text.as_bytes())).unwrap();
            let body = request.limited_to(7).unwrap().body().clone();
            (request.output_limit(), String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(limited("{\"max_tokens\": 9}"), (Some(9), "{\"max_tokens\": 7}".to_owned()));
        let both = "{\"max_tokens\":9,\"max_completion_tokens\":5,\"n\":3}";
        let want = "{\"max_tokens\":7,\"max_completion_tokens\":5,\"n\":3}";
        assert_eq!(limited(both), (Some(27), want.to_owned()), "which of the two a host goes by is not known");
        assert_eq!(limited("{\"max_tokens\":9.0,\"n\":2e0}").0, Some(18));
        assert_eq!(limited("{\"n\":2}"), (None, "{\"max_completion_tokens\":7,\"n\":2}".to_owned()));
        assert_eq!(limited("{\"max_tokens\":null}").0, None);
    }

    #[test]
    fn each_prompt_of_a_completion_has_its_own_answer() {
        let choices = |operation, text: &'static str| {
            Request::parse(operation, Bytes::from_static(text.as_bytes())).unwrap().choices()
        };
        let complete = |text| choices(Operation::Completions, text);
        assert_eq!(complete(r#"{"prompt":"a","n":2}"#), 2);
        assert_eq!(complete(r#"{"prompt":["a", "b", "c"],"n":2,"best_of":4}"#), 12);
        assert_eq!(complete(r#"{"prompt":[ [1,2],[3]]}"#), 2);
        assert_eq!(complete(r#"{"prompt":[1,2,3]}"#), 1);
        assert_eq!(choices(Operation::Chat, r#"{"prompt":["a","b"]}"#), 1);
    }

    #[test]
    fn a_large_body_is_not_copied() {
        let text = format!("{{\"model\":\"a\",\"x\":\"{}\"}}", "y".repeat(100_000));
        let request = Request::parse(Operation::Chat, text.clone().into()).unwrap();
        let body = request.rewrite(&[set("model", "\"b\"")]);
        assert_eq!(body.len(), text.len());
        let tail = body.segments().last().unwrap();
        assert!(request.body().as_ptr_range().contains(&tail.as_ptr()));
    }

    #[test]
    fn stream_and_usage_are_read_and_wrong_types_named() {
        let parse = |text: &'static str| Request::parse(Operation::Chat, Bytes::from_static(text.as_bytes()));
        let asked = parse("{\"stream\":true,\"stream_options\":{\"include_usage\":true}}").unwrap();
        assert!(asked.is_stream() && asked.wants_usage());
        assert!(!parse("{\"stream\":true,\"stream_options\":null}").unwrap().wants_usage());
        assert_eq!(parse("{\"stream\":1}").unwrap_err(), RequestError::Type { field: "stream", expected: "a boolean" });
        assert!(parse("{\"model\":7}").unwrap().model().is_err());
    }
}
