//! A provider's error, told in five classes, with what it said kept for the caller.

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
            401 | 403 => Self::Authorization,
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
            Self::RateLimit | Self::Quota | Self::Authorization | Self::Server => true,
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
