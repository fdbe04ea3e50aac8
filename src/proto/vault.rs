//! Keys and passwords in messages. They are encrypted with a key that only the two ends of a conversation
//! know: sudo may log the input and output of the programs that it starts.
//!
//! The ends agree on the key by X25519 with key pairs of this conversation. SSH authenticates them; the
//! exchange protects against everyone who reads the conversation later.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::hello::PublicKey;

/// Purpose of the derived keys.
const PURPOSE: &[u8] = b"transfer-agent secrets";
/// Length in bytes of a derived key.
const KEY_LENGTH: usize = 32;

/// Error of the key exchange or of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random,
    /// The public key of the other end is invalid.
    #[error("the other end sent an invalid public key")]
    Key,
    /// The secret was not encrypted by the other end.
    #[error("a secret cannot be decrypted")]
    Forged,
}

/// Encrypted secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    number: u64,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

/// Shows nothing of the secret.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// End of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The controller.
    Controller,
    /// The agent.
    Agent,
}

/// Key pair of one end, before the other end's public key is known.
#[derive(Debug)]
pub struct Exchange {
    private: EphemeralPrivateKey,
    public: PublicKey,
}

impl Exchange {
    /// Creates a key pair.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, SecretError> {
        let private =
            EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| SecretError::Random)?;
        let public = private.compute_public_key().map_err(|_| SecretError::Random)?;
        let public = <[u8; 32]>::try_from(public.as_ref()).map_err(|_| SecretError::Key)?;
        Ok(Self { private, public: PublicKey(public) })
    }

    /// Returns the public key, for the other end.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Derives the keys of the conversation.
    ///
    /// # Errors
    /// When the other end's public key is invalid.
    pub fn agree(self, side: Side, other: PublicKey) -> Result<Vault, SecretError> {
        let (controller, agent) = match side {
            Side::Controller => (self.public, other),
            Side::Agent => (other, self.public),
        };
        let peer = UnparsedPublicKey::new(&X25519, other.0);
        let keys = agree_ephemeral(self.private, &peer, |shared| {
            let secret = Salt::new(HKDF_SHA256, PURPOSE).extract(shared);
            let derive = |from: &[u8]| -> Option<LessSafeKey> {
                let info = [from, &controller.0, &agent.0];
                let mut key = Zeroizing::new([0; KEY_LENGTH]);
                secret.expand(&info, HKDF_SHA256).ok()?.fill(key.as_mut()).ok()?;
                Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).ok()?))
            };
            derive(b"controller").zip(derive(b"agent"))
        });
        let (of_controller, of_agent) = keys.ok().flatten().ok_or(SecretError::Key)?;
        let (sending, receiving) = match side {
            Side::Controller => (of_controller, of_agent),
            Side::Agent => (of_agent, of_controller),
        };
        Ok(Vault { sending, receiving, sent: AtomicU64::new(0) })
    }
}

/// Keys of a conversation.
pub struct Vault {
    sending: LessSafeKey,
    receiving: LessSafeKey,
    sent: AtomicU64,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// Encrypts a secret for the other end. No number is used twice with a key.
    ///
    /// # Errors
    /// When the secret is absurdly long.
    pub fn seal(&self, secret: &[u8]) -> Result<Sealed, SecretError> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        // Of its final size: a growing buffer would leave pieces of the secret in memory.
        let mut bytes = Vec::with_capacity(secret.len() + AES_256_GCM.tag_len());
        bytes.extend_from_slice(secret);
        self.sending
            .seal_in_place_append_tag(nonce(number), Aad::empty(), &mut bytes)
            .map_err(|_| SecretError::Forged)?;
        Ok(Sealed { number, bytes })
    }

    /// Decrypts a secret of the other end.
    ///
    /// # Errors
    /// When the other end has not encrypted it.
    pub fn open(&self, sealed: Sealed) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let mut bytes = Zeroizing::new(sealed.bytes);
        let opened = self.receiving.open_in_place(nonce(sealed.number), Aad::empty(), &mut bytes);
        let length = opened.map_err(|_| SecretError::Forged)?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vaults() -> (Vault, Vault) {
        let (controller, agent) = (Exchange::new().unwrap(), Exchange::new().unwrap());
        let (of_controller, of_agent) = (controller.public(), agent.public());
        (
            controller.agree(Side::Controller, of_agent).unwrap(),
            agent.agree(Side::Agent, of_controller).unwrap(),
        )
    }

    #[test]
    fn only_the_other_end_opens_a_secret() {
        let (controller, agent) = vaults();
        let sealed = controller.seal(b"swordfish").unwrap();
        assert!(!sealed.bytes.windows(4).any(|part| part == b"fish"));
        assert_eq!(format!("{sealed:?}"), "(secret)");
        assert_eq!(controller.open(sealed.clone()).unwrap_err(), SecretError::Forged);
        assert_eq!(vaults().1.open(sealed.clone()).unwrap_err(), SecretError::Forged);
        assert_eq!(*agent.open(sealed).unwrap(), b"swordfish");
        assert_eq!(*controller.open(agent.seal(b"").unwrap()).unwrap(), b"");
    }

    #[test]
    fn changed_secrets_and_invalid_keys_are_refused() {
        let (controller, agent) = vaults();
        let mut sealed = controller.seal(b"swordfish").unwrap();
        sealed.number += 1;
        assert_eq!(agent.open(sealed).unwrap_err(), SecretError::Forged);
        let zero = PublicKey([0; 32]);
        assert_eq!(Exchange::new().unwrap().agree(Side::Agent, zero).unwrap_err(), SecretError::Key);
    }

    #[test]
    fn equal_secrets_look_different() {
        let (controller, _) = vaults();
        let [one, two] = [(); 2].map(|()| controller.seal(b"swordfish").unwrap());
        assert_ne!(one.bytes, two.bytes);
    }
}
