//! Faults and shapes of an answer, asked for by directives.
//! Directives follow the model's base name, or stand in the header `x-sim-fault` or in the credential, joined with `~`:
//! `gpt-5.5~status=429~retry_after=2~times=3`. They compose. A directive that is not known is refused, so that
//! a misspelt one never passes for a healthy provider.

use std::time::Duration;

/// The header that may carry directives.
pub const HEADER: &str = "x-sim-fault";

/// The most content events that may be asked for.
const MAX_EVENTS: usize = 100_000;

/// The longest reply text that may be asked for.
const MAX_SIZE: usize = 64 << 20;

/// What a request asked the simulator to do wrong, or in another shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    /// Refuse with this status.
    pub status: Option<u16>,
    /// Send this `retry-after` with the refusal.
    pub retry_after: Option<RetryAfter>,
    /// Only the first so many requests that carry the same directives.
    pub times: Option<u64>,
    /// Wait before the head.
    pub delay: Duration,
    /// Wait between the head and the first event.
    pub first: Duration,
    /// Wait between events.
    pub gap: Duration,
    /// So many content events.
    pub events: Option<usize>,
    /// Close the connection after so many content events.
    pub cut: Option<usize>,
    /// End the body cleanly after so many content events, with no terminal event.
    pub end: Option<usize>,
    /// Fall silent for ever after so many content events.
    pub silence: Option<usize>,
    /// An error event of this status.
    pub error: Option<u16>,
    /// The error event comes after so many content events.
    pub error_after: Option<usize>,
    /// Byte by byte, with this pause.
    pub slow: Option<Duration>,
    /// Malformed JSON.
    pub malformed: bool,
    /// A page of HTML.
    pub html: bool,
    /// Writes that end inside characters and lines.
    pub split: bool,
    /// A reply text of so many bytes.
    pub size: Option<usize>,
    /// `content-encoding: gzip`.
    pub gzip: bool,
    /// A `content-length` larger than the body, then close.
    pub truncate: bool,
    /// Close with no answer.
    pub close: bool,
    /// Answer with this status before the body was read.
    pub early: Option<u16>,
    /// How the usage is reported.
    pub usage: UsageReport,
    /// So many pings before the content.
    pub pings: usize,
    /// Lines end in CRLF.
    pub crlf: bool,
    /// Each content event carries the time at which it was sent.
    pub stamp: bool,
    /// So many input tokens came from the provider's cache.
    pub cached: Option<u64>,
    /// So many input tokens were written to the provider's cache.
    pub cache_write: Option<u64>,
    /// Show the reasoning, as OpenAI-compatible hosts do.
    pub reasoning: bool,
    /// Redacted thinking.
    pub redacted: bool,
    /// The context window, in tokens.
    pub context: Option<u64>,
    /// The content filter refuses the request.
    pub filtered: bool,
    /// Refuse unknown fields also where the real provider is lenient.
    pub strict: bool,
    /// Embeddings come in this encoding, whatever was asked.
    pub embedding: Option<Encoding>,
    /// The most inputs that an embedding request may have.
    pub batch: Option<usize>,
}

/// The value of a `retry-after` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// `retry-after: 2`
    Seconds(u64),
    /// `retry-after-ms: 1500`
    Millis(u64),
    /// `retry-after: Wed, 21 Oct 2026 07:28:00 GMT`, so many seconds from now.
    Date(u64),
}

/// How the usage is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageReport {
    /// As it was.
    #[default]
    True,
    /// Not at all.
    None,
    /// All zeros.
    Zero,
}

/// How an embedding is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// An array of numbers.
    Float,
    /// Little-endian 32-bit floats in base64.
    Base64,
}

/// A directive that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDirective {
    directive: String,
    reason: &'static str,
}

impl std::fmt::Display for BadDirective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "simulator: directive '{}': {}", self.directive, self.reason)
    }
}

impl std::error::Error for BadDirective {}

