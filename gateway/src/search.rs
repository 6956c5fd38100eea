//! One model's targets, asked one after the other until one begins to answer: which is next, what it is allowed and paid,
//! when to wait, and when to give up.

use std::pin::pin;
use std::time::{Duration, Instant};

use adapters::Request;
use http::{HeaderMap, HeaderValue};

use crate::access::Key;
use crate::attempt::{self, Begun, Errand, Patience as _};
use crate::balance::{Held, Moment, Tried, Unpicked};
use crate::error::{Fault, Kind};
use crate::gateway::Gateway;
use crate::headers;
use crate::hedge::{self, Hedge, Raced};
use crate::limit::Queue;
use crate::model::{ModelInstance, Picked, Target};
use crate::reasons::Chosen;
use crate::retry::{self, Circumstances, Step, Tries};
use crate::turn::Turn;

/// A search under way.
struct Search<'a, 'c, 's> {
    gateway: &'s Gateway,
    rounds: &'a retry::Budget,
    turn: &'a mut Turn<'c, 's>,
    instance: &'a ModelInstance<'s>,
    key: &'a Key,
    request: &'a Request,
    /// Those of the caller's headers that a dialect may pass on.
    caller: HeaderMap,
    tries: Tries,
    tried: Tried,
    /// A wait for a slot, as long as there was none yet.
    queue: Option<Queue>,
    /// What the caller is told if nothing comes of it.
    fault: Option<Fault>,
}

/// What became of a target that was picked.
enum Asked {
    Begun(Box<Begun>),
    Failed(Step),
}

/// The first answer of `instance`.
///
/// # Errors
/// What the last of its targets failed with, or why none could be asked.
pub async fn first_answer<'s>(
    gateway: &'s Gateway,
    rounds: &retry::Budget,
    turn: &mut Turn<'_, 's>,
    instance: &ModelInstance<'s>,
    key: &Key,
    request: &Request,
) -> Result<Begun, Fault> {
    let search = Search {
        gateway,
        rounds,
        tries: retries(turn, instance).begin(),
        caller: attempt::passed_on(turn.client.headers()),
        turn,
        instance,
        key,
        request,
        tried: Tried::default(),
        queue: instance.model().queue,
        fault: None,
    };
    search.run().await
}

impl<'s> Search<'_, '_, 's> {
    async fn run(mut self) -> Result<Begun, Fault> {
        self.rounds.count(uptime());
        loop {
            match self.pick() {
                Ok((picked, held)) => match self.ask(&picked, held).await {
                    Asked::Begun(begun) => return Ok(*begun),
                    Asked::Failed(Step::Next) => {}
                    Asked::Failed(Step::GiveUp) => break,
                },
                Err(unpicked) => {
                    if !Box::pin(self.wait(unpicked)).await? {
                        break;
                    }
                }
            }
        }
        Err(self.told())
    }

    fn pick(&mut self) -> Result<(Picked<'s>, Held), Unpicked> {
        let record = &mut *self.turn.record;
        let bill = &record.bill;
        let room = |target: &Target| if bill.has_turn_at(&target.credential.scopes) { 1.0 } else { room(target) };
        let now = Moment::now();
        let picked = self.instance.pick(&mut self.tried, now, room);
        if self.tried.has_strayed() {
            let chosen = if picked.is_ok() { Chosen::Last } else { Chosen::None };
            record.choices.add(self.instance, &self.tried, chosen, room, now);
        }
        picked
    }

    /// Asks a target, if its credential and the caller's budgets allow it.
    async fn ask(&mut self, picked: &Picked<'s>, held: Held) -> Asked {
        let payable = match self.turn.record.bill.afford(self.key, picked, self.request).await {
            Ok(payable) => payable,
            Err(refused) => {
                self.fault.get_or_insert(refused);
                return Asked::Failed(Step::Next);
            }
        };
        self.turn.record.limited_to = payable.limited_to;
        self.turn.record.attempt(picked, held);
        self.turn.on_disconnect = picked.target.provider.on_disconnect;
        let caller = std::mem::take(&mut self.caller);
        let errand = Errand { picked, instance: self.instance, request: &payable.request, caller: &caller };
        let asked = match &self.instance.model().hedge {
            None => attempt::run(&self.gateway.upstreams, self.turn, &errand).await,
            // Boxed, as all that is rare here: every request's future would have room for it.
            Some(hedge) => Box::pin(self.hedged(hedge, &errand)).await,
        };
        self.caller = caller;
        match asked {
            Ok(begun) => {
                self.turn.record.attempt_answers(self.instance);
                Asked::Begun(Box::new(begun))
            }
            Err(failed) => Asked::Failed(self.failed(failed)),
        }
    }

    fn failed(&mut self, failed: Fault) -> Step {
        self.turn.record.attempt_ended(Err(&failed));
        // What is cut off has a cost, which is settled at the request's end.
        if !failed.cuts_off() {
            self.turn.record.bill.give_back();
        }
        let step = self.tries.after(&failed);
        self.fault = Some(worse(self.fault.take(), failed));
        if self.turn.is_over() { Step::GiveUp } else { step }
    }

