//! What an explanation tells: as JSON for machines, as text for people. Secrets are masked here.

use std::fmt;

use adapters::NativeRequest;
use http::{HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde::Serialize;

use crate::attempt;
use crate::budget::{self, Span};
use crate::config::{self, Balance, Fallbacks, ModelType, WhenAllCool};
use crate::error::{Dialect, Fault};
use crate::ledger::{dollars, dollars_text};
use crate::limit;
use crate::model::{ModelInstance, Picked};
use crate::params::Change;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// What would become of a request.
#[derive(Debug, Default, Serialize)]
pub struct Explanation {
    /// The path of the endpoint.
    pub(super) endpoint: String,
    pub(super) tenant: Option<String>,
    pub(super) key: Option<String>,
    /// What the caller names its request with, for the ledger.
    pub(super) tags: Vec<String>,
    pub(super) model: Option<ModelTold>,
    pub(super) limits: Vec<Scope>,
    pub(super) budgets: Vec<Account>,
    pub(super) quotas: Vec<Quota>,
    /// In the order in which they would be tried; those that are excluded stand last.
    pub(super) candidates: Vec<Candidate>,
    /// What the model changes of the request, whoever gets it.
    pub(super) params: Vec<Change>,
    /// What the chosen target does not take.
    pub(super) dropped: Vec<Dropped>,
    /// What the answer is cut to, so that it can be paid.
    pub(super) limited_to: Option<u64>,
    pub(super) request: Option<Outgoing>,
    /// What the caller would be told instead of an answer.
    pub refused: Option<Refusal>,
    /// How long it may take in all.
    pub(super) total: Option<config::Duration>,
    pub(super) notes: Vec<String>,
}

/// The model.
#[derive(Debug, Serialize)]
pub(super) struct ModelTold {
    pub(super) asked: String,
    pub(super) name: String,
    /// By what it was found.
    pub(super) resolved: &'static str,
    #[serde(rename = "type")]
    pub(super) model_type: Option<ModelType>,
    pub(super) balance: Balance,
    pub(super) retries: u32,
    pub(super) fallbacks: Fallbacks,
    /// What keeps related requests at one target.
    pub(super) affinity: Vec<String>,
    /// By which of it, or by what its caller says, this request is related to others.
    pub(super) related_by: Option<String>,
    /// After how long a second target is asked beside the first.
    pub(super) hedge: Option<config::Duration>,
    /// What becomes of the request when every target cools.
    pub(super) when_all_cool: WhenAllCool,
}

/// A limit that holds.
#[derive(Debug, Serialize)]
pub(super) struct Scope {
    id: String,
    rpm: Option<u64>,
    tpm: Option<u64>,
    concurrent: Option<u64>,
}

impl Scope {
    pub(super) fn of(scope: &limit::Scope) -> Self {
        let limit::Limits { rpm, tpm, concurrent } = scope.limits();
        Self { id: scope.id().text().to_string(), rpm, tpm, concurrent }
    }
}

/// A budget that holds.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    id: String,
    #[serde(serialize_with = "dollars")]
    usd: Option<i64>,
    /// The most that this request can cost.
    #[serde(serialize_with = "dollars")]
    reserved_usd: Option<i64>,
    resets_at: Option<Timestamp>,
    on_exhaust: Option<String>,
}

impl Account {
    pub(super) fn of(account: &budget::Account, now: Timestamp) -> Self {
        let reading = account.reading(now);
        let ends = matches!(account.terms().span, Span::Every(..)).then(|| reading.window.ends_at()).flatten();
        Self {
            id: account.id().to_string(),
            usd: Some(reading.limit),
            reserved_usd: Some(reading.reserved),
            resets_at: ends,
            on_exhaust: account.terms().instead.as_ref().map(ToString::to_string),
        }
    }
}

/// A quota of the tenant's.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Quota {
    id: String,
    /// `null`: without end.
    limit: Option<i64>,
    reserved: i64,
}

impl Quota {
    pub(super) fn of(account: &budget::Account, now: Timestamp) -> Self {
        let reading = account.reading(now);
        let limit = Some(reading.limit).filter(|limit| *limit < i64::MAX);
        Self { id: account.id().to_string(), limit, reserved: reading.reserved }
    }
}

