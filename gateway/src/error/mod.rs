//! What went wrong with a request, and whose fault it was. `body` makes it what the caller reads.

mod body;
mod provider;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use adapters::Usage;
use adapters::refusal::Class;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

pub use body::Dialect;
pub use provider::{incomplete, unfit};

use crate::budget::{self, Exhausted};
use crate::ledger::Accuracy;
use crate::limit::{Rejection, What};

/// The clock of the whole request, as [`Fault::timeout`] is told of it.
pub const TOTAL: &str = "total";

/// What is shorter is no secret, and may stand in any sentence.
const SHORTEST_SECRET: usize = 8;

/// Whose fault: the closed set of `x-weir-error` that answer, log and metric share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No key, or one that is not valid.
    CallerAuth,
    /// The request can't be served as it is.
    CallerRequest,
    /// The key may not.
    PolicyForbidden,
    /// A limit of the caller's is reached.
    PolicyLimit,
    /// A budget or a quota of the caller's is spent.
    PolicyBudget,
    /// Every candidate is limited.
    ProviderLimit,
    /// Weir's own credential was refused.
    ProviderAuth,
    /// The provider's fault or refusal.
    ProviderError,
    /// A clock ran out on the provider.
    ProviderTimeout,
    /// It could not be reached.
    ProviderUnreachable,
    /// The caller left.
    CallerGone,
    /// Weir's own.
    GatewayFault,
}

impl Kind {
    /// All of them, for metrics that are made once.
    pub const ALL: [Self; 12] = [
        Self::CallerAuth,
        Self::CallerRequest,
        Self::PolicyForbidden,
        Self::PolicyLimit,
        Self::PolicyBudget,
        Self::ProviderLimit,
        Self::ProviderAuth,
        Self::ProviderError,
        Self::ProviderTimeout,
        Self::ProviderUnreachable,
        Self::CallerGone,
        Self::GatewayFault,
    ];

    /// Its word in headers, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CallerAuth => "caller_auth",
            Self::CallerRequest => "caller_request",
            Self::PolicyForbidden => "policy_forbidden",
            Self::PolicyLimit => "policy_limit",
            Self::PolicyBudget => "policy_budget",
            Self::ProviderLimit => "provider_limit",
            Self::ProviderAuth => "provider_auth",
            Self::ProviderError => "provider_error",
            Self::ProviderTimeout => "provider_timeout",
            Self::ProviderUnreachable => "provider_unreachable",
            Self::CallerGone => "caller_gone",
            Self::GatewayFault => "gateway_fault",
        }
    }
}

/// What a failure says of the target that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The credential asks this model for too much, for now.
    RateLimit,
    /// No credit is left on the credential.
    Credit,
    /// The credential was refused.
    Auth,
    /// There was no connection to be had.
    Connection,
    /// The provider failed: an error of its own, silence, or an answer that breaks off or cannot be read.
    Server,
}

impl Cause {
    /// All of them, for metrics that are made once.
    pub const ALL: [Self; 5] = [Self::RateLimit, Self::Credit, Self::Auth, Self::Connection, Self::Server];

    /// Its word in metrics and the admin API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Credit => "credit",
            Self::Auth => "auth",
            Self::Connection => "connection",
            Self::Server => "server",
        }
    }

    fn of(class: Class) -> Option<Self> {
        match class {
            Class::RateLimit => Some(Self::RateLimit),
            Class::Quota => Some(Self::Credit),
            Class::Authorization => Some(Self::Auth),
            Class::Server => Some(Self::Server),
            Class::BadRequest | Class::ContextLength | Class::ContentPolicy | Class::Denied | Class::NotFound => None,
        }
    }
}

/// What a provider counted of an attempt that failed all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// What.
    pub usage: Usage,
    /// Whether all of it.
    pub accuracy: Accuracy,
}

/// One failure of one request.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Whose.
    pub kind: Kind,
    /// The status that the caller gets, if nothing has been sent yet.
    pub status: StatusCode,
    /// OpenAI's `code`.
    pub code: Cow<'static, str>,
    /// OpenAI's `type`, where the provider gave one; else the status's.
    pub error_type: Option<String>,
    /// For the caller: no secret, no other tenant's name, no internal address.
    pub message: String,
    /// Which field of the request.
    pub param: Option<String>,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// For the log only.
    pub detail: Option<String>,
    /// What it says of the target; `None`: nothing, it was the request's fault, the caller's or Weir's own.
    pub cause: Option<Cause>,
    /// Whether the provider had begun to answer, and so may have done what was asked.
    pub begun: bool,
    /// Whether the request had gone out when it was given up before an answer came.
    pub sent: bool,
    /// What the provider had counted by then.
    pub counted: Option<Box<Counted>>,
    /// The provider's own status, and what kind of refusal it was.
    pub refused: Option<(StatusCode, Class)>,
    /// The kind of scope whose limit was reached.
    pub limit: Option<&'static str>,
    /// The model that answers instead of one that is too dear.
    pub instead: Option<Arc<str>>,
}

