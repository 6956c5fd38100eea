//! One model's targets, asked one after the other until one begins to answer: which is next, what it is allowed and
//! paid, when to wait, and when to give up.

use std::pin::pin;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};

use crate::access::Key;
use crate::attempt::{self, Begun, Errand, Patience as _};
use crate::balance::{Held, Moment, Tried, Unpicked};
use crate::budget::Cause;
use crate::config::WhenAllCool;
use crate::error::{Fault, Kind};
use crate::gateway::Gateway;
use crate::headers;
use crate::hedge::{self, Hedge, Raced, Which};
use crate::limit::{Queue, Scopes};
use crate::model::{ModelInstance, Picked, Target, UpstreamName};
use crate::net::upstream::Sendings;
use crate::params::Adjusted;
use crate::reasons::{Chosen, Picking};
use crate::record::Lost;
use crate::retry::{self, Circumstances, Step, Tries};
use crate::turn::Turn;

/// A search under way.
struct Search<'a, 'c, 's> {
    gateway: &'s Gateway,
    rounds: &'a retry::Budget,
    turn: &'a mut Turn<'c, 's>,
    instance: &'a ModelInstance<'s>,
    key: &'a Key,
    adjusted: &'a Adjusted<'a>,
    /// Those of the caller's headers that a dialect may pass on.
    caller: HeaderMap,
    tries: Tries,
    tried: Tried,
    /// How long it may still wait for targets that cool.
    patience: Duration,
    /// A wait for a slot, as long as there was none yet.
    queue: Option<Queue>,
    /// When a second target is asked beside a slow one.
    hedge: Option<&'s Hedge>,
    /// What the caller is told if nothing comes of it.
    fault: Option<Fault>,
}

/// When to come again where a provider's limit is reached and nobody says for how long.
const SOON: Duration = Duration::from_secs(1);

/// When to come again where a target was away a moment ago and is not now.
const MOMENT: Duration = Duration::from_millis(1);

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
    adjusted: &Adjusted<'_>,
) -> Result<Begun, Fault> {
    let search = Search {
        gateway,
        rounds,
        tries: retries(turn.client.headers(), instance).begin(),
        caller: attempt::passed_on(turn.client.headers()),
        instance,
        key,
        adjusted,
        tried: Tried::default(),
        patience: instance.model().longest_wait,
        queue: instance.model().queue,
        hedge: instance.model().hedge.as_deref().filter(|_| !wants_one_attempt(turn.client.headers())),
        fault: None,
        turn,
    };
    let begun = search.run().await?;
    Ok(Begun { dropped: adjusted.lost(begun.dropped), ..begun })
}

impl<'s> Search<'_, '_, 's> {
    async fn run(mut self) -> Result<Begun, Fault> {
        self.turn.still_wanted()?;
        self.rounds.count(uptime(self.turn.record.latest));
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
        let now = Moment::of(record.look_at_clock());
        let bill = &record.bill;
        let turn = |target: &Target| bill.has_turn_at(&target.credential.scopes);
        // Whoever has waited goes where his turn is, and nowhere else.
        let room =
            |target: &Target| turn(target).map_or_else(|| room(target), |is_there| f32::from(u8::from(is_there)));
        let mut picked = self.instance.pick(&mut self.tried, now, room);
        if picked.is_err()
            && self.instance.model().when_all_cool == WhenAllCool::Try
            && self.instance.soonest(now).is_some()
            && let Some(least_ill) = self.instance.pick_least_ill(&mut self.tried, now, room)
        {
            picked = Ok(least_ill);
        }
        if let Err(Unpicked::Unavailable { after, limited: true }) = &mut picked {
            // No more than a guess where it was not a cooldown.
            *after = self.instance.soonest_with_room(&self.tried, now).filter(|wait| !wait.is_zero()).unwrap_or(*after);
        }
        if let Some(how) = self.tried.strayed() {
            let chosen = if picked.is_ok() { Chosen::Last(how.into()) } else { Chosen::None };
            record.choices.add(self.instance, &self.tried, chosen, room, now);
        }
        picked
    }

    /// A target beside one that is slow, if there are requests enough to pay for it.
    fn pick_beside(&mut self, hedge: &Hedge) -> Option<(Picked<'s>, Held)> {
        let now = Moment::now();
        if !hedge.spend() {
            return None;
        }
        let Ok(picked) = self.instance.pick(&mut self.tried, now, room) else {
            hedge.give_back();
            return None;
        };
        self.tried.strayed();
        self.turn.record.choices.add(self.instance, &self.tried, Chosen::Last(Picking::Hedge), room, now);
        Some(picked)
    }

