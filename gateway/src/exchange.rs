//! One request from its first byte to its last: the file to read first.
//!
//! The ten steps: the head is read and the record opened; the key is looked up; its limits admit the request; the body
//! is read and indexed; the model is resolved; its own limits admit the request; a target is picked, paid for at its
//! worst case and asked (`search`); when it fails, another one is; the answer is relayed, whole or as a stream; and the
//! record, dropped at the end, settles, writes the ledger's row, logs and counts.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use adapters::{Operation, Request};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;

use crate::access::{self, Key};
use crate::attempt::{self, Begun, Patience as _};
use crate::bill::ModelTurn;
use crate::error::{Fault, Kind};
use crate::gateway::Gateway;
use crate::headers;
use crate::listing;
use crate::model::{self, ModelInstance, Snapshot, type_of};
use crate::net::client::{BodyFault, Client, Head};
use crate::reasons::Because;
use crate::record::Record;
use crate::relay;
use crate::retry;
use crate::route::{self, Route};
use crate::search;
use crate::succession::Succession;
use crate::timer::Timer;
use crate::turn::Turn;

/// Serves one request of `client`.
pub async fn serve(gateway: &Gateway, client: &mut Client) {
    let snapshot = gateway.models.load();
    let mut record = Record::open(gateway, client.headers());
    if gateway.is_draining() {
        client.close_after();
    }
    let answered = {
        let answering = pin!(answer(gateway, &snapshot, client, &mut record));
        unwound(answering).await
    };
    if answered.is_none() {
        client.close_after();
    }
    if let Err(fault) = answered.unwrap_or_else(|| Err(Fault::internal("panicked"))) {
        refuse(client, &mut record, fault).await;
    }
    record.finished = true;
}

/// Tells the caller of a request that was cut, whose record was dropped with it, that there is no more to come.
pub async fn cut(client: &mut Client) {
    let fault = Fault::draining();
    client.close_after();
    if client.is_answered() {
        let _nobody_listens = client.push(fault.event()).await;
        client.abort().await;
    } else {
        let mut head = Head::new(fault.status);
        head.add(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        head.add(headers::ERROR, HeaderValue::from_static(fault.kind.name()));
        let body = fault.body(route::dialect(client.path()));
        let _nobody_listens = client.send(head, &[body]).await;
    }
}

/// A future that is made in its box. `Box::pin` makes it on the stack and copies all of it, several kilobytes that hold
/// nothing yet.
pub fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// What `future` comes to; `None` when it panics, which costs this request and no other. Pinned by the caller: taken by
/// value it would be there twice.
async fn unwound<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_told_by_the_panic_hook) => Poll::Ready(None),
    })
    .await
}

/// Answers what cannot be read as a request.
pub async fn refuse_nonsense(gateway: &Gateway, client: &mut Client, why: &str) {
    let mut record = Record::open(gateway, &HeaderMap::new());
    let message = format!("This is not a valid HTTP request: {why}.");
    let fault = Fault::request(StatusCode::BAD_REQUEST, "invalid_request", message);
    refuse(client, &mut record, fault).await;
    record.finished = true;
}

async fn answer<'s>(
    gateway: &'s Gateway,
    snapshot: &'s Snapshot,
    client: &mut Client,
    record: &mut Record<'s>,
) -> Result<(), Fault> {
    let route = Route::of(client.method(), client.uri().path())?;
    record.route = route.name();
    match route {
        Route::Call(operation) => call(gateway, snapshot, client, record, operation).await,
        Route::Models => {
            let key = authenticate(snapshot, client, record)?;
            json(client, record, StatusCode::OK, listing::models(snapshot, key)).await
        }
        Route::Model(name) => {
            let key = authenticate(snapshot, client, record)?;
            json(client, record, StatusCode::OK, listing::model(snapshot, key, &name)?).await
        }
        Route::Usage(id) => {
            let key = authenticate(snapshot, client, record)?;
            let row = usage(gateway, key, id).await?;
            json(client, record, StatusCode::OK, row).await
        }
        Route::Healthz => json(client, record, StatusCode::OK, listing::health("ok")).await,
        Route::Readyz if gateway.is_draining() => {
            json(client, record, StatusCode::SERVICE_UNAVAILABLE, listing::health("draining")).await
        }
        Route::Readyz => json(client, record, StatusCode::OK, listing::health("ready")).await,
    }
}

