//! A provider's error, told in a few classes, with what it said kept for the caller.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

/// What kind of error it was: this, not the provider's wording, decides what is tried next and what is cooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request itself is wrong: no other target would do better.
    BadRequest,
    /// The prompt is longer than the model's context.
    ContextLength,
    /// The content was refused by a policy.
    ContentPolicy,
    /// Too many requests or tokens for this credential, for now.
    RateLimit,
    /// No credit or quota is left on this credential.
    Quota,
    /// The credential was refused.
    Authorization,
    /// The credential is well, but what was asked is not for it: a model, an endpoint, a region, more at once than it
    /// is allowed. Another one's may be.
    Denied,
    /// The model or the path is not there for this credential.
    NotFound,
    /// The provider failed, or is overloaded.
    Server,
}

impl Class {
    /// The class that a bare status tells.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Authorization,
            // Of itself it says nothing of the credential: one request, or one model, is refused so.
            403 => Self::Denied,
            402 => Self::Quota,
            404 => Self::NotFound,
            429 => Self::RateLimit,
            408 | 424 | 425 | 500.. => Self::Server,
            _ => Self::BadRequest,
        }
    }

    /// Whether another target may do better.
    #[must_use]
    pub fn may_retry_elsewhere(self) -> bool {
        match self {
            Self::RateLimit | Self::Quota | Self::Authorization | Self::Denied | Self::Server => true,
            Self::BadRequest | Self::ContextLength | Self::ContentPolicy | Self::NotFound => false,
        }
    }
}

/// A provider's refusal of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind it is.
    pub class: Class,
    /// The provider's status; for an error inside of a 200 stream, the one that it stands for.
    pub status: StatusCode,
    /// When the provider asked to come again.
    pub retry_after: Option<Duration>,
    /// What it said, for a person.
    pub message: String,
    /// The provider's type of error, as OpenAI's `type`.
    pub kind: Option<String>,
    /// The provider's code, always a string.
    pub code: Option<String>,
    /// The parameter that it names.
    pub param: Option<String>,
}

/// When a provider asks to come again: `retry-after-ms`, then `retry-after` in seconds or as a date.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let after = text("retry-after")?;
    if let Ok(seconds) = after.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    httpdate::parse_http_date(after).ok().map(|date| date.duration_since(now).unwrap_or_default())
}

/// The limits that providers tell of beside each other: the headers for what remains of one, and for when it is over.
const LIMITS: [(&str, &str); 7] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
];

/// When a limit is over, as the headers of OpenAI's, of those with one limit, and of Anthropic say: the last of those
/// that may be used up by what is said to remain. They stand in other answers too, so only a refusal by a limit may be
/// read for it.
#[must_use]
pub fn limit_reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let used_up = LIMITS.iter().filter(|(remaining, _)| text(remaining).is_none_or(|remaining| remaining == "0"));
    used_up.filter_map(|(_, reset)| span(text(reset)?, now)).max()
}

/// Numbers from here on are no spans but dates: seconds since 1970, or milliseconds.
const DATES_FROM: f64 = 1e9;
const MILLISECONDS_FROM: f64 = 1e12;

/// `1s`, `6m0s`, `250ms`, `2m59.56s`, a number of seconds, or a date as a number or by RFC 3339.
fn span(text: &str, now: SystemTime) -> Option<Duration> {
    let Ok(number) = text.parse::<f64>() else {
        return units(text).or_else(|| until(text, now));
    };
    let seconds = if number >= MILLISECONDS_FROM { number / 1000.0 } else { number };
    let span = Duration::try_from_secs_f64(seconds).ok()?;
    if number < DATES_FROM {
        return Some(span);
    }
    let today = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(span.saturating_sub(today))
}

fn until(text: &str, now: SystemTime) -> Option<Duration> {
    let date = SystemTime::from(text.parse::<jiff::Timestamp>().ok()?);
    Some(date.duration_since(now).unwrap_or_default())
}

fn units(mut text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    while !text.is_empty() {
        let (number, rest) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
        let (unit, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()));
        let seconds = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        text = rest;
    }
    Some(sum).filter(|sum| !sum.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_limits_reset_is_read_as_each_provider_writes_it() {
        let read = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            limit_reset(&headers.collect(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        };
        for (value, seconds) in [
            ("1s", 1.0),
            ("6m0s", 360.0),
            ("250ms", 0.25),
            ("2m59.56s", 179.56),
            ("1h1m1s", 3661.0),
            ("7", 7.0),
            ("0.5", 0.5),
            ("1700000009", 9.0),
            ("1700000009500", 9.5),
            ("1600000000", 0.0),
            ("2023-11-14T22:13:27Z", 7.0),
            ("2023-11-14T23:13:27.5+01:00", 7.5),
            ("2020-01-01T00:00:00Z", 0.0),
        ] {
            assert_eq!(read(&[("x-ratelimit-reset", value)]), Some(Duration::from_secs_f64(seconds)), "{value}");
        }
        for nonsense in
            ["", "soon", "s", "1x", "-1", "-5s", "1s!", "99999999999999999999h", "2023-11-14", "9999-99-99T00:00:00Z"]
        {
            assert_eq!(read(&[("x-ratelimit-reset-tokens", nonsense)]), None, "{nonsense}");
        }
        let (requests, tokens) = (("x-ratelimit-reset-requests", "1s"), ("x-ratelimit-reset-tokens", "6m0s"));
        let remaining = |value| [("x-ratelimit-remaining-requests", "9"), ("x-ratelimit-remaining-tokens", value)];
        assert_eq!(read(&[requests, tokens]), Some(Duration::from_secs(360)));
        assert_eq!(read(&[&[requests, tokens][..], &remaining("0")].concat()), Some(Duration::from_secs(360)));
        assert_eq!(read(&[requests, tokens, ("x-ratelimit-remaining-tokens", "9")]), Some(Duration::from_secs(1)));
        assert_eq!(read(&[&[requests, tokens][..], &remaining("9")].concat()), None);
        let anthropics = [
            ("anthropic-ratelimit-requests-remaining", "12"),
            ("anthropic-ratelimit-requests-reset", "2023-11-14T23:13:20Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2023-11-14T22:13:50Z"),
            ("anthropic-ratelimit-output-tokens-remaining", "0"),
            ("anthropic-ratelimit-output-tokens-reset", "2023-11-14T22:13:40Z"),
        ];
        assert_eq!(read(&anthropics), Some(Duration::from_secs(30)));
    }

    #[test]
    fn retry_after_is_read_in_seconds_milliseconds_and_as_a_date() {
        let read = |name: &'static str, value: &'static str| {
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))]);
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770))
        };
        assert_eq!(read("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(read("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(read("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(read("retry-after", "Tue, 06 Nov 1984 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(read("retry-after", "-1"), None);
        assert_eq!(read("retry-after", "soon"), None);
    }
}
