//! Whose credential a request uses, the operator's ("system") or the tenant's own ("custom"), and why none can be used.
//! Pure: the truth table in one function.

use http::StatusCode;
use jiff::Timestamp;

use crate::access::Tenant;
use crate::budget::{Cause, QuotaState};
use crate::config::CredentialSource::{self, Custom, System};
use crate::config::Prefer;
use crate::error::{Fault, Kind};
use crate::model::snapshot::Target;

/// How the operator's credentials stand for one tenant at one provider's model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// There are none.
    Missing,
    /// The tenant's quotas do not reach this model.
    NoQuota,
    /// Its quotas are used up.
    Spent,
    /// They may be used.
    Valid,
}

/// Why a model cannot be used. Of several reasons the first of this order is told, but for `Active`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelStatus {
    /// The tenant has switched it off.
    Disabled,
    /// The key may not call it.
    NoPermission,
    /// The quota is used up, and the tenant has no credential of its own.
    QuotaExceeded,
    /// Its credentials were taken out of service.
    CredentialRemoved,
    /// There is no credential for it.
    NoConfigure,
    /// It can be used.
    Active,
}

/// How the operator's credentials stand for `tenant` at the model of `target`, with `rest` in the place of its `*`.
#[must_use]
pub fn offer(tenant: &Tenant, target: &Target, rest: &str, now: Timestamp) -> Offer {
    let Some(quotas) = tenant.quotas.get(&target.provider.name) else {
        return Offer::Valid;
    };
    match quotas.state(&target.model.filled(rest), now) {
        QuotaState::Unlimited | QuotaState::Valid => Offer::Valid,
        QuotaState::Exceeded => Offer::Spent,
        QuotaState::NotForModel => Offer::NoQuota,
    }
}

/// Whose credentials a request may use: the first while it works, then the next. One that is preferred is not used when
/// there is none, or no quota for it.
///
/// # Errors
/// Nobody's.
pub fn order(
    preferred: CredentialSource,
    has_custom: bool,
    offer: Offer,
) -> Result<&'static [CredentialSource], ModelStatus> {
    match (preferred, has_custom, offer) {
        (System, true, Offer::Valid) => Ok(&[System, Custom]),
        (Custom, true, Offer::Valid) => Ok(&[Custom, System]),
        (_, true, Offer::Spent | Offer::NoQuota | Offer::Missing) => Ok(&[Custom]),
        (_, false, Offer::Valid) => Ok(&[System]),
        (_, false, Offer::Spent) | (System, false, Offer::NoQuota) => Err(ModelStatus::QuotaExceeded),
        (Custom, false, Offer::NoQuota) | (_, false, Offer::Missing) => Err(ModelStatus::NoConfigure),
    }
}

/// What a tenant prefers at a provider: what it has `chosen`, else its own if it has any.
#[must_use]
pub fn preferred(chosen: Option<&Prefer>, provider: &str, has_custom: bool) -> CredentialSource {
    let chosen = match chosen {
        Some(Prefer::Always(source)) => Some(*source),
        Some(Prefer::For(map)) => map.get(provider).copied(),
        None => None,
    };
    chosen.unwrap_or(if has_custom { Custom } else { System })
}

impl ModelStatus {
    /// What the caller is told; `None` for a model that can be used.
    #[must_use]
    pub fn fault(self, model: &str) -> Option<Fault> {
        let forbidden = |code, message: String| {
            Some(Fault::new(Kind::PolicyForbidden, StatusCode::FORBIDDEN, code, message).of_param("model"))
        };
        match self {
            Self::Active => None,
            Self::Disabled => forbidden("model_disabled", format!("The model `{model}` is disabled.")),
            Self::NoPermission => forbidden("model_not_allowed", format!("This key may not call the model `{model}`.")),
            Self::QuotaExceeded => Some(Fault::quota_exceeded(Cause::Spent)),
            Self::CredentialRemoved => forbidden(
                "credential_removed",
                format!("The credentials of the model `{model}` were taken out of service."),
            ),
            Self::NoConfigure => {
                forbidden("model_not_configured", format!("There is no credential for the model `{model}`."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Preferred, whether it has its own, how the operator's stand: which are used, in this order.
    type Row = (CredentialSource, bool, Offer, Result<&'static [CredentialSource], ModelStatus>);

    #[test]
    fn the_truth_table() {
        let (exceeded, none) = (Err(ModelStatus::QuotaExceeded), Err(ModelStatus::NoConfigure));
        let table: [Row; 16] = [
            (System, true, Offer::Valid, Ok(&[System, Custom])),
            (System, true, Offer::Spent, Ok(&[Custom])),
            (System, true, Offer::NoQuota, Ok(&[Custom])),
            (System, true, Offer::Missing, Ok(&[Custom])),
            (System, false, Offer::Valid, Ok(&[System])),
            (System, false, Offer::Spent, exceeded),
            (System, false, Offer::NoQuota, exceeded),
            (System, false, Offer::Missing, none),
            (Custom, true, Offer::Valid, Ok(&[Custom, System])),
            (Custom, true, Offer::Spent, Ok(&[Custom])),
            (Custom, true, Offer::NoQuota, Ok(&[Custom])),
            (Custom, true, Offer::Missing, Ok(&[Custom])),
            (Custom, false, Offer::Valid, Ok(&[System])),
            (Custom, false, Offer::Spent, exceeded),
            (Custom, false, Offer::NoQuota, none),
            (Custom, false, Offer::Missing, none),
        ];
        for (preferred, has_custom, offer, want) in table {
            assert_eq!(order(preferred, has_custom, offer), want, "{preferred:?}, {has_custom}, {offer:?}");
        }
    }

    #[test]
    fn of_several_reasons_the_one_that_comes_first_is_told() {
        use ModelStatus::{Active, CredentialRemoved, Disabled, NoConfigure, NoPermission, QuotaExceeded};
        let order = [Disabled, NoPermission, QuotaExceeded, CredentialRemoved, NoConfigure, Active];
        assert!(order.is_sorted());
        let codes: Vec<_> = order.iter().filter_map(|status| status.fault("m")).map(|fault| fault.code).collect();
        assert_eq!(
            codes,
            ["model_disabled", "model_not_allowed", "insufficient_quota", "credential_removed", "model_not_configured"]
        );
    }
}
