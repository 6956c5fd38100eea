//! `POST /v1/embeddings`: vectors that follow from the text, as floats or in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use super::super::dialect::{Answer, Ask, Refusal};
use super::super::fault::Encoding;
use super::super::reply::Usage;
use super::super::text::{self, Seed};
use super::{field, missing, wrong_type};

/// The most inputs of one request.
const MAX_INPUTS: usize = 2048;

/// Answers an embedding request.
pub(super) fn answer(ask: &Ask<'_>, json: &Value) -> Result<Answer, Refusal> {
    let inputs = inputs(json)?;
    check_count(inputs.len(), ask.fault.batch.unwrap_or(MAX_INPUTS))?;
    let dimensions = dimensions(json, ask.model)?;
    let encoding = ask.fault.embedding.map_or_else(|| encoding(json), Ok)?;
    let tokens = inputs.iter().map(Input::tokens).sum();
    let data = inputs.iter().enumerate().map(|(index, input)| {
        let vector = input.seed().vector(dimensions);
        Embedding { object: "embedding", index, embedding: Vector::of(vector, encoding) }
    });
    let usage = Usage { input: tokens, ..Usage::default() };
    let reported =
        usage.reported(ask.fault.usage).map(|usage| Counted { prompt_tokens: usage.input, total_tokens: usage.input });
    Ok(Answer::json(&List { object: "list", data: data.collect(), model: ask.model, usage: reported }, usage))
}

enum Input<'a> {
    Text(&'a str),
    Tokens(&'a [Value]),
}

impl Input<'_> {
    fn tokens(&self) -> u64 {
        match self {
            Self::Text(text) => text::count(text).max(1),
            Self::Tokens(tokens) => tokens.len() as u64,
        }
    }

    fn seed(&self) -> Seed {
        match self {
            Self::Text(text) => Seed::of(text.as_bytes()),
            Self::Tokens(tokens) => tokens.iter().filter_map(Value::as_u64).fold(Seed::of(b"tokens"), Seed::with),
        }
    }
}

fn inputs(json: &Value) -> Result<Vec<Input<'_>>, Refusal> {
    let input = field(json, "input").ok_or_else(|| missing("input"))?;
    let inputs: Option<Vec<Input<'_>>> = match input {
        Value::String(text) => Some(vec![Input::Text(text)]),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_u64) => Some(vec![Input::Tokens(items)]),
        Value::Array(items) => items.iter().map(one_input).collect(),
        _ => None,
    };
    let inputs =
        inputs.ok_or_else(|| wrong_type("input", "one of a string, array of strings or array of tokens", input))?;
    let empty = |input: &Input<'_>| matches!(input, Input::Text("") | Input::Tokens([]));
    if inputs.is_empty() || inputs.iter().any(empty) {
        return Err(Refusal::invalid("'$.input' is invalid. Please check the API reference.").param("input"));
    }
    Ok(inputs)
}

fn one_input(item: &Value) -> Option<Input<'_>> {
    match item {
        Value::String(text) => Some(Input::Text(text)),
        Value::Array(tokens) if tokens.iter().all(Value::is_u64) => Some(Input::Tokens(tokens)),
        _ => None,
    }
}

fn check_count(count: usize, most: usize) -> Result<(), Refusal> {
    if count <= most {
        return Ok(());
    }
    let message = format!("Invalid 'input': maximum number of items is {most}, but got {count}.");
    Err(Refusal::invalid(message).param("input").code("array_above_max_length"))
}

fn dimensions(json: &Value, model: &str) -> Result<usize, Refusal> {
    let most = if model.contains("large") { 3072 } else { 1536 };
    let Some(value) = field(json, "dimensions") else {
        return Ok(most);
    };
    if model.contains("ada") {
        return Err(Refusal::invalid("This model does not support specifying dimensions.").param("dimensions"));
    }
    let fits =
        value.as_u64().and_then(|wanted| usize::try_from(wanted).ok()).filter(|wanted| (1..=most).contains(wanted));
    let message = || format!("Invalid value for 'dimensions' = {value}. Must be at least 1 and at most {most}.");
    fits.ok_or_else(|| Refusal::invalid(message()).param("dimensions"))
}

fn encoding(json: &Value) -> Result<Encoding, Refusal> {
    match field(json, "encoding_format").map(|value| (value.as_str(), value)) {
        None | Some((Some("float"), _)) => Ok(Encoding::Float),
        Some((Some("base64"), _)) => Ok(Encoding::Base64),
        Some((_, other)) => {
            let message =
                format!("Invalid value for 'encoding_format': {other}. Supported values are: 'float' and 'base64'.");
            Err(Refusal::invalid(message).param("encoding_format").code("invalid_value"))
        }
    }
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Counted>,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
struct Counted {
    prompt_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

impl Vector {
    fn of(vector: Vec<f32>, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float => Self::Floats(vector),
            Encoding::Base64 => {
                Self::Base64(STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
            }
        }
    }
}
