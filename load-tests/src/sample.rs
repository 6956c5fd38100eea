//! What one round of one scenario gave, and medians over rounds.

use std::time::Duration;

/// Times, of which percentiles are asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that `share` of them do not pass, in microseconds.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        let place = (last as f64 * share).round() as usize;
        sorted.get(place).map(|time| time.as_secs_f64() * 1e6)
    }
}

/// One round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Requests that ended within the window.
    pub(crate) requests: u64,
    /// Events that came within the window.
    pub(crate) events: u64,
    /// Requests that failed, and the first reason.
    pub(crate) failures: u64,
    pub(crate) reason: Option<String>,
    /// From the (intended) sending to the last byte.
    pub(crate) latency: Times,
    /// From the (intended) sending to the first content.
    pub(crate) first_content: Times,
    /// From an event's stamp to its arrival.
    pub(crate) delay: Times,
    /// How long the window was.
    pub(crate) window: Duration,
    /// What the gateway's processes used of the processor within the window.
    pub(crate) cpu: Duration,
    /// The resident memory at the window's end, in bytes.
    pub(crate) memory: u64,
    /// The same before anything was asked, in bytes.
    pub(crate) idle: u64,
}

impl Sample {
    /// Adds what another task saw.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.requests += other.requests;
        self.events += other.events;
        self.failures += other.failures;
        self.reason = self.reason.take().or(other.reason);
        self.latency.append(&mut other.latency);
        self.first_content.append(&mut other.first_content);
        self.delay.append(&mut other.delay);
    }

    pub(crate) fn fail(&mut self, reason: impl ToString) {
        self.failures += 1;
        self.reason.get_or_insert_with(|| reason.to_string());
    }

    /// Processor time a request, in microseconds.
    pub(crate) fn cpu_per_request(&self) -> Option<f64> {
        per(self.cpu, self.requests)
    }

    /// Processor time an event, in microseconds.
    pub(crate) fn cpu_per_event(&self) -> Option<f64> {
        per(self.cpu, self.events)
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.requests as f64 / self.window.as_secs_f64())
    }
}

fn per(time: Duration, count: u64) -> Option<f64> {
    (count > 0 && time > Duration::ZERO).then(|| time.as_secs_f64() * 1e6 / count as f64)
}

/// The middle of the values that there are.
pub(crate) fn median(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().flatten().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return values.get(middle).copied();
    }
    let below = values.get(middle.checked_sub(1)?)?;
    Some((below + values.get(middle)?) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_what_there_is() {
        assert_eq!(median([Some(3.0), None, Some(1.0), Some(2.0)]), Some(2.0));
        assert_eq!(median([Some(1.0), Some(2.0)]), Some(1.5));
        assert_eq!(median([None]), None);
    }

    #[test]
    fn a_percentile_is_a_time_that_was_seen() {
        let mut times = Times::default();
        (1..=100).for_each(|micros| times.push(Duration::from_micros(micros)));
        assert_eq!(times.percentile(0.5).map(f64::round), Some(51.0));
        assert_eq!(times.percentile(1.0).map(f64::round), Some(100.0));
        assert_eq!(Times::default().percentile(0.5), None);
    }
}
