//! A checksum on every value, over its key too: whatever the backend does with a damaged file, damage is noticed.

use super::StoreFault;

/// How many bytes a seal takes.
const LENGTH: usize = size_of::<u32>();

/// `value` with its seal behind it.
pub(super) fn close(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = sum(key, &value);
    value.extend_from_slice(&sum.to_le_bytes());
    value
}

/// The value without its seal.
pub(super) fn open(key: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, StoreFault> {
    let damaged = || StoreFault::Damaged(format!("the value under {} is not what was written", key.escape_ascii()));
    let (value, seal) = sealed.split_last_chunk::<LENGTH>().ok_or_else(damaged)?;
    if sum(key, value) != u32::from_le_bytes(*seal) {
        return Err(damaged());
    }
    sealed.truncate(sealed.len() - LENGTH);
    Ok(sealed)
}

fn sum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_sealed_comes_back_and_a_flipped_bit_is_noticed(
            key in proptest::collection::vec(any::<u8>(), 0..20),
            value in proptest::collection::vec(any::<u8>(), 0..200),
            bit in any::<prop::sample::Index>(),
        ) {
            let sealed = close(&key, value.clone());
            prop_assert_eq!(open(&key, sealed.clone()).ok(), Some(value));
            let mut damaged = sealed;
            let bit = bit.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(&key, damaged).is_err());
        }
    }

    #[test]
    fn a_value_under_another_key_is_damage() {
        assert!(open(b"other", close(b"key", b"value".to_vec())).is_err());
        assert!(open(b"key", b"abc".to_vec()).is_err());
    }
}
