//! Quotas as they stand: what tenants may use of the operator's credentials, and what is left of it.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::page::Asked;
use super::{Control, problem};
use crate::access::Tenant;
use crate::budget::Quota;
use crate::config::{QuotaType, QuotaUnit};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Quotas")]
pub(super) struct Page {
    quotas: Vec<Row>,
    /// What to ask for `after`; `null`: there are no more.
    next: Option<String>,
}

/// One quota. What it counts is its unit.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Quota")]
struct Row {
    id: String,
    tenant: String,
    provider: String,
    r#type: QuotaType,
    unit: QuotaUnit,
    /// `null`: without end.
    limit: Option<i64>,
    used: i64,
    reserved: i64,
    /// What other gateways have used, hold or keep in hand.
    elsewhere: i64,
    left: Option<i64>,
    #[schemars(with = "Option<String>")]
    expires: Option<Timestamp>,
}

/// `GET /admin/v1/quotas`, by id.
pub(super) async fn list(State(control): State<Control>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "invalid_request", error.body_text(), Vec::new()),
    };
    let (snapshot, now) = (control.gateway.models.load(), Timestamp::now());
    let tenants = snapshot.tenants.values().filter(|tenant| asked.is_of(&tenant.id));
    let mut all: Vec<_> = tenants.flat_map(|tenant| rows(tenant, now)).filter(|row| asked.is_behind(&row.id)).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let (quotas, next) = asked.page(all.into_iter(), |row| &row.id);
    Json(Page { quotas, next }).into_response()
}

fn rows(tenant: &Tenant, now: Timestamp) -> impl Iterator<Item = Row> {
    let all = tenant.quotas.iter().flat_map(|(provider, quotas)| quotas.iter().map(move |quota| (provider, quota)));
    all.map(move |(provider, quota)| row(&tenant.id, provider, quota, now))
}

fn row(tenant: &str, provider: &str, quota: &Quota, now: Timestamp) -> Row {
    let reading = quota.account.reading(now);
    let is_limited = reading.limit < i64::MAX;
    Row {
        id: quota.account.id().to_string(),
        tenant: tenant.to_owned(),
        provider: provider.to_owned(),
        r#type: quota.quota_type,
        unit: quota.unit,
        limit: is_limited.then_some(reading.limit),
        used: reading.used,
        reserved: reading.reserved,
        elsewhere: reading.elsewhere,
        left: is_limited.then(|| reading.left()),
        expires: quota.expires,
    }
}
