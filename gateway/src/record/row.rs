//! A request's row in the ledger.

use std::time::Duration;

use super::{Attempt, Record};
use crate::access::Key;
use crate::bill::Spent;
use crate::ledger::{self, Counts, Intent, Opened, Row, UnderWay};

/// What the ledger notes of a request that has not ended.
pub(super) fn intent<'a>(
    record: &'a Record<'_>,
    key: &'a Key,
) -> Intent<'a, impl Iterator<Item = (&'a str, i64, i64)>> {
    let opened = Opened {
        request_id: id(record),
        tenant: &key.tenant.id,
        key: &key.id,
        model: model(record),
        kind: kind(record),
        started_at: record.began,
    };
    let mut running = record.attempts.iter().filter(|attempt| attempt.outcome.is_none());
    let running = [running.next(), running.next()].map(|attempt| Some((attempt?, record.input_of(attempt?))));
    Intent {
        opened,
        so_far: so_far(record, &opened),
        under_way: running.map(|attempt| attempt.map(|(attempt, input)| under_way(attempt, &input))),
        charges: record.bill.due(running.map(|attempt| Some(attempt?.1))),
    }
}

/// The row with the attempts that have ended.
fn so_far<'a>(record: &'a Record<'_>, opened: &Opened<'a>) -> Option<Row<'a>> {
    let ended = record.attempts.iter().filter(|attempt| attempt.outcome.is_some());
    let (last, spent) = (ended.clone().next_back()?, record.spent());
    Some(Row {
        provider: Some(last.target.provider.name.as_str().into()),
        upstream_model: Some(last.upstream_model.as_str().into()),
        credential: credential(last),
        attempts: ended.map(tried).collect(),
        usage: spent.map(|spent| Counts::from(spent.usage)).unwrap_or_default(),
        cost: spent.and_then(|spent| spent.cost),
        ..opened.row()
    })
}

fn under_way<'a>(attempt: &'a Attempt<'_>, input: &Spent) -> UnderWay<'a> {
    UnderWay {
        provider: attempt.target.provider.name.as_str().into(),
        upstream_model: attempt.upstream_model.as_str().into(),
        credential: credential(attempt),
        input_tokens: input.usage.input_tokens,
        cost: input.cost,
    }
}

/// A request that has ended.
pub(super) fn of<'a>(record: &'a Record<'_>, key: &'a Key) -> Row<'a> {
    let (last, spent) = (record.attempts.last(), record.spent());
    Row {
        request_id: id(record).into(),
        tenant: key.tenant.id.as_str().into(),
        key: key.id.as_str().into(),
        model: model(record).into(),
        kind: kind(record).into(),
        status: record.status_told().map(|status| status.as_u16()),
        error: record.fault.as_ref().map(|fault| fault.kind.name().into()),
        accuracy: spent.map_or(ledger::Accuracy::Exact, |spent| spent.accuracy),
        provider: last.map(|attempt| attempt.target.provider.name.as_str().into()),
        upstream_model: last.map(|attempt| attempt.upstream_model.as_str().into()),
        credential: last.and_then(|attempt| credential(attempt)),
        usage: spent.map(|spent| Counts::from(spent.usage)).unwrap_or_default(),
        cost: record.cost(),
        attempts: record.attempts.iter().map(tried).collect(),
        started_at: record.began,
        first_byte_ms: record.first_content.map(milliseconds),
        duration_ms: milliseconds(record.took()),
        tags: record.tags.iter().map(|tag| tag.as_str().into()).collect(),
        service_tier: spent.and_then(|spent| spent.usage.tier.name()).map(Into::into),
        inference_geo: spent.filter(|spent| spent.usage.in_us).map(|_| "us".into()),
    }
}

fn tried<'a>(attempt: &'a Attempt<'_>) -> ledger::Attempt<'a> {
    ledger::Attempt {
        target: [&attempt.target.provider.name, "/", &attempt.upstream_model].concat().into(),
        credential: credential(attempt),
        outcome: attempt.outcome.map_or("none", Into::into).into(),
        status: attempt.status.map(|status| status.as_u16()),
        ms: milliseconds(attempt.took),
        spent: attempt.spent.as_deref().map(spent),
    }
}

fn spent(spent: &Spent) -> ledger::Spent {
    let Spent { usage, accuracy, cost } = *spent;
    ledger::Spent { input_tokens: usage.input_tokens, output_tokens: usage.output_tokens, cost, accuracy }
}

fn id<'a>(record: &'a Record<'_>) -> &'a str {
    record.id.to_str().unwrap_or_default()
}

fn model<'a>(record: &'a Record<'_>) -> &'a str {
    record.model.map_or("", |model| model.name.as_str())
}

fn kind(record: &Record<'_>) -> &'static str {
    record.operation.map_or("", |operation| crate::model::type_of(operation).as_str())
}

fn credential<'a>(attempt: &'a Attempt<'_>) -> Option<std::borrow::Cow<'a, str>> {
    attempt.target.credential.id.as_deref().map(Into::into)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
