//! `weir key`: mints virtual keys and hashes them. A key is shown once and kept nowhere.

use std::io::{self, Read as _};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use zeroize::Zeroizing;

use super::{INTERNAL_FAULT, WRONG_INPUT, complain, say};
use crate::config::{self, KeyHash};

/// What every key begins with, so that a leaked one is known for what it is.
const PREFIX: &str = "sk-weir-";

/// No key is longer.
const LONGEST: u64 = 4 << 10;

pub(super) fn new(tenant: Option<&str>) -> ExitCode {
    if let Some(fault) = tenant.and_then(config::fault_of_tenant_id) {
        complain(&format!("error: --tenant: {fault}\n"));
        return ExitCode::from(WRONG_INPUT);
    }
    let mut bytes = Zeroizing::new([0; 32]);
    if let Err(error) = rand::rngs::OsRng.try_fill_bytes(bytes.as_mut_slice()) {
        complain(&format!("error: the system gives no random bytes: {error}\n"));
        return ExitCode::from(INTERNAL_FAULT);
    }
    let key = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())));
    let hash = KeyHash::of(&key);
    if let Some(tenant) = tenant {
        complain(&format!("tenants:\n  - id: {tenant}\n    keys:\n      - {{id: new, hash: \"{hash}\"}}\n"));
    }
    let shown = Zeroizing::new(format!("key: {}\nhash: {hash}\n", key.as_str()));
    say(&shown)
}

pub(super) fn hash() -> ExitCode {
    let mut text = Zeroizing::new(String::new());
    if let Err(error) = io::stdin().lock().take(LONGEST).read_to_string(&mut text) {
        complain(&format!("error: cannot read the key: {error}\n"));
        return ExitCode::from(WRONG_INPUT);
    }
    let key = config::bare(&text);
    if key.is_empty() || key.contains(char::is_whitespace) {
        complain("error: give one key on standard input\n");
        return ExitCode::from(WRONG_INPUT);
    }
    say(&format!("{}\n", KeyHash::of(key)))
}
