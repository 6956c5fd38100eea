//! How many bytes of a request make a token: learned from what providers report, so that what has not been counted yet
//! can be estimated.

use std::sync::atomic::{AtomicU32, Ordering};

/// English text and JSON around it.
const AT_FIRST: u32 = 4 * ONE;

/// One byte a token, in the fixed point that is kept: a 1024th.
const ONE: u32 = 1024;

/// The fewest and most bytes that are believed of a token; pictures in base64 are thousands.
const BELIEVED: std::ops::RangeInclusive<u32> = ONE..=4096 * ONE;

/// A new value counts for one part in so many.
const MEMORY: i64 = 16;

/// Bytes a token, of one model.
#[derive(Debug)]
pub struct Ratio(AtomicU32);

impl Default for Ratio {
    fn default() -> Self {
        Self(AtomicU32::new(AT_FIRST))
    }
}

impl Ratio {
    /// The tokens that a body of `bytes` has in all likelihood.
    #[must_use]
    pub fn estimate(&self, bytes: usize) -> i64 {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / i64::from(ONE));
        let per_token = i64::from(self.0.load(Ordering::Relaxed));
        bytes.saturating_mul(i64::from(ONE)) / per_token
    }

    /// Learns that `bytes` had `tokens`. Two that learn at once may lose one lesson, which does no harm.
    pub fn learn(&self, bytes: usize, tokens: u64) {
        let (Ok(bytes), Ok(tokens)) = (i64::try_from(bytes), i64::try_from(tokens)) else {
            return;
        };
        if bytes == 0 || tokens == 0 {
            return;
        }
        let seen = bytes.saturating_mul(i64::from(ONE)) / tokens;
        let seen = seen.clamp(i64::from(*BELIEVED.start()), i64::from(*BELIEVED.end()));
        let before = i64::from(self.0.load(Ordering::Relaxed));
        let after = before + (seen - before) / MEMORY;
        self.0.store(u32::try_from(after).unwrap_or(AT_FIRST), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_comes_to_what_providers_report() {
        let ratio = Ratio::default();
        assert_eq!(ratio.estimate(4000), 1000);
        (0..200).for_each(|_| ratio.learn(6000, 1000));
        assert!((980..=1020).contains(&ratio.estimate(6000)), "{}", ratio.estimate(6000));
    }

    #[test]
    fn nonsense_moves_nothing_out_of_reason() {
        let ratio = Ratio::default();
        ratio.learn(0, 5);
        ratio.learn(5, 0);
        assert_eq!(ratio.estimate(400), 100);
        (0..10_000).for_each(|_| ratio.learn(1, u64::MAX / 2));
        assert!(ratio.estimate(400) <= 400);
        assert!(ratio.estimate(usize::MAX) > 0);
    }
}
