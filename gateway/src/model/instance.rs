//! `ModelInstance`: one model as one request asked for it, and the picking of its targets.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adapters::Request;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use crate::access::{Key, Tenant};
use crate::balance::{Held, LbModelManager, Moment, Tried, Unpicked};
use crate::config::CredentialSource;
use crate::error::{Fault, Kind};
use crate::headers;
use crate::limit::Scopes;
use crate::model::direct::Namesake;
use crate::model::snapshot::{Model, Target};
use crate::model::source::{self, ModelStatus, Offer};
use crate::price::{Entry, Price, Prices};

/// A model that one request asked for.
#[derive(Clone, Debug)]
pub struct ModelInstance<'s> {
    model: &'s Model,
    asked: Cow<'s, str>,
    rest: Option<(usize, usize)>,
    tenant: &'s Tenant,
    /// What it has in common with the requests that are to go where it goes.
    related: Option<u64>,
    /// The only credential that its caller wants it to be asked with.
    only: Option<String>,
    /// The configured models that go where it does, where it was asked for by its provider's name.
    namesakes: Vec<Namesake<'s>>,
    /// The price that holds for it then.
    prices: Option<&'s Prices>,
    /// What picks, where the model's `*` has a state for each name.
    of_name: Option<Arc<LbModelManager>>,
}

impl<'s> ModelInstance<'s> {
    /// `model` as `tenant` asked for it under the name `asked`, in which its `*` stands for `rest`.
    #[must_use]
    pub fn new(model: &'s Model, asked: Cow<'s, str>, rest: Option<(usize, usize)>, tenant: &'s Tenant) -> Self {
        let of_name = rest.and_then(|(start, end)| model.of_name(asked.get(start..end)?));
        Self { model, asked, rest, tenant, related: None, only: None, namesakes: Vec::new(), prices: None, of_name }
    }

    /// The same, which those models go to as well.
    #[must_use]
    pub(super) fn with_namesakes(self, namesakes: Vec<Namesake<'s>>) -> Self {
        if namesakes.is_empty() {
            return self;
        }
        let prices = Namesake::dearest(&namesakes, SystemTime::now());
        Self { namesakes, prices, ..self }
    }

    /// The names under which it may be limited: as it was asked for, as it is configured, and as the models that go
    /// where it does are.
    pub fn limited_as(&self) -> impl Iterator<Item = &str> {
        let configured = Some(self.model.name.as_str()).filter(|name| *name != self.asked());
        std::iter::once(self.asked())
            .chain(configured)
            .chain(self.namesakes.iter().flat_map(|it| [it.name.as_ref(), it.model.name.as_str()]))
    }

    /// What picks among its targets.
    #[must_use]
    pub fn balance(&self) -> &LbModelManager {
        self.of_name.as_deref().unwrap_or(&self.model.balance)
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &'s Model {
        self.model
    }

    /// The name that the caller used.
    #[must_use]
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Finds out which requests it is related to.
    pub fn relate(&mut self, key: &Key, headers: &HeaderMap, request: &Request) {
        let Model { affinity, relation, .. } = self.model;
        self.related = affinity.related(relation, &self.asked, key, headers, request);
    }

    /// Keeps to the credential that its caller names, where it names one.
    ///
    /// # Errors
    /// The key may not choose one, or the model has none of that name.
    pub fn narrow(&mut self, key: &Key, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(named) = headers.get(headers::CREDENTIAL) else {
            return Ok(());
        };
        if !key.chooses_credential {
            let message = "This key may not choose the credential that its requests go out with.";
            let fault = Fault::new(Kind::PolicyForbidden, StatusCode::FORBIDDEN, "credential_not_allowed", message);
            return Err(fault.of_param(headers::CREDENTIAL.as_str()));
        }
        let named = String::from_utf8_lossy(named.as_bytes());
        self.only = Some(named.as_ref().to_owned());
        if self.model.targets.iter().any(|target| self.is_wanted(target)) {
            return Ok(());
        }
        let message = format!("No credential `{named}` serves the model `{}`.", self.asked);
        Err(Fault::request(StatusCode::BAD_REQUEST, "invalid_request", message).of_param(headers::CREDENTIAL.as_str()))
    }

    /// Whether its caller wants it to be asked with that target's credential.
    #[must_use]
    pub fn is_wanted(&self, target: &Target) -> bool {
        self.only.is_none() || self.only == target.credential.id
    }

    /// It went well where `held` is: the next related ones go there too.
    pub fn went_well(&self, held: &Held, now: Moment) {
        if let Some(related) = self.related {
            self.model.affinity.remember(related, held.standing().mark(), now);
        }
    }

    /// The next target to try and the hold on it, marked as tried. `room` is what a target's own limits have left, from
    /// 0 (nothing: it is left out) to 1.
    ///
    /// # Errors
    /// All were tried, or the rest may not be used now.
    pub fn pick(
        &self,
        tried: &mut Tried,
        now: Moment,
        room: impl Fn(&Target) -> f32,
    ) -> Result<(Picked<'s>, Held), Unpicked> {
        let room = self.room(room);
        let pinned = self.related.and_then(|related| self.model.affinity.target(&self.model.relation, related, now));
        let pinned = pinned.and_then(|mark| self.balance().pick_marked(mark, tried, now, &room));
        let (place, held) = pinned.map_or_else(|| self.balance().pick(tried, now, room), Ok)?;
        let target = self.model.targets.get(place).ok_or(Unpicked::Exhausted)?;
        Ok((self.at(target), held))
    }

