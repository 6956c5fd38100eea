//! Time as balancing counts it: microseconds on the process's own clock, so that a moment fits into an atomic.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A moment since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The clock starts here, because 0 stands for never.
const BEGIN: Duration = Duration::from_secs(1);

impl Moment {
    /// Before every other.
    pub const NEVER: Self = Self(0);

    /// Now. Everything else in this room is handed it.
    #[must_use]
    pub fn now() -> Self {
        Self::of(Instant::now())
    }

    /// Then.
    #[must_use]
    pub fn of(then: Instant) -> Self {
        Self::NEVER.plus(BEGIN).plus(then.saturating_duration_since(*START))
    }

    /// So much later; not past the end of time.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` it is; nothing where it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// As an atomic holds it.
    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    /// As an atomic held it.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}
