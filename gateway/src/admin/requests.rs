//! One request: its row in the ledger, and why it went where it went.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::usage::{answer, raw};
use super::{Control, problem};
use crate::ledger::{Ledger, Row};
use crate::reasons::Choices;
use crate::store::StoreFault;

/// A request's row, and what turned its way.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Request")]
pub(super) struct Told {
    /// `null` while it is not in the ledger: it runs, or ended at another gateway just now.
    #[schemars(with = "Option<Row<'static>>")]
    request: Option<Box<RawValue>>,
    /// The choices that were no plain ones; none where the first choice was free, or where it was long ago.
    choices: Choices,
}

/// How long a row may take to be committed, and how often it is looked for meanwhile.
const ROW_WAIT: Duration = Duration::from_millis(50);
const ROW_LOOKS: u32 = 10;

/// What `find` finds, which blocks. A request whose answer is out may have ended just now: it is looked for until all that
/// ended is committed, and twice at least.
fn found<R>(ledger: &Ledger, find: impl Fn() -> Result<Option<R>, StoreFault>) -> Result<Option<R>, StoreFault> {
    for look in 0..ROW_LOOKS {
        let is_committed = look > 0 && ledger.lag().is_zero();
        let found = find()?;
        if found.is_some() || is_committed {
            return Ok(found);
        }
        std::thread::sleep(ROW_WAIT);
    }
    Ok(None)
}

/// `GET /admin/v1/requests/{id}`
pub(super) async fn one(State(control): State<Control>, Path(id): Path<String>) -> Response {
    answer(move || {
        let gateway = &control.gateway;
        let reader = gateway.ledger.reader();
        let find = || reader.find(&id, None, |row| (row.tenant.to_string(), raw(row)));
        let (row, unknown) = match found(&gateway.ledger, find) {
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
