//! Targets as they are now: which are left out, why and until when; and the way to take one back in.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Control, problem};
use crate::access::Tenant;
use crate::balance::{Availability, Candidate, LbModelManager, Moment, Standing};
use crate::config::{CredentialSource, ModelType, WhenAllCool};
use crate::error::Cause;
use crate::metrics::Metrics;
use crate::model::source::{self, Offer};
use crate::model::{Model, Names, Snapshot, Target};

/// What follows a target's id where it is to be reset.
const RESET: &str = "/reset";

/// The targets of all models.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Targets")]
pub(super) struct Page {
    targets: Vec<Row>,
    /// The models of which every target cools now.
    all_cool: Vec<AllCool>,
}

/// A model without a target that may be used.
#[derive(Debug, Serialize, JsonSchema)]
struct AllCool {
    model: String,
    /// Whose version of it, where it has credentials of a tenant's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// What becomes of its requests.
    when_all_cool: WhenAllCool,
    /// When the first target is back.
    #[schemars(with = "Option<String>")]
    until: Option<Timestamp>,
}

/// One target of one model.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Target")]
struct Row {
    id: String,
    model: String,
    /// Whose credential it is, where it is a tenant's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(rename = "type")]
    model_type: Option<ModelType>,
    provider: String,
    credential: Option<String>,
    upstream_model: String,
    tier: u32,
    /// The part of the model's requests that go there as things are, from 0 to 1.
    share: f64,
    state: State,
    reason: Option<Cause>,
    /// Whether another gateway found that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    elsewhere: bool,
    #[schemars(with = "Option<String>")]
    until: Option<Timestamp>,
    in_flight: u32,
    latency_ms: Option<f64>,
    #[serde(skip)]
    standing: Arc<Standing>,
}

/// A target's state in a word.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It takes requests.
    Ready,
    /// It takes one at a time, to see whether it is well again.
    Probation,
    /// It takes none until a time.
    Cooling,
}

impl From<Availability> for State {
    fn from(availability: Availability) -> Self {
        match availability {
            Availability::Ready => Self::Ready,
            Availability::Probe | Availability::Probing => Self::Probation,
            Availability::Cooling(_) => Self::Cooling,
        }
    }
}

/// `GET /admin/v1/targets`
pub(super) async fn list(Shared(control): Shared<Control>) -> Response {
    Json(Page::of(&control.gateway.models.load())).into_response()
}

/// `POST /admin/v1/targets/{id}/reset`; the id is a target's, or a credential's for all of its targets.
pub(super) async fn reset(Shared(control): Shared<Control>, Path(rest): Path<String>) -> Response {
    let snapshot = control.gateway.models.load();
    let id = rest.strip_suffix(RESET).unwrap_or_default();
    let found: Vec<Row> = rows(&snapshot).into_iter().filter(|row| is_meant(&row.standing, id)).collect();
    if found.is_empty() {
        let message = format!("There is no target {id:?}; GET /admin/v1/targets lists them.");
        return problem(StatusCode::NOT_FOUND, "not_found", message, Vec::new());
    }
    found.iter().for_each(|row| row.standing.reset());
    tracing::info!(target = id, "the cooldown was reset");
    let mut page = Page::of(&snapshot);
    page.targets.retain(|row| is_meant(&row.standing, id));
    Json(page).into_response()
}

impl Page {
    fn of(snapshot: &Snapshot) -> Self {
        Self { targets: rows(snapshot), all_cool: all_cool(snapshot) }
    }
}

/// Of a model with a `*` as it is configured, whatever name was asked for.
fn all_cool(snapshot: &Snapshot) -> Vec<AllCool> {
    let (moment, time) = (Moment::now(), Timestamp::now());
    let own =
        snapshot.tenants.values().flat_map(|tenant| tenant.own.configured().map(|model| (model, Some(&tenant.id))));
    let models = snapshot.models.all().map(|model| (model, None)).chain(own);
    let cooling = models.filter_map(|(model, tenant)| {
        let wait = model.balance.soonest(moment, |_| true)?;
        Some(AllCool {
            model: model.name.clone(),
            tenant: tenant.cloned(),
            when_all_cool: model.when_all_cool,
            until: time.checked_add(wait).ok(),
        })
    });
    cooling.collect()
}

