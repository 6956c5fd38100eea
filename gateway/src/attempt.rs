//! One attempt at one target: the request in its words, its head, and what comes before the caller can be answered: the
//! whole answer, or a stream's first content. Until then a failure costs nothing but this attempt.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use adapters::refusal::{self, Class};
use adapters::{
    Adapter, DecodeError, Dropped, EncodeError, Extent, NativeRequest, Operation, Reply, Request, StreamFault, Target,
    Translator,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::error::{self, Fault, Kind};
use crate::headers;
use crate::ledger::Accuracy;
use crate::model::{ModelInstance, Picked};
use crate::net::upstream::{self, Answer, Cause, Outgoing, Sendings, Upstreams};
use crate::params::Adjusted;

/// The largest whole answer that is taken, unpacked: one with many pictures fits.
const MOST_ANSWER: usize = 64 * 1024 * 1024;

/// The same of embeddings: the largest batch in decimal fits.
const MOST_VECTORS: usize = 256 * 1024 * 1024;

/// The largest error body that is read.
const MOST_REFUSAL: usize = 64 * 1024;

/// How long that may take: its head has told the caller, or the next target's turn, enough.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// From this length on, what is said or read in a provider's words holds a thread for longer than others should wait.
const LONG: usize = 1024 * 1024;

/// The longest type of an answer that is told.
const LONGEST_FORM: usize = 64;

/// How much of a stream is held back at most while it has no content.
const MOST_HELD: usize = 64 * 1024;

/// An answer that can be relayed.
pub struct Begun {
    /// The provider's own id of the request.
    pub provider_request_id: Option<HeaderValue>,
    /// Parameters that could not be carried, joined by commas, with what is sent instead.
    pub dropped: Option<HeaderValue>,
    /// The answer itself.
    pub answer: Answering,
}

/// The two forms of an answer.
pub enum Answering {
    /// All of it.
    Whole(Reply),
    /// Its beginning, and where the rest comes from.
    Stream(Box<Stream>),
}

/// A stream under way.
pub struct Stream {
    /// The provider's bytes.
    pub source: Answer,
    /// What makes chunks of them; holds what is to be sent first.
    pub translator: Translator,
}

/// Who waits for a target: with the clocks that run meanwhile.
pub trait Patience: Send {
    /// Waits for `what`, a provider's doing. Pinned by whoever waits: taken by value it would be there twice.
    ///
    /// # Errors
    /// There is no more reason to wait.
    fn wait<T: Send>(
        &mut self,
        what: impl Future<Output = T> + Send + Unpin,
    ) -> impl Future<Output = Result<T, Fault>> + Send;

    /// The answer must begin within `limit` from now.
    fn begins(&mut self, limit: Option<Duration>);

    /// The answer comes: from here on, silence is what is timed.
    fn goes_on(&mut self);
}

/// What a target is asked.
pub struct Errand<'a, 's> {
    /// The target.
    pub picked: &'a Picked<'s>,
    /// The model as it was asked for.
    pub instance: &'a ModelInstance<'s>,
    /// The request.
    pub request: &'a Request,
    /// What its model made of it.
    pub adjusted: &'a Adjusted<'a>,
    /// Those of the caller's headers that a dialect may pass on.
    pub caller: &'a HeaderMap,
    /// How often it may go out, and has gone out.
    pub sendings: &'a Sendings,
}

/// Asks one target.
///
/// # Errors
/// What went wrong with this attempt.
pub async fn run(upstreams: &Upstreams, patience: &mut impl Patience, errand: &Errand<'_, '_>) -> Result<Begun, Fault> {
    let Errand { picked, instance, request, adjusted, caller, .. } = errand;
    let timeouts = instance.model().timeouts;
    let to = addressed(picked, instance, caller);
    let native = aside(request.body().len(), || encode(picked, request, adjusted, &to))?;
    // Of an answer that comes whole its head is the end of the work: that may take as long as all of it.
    patience.begins(timeouts.first_byte.filter(|_| request.is_stream()));
    let source = ask(upstreams, patience, errand, &native).await.map_err(|fault| blamed(fault, request))?;
    let provider_request_id = provider_request_id(&source.headers);
    let answer = begin(patience, errand, &to, source).await;
    let answer = answer.map_err(|fault| Fault { begun: true, ..fault })?;
    patience.goes_on();
    Ok(Begun { provider_request_id, dropped: dropped(&native.dropped), answer })
}

/// Works with so many bytes, where many of them hold up nobody else on the thread.
pub fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let can_leave = || Handle::try_current().is_ok_and(|here| here.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= LONG && can_leave() { tokio::task::block_in_place(work) } else { work() }
}

/// A server that breaks at a body which is no JSON says nothing of itself. Looked at only then: every other body would
/// pay for it.
fn blamed(fault: Fault, request: &Request) -> Fault {
    let broke = fault.refused.filter(|(status, _)| status.is_server_error());
    if broke.is_none() || request.is_valid() {
        return fault;
    }
    let message = "The request's body is not valid JSON in UTF-8 throughout, and the provider failed at it.";
    let callers = Fault::request(StatusCode::BAD_REQUEST, "invalid_request", message).with_detail(fault.message);
    Fault { refused: broke, ..callers }
}

/// Whom a request goes to, as its dialect is told.
#[must_use]
pub fn addressed<'a>(picked: &'a Picked<'_>, instance: &'a ModelInstance<'_>, caller: &'a HeaderMap) -> Target<'a> {
    let (model, options) = (&picked.upstream_model, &picked.target.provider.options);
    Target { model, asked: instance.asked(), options, caller, now: now() }
}

