//! The values of a configuration that carry a meaning: spans of time, sizes, counts, shares, money, secrets, hashes,
//! dates, addresses. Each knows how it is written, and says what it wanted when it is not.

mod access_log;
mod address;
mod affinity;
mod calendar;
mod count;
mod duration;
mod header;
mod json;
mod key_hash;
mod money;
mod percent;
mod scalar;
mod secret;
mod size;
mod unit;
mod upstream;
mod url;

pub use access_log::AccessLog;
pub use address::Address;
pub use affinity::AffinityBy;
pub use calendar::{Expiry, Zone};
pub use count::Count;
pub use duration::{Duration, DurationRange};
pub use header::Header;
pub use json::Json;
pub use key_hash::KeyHash;
pub use money::Money;
pub use percent::Percent;
pub use secret::{Secret, SecretError, bare};
pub use size::ByteSize;
pub use upstream::Upstream;
pub use url::{BaseUrl, Proxy};