    /// Asks a target, if its credential and the caller's budgets allow it.
    async fn ask(&mut self, picked: &Picked<'s>, held: Held) -> Asked {
        let is_new = self.turn.record.bill.has_turn_at(&picked.target.credential.scopes).is_none();
        let payable = match self.turn.record.bill.afford(self.key, picked, &self.adjusted.request).await {
            Ok(payable) => payable,
            Err(refused) => {
                if is_new && refused.kind == Kind::ProviderLimit {
                    self.tried.lose();
                }
                self.fault.get_or_insert(refused);
                return Asked::Failed(Step::Next);
            }
        };
        self.turn.record.limited_to = payable.limited_to;
        self.turn.record.attempt(picked, held);
        self.turn.on_disconnect = picked.target.provider.on_disconnect;
        let caller = std::mem::take(&mut self.caller);
        let Self { instance, adjusted, .. } = *self;
        let most = if self.hedge.is_none() && self.tries.are_left() { 2 } else { 1 };
        let sendings = &Sendings::at_most(most);
        let errand = Errand { picked, instance, request: &payable.request, adjusted, caller: &caller, sendings };
        let asked = match self.hedge {
            None => attempt::run(&self.gateway.upstreams, self.turn, &errand).await,
            // Boxed, as all that is rare here: every request's future would have room for it.
            Some(hedge) => Box::pin(self.hedged(hedge, &errand)).await,
        };
        self.caller = caller;
        if sendings.were_two() {
            self.tries.count();
            self.turn.record.attempt_resent();
        }
        match asked {
            Ok(begun) => {
                self.turn.record.attempt_answers(self.instance);
                Asked::Begun(Box::new(begun))
            }
            Err(failed) => Asked::Failed(self.failed(match picked.target.model {
                UpstreamName::Fixed(_) => failed.of_configured_model(),
                UpstreamName::Filled(_) => failed,
            })),
        }
    }

    fn failed(&mut self, mut failed: Fault) -> Step {
        let longest = self.instance.balance().longest_cooldown();
        failed.retry_after = failed.retry_after.map(|after| after.min(longest));
        if failed.kind == Kind::CallerRequest && failed.refused.is_none() {
            self.turn.record.attempt_unsaid();
        } else {
            self.turn.record.attempt_failed(&failed);
        }
        if failed.is_targets_lack() {
            self.fault.get_or_insert(failed);
            return Step::Next;
        }
        let step = self.tries.after(&failed);
        self.fault = Some(worse(self.fault.take(), failed));
        if self.turn.is_over() { Step::GiveUp } else { step }
    }

    /// Asks a target and, when it is slow, a second one beside it.
    async fn hedged(&mut self, hedge: &Hedge, errand: &Errand<'_, 's>) -> Result<Begun, Fault> {
        hedge.count();
        let upstreams = &self.gateway.upstreams;
        let given_up = |fault: Fault| fault.of_sent(errand.sendings.have_begun());
        let mut first = pin!(hedge::alone(upstreams, errand));
        let alone = self.turn.wait(pin!(tokio::time::timeout(hedge.after, &mut first))).await;
        if let Ok(asked) = alone.map_err(given_up)? {
            return asked;
        }
        let Some((picked, held)) = self.pick_beside(hedge) else {
            return self.turn.wait(first).await.map_err(given_up)?;
        };
        let Ok(payable) = self.turn.record.bill.afford_beside(self.key, &picked, errand.request).await else {
            hedge.give_back();
            return self.turn.wait(first).await.map_err(given_up)?;
        };
        self.turn.record.attempt(&picked, held);
        let sendings = &Sendings::at_most(1);
        let beside = Errand { picked: &picked, request: &payable.request, sendings, ..*errand };
        let second = pin!(hedge::alone(upstreams, &beside));
        let slower = |sendings: &Sendings| Lost::Slower { sent: sendings.have_begun() };
        match self.turn.wait(pin!(hedge::race(first, second))).await {
            Ok(Raced { won, answer, failed }) => {
                let lost = match won {
                    Which::First => sendings,
                    Which::Second => errand.sendings,
                };
                self.turn.record.attempt_lost(won.other(), failed.as_ref().map_or_else(|| slower(lost), Lost::Failed));
                answer
            }
            Err(fault) => {
                self.turn.record.attempt_lost(Which::First, slower(errand.sendings));
                Err(fault.of_sent(sendings.have_begun()))
            }
        }
    }

    /// Waits for a slot, or before a new round, where there is something to wait for.
    async fn wait(&mut self, unpicked: Unpicked) -> Result<bool, Fault> {
        if self.turn_comes().await? {
            return Ok(true);
        }
        let circumstances = self.circumstances();
        let again = self.fault.as_ref().and_then(|fault| self.tries.again(fault, circumstances));
        let again = again.filter(|_| self.rounds.spend(uptime(Instant::now())));
        let Some(wait) = again.or_else(|| self.until_the_first_is_back()) else {
            let fault = self.fault.take().or_else(|| self.unusable(unpicked));
            self.fault = Some(unavailable(fault, unpicked));
            return Ok(false);
        };
        self.turn.record.note();
        self.turn.timer.phase(None, "pause");
        self.turn.wait(pin!(tokio::time::sleep(wait))).await?;
        self.tried.forget();
        Ok(true)
    }