/// Says a request in the words of who was picked.
///
/// # Errors
/// The provider has no such endpoint, or no words for it.
pub fn encode(
    picked: &Picked<'_>,
    request: &Request,
    adjusted: &Adjusted<'_>,
    to: &Target<'_>,
) -> Result<NativeRequest, Fault> {
    refuse_unserved(picked, request.operation())?;
    let native = picked.target.provider.adapter.encode(request, to)?;
    let Some(Dropped { param, why, .. }) = adjusted.refuses(&native.dropped) else {
        return Ok(native);
    };
    let message = format!("`{param}` cannot be sent to this model as it is: {why}.");
    Err(EncodeError::unsupported(param, message).into())
}

/// The path and query of a request at its provider's host.
#[must_use]
pub fn path(picked: &Picked<'_>, native: &NativeRequest) -> String {
    [picked.target.provider.endpoint.base_path(), native.path.as_str()].concat()
}

/// A request as it goes out.
#[must_use]
pub fn outgoing<'a>(picked: &Picked<'a>, native: &'a NativeRequest, path: &'a str) -> Outgoing<'a> {
    let headers = &picked.target.credential.headers;
    Outgoing { method: Method::POST, path, headers, more: &native.headers, body: native.body.segments() }
}

/// Sends the request and reads the head of a success; a refusal is read whole.
async fn ask(
    upstreams: &Upstreams,
    patience: &mut impl Patience,
    errand: &Errand<'_, '_>,
    native: &NativeRequest,
) -> Result<Answer, Fault> {
    let Errand { picked, instance, sendings, .. } = errand;
    let (path, connect) = (path(picked, native), instance.model().timeouts.connect);
    let source = {
        let endpoint = &picked.target.provider.endpoint;
        let answered = pin!(upstreams.send_counted(endpoint, outgoing(picked, native, &path), connect, sendings));
        let answered = patience.wait(answered).await;
        answered.map_err(|fault| fault.of_sent(sendings.have_begun()))?.map_err(unreachable)?
    };
    if source.status.is_success() { Ok(source) } else { Err(Box::pin(refused(patience, picked, source)).await?) }
}

/// Reads as much of a success as the caller can be answered with.
async fn begin(
    patience: &mut impl Patience,
    errand: &Errand<'_, '_>,
    to: &Target<'_>,
    mut source: Answer,
) -> Result<Answering, Fault> {
    let Errand { picked, instance, request, .. } = errand;
    let adapter: &dyn Adapter = picked.target.provider.adapter;
    if request.is_stream() && is_event_stream(&source) {
        let translator = Translator::new(adapter.framing(), adapter.events(request, to), request.wants_usage());
        let mut stream = Box::new(Stream { source, translator });
        if let Err(fault) = until_content(patience, &mut stream, instance.model().timeouts.first_byte).await {
            return Err(fault.with_counted(stream.translator.writer().counted(), Accuracy::Partial));
        }
        // All of it was read that is, and a stream may be held for long.
        stream.source.headers = HeaderMap::new();
        return Ok(Answering::Stream(stream));
    }
    let body = whole(patience, &mut source, most_answer(request.operation())).await?;
    let headers = std::mem::take(&mut source.headers);
    source.release().await;
    let reply = aside(body.len(), || adapter.decode(request, to, body)).map_err(|fault| unread(fault, &headers))?;
    match refuse_whole_for_stream(request) {
        Ok(()) => Ok(Answering::Whole(reply)),
        Err(fault) => Err(fault.with_counted(reply.usage, accuracy(reply.extent))),
    }
}

