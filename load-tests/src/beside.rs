//! Two configurations of Weir beside each other: what more of it costs a request.

use std::io;
use std::time::Duration;

use crate::drive;
use crate::gateway::Gateway;
use crate::report::Row;
use crate::sample::{Sample, median};
use crate::scenario::Scenario;

/// Two configurations, and what the second is called beside the first.
pub(crate) struct Beside<'a> {
    pub(crate) title: &'static str,
    pub(crate) names: [&'static str; 2],
    pub(crate) gateways: [&'a Gateway; 2],
}

/// What is compared, and by how much the second may be over the first.
pub(crate) enum Within {
    /// Processor time a request, by this share.
    Cpu(f64),
    /// The median latency, by so many microseconds.
    Latency(f64),
}

impl Within {
    fn measure(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "CPU a request, µs",
            Self::Latency(_) => "latency p50, µs",
        }
    }

    fn of(&self, sample: &Sample) -> Option<f64> {
        match self {
            Self::Cpu(_) => sample.cpu_per_request(),
            Self::Latency(_) => sample.latency.percentile(0.5),
        }
    }

    /// The difference, the bound, and whether it is kept.
    fn judge(&self, one: f64, other: f64) -> (String, String, bool) {
        match self {
            Self::Cpu(share) => {
                let change = other / one - 1.0;
                (format!("{:+.1} %", change * 100.0), format!("≤ +{:.0} %", share * 100.0), change <= *share)
            }
            Self::Latency(most) => {
                let change = other - one;
                (format!("{change:+.0} µs"), format!("≤ +{most:.0} µs"), change <= *most)
            }
        }
    }
}

impl Beside<'_> {
    /// Both, measured in turn.
    pub(crate) async fn measure(
        &self,
        scenario: &Scenario,
        within: Within,
        rounds: usize,
        time: Duration,
    ) -> io::Result<Row> {
        let mut values = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (gateway, values) in self.gateways.iter().zip(&mut values) {
                values.push(within.of(&drive::measure(gateway, scenario, time).await?));
            }
        }
        let [one, other] = values.map(median);
        let show = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
        let judged = one.zip(other).map(|(one, other)| within.judge(one, other));
        let met = judged.as_ref().map(|(_, _, met)| *met);
        let (ratio, target, _) = judged.unwrap_or_default();
        let [before, after] = self.names;
        Ok(Row {
            title: format!("{}, {}", self.title, scenario.title),
            measure: format!("{} ({before} → {after})", within.measure()),
            weir: format!("{} → {}", show(one), show(other)),
            ratio,
            target,
            met,
            ..Row::default()
        })
    }
}
