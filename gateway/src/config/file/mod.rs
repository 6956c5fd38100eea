//! The configuration as it is written: every section, field, name and default, in one place. The doc of a field is
//! its description in the JSON Schema, and its default stands behind it. What the fields mean together is `check`'s.

mod allowance;
mod health;
mod model;
mod observability;
mod params;
mod pricing;
mod provider;
mod server;
mod store;
mod tenant;

use indexmap::IndexMap;

use super::read::{Read, section};

pub use allowance::{Budget, Every, Limits, OnExhaust, Quota, QuotaLimit, QuotaType, QuotaUnit, RateLimits};
pub use health::{Cooldown, Health, WhenAllCool};
pub use model::{
    Affinity, Balance, Fallbacks, Hedge, LONGEST_NAME, Model, ModelType, OnBusy, Retries, Target, Timeouts,
};
pub use observability::{LogBodies, Observability, Webhook};
pub use params::{ParameterRule, ParameterType, Params, Unsupported};
pub use pricing::{Currency, PriceTier, Pricing, Rounding, ServicePricing, ServiceTiers};
pub use provider::{Credential, HttpVersion, OnDisconnect, Provider};
pub use server::{Listener, Listeners, Server, Tls};
pub use store::{OnRedisLoss, Redis, Sentinel, Store};
pub use tenant::{ApiKey, CredentialSource, Prefer, Tenant, TenantProvider, Unpriced, Weekday};

section! {
    /// A configuration of Weir.
    pub struct Config {
        /// The version of this format.
        version: u32 = 1;
        /// The listeners and their limits.
        server: Server = Read::placeholder();
        /// Where the ledger, its counters and the history of configurations are kept.
        store: Store = Read::placeholder();
        /// Where requests can go, by name.
        providers: IndexMap<String, Provider>;
        /// What callers ask for. A name is unique within its type.
        models: Vec<Model>;
        /// Who may call, with which keys, limits and budgets.
        tenants: Vec<Tenant>;
        /// When a target is held to be ill, and for how long.
        health: Health = Read::placeholder();
        /// Logs, traces and what they may hold.
        observability: Observability = Read::placeholder();
    }
}
