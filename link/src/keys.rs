//! The keys of an endpoint in the shape that the QUIC stack wants: stateless resets and Retry tokens.
//!
//! The stack implements these traits for the types of one crypto library only, and which one depends on the features that any
//! other crate of a build turns on. Types of our own make the choice ours.

use aws_lc_rs::{aead, constant_time, hmac};
use quinn::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};

/// Signs stateless resets and connection ids (RFC 9000 section 10.3.2).
pub(crate) struct ResetKey(hmac::Key);

impl ResetKey {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        let tag = hmac::sign(&self.0, data);
        let length = out.len().min(tag.as_ref().len());
        out[..length].copy_from_slice(&tag.as_ref()[..length]);
    }

    fn signature_len(&self) -> usize {
        HMAC_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = hmac::sign(&self.0, data);
        constant_time::verify_slices_are_equal(tag.as_ref(), signature).map_err(|_| CryptoError)
    }
}

/// Derives a key of its own for each Retry token (RFC 9000 section 8.1.4).
pub(crate) struct TokenKey(hmac::Key);

impl TokenKey {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl HandshakeTokenKey for TokenKey {
    fn aead_from_hkdf(&self, random_bytes: &[u8]) -> Box<dyn AeadKey> {
        let derived = hmac::sign(&self.0, random_bytes);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, derived.as_ref()).ok();
        Box::new(SealKey(key.map(aead::LessSafeKey::new)))
    }
}

/// Seals one token. A key that could not be made seals and opens nothing.
struct SealKey(Option<aead::LessSafeKey>);

impl SealKey {
    /// Each key seals one token, so that its nonce may be constant.
    fn nonce() -> aead::Nonce {
        aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
    }
}

impl AeadKey for SealKey {
    fn seal(&self, data: &mut Vec<u8>, additional_data: &[u8]) -> Result<(), CryptoError> {
        let key = self.0.as_ref().ok_or(CryptoError)?;
        key.seal_in_place_append_tag(Self::nonce(), aead::Aad::from(additional_data), data)
            .map_err(|_| CryptoError)
    }

    fn open<'a>(&self, data: &'a mut [u8], additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let key = self.0.as_ref().ok_or(CryptoError)?;
        key.open_in_place(Self::nonce(), aead::Aad::from(additional_data), data)
            .map_err(|_| CryptoError)
    }
}

/// Bytes of an HMAC-SHA-256.
const HMAC_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_data_and_key_alone() {
        let key = ResetKey::new(b"secret");
        let mut signature = [0; HMAC_BYTES];
        key.sign(b"data", &mut signature);
        assert!(key.verify(b"data", &signature).is_ok());
        assert!(key.verify(b"date", &signature).is_err());
        assert!(ResetKey::new(b"other").verify(b"data", &signature).is_err());
        assert!(key.verify(b"data", &signature[..16]).is_err());
    }

    #[test]
    fn a_token_opens_with_its_key_alone() {
        let token = |secret: &[u8], random: &[u8]| TokenKey::new(secret).aead_from_hkdf(random);
        let mut sealed = b"address".to_vec();
        token(b"secret", b"1").seal(&mut sealed, b"aad").expect("sealed");
        for (secret, random, aad) in [("other", "1", "aad"), ("secret", "2", "aad"), ("secret", "1", "add")] {
            let mut copy = sealed.clone();
            assert!(
                token(secret.as_bytes(), random.as_bytes())
                    .open(&mut copy, aad.as_bytes())
                    .is_err()
            );
        }
        assert_eq!(token(b"secret", b"1").open(&mut sealed, b"aad").expect("opened"), b"address");
    }
}