/// A request to a model.
async fn call<'s>(
    gateway: &'s Gateway,
    snapshot: &'s Snapshot,
    client: &mut Client,
    record: &mut Record<'s>,
    operation: Operation,
) -> Result<(), Fault> {
    record.operation = Some(operation);
    let key = authenticate(snapshot, client, record)?;
    record.bill.admit(key, record.latest).await?;
    refuse_encoded(client.headers())?;
    let request = read(snapshot, client, record, operation).await?;
    let asked = model::asked(&request)?;
    record.asked = asked.as_deref().unwrap_or_default().to_owned();
    record.stream = request.is_stream();
    let mut instance = snapshot.resolve(key, type_of(operation), asked.as_deref())?;
    instance.narrow(key, client.headers())?;
    if let Some(other) = instead(snapshot, key, operation, client.headers()).filter(|it| it.asked() != instance.asked())
    {
        record.choices.took_over(other.asked(), instance.asked(), Because::LowBudget);
        instance = other;
    }
    let timer = timer(client.headers(), &instance, &request, record.latest)?;
    let mut turn = Turn::new(client, record, timer, &request);
    // Boxed, so that a stream that is held for long does not hold this part's state too.
    let begun = boxed(|| any_answer(gateway, snapshot, &mut turn, instance, key, &request)).await?;
    drop(request);
    relay::answer(&mut turn, begun).await
}

/// The model that answers while a budget of `key` is low, where the budget names one and the credential that the caller
/// names serves it.
pub(crate) fn instead<'s>(
    snapshot: &'s Snapshot,
    key: &'s Key,
    operation: Operation,
    headers: &HeaderMap,
) -> Option<ModelInstance<'s>> {
    if key.accounts.is_empty() {
        return None;
    }
    let name = key.accounts.instead(Timestamp::now())?;
    let mut other = snapshot.resolve(key, type_of(operation), Some(name)).ok()?;
    other.narrow(key, headers).ok().map(|()| other)
}

/// The first answer of the model that was asked for or of one that takes over for it. Each of them is resolved, limited
/// and priced as if it had been asked for.
async fn any_answer<'s>(
    gateway: &'s Gateway,
    snapshot: &'s Snapshot,
    turn: &mut Turn<'_, 's>,
    instance: ModelInstance<'s>,
    key: &'s Key,
    request: &Request,
) -> Result<Begun, Fault> {
    let model = instance.model();
    let mut fault = match answer_of(gateway, &snapshot.rounds, turn, instance, key, request).await {
        Ok(begun) => return Ok(begun),
        Err(fault) => fault,
    };
    let asked = turn.record.asked.clone();
    let mut succession = Succession::after((snapshot, key), request.operation(), (model, asked), &fault);
    while let Some(mut instance) = succession.next() {
        if turn.is_over() || instance.narrow(key, turn.client.headers()).is_err() {
            continue;
        }
        turn.record.choices.took_over(instance.asked(), &turn.record.asked, Because::Failed(fault.kind));
        let other = instance.model();
        gateway.metrics.fallbacks.with_label_values(&[&model.name, &other.name]).inc();
        match answer_of(gateway, &snapshot.rounds, turn, instance, key, request).await {
            Ok(begun) => return Ok(begun),
            Err(failed) => fault = failed,
        }
        succession.failed(other, &fault);
    }
    Err(fault)
}

/// The first answer of one model.
async fn answer_of<'s>(
    gateway: &'s Gateway,
    rounds: &retry::Budget,
    turn: &mut Turn<'_, 's>,
    mut instance: ModelInstance<'s>,
    key: &'s Key,
    request: &Request,
) -> Result<Begun, Fault> {
    let model = instance.model();
    instance.asked().clone_into(&mut turn.record.asked);
    turn.record.model = Some(model);
    instance.relate(key, turn.client.headers(), request);
    let adjusted = model.adjust(request)?;
    let admitted = turn_at(turn, &instance).await?;
    let now = turn.record.latest;
    turn.record.bill.for_model(&instance, &adjusted.request, admitted, now).await?;
    search::first_answer(gateway, rounds, turn, &instance, key, &adjusted).await
}

