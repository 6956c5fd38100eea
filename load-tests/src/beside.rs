//! Two configurations of Weir beside each other: what more of it costs a request.

use std::io;
use std::time::Duration;

use crate::drive;
use crate::gateway::Gateway;
use crate::report::Row;
use crate::sample::median;
use crate::scenario::Scenario;

/// Two configurations, and how much more the second may cost.
pub(crate) struct Beside<'a> {
    pub(crate) title: &'static str,
    /// What they are called.
    pub(crate) names: [&'static str; 2],
    pub(crate) gateways: [&'a Gateway; 2],
    pub(crate) within: f64,
}

impl Beside<'_> {
    /// The cost of a request under both, measured in turn.
    pub(crate) async fn measure(&self, scenario: &Scenario, rounds: usize, time: Duration) -> io::Result<Row> {
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (gateway, costs) in self.gateways.iter().zip(&mut costs) {
                costs.push(drive::measure(gateway, scenario, time).await?.cpu_per_request());
            }
        }
        let [one, other] = costs.map(median);
        let change = one.zip(other).map(|(one, other)| other / one - 1.0);
        let show = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
        let [before, after] = self.names;
        Ok(Row {
            title: format!("{}, {}", self.title, scenario.title),
            measure: format!("CPU a request, µs ({before} → {after})"),
            weir: format!("{} → {}", show(one), show(other)),
            ratio: change.map_or_else(String::new, |change| format!("{:+.1} %", change * 100.0)),
            target: format!("≤ +{:.0} %", self.within * 100.0),
            met: change.map(|change| change <= self.within),
            ..Row::default()
        })
    }
}
