//! What is left of a caller's limits, in the headers and the spelling that OpenAI's clients know.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::headers;

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The limit, a minute.
    pub limit: i64,
    /// What can still be used at once.
    pub remaining: i64,
    /// When all of it can be used again.
    pub reset: Duration,
}

/// What is left of requests and tokens; `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests a minute.
    pub requests: Option<Left>,
    /// Tokens a minute.
    pub tokens: Option<Left>,
}

impl Standing {
    /// Of each limit the one with less left.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        let tighter = |a: Option<Left>, b: Option<Left>| match (a, b) {
            (Some(a), Some(b)) => Some(if b.remaining < a.remaining { b } else { a }),
            (a, b) => a.or(b),
        };
        Self { requests: tighter(self.requests, other.requests), tokens: tighter(self.tokens, other.tokens) }
    }

    /// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, of what is limited.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let requests = self.requests.into_iter().flat_map(|left| REQUESTS.into_iter().zip(left.values()));
        requests.chain(self.tokens.into_iter().flat_map(|left| TOKENS.into_iter().zip(left.values())))
    }
}

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];

const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

impl Left {
    fn values(self) -> [HeaderValue; 3] {
        let reset = match Reset(self.reset).millis() {
            0 => None,
            _ => HeaderValue::try_from(Reset(self.reset).to_string()).ok(),
        };
        let nothing = HeaderValue::from_static("0s");
        [headers::number(self.limit), headers::number(self.remaining), reset.unwrap_or(nothing)]
    }
}

/// A span of time as OpenAI writes it: `250ms`, `1s`, `8.64s`, `6m0s`. Rounded up to a millisecond, so that nobody
/// comes too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset(pub Duration);

impl Reset {
    fn millis(self) -> u64 {
        u64::try_from(self.0.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let (minutes, seconds, rest) = (millis / 60_000, millis / 1000 % 60, millis % 1000);
        if (1..1000).contains(&millis) {
            return write!(f, "{millis}ms");
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let rest = format!("{rest:03}");
        match rest.trim_end_matches('0') {
            "" => write!(f, "{seconds}s"),
            rest => write!(f, "{seconds}.{rest}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_openai_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ms"),
            (250_000_000, "250ms"),
            (999_000_001, "1s"),
            (1_000_000_000, "1s"),
            (8_640_000_000, "8.64s"),
            (60_000_000_000, "1m0s"),
            (360_000_000_000, "6m0s"),
            (61_005_000_000, "1m1.005s"),
        ] {
            assert_eq!(Reset(Duration::from_nanos(nanos)).to_string(), text);
        }
    }

    #[test]
    fn the_tightest_limit_is_told_and_what_is_not_limited_is_not() {
        let left = |limit, remaining| Some(Left { limit, remaining, reset: Duration::from_secs(1) });
        let key = Standing { requests: left(60, 59), tokens: None };
        let tenant = Standing { requests: left(600, 10), tokens: None };
        let told: Vec<_> = key.tighter(tenant).headers().map(|(name, value)| format!("{name}: {value:?}")).collect();
        assert_eq!(
            told,
            [
                "x-ratelimit-limit-requests: \"600\"",
                "x-ratelimit-remaining-requests: \"10\"",
                "x-ratelimit-reset-requests: \"1s\""
            ]
        );
    }
}
