//! Why a request went where it went, where that was no plain choice: a target was passed over, related requests went there,
//! another model took over. Kept in memory for the last such requests, for whoever asks soon; a request whose first choice
//! was free costs nothing here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::balance::{Availability, Candidate, How, Moment, Tried};
use crate::error::{Cause, Kind};
use crate::model::{ModelInstance, Target};

/// So many requests are remembered: some MiB at the most, whatever they were.
const MOST_REQUESTS: usize = 1_000;

/// So many choices of one request; the first ones tell the most.
const MOST_CHOICES: usize = 8;

/// So many candidates of one choice; it is made while a caller waits.
const MOST_CANDIDATES: usize = 16;

/// The last requests that passed a target over.
#[derive(Debug, Default)]
pub struct Reasons {
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    id: HeaderValue,
    tenant: String,
    choices: Choices,
}

impl Reasons {
    /// Keeps a request's choices, if there are any, in the place of the oldest request's.
    pub fn keep(&self, id: &HeaderValue, tenant: &str, choices: Choices) {
        if choices.0.is_empty() {
            return;
        }
        let kept = Kept { id: id.clone(), tenant: tenant.to_owned(), choices };
        let mut all = self.kept();
        let oldest = if all.len() < MOST_REQUESTS { None } else { all.pop_front() };
        all.push_back(kept);
        // Freed without the lock.
        drop(all);
        drop(oldest);
    }

    /// The choices of the newest request of that id, of that tenant's where one is named.
    #[must_use]
    pub fn of(&self, id: &str, tenant: Option<&str>) -> Option<Choices> {
        let wanted =
            |kept: &&Kept| kept.id.as_bytes() == id.as_bytes() && tenant.is_none_or(|tenant| kept.tenant == tenant);
        self.kept().iter().rev().find(wanted).map(|kept| kept.choices.clone())
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What turned one request's way, in order.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Choices(Vec<Turning>);

impl Choices {
    /// Adds the choice that was made last with `tried`.
    pub fn add(
        &mut self,
        instance: &ModelInstance<'_>,
        tried: &Tried,
        chosen: Chosen,
        room: impl Fn(&Target) -> f32,
        now: Moment,
    ) {
        let is_choice = instance.balance().candidates().len() > 1;
        if is_choice && self.has_room() {
            self.0.push(Turning::Choice(Choice::of(instance, tried, chosen, room, now)));
        }
    }

    /// The model `to` answers in the place of `from`.
    pub fn took_over(&mut self, to: &str, from: &str, because: Because) {
        if self.has_room() {
            let (model, from) = (to.to_owned(), from.to_owned());
            self.0.push(Turning::TookOver { at: Timestamp::now(), model, took_over_from: from, because });
        }
    }

    /// All of a model's targets cool, and the request waits for the first that is back.
    pub fn waited(&mut self, instance: &ModelInstance<'_>, wait: Duration) {
        if self.has_room() {
            let (model, waits_ms) = (instance.asked().to_owned(), wait.as_millis());
            self.0.push(Turning::Wait { at: Timestamp::now(), model, waits_ms });
        }
    }

    fn has_room(&self) -> bool {
        self.0.len() < MOST_CHOICES
    }
}

/// Whether a target was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The one that was tried last.
    Last(Picking),
    /// None.
    None,
}

/// How a target came to be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Picking {
    /// By the policy, among those that were usable.
    Turn,
    /// It was kept where related requests went.
    Kept,
    /// It was asked beside a slow one.
    Hedge,
    /// All cooled, and it was the soonest to be well.
    LeastIll,
}

impl From<How> for Picking {
    fn from(how: How) -> Self {
        match how {
            How::Turn => Self::Turn,
            How::Kept => Self::Kept,
            How::LeastIll => Self::LeastIll,
        }
    }
}

/// Why another model took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// A budget is low, and names that model.
    LowBudget,
    /// The one before it failed so.
    Failed(Kind),
}

impl Serialize for Because {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Self::LowBudget => "low_budget",
            Self::Failed(kind) => kind.name(),
        })
    }
}

/// Where a request could have gone another way.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Turning {
    Choice(Choice),
    TookOver {
        #[schemars(with = "String")]
        at: Timestamp,
        model: String,
        took_over_from: String,
        #[schemars(with = "String")]
        because: Because,
    },
    Wait {
        #[schemars(with = "String")]
        at: Timestamp,
        model: String,
        waits_ms: u128,
    },
}

/// One choice among a model's targets.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Choice {
    #[schemars(with = "String")]
    at: Timestamp,
    model: String,
    #[schemars(with = "Option<String>")]
    picked: Option<Name>,
    /// How; `null` where none was.
    how: Option<Picking>,
    passed_over: Vec<PassedOver>,
    /// How many candidates are not told of.
    more: usize,
}

/// A candidate that was not picked.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct PassedOver {
    #[schemars(with = "String")]
    target: Name,
    tier: u32,
    #[serde(flatten)]
    why: Why,
}

/// A target's stable name.
#[derive(Clone, Debug)]
struct Name(Arc<str>);