/// How far a count of so much of an answer is to be relied on.
fn accuracy(extent: Extent) -> Accuracy {
    match extent {
        Extent::Whole => Accuracy::Exact,
        Extent::Input => Accuracy::Partial,
    }
}

/// The caller's headers that a dialect may pass on; none of them is a credential.
static PASSED_ON: [HeaderName; 2] = [HeaderName::from_static("anthropic-beta"), HeaderName::from_static("openai-beta")];

/// One list for all routes, so that no header is lost on some of them and no other ever leaves.
#[must_use]
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let all = |name: &'static HeaderName| headers.get_all(name).iter().map(|value| (name.clone(), value.clone()));
    PASSED_ON.iter().flat_map(all).collect()
}

fn refuse_unserved(picked: &Picked<'_>, operation: Operation) -> Result<(), Fault> {
    let adapter = picked.target.provider.adapter;
    if adapter.serves(operation) {
        return Ok(());
    }
    let message = format!("The provider of this model has no endpoint for {}.", operation.name());
    Err(Fault::request(StatusCode::BAD_REQUEST, "unsupported_endpoint", message).of_param("model"))
}

/// A success that is not a stream where one was asked for; an error in its clothes was found by decoding it.
fn refuse_whole_for_stream(request: &Request) -> Result<(), Fault> {
    if request.is_stream() {
        Err(error::unfit("The provider answered with one document and no stream.", "it was asked for a stream"))
    } else {
        Ok(())
    }
}

fn is_event_stream(source: &Answer) -> bool {
    let kind = source.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_none_or(|kind| !kind.to_ascii_lowercase().starts_with(b"application/json"))
}

/// Of what form an answer says to be, where that is not JSON.
fn form(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    (kind.len() <= LONGEST_FORM && !kind.to_ascii_lowercase().contains("json")).then(|| kind.to_owned())
}

/// Why a whole answer cannot be read: a page says what it is.
fn unread(fault: DecodeError, headers: &HeaderMap) -> Fault {
    match (fault, form(headers)) {
        (DecodeError::Malformed(what), Some(form)) => {
            error::unfit(format!("The provider's answer cannot be read: it is of type `{form}`."), what)
        }
        (fault, _) => fault.into(),
    }
}

/// Why a stream has ended before its content: nothing broke off where none came.
fn unstreamed(fault: StreamFault, source: &Answer) -> Fault {
    match (fault, form(&source.headers)) {
        (StreamFault::Absent, Some(form)) => error::unfit(
            format!("The provider answered with type `{form}` and no event of a stream."),
            "the body ended",
        ),
        (fault, _) => fault.into(),
    }
}

/// Reads a stream until it says more than that it lives. As long as it does say that, nobody is silent.
async fn until_content(
    patience: &mut impl Patience,
    stream: &mut Stream,
    silence: Option<Duration>,
) -> Result<(), Fault> {
    let Stream { source, translator } = stream;
    loop {
        let read = patience.wait(pin!(source.read())).await?.map_err(broken)?;
        match read {
            Some(bytes) => translator.feed(&bytes)?,
            None => translator.end().map_err(|fault| unstreamed(fault, source))?,
        }
        patience.begins(silence);
        let writer = translator.writer();
        if writer.has_content() || writer.pending().len() > MOST_HELD {
            return Ok(());
        }
    }
}

fn most_answer(operation: Operation) -> usize {
    match operation {
        Operation::Chat | Operation::Completions => MOST_ANSWER,
        Operation::Embeddings => MOST_VECTORS,
    }
}

