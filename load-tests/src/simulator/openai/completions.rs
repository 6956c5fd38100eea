//! `POST /v1/completions`: the legacy text endpoint, whole and streamed, one choice for each prompt.

use serde::Serialize;
use serde_json::Value;

use super::super::dialect::{Answer, Ask, Refusal};
use super::super::reply::{Finish, Prompt, Reply, Usage};
use super::super::script::{Frames, Place};
use super::super::text;
use super::{CREATED, FINGERPRINT, Streaming, UsageObject, data, done, field, missing, wrong_type};

/// Answers a legacy completion request.
pub(super) fn answer(ask: &Ask<'_>, json: &Value) -> Result<Answer, Refusal> {
    let streaming = Streaming::of(json)?;
    let limit = field(json, "max_tokens").and_then(Value::as_u64);
    let replies: Vec<Reply> = prompts(json)?.into_iter().map(|text| reply(text, limit, ask)).collect();
    let total = |of: fn(&Usage) -> u64| replies.iter().map(|reply| of(&reply.usage)).sum();
    let usage = Usage { input: total(|usage| usage.input), output: total(|usage| usage.output), ..Usage::default() };
    let reported = usage.reported(ask.fault.usage).map(UsageObject::from);
    let id = ask.seed.id("cmpl-", 29);
    let object = |choices, usage| Object {
        id: &id,
        object: "text_completion",
        created: CREATED,
        model: ask.model,
        choices,
        system_fingerprint: FINGERPRINT,
        usage,
    };
    if !streaming.on {
        let choices = replies.iter().enumerate().map(|(index, reply)| choice(index, &reply.text, Some(finish(reply))));
        return Ok(Answer::json(&object(choices.collect(), reported.map(Some)), usage));
    }
    let mut frames = Frames::default();
    let pending = streaming.usage.then_some(None);
    for (index, reply) in replies.iter().enumerate() {
        for word in text::pieces(&reply.text) {
            frames.push(Place::Content(text::count(word)), |out| {
                data(out, &object(vec![choice(index, word, None)], pending))
            });
        }
        frames.push(Place::Tail, |out| data(out, &object(vec![choice(index, "", Some(finish(reply)))], pending)));
    }
    if let Some(reported) = reported.filter(|_| streaming.usage) {
        frames.push(Place::Tail, |out| data(out, &object(Vec::new(), Some(Some(reported)))));
    }
    frames.push(Place::Tail, done);
    Ok(Answer::events(frames, usage))
}

fn reply(text: String, limit: Option<u64>, ask: &Ask<'_>) -> Reply {
    let input = text::count(&text).max(1);
    Reply::to(&Prompt { text: text.into(), input, limit, ..Prompt::default() }, ask.fault)
}

fn prompts(json: &Value) -> Result<Vec<String>, Refusal> {
    let prompt = field(json, "prompt").ok_or_else(|| missing("prompt"))?;
    match prompt {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) if items.iter().all(Value::is_string) && !items.is_empty() => {
            Ok(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Value::Array(tokens) if tokens.iter().all(Value::is_u64) && !tokens.is_empty() => {
            Ok(vec!["token ".repeat(tokens.len())])
        }
        other => Err(wrong_type("prompt", "one of a string or array of strings", other)),
    }
}

fn finish(reply: &Reply) -> &'static str {
    match reply.finish {
        Finish::Length => "length",
        Finish::Stop | Finish::Sequence(_) | Finish::Calls => "stop",
    }
}

fn choice<'a>(index: usize, text: &'a str, finish_reason: Option<&'static str>) -> Choice<'a> {
    Choice { text, index, logprobs: None, finish_reason }
}

#[derive(Serialize)]
struct Object<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    system_fingerprint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageObject>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    text: &'a str,
    index: usize,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}