    /// How long until the first target is back, where all cool and that is to be waited for. No longer than what is
    /// left of the longest wait and of the request's time; where an attempt failed it must have done nothing that was
    /// asked.
    fn until_the_first_is_back(&mut self) -> Option<Duration> {
        let is_safe = self.fault.as_ref().is_none_or(|fault| fault.kind == Kind::ProviderLimit && !fault.begun);
        if self.instance.model().when_all_cool != WhenAllCool::Wait || !is_safe || self.tries.are_over() {
            return None;
        }
        let wait = self.until_it_may_be_asked(Moment::now())?;
        self.patience = self.patience.checked_sub(wait)?;
        if self.turn.timer.left().is_some_and(|left| left <= wait) {
            return None;
        }
        self.turn.record.choices.waited(self.instance, wait);
        Some(wait)
    }

    /// That, or but a moment where one has become well since none could be picked; `None` where it is not for a cooldown
    /// that none could.
    fn until_it_may_be_asked(&self, now: Moment) -> Option<Duration> {
        let is_back = || self.instance.soonest_with_room(&self.tried, now).is_some_and(|wait| wait.is_zero());
        self.instance.soonest(now).or_else(|| is_back().then_some(MOMENT))
    }

    /// Why the caller may use none of the model's targets, where that is so.
    fn unusable(&self, unpicked: Unpicked) -> Option<Fault> {
        let fault = self.instance.status().fault(self.instance.asked());
        // None was left and none was tried: all are the operator's, and a quota was spent until just now.
        let is_spent = unpicked == Unpicked::Exhausted && !self.instance.model().targets.is_empty();
        fault.or_else(|| is_spent.then(|| Fault::quota_exceeded(Cause::Spent)))
    }

    /// Waits for a slot of whichever target comes free first, of those where only a limit is in the way; false where
    /// there is none, or the wait was in vain.
    async fn turn_comes(&mut self) -> Result<bool, Fault> {
        self.turn.record.bill.pass_turn();
        let busy = self.instance.busy(&self.tried, Moment::now());
        let Some(queue) = self.queue.take_if(|_| !busy.is_empty()) else {
            return Ok(false);
        };
        self.turn.record.note();
        self.turn.timer.phase(None, "queue");
        let since = Instant::now();
        let Some((scopes, permit)) = self.turn.wait(pin!(Scopes::admit_at_first(&busy, queue))).await? else {
            return Ok(false);
        };
        // What it comes to there may be a limit or a cooldown of that moment.
        self.queue = queue.after(since.elapsed());
        self.turn.record.bill.queued(scopes, permit);
        self.tried.find_lost();
        Ok(true)
    }

    fn circumstances(&self) -> Circumstances {
        let ready = self.instance.soonest(Moment::now()).unwrap_or_default();
        Circumstances { ready, left: self.turn.timer.left(), chance: rand::random() }
    }

    /// What the caller is told when nothing came of it.
    fn told(self) -> Fault {
        if self.turn.has_left() {
            return Fault::gone();
        }
        let mut fault = self.fault.unwrap_or_else(|| Fault::internal("a model without targets"));
        if fault.kind == Kind::ProviderLimit && fault.retry_after.is_none() {
            fault.retry_after = self.instance.soonest(Moment::now()).or(Some(SOON));
        }
        fault
    }
}

/// How long the process has run then.
fn uptime(then: Instant) -> Duration {
    Moment::of(then).since(Moment::NEVER)
}

/// What a target's own limits have left, from 0 to 1.
pub(crate) fn room(target: &Target) -> f32 {
    let scopes = &target.credential.scopes;
    if scopes.is_empty() {
        return 1.0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a share needs few digits")]
    let room = (1.0 - scopes.load(Instant::now())) as f32;
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
        Some(fault) if !fault.is_targets_lack() => fault,
        Some(_) | None => Fault::unavailable(after, limited),
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

/// How often the targets are tried: as the model says, unless its caller wants one attempt.
pub(crate) fn retries(caller: &HeaderMap, instance: &ModelInstance<'_>) -> retry::Policy {
    if wants_one_attempt(caller) { retry::Policy::NONE } else { instance.model().retries }
}

fn wants_one_attempt(caller: &HeaderMap) -> bool {
    caller.get(headers::NO_RETRY).is_some_and(|value| !is_false(value))
}

fn is_false(value: &HeaderValue) -> bool {
    matches!(value.as_bytes(), b"0" | b"false")
}