/// All of an answer that has no more than `most` bytes, counted as they come and are unpacked.
async fn whole(patience: &mut impl Patience, source: &mut Answer, most: usize) -> Result<Bytes, Fault> {
    let Some(first) = patience.wait(pin!(source.read())).await?.map_err(broken)? else {
        return Ok(Bytes::new());
    };
    if source.is_complete_with(first.len()) {
        return Ok(first);
    }
    patience.goes_on();
    let Some(second) = patience.wait(pin!(source.read())).await?.map_err(broken)? else {
        return Ok(first);
    };
    let announced = source.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let mut body = BytesMut::with_capacity(announced.min(most).max(first.len() + second.len()));
    body.extend_from_slice(&first);
    body.extend_from_slice(&second);
    patience.goes_on();
    while let Some(piece) = patience.wait(pin!(source.read())).await?.map_err(broken)? {
        patience.goes_on();
        if body.len() + piece.len() > most {
            return Err(error::incomplete(format!("an answer over {most} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Reads what a provider says of its refusal; a refusal without a readable body is one all the same.
async fn refused(patience: &mut impl Patience, picked: &Picked<'_>, mut source: Answer) -> Result<Fault, Fault> {
    let body = {
        let read = pin!(tokio::time::timeout(REFUSAL_TIME, refusal_body(&mut source)));
        patience.wait(read).await?.ok().flatten().unwrap_or_default()
    };
    let mut refusal = picked.target.provider.adapter.refusal(source.status, &source.headers, &body);
    refusal.retry_after = refusal.retry_after.or_else(|| come_again(refusal.class, &source.headers));
    source.release().await;
    Ok(refusal.into())
}

/// When the provider's headers ask to come again.
fn come_again(class: Class, headers: &HeaderMap) -> Option<Duration> {
    let now = std::time::SystemTime::now();
    let reset = || (class == Class::RateLimit).then(|| refusal::limit_reset(headers, now)).flatten();
    refusal::retry_after(headers, now).or_else(reset)
}

/// All of a refusal's body; `None` where it is too large or breaks off.
async fn refusal_body(source: &mut Answer) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while let Some(piece) = source.read().await.ok()? {
        body.extend_from_slice(&piece);
        if body.len() > MOST_REFUSAL {
            return None;
        }
    }
    Some(body.freeze())
}

/// No answer came.
fn unreachable(fault: upstream::Fault) -> Fault {
    let detail = format!("{:?}: {} ({:?})", fault.cause, fault.detail, fault.address);
    let at = |kind, status, code, message: &str| Fault {
        cause: told_by(fault.cause),
        ..Fault::new(kind, status, code, message).with_detail(detail.clone())
    };
    match fault.cause {
        Cause::ConnectTimeout => at(
            Kind::ProviderTimeout,
            StatusCode::GATEWAY_TIMEOUT,
            "provider_timeout",
            "The provider did not accept a connection in time.",
        ),
        Cause::Malformed | Cause::TooLarge | Cause::Truncated => {
            at(Kind::ProviderError, StatusCode::BAD_GATEWAY, "provider_error", "The provider's answer cannot be read.")
        }
        _ => at(
            Kind::ProviderUnreachable,
            StatusCode::BAD_GATEWAY,
            "provider_unreachable",
            "The provider cannot be reached.",
        ),
    }
}

/// What it says of the target that no answer came: a connection that is lost now and then is a failure like others.
fn told_by(cause: Cause) -> Option<error::Cause> {
    match cause {
        Cause::Malformed | Cause::TooLarge | Cause::Truncated | Cause::Closed | Cause::Reset => {
            Some(error::Cause::Server)
        }
        Cause::Unsendable => None,
        Cause::Resolve
        | Cause::Forbidden
        | Cause::Refused
        | Cause::Unreachable
        | Cause::Proxy
        | Cause::Tls
        | Cause::ConnectTimeout => Some(error::Cause::Connection),
    }
}

/// An answer broke off.
pub fn broken(fault: upstream::Fault) -> Fault {
    error::incomplete(format!("{:?}: {}", fault.cause, fault.detail))
}

fn provider_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(headers::REQUEST_ID).or_else(|| headers.get("request-id"))?;
    // A copy: the value itself is a part of the whole head, which it would keep.
    HeaderValue::from_bytes(id.as_bytes()).ok()
}

fn dropped(dropped: &[Dropped]) -> Option<HeaderValue> {
    if dropped.is_empty() {
        return None;
    }
    let told: Vec<String> = dropped.iter().map(Dropped::to_string).collect();
    HeaderValue::try_from(told.join(",")).ok()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
