//! The answer to the client: whole in one write, or chunk by chunk as the provider sends them.

use std::pin::pin;

use adapters::{ChunkWriter, Extent, Reply, Translator, Usage, content_length};
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
    let estimated = || turn.estimate(tokens_in(content_length(&reply.body.joined())));
    let (usage, accuracy) = match (reply.usage, reply.extent) {
        (Some(counted), Extent::Whole) => (counted, Accuracy::Exact),
        (Some(counted), Extent::Input) => (at_least(counted, estimated().output_tokens), Accuracy::Partial),
        (None, _) => (estimated(), Accuracy::Estimated),
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

/// A stream that is relayed. However that ends, also where nobody waits for it any more, what it has brought is
/// counted.
struct Relayed<'t, 'c, 's> {
    turn: &'t mut Turn<'c, 's>,
    translator: &'t mut Translator,
    is_complete: bool,
}

impl Drop for Relayed<'_, '_, '_> {
    fn drop(&mut self) {
        count(self.turn, self.translator.writer_mut(), self.is_complete);
    }
}

/// The stream stays in its box: a connection that is held for long keeps no room for it twice.
async fn stream(turn: &mut Turn<'_, '_>, mut stream: Box<Stream>) -> Result<(), Fault> {
    turn.record.content_begun();
    let Stream { source, translator } = &mut *stream;
    let mut relayed = Relayed { turn, translator, is_complete: false };
    let pumped = pump(relayed.turn, source, relayed.translator).await;
    relayed.is_complete = pumped.is_ok();
    drop(relayed);
    pumped?;
    turn.record.pay();
    let writer = stream.translator.writer_mut();
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

/// What a stream used: as the provider counted, or by an estimate where it did not.
fn count(turn: &mut Turn<'_, '_>, writer: &mut ChunkWriter, complete: bool) {
    // Whoever sends word by word tells a token an event.
    let written = writer.content_events().max(tokens_in(writer.content_length()));
    let estimated = || Usage { tier: writer.tier(), ..turn.estimate(written) };
    let (usage, accuracy) = match (writer.counted(), writer.extent()) {
        (None, _) => (estimated(), Accuracy::Estimated),
        (Some(counted), Extent::Whole) if complete => (counted, Accuracy::Exact),
        // Some providers count at the beginning and again at the end, which has not come.
        (Some(counted), _) => (at_least(counted, estimated().output_tokens), Accuracy::Partial),
    };
    writer.settle(usage);
    turn.record.used(usage, accuracy);
}

/// What was counted, and no less output than this.
fn at_least(counted: Usage, output_tokens: u64) -> Usage {
    Usage { output_tokens: counted.output_tokens.max(output_tokens), ..counted }
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
    if let Some(standing) = record.bill.standing(record.latest) {
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