/// Waits for a slot of the model's own limits, where it has such and is to be waited for: no longer than the caller
/// does.
async fn turn_at(turn: &mut Turn<'_, '_>, instance: &ModelInstance<'_>) -> Result<ModelTurn, Fault> {
    let Some((scopes, queue)) = turn.record.bill.queue_of(instance, turn.record.latest) else {
        return Ok(None);
    };
    turn.timer.phase(None, "queue");
    let admitted = Box::pin(turn.wait(pin!(scopes.admit_in_turn(queue)))).await?;
    Ok(Some((scopes, admitted)))
}

fn authenticate<'s>(snapshot: &'s Snapshot, client: &Client, record: &mut Record<'s>) -> Result<&'s Key, Fault> {
    let (keys, headers, now) = (&snapshot.keys, client.headers(), record.began.into());
    let key = match snapshot.guesses.as_deref().zip(client.address()) {
        Some((guesses, address)) => access::authenticate_from(address, guesses, keys, headers, now)?,
        None => access::authenticate(keys, headers, now)?,
    };
    record.key = Some(key);
    Ok(key)
}

/// How long a row may take to be committed, and how often it is looked for meanwhile.
const ROW_WAIT: Duration = Duration::from_millis(50);
const ROW_LOOKS: u32 = 10;

/// How many looks another gateway's row may take until it is where this one can read it.
const COPY_LOOKS: u32 = 4;

/// The row of a request that this key's tenant made.
async fn usage(gateway: &Gateway, key: &Key, id: String) -> Result<Bytes, Fault> {
    let (reader, tenant) = (gateway.ledger.reader(), key.tenant.id.clone());
    let message = format!("There is no request `{id}` of this tenant in the ledger.");
    let find = move || reader.find(&id, Some(&tenant), |row| serde_json::to_vec(row).unwrap_or_default());
    for look in 0..ROW_LOOKS {
        let find = find.clone();
        let found = tokio::task::spawn_blocking(find).await.map_err(|error| Fault::internal(error.to_string()))?;
        // It may have ended just now. What is not there at all is not worth the whole wait.
        let committed = look > 0 && gateway.ledger.lag().is_zero();
        let copied = committed && (look >= COPY_LOOKS || !gateway.ledger.is_shared());
        match found {
            Ok(Some(row)) => return Ok(row.into()),
            Err(error) if copied || look + 1 == ROW_LOOKS => return Err(Fault::store(&error)),
            Ok(None) if copied => break,
            Ok(None) | Err(_) => {}
        }
        tokio::time::sleep(ROW_WAIT).await;
    }
    Err(Fault::request(StatusCode::NOT_FOUND, "request_not_found", message))
}

fn timer(headers: &HeaderMap, instance: &ModelInstance<'_>, request: &Request, now: Instant) -> Result<Timer, Fault> {
    let keepalive = instance.model().timeouts.keepalive;
    Ok(Timer::start(now.into(), longest(headers, instance)?, keepalive.filter(|_| request.is_stream())))
}

/// How long a request may take: as long as its model allows, and its caller.
pub(crate) fn longest(headers: &HeaderMap, instance: &ModelInstance<'_>) -> Result<Option<Duration>, Fault> {
    let callers = headers.get(headers::TIMEOUT).map(milliseconds).transpose()?;
    Ok(match (instance.model().timeouts.total, callers) {
        (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
        (ours, theirs) => ours.or(theirs),
    })
}

fn milliseconds(value: &HeaderValue) -> Result<Duration, Fault> {
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|ms| *ms > 0);
    parsed.map(Duration::from_millis).ok_or_else(|| {
        let message = "x-weir-timeout-ms must be a whole number of milliseconds over 0.";
        Fault::request(StatusCode::BAD_REQUEST, "invalid_request", message).of_param("x-weir-timeout-ms")
    })
}

