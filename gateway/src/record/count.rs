//! What a request and its attempts count in the families of metrics.

use adapters::Usage;
use http::StatusCode;

use super::{Outcome, Record};
use crate::bill::Spent;
use crate::error::Kind;
use crate::metrics::seconds;
use crate::model::Target;

impl Record<'_> {
    /// Counts an attempt that has ended.
    pub(super) fn count_attempt(&self, target: &Target, outcome: Outcome) {
        let credential = target.credential.id.as_deref().unwrap_or("none");
        let labels = [target.provider.name.as_str(), credential, outcome.into()];
        self.gateway.metrics.attempts.with_label_values(&labels).inc();
    }

    /// The status for log and metric: a caller that left is told apart, whatever had been sent by then.
    pub(super) fn status_told(&self) -> Option<StatusCode> {
        let gone = self.fault.as_ref().filter(|fault| fault.kind == Kind::CallerGone);
        gone.map(|fault| fault.status).or(self.status)
    }

    fn model_label(&self) -> &str {
        self.model.map_or("other", |model| model.name.as_str())
    }

    fn provider_label(&self) -> &str {
        self.attempts.last().map_or("none", |attempt| attempt.target.provider.name.as_str())
    }

    /// Counts the request in every family that it belongs to.
    pub(super) fn count(&self) {
        let metrics = &self.gateway.metrics;
        let status = self.status_told().map_or("none", status_class);
        let error = self.fault.as_ref().map_or("", |fault| fault.kind.name());
        metrics.requests.with_label_values(&[self.route, self.model_label(), status, error]).inc();
        let Some(operation) = self.operation else {
            return;
        };
        metrics.overhead.with_label_values(&[operation.name()]).observe(seconds(self.overhead()));
        let labels = [operation.name(), self.provider_label(), self.model_label()];
        let [operation, provider, model] = labels;
        metrics.duration.with_label_values(&[operation, provider, model, error]).observe(seconds(self.took()));
        if let Some(first) = self.first_content {
            metrics.first_token.with_label_values(&labels).observe(seconds(first));
        }
        if let Some(answered) = self.answered {
            self.count_tokens(answered.usage, labels);
            self.count_spent(&answered, [provider, model]);
        }
        for attempt in &self.attempts {
            if let Some(spent) = attempt.spent.as_deref() {
                self.count_spent(spent, [&attempt.target.provider.name, model]);
            }
        }
        if let Some(scope) = self.fault.as_ref().and_then(|fault| fault.limit) {
            metrics.limit_rejections.with_label_values(&[scope]).inc();
        }
    }

    fn count_tokens(&self, usage: Usage, labels: [&str; 3]) {
        let metrics = &self.gateway.metrics;
        let [operation, provider, model] = labels;
        for (kind, count) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            #[expect(clippy::cast_precision_loss, reason = "a histogram needs no exact counts over 2^52")]
            metrics.token_usage.with_label_values(&[operation, provider, model, kind]).observe(count as f64);
        }
        if let (Some(first), 1..) = (self.first_content, usage.output_tokens) {
            let rest = seconds(self.took().saturating_sub(first));
            #[expect(clippy::cast_precision_loss, reason = "a histogram needs no exact counts over 2^52")]
            metrics.per_output_token.with_label_values(&labels).observe(rest / usage.output_tokens as f64);
        }
    }

    /// What was used and paid, whether it was for an answer or not.
    fn count_spent(&self, spent: &Spent, labels: [&str; 2]) {
        let metrics = &self.gateway.metrics;
        let [provider, model] = labels;
        for (kind, count) in kinds(spent.usage) {
            if count > 0 {
                metrics.tokens.with_label_values(&[provider, model, kind]).inc_by(count);
            }
        }
        if let Some(cost) = spent.cost.filter(|_| self.cost().is_some()) {
            #[expect(clippy::cast_precision_loss, reason = "a counter of dollars needs no exact nano-dollars")]
            metrics.cost.with_label_values(&labels).inc_by(cost as f64 / 1e9);
        }
    }
}

fn kinds(usage: Usage) -> [(&'static str, u64); 6] {
    [
        ("input", usage.input_tokens),
        ("cached_input", usage.cached_input_tokens),
        ("cache_write", usage.cache_write_tokens.saturating_add(usage.cache_write_1h_tokens)),
        ("output", usage.output_tokens),
        ("reasoning", usage.reasoning_tokens),
        ("audio", usage.audio_tokens()),
    ]
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
