//! Holds the dashboards and the alert rules to the metrics there are: a name that Weir does not export shows nothing
//! and alerts nobody.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use weir_tests::ask::{MODELS, simulator, stream};
use weir_tests::client::Call;
use weir_tests::weir::Config;

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
fn a_page_of_the_documentation_names_only_what_is_exported() {
    let exported = exported();
    for page in [
        "../README.md",
        "../CHANGELOG.md",
        "../CONTRIBUTING.md",
        "../docs/architecture.md",
        "../docs/decisions/leases.md",
    ] {
        let unknown: Vec<_> = metrics_in(&read(page)).into_iter().filter(|name| !exported.contains(name)).collect();
        assert!(unknown.is_empty(), "{page} names {unknown:?}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let shown = metrics_in(&read("weir.json"));
    let is_shown = |name: &str| shown.iter().any(|shown| shown == name || shown.starts_with(&format!("{name}_")));
    let families = families();
    let hidden: Vec<_> = families.iter().filter(|(name, _)| !is_shown(name)).collect();
    assert!(hidden.is_empty(), "dashboards/weir.json does not show {hidden:?}");
}

#[tokio::test]
async fn what_a_gateway_exports_is_what_it_registers_by_name_and_kind() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let mut answer = weir.chat().json(&stream(MODELS[0])).send().await;
    answer.rest().await;
    weir.logged(&answer.id()).await;
    let page = Call::new(weir.admin(), "GET", "/metrics").send().await.text().await;
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let told: BTreeMap<_, _> = types.map(|(name, kind)| (name.to_owned(), kind == "histogram")).collect();
    let families = families();
    assert!(told.len() > 12 && page.contains("\n# TYPE weir_config_info gauge\n"), "{page}");
    assert!(told.iter().all(|(name, is_histogram)| families.get(name) == Some(is_histogram)), "{told:?}");
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

/// The families that `gateway/src/metrics.rs` registers, and whether each is a histogram.
fn families() -> BTreeMap<String, bool> {
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/src/metrics.rs")).unwrap();
    let dense: String = source.split_whitespace().collect();
    let made = dense.split("families.").skip(1).filter_map(|call| {
        let (method, rest) = call.trim_start_matches('.').split_once("(\"")?;
        Some((rest.split_once('"')?.0.to_owned(), method == "histogram"))
    });
    let families: BTreeMap<_, _> = made.collect();
    assert!(families.len() >= 25, "{families:?}");
    families
}

/// Their names on the page; a histogram has three.
fn exported() -> BTreeSet<String> {
    let names = |(name, is_histogram): (String, bool)| match is_histogram {
        true => ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).to_vec(),
        false => vec![name],
    };
    families().into_iter().flat_map(names).collect()
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
