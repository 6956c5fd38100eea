//! A chat completion as Anthropic's `POST /v1/messages`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;

use super::bounds::{MOST_BLOCKS, MOST_GROWTH, MOST_MESSAGES, MOST_WORDS, enforces};
use super::content::text_block;
use super::conversation::Conversation;
use super::format::Format;
use super::model::{Model, OLD_VERSION};
use super::native::{Block, Body, Turn};
use super::schema;
use super::thinking::{Effort, Reasoning, Surroundings};
use super::tools::Tools;
use super::{Notes, user};
use crate::adapter::{EncodeError, NativeRequest, Target};
use crate::body::BodyWriter;
use crate::chunk::push_json;
use crate::index::Index;
use crate::openai::message::{list, value};
use crate::openai::reply::Raw;
use crate::openai::text::{Text, is_blank, is_string};
use crate::request::{Edit, Request, Texts, rewrite_into};

/// Fields of the caller's that are read and said in Anthropic's words.
pub const TRANSLATES: [&str; 29] = [
    "model",
    "messages",
    "system",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "stop_sequences",
    "n",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "reasoning_effort",
    "thinking",
    "output_config",
    "user",
    "safety_identifier",
    "metadata",
    "service_tier",
    "modalities",
    "audio",
    "web_search_options",
];

/// Fields that Anthropic has no equal for, and why an answer without them is still the one that was asked for.
pub const DROPS: [(&str, &str); 13] = [
    ("frequency_penalty", "Anthropic has no penalties"),
    ("presence_penalty", "Anthropic has no penalties"),
    ("logit_bias", "Anthropic can't weigh single tokens"),
    ("logprobs", "Anthropic tells no probabilities"),
    ("top_logprobs", "Anthropic tells no probabilities"),
    ("seed", "Anthropic can't be made to repeat itself"),
    ("prediction", "Anthropic takes no prediction of the answer"),
    ("store", "Anthropic keeps no completions"),
    ("verbosity", "Anthropic has no such setting; say it in the prompt"),
    ("prompt_cache_key", "Anthropic finds its cache by the prompt alone"),
    ("prompt_cache_options", "Anthropic's cache is steered by `cache_control`"),
    ("prompt_cache_retention", "Anthropic's cache is steered by `cache_control`"),
    ("moderation", "Anthropic has no moderation beside a completion"),
];

/// The header that says which version of the API is spoken.
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// The header that opens features before they are for all.
const BETA: HeaderName = HeaderName::from_static("anthropic-beta");

/// The beta of uploaded files.
const FILES_BETA: &str = "files-api-2025-04-14";

/// Says `request` in Anthropic's words.
pub(super) fn encode(request: &Request, to: &Target<'_>) -> Result<NativeRequest, EncodeError> {
    let fields = request.texts().map_err(|error| EncodeError::invalid("body", error.to_string()))?;
    let model = Model::of(to.model);
    let version = to.options.api_version.as_deref().unwrap_or_else(|| model.version());
    let mut notes = Notes::default();
    let body = Encoder { fields, to, model, version, notes: &mut notes }.body()?;
    let mut written = BodyWriter::new(request.body(), request.body().len().saturating_add(MOST_GROWTH));
    serde_json::to_writer(&mut written, &body).map_err(|_| too_long())?;
    Ok(NativeRequest {
        path: "/v1/messages".to_owned(),
        headers: headers(version, &body, to.caller)?,
        body: written.into_body(),
        dropped: notes.into_inner(),
    })
}

fn too_long() -> EncodeError {
    let message = format!(
        "In Anthropic's words the request is over {MOST_GROWTH} bytes longer than it came; so it is where a text file is full of \
         control characters, of which each takes six bytes."
    );
    EncodeError::invalid("messages", message)
}

