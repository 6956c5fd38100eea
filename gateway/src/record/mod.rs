//! What is known of one request: opened with its head; settled, written to the ledger, logged and counted once when it
//! is dropped, whatever happened.

mod count;
mod line;
mod row;

use std::time::{Duration, Instant};

use adapters::{Operation, Usage};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::Serialize;

use crate::access::Key;
use crate::balance::{self, Failure, Held, Moment};
use crate::bill::{Bill, Spent};
use crate::error::{Counted, Fault, Kind};
use crate::gateway::Gateway;
use crate::headers;
use crate::hedge::Which;
use crate::ledger::{Accuracy, Charge, Entry, id};
use crate::model::{Model, ModelInstance, Picked, Target};
use crate::price::{Nanos, Price};
use crate::reasons::Choices;

/// The longest id of a caller's that is taken over.
const MOST_ID: usize = 128;

/// How many tags a request may have, and how long.
const MOST_TAGS: usize = 16;
const LONGEST_TAG: usize = 64;

/// One request's record.
pub struct Record<'s> {
    gateway: &'s Gateway,
    /// The request's id, the caller's own where it gave a sane one.
    pub id: HeaderValue,
    /// The endpoint's name.
    pub route: &'static str,
    /// What was asked, for requests to a model.
    pub operation: Option<Operation>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Who asked.
    pub key: Option<&'s Key>,
    /// What for.
    pub model: Option<&'s Model>,
    /// The name that it was asked for by.
    pub asked: String,
    /// Where it went.
    pub attempts: Vec<Attempt<'s>>,
    /// Why it went there, where a target was passed over.
    pub choices: Choices,
    /// What the attempt that answered used.
    answered: Option<Spent>,
    /// The status that was sent.
    pub status: Option<StatusCode>,
    /// What went wrong.
    pub fault: Option<Fault>,
    /// What it holds and pays.
    pub bill: Bill,
    /// What its accounts are charged with, once that is done.
    paid: Option<Vec<Charge>>,
    /// Its place in the ledger, once it is noted there.
    entry: Option<Entry>,
    /// What its caller named it with.
    pub tags: Vec<String>,
    /// What its answer was cut to, so that it could be paid.
    pub limited_to: Option<u64>,
    /// Parameters that could not be carried.
    pub dropped: Option<HeaderValue>,
    /// The provider's own id of the request.
    pub provider_request_id: Option<HeaderValue>,
    /// Whether it was served to its end, well or not; else it was dropped: cut by a drain, or by a panic.
    pub finished: bool,
    /// When its head had come.
    pub began: Timestamp,
    started: Instant,
    /// When the clock was last looked at for it: the time now, for whatever does not measure.
    pub latest: Instant,
    /// How long it took, once it has ended.
    took: Option<Duration>,
    waited: Duration,
    first_content: Option<Duration>,
}

/// One attempt.
#[derive(Debug)]
pub struct Attempt<'s> {
    /// Where it went.
    pub target: &'s Target,
    /// The provider's name for the model.
    pub upstream_model: String,
    /// What it costs, as far as that is known.
    price: Option<&'s Price>,
    /// What became of it; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// What it used though it did not answer.
    spent: Option<Box<Spent>>,
    /// The provider's status, where it answered.
    status: Option<StatusCode>,
    /// Its hold on the target, until it ends.
    held: Option<Held>,
    started: Instant,
    took: Duration,
}

/// How one of two attempts lost its race.
#[derive(Clone, Copy, Debug)]
pub enum Lost<'f> {
    /// It failed.
    Failed(&'f Fault),
    /// It was slower, and had gone out or not.
    Slower {
        /// Whether it had.
        sent: bool,
    },
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub enum Outcome {
    /// It answered.
    Ok,
    /// It failed.
    Failed(Kind),
    /// Another one was faster.
    Abandoned,
}

impl Attempt<'_> {
    /// What it used, and so what that costs at its price, as far as it is known.
    fn used(&self, Counted { usage, accuracy }: Counted) -> Spent {
        Spent { usage, accuracy, cost: self.price.and_then(|price| price.cost(&usage)) }
    }
}