/// Tells the metrics which targets are in and which out; but not by the names that callers put in the place of a `*`.
pub(super) fn measure(snapshot: &Snapshot, metrics: &Metrics) {
    let now = Moment::now();
    let own = snapshot.tenants.values().flat_map(|tenant| tenant.own.configured());
    let models = snapshot.models.all().chain(own);
    let candidates = models.flat_map(|model| model.balance.candidates());
    metrics.targets(candidates.map(|candidate| {
        let standing = &candidate.standing;
        (standing.id(), standing.availability(now) == Availability::Ready)
    }));
}

/// A slash inside a part of an id is written `%2F`; it may have been decoded on the way.
fn is_meant(standing: &Standing, id: &str) -> bool {
    [standing.id(), standing.credential().id()].iter().any(|known| *known == id || known.replace("%2F", "/") == id)
}

fn rows(snapshot: &Snapshot) -> Vec<Row> {
    let models = snapshot.models.all().chain(snapshot.models.direct()).flat_map(|model| rows_of_model(model, None));
    let own = snapshot.tenants.values().flat_map(|tenant| {
        let models = tenant.own.all();
        models.flat_map(|model| rows_of_model(model, Some(tenant))).filter(|row| row.tenant.is_some())
    });
    models.chain(own).collect()
}

/// The targets as they are configured, and for a model with a `*` those of each name that was asked for.
fn rows_of_model(model: &Model, tenant: Option<&Tenant>) -> Vec<Row> {
    let names = model.names.as_ref().map(Names::all).unwrap_or_default();
    let named = names.iter().flat_map(|(rest, manager)| rows_of(model, tenant, manager, rest));
    // A provider's own names have a type only when they are asked for.
    let plain = model.model_type.map(|_| rows_of(model, tenant, &model.balance, "*"));
    plain.into_iter().flatten().chain(named).collect()
}

fn rows_of(model: &Model, tenant: Option<&Tenant>, manager: &LbModelManager, rest: &str) -> Vec<Row> {
    let (moment, time) = (Moment::now(), Timestamp::now());
    // A tenant's quotas may keep it from the operator's credentials.
    let is_offered =
        |target: &Target| tenant.is_none_or(|tenant| source::offer(tenant, target, rest, time) == Offer::Valid);
    let may = |target: &Target| target.credential.source == CredentialSource::Custom || is_offered(target);
    let shares = manager.shares(moment, |place| model.targets.get(place).is_some_and(may));
    let candidates = model.targets.iter().zip(manager.candidates()).zip(shares);
    let row = |((target, candidate), share): ((&Target, &Candidate), f64)| {
        let standing = Arc::clone(&candidate.standing);
        let availability = standing.availability(moment);
        let cooldown = standing.cooldown();
        Row {
            id: standing.id().to_owned(),
            model: model.name.clone(),
            tenant: tenant
                .filter(|_| target.credential.source == CredentialSource::Custom)
                .map(|tenant| tenant.id.clone()),
            model_type: model.model_type,
            provider: target.provider.name.clone(),
            credential: target.credential.id.clone(),
            upstream_model: target.model.filled(rest).into_owned(),
            tier: candidate.tier,
            share,
            state: availability.into(),
            reason: cooldown.map(|cooldown| cooldown.cause),
            elsewhere: cooldown.is_some_and(|cooldown| cooldown.elsewhere),
            until: until(availability, moment, time),
            in_flight: standing.load.in_flight(),
            latency_ms: standing.load.latency().map(milliseconds),
            standing,
        }
    };
    candidates.map(row).collect()
}

fn until(availability: Availability, moment: Moment, time: Timestamp) -> Option<Timestamp> {
    let Availability::Cooling(until) = availability else {
        return None;
    };
    time.checked_add(until.since(moment)).ok()
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
