//! A request's line in the access log. Written field by field: a serializer would look through every name for what has
//! to be escaped, which is a tenth of a small request's work.

use std::time::Duration;

use adapters::Usage;
use serde::Serialize;

use super::{Attempt, Record};
use crate::ledger;

/// Writes the line of `record`, without its end.
pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    let fault = record.fault.as_ref();
    let mut line = Object::begin(out);
    line.json("time", &moment(record));
    line.text("request_id", record.id.to_str().unwrap_or_default());
    line.text("operation", record.route);
    match record.status_told() {
        Some(status) => line.number("status", status.as_u16()),
        None => line.raw("status", b"null"),
    }
    if let Some(fault) = fault {
        line.text("error", fault.kind.name());
        line.text("code", fault.code.as_ref());
        line.some_text("detail", fault.detail.as_deref());
    }
    line.some_text("tenant", record.key.map(|key| key.tenant.id.as_str()));
    line.some_text("key", record.key.map(|key| key.id.as_str()));
    line.some_text("model", Some(record.asked.as_str()).filter(|asked| !asked.is_empty()));
    line.flag("stream", record.stream);
    line.flag("incomplete", fault.is_some() && record.status.is_some_and(|status| status.is_success()));
    if !record.attempts.is_empty() {
        line.list("attempts", &record.attempts, attempt);
    }
    if let Some(spent) = record.spent() {
        line.object("usage", |line| usage(line, spent.usage));
        line.text("accuracy", spent.accuracy.name());
    }
    if let Some(cost) = record.cost() {
        line.raw("cost_usd", ledger::dollars_text(cost).as_bytes());
    }
    if let Some(first) = record.first_content {
        line.milliseconds("first_content_ms", first);
    }
    line.milliseconds("duration_ms", record.took());
    line.number("overhead_us", record.overhead_us());
    line.end();
}

fn attempt(line: &mut Object<'_>, attempt: &Attempt<'_>) {
    line.text("provider", &attempt.target.provider.name);
    line.text("model", &attempt.upstream_model);
    line.json("credential", &attempt.target.credential.id);
    line.json("outcome", &attempt.outcome);
    line.milliseconds("ms", attempt.took);
}

fn usage(line: &mut Object<'_>, usage: Usage) {
    line.number("input_tokens", usage.input_tokens);
    line.number("cached_input_tokens", usage.cached_input_tokens);
    line.number("output_tokens", usage.output_tokens);
}

/// When it ended.
fn moment(record: &Record<'_>) -> jiff::Timestamp {
    record.began.checked_add(record.took()).unwrap_or(record.began)
}

/// A JSON object under way. Its names are ours and have nothing that is to be escaped.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    fn end(self) {
        self.out.push(b'}');
    }

    fn name(&mut self, name: &'static str) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn raw(&mut self, name: &'static str, value: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(value);
    }

    fn json(&mut self, name: &'static str, value: &impl Serialize) {
        self.name(name);
        let _infallible = serde_json::to_writer(&mut *self.out, value);
    }

    fn text(&mut self, name: &'static str, value: &str) {
        self.json(name, &value);
    }

    fn some_text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn number(&mut self, name: &'static str, value: impl itoa::Integer) {
        self.raw(name, itoa::Buffer::new().format(value).as_bytes());
    }

    fn flag(&mut self, name: &'static str, value: bool) {
        self.raw(name, if value { b"true" } else { b"false" });
    }

    /// With microseconds behind the point.
    fn milliseconds(&mut self, name: &'static str, value: Duration) {
        self.json(name, &((value.as_secs_f64() * 1e6).round() / 1e3));
    }

    fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        let mut inner = Object::begin(self.out);
        fill(&mut inner);
        inner.end();
    }

    fn list<T>(&mut self, name: &'static str, items: &[T], fill: impl Fn(&mut Object<'_>, &T)) {
        self.name(name);
        self.out.push(b'[');
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            let mut inner = Object::begin(self.out);
            fill(&mut inner, item);
            inner.end();
        }
        self.out.push(b']');
    }
}
