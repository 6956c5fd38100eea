//! Providers and their credentials.

use super::{At, Check, near};
use crate::config::file::{Credential, Provider};
use crate::config::preset::{Auth, Manifest, Manifests};
use crate::config::value::Secret;
use crate::headers;

/// A credential's id goes out in a header, and into metrics.
const LONGEST_ID: usize = 64;

pub(super) fn providers(check: &mut Check<'_>, at: &At<'_>) {
    let config = check.config;
    for (name, provider) in &config.providers {
        let at = at.key(name);
        if name.contains('/') {
            check.fault(&at, "a provider's name has no `/`", "callers write `provider/model`".to_owned());
        }
        if !is_id(name) {
            check.fault(&at, bad_id("a provider's name"), None);
        }
        kind(check, name, provider, &at);
        for (header, value) in &provider.headers {
            if headers::is_of_the_connection(&header.0) {
                let message = "this header cannot be set: Weir writes it for each connection";
                check.fault(&at.key("headers").key(header.0.as_str()), message, None);
            }
            if let Secret::Literal(text) = value
                && http::HeaderValue::try_from(text.as_str()).is_err()
            {
                check.fault(&at.key("headers").key(header.0.as_str()), "this text cannot be sent in a header", None);
            }
        }
        credentials(check, &provider.credentials, &at.key("credentials"));
    }
}

/// The kind must be known and spoken, and it must be known where the provider is.
fn kind(check: &mut Check<'_>, name: &str, provider: &Provider, at: &At<'_>) {
    let manifests = check.manifests;
    let kind = provider.kind.as_deref().unwrap_or(name);
    let manifest = manifests.get(kind);
    if manifest.is_none() && !Manifests::is_dialect(kind) {
        return unknown_kind(check, kind, provider, at);
    }
    let dialect = manifest.map_or(kind, |manifest| manifest.kind.as_str());
    if adapters::provider::of_kind(dialect).is_none() {
        let written = at.key("kind");
        let at = if provider.kind.is_some() { &written } else { at };
        return check.fault(at, format!("this version of Weir does not speak `{dialect}`"), None);
    }
    if provider.simulated {
        return;
    }
    if provider.base_url.is_none() && manifest.is_none_or(|manifest| manifest.base_url.is_none()) {
        let help = format!("`{kind}` has no common address; give your own, such as `base_url: https://…`");
        check.fault(at, "`base_url` is missing", help);
    }
    if let Some(manifest) = manifest {
        keyless(check, name, provider, manifest, at);
    }
}

fn unknown_kind(check: &mut Check<'_>, kind: &str, provider: &Provider, at: &At<'_>) {
    let help = near(kind, check.manifests.names());
    match provider.kind {
        Some(_) => check.fault(&at.key("kind"), format!("there is no kind `{kind}`"), help),
        None => {
            let help = help.map(|h| format!("{h} Else write")).unwrap_or_else(|| "write".to_owned());
            check.fault(
                at,
                format!("`kind` is missing: Weir knows no provider `{kind}`"),
                format!("{help} `kind: openai` if it speaks OpenAI's API"),
            );
        }
    }
}

/// A public provider without any credential will refuse every request.
fn keyless(check: &mut Check<'_>, name: &str, provider: &Provider, manifest: &Manifest, at: &At<'_>) {
    let needs_none = matches!(manifest.auth, Some(Auth::None)) || provider.base_url.is_some();
    let tenants = || check.config.tenants.iter().any(|tenant| tenant.providers.contains_key(name));
    if !needs_none && provider.credentials.is_empty() && provider.headers.is_empty() && !tenants() {
        let help = "add `credentials: [{id: main, api_key: env:NAME}]`".to_owned();
        check.warn(at, format!("there is no credential for {}, and none will be sent", manifest.label), help);
    }
}

/// The credentials of one provider, the operator's or a tenant's.
pub(super) fn credentials(check: &mut Check<'_>, credentials: &[Credential], at: &At<'_>) {
    check.unique(credentials.iter().map(|c| (c.id.as_str(), c.id.clone())), at, "id", "the credential");
    for (i, credential) in credentials.iter().enumerate() {
        self::credential(check, credential, &at.index(i));
    }
    let mut used = credentials.iter().filter(|credential| credential.enabled).peekable();
    if used.peek().is_some() && used.all(|credential| credential.weight == 0) {
        check.fault(at, "every credential has weight 0", "give one of them a weight".to_owned());
    }
}

fn credential(check: &mut Check<'_>, credential: &Credential, at: &At<'_>) {
    if !credential.id.is_empty() && !is_id(&credential.id) {
        check.fault(&at.key("id"), bad_id("a credential's id"), None);
    }
    let secrets = [
        ("api_key", &credential.api_key),
        ("access_key_id", &credential.access_key_id),
        ("secret_access_key", &credential.secret_access_key),
        ("session_token", &credential.session_token),
        ("service_account", &credential.service_account),
    ];
    for (key, secret) in secrets {
        // The id of an access key is no secret.
        if key != "access_key_id" {
            check.secret(secret.as_ref(), &at.key(key));
        }
    }
    match (&credential.access_key_id, &credential.secret_access_key) {
        (Some(_), None) => check.fault(at, "`secret_access_key` is missing", None),
        (None, Some(_)) => check.fault(at, "`access_key_id` is missing", None),
        (None, None) | (Some(_), Some(_)) => {}
    }
    if secrets.iter().all(|(_, secret)| secret.is_none()) {
        check.fault(at, "this credential holds no secret", "add `api_key: env:NAME`".to_owned());
    }
}

/// Whether a name can stand in a header and in a metric's label.
pub(super) fn is_id(id: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'@' | b'/');
    !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(fits)
}

pub(super) fn bad_id(what: &str) -> String {
    format!("{what} is 1 to {LONGEST_ID} letters, digits and `-_.:@/`")
}
