//! What needs Weir alone: its start with a large configuration, and reloads of that under load.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::client::{Watch, Wire};
use crate::drive;
use crate::gateway::{Gateway, Kind, Size, added_key, config_path};
use crate::report::{Measured, Row, grouped};
use crate::sample::Sample;
use crate::scenario::{Load, Measure, Scenario};

/// Requests a second while the configuration is reloaded.
const RATE: u32 = 500;

/// How long one stretch of load lasts beside the reloads.
const STRETCH: Duration = Duration::from_secs(3);

/// How long the gateway is left alone between reloads.
const PAUSE: Duration = Duration::from_secs(1);

/// How long one may take.
const RELOAD_WITHIN: Duration = Duration::from_secs(2);

/// Reloads meanwhile.
const RELOADS: usize = 4;

/// How long Weir took from its start until it listened, with the large configuration.
pub(crate) fn start(size: Size, took: Duration) -> Row {
    let title =
        format!("large configuration: {} keys, {} models", grouped(size.keys as f64), grouped(size.models as f64));
    let weir = format!("{:.0}", took.as_secs_f64() * 1e3);
    Row { title, measure: "start until it listens, ms".to_owned(), weir, ..Row::default() }
}

/// Reloads of the large configuration, by the admin API, while requests come for as long as the reloads take.
pub(crate) async fn under_load(gateway: &Gateway, room: &Path, scenario: &Scenario) -> io::Result<Vec<Row>> {
    let scenario = Scenario { load: Load::Open(RATE), ..scenario.clone() };
    let reloads = reloads(gateway, room);
    tokio::pin!(reloads);
    let mut sample = Sample::default();
    let slowest = loop {
        let loaded = drive::measure(gateway, &scenario, STRETCH);
        tokio::pin!(loaded);
        tokio::select! {
            part = &mut loaded => sample.absorb(part?),
            slowest = &mut reloads => {
                sample.absorb(loaded.await?);
                break slowest?;
            }
        }
    };
    Ok(rows(&scenario, sample, slowest))
}

async fn reloads(gateway: &Gateway, room: &Path) -> io::Result<Duration> {
    let mut slowest = Duration::ZERO;
    for index in 0..RELOADS {
        tokio::time::sleep(PAUSE).await;
        slowest = slowest.max(reload(gateway, room, index).await?);
    }
    Ok(slowest)
}

fn rows(scenario: &Scenario, sample: Sample, slowest: Duration) -> Vec<Row> {
    let failures = sample.failures;
    let requests = sample.latency.len();
    let measured = Measured { scenario: scenario.clone(), rounds: vec![vec![(Kind::Weir, sample)]] };
    let high = measured.value(Kind::Weir, Measure::LatencyHigh).unwrap_or_default();
    let row = |measure: &str, weir: String, target: &str, met: Option<bool>| Row {
        title: format!("{RELOADS} reloads of the large configuration under {RATE} requests a second"),
        measure: measure.to_owned(),
        weir,
        target: target.to_owned(),
        met,
        ..Row::default()
    };
    vec![
        row("failed requests", format!("{failures} of {}", grouped(requests as f64)), "0", Some(failures == 0)),
        row("latency p99, µs", grouped(high), "", None),
        row(
            "slowest reload, ms",
            format!("{:.0}", slowest.as_secs_f64() * 1e3),
            &format!("≤ {}", grouped(RELOAD_WITHIN.as_secs_f64() * 1e3)),
            Some(slowest <= RELOAD_WITHIN),
        ),
    ]
}

/// Adds a key to the file and asks for a reload; the file's watcher may be quicker, which is a reload all the same.
async fn reload(gateway: &Gateway, room: &Path, index: usize) -> io::Result<Duration> {
    let path = config_path(room);
    let mut text = fs::read_to_string(&path)?;
    text.push_str(&added_key(index));
    fs::write(&path, text)?;
    let admin = gateway.admin.ok_or_else(|| io::Error::other("no admin listener"))?;
    let mut wire = Wire::connect(admin).await?;
    let request = Request::post("/admin/v1/config/reload").header("host", "localhost").body(Full::<Bytes>::default());
    let begun = Instant::now();
    wire.exchange(request.map_err(io::Error::other)?, Watch::End).await?;
    Ok(begun.elapsed())
}