impl Fault {
    /// Reads directives joined with `~`; empty ones are skipped.
    ///
    /// # Errors
    /// The first directive that is unknown or has a value that it cannot have.
    pub fn parse(directives: &str) -> Result<Self, BadDirective> {
        let mut fault = Self::default();
        for directive in directives.split('~').map(str::trim).filter(|d| !d.is_empty()) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            fault.set(name, value).map_err(|reason| BadDirective { directive: directive.to_owned(), reason })?;
        }
        Ok(fault)
    }

    /// Whether the answer is to be played step by step instead of in one write.
    pub(crate) fn plays(&self) -> bool {
        let paused = self.first > Duration::ZERO || self.slow.is_some() || self.silence.is_some();
        let broken = self.cut.is_some() || self.truncate || self.split;
        paused || broken || self.gzip
    }

    /// Whether a stream ends before its proper end.
    pub(crate) fn ends_early(&self) -> bool {
        let stopped = self.cut.is_some() || self.end.is_some() || self.silence.is_some();
        stopped || self.error.is_some() || self.error_after.is_some()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "delay" | "first" | "gap" | "slow" => self.set_time(name, value),
            "events" | "cut" | "end" | "silence" | "error_after" | "pings" | "batch" => self.set_count(name, value),
            "status" | "error" | "early" => self.set_status(name, value),
            "times" | "cached" | "cache_write" | "context" => self.set_number(name, value),
            "retry_after" | "retry_date" | "size" | "usage" | "embedding" => self.set_other(name, value),
            _ => self.set_flag(name, value),
        }
    }

    fn set_other(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "retry_after" => self.retry_after = Some(retry_after(value)?),
            "retry_date" => self.retry_after = Some(RetryAfter::Date(duration(value)?.as_secs())),
            "size" => self.size = Some(size(value)?),
            "usage" => self.usage = usage_report(value)?,
            _ => self.embedding = Some(encoding(value)?),
        }
        Ok(())
    }

    fn set_time(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "delay" => self.delay = duration(value)?,
            "first" => self.first = duration(value)?,
            "gap" => self.gap = duration(value)?,
            _ if value.is_empty() => self.slow = Some(Duration::from_millis(1)),
            _ => self.slow = Some(duration(value)?),
        }
        Ok(())
    }

    fn set_count(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let count: usize = value.parse().map_err(|_| "a number of events is wanted")?;
        let count = Some(count).filter(|count| *count <= MAX_EVENTS).ok_or("at most 100000")?;
        match name {
            "events" => self.events = Some(count),
            "cut" => self.cut = Some(count),
            "end" => self.end = Some(count),
            "silence" => self.silence = Some(count),
            "error_after" => self.error_after = Some(count),
            "batch" => self.batch = Some(count),
            _ => self.pings = count,
        }
        Ok(())
    }

    fn set_status(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let status: u16 = value.parse().map_err(|_| "a status is wanted")?;
        let status =
            Some(status).filter(|status| (200..=599).contains(status)).ok_or("a status of 200 to 599 is wanted")?;
        match name {
            "status" => self.status = Some(status),
            "error" => self.error = Some(status),
            _ => self.early = Some(status),
        }
        Ok(())
    }

    fn set_number(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let number: u64 = value.parse().map_err(|_| "a number is wanted")?;
        match name {
            "times" => self.times = Some(number),
            "cached" => self.cached = Some(number),
            "cache_write" => self.cache_write = Some(number),
            _ => self.context = Some(number),
        }
        Ok(())
    }

    fn set_flag(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        if !value.is_empty() {
            return Err("not known, or it takes no value");
        }
        let flag = match name {
            "malformed" => &mut self.malformed,
            "html" => &mut self.html,
            "split" => &mut self.split,
            "gzip" => &mut self.gzip,
            "truncate" => &mut self.truncate,
            "close" => &mut self.close,
            "crlf" => &mut self.crlf,
            "stamp" => &mut self.stamp,
            "reasoning" => &mut self.reasoning,
            "redacted" => &mut self.redacted,
            "filtered" => &mut self.filtered,
            "strict" => &mut self.strict,
            _ => return Err("not known"),
        };
        *flag = true;
        Ok(())
    }
}

/// The base name of a model and the directives behind it.
pub(crate) fn base_name(model: &str) -> (&str, &str) {
    model.split_once('~').unwrap_or((model, ""))
}

fn duration(value: &str) -> Result<Duration, &'static str> {
    let split = value.find(|c: char| c.is_ascii_alphabetic()).ok_or("a time with its unit is wanted, as 20ms or 2s")?;
    let (number, unit) = value.split_at(split);
    let number: u64 = number.parse().map_err(|_| "a time with its unit is wanted, as 20ms or 2s")?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err("the units of time are us, ms and s"),
    }
}

fn retry_after(value: &str) -> Result<RetryAfter, &'static str> {
    match value.parse() {
        Ok(seconds) => Ok(RetryAfter::Seconds(seconds)),
        Err(_) => Ok(RetryAfter::Millis(duration(value)?.as_millis() as u64)),
    }
}

fn size(value: &str) -> Result<usize, &'static str> {
    let lower = value.to_ascii_lowercase();
    let (number, factor) = match lower.as_bytes().last() {
        Some(b'k') => (lower.trim_end_matches('k'), 1_000),
        Some(b'm') => (lower.trim_end_matches('m'), 1_000_000),
        _ => (lower.as_str(), 1),
    };
    let number: usize = number.parse().map_err(|_| "a size is wanted, as 200k")?;
    Some(number.saturating_mul(factor)).filter(|size| *size <= MAX_SIZE).ok_or("at most 64 MiB")
}

fn usage_report(value: &str) -> Result<UsageReport, &'static str> {
    match value {
        "none" => Ok(UsageReport::None),
        "zero" => Ok(UsageReport::Zero),
        _ => Err("usage is none or zero"),
    }
}

fn encoding(value: &str) -> Result<Encoding, &'static str> {
    match value {
        "float" => Ok(Encoding::Float),
        "base64" => Ok(Encoding::Base64),
        _ => Err("embedding is float or base64"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn directives_compose() {
        let fault = Fault::parse("status=429~retry_after=2~times=3~gap=20ms~size=200k").unwrap();
        assert_eq!(fault.status, Some(429));
        assert_eq!(fault.retry_after, Some(RetryAfter::Seconds(2)));
        assert_eq!(fault.times, Some(3));
        assert_eq!(fault.gap, Duration::from_millis(20));
        assert_eq!(fault.size, Some(200_000));
    }

    #[test]
    fn a_misspelt_directive_is_named() {
        for bad in ["staus=429", "delay=2", "status=42", "events=many", "gzip=yes", "size=1g", "usage=some"] {
            let fault = Fault::parse(bad).unwrap_err();
            assert!(fault.to_string().contains(bad), "{fault}");
        }
    }

    #[test]
    fn a_name_without_directives_is_its_own_base() {
        assert_eq!(base_name("gpt-5.5"), ("gpt-5.5", ""));
        assert_eq!(base_name("gpt-5.5~cut=1~gzip"), ("gpt-5.5", "cut=1~gzip"));
    }
}
