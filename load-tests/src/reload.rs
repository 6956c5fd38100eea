//! Two rows that need Weir alone: the cost of a request under a large configuration, and reloads under load.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::client::{Watch, Wire};
use crate::drive;
use crate::gateway::{Gateway, Kind, config_path};
use crate::report::{Measured, Row, grouped};
use crate::sample::{Sample, median};
use crate::scenario::{Load, Measure, Scenario};
use crate::targets::LARGE_WITHIN;

/// Requests a second while the configuration is reloaded.
const RATE: u32 = 500;

/// How long the load goes on beside the reloads.
const TIME: Duration = Duration::from_secs(6);

/// Reloads meanwhile.
const RELOADS: usize = 4;

/// The large configuration's cost beside the small one's, measured in turn.
pub(crate) async fn large(
    small: &Gateway,
    large: &Gateway,
    scenario: &Scenario,
    rounds: usize,
    time: Duration,
) -> io::Result<Row> {
    let (mut of_small, mut of_large) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        of_small.push(drive::measure(small, scenario, time).await?.cpu_per_request());
        of_large.push(drive::measure(large, scenario, time).await?.cpu_per_request());
    }
    let (small, large) = (median(of_small), median(of_large));
    let change = small.zip(large).map(|(small, large)| large / small - 1.0);
    let show = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
    Ok(Row {
        title: "large configuration beside the small one, 1 kB JSON chat, 64 connections".to_owned(),
        measure: "CPU a request, µs (small → large)".to_owned(),
        weir: format!("{} → {}", show(small), show(large)),
        nginx: String::new(),
        direct: String::new(),
        ratio: change.map_or_else(String::new, |change| format!("{:+.1} %", change * 100.0)),
        target: format!("± {:.0} %", LARGE_WITHIN * 100.0),
        met: change.map(|change| change <= LARGE_WITHIN),
    })
}

/// Reloads of the large configuration, by the admin API, while requests come.
pub(crate) async fn under_load(gateway: &Gateway, room: &Path, scenario: &Scenario) -> io::Result<Vec<Row>> {
    let scenario = Scenario { load: Load::Open(RATE), ..scenario.clone() };
    let reloads = async {
        let mut times = Vec::new();
        for index in 0..RELOADS {
            tokio::time::sleep(TIME / (RELOADS as u32 + 1)).await;
            times.push(reload(gateway, room, index).await);
        }
        times
    };
    let (sample, times) = tokio::join!(drive::measure(gateway, &scenario, TIME), reloads);
    let sample = sample?;
    let slowest = times.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
    Ok(rows(&scenario, sample, slowest))
}

fn rows(scenario: &Scenario, sample: Sample, slowest: Duration) -> Vec<Row> {
    let failures = sample.failures;
    let requests = sample.latency.len();
    let measured = Measured { scenario: scenario.clone(), rounds: vec![(Kind::Weir, sample)] };
    let high = measured.value(Kind::Weir, Measure::LatencyHigh).unwrap_or_default();
    let row = |measure: &str, weir: String, target: &str, met: Option<bool>| Row {
        title: format!("{RELOADS} reloads of the large configuration under {RATE} requests a second"),
        measure: measure.to_owned(),
        weir,
        nginx: String::new(),
        direct: String::new(),
        ratio: String::new(),
        target: target.to_owned(),
        met,
    };
    vec![
        row("failed requests", format!("{failures} of {}", grouped(requests as f64)), "0", Some(failures == 0)),
        row("latency p99, µs", grouped(high), "", None),
        row("slowest reload, ms", format!("{:.0}", slowest.as_secs_f64() * 1e3), "", None),
    ]
}

/// Changes the file and asks for a reload; the file's watcher may be quicker, which is a reload all the same.
async fn reload(gateway: &Gateway, room: &Path, index: usize) -> io::Result<Duration> {
    let path = config_path(room);
    let text = fs::read_to_string(&path)?;
    let changed = text.replace("{usd: 100000000", &format!("{{usd: {}", 100_000_001 + index));
    fs::write(&path, changed)?;
    let admin = gateway.admin.ok_or_else(|| io::Error::other("no admin listener"))?;
    let mut wire = Wire::connect(admin).await?;
    let request = Request::post("/admin/v1/config/reload").header("host", "admin").body(Full::<Bytes>::default());
    let begun = Instant::now();
    wire.exchange(request.map_err(io::Error::other)?, Watch::End).await?;
    Ok(begun.elapsed())
}
