//! The answer to the client: whole in one write, or chunk by chunk as the provider sends them.

use std::pin::pin;

use adapters::{ChunkWriter, Reply, Translator, Usage};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::attempt::{Answering, Begun, Patience as _, Stream, broken};
use crate::error::Fault;
use crate::headers;
use crate::ledger::{self, Accuracy};
use crate::net::client::Head;
use crate::net::upstream::Answer;
use crate::record::Record;
use crate::turn::{Turn, tokens_in};

/// Relays an answer that has begun.
///
/// # Errors
/// The provider's answer broke off, or the caller left.
pub async fn answer(turn: &mut Turn<'_, '_>, begun: Begun) -> Result<(), Fault> {
    turn.record.dropped = begun.dropped;
    turn.record.provider_request_id = begun.provider_request_id;
    match begun.answer {
        Answering::Whole(reply) => whole(turn, reply).await,
        Answering::Stream(stream) => {
            let relayed = self::stream(turn, stream).await;
            turn.record.attempt_ended(relayed.as_ref().copied());
            relayed
        }
    }
}

async fn whole(turn: &mut Turn<'_, '_>, reply: Reply) -> Result<(), Fault> {
    turn.record.attempt_ended(Ok(()));
    let (usage, accuracy) = match reply.usage {
        Some(counted) => (counted, Accuracy::Exact),
        None => (turn.estimate(tokens_in(reply.body.len())), Accuracy::Estimated),
    };
    turn.record.used(usage, accuracy);
    turn.record.status = Some(StatusCode::OK);
    let mut head = head(turn.record, StatusCode::OK);
    head.add(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    turn.record.pay();
    if turn.has_left() {
        return Err(Fault::gone());
    }
    turn.client.send(head, reply.body.segments()).await.map_err(|_| Fault::gone())
}

/// The stream stays in its box: a connection that is held for long keeps no room for it twice.
async fn stream(turn: &mut Turn<'_, '_>, mut stream: Box<Stream>) -> Result<(), Fault> {
    turn.record.content_begun();
    let Stream { source, translator } = &mut *stream;
    let pumped = pump(turn, source, translator).await;
    let writer = translator.writer_mut();
    count(turn, writer, pumped.is_ok());
    pumped?;
    turn.record.pay();
    writer.close(route(turn.record).as_deref());
    turn.push(writer.take()).await?;
    stream.source.release().await;
    turn.end().await
}

/// Sends what the provider sends, as it comes, until its answer is complete.
async fn pump(turn: &mut Turn<'_, '_>, source: &mut Answer, translator: &mut Translator) -> Result<(), Fault> {
    turn.begin().await?;
    while !translator.writer().is_complete() {
        turn.push(translator.writer_mut().take()).await?;
        turn.goes_on();
        let (usage, accuracy) = used(turn, translator.writer(), false);
        turn.record.used_so_far(usage, accuracy);
        let fed = match turn.wait(pin!(source.read())).await?.map_err(broken)? {
            Some(bytes) => translator.feed(&bytes),
            None => translator.end(),
        };
        if let Err(fault) = fed {
            turn.push(translator.writer_mut().take()).await?;
            return Err(fault.into());
        }
    }
    Ok(())
}

/// What the stream used, all told.
fn count(turn: &mut Turn<'_, '_>, writer: &mut ChunkWriter, complete: bool) {
    let (usage, accuracy) = used(turn, writer, complete);
    writer.usage(usage);
    turn.record.used(usage, accuracy);
}

/// What a stream used: as the provider counted, or by an estimate where it did not.
fn used(turn: &Turn<'_, '_>, writer: &ChunkWriter, complete: bool) -> (Usage, Accuracy) {
    let counted = writer.counted();
    let estimated = || Usage { tier: writer.tier(), ..turn.estimate(writer.content_events()) };
    let mut usage = counted.unwrap_or_else(estimated);
    if !complete {
        // Some providers count at the beginning and again at the end, which has not come.
        usage.output_tokens = usage.output_tokens.max(writer.content_events());
    }
    let accuracy = match (counted, complete) {
        (None, _) => Accuracy::Estimated,
        (Some(_), true) => Accuracy::Exact,
        (Some(_), false) => Accuracy::Partial,
    };
    (usage, accuracy)
}

/// What every answer of a model carries.
pub fn head(record: &Record<'_>, status: StatusCode) -> Head {
    let mut head = Head::new(status);
    head.add(headers::REQUEST_ID, record.id.clone());
    if let Some(model) = record.model {
        head.add_some(
            headers::MODEL,
            model.header.clone().or_else(|| HeaderValue::try_from(record.asked.as_str()).ok()),
        );
    }
    if let Some(attempt) = record.attempts.last() {
        head.add(headers::PROVIDER, attempt.target.provider.header.clone());
        head.add_some(headers::CREDENTIAL, attempt.target.credential.header.clone());
        let source = attempt.target.credential.source.as_str();
        let is_own = record.model.is_some_and(|model| model.is_own);
        head.add_some(headers::CREDENTIAL_SOURCE, is_own.then(|| HeaderValue::from_static(source)));
    }
    if record.operation.is_some() {
        head.add(headers::ATTEMPTS, headers::number(record.attempts.len()));
        head.add(headers::OVERHEAD, headers::number(record.overhead_us()));
    }
    if let Some(standing) = record.bill.standing() {
        standing.headers().for_each(|(name, value)| head.add(name, value));
    }
    head.add_some(headers::COST, cost(record));
    head.add_some(headers::MAX_TOKENS, record.limited_to.map(headers::number));
    head.add_some(headers::DROPPED, record.dropped.clone());
    head.add_some(headers::PROVIDER_REQUEST_ID, record.provider_request_id.clone());
    head
}

fn cost(record: &Record<'_>) -> Option<HeaderValue> {
    HeaderValue::try_from(ledger::dollars_text(record.cost()?)).ok()
}

/// The route and the cost, for the usage chunk at a stream's end.
#[derive(Serialize)]
struct Route<'a> {
    model: &'a str,
    provider: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    attempts: usize,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "ledger::dollars")]
    cost_usd: Option<i64>,
}

fn route(record: &Record<'_>) -> Option<Vec<u8>> {
    let attempt = record.attempts.last()?;
    let route = Route {
        model: &record.asked,
        provider: &attempt.target.provider.name,
        credential: attempt.target.credential.id.as_deref(),
        attempts: record.attempts.len(),
        cost_usd: record.cost(),
    };
    serde_json::to_vec(&route).ok()
}