    /// Asks a target and, when it is slow, a second one beside it.
    async fn hedged(&mut self, hedge: &Hedge, errand: &Errand<'_, 's>) -> Result<Begun, Fault> {
        hedge.count();
        let upstreams = &self.gateway.upstreams;
        let mut first = pin!(hedge::alone(upstreams, errand));
        if let Ok(asked) = self.turn.wait(pin!(tokio::time::timeout(hedge.after, &mut first))).await? {
            return asked;
        }
        let beside = if hedge.spend() { self.instance.pick(&mut self.tried, Moment::now(), room).ok() } else { None };
        let Some((picked, held)) = beside else {
            return self.turn.wait(first).await?;
        };
        let Ok(payable) = self.turn.record.bill.afford_beside(self.key, &picked, errand.request).await else {
            return self.turn.wait(first).await?;
        };
        self.turn.record.attempt(&picked, held);
        let beside = Errand { picked: &picked, request: &payable.request, ..*errand };
        let second = pin!(hedge::alone(upstreams, &beside));
        let Raced { won, answer, failed } = self.turn.wait(pin!(hedge::race(first, second))).await?;
        self.turn.record.attempt_lost(won.other(), failed.as_ref());
        self.turn.record.bill.lose(won.other());
        answer
    }

    /// Waits for a slot, or before a new round, where there is something to wait for.
    async fn wait(&mut self, unpicked: Unpicked) -> Result<bool, Fault> {
        if let Some(queue) = self.queue.take()
            && self.turn_comes(queue).await?
        {
            return Ok(true);
        }
        let circumstances = self.circumstances();
        let again = self.fault.as_ref().and_then(|fault| self.tries.again(fault, circumstances));
        let Some(wait) = again.filter(|_| self.rounds.spend(uptime())) else {
            let fault = self.fault.take().or_else(|| self.instance.status().fault(self.instance.asked()));
            self.fault = Some(unavailable(fault, unpicked));
            return Ok(false);
        };
        self.turn.timer.phase(None, "pause");
        self.turn.wait(pin!(tokio::time::sleep(wait))).await?;
        self.tried.forget();
        Ok(true)
    }

    /// Waits until a credential whose limits are all that keeps a target from being asked has a slot for this request; false
    /// where there is none, or the wait was in vain.
    async fn turn_comes(&mut self, queue: Queue) -> Result<bool, Fault> {
        let Some(scopes) = self.instance.busy(room) else {
            return Ok(false);
        };
        self.turn.timer.phase(None, "queue");
        let admitted = self.turn.wait(pin!(scopes.admit_in_turn(queue))).await?;
        Ok(admitted.map(|permit| self.turn.record.bill.queued(scopes, permit)).is_ok())
    }

    fn circumstances(&self) -> Circumstances {
        let ready = self.instance.balance().soonest(Moment::now()).unwrap_or_default();
        Circumstances { ready, left: self.turn.timer.left(), chance: rand::random() }
    }

    /// What the caller is told when nothing came of it.
    fn told(self) -> Fault {
        if self.turn.has_left() {
            return Fault::gone();
        }
        let mut fault = self.fault.unwrap_or_else(|| Fault::internal("a model without targets"));
        if fault.kind == Kind::ProviderLimit && fault.retry_after.is_none() {
            fault.retry_after = self.instance.balance().soonest(Moment::now());
        }
        fault
    }
}

/// How long the process has run.
fn uptime() -> Duration {
    Moment::now().since(Moment::NEVER)
}

/// What a target's own limits have left, from 0 to 1.
pub(crate) fn room(target: &Target) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a share needs few digits")]
    let room = (1.0 - target.credential.scopes.load(Instant::now())) as f32;
    room.max(0.0)
}

/// What the caller is told when no other target may be asked now: what the one before it failed with, if any was asked.
pub(crate) fn unavailable(before: Option<Fault>, unpicked: Unpicked) -> Fault {
    let Unpicked::Unavailable { after, limited } = unpicked else {
        return before.unwrap_or_else(|| Fault::internal("a model without targets"));
    };
    match before {
        Some(fault) if fault.kind == Kind::ProviderLimit => {
            Fault { retry_after: Some(fault.retry_after.map_or(after, |told| told.min(after))), ..fault }
        }
        Some(fault) => fault,
        None => Fault::unavailable(after, limited),
    }
}

/// The last failure is what the caller is told; of limits the one that ends the soonest.
fn worse(before: Option<Fault>, mut last: Fault) -> Fault {
    if let Some(before) = before.filter(|before| before.kind == Kind::ProviderLimit && last.kind == Kind::ProviderLimit)
    {
        last.retry_after = match (before.retry_after, last.retry_after) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    last
}

fn retries(turn: &Turn<'_, '_>, instance: &ModelInstance<'_>) -> retry::Policy {
    let refused = turn.client.headers().get(headers::NO_RETRY).is_some_and(|value| !is_false(value));
    if refused { retry::Policy::NONE } else { instance.model().retries }
}

fn is_false(value: &HeaderValue) -> bool {
    matches!(value.as_bytes(), b"0" | b"false")
}
