//! So many at once: slots that are taken, given back, and waited for in the order of coming.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The slots of one scope. How many there are is its limit's to say, which a reload may change.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: AtomicU64,
    waiting: AtomicUsize,
    freed: Notify,
}

/// Who asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// Somebody new, who does not go ahead of those who wait.
    New,
    /// One of those who wait, when a slot was freed.
    Waiting,
}

impl Slots {
    /// Takes one of `limit` slots. Whoever got `true` gives it back.
    pub(super) fn take(&self, limit: u64, asker: Asker) -> bool {
        if asker == Asker::New && self.waiting.load(Ordering::SeqCst) > 0 {
            return false;
        }
        let next = |taken: u64| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// Gives one back.
    pub(super) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A place in the queue, if fewer than `most` wait.
    pub(super) fn queue(&self, most: usize) -> Option<Queued<'_>> {
        let next = |waiting: usize| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).ok()?;
        Some(Queued { slots: self })
    }
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(super) struct Queued<'s> {
    slots: &'s Slots,
}

impl Queued<'_> {
    /// Calls `take` each time that this one's turn comes, until it gives something or `patience` is over.
    pub(super) async fn until<T>(&self, patience: Duration, mut take: impl FnMut() -> Option<T>) -> Option<T> {
        let turns = async {
            loop {
                let mut freed = std::pin::pin!(self.slots.freed.notified());
                // From here on a slot that is freed is noticed, so none is missed between the look and the wait.
                freed.as_mut().enable();
                if let Some(taken) = take() {
                    return taken;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, turns).await.ok()
    }

    /// Lets the next one look, when a turn came and was not used.
    pub(super) fn pass_on(&self) {
        self.slots.freed.notify_one();
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.slots.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
