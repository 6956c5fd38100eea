//! Signatures of thinking blocks: each can be checked by itself, and tells which text it was made for.
//! A block that comes back with a signature that was not made here, or for another text, is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::text::Seed;

/// What a signature is made with.
const SECRET: u64 = 0x5157_4549_5251_u64;

/// How long a signature is; real ones are longer than a line too.
const LENGTH: usize = 96;

/// The signature of `thinking`.
pub(super) fn sign(thinking: &str) -> String {
    signature(Seed::of(thinking.as_bytes()))
}

/// Whether `signature` was made here for `thinking`, or, where the text is empty as under `display: omitted`, for any.
pub(super) fn is_ours(signature_given: &str, thinking: &str) -> bool {
    let Ok(bytes) = STANDARD.decode(signature_given) else {
        return false;
    };
    let Some(seed) = bytes.first_chunk::<8>().map(|seed| u64::from_le_bytes(*seed)) else {
        return false;
    };
    let text = Seed::of(thinking.as_bytes());
    (thinking.is_empty() || text.value() == seed) && signature_of(seed) == signature_given
}

fn signature(seed: Seed) -> String {
    signature_of(seed.value())
}

fn signature_of(seed: u64) -> String {
    let mut bytes = seed.to_le_bytes().to_vec();
    let mut pool = Seed::of(&bytes).with(SECRET);
    while bytes.len() < LENGTH {
        pool = pool.with(SECRET);
        bytes.extend_from_slice(&pool.value().to_le_bytes());
    }
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_own_text_only() {
        let signature = sign("some thought");
        assert!(is_ours(&signature, "some thought"));
        assert!(is_ours(&signature, ""));
        assert!(!is_ours(&signature, "another thought"));
        assert!(!is_ours("c29tZXRoaW5nIGVsc2U=", ""));
        let mut changed = signature;
        changed.replace_range(40..41, if changed.as_bytes()[40] == b'A' { "B" } else { "A" });
        assert!(!is_ours(&changed, "some thought"));
    }
}