/// The version, and the betas: the caller's own, and that of uploaded files where the version does not have them yet.
fn headers(version: &str, body: &Body<'_>, caller: &HeaderMap) -> Result<Vec<(HeaderName, HeaderValue)>, EncodeError> {
    let is_old = version == OLD_VERSION;
    let version = HeaderValue::from_str(version)
        .map_err(|_| EncodeError::invalid("api_version", "The configured `api_version` can't stand in a header."))?;
    let betas = caller.get_all(&BETA).iter().map(|value| (BETA, value.clone()));
    let has_files = is_old && body.messages.iter().flat_map(Turn::all_blocks).any(Block::is_uploaded);
    let files = has_files.then(|| (BETA, HeaderValue::from_static(FILES_BETA)));
    Ok(std::iter::once((VERSION, version)).chain(betas).chain(files).collect())
}

/// What all steps of one encoding share.
struct Encoder<'a, 'n> {
    fields: Texts<'a>,
    to: &'a Target<'a>,
    model: Model,
    version: &'a str,
    notes: &'n mut Notes,
}

impl<'a> Encoder<'a, '_> {
    fn body(mut self) -> Result<Body<'a>, EncodeError> {
        self.refuse_what_cannot_be()?;
        let messages =
            self.fields.get("messages").ok_or_else(|| EncodeError::invalid("messages", "`messages` is missing."))?;
        let messages = list(messages, "messages", "an array of messages", MOST_MESSAGES)?;
        let mut conversation = Conversation::read(messages, self.model, self.notes)?;
        conversation.system.splice(..0, self.own_system()?);
        let mut tools = Tools::read(self.fields, self.model, self.notes)?;
        tools.unforce(self.model, self.notes);
        tools.recall(&conversation.called);
        let max_tokens = self.max_tokens()?;
        let reasoning = self.reasoning(max_tokens, &conversation, &tools)?;
        let format = self.format(&reasoning, &mut tools, &mut conversation)?;
        let mut as_written = self.sampling(reasoning.is_on())?;
        as_written.extend(self.forwarded()?);
        Ok(Body {
            model: self.to.model,
            max_tokens,
            system: conversation.system,
            messages: conversation.turns,
            tools: tools.list,
            tool_choice: tools.choice,
            output_config: self.output_config(reasoning.effort, format)?,
            thinking: reasoning.thinking,
            stop_sequences: self.stop_sequences()?,
            metadata: user::metadata(self.fields, self.notes)?,
            service_tier: self.service_tier()?,
            stream: self.fields.get("stream") == Some("true"),
            as_written,
        })
    }

    fn refuse_what_cannot_be(&self) -> Result<(), EncodeError> {
        if self.fields.get("n").is_some_and(|n| n != "1") {
            return Err(EncodeError::unsupported("n", "This model gives one answer at a time: `n` must be 1."));
        }
        let is_text = |raw| {
            let asked = list::<Text<'_>>(raw, "modalities", "an array", MOST_WORDS);
            asked.is_ok_and(|asked| asked.iter().all(|modality| &**modality == "text"))
        };
        let modalities = self.fields.get("modalities").is_some_and(|raw| !is_text(raw));
        if modalities || self.fields.get("audio").is_some() {
            let param = if modalities { "modalities" } else { "audio" };
            let message = "This model answers in text: `modalities` must be text only.";
            return Err(EncodeError::unsupported(param, message));
        }
        if self.fields.get("web_search_options").is_some() {
            let message = "On this model web search is a tool: give `web_search_20250305` among the `tools`.";
            return Err(EncodeError::unsupported("web_search_options", message));
        }
        Ok(())
    }

    /// The system prompt in Anthropic's own field, which stands before those among the messages.
    fn own_system(&self) -> Result<Vec<Block<'a>>, EncodeError> {
        match self.fields.get("system") {
            None => Ok(Vec::new()),
            Some(raw) if raw.starts_with('"') => Ok(text_block(as_raw(raw, "system")?, None).into_iter().collect()),
            Some(raw) => {
                let blocks: Vec<&'a RawValue> = list(raw, "system", "a string or an array of blocks", MOST_BLOCKS)?;
                Ok(blocks.into_iter().map(Block::Native).collect())
            }
        }
    }

    fn max_tokens(&self) -> Result<u64, EncodeError> {
        for param in ["max_completion_tokens", "max_tokens"] {
            if let Some(raw) = self.fields.get(param) {
                return value(raw, param, "a whole number that is not negative");
            }
        }
        Ok(self.model.default_output(self.to.options))
    }

    fn reasoning(
        &mut self,
        max_tokens: u64,
        conversation: &Conversation<'_>,
        tools: &Tools<'_>,
    ) -> Result<Reasoning<'a>, EncodeError> {
        let around = Surroundings {
            model: self.model,
            max_tokens,
            is_forced: tools.is_forced(),
            loop_lacks_thinking: conversation.loop_lacks_thinking(),
        };
        Reasoning::read(self.fields, around, self.notes)
    }

    /// The schema for `output_config.format`, where the answer's form can be said so; else the form is seen to by a
    /// tool or by an instruction. A call that the caller asks for comes before any form.
    fn format(
        &mut self,
        reasoning: &Reasoning<'_>,
        tools: &mut Tools<'a>,
        conversation: &mut Conversation<'a>,
    ) -> Result<Option<Raw<'a>>, EncodeError> {
        let format = Format::read(self.fields.get("response_format"), self.notes)?;
        if let Format::Schema(schema) = format
            && self.model.takes_schema()
        {
            enforces("response_format", schema.get().len())?;
            return Ok(Some(schema::enforceable(Cow::Borrowed(schema))));
        }
        let Some(arguments) = format.arguments().filter(|_| !tools.is_forced()) else {
            return Ok(None);
        };
        if self.model.can_be_forced() && !reasoning.is_on() {
            tools.answer_by(arguments);
        } else {
            conversation.system.extend(format.instruction().map(|text| Block::text(text, None)));
        }
        Ok(None)
    }

    /// The caller's own `output_config` with what else was asked for added, where it does not say so itself.
    fn output_config(&self, effort: Option<Effort>, schema: Option<Raw<'a>>) -> Result<Option<Raw<'a>>, EncodeError> {
        let given = self.fields.get("output_config");
        if effort.is_none() && schema.is_none() {
            return given.map(|raw| as_raw(raw, "output_config").map(Cow::Borrowed)).transpose();
        }
        let given = given.unwrap_or("{}");
        let index = Index::of(given.as_bytes())
            .map_err(|_| EncodeError::invalid("output_config", "`output_config` must be an object."))?;
        let format = schema.as_deref().map(|schema| json(&Form { kind: "json_schema", schema }));
        let edits: Vec<Edit<'_>> = [("effort", effort.map(|effort| json(&effort))), ("format", format)]
            .into_iter()
            .filter(|(name, _)| index.find(given.as_bytes(), name).is_none())
            .filter_map(|(name, value)| Some(Edit::Set(name, value?.into())))
            .collect();
        let mut merged = Vec::with_capacity(given.len() + 64);
        rewrite_into(given.as_bytes(), &index, &edits, &mut merged);
        let merged = String::from_utf8(merged).unwrap_or_default();
        let invalid = |_| EncodeError::invalid("output_config", "`output_config` must be an object.");
        RawValue::from_string(merged).map(|raw| Some(Cow::Owned(raw))).map_err(invalid)
    }

    /// `temperature`, `top_p` and `top_k`, as far as the model takes them.
    fn sampling(&mut self, thinks: bool) -> Result<Vec<(Cow<'a, str>, Raw<'a>)>, EncodeError> {
        let mut taken: Vec<(Cow<'a, str>, Raw<'a>)> = Vec::new();
        for param in ["temperature", "top_p", "top_k"] {
            let Some(raw) = self.fields.get(param) else {
                continue;
            };
            let number: f64 = value(raw, param, "a number")?;
            let why = if !self.model.samples(self.version) {
                "this model takes no sampling parameters"
            } else if thinks && !is_taken_while_thinking(param, number) {
                "Anthropic does not take it while the model thinks"
            } else if param == "top_p" && self.model.samples_by_one() && !taken.is_empty() {
                "this model takes only one of `temperature` and `top_p`"
            } else {
                let is_hot = param == "temperature" && number > 1.0;
                if is_hot {
                    self.notes.change(param, "1", "lowered to the highest that Anthropic takes");
                }
                let value = if is_hot { super::tools::raw("1") } else { Cow::Borrowed(as_raw(raw, param)?) };
                taken.push((param.into(), value));
                continue;
            };
            self.notes.add(param, why);
        }
        Ok(taken)
    }

    /// What is neither translated nor dropped goes on as it was written: Anthropic's own fields, and what is yet to
    /// come.
    fn forwarded(&mut self) -> Result<Vec<(Cow<'a, str>, Raw<'a>)>, EncodeError> {
        let mut forwarded = Vec::new();
        for (name, raw) in self.fields.iter() {
            if TRANSLATES.contains(&&*name) {
                continue;
            }
            match DROPS.iter().find(|(dropped, _)| *dropped == name) {
                Some((_, why)) if !is_nothing(raw) => self.notes.add(&name, why),
                Some(_) => {}
                None => {
                    let value = as_raw(raw, &name)?;
                    forwarded.push((name, Cow::Borrowed(value)));
                }
            }
        }
        Ok(forwarded)
    }

    /// The caller's `stop` and Anthropic's own `stop_sequences` together. Those of white space only are refused by
    /// Anthropic.
    fn stop_sequences(&mut self) -> Result<Vec<&'a RawValue>, EncodeError> {
        let mut all = self.strings("stop")?;
        all.extend(self.strings("stop_sequences")?);
        let before = all.len();
        all.retain(|stop| !is_blank(stop));
        if all.len() < before {
            self.notes.add("stop", "Anthropic takes no stop sequences that are white space only");
        }
        Ok(all)
    }

    /// A field that is a string or an array of strings.
    fn strings(&self, param: &str) -> Result<Vec<&'a RawValue>, EncodeError> {
        let Some(raw) = self.fields.get(param) else {
            return Ok(Vec::new());
        };
        let expected = "a string or an array of strings";
        let all: Vec<&'a RawValue> = match raw.starts_with('"') {
            true => vec![as_raw(raw, param)?],
            false => list(raw, param, expected, MOST_WORDS)?,
        };
        let invalid = || EncodeError::invalid(param, format!("`{param}` must be {expected}."));
        all.iter().all(|stop| is_string(stop)).then_some(all).ok_or_else(invalid)
    }

    fn service_tier(&mut self) -> Result<Option<&'static str>, EncodeError> {
        let Some(raw) = self.fields.get("service_tier") else {
            return Ok(None);
        };
        match raw {
            r#""auto""# | r#""priority""# => Ok(Some("auto")),
            r#""default""# | r#""standard_only""# => Ok(Some("standard_only")),
            _ if raw.starts_with('"') => {
                self.notes.add("service_tier", "Anthropic has no such tier");
                Ok(None)
            }
            _ => Err(EncodeError::invalid("service_tier", "`service_tier` must be a string.")),
        }
    }
}