/// A place where the request could go.
#[derive(Debug, Serialize)]
pub(super) struct Candidate {
    provider: String,
    credential: Option<String>,
    upstream_model: String,
    tier: u32,
    /// The part of the model's requests that go there while all is well, from 0 to 1.
    share: f64,
    /// What the provider allows its credential.
    limits: Vec<Scope>,
    verdict: &'static str,
    why: String,
}

/// What becomes of a candidate.
pub(super) enum Verdict {
    /// The request goes there.
    Chosen,
    /// It goes there when those before fail.
    Next,
    /// It cannot go there.
    Refused(String),
}

impl Candidate {
    pub(super) fn picked(picked: &Picked<'_>, instance: &ModelInstance<'_>, shares: &[f64], verdict: Verdict) -> Self {
        let target = picked.target;
        let place = instance.model().targets.iter().position(|known| std::ptr::eq(known, target)).unwrap_or_default();
        let known = instance.balance().candidates().get(place);
        let is_last = known.is_some_and(|candidate| candidate.weight == 0);
        let (verdict, mut why) = match verdict {
            Verdict::Chosen => ("chosen", "the first that can take it".to_owned()),
            Verdict::Next => ("next", "when those before it fail".to_owned()),
            Verdict::Refused(why) => ("excluded", why),
        };
        if is_last {
            why.push_str("; weight 0: only when its tier has nothing else");
        }
        Self {
            provider: target.provider.name.clone(),
            credential: target.credential.id.clone(),
            upstream_model: picked.upstream_model.as_ref().to_owned(),
            tier: known.map_or(0, |candidate| candidate.tier),
            share: shares.get(place).copied().unwrap_or_default(),
            limits: target.credential.scopes.iter().map(|scope| Scope::of(scope)).collect(),
            verdict,
            why,
        }
    }

    pub(super) fn excluded(target: &config::Target, credential: &str, why: &str) -> Self {
        Self {
            provider: target.provider.clone(),
            credential: Some(credential.to_owned()),
            upstream_model: target.model.clone(),
            tier: target.tier,
            share: 0.0,
            limits: Vec::new(),
            verdict: "excluded",
            why: why.to_owned(),
        }
    }
}

/// A parameter that is left out, or sent with another value.
#[derive(Debug, Serialize)]
pub(super) struct Dropped {
    param: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<&'static str>,
    why: &'static str,
}

impl Dropped {
    pub(super) fn of(dropped: &adapters::Dropped) -> Self {
        Self { param: dropped.param.clone(), sent: dropped.sent, why: dropped.why }
    }
}

/// The request to the provider.
#[derive(Debug, Serialize)]
pub(super) struct Outgoing {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Outgoing {
    pub(super) fn of(picked: &Picked<'_>, native: &NativeRequest) -> Self {
        let endpoint = &picked.target.provider.endpoint;
        let path = attempt::path(picked, native);
        let outgoing = attempt::outgoing(picked, native, &path);
        let host = (header::HOST.to_string(), shown(&header::HOST, endpoint.host_header()));
        let length = (header::CONTENT_LENGTH.to_string(), native.body.len().to_string());
        let headers = outgoing.all_headers().map(|(name, value)| (name.to_string(), shown(name, value)));
        Self {
            method: outgoing.method.to_string(),
            url: endpoint.url(&path),
            headers: std::iter::once(host).chain(headers).chain([length]).collect(),
            body: String::from_utf8_lossy(&native.body.joined()).into_owned(),
        }
    }
}

/// A header's value, without what is secret in it.
fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    if !value.is_sensitive() {
        return String::from_utf8_lossy(value.as_bytes()).into_owned();
    }
    let scheme = value.to_str().ok().and_then(|text| text.split_once(' ')).map(|(scheme, _secret)| scheme);
    scheme.filter(|_| name == header::AUTHORIZATION).map_or(MASK.to_owned(), |scheme| format!("{scheme} {MASK}"))
}

/// What the caller would be told instead of an answer.
#[derive(Debug, Serialize)]
pub struct Refusal {
    status: u16,
    /// The word of `x-weir-error`.
    x_weir_error: &'static str,
    body: serde_json::Value,
}