impl From<Outcome> for &'static str {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => "ok",
            Outcome::Failed(kind) => kind.name(),
            Outcome::Abandoned => "abandoned",
        }
    }
}

impl<'s> Record<'s> {
    /// Opens the record of a request with these headers.
    #[must_use]
    pub fn open(gateway: &'s Gateway, headers: &HeaderMap) -> Self {
        gateway.metrics.in_flight.inc();
        let (began, started) = (Timestamp::now(), Instant::now());
        Self {
            gateway,
            id: request_id(headers, began),
            route: "unknown",
            operation: None,
            stream: false,
            key: None,
            model: None,
            asked: String::new(),
            attempts: Vec::new(),
            choices: Choices::default(),
            answered: None,
            status: None,
            fault: None,
            bill: Bill::default(),
            paid: None,
            entry: None,
            tags: tags(headers),
            limited_to: None,
            dropped: None,
            provider_request_id: None,
            finished: false,
            began,
            started,
            latest: started,
            took: None,
            waited: Duration::ZERO,
            first_content: None,
        }
    }

    /// Time that passed while others were waited for; it ends now, which is told.
    pub fn waited(&mut self, since: Instant) -> Instant {
        let now = self.look_at_clock();
        self.waited += now.saturating_duration_since(since);
        now
    }

    /// The time now; it is the latest from here on.
    pub fn look_at_clock(&mut self) -> Instant {
        self.latest = Instant::now();
        self.latest
    }

    /// How long it has taken so far.
    fn took(&self) -> Duration {
        self.took.unwrap_or_else(|| self.started.elapsed())
    }

    /// Weir's own share of that.
    fn overhead(&self) -> Duration {
        self.took().saturating_sub(self.waited)
    }

    /// The same in microseconds.
    #[must_use]
    pub fn overhead_us(&self) -> u64 {
        u64::try_from(self.overhead().as_micros()).unwrap_or(u64::MAX)
    }

    /// The first content of a stream has come.
    pub fn content_begun(&mut self) {
        self.first_content.get_or_insert(self.started.elapsed());
    }

    /// An attempt begins.
    pub fn attempt(&mut self, picked: &Picked<'s>, held: Held) {
        // Mostly it is the only one, and a stream keeps it for as long as it lasts.
        self.attempts.reserve_exact(1);
        self.attempts.push(Attempt {
            target: picked.target,
            upstream_model: picked.upstream_model.as_ref().to_owned(),
            price: picked.price(self.began.into()),
            outcome: None,
            spent: None,
            status: None,
            held: Some(held),
            started: self.latest,
            took: Duration::ZERO,
        });
        self.note();
    }

    /// The attempt that was begun last is the second one there: the connection of the first was lost without an answer.
    pub fn attempt_resent(&mut self) {
        let Some(last) = self.attempts.pop() else { return };
        let (outcome, took) = (Outcome::Failed(Kind::ProviderUnreachable), Duration::ZERO);
        let Attempt { target, price, started, .. } = last;
        let upstream_model = last.upstream_model.clone();
        let lost = Attempt {
            outcome: Some(outcome),
            spent: None,
            status: None,
            held: None,
            target,
            upstream_model,
            price,
            started,
            took,
        };
        self.count_attempt(target, outcome);
        self.attempts.extend([lost, last]);
    }

    /// The attempt that was begun last has its first content, or its whole answer.
    pub fn attempt_answers(&mut self, instance: &ModelInstance<'_>) {
        if let Some(held) = self.attempts.last().and_then(|attempt| attempt.held.as_ref()) {
            let now = Moment::of(self.latest);
            held.answers(now);
            instance.went_well(held, now);
        }
    }