async fn read(
    snapshot: &Snapshot,
    client: &mut Client,
    record: &mut Record<'_>,
    operation: Operation,
) -> Result<Request, Fault> {
    let since = Instant::now();
    let body = client.read_body(snapshot.max_body).await;
    record.waited(since);
    let body = body.map_err(|fault| match fault {
        BodyFault::Gone => Fault::gone(),
        BodyFault::Stalled => {
            let message = "The rest of the request's body did not arrive in time.";
            Fault::request(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
        }
        BodyFault::Malformed => {
            let message = "The request's body is not valid chunked encoding.";
            Fault::request(StatusCode::BAD_REQUEST, "invalid_request", message)
        }
        BodyFault::TooLarge => too_large(snapshot),
    })?;
    Ok(attempt::aside(body.len(), || Request::parse(operation, body))?)
}

pub(crate) fn too_large(snapshot: &Snapshot) -> Fault {
    let message = format!("The request's body is larger than {} bytes.", snapshot.max_body);
    Fault::request(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

/// JSON is read whatever the content type says, since many clients say nothing useful; what is surely something else is
/// refused by name.
pub(crate) fn refuse_encoded(headers: &HeaderMap) -> Result<(), Fault> {
    let unsupported =
        |message: String| Err(Fault::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return unsupported(format!("A body with content-encoding {encoding} cannot be read; send it uncompressed."));
    }
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !headers.get_all(header::TRANSFER_ENCODING).iter().all(is_chunked) {
        return unsupported("A body with a transfer-encoding other than chunked cannot be read.".to_owned());
    }
    let is_multipart = |kind: &str| kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
    if text(header::CONTENT_TYPE).is_some_and(is_multipart) {
        return unsupported("This endpoint takes JSON, not multipart.".to_owned());
    }
    Ok(())
}

async fn json(client: &mut Client, record: &mut Record<'_>, status: StatusCode, body: Bytes) -> Result<(), Fault> {
    let mut head = Head::new(status);
    head.add(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.add(headers::REQUEST_ID, record.id.clone());
    record.status = Some(status);
    client.send(head, &[body]).await.map_err(|_| Fault::gone())
}

/// Tells the caller what went wrong: by a status while that is possible, else by the event that ends a stream.
async fn refuse(client: &mut Client, record: &mut Record<'_>, mut fault: Fault) {
    let credentials = record.attempts.iter().map(|attempt| &attempt.target.credential);
    credentials.flat_map(|credential| credential.secrets()).for_each(|secret| fault.conceal(secret));
    if fault.kind == Kind::CallerGone {
        client.abort().await;
    } else if client.is_answered() {
        let _nobody_listens = client.push(fault.event()).await;
        client.abort().await;
    } else {
        record.status = Some(fault.status);
        let head = refusal(record, &fault, client);
        let body = fault.body(route::dialect(client.path()));
        let _nobody_listens = client.send(head, &[body]).await;
    }
    record.fault = Some(fault);
}

fn refusal(record: &Record<'_>, fault: &Fault, client: &Client) -> Head {
    let mut head = relay::head(record, fault.status);
    head.add(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.add(headers::ERROR, HeaderValue::from_static(fault.kind.name()));
    if let Some(after) = fault.retry_after {
        head.add(header::RETRY_AFTER, headers::number(after.as_secs_f64().ceil().max(0.0) as u64));
    }
    if fault.kind == Kind::PolicyBudget {
        head.add(headers::SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if fault.status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = Route::method(client.uri().path());
        head.add_some(header::ALLOW, allowed.and_then(|method| HeaderValue::try_from(method.as_str()).ok()));
    }
    head
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a panic is what is tried")]

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_own_request_alone() {
        assert_eq!(unwound(pin!(async { 7 })).await, Some(7));
        let panicking = pin!(async {
            tokio::task::yield_now().await;
            panic!("as a test wants it");
        });
        assert_eq!(unwound(panicking).await, None::<()>);
    }
}
