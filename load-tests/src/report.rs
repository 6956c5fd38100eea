//! The results: one table, with each bound beside what was measured.

use std::fmt::Write;

use crate::gateway::Kind;
use crate::sample::{Sample, median};
use crate::scenario::{Measure, Scenario};
use crate::targets::{self, Target};

/// Everything that was measured of one scenario.
pub(crate) struct Measured {
    pub(crate) scenario: Scenario,
    /// What each gateway gave, round by round.
    pub(crate) rounds: Vec<Vec<(Kind, Sample)>>,
}

/// One line of the table.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) title: String,
    pub(crate) measure: String,
    pub(crate) weir: String,
    pub(crate) nginx: String,
    pub(crate) direct: String,
    pub(crate) ratio: String,
    pub(crate) added: String,
    pub(crate) target: String,
    pub(crate) met: Option<bool>,
}

impl Measured {
    /// The table's lines of this scenario.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.scenario.measures.iter().map(|measure| self.row(*measure)).collect()
    }

    /// Requests that failed at `kind`, and why.
    pub(crate) fn failures(&self, kind: Kind) -> Option<String> {
        let of_kind = self.rounds.iter().flatten().filter(|(measured, _)| *measured == kind);
        let (count, reason) = of_kind.fold((0, None), |(count, reason), (_, sample)| {
            (count + sample.failures, reason.or_else(|| sample.reason.clone()))
        });
        (count > 0).then(|| {
            format!("{}: {count} failed at {}: {}", self.scenario.name, kind.name(), reason.unwrap_or_default())
        })
    }

    /// The median of `measure` at `kind`.
    pub(crate) fn value(&self, kind: Kind, measure: Measure) -> Option<f64> {
        median(self.rounds.iter().map(|round| in_round(round, kind, measure)))
    }

    /// The median of what `compare` says of Weir and of `kind` in the same round, when the machine was as busy for
    /// both.
    fn beside(&self, kind: Kind, measure: Measure, compare: fn(f64, f64) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(|round| {
            let [weir, other] = [Kind::Weir, kind].map(|kind| in_round(round, kind, measure));
            Some(compare(weir?, other?))
        }))
    }

    fn row(&self, measure: Measure) -> Row {
        let [weir, nginx, direct] = [Kind::Weir, Kind::Nginx, Kind::Direct].map(|kind| self.value(kind, measure));
        let target = targets::of(self.scenario.name, measure);
        let times_nginx = self.beside(Kind::Nginx, measure, |weir, nginx| weir / nginx);
        let over = |kind| self.beside(kind, measure, |weir, other| weir - other);
        let bounded = target.map(|target| match target {
            Target::TimesNginx(most) => (times_nginx, most),
            Target::OverDirect(most) => (over(Kind::Direct), most),
            Target::OverNginx(most) => (over(Kind::Nginx), most),
            Target::AtMost(most) => (weir, most),
        });
        Row {
            title: self.scenario.title.to_owned(),
            measure: measure.title().to_owned(),
            weir: measure.show(weir),
            nginx: measure.show(nginx),
            direct: measure.show(direct),
            ratio: times_nginx.map_or_else(String::new, |times| format!("{times:.2}")),
            added: over(Kind::Direct).filter(|_| measure.is_time()).map_or_else(String::new, grouped),
            target: target.map_or_else(String::new, |target| measure.show_target(target)),
            met: bounded.and_then(|(value, most)| Some(value? <= most)),
        }
    }
}

fn in_round(round: &[(Kind, Sample)], kind: Kind, measure: Measure) -> Option<f64> {
    round.iter().find(|(measured, _)| *measured == kind).and_then(|(_, sample)| measure.of(sample))
}

