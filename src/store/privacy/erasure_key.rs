//! The key of the hashes by which erased users are remembered. It never reaches the database.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The size of a hash.
pub const HASH_BYTES: usize = 32;

/// The shortest key, in bytes of its text.
pub const MIN_KEY_BYTES: usize = 32;

/// The HMAC-SHA-256 under the key of `privacy.erasure_key_file`.
#[derive(Clone)]
pub struct ErasureKey(Hmac<Sha256>);

impl fmt::Debug for ErasureKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The text of a key has fewer than [`MIN_KEY_BYTES`] bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must hold at least {MIN_KEY_BYTES} characters, holds {0}")]
pub struct KeyTooShort(usize);

impl ErasureKey {
    /// # Errors
    /// [`KeyTooShort`].
    pub fn new(text: &str) -> Result<Self, KeyTooShort> {
        if text.len() < MIN_KEY_BYTES {
            return Err(KeyTooShort(text.len()));
        }
        Ok(Self(
            Hmac::new_from_slice(text.as_bytes()).expect("takes a key of any length"),
        ))
    }

    /// Returns the hash under which the erasure of the user with this external id is remembered.
    pub fn hash(&self, user: &str) -> [u8; HASH_BYTES] {
        self.hash_text("user:", user)
    }

    /// Returns the hash of a fixed text, by which two keys are told apart.
    pub fn check_value(&self) -> [u8; HASH_BYTES] {
        self.hash_text("check:", "likemind erasures")
    }

    fn hash_text(&self, kind: &str, text: &str) -> [u8; HASH_BYTES] {
        let mut mac = self.0.clone();
        mac.update(kind.as_bytes());
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_hmac_sha_256_and_depends_on_the_key() {
        let key = ErasureKey::new("0123456789abcdef0123456789abcdef").unwrap();
        // printf 'user:u-1' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let expected = "e8651ff36e3aebb84877579d1311d04ada17bdf3b3b882c7663dc473dace634e";
        let hash = |key: &ErasureKey| -> String { key.hash("u-1").iter().map(|byte| format!("{byte:02x}")).collect() };
        assert_eq!(hash(&key), expected);
        let other = ErasureKey::new("0123456789abcdef0123456789abcdeF").unwrap();
        assert_ne!(hash(&other), expected);
        assert_ne!(key.check_value(), other.check_value());
        assert_eq!(format!("{key:?}"), "[redacted]");
    }

    #[test]
    fn a_short_key_is_refused() {
        assert_eq!(ErasureKey::new("0123456789abcdef").unwrap_err(), KeyTooShort(16));
    }
}
