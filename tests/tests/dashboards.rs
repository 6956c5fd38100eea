//! Holds the dashboards and the alert rules to the metrics there are: a name that Weir does not export shows nothing and
//! alerts nobody.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

/// What Weir exports that is a histogram, and so has `_bucket`, `_sum` and `_count`.
const HISTOGRAMS: &[&str] = &[
    "gen_ai_client_token_usage",
    "gen_ai_server_request_duration_seconds",
    "gen_ai_server_time_per_output_token_seconds",
    "gen_ai_server_time_to_first_token_seconds",
    "weir_overhead_seconds",
];

/// What else Weir exports.
const COUNTERS_AND_GAUGES: &[&str] = &[
    "weir_access_log_dropped_total",
    "weir_alert_deliveries_total",
    "weir_attempts_total",
    "weir_budget_alerts_total",
    "weir_budget_limit_usd",
    "weir_budget_reserved_usd",
    "weir_budget_used_usd",
    "weir_config_generation",
    "weir_config_info",
    "weir_config_reload_failures_total",
    "weir_cooldowns_total",
    "weir_cost_usd_total",
    "weir_fallbacks_total",
    "weir_in_flight",
    "weir_ledger_lag_seconds",
    "weir_limit_rejections_total",
    "weir_requests_total",
    "weir_store_degraded",
    "weir_target_state",
    "weir_tokens_total",
];

/// The labels whose names begin like a metric's.
const LABELS: &[&str] = &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"];

#[test]
fn a_dashboard_or_an_alert_names_only_what_is_exported() {
    let exported = exported();
    for file in ["weir.json", "alerts.yaml"] {
        let unknown: Vec<_> = metrics_in(&read(file)).into_iter().filter(|name| !exported.contains(name)).collect();
        assert!(unknown.is_empty(), "dashboards/{file} names {unknown:?}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let shown = metrics_in(&read("weir.json"));
    let is_shown = |name: &str| shown.iter().any(|shown| shown == name || shown.starts_with(&format!("{name}_")));
    let hidden: Vec<_> = HISTOGRAMS.iter().chain(COUNTERS_AND_GAUGES).filter(|name| !is_shown(name)).collect();
    assert!(hidden.is_empty(), "dashboards/weir.json does not show {hidden:?}");
}

#[test]
fn every_family_that_is_registered_is_known_here() {
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/src/metrics.rs")).unwrap();
    let known: Vec<_> = HISTOGRAMS.iter().chain(COUNTERS_AND_GAUGES).collect();
    let unknown: Vec<_> = metrics_in(&source).into_iter().filter(|name| !known.contains(&&name.as_str())).collect();
    assert!(unknown.is_empty(), "gateway/src/metrics.rs registers {unknown:?}");
}

#[test]
fn the_dashboards_panels_have_one_id_and_one_place_each() {
    let board: serde_json::Value = serde_json::from_str(&read("weir.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} overlaps at {x},{y}", panel["title"]);
            }
        }
    }
}

fn exported() -> BTreeSet<String> {
    let parts = |name: &&str| ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"));
    let plain = COUNTERS_AND_GAUGES.iter().map(|name| (*name).to_owned());
    HISTOGRAMS.iter().flat_map(parts).chain(plain).collect()
}

/// Every word that is a metric's name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("weir_") || word.starts_with("gen_ai_"))
        .filter(|word| !LABELS.contains(word))
        .map(str::to_owned)
        .collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards")).join(file)).unwrap()
}
