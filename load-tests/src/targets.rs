//! What each measurement should be: the bounds that stand beside the measured values in the report.

use crate::scenario::Measure;

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Weir's value is at most this many times nginx's.
    TimesNginx(f64),
    /// Weir's value is at most this much over nothing between, in microseconds.
    OverDirect(f64),
    /// The same over nginx.
    OverNginx(f64),
    /// Weir's value is at most this.
    AtMost(f64),
}

/// The bound of a measure in a scenario, where there is one.
pub(crate) fn of(scenario: &str, measure: Measure) -> Option<Target> {
    use Measure::{
        CpuPerEvent, CpuPerRequest, DelayMiddle, FirstHigh, FirstMiddle, IdleMemory, LatencyHigh, LatencyMiddle,
        MemoryPerStream, ReadinessHigh,
    };
    match (scenario, measure) {
        ("json-1k-c1" | "json-1k-c32" | "json-1k-c64" | "json-1k-c256", CpuPerRequest) => Some(Target::TimesNginx(1.8)),
        ("body-200k" | "body-2m", CpuPerRequest) => Some(Target::TimesNginx(2.0)),
        ("sse-64", CpuPerEvent) => Some(Target::TimesNginx(1.25)),
        ("anthropic-json", CpuPerRequest) => Some(Target::TimesNginx(2.5)),
        ("anthropic-sse", CpuPerEvent) => Some(Target::TimesNginx(1.5)),
        ("held", IdleMemory) => Some(Target::AtMost(20.0)),
        ("held", MemoryPerStream) => Some(Target::AtMost(32.0)),
        ("held", ReadinessHigh) => Some(Target::AtMost(50_000.0)),
        ("open-1000", LatencyMiddle) => Some(Target::OverNginx(100.0)),
        ("open-1000", LatencyHigh) => Some(Target::OverNginx(1_000.0)),
        ("first-token", FirstMiddle) => Some(Target::OverNginx(200.0)),
        ("first-token", FirstHigh) => Some(Target::OverNginx(1_000.0)),
        ("event-delay", DelayMiddle) => Some(Target::OverDirect(1_000.0)),
        _ => None,
    }
}

/// How much more a request that is translated may cost than one that is passed through.
pub(crate) const TRANSLATED_WITHIN: f64 = 0.4;

/// How much more the large configuration may cost a request.
pub(crate) const LARGE_WITHIN: f64 = 0.05;

/// How much more limits, budgets and prices may.
pub(crate) const MANAGED_WITHIN: f64 = 0.15;

/// What they may add to the median latency, in microseconds.
pub(crate) const MANAGED_LATENCY: f64 = 30.0;
