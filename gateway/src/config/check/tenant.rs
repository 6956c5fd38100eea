//! Tenants, their keys, limits and budgets.

use std::collections::HashMap;
use std::net::IpAddr;

use super::provider::{bad_id, credentials, is_id};
use super::{At, Check, matches};
use crate::address::is_public;
use crate::config::file::{ApiKey, Budget, CredentialSource, Limits, Prefer, Tenant, TenantProvider};
use crate::config::value::{BaseUrl, KeyHash, Upstream};

/// What is wrong with a tenant's id, if anything.
#[must_use]
pub fn fault_of_tenant_id(id: &str) -> Option<String> {
    (!is_id(id)).then(|| bad_id("a tenant's id"))
}

pub(super) fn tenants(check: &mut Check<'_>, at: &At<'_>) {
    let tenants = &check.config.tenants;
    check.unique(tenants.iter().map(|t| (t.id.as_str(), t.id.clone())), at, "id", "the tenant");
    for (i, tenant) in tenants.iter().enumerate() {
        self::tenant(check, tenant, &at.index(i));
    }
    hashes(check, at);
}

fn tenant(check: &mut Check<'_>, tenant: &Tenant, at: &At<'_>) {
    if !tenant.id.is_empty() && !is_id(&tenant.id) {
        check.fault(&at.key("id"), bad_id("a tenant's id"), None);
    }
    names(check, tenant.models.as_deref().unwrap_or_default(), &at.key("models"));
    names(check, &tenant.disabled_models, &at.key("disabled_models"));
    defaults(check, tenant, &at.key("default_models"));
    providers(check, tenant, at);
    limits(check, &tenant.limits, &at.key("limits"));
    budgets(check, &tenant.budgets, &at.key("budgets"), |model| may_call(tenant, model));
    let keys = at.key("keys");
    check.unique(tenant.keys.iter().map(|key| (key.id.as_str(), key.id.clone())), &keys, "id", "the key");
    for (i, key) in tenant.keys.iter().enumerate() {
        self::key(check, tenant, key, &keys.index(i));
    }
}

fn names(check: &mut Check<'_>, names: &[String], at: &At<'_>) {
    for (i, name) in names.iter().enumerate() {
        check.model(name, None, &at.index(i));
    }
}

fn defaults(check: &mut Check<'_>, tenant: &Tenant, at: &At<'_>) {
    for (model_type, name) in &tenant.default_models {
        let at = at.key(model_type.as_str());
        if !check.model(name, Some(*model_type), &at) {
            continue;
        }
        if !may_call(tenant, name) {
            check.fault(&at, format!("this tenant may not call `{name}`"), "add it to `models`".to_owned());
        }
    }
}

fn may_call(tenant: &Tenant, name: &str) -> bool {
    let allowed = tenant.models.as_ref().is_none_or(|models| allows(models, name));
    allowed && !tenant.disabled_models.iter().any(|disabled| matches(disabled, name))
}

/// Whether a list of names and patterns has this one; a pattern may also be one of the list's own.
fn allows(models: &[String], name: &str) -> bool {
    models.iter().any(|allowed| matches(allowed, name))
}

fn providers(check: &mut Check<'_>, tenant: &Tenant, at: &At<'_>) {
    let own = at.key("providers");
    for (name, provider) in &tenant.providers {
        let at = own.key(name);
        check.provider(name, &at);
        self::provider(check, provider, &at);
    }
    let quotas = at.key("quotas");
    for (i, quota) in tenant.quotas.iter().enumerate() {
        let at = quotas.index(i);
        check.provider(&quota.provider, &at.key("provider"));
        if quota.expires.is_some_and(|expires| expires.is_past(check.now)) {
            check.warn(&at.key("expires"), "this quota has expired", None);
        }
    }
    if let Some(prefer) = &tenant.prefer {
        self::prefer(check, tenant, prefer, &at.key("prefer"));
    }
}

fn provider(check: &mut Check<'_>, provider: &TenantProvider, at: &At<'_>) {
    credentials(check, &provider.credentials, &at.key("credentials"));
    let Some(url) = &provider.base_url else {
        return;
    };
    if is_private(url.host()) && !is_listed(url, &check.config.server.allow_private_upstreams) {
        let help = "list it under `server.allow_private_upstreams`".to_owned();
        check.fault(&at.key("base_url"), "a tenant's own address may not be a private one", help);
    }
}