/// `output_config.format`.
#[derive(Serialize)]
struct Form<'s> {
    #[serde(rename = "type")]
    kind: &'static str,
    schema: &'s RawValue,
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::new();
    push_json(&mut json, value);
    json
}

fn as_raw<'a>(raw: &'a str, param: &str) -> Result<&'a RawValue, EncodeError> {
    serde_json::from_str(raw).map_err(|_| EncodeError::invalid(param, format!("`{param}` is not valid JSON.")))
}

/// A value that asks for nothing: what its absence would mean.
fn is_nothing(raw: &str) -> bool {
    matches!(raw, "null" | "false" | "0" | "0.0" | "{}" | "[]" | "\"\"")
}

fn is_taken_while_thinking(param: &str, number: f64) -> bool {
    match param {
        "temperature" => number == 1.0,
        "top_p" => number >= 0.95,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;

    use super::*;
    use crate::adapter::Options;
    use crate::provider::anthropic::bounds::{LONGEST_SCHEMAS, MOST_TOOLS};
    use crate::request::Operation;

    /// So many that to look at each of them for each other would take minutes.
    const MANY: usize = 10_000;

    fn encoded(body: String) -> Result<String, EncodeError> {
        let request = Request::parse(Operation::Chat, Bytes::from(body)).unwrap();
        let (options, caller) = (Options::default(), HeaderMap::new());
        let to = Target { model: "claude-sonnet-4-6", asked: "m", options: &options, caller: &caller, now: 0 };
        encode(&request, &to).map(|native| String::from_utf8(native.body.joined().to_vec()).unwrap())
    }

    /// What the caller is told of a request of these fields.
    fn refused(fields: &str) -> String {
        encoded(format!("{{{fields}}}")).unwrap_err().to_string()
    }

    #[test]
    fn what_holds_more_than_it_may_is_refused_by_its_name_with_its_number() {
        let messages = |inside: &str| format!(r#""messages":[{}]"#, inside.trim_end_matches(','));
        let hi = r#"{"role":"user","content":"x"},"#;
        assert!(encoded(format!("{{{}}}", messages(&hi.repeat(MOST_MESSAGES)))).is_ok());
        let told = refused(&messages(&hi.repeat(MOST_MESSAGES + 1)));
        assert_eq!(told, "`messages` holds 100001 items; this model takes 100000 at most.");
        for (field, most) in [("tools", MOST_TOOLS), ("functions", MOST_TOOLS), ("stop", MOST_WORDS)] {
            let items = "1,".repeat(most + 1);
            let told = refused(&format!(r#"{},"{field}":[{}]"#, messages(hi), items.trim_end_matches(',')));
            assert_eq!(told, format!("`{field}` holds {} items; this model takes {most} at most.", most + 1));
        }
        let allowed = "{},".repeat(MOST_TOOLS + 1);
        let choice = format!(r#"{{"type":"allowed_tools","allowed_tools":{{"tools":[{allowed}1]}}}}"#);
        let told = refused(&format!(r#"{},"tool_choice":{choice}"#, messages(hi)));
        assert!(told.starts_with("`tool_choice.allowed_tools.tools` holds 10002 items"), "{told}");
    }

    #[test]
    fn all_messages_together_hold_so_many_parts_calls_and_blocks() {
        let parts = |number: usize| r#"{"type":"text","text":"x"},"#.repeat(number);
        let user = |number: usize| format!(r#"{{"role":"user","content":[{}]}}"#, parts(number).trim_end_matches(','));
        let half = user(MOST_BLOCKS / 2);
        assert!(encoded(format!(r#"{{"messages":[{half},{half}]}}"#)).is_ok());
        let told = refused(&format!(r#""messages":[{half},{half},{}]"#, user(1)));
        assert_eq!(
            told,
            "With `messages[2].content` the messages hold 250001 parts, calls and blocks; this model takes 250000 at most."
        );
        for field in ["tool_calls", "thinking_blocks", "provider_blocks", "block_order", "annotations"] {
            let items = "{},".repeat(MOST_BLOCKS);
            let told = refused(&format!(r#""messages":[{},{{"role":"assistant","{field}":[{items}7]}}]"#, user(1)));
            let want = format!("With `messages[1].{field}` the messages hold 250002 ");
            assert!(told.starts_with(&want), "{told}");
        }
    }

    /// A request with a file of these bytes.
    fn with_file(bytes: &[u8]) -> Result<String, EncodeError> {
        let data = STANDARD.encode(bytes);
        encoded(format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"file","file":{{"file_data":"data:text/plain;base64,{data}"}}}}]}}]}}"#
        ))
    }

    #[test]
    fn a_file_of_control_characters_is_refused_where_it_would_become_far_longer_than_it_came() {
        assert!(with_file(&vec![0; MOST_GROWTH / 5]).unwrap().contains(r"\u0000"));
        assert!(with_file(&vec![b'x'; MOST_GROWTH]).is_ok());
        let told = with_file(&vec![0; MOST_GROWTH / 4]).unwrap_err().to_string();
        assert!(told.starts_with("In Anthropic's words the request is over 16777216 bytes longer"), "{told}");
    }

    #[test]
    fn long_texts_and_pictures_are_not_copied() {
        let long = "x".repeat(1 << 20);
        for part in [
            format!(r#"{{"type":"text","text":"{long}"}}"#),
            format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{long}"}}}}"#),
        ] {
            let body = Bytes::from(format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#));
            let request = Request::parse(Operation::Chat, body).unwrap();
            let (options, caller) = (Options::default(), HeaderMap::new());
            let to = Target { model: "claude-sonnet-4-6", asked: "m", options: &options, caller: &caller, now: 0 };
            let native = encode(&request, &to).unwrap();
            let own = |segment: &&Bytes| !request.body().as_ptr_range().contains(&segment.as_ptr());
            assert!(native.body.segments().iter().filter(own).map(Bytes::len).sum::<usize>() < 1000);
            assert!(native.body.len() > long.len());
        }
    }

    #[test]
    fn schemas_that_are_to_be_enforced_have_so_many_bytes_in_all() {
        let hi = r#""messages":[{"role":"user","content":"x"}]"#;
        let schema = format!(r#"{{"type":"object","title":"{}"}}"#, "x".repeat(LONGEST_SCHEMAS / 2));
        let tool = |strict| {
            format!(r#"{{"type":"function","function":{{"name":"f","strict":{strict},"parameters":{schema}}}}}"#)
        };
        let (strict, free) = (tool(true), tool(false));
        assert!(encoded(format!(r#"{{{hi},"tools":[{strict},{free},{free}]}}"#)).is_ok());
        let told = refused(&format!(r#"{hi},"tools":[{strict},{free},{strict}]"#));
        assert!(told.starts_with("The schemas in `tools` that are to be enforced have 41943"), "{told}");
        let format = format!(r#"{{"type":"json_schema","json_schema":{{"schema":{{"anyOf":[{schema},{schema}]}}}}}}"#);
        let told = refused(&format!(r#"{hi},"response_format":{format}"#));
        assert!(told.starts_with("The schemas in `response_format`"), "{told}");
    }

    /// As many things as `thing` makes, as the inside of an array.
    fn many(thing: impl Fn(usize) -> String) -> String {
        (0..MANY).map(thing).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn many_blocks_and_tools_of_anthropics_own_are_carried_at_once() {
        let blocks = many(|at| format!(r#"{{"type":"tool_reference","tool_name":"{at}"}}"#));
        let tools = many(|at| format!(r#"{{"type":"t_{at}"}}"#));
        let said =
            encoded(format!(r#"{{"messages":[{{"role":"user","content":[{blocks}]}}],"tools":[{tools}]}}"#)).unwrap();
        assert!(said.contains(&blocks) && said.contains(&tools));
    }

    #[test]
    fn many_tools_are_narrowed_to_those_that_are_allowed_at_once() {
        let tools = many(|at| format!(r#"{{"type":"function","function":{{"name":"f{at}"}}}}"#));
        let allowed = |from: usize| {
            let names = many(|at| format!(r#"{{"type":"function","function":{{"name":"f{}"}}}}"#, from + at / 2));
            let choice = format!(r#"{{"type":"allowed_tools","allowed_tools":{{"tools":[{names}]}}}}"#);
            encoded(format!(
                r#"{{"messages":[{{"role":"user","content":"x"}}],"tools":[{tools}],"tool_choice":{choice}}}"#
            ))
        };
        assert_eq!(allowed(MANY / 4).unwrap().matches("input_schema").count(), MANY / 2);
        assert!(allowed(MANY - 1).unwrap_err().to_string().contains(&format!("`f{MANY}`")));
    }

    #[test]
    fn many_results_go_in_front_of_many_texts_that_came_before_them_at_once() {
        let calls = many(|at| format!(r#"{{"id":"{at}","function":{{"name":"f{at}"}}}}"#));
        let texts = many(|_| r#"{"type":"text","text":"x"}"#.to_owned());
        let results = many(|at| format!(r#"{{"role":"tool","tool_call_id":"{}","content":"y"}}"#, MANY - 1 - at));
        let said = encoded(format!(
            r#"{{"messages":[{{"role":"assistant","tool_calls":[{calls}]}},{{"role":"user","content":[{texts}]}},{results}]}}"#
        ));
        let said = said.unwrap();
        let (first, last) = (said.find(r#""tool_use_id":"9999""#), said.rfind(r#""tool_use_id":"0""#));
        assert!(first < last && last < said.find(r#""text":"x""#));
        assert_eq!(said.matches("input_schema").count(), MANY, "each tool that was called is told once");
    }
}
