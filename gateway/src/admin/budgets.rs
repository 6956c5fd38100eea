//! Budgets as they stand, and a higher limit for a while.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::page::Asked;
use super::{Control, problem};
use crate::budget::{Account, Owner, Raise, Span};
use crate::ledger::{dollars, dollars_parsed, dollars_text};

/// What follows a budget's id where its limit is to be raised.
const RAISE: &str = "/raise";

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Budgets")]
pub(super) struct Page {
    budgets: Vec<Row>,
    /// What to ask for `after`; `null`: there are no more.
    next: Option<String>,
}

/// One budget in its window.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Budget")]
pub(super) struct Row {
    id: String,
    tenant: String,
    key: Option<String>,
    #[serde(serialize_with = "dollars")]
    #[schemars(with = "Option<f64>")]
    limit_usd: Option<i64>,
    #[serde(serialize_with = "dollars")]
    #[schemars(with = "Option<f64>")]
    used_usd: Option<i64>,
    #[serde(serialize_with = "dollars")]
    #[schemars(with = "Option<f64>")]
    reserved_usd: Option<i64>,
    /// What other gateways have used, hold or keep in hand.
    #[serde(serialize_with = "dollars")]
    #[schemars(with = "Option<f64>")]
    elsewhere_usd: Option<i64>,
    #[serde(serialize_with = "dollars")]
    #[schemars(with = "Option<f64>")]
    left_usd: Option<i64>,
    /// Until when a raised limit holds.
    #[schemars(with = "Option<String>")]
    raised_until: Option<Timestamp>,
    window: Window,
}

#[derive(Serialize, JsonSchema)]
struct Window {
    every: crate::config::Every,
    #[schemars(with = "Option<String>")]
    from: Option<Timestamp>,
    #[schemars(with = "Option<String>")]
    to: Option<Timestamp>,
}

/// A limit that is to hold for a while.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Raised {
    #[schemars(with = "f64")]
    usd: Box<RawValue>,
    #[schemars(with = "String")]
    until: Timestamp,
}

/// `GET /admin/v1/budgets`, by id.
pub(super) async fn list(State(control): State<Control>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "invalid_request", error.body_text(), Vec::new()),
    };
    let now = Timestamp::now();
    let mut all = control.gateway.budgets.all();
    all.retain(|account| asked.is_behind(account.id()));
    all.sort_by(|a, b| a.id().cmp(b.id()));
    let rows = all.iter().filter_map(|account| row(account, now)).filter(|row| asked.is_of(&row.tenant));
    let (budgets, next) = asked.page(rows, |row| &row.id);
    Json(Page { budgets, next }).into_response()
}

/// `PUT /admin/v1/budgets/{id}/raise`: another limit until a time, over reloads and restarts, at all gateways of one Redis.
pub(super) async fn raise(
    State(control): State<Control>,
    Path(rest): Path<String>,
    raised: Result<Json<Raised>, JsonRejection>,
) -> Response {
    let now = Timestamp::now();
    let account = match changeable(&control, &rest, now) {
        Ok(account) => account,
        Err(refused) => return refused,
    };
    let (limit, until) = match terms(raised, now) {
        Ok(terms) => terms,
        Err(message) => return problem(StatusCode::BAD_REQUEST, "invalid_request", message, Vec::new()),
    };
    let said = control.gateway.budgets.time_of_raise(account.id(), now);
    let raise = Raise { account: account.id().to_string(), limit, until, said, ended: false };
    say(&control, &account, raise, now).await
}

/// `DELETE /admin/v1/budgets/{id}/raise`: the configured limit again, before that time.
pub(super) async fn end(State(control): State<Control>, Path(rest): Path<String>) -> Response {
    let now = Timestamp::now();
    let account = match changeable(&control, &rest, now) {
        Ok(account) => account,
        Err(refused) => return refused,
    };
    let budgets = &control.gateway.budgets;
    let Some(lasting) = budgets.lasting_raise(account.id(), now) else {
        let message = format!("The limit of {:?} is the configured one: there is no raise to end.", account.id());
        return problem(StatusCode::NOT_FOUND, "not_found", message, Vec::new());
    };
    let said = budgets.time_of_raise(account.id(), now);
    say(&control, &account, Raise { said, ended: true, ..lasting }, now).await
}

