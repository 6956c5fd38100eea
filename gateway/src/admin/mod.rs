//! The control plane: the admin API, metrics and health, on their own listener and runtime, so that a slow operator never
//! delays a stream.

mod budgets;
mod openapi;
mod page;
mod quotas;
mod requests;
mod targets;
mod usage;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRef, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Fault;
use crate::gateway::Gateway;
use crate::ledger::Reader;
use crate::reload::Reloader;

/// The control plane's router.
#[derive(Clone)]
pub struct Admin(Router);

#[derive(Clone)]
struct Control {
    gateway: Arc<Gateway>,
    reloader: Arc<Reloader>,
    access: Access,
}

/// Who may use the control plane.
#[derive(Clone, Debug)]
pub enum Access {
    /// Whoever has the token of this hash.
    Token(Arc<[u8]>),
    /// Whoever is on this machine and no page of another one, which a browser here may have open.
    Machine,
    /// Whoever reaches it, but no page of another host.
    Anybody,
}

impl Access {
    /// For a listener with this token, at this address.
    #[must_use]
    pub fn of(token: Option<&str>, address: Option<IpAddr>) -> Self {
        match token {
            Some(token) => Self::Token(Sha256::digest(token).to_vec().into()),
            None if address.is_none_or(|address| address.is_loopback()) => Self::Machine,
            None => Self::Anybody,
        }
    }
}

impl FromRef<Control> for Reader {
    fn from_ref(control: &Control) -> Self {
        control.gateway.ledger.reader()
    }
}

impl Admin {
    /// The control plane of `gateway`. Without a token, whoever has access is the owner.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, reloader: Arc<Reloader>, access: Access) -> Self {
        let control = Control { gateway, reloader, access };
        let api = Router::new()
            .route("/admin/openapi.json", get(openapi::get))
            .route("/admin/v1/config", get(config))
            .route("/admin/v1/config/history", get(history))
            .route("/admin/v1/config/reload", post(reload))
            .route("/admin/v1/budgets/{*rest}", put(budgets::raise).delete(budgets::end))
            .route("/admin/v1/requests/{id}", get(requests::one))
            .route("/admin/v1/targets", get(targets::list))
            .route("/admin/v1/targets/{*rest}", post(targets::reset))
            .route_layer(middleware::from_fn(plain))
            .route("/admin/v1/budgets", get(budgets::list))
            .route("/admin/v1/quotas", get(quotas::list))
            .merge(usage::routes())
            .fallback(unknown)
            .layer(middleware::from_fn_with_state(control.clone(), authorize));
        let open =
            Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz)).route("/readyz", get(readyz));
        Self(open.merge(api).method_not_allowed_fallback(unfit).with_state(control))
    }

    /// Serves one connection.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = TowerToHyperService::new(self.0.clone());
        let mut builder = Builder::new(TokioExecutor::new());
        // With a timer, a head has to come within hyper's 30 s.
        builder.http1().timer(TokioTimer::new());
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "an admin connection broke");
        }
    }
}

/// How the process is, in a word.
#[derive(Serialize, JsonSchema)]
struct Health {
    status: &'static str,
}

/// An error in the API's own shape.
#[derive(Serialize, JsonSchema)]
struct Problem {
    error: ProblemBody,
}

#[derive(Serialize, JsonSchema)]
struct ProblemBody {
    message: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Fault>,
}

fn problem(status: StatusCode, code: &'static str, message: impl Into<String>, faults: Vec<Fault>) -> Response {
    (status, Json(Problem { error: ProblemBody { message: message.into(), code, faults } })).into_response()
}

async fn authorize(State(control): State<Control>, request: Request, next: Next) -> Response {
    let host = host(&request);
    let (status, code, message) = match &control.access {
        Access::Token(token) if !carries(request.headers(), token) => {
            (StatusCode::UNAUTHORIZED, "unauthorized", "Send the admin token as `Authorization: Bearer TOKEN`.")
        }
        Access::Machine if !host.is_some_and(is_here) => {
            let message = "Without an admin token this is for calls to 127.0.0.1, [::1] or localhost by that name.";
            (StatusCode::FORBIDDEN, "forbidden", message)
        }
        Access::Machine | Access::Anybody if is_from_elsewhere(request.headers(), host) => {
            (StatusCode::FORBIDDEN, "forbidden", "Without an admin token this is not for other hosts' pages.")
        }
        _ => return next.run(request).await,
    };
    problem(status, code, message, Vec::new())
}

/// The host and port that a request is for, as its client names them.
fn host(request: &Request) -> Option<&str> {
    let named = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    named.or_else(|| request.uri().authority().map(Authority::as_str))
}

/// Whether a name leads to this machine whatever a name server says: a page may have a name that suddenly leads here.
fn is_here(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a browser sends it for the page of another host.
fn is_from_elsewhere(headers: &HeaderMap, host: Option<&str>) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, page)| page);
    page.is_none() || page != host
}

/// Compares hashes, so that the time tells nothing of the token.
fn carries(headers: &HeaderMap, token: &[u8]) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .is_some_and(|(_, given)| Sha256::digest(given.trim()).as_slice() == token)
}

/// For endpoints that nothing is asked of beyond their path: what they did not heed would seem to be.
async fn plain(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let Some(parameter) = query.split('&').find(|parameter| !parameter.is_empty()) else {
        return next.run(request).await;
    };
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    let message = format!("There is no parameter `{name}` here.");
    problem(StatusCode::BAD_REQUEST, "invalid_request", message, Vec::new())
}

async fn reload(State(control): State<Control>) -> Response {
    let reloaded = tokio::task::spawn_blocking(move || control.reloader.reload()).await;
    match reloaded {
        Ok(Ok(reloaded)) => Json(reloaded).into_response(),
        Ok(Err(faults)) => {
            let message = match faults.faults.len() + faults.more {
                1 => "The configuration has a fault; the old one stays in use.".to_owned(),
                several => format!("The configuration has {several} faults; the old one stays in use."),
            };
            problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_configuration", message, faults.faults)
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", error.to_string(), Vec::new()),
    }
}

async fn config(State(control): State<Control>) -> Response {
    Json(control.reloader.shown()).into_response()
}

async fn history(State(control): State<Control>) -> Response {
    match tokio::task::spawn_blocking(move || control.gateway.store.history()).await {
        Ok(Ok(history)) => Json(history).into_response(),
        Ok(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error.to_string(), Vec::new()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", error.to_string(), Vec::new()),
    }
}

async fn metrics(State(control): State<Control>) -> Response {
    targets::measure(&control.gateway.models.load(), &control.gateway.metrics);
    let gateway = &control.gateway;
    gateway.metrics.budgets(gateway.budgets.tenants(jiff::Timestamp::now()));
    gateway.metrics.stored(gateway.store.is_degraded(), gateway.ledger.lag());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], gateway.metrics.page()).into_response()
}

async fn healthz() -> Response {
    Json(Health { status: "ok" }).into_response()
}

async fn readyz(State(control): State<Control>) -> Response {
    let (status, word) = match control.gateway.is_draining() {
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        false => (StatusCode::OK, "ready"),
    };
    (status, Json(Health { status: word })).into_response()
}

async fn unfit(request: Request) -> Response {
    let message = format!("{} is not for {}; see `allow`.", request.uri().path(), request.method());
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message, Vec::new())
}

async fn unknown(request: Request) -> Response {
    let message = format!("There is no endpoint {} here.", request.uri().path());
    problem(StatusCode::NOT_FOUND, "not_found", message, Vec::new())
}
