//! Every metric family, named once. Labels come from the configuration and from closed sets, never from a caller.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

use crate::budget::Reading;
use crate::config::Every;

/// All families of metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `gen_ai_client_token_usage`
    pub token_usage: HistogramVec,
    /// `gen_ai_server_request_duration_seconds`
    pub duration: HistogramVec,
    /// `gen_ai_server_time_to_first_token_seconds`
    pub first_token: HistogramVec,
    /// `gen_ai_server_time_per_output_token_seconds`
    pub per_output_token: HistogramVec,
    /// `weir_requests_total`
    pub requests: IntCounterVec,
    /// `weir_overhead_seconds`
    pub overhead: HistogramVec,
    /// `weir_in_flight`
    pub in_flight: IntGauge,
    /// `weir_attempts_total`
    pub attempts: IntCounterVec,
    /// `weir_cooldowns_total`
    pub cooldowns: IntCounterVec,
    target_state: GaugeVec,
    /// `weir_tokens_total`
    pub tokens: IntCounterVec,
    /// `weir_cost_usd_total`
    pub cost: CounterVec,
    /// `weir_fallbacks_total`
    pub fallbacks: IntCounterVec,
    /// `weir_config_generation`
    pub config_generation: IntGauge,
    /// `weir_config_info`, 1 for the hash that is served
    pub config_info: GaugeVec,
    /// `weir_config_reload_failures_total`
    pub reload_failures: IntCounter,
    /// `weir_store_degraded`, 1 while what should be kept waits in memory, or Redis is away
    pub store_degraded: IntGauge,
    /// Set while a Redis is configured and away: part of `weir_store_degraded`.
    pub redis_lost: Arc<AtomicBool>,
    /// `weir_ledger_lag_seconds`, set when the page is asked for
    pub ledger_lag: Gauge,
    /// `weir_access_log_dropped_total`
    pub log_dropped: IntCounter,
    /// `weir_limit_rejections_total`
    pub limit_rejections: IntCounterVec,
    /// `weir_budget_alerts_total`
    pub budget_alerts: IntCounterVec,
    /// `weir_alert_deliveries_total`
    pub alert_deliveries: IntCounterVec,
    budget_limit: GaugeVec,
    budget_used: GaugeVec,
    budget_reserved: GaugeVec,
}

/// The labels of a budget: keys have none, since there may be very many.
const BUDGET: &[&str] = &["tenant", "every"];

/// Nano-dollars in a dollar.
const NANOS: f64 = 1e9;

const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];
const SMALL: &[f64] = &[1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1, 1.0];
const TOKENS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];

/// The labels of OpenTelemetry's GenAI conventions.
const GEN_AI: &[&str] = &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"];

