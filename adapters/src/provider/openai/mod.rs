//! OpenAI, and every host that speaks as it does: the caller's bytes go out with two or three spans spliced, and what
//! comes back passes unchanged but for the model's name, where it was an alias, and the usage.

mod alike;
mod events;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::adapter::{Adapter, DecodeError, EncodeError, EventDecoder, NativeRequest, Reply, Target};
use crate::frame::BYTE_ORDER_MARK;
use crate::index::Index;
use crate::openai::embedding::{Encoding, in_encoding};
use crate::openai::{error, usage};
use crate::refusal::Refusal;
use crate::request::{Edit, Operation, Request, rewrite};
use crate::usage::{Extent, ServiceTier};
use events::{PassThrough, is_none};

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
        let model = quoted(to.model);
        if request.get("model") != Some(model.as_ref()) {
            edits.push(as_model(model));
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
        let counted = usage.and_then(|raw| usage::read(raw, tier));
        let mut edits: Vec<Edit<'_>> = renamed(to).map(as_model).into_iter().collect();
        if request.operation() == Operation::Embeddings {
            let wanted = Encoding::asked(request.get("encoding_format"));
            let inputs = request.inputs();
            let data = wanted.map(|wanted| in_encoding(&body, &index, wanted, inputs)).transpose()?.flatten();
            edits.extend(data.map(|data| Edit::Set("data", data)));
        }
        let body = rewrite(&body, &index, &edits);
        let told = counted.map(|counted| counted.extent).unwrap_or_default();
        // Nothing comes out of an embedding that is counted.
        let extent = if request.operation() == Operation::Embeddings { Extent::Whole } else { told };
        Ok(Reply { body, usage: counted.map(|counted| counted.usage), extent })
    }

    fn events(&self, request: &Request, to: &Target<'_>) -> Box<dyn EventDecoder> {
        Box::new(PassThrough::new(renamed(to), request.wants_usage(), request.answers()))
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

/// An error in the clothes of a success: an `error` that says something, whatever stands beside it (some hosts send
/// their last words along), or an object that calls itself one.
fn is_error(error: Option<&[u8]>, object: Option<&[u8]>) -> bool {
    error.is_some_and(|error| !matches!(error, b"null" | b"\"\"" | b"{}" | b"false")) || object == Some(b"\"error\"")
}
