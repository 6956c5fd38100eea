//! One request: its row in the ledger, and why it went where it went.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::usage::{answer, raw};
use super::{Control, problem};
use crate::ledger::Row;
use crate::reasons::Choices;
use crate::store::StoreFault;

/// A request's row, and what turned its way.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Request")]
pub(super) struct Told {
    /// `null` while it is not in the ledger: it runs, or ended just now.
    #[schemars(with = "Option<Row<'static>>")]
    request: Option<Box<RawValue>>,
    /// The choices that were no plain ones; none where the first choice was free, or where it was long ago.
    choices: Choices,
}

/// `GET /admin/v1/requests/{id}`
pub(super) async fn one(State(control): State<Control>, Path(id): Path<String>) -> Response {
    answer(move || {
        let gateway = &control.gateway;
        let found = gateway.ledger.reader().find(&id, None, |row| (row.tenant.to_string(), raw(row)));
        let (row, unknown) = match found {
            // It may be another gateway's; what is known here of its choices is told all the same.
            Err(error @ StoreFault::Unreached(_)) => (None, Err(error)),
            found => (found?, Ok(())),
        };
        let choices = gateway.reasons.of(&id, row.as_ref().map(|(tenant, _)| tenant.as_str()));
        if row.is_none() && choices.is_none() {
            unknown?;
            let message = format!("There is no request {id}.");
            return Ok(problem(StatusCode::NOT_FOUND, "not_found", message, Vec::new()));
        }
        let request = row.and_then(|(_, row)| row);
        Ok(Json(Told { request, choices: choices.unwrap_or_default() }).into_response())
    })
    .await
}
