//! What providers' answers and the adapters' errors are as faults.

use std::borrow::Cow;

use adapters::refusal::Class;
use adapters::request::RequestError;
use adapters::{DecodeError, EncodeError, Refusal, StreamFault};
use http::StatusCode;

use super::{Cause, Fault, Kind};

/// A provider's refusal as the caller sees it: Weir's own credential trouble is never a 401, the provider's failures
/// are a 502, and a 4xx about the request keeps its status.
impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let mut fault = match refusal.class {
            Class::RateLimit | Class::Quota => {
                Self::new(Kind::ProviderLimit, StatusCode::TOO_MANY_REQUESTS, "provider_rate_limited", refusal.message)
            }
            Class::Authorization => {
                let message = "The provider refused the gateway's credential.";
                Self::new(Kind::ProviderAuth, StatusCode::BAD_GATEWAY, "provider_auth_failed", message)
                    .with_detail(refusal.message)
            }
            Class::Server if !refusal.status.is_client_error() => {
                Self::new(Kind::ProviderError, StatusCode::BAD_GATEWAY, "provider_error", refusal.message)
                    .with_detail(format!("provider status {}", refusal.status))
            }
            Class::ContextLength => Self {
                code: Cow::Borrowed("context_length_exceeded"),
                ..refused(refusal.status, refusal.message, refusal.code)
            },
            Class::BadRequest | Class::ContentPolicy | Class::Denied | Class::NotFound | Class::Server => {
                refused(refusal.status, refusal.message, refusal.code)
            }
        };
        fault.retry_after = refusal.retry_after;
        fault.cause = Cause::of(refusal.class);
        fault.refused = Some((refusal.status, refusal.class));
        if fault.kind == Kind::ProviderError {
            fault.error_type = refusal.kind;
            fault.param = refusal.param;
        }
        fault
    }
}

/// A status that is no error of the request, as a redirect that is not followed, is the provider's fault.
fn refused(status: StatusCode, message: String, code: Option<String>) -> Fault {
    let status = if status.is_client_error() { status } else { StatusCode::BAD_GATEWAY };
    let mut fault = Fault::new(Kind::ProviderError, status, "provider_error", message);
    if let Some(code) = code {
        fault.code = Cow::Owned(code);
    }
    fault
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        let fault = Self::request(StatusCode::BAD_REQUEST, "invalid_request", error.to_string());
        match error {
            RequestError::Json(_) => fault,
            RequestError::Type { field, .. } => fault.of_param(field),
        }
    }
}

impl From<EncodeError> for Fault {
    fn from(error: EncodeError) -> Self {
        let (code, param, message) = match error {
            EncodeError::Invalid { param, message } => ("invalid_request", param, message),
            EncodeError::Unsupported { param, message } => ("unsupported_parameter", param, message),
        };
        Self::request(StatusCode::BAD_REQUEST, code, message).of_param(param)
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Refused(refusal) => (*refusal).into(),
            DecodeError::Malformed(what) => malformed(what),
        }
    }
}

impl From<StreamFault> for Fault {
    fn from(fault: StreamFault) -> Self {
        match fault {
            StreamFault::Refused(refusal) => (*refusal).into(),
            StreamFault::Malformed(what) => malformed(what),
            StreamFault::Incomplete => incomplete("the body ended early"),
            StreamFault::Absent => unfit("The provider answered without an event of a stream.", "the body ended"),
        }
    }
}

/// The provider's answer cannot be read.
fn malformed(what: String) -> Fault {
    unfit("The provider's answer cannot be read.", what)
}

/// What the provider answered is not what it was asked for.
#[must_use]
pub fn unfit(message: impl Into<String>, detail: impl Into<String>) -> Fault {
    Fault::new(Kind::ProviderError, StatusCode::BAD_GATEWAY, "provider_error", message)
        .with_detail(detail)
        .because(Cause::Server)
}

/// The provider's answer broke off.
#[must_use]
pub fn incomplete(detail: impl Into<String>) -> Fault {
    unfit("The provider's answer broke off before it was complete.", detail)
}
