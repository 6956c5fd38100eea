//! What is posted of an alert: its body, its id, and the signature by which its receiver knows who sent it. Pure.
//!
//! Ids and signatures are those of the Standard Webhooks scheme, which has libraries in most languages.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use ring::hmac;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::budget::{Alert, Owner, Threshold};
use crate::config::Every;
use crate::ledger::dollars;

/// What a secret may begin with; the rest is base64.
const SECRET_PREFIX: &str = "whsec_";

/// A secret of fewer bytes can be guessed.
const LEAST_SECRET: usize = 16;

/// So many of its hash's bytes name an event.
const ID_BYTES: usize = 16;

/// One alert, ready to be posted.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    /// The same for the same account, window, threshold and limit, whichever gateway tells of it.
    pub(super) id: String,
    /// JSON.
    pub(super) body: Bytes,
}

/// The body.
#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    account: &'a str,
    tenant: &'a str,
    key: Option<&'a str>,
    window: Window,
    #[serde(serialize_with = "dollars")]
    limit_usd: Option<i64>,
    /// Of all gateways, as far as they have said.
    #[serde(serialize_with = "dollars")]
    used_usd: Option<i64>,
    /// Used of the limit: 0.8123.
    share: f64,
}

#[derive(Serialize)]
struct Window {
    every: Every,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Notice {
    /// What is told of `alert` at `now`.
    pub(super) fn of(alert: &Alert, now: Timestamp) -> Self {
        let (tenant, key) = match &alert.owner {
            Owner::Tenant(tenant) => (tenant.as_ref(), None),
            Owner::Key(tenant, key) => (tenant.as_ref(), Some(key.as_ref())),
            Owner::Limit => ("", None),
        };
        let id = id(alert);
        let event = Event {
            id: &id,
            event: event(alert.threshold),
            timestamp: now,
            data: Data {
                account: &alert.account,
                tenant,
                key,
                window: Window {
                    every: alert.every,
                    from: Timestamp::from_second(alert.window.start).ok(),
                    to: alert.window.ends_at(),
                },
                limit_usd: Some(alert.limit),
                used_usd: Some(alert.used),
                share: share(alert.used, alert.limit),
            },
        };
        let body = serde_json::to_vec(&event).unwrap_or_default().into();
        Self { id, body }
    }
}

fn event(threshold: Threshold) -> &'static str {
    match threshold {
        Threshold::Soft => "budget.soft",
        Threshold::Spent => "budget.spent",
    }
}

fn id(alert: &Alert) -> String {
    let what = format!("{}\0{}\0{}\0{}", alert.account, alert.window.start, alert.threshold.name(), alert.limit);
    let hash = Sha256::digest(what);
    hash.iter().take(ID_BYTES).fold("evt_".to_owned(), |mut id, byte| {
        let _infallible = write!(id, "{byte:02x}");
        id
    })
}

#[expect(clippy::cast_precision_loss, reason = "four digits are told")]
fn share(used: i64, limit: i64) -> f64 {
    if limit <= 0 { 1.0 } else { (used as f64 / limit as f64 * 1e4).round() / 1e4 }
}

/// Signs what is posted.
#[derive(Clone, Debug)]
pub(super) struct Signer(hmac::Key);

/// A text is no secret to sign with.
#[derive(Debug, thiserror::Error)]
#[error(
    "a secret to sign with is at least {LEAST_SECRET} bytes in base64, with or without `{SECRET_PREFIX}` before it"
)]
pub struct BadSecret;

impl Signer {
    /// Reads a secret as it is written: `whsec_…`.
    pub(super) fn new(secret: &str) -> Result<Self, BadSecret> {
        let text = secret.trim();
        let bytes = STANDARD.decode(text.strip_prefix(SECRET_PREFIX).unwrap_or(text)).map_err(|_| BadSecret)?;
        if bytes.len() < LEAST_SECRET {
            return Err(BadSecret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature` for a notice that is sent in this second.
    pub(super) fn sign(&self, notice: &Notice, second: i64) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(format!("{}.{second}.", notice.id).as_bytes());
        signing.update(&notice.body);
        format!("v1,{}", STANDARD.encode(signing.sign()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::budget;

    pub(crate) fn alert() -> Alert {
        Alert {
            threshold: Threshold::Soft,
            account: "key/acme/ci/usd/day".into(),
            owner: Owner::Key("acme".into(), "ci".into()),
            every: Every::Day,
            window: budget::Window { start: 1_792_879_200, end: 1_792_969_200 },
            used: 40_615_000_000,
            limit: 50_000_000_000,
        }
    }

    #[test]
    fn a_notice_says_whose_budget_stands_how() {
        let notice = Notice::of(&alert(), "2026-10-25T12:00:00Z".parse().unwrap());
        let expected = format!(
            concat!(
                r#"{{"id":"{}","type":"budget.soft","timestamp":"2026-10-25T12:00:00Z","data":{{"#,
                r#""account":"key/acme/ci/usd/day","tenant":"acme","key":"ci","window":{{"every":"day","#,
                r#""from":"2026-10-24T22:00:00Z","to":"2026-10-25T23:00:00Z"}},"limit_usd":50,"used_usd":40.615,"share":0.8123}}}}"#
            ),
            notice.id
        );
        assert_eq!(std::str::from_utf8(&notice.body).unwrap(), expected);
    }

    #[test]
    fn an_id_names_account_window_threshold_and_limit_and_nothing_else() {
        let id = |change: fn(&mut Alert)| {
            let mut alert = alert();
            change(&mut alert);
            Notice::of(&alert, Timestamp::now()).id
        };
        let known = id(|_| ());
        assert_eq!(known, id(|alert| alert.used += 1));
        let others: [fn(&mut Alert); 4] = [
            |alert| alert.account = "tenant/acme/usd/day".into(),
            |alert| alert.window.start += 86_400,
            |alert| alert.threshold = Threshold::Spent,
            |alert| alert.limit += 1,
        ];
        assert!(others.into_iter().all(|other| id(other) != known));
    }

    #[test]
    fn a_signature_is_that_of_the_standards_own_example() {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = Bytes::from_static(br#"{"test": 2432232314}"#);
        let notice = Notice { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(), body };
        assert_eq!(signer.sign(&notice, 1_614_265_330), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "whsec_", "hello", "whsec_c2hvcnQ=", "not base64 at all, not at all"] {
            assert!(Signer::new(text).is_err(), "{text}");
        }
    }
}