impl Metrics {
    /// Registers every family.
    ///
    /// # Errors
    /// A family named twice: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families(&registry);
        let labels = |more: &[&'static str]| [GEN_AI, more].concat();
        Ok(Self {
            token_usage: families.histogram(
                "gen_ai_client_token_usage",
                "Tokens of a request.",
                TOKENS,
                &labels(&["gen_ai_token_type"]),
            )?,
            duration: families.histogram(
                "gen_ai_server_request_duration_seconds",
                "From a request's head to the end of its answer.",
                SECONDS,
                &labels(&["error_type"]),
            )?,
            first_token: families.histogram(
                "gen_ai_server_time_to_first_token_seconds",
                "From a request's head to the first content of its stream.",
                SECONDS,
                GEN_AI,
            )?,
            per_output_token: families.histogram(
                "gen_ai_server_time_per_output_token_seconds",
                "A stream's time after its first content, by output token.",
                SMALL,
                GEN_AI,
            )?,
            requests: families.counters(
                "weir_requests_total",
                "Requests by what became of them.",
                &["operation", "model", "status", "error"],
            )?,
            overhead: families.histogram(
                "weir_overhead_seconds",
                "Weir's own share of a request.",
                SMALL,
                &["operation"],
            )?,
            in_flight: families.gauge("weir_in_flight", "Requests that are being served.")?,
            attempts: families.counters(
                "weir_attempts_total",
                "Attempts by target and outcome.",
                &["provider", "credential", "outcome"],
            )?,
            cooldowns: families.counters("weir_cooldowns_total", "Cooldowns by what began them.", &["cause"])?,
            target_state: families.gauges(
                "weir_target_state",
                "1 while a target takes requests, 0 while it cools or is on probation.",
                &["target"],
            )?,
            tokens: families.counters("weir_tokens_total", "Tokens by kind.", &["provider", "model", "kind"])?,
            cost: families.floats("weir_cost_usd_total", "What requests cost, in dollars.", &["provider", "model"])?,
            fallbacks: families.counters(
                "weir_fallbacks_total",
                "Requests that another model took over.",
                &["from", "to"],
            )?,
            config_generation: families.gauge("weir_config_generation", "Counts the configurations served.")?,
            config_info: families.gauges(
                "weir_config_info",
                "The hash of the configuration that is served.",
                &["hash"],
            )?,
            reload_failures: families.counter("weir_config_reload_failures_total", "Reloads that were refused.")?,
            store_degraded: families
                .gauge("weir_store_degraded", "1 while the store cannot be written, or Redis is away.")?,
            redis_lost: Arc::default(),
            ledger_lag: families.float_gauge(
                "weir_ledger_lag_seconds",
                "For how long the oldest row that is not on the disk has waited.",
            )?,
            log_dropped: families
                .counter("weir_access_log_dropped_total", "Lines lost because the log was too slow.")?,
            limit_rejections: families.counters(
                "weir_limit_rejections_total",
                "Requests refused by a limit, by what it is of.",
                &["scope"],
            )?,
            budget_alerts: families.counters(
                "weir_budget_alerts_total",
                "Budgets that came to their soft limit, or to their end.",
                &["threshold"],
            )?,
            alert_deliveries: families.counters(
                "weir_alert_deliveries_total",
                "Alerts by what became of them at their receivers.",
                &["outcome"],
            )?,
            budget_limit: families.gauges(
                "weir_budget_limit_usd",
                "What a tenant may spend in this window.",
                BUDGET,
            )?,
            budget_used: families.gauges(
                "weir_budget_used_usd",
                "What it has spent, and what other gateways have in hand.",
                BUDGET,
            )?,
            budget_reserved: families.gauges("weir_budget_reserved_usd", "What is held for its requests.", BUDGET)?,
            registry,
        })
    }

    /// The page at `/metrics`.
    #[must_use]
    pub fn page(&self) -> Vec<u8> {
        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        page
    }

    /// How the store does now.
    pub fn stored(&self, degraded: bool, lag: Duration) {
        self.store_degraded.set(i64::from(degraded || self.redis_lost.load(Ordering::Relaxed)));
        self.ledger_lag.set(seconds(lag));
    }

    /// The tenants' budgets as they stand now, in the place of what stood before. Of two for the same time the one with
    /// less left is told.
    pub fn budgets(&self, mut readings: Vec<(Arc<str>, Every, Reading)>) {
        readings.sort_by_key(|(_, _, reading)| Reverse(reading.left()));
        for family in [&self.budget_limit, &self.budget_used, &self.budget_reserved] {
            family.reset();
        }
        for (tenant, every, reading) in &readings {
            let labels = [tenant.as_ref(), every.as_str()];
            let set = |family: &GaugeVec, nanos: i64| family.with_label_values(&labels).set(nanos as f64 / NANOS);
            set(&self.budget_limit, reading.limit);
            set(&self.budget_used, reading.used.saturating_add(reading.elsewhere));
            set(&self.budget_reserved, reading.reserved);
        }
    }

    /// The targets that are in and those that are out, in the place of what stood before.
    pub fn targets<'t>(&self, targets: impl Iterator<Item = (&'t str, bool)>) {
        self.target_state.reset();
        for (target, is_in) in targets {
            self.target_state.with_label_values(&[target]).set(f64::from(u8::from(is_in)));
        }
    }

    /// The configuration that is served now.
    pub fn configured(&self, generation: u64, hash: &str) {
        self.config_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.config_info.reset();
        self.config_info.with_label_values(&[hash]).set(1.0);
    }
}

/// Makes families and registers them.
struct Families<'r>(&'r Registry);

impl Families<'_> {
    fn registered<C: prometheus::core::Collector + Clone + 'static>(&self, family: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered(HistogramVec::new(options, labels)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn floats(&self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec, prometheus::Error> {
        self.registered(CounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.registered(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.registered(IntGauge::new(name, help)?)
    }

    fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.registered(Gauge::new(name, help)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.registered(IntCounter::new(name, help)?)
    }
}

/// Seconds as metrics count them.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
