//! Who may call, with which keys and whose credentials.

use indexmap::IndexMap;

use super::{Budget, Credential, Limits, ModelType, Quota};
use crate::config::read::{Read, choices, section};
use crate::config::value::{BaseUrl, Expiry, KeyHash, Zone};

section! {
    /// Someone who may call.
    pub struct Tenant {
        /// Its name in keys, logs and metrics.
        id: String;
        /// Where its days and months begin.
        timezone: Zone = Zone::utc();
        /// The day on which its weeks begin.
        week_start: Weekday = Weekday::Monday;
        /// The models that it may call, `*` allowed; by default all.
        models: Option<Vec<String>> = None;
        /// Models that it may not call all the same.
        disabled_models: Vec<String> = Vec::new();
        /// The model for requests that name none, by type.
        default_models: IndexMap<ModelType, String> = IndexMap::new();
        /// Whose credentials come first; by default its own, if it has any.
        prefer: Option<Prefer> = None;
        /// Its own credentials, by provider.
        providers: IndexMap<String, TenantProvider> = IndexMap::new();
        /// What it may use of the operator's credentials; without any, as much as its limits and budgets allow.
        quotas: Vec<Quota> = Vec::new();
        /// Its limits over all its keys.
        limits: Limits = Read::placeholder();
        /// Its budgets over all its keys. Requests with its own credentials count in them too: a budget is about spending, a quota about the operator's credentials.
        budgets: Vec<Budget> = Vec::new();
        /// What becomes of a request under a budget, its own or its key's, where no price of the model is known.
        unpriced: Unpriced = Unpriced::Allow;
        /// Its keys.
        keys: Vec<ApiKey> = Vec::new();
    }
}

choices! {
    /// A day of the week.
    pub enum Weekday {
        /// Monday.
        Monday = "monday",
        /// Tuesday.
        Tuesday = "tuesday",
        /// Wednesday.
        Wednesday = "wednesday",
        /// Thursday.
        Thursday = "thursday",
        /// Friday.
        Friday = "friday",
        /// Saturday.
        Saturday = "saturday",
        /// Sunday.
        Sunday = "sunday",
    }
}

choices! {
    /// What becomes of a request under a budget where no price is known.
    pub enum Unpriced {
        /// It is served, its cost is `null`, and no budget counts it.
        Allow = "allow",
        /// It goes to a target with a price, or is refused.
        Refuse = "refuse",
    }
}

#[expect(clippy::derivable_impls, reason = "`choices!` derives the same for every enum")]
impl Default for Unpriced {
    fn default() -> Self {
        Self::Allow
    }
}

choices! {
    /// Whose credentials.
    pub enum CredentialSource {
        /// The operator's.
        System = "system",
        /// The tenant's own.
        Custom = "custom",
    }
}

/// Whose credentials come first: for every provider, or for each by its name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Prefer {
    /// For every provider.
    Always(CredentialSource),
    /// For these providers; for others as if nothing were said.
    For(IndexMap<String, CredentialSource>),
}

section! {
    /// A tenant's own way to a provider.
    pub struct TenantProvider {
        /// Its credentials.
        credentials: Vec<Credential>;
        /// Its own address for the provider. It never reaches a private host that `server.allow_private_upstreams` does not list.
        base_url: Option<BaseUrl> = None;
    }
}

section! {
    /// A virtual key.
    pub struct ApiKey {
        /// Its name in logs, metrics and the ledger; unique within its tenant.
        id: String;
        /// The hash of the key; `weir key new` mints one.
        hash: KeyHash;
        /// From when on it is refused.
        expires: Option<Expiry> = None;
        /// The models that it may call, of those that its tenant may.
        models: Option<Vec<String>> = None;
        /// Its own limits.
        limits: Option<Box<Limits>> = None;
        /// Its own budgets.
        budgets: Vec<Budget> = Vec::new();
        /// Whether its caller may choose the credential with `x-weir-credential`.
        choose_credential: bool = false;
    }
}