impl Refusal {
    pub(super) fn of(fault: &Fault) -> Self {
        let body = serde_json::from_slice(&fault.body(Dialect::OpenAi)).unwrap_or_default();
        Self { status: fault.status.as_u16(), x_weir_error: fault.kind.name(), body }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.status, self.x_weir_error, self.body)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, what: &dyn fmt::Display| writeln!(f, "{name:<11}{what}");
        line("endpoint", &self.endpoint)?;
        self.tenant.iter().try_for_each(|tenant| line("tenant", tenant))?;
        self.key.iter().try_for_each(|key| line("key", key))?;
        self.model.iter().try_for_each(|model| line("model", model))?;
        self.total.iter().try_for_each(|total| line("time", &format!("{total} at most")))?;
        if !self.tags.is_empty() {
            line("tags", &self.tags.join(", "))?;
        }
        self.limits.iter().try_for_each(|limit| line("limit", limit))?;
        self.budgets.iter().try_for_each(|budget| line("budget", budget))?;
        self.quotas.iter().try_for_each(|quota| line("quota", quota))?;
        for (place, candidate) in self.candidates.iter().enumerate() {
            line(&format!("target {}", place + 1), candidate)?;
        }
        self.params.iter().try_for_each(|change| line(change.change.name(), change))?;
        self.dropped.iter().try_for_each(|dropped| line("dropped", dropped))?;
        self.limited_to.iter().try_for_each(|to| line("cut to", &format!("{to} tokens, which the budget pays for")))?;
        self.notes.iter().try_for_each(|note| line("note", note))?;
        self.request.iter().try_for_each(|request| write!(f, "\n{request}"))
    }
}

impl fmt::Display for ModelTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name, self.resolved)?;
        if self.asked != self.name {
            write!(f, " from {}", self.asked)?;
        }
        self.model_type.iter().try_for_each(|kind| write!(f, "; {kind}"))?;
        let attempts = self.retries.saturating_add(1);
        write!(f, "; balance {}, at most {attempts} attempt{}", self.balance, if attempts == 1 { "" } else { "s" })?;
        if !self.affinity.is_empty() {
            write!(f, "; kept at one target by {}", self.affinity.join(", "))?;
        }
        self.related_by.iter().try_for_each(|by| write!(f, "; this request is kept with others by {by}"))?;
        self.hedge.iter().try_for_each(|after| write!(f, "; a second target beside it after {after}"))?;
        match self.when_all_cool {
            WhenAllCool::Fail => {}
            WhenAllCool::Wait => f.write_str("; when all cool it waits")?,
            WhenAllCool::Try => f.write_str("; when all cool the least ill is tried")?,
        }
        let Fallbacks { any, context_window, content_policy } = &self.fallbacks;
        let lists = [("any", any), ("context_window", context_window), ("content_policy", content_policy)];
        let named = lists.iter().filter(|(_, list)| !list.is_empty());
        named.copied().try_for_each(|(name, list)| write!(f, "; fallbacks.{name}: {}", list.join(", ")))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.id)?;
        let parts = [("requests a minute", self.rpm), ("tokens a minute", self.tpm), ("at once", self.concurrent)];
        let set = parts.iter().filter_map(|(what, limit)| Some(format!("{} {what}", (*limit)?)));
        f.write_str(&set.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, limit, reserved } = self;
        let limit = limit.map_or("without end".to_owned(), |limit| limit.to_string());
        write!(f, "{id}: {limit}, of which this request holds {reserved}")
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |nanos: Option<i64>| dollars_text(nanos.unwrap_or_default());
        write!(f, "{}: {} USD, of which this request holds {}", self.id, text(self.usd), text(self.reserved_usd))?;
        self.on_exhaust
            .iter()
            .try_for_each(|model| write!(f, "; when it is low or a request too dear, {model} answers"))
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credential = self.credential.as_deref().unwrap_or("no credential");
        let Self { provider, upstream_model, tier, verdict, why, .. } = self;
        let share = self.share * 100.0;
        write!(f, "{verdict}: {provider}/{upstream_model} with {credential}, tier {tier}, {share:.1} %: {why}")?;
        self.limits.iter().try_for_each(|limit| write!(f, "; {limit}"))
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.param)?;
        self.sent.iter().try_for_each(|sent| write!(f, "={sent}"))?;
        write!(f, ": {}", self.why)
    }
}

impl fmt::Display for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.method, self.url)?;
        self.headers.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))?;
        writeln!(f, "\n{}", self.body)
    }
}
