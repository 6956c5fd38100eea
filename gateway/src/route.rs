//! Which endpoint a method and a path mean. Every path of the contract is known, with `/v1` or without.

use adapters::Operation;
use http::{Method, StatusCode};

use crate::error::{Dialect, Fault};

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A request to a model.
    Call(Operation),
    /// The models that the key may call.
    Models,
    /// One of them.
    Model(String),
    /// A request's row in the ledger.
    Usage(String),
    /// Whether the process lives.
    Healthz,
    /// Whether it takes requests.
    Readyz,
}

impl Route {
    /// The endpoint's name in logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Call(operation) => operation.name(),
            Self::Models | Self::Model(_) => "models",
            Self::Usage(_) => "usage",
            Self::Healthz | Self::Readyz => "health",
        }
    }

    /// Finds the endpoint.
    ///
    /// # Errors
    /// 404 for a path that is not there, 405 for a method that it has not.
    pub fn of(method: &Method, path: &str) -> Result<Self, Fault> {
        let (route, allowed) = Self::named(name(path), path)?;
        let head = *method == Method::HEAD && allowed == Method::GET;
        if *method == allowed || head {
            return Ok(route);
        }
        let message = format!("{method} is not a method of {path}; use {allowed}.");
        Err(Fault::request(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message))
    }

    /// The method that a path takes; `None` where there is no such path.
    #[must_use]
    pub fn method(path: &str) -> Option<Method> {
        Self::named(name(path), path).ok().map(|(_, allowed)| allowed)
    }

    fn named(name: &str, path: &str) -> Result<(Self, Method), Fault> {
        let post = |operation| Ok((Self::Call(operation), Method::POST));
        match name {
            "chat/completions" => post(Operation::Chat),
            "completions" => post(Operation::Completions),
            "embeddings" => post(Operation::Embeddings),
            "models" => Ok((Self::Models, Method::GET)),
            "healthz" => Ok((Self::Healthz, Method::GET)),
            "readyz" => Ok((Self::Readyz, Method::GET)),
            _ => match name.split_once('/') {
                Some(("models", model)) => Ok((Self::Model(decoded(model)), Method::GET)),
                Some(("usage", id)) => Ok((Self::Usage(decoded(id)), Method::GET)),
                _ => Err(unknown(name, path)),
            },
        }
    }
}

/// A path without its version.
fn name(path: &str) -> &str {
    path.strip_prefix("/v1/").or_else(|| path.strip_prefix('/')).unwrap_or(path).trim_end_matches('/')
}

/// Which shape a path's errors have.
#[must_use]
pub fn dialect(path: &str) -> Dialect {
    let name = name(path);
    if name == "messages" || name.starts_with("messages/") { Dialect::Anthropic } else { Dialect::OpenAi }
}

/// Endpoints of the contract that this version has not.
const NOT_YET: &[&str] = &["responses", "messages", "audio", "rerank", "v2/rerank", "moderations", "images"];

fn unknown(name: &str, path: &str) -> Fault {
    let known = NOT_YET
        .iter()
        .any(|known| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let (code, message) = if known {
        ("endpoint_not_available", format!("This version of Weir does not serve {path} yet."))
    } else {
        ("unknown_url", format!("There is no endpoint {path}."))
    };
    Fault::request(StatusCode::NOT_FOUND, code, message)
}

/// A model's name in a path may be percent-encoded: `anthropic%2Fclaude`.
fn decoded(name: &str) -> String {
    percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_there_with_v1_and_without() {
        for path in ["/v1/chat/completions", "/chat/completions", "/v1/chat/completions/"] {
            assert_eq!(Route::of(&Method::POST, path).ok(), Some(Route::Call(Operation::Chat)), "{path}");
        }
        assert_eq!(Route::of(&Method::GET, "/v1/models/a%2Fb").ok(), Some(Route::Model("a/b".into())));
        assert_eq!(Route::of(&Method::GET, "/models/a/b").ok(), Some(Route::Model("a/b".into())));
    }

    #[test]
    fn a_wrong_method_and_a_wrong_path_are_told_apart() {
        let status = |method, path| Route::of(&method, path).map_err(|fault| (fault.status.as_u16(), fault.code));
        assert_eq!(status(Method::GET, "/v1/chat/completions"), Err((405, "method_not_allowed".into())));
        assert_eq!(status(Method::POST, "/v1/chat"), Err((404, "unknown_url".into())));
        assert_eq!(status(Method::POST, "/v1/audio/speech"), Err((404, "endpoint_not_available".into())));
        assert_eq!(status(Method::POST, "/"), Err((404, "unknown_url".into())));
    }
}
