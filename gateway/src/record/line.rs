//! A request's line in the access log.

use std::time::Duration;

use adapters::Usage;
use serde::Serialize;

use super::{Attempt, Outcome, Record};
use crate::ledger::Accuracy;

/// The line of the access log.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    time: jiff::Timestamp,
    request_id: &'a str,
    operation: &'static str,
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    model: &'a str,
    stream: bool,
    incomplete: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy: Option<Accuracy>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::ledger::dollars")]
    cost_usd: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_content_ms: Option<f64>,
    duration_ms: f64,
    overhead_us: u64,
}

#[derive(Serialize)]
struct AttemptLine<'a> {
    provider: &'a str,
    model: &'a str,
    credential: Option<&'a str>,
    outcome: Option<Outcome>,
    ms: f64,
}

#[derive(Serialize)]
struct UsageLine {
    input_tokens: u64,
    cached_input_tokens: u64,
    output_tokens: u64,
}

impl<'a> Line<'a> {
    pub(super) fn of(record: &'a Record<'_>) -> Self {
        let fault = record.fault.as_ref();
        Self {
            time: jiff::Timestamp::now(),
            request_id: record.id.to_str().unwrap_or_default(),
            operation: record.route,
            status: record.status_told().map(|status| status.as_u16()),
            error: fault.map(|fault| fault.kind.name()),
            code: fault.map(|fault| fault.code.as_ref()),
            detail: fault.and_then(|fault| fault.detail.as_deref()),
            tenant: record.key.map(|key| key.tenant.id.as_str()),
            key: record.key.map(|key| key.id.as_str()),
            model: &record.asked,
            stream: record.stream,
            incomplete: fault.is_some() && record.status.is_some_and(|status| status.is_success()),
            attempts: record.attempts.iter().map(AttemptLine::of).collect(),
            usage: record.usage.map(UsageLine::of),
            accuracy: record.usage.map(|_| record.accuracy),
            cost_usd: record.cost(),
            first_content_ms: record.first_content.map(milliseconds),
            duration_ms: milliseconds(record.started.elapsed()),
            overhead_us: u64::try_from(record.overhead().as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl<'a> AttemptLine<'a> {
    fn of(attempt: &'a Attempt<'_>) -> Self {
        Self {
            provider: &attempt.target.provider.name,
            model: &attempt.upstream_model,
            credential: attempt.target.credential.id.as_deref(),
            outcome: attempt.outcome,
            ms: milliseconds(attempt.took),
        }
    }
}

impl UsageLine {
    fn of(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            output_tokens: usage.output_tokens,
        }
    }
}

/// Milliseconds with microseconds behind the point.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