    /// The next target that is tried because all cool: the one that is the soonest to be well.
    pub fn pick_least_ill(
        &self,
        tried: &mut Tried,
        now: Moment,
        room: impl Fn(&Target) -> f32,
    ) -> Option<(Picked<'s>, Held)> {
        let (place, held) = self.balance().pick_least_ill(tried, now, self.room(room))?;
        Some((self.at(self.model.targets.get(place)?), held))
    }

    /// What is left of each target's own limits, by its place; below 0 where this request may not go.
    fn room(&self, room: impl Fn(&Target) -> f32) -> impl Fn(usize) -> f32 {
        move |place| match self.model.targets.get(place) {
            Some(target) if self.is_wanted(target) && self.may_use(target) => room(target),
            _ => -1.0,
        }
    }

    /// The part of its caller's requests that goes to each target, by its place.
    #[must_use]
    pub fn shares(&self, now: Moment) -> Vec<f64> {
        let may = |target: &Target| self.is_wanted(target) && self.may_use(target);
        self.balance().shares(now, |place| self.model.targets.get(place).is_some_and(may))
    }

    /// When the soonest of the targets where it may go may be used; `None` where one may be at once.
    #[must_use]
    pub fn soonest(&self, now: Moment) -> Option<Duration> {
        let may = |target: &Target| self.is_wanted(target) && self.may_use(target);
        self.balance().soonest(now, |place| self.model.targets.get(place).is_some_and(may))
    }

    /// When the soonest of the targets that were not `tried` may be used, by its cooldown and by its own limits.
    #[must_use]
    pub fn soonest_with_room(&self, tried: &Tried, now: Moment) -> Option<Duration> {
        let may = |target: &&Target| self.is_wanted(target) && self.may_use(target);
        self.balance().soonest_with_room(tried, now, |place| {
            let target = self.model.targets.get(place).filter(may)?;
            Some(target.credential.scopes.room_in(Instant::now()))
        })
    }

    /// As if `target`, one of the model's, were picked.
    #[must_use]
    pub fn at(&self, target: &'s Target) -> Picked<'s> {
        let prices = self.prices.unwrap_or(&target.prices);
        Picked { upstream_model: target.model.filled(self.rest()), target, prices }
    }

    /// The limits of the targets where this request may still go, the better ones first, and how long until each is
    /// well. Empty where none of them is: then it is not for their limits that none can be asked.
    #[must_use]
    pub fn busy(&self, tried: &Tried, now: Moment) -> Vec<(&'s Scopes, Duration)> {
        let may = |target: &Target| self.is_wanted(target) && self.may_use(target);
        let left = self.balance().left(tried, now, |place| self.model.targets.get(place).is_some_and(may));
        let mut busy: Vec<(&Scopes, Duration)> = Vec::with_capacity(left.len());
        for (place, after) in left {
            let Some(scopes) = self.model.targets.get(place).map(|target| &target.credential.scopes) else {
                continue;
            };
            match busy.iter_mut().find(|(known, _)| known.is_same(scopes)) {
                Some((_, known)) => *known = after.min(*known),
                None => busy.push((scopes, after)),
            }
        }
        let is_any_well = busy.iter().any(|(_, after)| after.is_zero());
        if is_any_well { busy } else { Vec::new() }
    }

    /// Whether the tenant may use it: its own credentials always, the operator's under its quotas.
    #[must_use]
    pub fn may_use(&self, target: &Target) -> bool {
        target.credential.source == CredentialSource::Custom || self.offer(target) == Offer::Valid
    }

    /// How the operator's credentials stand for the tenant at the model of `target`.
    #[must_use]
    pub fn offer(&self, target: &Target) -> Offer {
        source::offer(self.tenant, target, self.rest(), Timestamp::now())
    }

    /// Whether the model can be used at all, or the first reason why not.
    #[must_use]
    pub fn status(&self) -> ModelStatus {
        let Model { targets, is_removed, .. } = self.model;
        let of_provider = |target: &Target| {
            let name = &target.provider.name;
            let has_custom = targets
                .iter()
                .any(|other| other.provider.name == *name && other.credential.source == CredentialSource::Custom);
            let preferred = source::preferred(self.tenant.preferred.as_ref(), name, has_custom);
            source::order(preferred, has_custom, self.offer(target))
                .map_or_else(|status| status, |_| ModelStatus::Active)
        };
        if self.only.is_some() && !targets.iter().any(|target| self.is_wanted(target) && self.may_use(target)) {
            return ModelStatus::QuotaExceeded;
        }
        if targets.is_empty() {
            return if *is_removed { ModelStatus::CredentialRemoved } else { ModelStatus::NoConfigure };
        }
        let statuses = targets.iter().map(of_provider);
        statuses.max_by_key(|status| (*status == ModelStatus::Active, Reverse(*status))).unwrap_or(ModelStatus::Active)
    }

    fn rest(&self) -> &str {
        self.rest.and_then(|(start, end)| self.asked.get(start..end)).unwrap_or_default()
    }
}

/// A target that was picked.
#[derive(Clone, Debug)]
pub struct Picked<'s> {
    /// The target.
    pub target: &'s Target,
    /// The provider's name for the model.
    pub upstream_model: Cow<'s, str>,
    prices: &'s Prices,
}

impl<'s> Picked<'s> {
    /// What it costs now, as far as that is known.
    #[must_use]
    pub fn price(&self, now: SystemTime) -> Option<&'s Price> {
        self.prices.at(&self.upstream_model, now)
    }

    /// What is publicly known of the model.
    #[must_use]
    pub fn entry(&self) -> Option<&'static Entry> {
        self.target.prices.entry(&self.upstream_model)
    }
}