impl Fault {
    /// A fault of that kind.
    #[must_use]
    pub fn new(kind: Kind, status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status,
            code: Cow::Borrowed(code),
            error_type: None,
            message: message.into(),
            param: None,
            retry_after: None,
            detail: None,
            cause: None,
            begun: false,
            sent: false,
            counted: None,
            refused: None,
            limit: None,
            instead: None,
        }
    }

    /// The request is not one that Weir can serve.
    #[must_use]
    pub fn request(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::CallerRequest, status, code, message)
    }

    /// The key is missing or not valid.
    #[must_use]
    pub fn auth(message: impl Into<String>) -> Self {
        Self::new(Kind::CallerAuth, StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    /// Too many wrong keys came from the caller's address.
    #[must_use]
    pub fn guessed(retry_after: Duration) -> Self {
        let message = "Too many wrong API keys came from this address.";
        let fault = Self::new(Kind::PolicyLimit, StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message);
        Self { retry_after: Some(retry_after), limit: Some("address"), ..fault }
    }

    /// A limit of the caller's is reached.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
    pub fn limited(rejection: Rejection) -> Self {
        if rejection.what == What::Store {
            return Self::no_limits();
        }
        let fault =
            Self::new(Kind::PolicyLimit, StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", rejection.to_string());
        Self { retry_after: Some(rejection.retry_after), limit: Some(rejection.scope.kind().name()), ..fault }
    }

    /// A budget of the caller's has not enough left.
    #[must_use]
    pub fn exhausted(exhausted: Exhausted) -> Self {
        if exhausted.cause == budget::Cause::NoStore {
            return Self::no_limits();
        }
        let (status, message) = (StatusCode::TOO_MANY_REQUESTS, exhausted.to_string());
        let fault = Self::new(Kind::PolicyBudget, status, "insufficient_quota", message);
        Self { instead: exhausted.instead, retry_after: in_a_moment(exhausted.cause), ..fault }
    }

    /// What the gateways count together cannot be reached, and nothing that is limited is to go on without it.
    #[must_use]
    pub fn no_limits() -> Self {
        let message = "The store that holds the limits cannot be reached.";
        let fault = Self::new(Kind::GatewayFault, StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message);
        Self { retry_after: Some(Duration::from_secs(1)), ..fault }
    }

    /// A budget would not count what this model costs, and its tenant wants to be sure.
    #[must_use]
    pub fn unpriced() -> Self {
        let message = "No price of this model is known, and the tenant's budgets allow none without.";
        Self::new(Kind::PolicyForbidden, StatusCode::FORBIDDEN, "model_without_price", message).of_param("model")
    }

    /// What the tenant may use of the operator's credentials is used up.
    #[must_use]
    pub fn quota_exceeded(cause: budget::Cause) -> Self {
        if cause == budget::Cause::NoStore {
            return Self::no_limits();
        }
        let message = match cause.is_passing() {
            true => "The tenant's quota for this provider has not enough left while other requests are under way.",
            false => "The tenant's quota for this provider is used up.",
        };
        let fault = Self::new(Kind::PolicyBudget, StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", message);
        Self { retry_after: in_a_moment(cause), ..fault }
    }

    /// The caller left; nobody reads the answer.
    #[must_use]
    pub fn gone() -> Self {
        let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(Kind::CallerGone, status, "caller_gone", "The caller closed the connection.")
    }

    /// A clock ran out. That of the whole request may be the caller's own, and says nothing of the target.
    #[must_use]
    pub fn timeout(what: &'static str) -> Self {
        let message = format!("The provider did not answer in time ({what}).");
        let cause = (what != TOTAL).then_some(Cause::Server);
        Self { cause, ..Self::new(Kind::ProviderTimeout, StatusCode::GATEWAY_TIMEOUT, "provider_timeout", message) }
    }

    /// Whether the provider may want to be paid for an attempt that failed so, before a word of an answer could be used: it
    /// was given the request, refused nothing, and was not heard to the end. Not where it closed the connection without any
    /// answer.
    #[must_use]
    pub fn may_cost(&self) -> bool {
        self.refused.is_none() && (self.begun || self.sent)
    }

    /// The ledger cannot be read.
    #[must_use]
    pub fn store(error: &impl std::fmt::Display) -> Self {
        let message = "The ledger cannot be read now.";
        Self::new(Kind::GatewayFault, StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
            .with_detail(error.to_string())
    }

    /// Of a request that was given up when it had gone out, or before that.
    #[must_use]
    pub fn of_sent(self, sent: bool) -> Self {
        Self { sent, ..self }
    }

    /// With what the provider had counted by then, if anything.
    #[must_use]
    pub fn with_counted(self, usage: Option<Usage>, accuracy: Accuracy) -> Self {
        Self { counted: usage.map(|usage| Box::new(Counted { usage, accuracy })), ..self }
    }

    /// With what it says of the target.
    #[must_use]
    pub fn because(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    /// No target may be asked before `after`: some are limited, or all are down.
    #[must_use]
    pub fn unavailable(after: Duration, limited: bool) -> Self {
        let fault = if limited {
            let message = "Every provider of this model is limited for now.";
            Self::new(Kind::ProviderLimit, StatusCode::TOO_MANY_REQUESTS, "provider_rate_limited", message)
        } else {
            let message = "Every provider of this model is out of service for now.";
            Self::new(Kind::ProviderUnreachable, StatusCode::SERVICE_UNAVAILABLE, "provider_unreachable", message)
        };
        Self { retry_after: Some(after), ..fault }
    }

    /// Weir's own.
    #[must_use]
    pub fn internal(detail: impl Into<String>) -> Self {
        let message = "The gateway failed. The request's id tells the operator where to look.";
        Self {
            detail: Some(detail.into()),
            ..Self::new(Kind::GatewayFault, StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
        }
    }

    /// The process ended before the answer did.
    #[must_use]
    pub fn draining() -> Self {
        let message = "The gateway is shutting down.";
        Self::new(Kind::GatewayFault, StatusCode::SERVICE_UNAVAILABLE, "draining", message)
    }

    /// With the field that is meant.
    #[must_use]
    pub fn of_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// With what only the log may know.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Takes `secret` out of everything that is told: a provider may say back the credential that it refuses.
    pub fn conceal(&mut self, secret: &str) {
        if secret.len() < SHORTEST_SECRET {
            return;
        }
        let told = [Some(&mut self.message), self.detail.as_mut(), self.error_type.as_mut(), self.param.as_mut()];
        for text in told.into_iter().flatten().filter(|text| text.contains(secret)) {
            *text = text.replace(secret, "***");
        }
        if self.code.contains(secret) {
            self.code = Cow::Owned(self.code.replace(secret, "***"));
        }
    }

    /// Whether the target that was picked has no words for the request, and nothing was sent: another one may have them.
    #[must_use]
    pub fn is_targets_lack(&self) -> bool {
        self.kind == Kind::CallerRequest && matches!(&*self.code, "unsupported_parameter" | "unsupported_endpoint")
    }

    /// The same where the configuration names the model, and not the caller: that a target does not have it is no fault of the
    /// request, and another one may.
    #[must_use]
    pub fn of_configured_model(mut self) -> Self {
        if let Some((_, class @ Class::NotFound)) = &mut self.refused {
            *class = Class::Denied;
        }
        self
    }

    /// The kind of a provider's error: a 4xx as its dialect reads it, anything else as the caller is told.
    fn class(&self) -> Class {
        match self.refused {
            Some((status, class)) if status.is_client_error() => class,
            _ => Class::of_status(self.status),
        }
    }

    /// Whether another target may do better.
    #[must_use]
    pub fn may_retry_elsewhere(&self) -> bool {
        match self.kind {
            Kind::ProviderLimit | Kind::ProviderAuth | Kind::ProviderTimeout | Kind::ProviderUnreachable => true,
            Kind::ProviderError => self.class().may_retry_elsewhere(),
            Kind::CallerAuth
            | Kind::CallerRequest
            | Kind::PolicyForbidden
            | Kind::PolicyLimit
            | Kind::PolicyBudget
            | Kind::CallerGone
            | Kind::GatewayFault => false,
        }
    }
}

/// When to come again for what is only held.
fn in_a_moment(cause: budget::Cause) -> Option<Duration> {
    cause.is_passing().then_some(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use adapters::Refusal;

    use super::*;

    fn refusal(status: u16, class: Class) -> Refusal {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let message = "m".to_owned();
        Refusal { class, status, retry_after: None, message, kind: None, code: Some("c".into()), param: None }
    }

    #[test]
    fn a_refusal_of_the_request_keeps_its_status_and_is_not_tried_elsewhere() {
        let fault = Fault::from(refusal(422, Class::BadRequest));
        assert_eq!((fault.status.as_u16(), fault.code.as_ref(), fault.may_retry_elsewhere()), (422, "c", false));
    }

    #[test]
    fn what_is_not_for_one_credential_may_be_for_another_and_cools_nothing() {
        for status in [403, 429] {
            let fault = Fault::from(refusal(status, Class::Denied));
            let told = (fault.status.as_u16(), fault.kind, fault.cause, fault.may_retry_elsewhere());
            assert_eq!(told, (status, Kind::ProviderError, None, true));
        }
        assert!(!Fault::from(refusal(403, Class::ContentPolicy)).may_retry_elsewhere());
    }

    #[test]
    fn a_refused_credential_is_never_a_401() {
        let fault = Fault::from(refusal(401, Class::Authorization));
        assert_eq!((fault.status.as_u16(), fault.kind), (502, Kind::ProviderAuth));
        assert!(fault.may_retry_elsewhere() && fault.message != "m");
    }

    #[test]
    fn the_body_has_openais_shape_and_a_string_for_a_code() {
        let body = Fault::auth("no").body(Dialect::OpenAi);
        let want = br#"{"error":{"message":"no","type":"authentication_error","param":null,"code":"invalid_api_key"}}"#;
        assert_eq!(body.as_ref(), want);
        let body = Fault::auth("no").body(Dialect::Anthropic);
        assert_eq!(body.as_ref(), br#"{"type":"error","error":{"type":"authentication_error","message":"no"}}"#);
    }
}