    /// The attempt that was begun last has ended.
    pub fn attempt_ended(&mut self, ended: Result<(), &Fault>) {
        let now = self.look_at_clock();
        let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.outcome.is_none()) else {
            return;
        };
        let outcome = ended.map_or_else(|fault| Outcome::Failed(fault.kind), |()| Outcome::Ok);
        attempt.outcome = Some(outcome);
        attempt.status = ended.map_or_else(|fault| fault.refused.map(|(status, _)| status), |()| Some(StatusCode::OK));
        attempt.took = now.saturating_duration_since(attempt.started);
        let target = attempt.target;
        let cooled = attempt.held.take().and_then(|held| held.record(told(ended), Moment::of(now)));
        self.count_attempt(target, outcome);
        if let Some(cooled) = cooled {
            self.gateway.metrics.cooldowns.with_label_values(&[cooled.cause.name()]).inc();
        }
    }

    /// The attempt that was begun last was none: the request could not be said in its target's words, and nothing was
    /// sent.
    pub fn attempt_unsaid(&mut self) {
        self.attempts.pop();
        self.bill.fail(None);
    }

    /// The attempt that was begun last has failed before it answered, and what its provider may want for it is paid.
    pub fn attempt_failed(&mut self, fault: &Fault) {
        self.attempt_ended(Err(fault));
        let spent = self.spends(fault.counted.as_deref().copied(), fault.may_cost());
        self.bill.fail(spent.as_ref());
    }

    /// What the attempt that was begun last has used without an answer: what its provider counted, else at least the
    /// input where it was given the request.
    fn spends(&mut self, counted: Option<Counted>, may_cost: bool) -> Option<Spent> {
        let attempt = self.attempts.last()?;
        let input = || may_cost.then(|| self.input_of(attempt));
        let spent = counted.map(|counted| attempt.used(counted)).or_else(input)?;
        self.attempts.last_mut()?.spent = Some(Box::new(spent));
        Some(spent)
    }

    /// What an attempt has used at least, once its provider was given the request.
    fn input_of(&self, attempt: &Attempt<'_>) -> Spent {
        let usage = Usage { input_tokens: self.bill.input_tokens(), ..Usage::default() };
        attempt.used(Counted { usage, accuracy: Accuracy::Estimated })
    }

    /// What the attempt that answers used, and so what it costs at its price, as far as that is known.
    pub fn used(&mut self, usage: Usage, accuracy: Accuracy) {
        let cost = self.attempts.last().and_then(|attempt| attempt.price?.cost(&usage));
        self.answered = Some(Spent { usage, accuracy, cost });
    }

    /// What all attempts used together, those that did not answer too.
    fn spent(&self) -> Option<Spent> {
        self.all_spent().copied().reduce(Spent::and)
    }

    fn all_spent(&self) -> impl Iterator<Item = &Spent> {
        self.answered.iter().chain(self.attempts.iter().filter_map(|attempt| attempt.spent.as_deref()))
    }

    /// What the request costs, where that is known: not where who answered has no price. What an attempt cost that did
    /// not answer and has none is not known, and left out.
    #[must_use]
    pub fn cost(&self) -> Option<Nanos> {
        match self.answered {
            Some(Spent { cost: None, .. }) => None,
            Some(_) | None => self.all_spent().filter_map(|spent| spent.cost).reduce(Nanos::saturating_add),
        }
    }

    /// Replaces what was held by what was used, which is all known: before the last byte goes out, so that whoever has
    /// read it may spend what is left.
    pub fn pay(&mut self) {
        if self.paid.is_none() {
            self.paid = Some(self.bill.settle(self.model, self.answered.as_ref(), self.cost(), self.latest));
        }
    }

    /// Pays, if that is not done, and writes the ledger's row.
    fn settle(&mut self) {
        self.pay();
        let charges = self.paid.take().unwrap_or_default();
        let Some(key) = self.key.filter(|_| self.operation.is_some()) else {
            return;
        };
        let entry = self.entry.take().unwrap_or_else(|| self.gateway.ledger.admit(row::intent(self, key)));
        entry.finish(&row::of(self, key), charges);
        self.gateway.reasons.keep(&self.id, &key.tenant.id, std::mem::take(&mut self.choices));
    }

    /// Tells the ledger what becomes of the request if nothing more is heard of it, as of now: before an attempt goes
    /// out, and before a wait.
    pub fn note(&mut self) {
        let Some(key) = self.key else { return };
        let intent = row::intent(self, key);
        match &self.entry {
            Some(entry) => entry.renew(intent),
            None => {
                let entry = self.gateway.ledger.admit(intent);
                self.entry = Some(entry);
            }
        }
    }

    /// Of the two attempts that were begun last this one has lost the race. The other one is the last from here on.
    pub fn attempt_lost(&mut self, which: Which, how: Lost<'_>) {
        let Some(before_last) = self.attempts.len().checked_sub(2) else {
            return;
        };
        if which == Which::First {
            self.attempts.swap(before_last, before_last + 1);
        }
        let spent = match how {
            Lost::Failed(fault) => {
                self.attempt_ended(Err(fault));
                self.spends(fault.counted.as_deref().copied(), fault.may_cost())
            }
            Lost::Slower { sent } => {
                self.attempt_abandoned();
                self.spends(None, sent)
            }
        };
        self.bill.lose(which, spent.as_ref());
        self.attempts.swap(before_last, before_last + 1);
    }

    /// The attempt that was begun last is needed no more, which says nothing of its target.
    fn attempt_abandoned(&mut self) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.outcome = Some(Outcome::Abandoned);
            attempt.took = attempt.started.elapsed();
            attempt.held = None;
        }
    }

    fn log(&self) {
        let written = self.gateway.access_log.line(|line| {
            line::write(self, line);
        });
        if !written {
            self.gateway.metrics.log_dropped.inc();
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.took = Some(self.started.elapsed());
        if !self.finished && self.fault.is_none() {
            let fault = if self.gateway.is_draining() { Fault::draining() } else { Fault::internal("panicked") };
            self.status.get_or_insert(fault.status);
            self.fault = Some(fault);
        }
        if let [.., first, _] = self.attempts.as_slice()
            && first.outcome.is_none()
        {
            self.attempt_lost(Which::First, Lost::Slower { sent: true });
        }
        if self.attempts.last().is_some_and(|attempt| attempt.outcome.is_none()) {
            // Cut in the middle, by a drain or a panic: its provider has very likely been asked.
            let fault = self.fault.clone().unwrap_or_else(Fault::gone);
            if self.answered.is_some() {
                self.attempt_ended(Err(&fault));
            } else {
                self.attempt_failed(&Fault { sent: true, ..fault });
            }
        }
        self.settle();
        self.gateway.metrics.in_flight.dec();
        self.count();
        if self.gateway.access_log.is_on() {
            self.log();
        }
    }
}

/// What an attempt's end says of its target.
fn told(ended: Result<(), &Fault>) -> balance::Outcome {
    let Err(fault) = ended else {
        return balance::Outcome::Success;
    };
    let failure = |cause| balance::Outcome::Failure(Failure { cause, retry_after: fault.retry_after });
    fault.cause.map_or(balance::Outcome::Nothing, failure)
}

/// A caller's id is taken over when it is a short token, so that it can stand in a header and a log as it is.
fn request_id(headers: &HeaderMap, now: Timestamp) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=MOST_ID).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
    };
    headers.get(headers::REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| new_id(now))
}

fn new_id(now: Timestamp) -> HeaderValue {
    HeaderValue::try_from(id::new(now)).unwrap_or_else(|_| HeaderValue::from_static("req_"))
}

/// What a caller names its request with, as far as it is short.
pub(crate) fn tags(headers: &HeaderMap) -> Vec<String> {
    let Some(text) = headers.get(headers::TAGS).and_then(|value| value.to_str().ok()) else {
        return Vec::new();
    };
    let tags = text.split(',').map(str::trim).filter(|tag| (1..=LONGEST_TAG).contains(&tag.len()));
    tags.take(MOST_TAGS).map(str::to_owned).collect()
}
