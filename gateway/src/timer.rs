//! One timer for all of a request's clocks: re-armed only when it fires or a nearer deadline comes up, so that moving a
//! deadline, as every read of a stream does, costs a store.

use std::future::pending;
use std::pin::Pin;

use tokio::time::{Duration, Instant, Sleep, sleep_until};

use crate::error::TOTAL;

/// The clock of an answer's begin.
pub const FIRST_BYTE: &str = "first byte";

/// The clock of its silence.
pub const IDLE: &str = "idle";

/// A request's clocks.
#[derive(Debug)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    total: Option<Instant>,
    phase: Option<(Instant, &'static str)>,
    silence: Option<(Instant, Duration)>,
}

/// A clock that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The request or its current part has taken too long.
    Timeout(&'static str),
    /// The client has heard nothing for too long.
    KeepAlive,
}

impl Timer {
    /// Starts the clock of the whole request and, for a stream, that of silence, as of `now`.
    #[must_use]
    pub fn start(now: Instant, total: Option<Duration>, silence: Option<Duration>) -> Self {
        Self {
            sleep: None,
            total: total.and_then(|total| now.checked_add(total)),
            phase: None,
            silence: silence.and_then(|silence| Some((now.checked_add(silence)?, silence))),
        }
    }

    /// Whether the clock of the whole request has run out.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.total.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// How much time the whole request has left; `None`: any.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.total.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Starts the clock of a part, in the place of the last part's.
    pub fn phase(&mut self, limit: Option<Duration>, name: &'static str) {
        self.phase = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, name)));
    }

    /// The same for a part that began then.
    pub fn phase_from(&mut self, then: Instant, limit: Option<Duration>, name: &'static str) {
        self.phase = limit.and_then(|limit| Some((then.checked_add(limit)?, name)));
    }

    /// The client has heard something then.
    pub fn heard(&mut self, then: Instant) {
        if let Some((deadline, silence)) = &mut self.silence
            && let Some(next) = then.checked_add(*silence)
        {
            *deadline = next;
        }
    }

    /// Resolves when the clock of the whole request has run out, whatever the others say.
    pub async fn over(&self) {
        match self.total {
            Some(deadline) => sleep_until(deadline).await,
            None => pending().await,
        }
    }

    /// Resolves when a clock has run out. Safe to cancel.
    pub async fn due(&mut self) -> Due {
        loop {
            let Some((deadline, due)) = self.nearest() else {
                return pending().await;
            };
            self.sleep_at_most_until(deadline).await;
            if deadline <= Instant::now() {
                return due;
            }
        }
    }

    /// Wakes at `deadline` or, where the timer is armed for an earlier one, then.
    async fn sleep_at_most_until(&mut self, deadline: Instant) {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.is_elapsed() || sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().await;
    }

    fn nearest(&self) -> Option<(Instant, Due)> {
        let total = self.total.map(|deadline| (deadline, Due::Timeout(TOTAL)));
        let phase = self.phase.map(|(deadline, name)| (deadline, Due::Timeout(name)));
        let silence = self.silence.map(|(deadline, _)| (deadline, Due::KeepAlive));
        [total, phase, silence].into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn each_clock_runs_out_on_its_own_time() {
        let start = Instant::now();
        let mut timer = Timer::start(start, Some(secs(100)), Some(secs(25)));
        timer.phase(Some(secs(60)), "first_byte");
        assert_eq!((timer.due().await, start.elapsed()), (Due::KeepAlive, secs(25)));
        timer.heard(Instant::now());
        assert_eq!((timer.due().await, start.elapsed()), (Due::KeepAlive, secs(50)));
        timer.heard(Instant::now());
        assert_eq!((timer.due().await, start.elapsed()), (Due::Timeout("first_byte"), secs(60)));
        timer.phase(None, "idle");
        timer.heard(Instant::now());
        timer.heard(Instant::now());
        assert_eq!((timer.due().await, start.elapsed()), (Due::KeepAlive, secs(85)));
        timer.silence = None;
        assert_eq!((timer.due().await, start.elapsed()), (Due::Timeout("total"), secs(100)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_moved_on_does_not_fire_early() {
        let start = Instant::now();
        let mut timer = Timer::start(start, None, None);
        for _ in 0..5 {
            timer.phase(Some(secs(2)), "idle");
            let early = tokio::time::timeout(secs(1), timer.due()).await;
            assert!(early.is_err());
        }
        timer.phase(Some(secs(2)), "idle");
        assert_eq!((timer.due().await, start.elapsed()), (Due::Timeout("idle"), secs(7)));
    }
}
