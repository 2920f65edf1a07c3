//! API keys: `lm_<id>_<secret>`.
//!
//! The id is public and names the key. The secret is shown once, when the key is made; only its hash is stored.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "lm";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
/// The length in bytes: `lm_`, 12 hexadecimal digits, `_` and 43 characters of base64.
const LENGTH: usize = 3 + 2 * ID_BYTES + 1 + 43;

/// The public part of a key: 12 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// Takes any text as an id. A text that [`ApiKey::new`] did not make names no key.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A key with its secret. Its `Debug` output hides the secret.
pub struct ApiKey {
    pub id: KeyId,
    secret: [u8; SECRET_BYTES],
}

impl ApiKey {
    /// The number of random bytes that a key is made of.
    pub const RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;

    /// Makes a key of bytes from the system's source of randomness.
    pub fn new(random: [u8; Self::RANDOM_BYTES]) -> Self {
        let id: String = random[..ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut secret = [0; SECRET_BYTES];
        secret.copy_from_slice(&random[ID_BYTES..]);
        Self {
            id: KeyId(id.into()),
            secret,
        }
    }

    /// Parses a key; `None` if `text` has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != LENGTH {
            return None;
        }
        let mut parts = text.splitn(3, '_');
        let (prefix, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let is_id = |id: &str| id.len() == 2 * ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if prefix != PREFIX || !is_id(id) {
            return None;
        }
        let mut bytes = [0; SECRET_BYTES];
        match BASE64_URL_SAFE_NO_PAD.decode_slice(secret, &mut bytes) {
            Ok(SECRET_BYTES) => Some(Self {
                id: KeyId(id.into()),
                secret: bytes,
            }),
            _ => None,
        }
    }

    /// Returns the key as text, with its secret. It must be shown once only.
    pub fn expose(&self) -> String {
        format!("{PREFIX}_{}_{}", self.id, BASE64_URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// Returns the hash that is stored in place of the secret.
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret).into())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}_{}_[redacted]", self.id)
    }
}

/// The SHA-256 hash of a secret.
#[derive(Clone, Copy)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Returns whether this is the hash of `key`'s secret, in constant time.
    pub fn is_of(&self, key: &ApiKey) -> bool {
        self.0.ct_eq(&key.secret_hash().0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ApiKey {
        ApiKey::new([byte; ApiKey::RANDOM_BYTES])
    }

    #[test]
    fn keys_round_trip_as_text() {
        for byte in [0, 0x5a, 0xff] {
            let shown = key(byte).expose();
            assert_eq!(shown.len(), LENGTH);
            let read = ApiKey::parse(&shown).unwrap();
            assert_eq!(read.id, key(byte).id);
            assert!(key(byte).secret_hash().is_of(&read));
        }
        assert!(!key(1).secret_hash().is_of(&key(2)));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let shown = key(0xff).expose();
        let altered = |position: usize, with: &str| format!("{}{with}{}", &shown[..position], &shown[position + 1..]);
        for text in [
            "".to_owned(),
            shown[1..].to_owned(),
            format!("{shown}A"),
            altered(0, "x"),
            altered(2, "-"),
            altered(4, "g"),
            altered(20, "+"),
            // The last character has bits that must be 0.
            altered(LENGTH - 1, "9"),
            "é".repeat(LENGTH / 2),
        ] {
            assert!(ApiKey::parse(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn debug_output_hides_secrets() {
        assert_eq!(format!("{:?}", key(0xab)), "lm_abababababab_[redacted]");
        assert_eq!(format!("{:?}", key(0xab).secret_hash()), "[redacted]");
    }
}