fn prefer(check: &mut Check<'_>, tenant: &Tenant, prefer: &Prefer, at: &At<'_>) {
    match prefer {
        Prefer::Always(CredentialSource::Custom) if tenant.providers.is_empty() => {
            check.warn(at, "this tenant has no credentials of its own", None);
        }
        Prefer::Always(_) => {}
        Prefer::For(map) => {
            for name in map.keys() {
                check.provider(name, &at.key(name));
            }
        }
    }
}

fn limits(check: &mut Check<'_>, limits: &Limits, at: &At<'_>) {
    let models = at.key("per_model");
    for name in limits.per_model.keys() {
        let at = models.key(name);
        if check.model(name, None, &at) && name.contains('*') && !check.names.is_one(name) {
            let help = "name each model, or one whose own name has this `*`".to_owned();
            check.fault(&at, format!("a limit holds for one model, and there is none named `{name}`"), help);
        }
    }
}

fn budgets(check: &mut Check<'_>, budgets: &[Budget], at: &At<'_>, may_call: impl Fn(&str) -> bool) {
    for (i, budget) in budgets.iter().enumerate() {
        let Some(instead) = &budget.on_exhaust else { continue };
        let (at, name) = (at.index(i), &instead.model);
        let at = at.key("on_exhaust");
        let at = at.key("model");
        if check.model(name, None, &at) && !may_call(name) {
            check.warn(&at, format!("`{name}` never answers instead, since these callers may not call it"), None);
        }
    }
}

fn key(check: &mut Check<'_>, tenant: &Tenant, key: &ApiKey, at: &At<'_>) {
    if !key.id.is_empty() && !is_id(&key.id) {
        check.fault(&at.key("id"), bad_id("a key's id"), None);
    }
    if key.expires.is_some_and(|expires| expires.is_past(check.now)) {
        check.warn(&at.key("expires"), "this key has expired", None);
    }
    let models = at.key("models");
    for (i, name) in key.models.iter().flatten().enumerate() {
        let at = models.index(i);
        if !check.model(name, None, &at) {
            continue;
        }
        // A pattern of the key's may be wider than the tenant's: what counts is what both allow.
        let refused = tenant.models.as_ref().is_some_and(|allowed| !allows(allowed, name));
        if refused && !name.contains('*') {
            check.fault(&at, format!("the tenant `{}` may not call `{name}`", tenant.id), None);
        }
    }
    if let Some(limits) = &key.limits {
        self::limits(check, limits, &at.key("limits"));
    }
    let allowed = |model: &str| key.models.as_ref().is_none_or(|models| allows(models, model));
    budgets(check, &key.budgets, &at.key("budgets"), |model| may_call(tenant, model) && allowed(model));
}

/// One key cannot be two.
fn hashes(check: &mut Check<'_>, at: &At<'_>) {
    let mut seen: HashMap<&KeyHash, (&str, &str)> = HashMap::new();
    for (i, tenant) in check.config.tenants.iter().enumerate() {
        let tenant_at = at.index(i);
        let keys = tenant_at.key("keys");
        for (j, key) in tenant.keys.iter().enumerate() {
            if let Some((id, of)) = seen.insert(&key.hash, (&key.id, &tenant.id)) {
                let at = keys.index(j);
                check.fault(&at.key("hash"), format!("this is also the hash of key `{id}` of tenant `{of}`"), None);
            }
        }
    }
}

/// Whether a host is plainly private as it is written. What a name resolves to is looked at when it is called.
fn is_private(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => !is_public(address),
        Err(_) => is_private_name(&host.trim_end_matches('.').to_ascii_lowercase()),
    }
}

/// A name without a dot is one of this network; `2130706433`, `0x7f.1` and `127.1` are addresses to some resolvers.
fn is_private_name(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    !name.contains('.') || is_number || matches!(last, "localhost" | "internal" | "local")
}

fn is_listed(url: &BaseUrl, allowed: &[Upstream]) -> bool {
    allowed.iter().any(|upstream| upstream.covers(url.host()))
}