impl Measure {
    fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Self::CpuPerRequest => sample.cpu_per_request(),
            Self::CpuPerEvent => sample.cpu_per_event(),
            Self::Rate => sample.rate(),
            Self::LatencyMiddle => sample.latency.percentile(0.5),
            Self::LatencyHigh | Self::ReadinessHigh => sample.latency.percentile(0.99),
            Self::FirstMiddle => sample.first_content.percentile(0.5),
            Self::FirstHigh => sample.first_content.percentile(0.99),
            Self::DelayMiddle => sample.delay.percentile(0.5),
            Self::DelayHigh => sample.delay.percentile(0.99),
            Self::IdleMemory => (sample.idle > 0).then(|| sample.idle as f64 / 1_048_576.0),
            Self::MemoryPerStream => {
                (sample.memory > 0).then(|| sample.memory as f64 / sample.requests.max(1) as f64 / 1024.0)
            }
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::CpuPerRequest => "CPU a request, µs",
            Self::CpuPerEvent => "CPU an event, µs",
            Self::Rate => "requests a second",
            Self::LatencyMiddle => "latency p50, µs",
            Self::LatencyHigh => "latency p99, µs",
            Self::FirstMiddle => "first token p50, µs",
            Self::FirstHigh => "first token p99, µs",
            Self::DelayMiddle => "event delay p50, µs",
            Self::DelayHigh => "event delay p99, µs",
            Self::IdleMemory => "memory before, MiB",
            Self::MemoryPerStream => "memory a stream, KiB",
            Self::ReadinessHigh => "readiness p99 meanwhile, µs",
        }
    }

    /// Whether nothing between is what it is to be compared with.
    fn is_time(self) -> bool {
        match self {
            Self::LatencyMiddle | Self::LatencyHigh | Self::FirstMiddle => true,
            Self::FirstHigh | Self::DelayMiddle | Self::DelayHigh => true,
            Self::CpuPerRequest | Self::CpuPerEvent | Self::Rate => false,
            Self::IdleMemory | Self::MemoryPerStream | Self::ReadinessHigh => false,
        }
    }

    fn show(self, value: Option<f64>) -> String {
        match value {
            None => String::new(),
            Some(value) if value < 100.0 => format!("{value:.1}"),
            Some(value) => grouped(value),
        }
    }

    fn show_target(self, target: Target) -> String {
        match target {
            Target::TimesNginx(times) => format!("≤ {times} × nginx"),
            Target::OverDirect(over) => format!("≤ direct + {}", grouped(over)),
            Target::OverNginx(over) => format!("≤ nginx + {}", grouped(over)),
            Target::AtMost(most) => format!("≤ {}", self.show(Some(most))),
        }
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    if value <= -0.5 {
        out.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut out =
        String::from("| scenario | measure | weir | nginx | direct | weir / nginx | weir − direct | target | met |\n");
    out.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |\n");
    let mut last = "";
    for row in rows {
        let title = if row.title == last { "" } else { &row.title };
        last = &row.title;
        let met = match row.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let Row { measure, weir, nginx, direct, ratio, added, target, .. } = row;
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| {title} | {measure} | {weir} | {nginx} | {direct} | {ratio} | {added} | {target} | {met} |"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use super::*;
    use crate::scenario;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(-123.0), "-123");
        assert_eq!(grouped(-0.2), "0");
    }

    /// `json-1k-c64` with so many microseconds of processor time a request in each round.
    fn rounds(rounds: &[&[(Kind, u64)]]) -> Measured {
        let scenario = scenario::all(0).into_iter().find(|scenario| scenario.name == "json-1k-c64").unwrap();
        let sample = |micros| Sample { requests: 1, cpu: Duration::from_micros(micros), ..Sample::default() };
        let round = |round: &&[(Kind, u64)]| round.iter().map(|(kind, micros)| (*kind, sample(*micros))).collect();
        Measured { scenario, rounds: rounds.iter().map(round).collect() }
    }

    #[test]
    fn a_ratio_is_of_one_round_and_the_middle_one_counts() {
        let busy_in_the_second = rounds(&[
            &[(Kind::Weir, 30), (Kind::Nginx, 20)],
            &[(Kind::Weir, 90), (Kind::Nginx, 60)],
            &[(Kind::Weir, 30), (Kind::Nginx, 10)],
        ]);
        let row = busy_in_the_second.row(Measure::CpuPerRequest);
        assert_eq!((row.weir.as_str(), row.nginx.as_str(), row.ratio.as_str()), ("30.0", "20.0", "1.50"));
        assert_eq!(row.met, Some(true));
        assert_eq!(rounds(&[&[(Kind::Weir, 19), (Kind::Nginx, 10)]]).row(Measure::CpuPerRequest).met, Some(false));
    }

    #[test]
    fn what_was_not_measured_meets_no_bound() {
        assert_eq!(rounds(&[&[(Kind::Weir, 20)]]).row(Measure::CpuPerRequest).met, None);
    }
}
