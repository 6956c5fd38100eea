//! So many at once: slots that are taken, given back, and waited for in the order of coming; of one process, or shared
//! by several, each of which takes from what it has claimed.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::budget::desk::{Claimant, Desk, Mode};
use crate::budget::lease::{Answer, Claim, Reason};
use crate::config::OnRedisLoss;
use crate::limit::stock::{MOST, Need, Stock};

/// The slots of one scope. How many there are is its limit's to say, which a reload may change.
#[derive(Debug)]
pub(super) struct Slots {
    counts: AtomicU64,
    waiting: AtomicUsize,
    /// For those who wait for a slot, each in its turn.
    freed: Notify,
    /// For those who wait only until a claim is answered, all at once.
    answered: Notify,
    share: Option<Box<Share>>,
}

/// Three counts in one number, so that what may be taken cannot change between a look at it and a taking.
#[derive(Clone, Copy, Debug)]
struct Counts {
    taken: u64,
    /// How many may be.
    granted: u64,
    /// The most that were since the last look.
    peak: u64,
}

/// What slots are when several processes share them.
#[derive(Debug)]
struct Share {
    id: Arc<str>,
    desk: Arc<Desk>,
    limit: AtomicI64,
    /// Whether a wish is under way.
    asked: AtomicBool,
    /// Whether it is known that there are none to be had.
    lacking: AtomicBool,
    /// Whether others want what is given back.
    called: AtomicBool,
    low: AtomicU64,
    stock: Mutex<Stock>,
}

/// Who asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// Somebody new, who does not go ahead of those who wait.
    New,
    /// One of those who wait, when a slot was freed.
    Waiting,
}

/// For how long somebody waits for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// As long as more may be claimed.
    Claim,
    /// Until one comes free.
    Slot,
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken.
    Taken,
    /// This process has none in hand, and claims some.
    Claiming,
    /// The store by which they are shared is away, and the configuration refuses then.
    NoStore,
}

impl Default for Slots {
    /// Slots of this process alone.
    fn default() -> Self {
        Self::of(MOST.unsigned_abs(), None)
    }
}

impl Slots {
    /// Slots by the name of `id` that are shared by way of `desk`.
    pub(super) fn shared(id: Arc<str>, desk: Arc<Desk>) -> Self {
        let share = Share {
            id,
            desk,
            limit: AtomicI64::new(0),
            asked: AtomicBool::new(false),
            lacking: AtomicBool::new(false),
            called: AtomicBool::new(false),
            low: AtomicU64::new(0),
            stock: Mutex::default(),
        };
        Self::of(0, Some(Box::new(share)))
    }

    fn of(granted: u64, share: Option<Box<Share>>) -> Self {
        let counts = Counts { taken: 0, granted, peak: 0 }.packed();
        let (freed, answered) = (Notify::new(), Notify::new());
        Self { counts: AtomicU64::new(counts), waiting: AtomicUsize::new(0), freed, answered, share }
    }

    /// There are so many from now on.
    pub(super) fn set_limit(&self, limit: u64) {
        if let Some(share) = &self.share {
            share.limit.store(i64::try_from(limit).unwrap_or(MOST).min(MOST), Ordering::Relaxed);
        }
    }

    /// Takes one of `limit` slots. Whoever got one gives it back.
    pub(super) fn take(self: &Arc<Self>, limit: u64, asker: Asker) -> Result<(), Full> {
        let has_turn = asker == Asker::Waiting || self.waiting.load(Ordering::SeqCst) == 0;
        match &self.share {
            Some(share) => self.take_shared(share, limit, has_turn),
            None if has_turn && self.take_of(limit) => Ok(()),
            None => Err(Full::Taken),
        }
    }