/// The budget that is to be changed, or why it may not be.
fn changeable(control: &Control, rest: &str, now: Timestamp) -> Result<Arc<Account>, Response> {
    if control.reloader.is_locked() {
        let message = "server.locked is true: only the configuration's file changes anything.";
        return Err(problem(StatusCode::FORBIDDEN, "locked", message, Vec::new()));
    }
    let id = rest.strip_suffix(RAISE).unwrap_or_default();
    find(control, id).filter(|account| row(account, now).is_some()).ok_or_else(|| {
        let message = format!("There is no budget {id:?}; GET /admin/v1/budgets lists them.");
        problem(StatusCode::NOT_FOUND, "not_found", message, Vec::new())
    })
}

/// Keeps it, and lets it hold here and at the other gateways.
async fn say(control: &Control, account: &Account, raise: Raise, now: Timestamp) -> Response {
    if let Err(error) = keep(control, raise.clone(), now).await {
        let message = format!("The store cannot keep it, so the limit is as before: {error}");
        return problem(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message, Vec::new());
    }
    control.gateway.budgets.say(&raise, now);
    let Raise { account: budget, limit, until, ended, .. } = raise;
    match ended {
        true => tracing::info!(budget, "the configured limit holds again"),
        false => tracing::info!(budget, usd = dollars_text(limit), %until, "another limit holds for a while"),
    }
    Json(row(account, now)).into_response()
}

/// Waits until the raise is on the disk.
async fn keep(control: &Control, raise: Raise, now: Timestamp) -> Result<(), String> {
    let disk = Arc::clone(control.gateway.store.disk());
    let kept = tokio::task::spawn_blocking(move || disk.keep_raise(&raise, now)).await;
    kept.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// A slash inside a part of an id is written `%2F`; it may have been decoded on the way.
fn find(control: &Control, id: &str) -> Option<Arc<Account>> {
    let budgets = &control.gateway.budgets;
    let decoded = || budgets.all().into_iter().find(|account| account.id().replace("%2F", "/") == id);
    budgets.get(id).or_else(decoded)
}

fn terms(raised: Result<Json<Raised>, JsonRejection>, now: Timestamp) -> Result<(i64, Timestamp), String> {
    let Json(Raised { usd, until }) = raised.map_err(|error| error.body_text())?;
    let limit = dollars_parsed(usd.get()).filter(|limit| *limit >= 0);
    let limit = limit.ok_or("`usd` must be an amount of dollars with at most nine digits behind its point.")?;
    if until <= now { Err("`until` has passed.".to_owned()) } else { Ok((limit, until)) }
}

/// A budget's row; none for what counts no money.
fn row(account: &Account, now: Timestamp) -> Option<Row> {
    let (tenant, key) = match account.owner() {
        Owner::Tenant(tenant) => (tenant, None),
        Owner::Key(tenant, key) => (tenant, Some(key.to_string())),
        Owner::Limit => return None,
    };
    let Span::Every(every, _) = account.terms().span else {
        return None;
    };
    let reading = account.reading(now);
    Some(Row {
        id: account.id().to_string(),
        tenant: tenant.to_string(),
        key,
        limit_usd: Some(reading.limit),
        used_usd: Some(reading.used),
        reserved_usd: Some(reading.reserved),
        elsewhere_usd: Some(reading.elsewhere),
        left_usd: Some(reading.left()),
        raised_until: account.raised_until(now),
        window: Window { every, from: Timestamp::from_second(reading.window.start).ok(), to: reading.window.ends_at() },
    })
}
