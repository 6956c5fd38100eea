//! The names of the headers that Weir itself reads and writes.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue};

/// The request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The name that the model was asked for by.
pub const MODEL: HeaderName = HeaderName::from_static("x-weir-model");
/// Who answered.
pub const PROVIDER: HeaderName = HeaderName::from_static("x-weir-provider");
/// With which credential; in a request, the one that its caller wants.
pub const CREDENTIAL: HeaderName = HeaderName::from_static("x-weir-credential");
/// Whose it is, the operator's (`system`) or the tenant's own (`custom`), where there are both.
pub const CREDENTIAL_SOURCE: HeaderName = HeaderName::from_static("x-weir-credential-source");
/// How many attempts it took.
pub const ATTEMPTS: HeaderName = HeaderName::from_static("x-weir-attempts");
/// Weir's own share of the time, in microseconds.
pub const OVERHEAD: HeaderName = HeaderName::from_static("x-weir-overhead-us");
/// What the request cost, in dollars.
pub const COST: HeaderName = HeaderName::from_static("x-weir-cost-usd");
/// What the answer was cut to, so that a budget could pay for it.
pub const MAX_TOKENS: HeaderName = HeaderName::from_static("x-weir-max-tokens");
/// What the caller names its request with, for the ledger.
pub const TAGS: HeaderName = HeaderName::from_static("x-weir-tags");
/// Tells OpenAI's SDKs whether another try can help.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Parameters that the provider has no equal for.
pub const DROPPED: HeaderName = HeaderName::from_static("x-weir-dropped-params");
/// Whose fault an error is.
pub const ERROR: HeaderName = HeaderName::from_static("x-weir-error");
/// The provider's own id of the request.
pub const PROVIDER_REQUEST_ID: HeaderName = HeaderName::from_static("x-weir-provider-request-id");
/// How long the caller will wait, in milliseconds.
pub const TIMEOUT: HeaderName = HeaderName::from_static("x-weir-timeout-ms");
/// What the caller's related requests have in common, so that they go to one target.
pub const CACHE_AFFINITY: HeaderName = HeaderName::from_static("x-weir-cache-affinity");
/// The caller wants one attempt only.
pub const NO_RETRY: HeaderName = HeaderName::from_static("x-weir-no-retry");

/// Those of Weir's own that a caller may send.
pub const OF_CALLERS: [HeaderName; 5] = [TAGS, TIMEOUT, NO_RETRY, CREDENTIAL, CACHE_AFFINITY];

/// A whole number as a header's value. The value's own conversion takes two allocations.
#[must_use]
pub fn number(number: impl itoa::Integer) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number)).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Whether a header speaks of one connection to a provider: those that send requests write it, and nobody else.
#[must_use]
pub fn is_of_the_connection(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 11] = [
        HOST,
        CONTENT_LENGTH,
        CONNECTION,
        TRANSFER_ENCODING,
        TE,
        TRAILER,
        UPGRADE,
        EXPECT,
        PROXY_AUTHORIZATION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    OURS.contains(name)
}