    fn take_shared(self: &Arc<Self>, share: &Share, limit: u64, has_turn: bool) -> Result<(), Full> {
        let mode = share.desk.mode();
        if mode == Mode::Cut(OnRedisLoss::Reject) {
            return Err(Full::NoStore);
        }
        if !(has_turn && self.take_in(mode, limit)) {
            return self.take_slowly(share, mode, limit, has_turn);
        }
        if mode == Mode::Linked && self.counts().free() < share.low.load(Ordering::Relaxed) {
            self.ask(share);
        }
        Ok(())
    }

    /// As far as there are none in hand: by a look behind the lock, under which a claim closes them for a moment.
    #[cold]
    fn take_slowly(self: &Arc<Self>, share: &Share, mode: Mode, limit: u64, has_turn: bool) -> Result<(), Full> {
        self.set_limit(limit);
        let mut stock = share.stock();
        if mode == Mode::Cut(OnRedisLoss::Lease) {
            stock.take_share(self.need(share, self.counts(), Timestamp::now()));
            self.open(&stock, self.counts().peak);
        }
        if has_turn && self.take_in(mode, limit) {
            return Ok(());
        }
        let has_all = self.counts().taken >= limit.min(MOST.unsigned_abs());
        if mode != Mode::Linked || has_all || share.lacking.load(Ordering::Relaxed) {
            stock.refuse();
            return Err(Full::Taken);
        }
        if self.ask(share) {
            return Err(Full::Claiming);
        }
        stock.refuse();
        Err(Full::Taken)
    }

    fn take_in(&self, mode: Mode, limit: u64) -> bool {
        match mode {
            Mode::Cut(OnRedisLoss::Local) => self.take_where(|counts| counts.taken < limit.min(MOST.unsigned_abs())),
            Mode::Linked | Mode::Cut(_) => self.take_of(limit),
        }
    }

    fn take_of(&self, limit: u64) -> bool {
        self.take_where(|counts| counts.taken < counts.granted.min(limit))
    }

    fn take_where(&self, is_free: impl Fn(Counts) -> bool) -> bool {
        let next = |packed| {
            let counts = Counts::of(packed);
            let taken = counts.taken + 1;
            is_free(counts).then(|| Counts { taken, peak: counts.peak.max(taken), ..counts }.packed())
        };
        self.counts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// Asks for what is right now, more or less; `false` where nobody hears.
    fn ask(self: &Arc<Self>, share: &Share) -> bool {
        let is_heard = share.asked.swap(true, Ordering::AcqRel) || share.desk.wish(Arc::<Self>::clone(self));
        if !is_heard {
            share.asked.store(false, Ordering::Release);
        }
        is_heard
    }

    /// Gives one back: to others where they want it, else to who waits here.
    pub(super) fn give_back(self: &Arc<Self>) {
        self.counts.fetch_sub(Counts::ONE_TAKEN, Ordering::SeqCst);
        let is_called = |share: &&Share| share.called.load(Ordering::Relaxed) && share.desk.is_linked();
        let is_others = self.share.as_deref().filter(is_called).is_some_and(|share| self.ask(share));
        if !is_others && self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// The share of `limit` that is taken; all, while others are known to have what is not taken here.
    pub(super) fn load(&self, limit: u64) -> f64 {
        let is_lacking = self.share.as_ref().is_some_and(|share| share.lacking.load(Ordering::Relaxed));
        if is_lacking { 1.0 } else { self.counts().taken as f64 / limit.max(1) as f64 }
    }

    /// A place in the queue, if fewer than `most` wait.
    pub(super) fn queue(&self, most: usize) -> Option<Queued<'_>> {
        let next = |waiting: usize| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).ok()?;
        Some(Queued { slots: self })
    }

    fn counts(&self) -> Counts {
        Counts::of(self.counts.load(Ordering::SeqCst))
    }

