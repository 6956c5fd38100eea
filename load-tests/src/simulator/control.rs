//! The simulator's own routes, under `/_sim/`: the account and the last requests, to read and to reset.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::account::{Books, Recorded};
use super::script::Play;

/// Where the simulator's own routes stand.
pub(crate) const PREFIX: &str = "/_sim/";

/// Answers a request to the simulator itself.
pub(crate) fn answer(books: &Books, head: &Parts) -> Response<Play> {
    let body = match (&head.method, head.uri.path().trim_start_matches(PREFIX)) {
        (&Method::GET, "account") => serde_json::to_value(books.account()).ok(),
        (&Method::GET, "requests") => Some(books.requests().iter().map(describe).collect()),
        (&Method::DELETE, "account") => Some(done(|| books.reset_account())),
        (&Method::DELETE, "requests") => Some(done(|| books.reset_requests())),
        _ => None,
    };
    let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let body = body.unwrap_or_else(|| json!({"error": "GET or DELETE /_sim/account or /_sim/requests"}));
    let mut response = Response::new(Play::Whole(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn done(act: impl FnOnce()) -> Value {
    act();
    json!({"ok": true})
}

fn describe(request: &Recorded) -> Value {
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match headers.get_mut(name.as_str()) {
            Some(Value::String(values)) => *values = format!("{values}, {value}"),
            _ => drop(headers.insert(name.as_str().to_owned(), value.into())),
        }
    }
    json!({
        "at_ms": request.at.as_secs_f64() * 1e3,
        "method": request.method(),
        "path": request.path(),
        "version": format!("{:?}", request.version()),
        "headers": headers,
        "body": String::from_utf8_lossy(&request.body),
        "body_bytes": request.body_bytes,
    })
}
