//! Two configurations of Weir, or two things asked of it, beside each other: what one costs more than the other.

use std::io;
use std::time::Duration;

use crate::drive;
use crate::gateway::Gateway;
use crate::report::Row;
use crate::sample::{Sample, median};
use crate::scenario::Scenario;

/// What is compared, under which names.
pub(crate) struct Beside<'a> {
    pub(crate) title: String,
    pub(crate) names: [&'static str; 2],
    pub(crate) sides: [(&'a Gateway, &'a Scenario); 2],
}

/// What is compared, and by how much the second may be over the first.
pub(crate) enum Within {
    /// Processor time a request, by this share.
    Cpu(f64),
    /// The same, by whatever it is.
    AnyCpu,
    /// The median latency, by so many microseconds.
    Latency(f64),
}

impl Within {
    fn measure(&self) -> &'static str {
        match self {
            Self::Cpu(_) | Self::AnyCpu => "CPU a request, µs",
            Self::Latency(_) => "latency p50, µs",
        }
    }

    fn of(&self, sample: &Sample) -> Option<f64> {
        match self {
            Self::Cpu(_) | Self::AnyCpu => sample.cpu_per_request(),
            Self::Latency(_) => sample.latency.percentile(0.5),
        }
    }

    /// By how much the second is over the first.
    fn change(&self, one: f64, other: f64) -> f64 {
        match self {
            Self::Cpu(_) | Self::AnyCpu => other / one - 1.0,
            Self::Latency(_) => other - one,
        }
    }

    fn most(&self) -> Option<f64> {
        match self {
            Self::Cpu(most) | Self::Latency(most) => Some(*most),
            Self::AnyCpu => None,
        }
    }

    fn show(&self, change: f64) -> String {
        match self {
            Self::Cpu(_) | Self::AnyCpu => format!("{:+.1} %", change * 100.0),
            Self::Latency(_) => format!("{change:+.0} µs"),
        }
    }
}

impl Beside<'_> {
    /// Both, measured in turn: medians of each, and of what each round's second is over its first.
    pub(crate) async fn measure(&self, within: Within, rounds: usize, time: Duration) -> io::Result<Row> {
        let mut values = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for ((gateway, scenario), values) in self.sides.iter().zip(&mut values) {
                values.push(within.of(&drive::measure(gateway, scenario, time).await?));
            }
        }
        let [one, other] = &values;
        let changes = one.iter().zip(other).map(|(one, other)| Some(within.change((*one)?, (*other)?)));
        let change = median(changes);
        let [one, other] = values.map(median);
        let show = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
        let told = |change: Option<f64>| change.map_or_else(String::new, |change| within.show(change));
        let [before, after] = self.names;
        Ok(Row {
            title: self.title.clone(),
            measure: format!("{} ({before} → {after})", within.measure()),
            weir: format!("{} → {}", show(one), show(other)),
            ratio: told(change),
            target: within.most().map_or_else(String::new, |most| format!("≤ {}", within.show(most))),
            met: change.zip(within.most()).map(|(change, most)| change <= most),
            ..Row::default()
        })
    }
}