    /// Nobody takes any until they are opened again; how they stood.
    fn close(&self) -> Counts {
        let closed = |packed| Some(Counts { granted: 0, ..Counts::of(packed) }.packed());
        let before = self.counts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, closed);
        Counts::of(before.unwrap_or_else(|same| same))
    }

    /// As many as the stock says may be taken.
    fn open(&self, stock: &Stock, peak: u64) {
        let granted = stock.granted().clamp(0, MOST).unsigned_abs();
        let opened = |packed| {
            let counts = Counts::of(packed);
            Some(Counts { granted, peak: peak.max(counts.taken), ..counts }.packed())
        };
        let _always_changed = self.counts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, opened);
    }

    fn need(&self, share: &Share, counts: Counts, now: Timestamp) -> Need {
        let count = |count: u64| i64::try_from(count).unwrap_or(MOST);
        Need {
            limit: share.limit.load(Ordering::Relaxed),
            taken: count(counts.taken),
            peak: count(counts.peak),
            waiting: i64::try_from(self.waiting.load(Ordering::SeqCst)).unwrap_or(MOST).min(MOST),
            nodes: share.desk.nodes(),
            now,
        }
    }

    /// What the stock makes of a claim or an answer, while nobody takes any.
    fn changed<T>(&self, share: &Share, now: Timestamp, change: impl FnOnce(&mut Stock, Need) -> (T, Peak)) -> T {
        let mut stock = share.stock();
        let counts = self.close();
        let need = self.need(share, counts, now);
        let (done, peak) = change(&mut stock, need);
        share.low.store(stock.low(need).clamp(0, MOST).unsigned_abs(), Ordering::Relaxed);
        share.called.store(stock.is_called(need), Ordering::Relaxed);
        share.lacking.store(stock.is_lacking(need), Ordering::Relaxed);
        self.open(&stock, if peak == Peak::Seen { 0 } else { counts.peak });
        done
    }
}

/// Whether the most that were taken is counted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peak {
    Seen,
    Kept,
}

impl Claimant for Slots {
    fn id(&self) -> &Arc<str> {
        static ALONE: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| Arc::from(""));
        self.share.as_ref().map_or(&ALONE, |share| &share.id)
    }

    fn claim(&self, reason: Reason, now: Timestamp) -> Option<Claim> {
        let share = self.share.as_ref()?;
        let amount = self.changed(share, now, |stock, need| {
            let peak = if reason == Reason::Look { Peak::Seen } else { Peak::Kept };
            (stock.claim(reason, need), peak)
        });
        if amount.is_none() {
            share.asked.store(false, Ordering::Release);
        }
        Some(Claim { key: format!("weir:{{{}}}", share.id), window: None, amount: amount?, beside: None })
    }

    fn answered(&self, claim: &Claim, answer: &Answer, now: Timestamp) -> Option<Claim> {
        let share = self.share.as_ref()?;
        let amount = self.changed(share, now, |stock, need| {
            if share.desk.is_linked() {
                stock.linked();
            }
            (stock.answered(share.desk.process(), answer, need), Peak::Kept)
        });
        share.asked.store(false, Ordering::Release);
        self.call();
        Some(Claim { key: claim.key.clone(), window: None, amount: amount?, beside: None })
    }

    fn unanswered(&self) {
        if let Some(share) = &self.share {
            share.lacking.store(false, Ordering::Relaxed);
            share.asked.store(false, Ordering::Release);
            // What holds now is another matter: everybody looks.
            self.freed.notify_waiters();
            self.answered.notify_waiters();
        }
    }

    fn presses(&self) -> bool {
        let is_lacking = || self.share.as_ref().is_some_and(|share| share.lacking.load(Ordering::Relaxed));
        self.waiting.load(Ordering::SeqCst) > 0 || is_lacking()
    }
}

impl Slots {
    /// Calls as many of those who wait for a slot as can have one: who is called in vain goes to the end of the queue.
    fn call(&self) {
        let waiting = self.waiting.load(Ordering::SeqCst);
        let free = usize::try_from(self.counts().free()).unwrap_or(usize::MAX);
        (0..free.min(waiting)).for_each(|_| self.freed.notify_one());
        self.answered.notify_waiters();
    }
}

