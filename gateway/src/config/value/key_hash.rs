//! Virtual keys, of which only the hash is known.

use std::fmt;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::scalar::{Scalar, scalar};

scalar!(KeyHash);

/// The SHA-256 of a virtual key, written `sha256:` and 64 hexadecimal digits. The key itself is kept nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key as the caller sends it.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Scalar for KeyHash {
    const WANTED: &'static str = "`sha256:` and 64 hexadecimal digits";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let mint = || Some("`weir key hash` makes it from a key".to_owned());
        let digits = text.strip_prefix("sha256:").ok_or_else(mint)?;
        if digits.len() != 64 {
            return Err(mint());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair =
                std::str::from_utf8(pair).ok().filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(mint)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| mint())?;
        }
        Ok(Self(hash))
    }

    fn stand_in() -> Self {
        Self([0; 32])
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$", "description": "The SHA-256 of a virtual key; `weir key new` and `weir key hash` give it."})
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