impl Name {
    fn of(candidate: &Candidate) -> Self {
        Self(candidate.standing.name())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// Why it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
enum Why {
    /// This request had tried it.
    Tried,
    /// It is left out for a while.
    Cooling {
        /// What failed.
        cause: Option<Cause>,
        /// Whether another gateway found that.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        elsewhere: bool,
        /// Since when.
        #[schemars(with = "Option<String>")]
        since: Option<Timestamp>,
        /// Until when.
        #[schemars(with = "Option<String>")]
        until: Option<Timestamp>,
    },
    /// One request is under way to see whether it is well again.
    Probing,
    /// A limit of its credential is reached.
    Limit,
    /// It is the operator's, and the tenant has no quota left for it.
    Quota,
    /// The caller named another credential.
    NotWanted,
    /// Its tier was not come to.
    HigherTier,
    /// Of the operator's and the tenant's own credentials, the others come first.
    NotPreferred,
    /// Its weight is 0, and another of its tier was free.
    NoWeight,
    /// It was free, and by its weight or the model's policy it was another's turn.
    NotItsTurn,
}

impl Choice {
    fn of(
        instance: &ModelInstance<'_>,
        tried: &Tried,
        chosen: Chosen,
        room: impl Fn(&Target) -> f32,
        now: Moment,
    ) -> Self {
        let candidates = instance.balance().candidates();
        let how = match chosen {
            Chosen::Last(how) => Some(how),
            Chosen::None => None,
        };
        let place = tried.last().filter(|_| how.is_some());
        // What is kept is so however the others stand.
        let most = if how == Some(Picking::Kept) { 0 } else { MOST_CANDIDATES };
        let picked = place.and_then(|place| candidates.get(place));
        let clock = Clock { moment: now, time: Timestamp::now() };
        let all = instance.model().targets.iter().zip(candidates).enumerate();
        let others = all.filter(|(other, _)| Some(*other) != place).take(most);
        let passed_over = others.map(|(other, (target, candidate))| {
            let is_full = || room(target) <= 0.0;
            let why = match () {
                () if tried.has(other) => Why::Tried,
                () if !instance.is_wanted(target) => Why::NotWanted,
                () if !instance.may_use(target) => Why::Quota,
                () => why(candidate, picked, is_full, clock),
            };
            PassedOver { target: Name::of(candidate), tier: candidate.tier, why }
        });
        let passed_over: Vec<_> = passed_over.collect();
        Self {
            at: clock.time,
            model: instance.asked().to_owned(),
            picked: picked.map(Name::of),
            how,
            more: candidates.len().saturating_sub(passed_over.len()).saturating_sub(usize::from(picked.is_some())),
            passed_over,
        }
    }
}

fn why(candidate: &Candidate, picked: Option<&Candidate>, is_full: impl Fn() -> bool, clock: Clock) -> Why {
    match candidate.standing.availability(clock.moment) {
        Availability::Cooling(until) => {
            let cooldown = candidate.standing.cooldown();
            let since = cooldown.and_then(|cooldown| clock.time_of(cooldown.since));
            Why::Cooling {
                cause: cooldown.map(|cooldown| cooldown.cause),
                elsewhere: cooldown.is_some_and(|cooldown| cooldown.elsewhere),
                since,
                until: clock.time_of(until),
            }
        }
        Availability::Probing => Why::Probing,
        Availability::Ready | Availability::Probe if is_full() => Why::Limit,
        Availability::Ready | Availability::Probe => match picked {
            Some(picked) if candidate.tier > picked.tier => Why::HigherTier,
            Some(picked) if candidate.rank > picked.rank => Why::NotPreferred,
            Some(picked) if candidate.weight == 0 && picked.weight > 0 => Why::NoWeight,
            Some(_) | None => Why::NotItsTurn,
        },
    }
}

/// One time on both clocks.
#[derive(Clone, Copy)]
struct Clock {
    moment: Moment,
    time: Timestamp,
}

impl Clock {
    fn time_of(self, moment: Moment) -> Option<Timestamp> {
        let later = self.time.checked_add(moment.since(self.moment)).ok()?;
        later.checked_sub(self.moment.since(moment)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(model: &str) -> Choices {
        let (at, model) = (Timestamp::UNIX_EPOCH, model.to_owned());
        Choices(vec![Turning::Wait { at, model, waits_ms: 1 }])
    }

    fn model_of(reasons: &Reasons, id: &str, tenant: Option<&str>) -> Option<String> {
        match reasons.of(id, tenant)?.0.first()? {
            Turning::Wait { model, .. } => Some(model.clone()),
            Turning::Choice(_) | Turning::TookOver { .. } => None,
        }
    }

    #[test]
    fn the_oldest_request_makes_room_and_one_without_choices_takes_none() {
        let reasons = Reasons::default();
        reasons.keep(&HeaderValue::from_static("a"), "acme", choices("first"));
        reasons.keep(&HeaderValue::from_static("b"), "acme", Choices::default());
        assert_eq!(model_of(&reasons, "b", None), None);
        for number in 1..MOST_REQUESTS {
            reasons.keep(&HeaderValue::from(number), "acme", choices("m"));
        }
        assert_eq!(model_of(&reasons, "a", None).as_deref(), Some("first"));
        reasons.keep(&HeaderValue::from_static("c"), "acme", choices("last"));
        assert_eq!(model_of(&reasons, "a", None), None);
        assert_eq!(model_of(&reasons, "c", None).as_deref(), Some("last"));
    }

    #[test]
    fn of_two_requests_with_one_id_the_tenants_own_is_told() {
        let reasons = Reasons::default();
        for tenant in ["acme", "other"] {
            reasons.keep(&HeaderValue::from_static("a"), tenant, choices(tenant));
        }
        assert_eq!(model_of(&reasons, "a", Some("acme")).as_deref(), Some("acme"));
        assert_eq!(model_of(&reasons, "a", None).as_deref(), Some("other"));
    }

    #[test]
    fn a_moment_before_and_after_now_has_its_time() {
        let second = std::time::Duration::from_secs(1);
        let moment = Moment::NEVER.plus(second * 10);
        let clock = Clock { moment, time: Timestamp::UNIX_EPOCH };
        assert_eq!(clock.time_of(moment.plus(second)).map(Timestamp::as_second), Some(1));
        assert_eq!(clock.time_of(Moment::NEVER.plus(second * 9)).map(Timestamp::as_second), Some(-1));
    }
}