impl Share {
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    const BITS: u32 = 21;
    const ONE_TAKEN: u64 = 1;

    fn of(packed: u64) -> Self {
        let count = |place: u32| packed >> (place * Self::BITS) & MOST.unsigned_abs();
        Self { taken: count(0), granted: count(1), peak: count(2) }
    }

    fn packed(self) -> u64 {
        self.taken | self.granted << Self::BITS | self.peak << (2 * Self::BITS)
    }

    fn free(self) -> u64 {
        self.granted.saturating_sub(self.taken)
    }
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(super) struct Queued<'s> {
    slots: &'s Slots,
}

impl Queued<'_> {
    /// Calls `take` each time that this one's turn comes, or an answer where it waits for that, until it gives
    /// something or
    /// `patience` is over.
    pub(super) async fn until<T>(
        &self,
        wait: Wait,
        patience: Duration,
        mut take: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let called = match wait {
            Wait::Claim => &self.slots.answered,
            Wait::Slot => &self.slots.freed,
        };
        let turns = async {
            loop {
                let mut freed = std::pin::pin!(called.notified());
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

    use std::task::{Context, Poll, Waker};

    use jiff::{SignedDuration, ToSpan as _};
    use proptest::prelude::*;

    use super::*;
    use crate::budget::desk::Wishes;
    use crate::budget::lease::{Amount, Claims, NodeId};

    const LIMIT: u64 = 7;
    const COUNT: usize = 3;

    /// One of several processes, with its claim on the way: each step of it on its own, since others write in between.
    struct Process {
        desk: Arc<Desk>,
        wishes: Wishes,
        slots: Arc<Slots>,
        taken: u64,
        claim: Option<Claim>,
        written: Option<Claims>,
    }

    impl Process {
        fn new(policy: OnRedisLoss) -> Self {
            let (desk, wishes) = Desk::new(0, policy, 1);
            desk.set_linked(true);
            desk.set_nodes(COUNT);
            let slots = Arc::new(Slots::shared("key/acme/ci/concurrent".into(), Arc::clone(&desk)));
            Self { desk, wishes, slots, taken: 0, claim: None, written: None }
        }

        fn take(&mut self, limit: u64) -> Result<(), Full> {
            let taken = self.slots.take(limit, Asker::New);
            self.taken += u64::from(taken.is_ok());
            taken
        }

        fn give_back(&mut self) {
            if self.taken > 0 {
                self.taken -= 1;
                self.slots.give_back();
            }
        }
    }

    /// All of them, the store, and who died.
    struct Fleet {
        processes: Vec<Process>,
        store: Claims,
        dead: Vec<NodeId>,
        now: Timestamp,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take,
        GiveBack,
        Claim(Reason),
        Write,
        Read,
        Lose,
        Die,
        Pass,
    }

    impl Fleet {
        fn new(count: usize) -> Self {
            let processes = (0..count).map(|_| Process::new(OnRedisLoss::Lease)).collect();
            Self { processes, store: Claims::new(), dead: Vec::new(), now: Timestamp::UNIX_EPOCH }
        }

        fn taken(&self) -> u64 {
            self.processes.iter().map(|process| process.taken).sum()
        }

        fn step(&mut self, at: usize, step: &Step) {
            let process = &mut self.processes[at];
            match step {
                Step::Take => drop(process.take(LIMIT)),
                Step::GiveBack => process.give_back(),
                Step::Claim(reason) if process.claim.is_none() => {
                    process.claim = process.slots.claim(*reason, self.now);
                }
                Step::Claim(_) => {}
                Step::Write => self.write(at),
                Step::Read => self.read(at),
                Step::Lose => {
                    (process.claim, process.written) = (None, None);
                    process.slots.unanswered();
                }
                Step::Die => {
                    self.dead.push(process.desk.process());
                    *process = Process::new(OnRedisLoss::Lease);
                }
                Step::Pass => self.now += 400.milliseconds(),
            }
        }

        fn write(&mut self, at: usize) {
            let process = &mut self.processes[at];
            let Some(claim) = process.claim.as_ref().filter(|_| process.written.is_none()) else { return };
            let Amount::Total(number) = claim.amount else { return };
            process.written = Some(self.store.clone());
            let id = process.desk.process();
            self.store.retain(|(other, _)| *other != id);
            self.store.push((id, number));
        }

        fn read(&mut self, at: usize) {
            let process = &mut self.processes[at];
            let (Some(before), Some(claim)) = (process.written.take(), process.claim.take()) else { return };
            let answer = Answer { before, after: self.store.clone(), dead: self.dead.clone(), ..Answer::default() };
            process.claim = process.slots.answered(&claim, &answer, self.now);
        }

        /// A claim of one of them, from beginning to end.
        fn settle(&mut self, at: usize, reason: Reason) {
            self.step(at, &Step::Lose);
            self.claim(at, reason);
        }

        fn claim(&mut self, at: usize, reason: Reason) {
            while self.processes[at].wishes.try_recv().is_ok() {}
            self.step(at, &Step::Claim(reason));
            for _ in 0..4 {
                self.write(at);
                self.read(at);
            }
            assert!(self.processes[at].claim.is_none(), "it comes to an end");
        }

        /// What the link does in a second.
        fn second(&mut self) {
            self.now += 1.second();
            (0..self.processes.len()).for_each(|at| self.settle(at, Reason::Look));
        }

        /// One asks as a request does: again once its claim is answered.
        fn take(&mut self, at: usize, limit: u64) -> Result<(), Full> {
            match self.processes[at].take(limit) {
                Err(Full::Claiming) => {
                    let slots = Arc::clone(&self.processes[at].slots);
                    let _waits = slots.queue(9).unwrap();
                    self.settle(at, Reason::Want);
                    let taken = slots.take(limit, Asker::Waiting);
                    self.processes[at].taken += u64::from(taken.is_ok());
                    taken
                }
                done => done,
            }
        }

        fn claimed(&self) -> i64 {
            self.store.iter().filter(|(id, _)| !self.dead.contains(id)).map(|(_, number)| number & MOST).sum()
        }
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let step = prop_oneof![
            6 => Just(Step::Take),
            3 => Just(Step::GiveBack),
            3 => Just(Step::Claim(Reason::Want)),
            2 => Just(Step::Claim(Reason::Look)),
            1 => Just(Step::Claim(Reason::Tell)),
            4 => Just(Step::Write),
            4 => Just(Step::Read),
            1 => Just(Step::Lose),
            1 => Just(Step::Die),
            1 => Just(Step::Pass),
        ];
        prop::collection::vec((0..COUNT, step), 1..400)
    }

    proptest! {
        /// However the writes and reads mix, whoever dies and whichever answers are lost, no more are in use than there
        /// are; and when all is quiet nothing has leaked: any one of them has all of them.
        #[test]
        fn all_together_take_no_more_than_there_are_and_each_can_have_all(steps in steps(), last in 0..COUNT) {
            let mut fleet = Fleet::new(COUNT);
            for (at, step) in steps {
                fleet.step(at, &step);
                prop_assert!(fleet.taken() <= LIMIT, "{} are taken", fleet.taken());
            }
            for at in 0..COUNT {
                while fleet.processes[at].taken > 0 {
                    fleet.processes[at].give_back();
                }
            }
            (0..12).for_each(|_| fleet.second());
            prop_assert_eq!(fleet.claimed(), 0, "{:?}", fleet.store);
            for _ in 0..LIMIT {
                prop_assert_eq!(fleet.take(last, LIMIT), Ok(()));
            }
            prop_assert_eq!(fleet.take(last, LIMIT), Err(Full::Taken));
        }
    }

    #[test]
    fn what_lies_unused_goes_back_within_a_second_when_another_was_refused() {
        let mut fleet = Fleet::new(2);
        for _ in 0..LIMIT {
            assert_eq!(fleet.take(0, LIMIT), Ok(()));
        }
        (0..5).for_each(|_| fleet.processes[0].give_back());
        assert_eq!(fleet.take(1, LIMIT), Err(Full::Taken), "it is all in the hand of the first");
        fleet.second();
        fleet.second();
        for _ in 0..5 {
            assert_eq!(fleet.take(1, LIMIT), Ok(()));
        }
        assert_eq!(fleet.take(1, LIMIT), Err(Full::Taken));
    }

    #[test]
    fn who_uses_all_of_them_gives_up_what_is_more_than_its_share_as_it_comes_free() {
        let mut fleet = Fleet::new(2);
        for _ in 0..LIMIT {
            assert_eq!(fleet.take(0, LIMIT), Ok(()));
        }
        for _ in 0..LIMIT {
            assert_eq!(fleet.take(1, LIMIT), Err(Full::Taken));
        }
        fleet.second();
        let mut had = 0;
        for _ in 0..LIMIT {
            // One ends, and another comes to each of them.
            fleet.processes[0].give_back();
            fleet.settle(0, Reason::Want);
            had += u64::from(fleet.take(1, LIMIT).is_ok());
            let _as_far_as_it_may = fleet.take(0, LIMIT);
            fleet.now += 200.milliseconds();
            fleet.settle(1, Reason::Want);
        }
        assert!((3..=4).contains(&had), "{had}");
    }

    #[test]
    fn fewer_slots_than_nodes_go_round() {
        let mut fleet = Fleet::new(3);
        let mut had = [0; 3];
        for round in 0..60 {
            for at in (0..3).map(|at| (at + round * round / 3) % 3) {
                // Each wants its one slot all the time, whoever is the first to ask, and has it for a while.
                if fleet.processes[at].taken == 0 {
                    had[at] += u64::from(fleet.take(at, 1).is_ok());
                }
            }
            fleet.second();
            if let Some(holder) = (0..3).find(|at| fleet.processes[*at].taken > 0) {
                fleet.processes[holder].give_back();
                fleet.settle(holder, Reason::Want);
            }
            fleet.now += 200.milliseconds();
            (0..3).filter(|at| fleet.processes[*at].slots.presses()).collect::<Vec<_>>().into_iter().for_each(|at| {
                fleet.settle(at, Reason::Want);
            });
        }
        assert!(had.iter().all(|had| *had >= 10), "{had:?}");
    }

    /// A process with callers that always wait, whose requests take so long.
    struct Busy {
        waiting: usize,
        length: SignedDuration,
        /// When it asks again and looks, off the full second.
        phase: SignedDuration,
        ends: Vec<Timestamp>,
        served: u64,
    }

    impl Busy {
        fn serve(&mut self, at: usize, fleet: &mut Fleet, limit: u64) {
            let (slots, now) = (Arc::clone(&fleet.processes[at].slots), fleet.now);
            slots.waiting.store(self.waiting, Ordering::SeqCst);
            let mut is_over = false;
            while !is_over {
                // What others want goes back before anybody is called for it here.
                if fleet.processes[at].wishes.try_recv().is_ok() {
                    fleet.settle(at, Reason::Want);
                }
                while slots.take(limit, Asker::Waiting).is_ok() {
                    self.ends.push(now + self.length);
                    self.served += 1;
                }
                is_over = fleet.processes[at].wishes.is_empty();
            }
        }

        /// What happens here in a hundredth of a second.
        fn tick(&mut self, at: usize, fleet: &mut Fleet, limit: u64) {
            let is_over = |end: &Timestamp| *end <= fleet.now;
            let over = self.ends.iter().filter(|end| is_over(end)).count();
            self.ends.retain(|end| !is_over(end));
            for _ in 0..over {
                fleet.processes[at].slots.give_back();
                self.serve(at, fleet, limit);
            }
            let into = |length: i64| (fleet.now.as_millisecond() + self.phase.as_millis() as i64) % length < 10;
            for (reason, is_due) in [(Reason::Look, into(1000)), (Reason::Want, into(200))] {
                if is_due {
                    fleet.settle(at, reason);
                    self.serve(at, fleet, limit);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Where callers wait at each of several none starves, and all together serve not many fewer than one alone
        /// would.
        #[test]
        fn who_waits_has_its_turn_wherever_it_waits(
            limit in 1_u64..8,
            callers in prop::collection::vec((1_usize..5, 0_i64..100), COUNT),
            length in 10_i64..60,
        ) {
            let mut fleet = Fleet::new(COUNT);
            let hundredths = |count: i64| SignedDuration::from_millis(10 * count);
            let mut all: Vec<_> = callers.into_iter().map(|(waiting, phase)| {
                Busy { waiting, length: hundredths(length), phase: hundredths(phase), ends: Vec::new(), served: 0 }
            }).collect();
            let seconds = 40;
            for _ in 0..seconds * 100 {
                fleet.now += hundredths(1);
                all.iter_mut().enumerate().for_each(|(at, busy)| busy.tick(at, &mut fleet, limit));
                let in_use: usize = all.iter().map(|busy| busy.ends.len()).sum();
                prop_assert!(in_use as u64 <= limit);
            }
            let served: Vec<_> = all.iter().map(|busy| busy.served).collect();
            let (least, most) = (*served.iter().min().unwrap(), *served.iter().max().unwrap());
            prop_assert!(most * 2 <= least * 3, "{served:?}");
            let alone = limit * seconds * 100 / length.unsigned_abs();
            prop_assert!(served.iter().sum::<u64>() * 2 >= alone, "{served:?} of {alone}");
        }
    }

    #[tokio::test]
    async fn who_waits_keeps_its_place_over_claims_that_bring_nothing() {
        let mut fleet = Fleet::new(2);
        assert_eq!(fleet.take(0, 1), Ok(()));
        let slots = Arc::clone(&fleet.processes[1].slots);
        let wait = async || {
            let queued = slots.queue(9).unwrap();
            let take = || slots.take(1, Asker::Waiting).ok();
            queued.until(Wait::Slot, Duration::from_secs(60), take).await
        };
        let mut context = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (Box::pin(wait()), Box::pin(wait()));
        assert!(first.as_mut().poll(&mut context).is_pending());
        for _ in 0..3 {
            // Whoever of them looks first.
            assert!(second.as_mut().poll(&mut context).is_pending());
            assert!(first.as_mut().poll(&mut context).is_pending());
            fleet.claim(1, Reason::Want);
        }
        fleet.processes[0].give_back();
        fleet.claim(0, Reason::Want);
        fleet.claim(1, Reason::Want);
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(Some(())));
    }

    #[test]
    fn without_a_store_each_does_what_the_configuration_says() {
        for (policy, most) in [(OnRedisLoss::Lease, 3), (OnRedisLoss::Local, 9), (OnRedisLoss::Reject, 0)] {
            let mut process = Process::new(policy);
            process.desk.set_linked(false);
            let taken = (0..20).filter(|_| process.take(9).is_ok()).count();
            assert_eq!(taken, most, "{policy:?}: a third of nine, all, or none");
        }
        let mut process = Process::new(OnRedisLoss::Lease);
        process.desk.set_linked(false);
        assert_eq!((process.take(2), process.take(2)), (Ok(()), Err(Full::Taken)), "one at least");
        process.desk.set_linked(true);
        process.give_back();
        assert!(matches!(
            process.slots.claim(Reason::Tell, Timestamp::UNIX_EPOCH),
            Some(Claim { amount: Amount::Total(1), .. })
        ));
    }
}
