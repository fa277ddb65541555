//! The realm: the single secret of a deployment, and everything derived from it.
//!
//! The secret is never in the store, so that a copy of the store cannot name or delete a machine;
//! the store keeps only a fingerprint. Derived from the secret are the realm's id, the MAC in every
//! launch key, and the key that encrypts requests and credentials.

pub(crate) mod file;
mod ledger;

use std::fmt;

use atlas_core::{
    AttemptId, Entropy, Error, ErrorKind, RealmId, Result, Secret, Timestamp, TrackedKey,
};
use data_encoding::HEXLOWER;
use ring::{aead, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use self::file::incarnation_path;
pub use self::ledger::{Claim, FileLedger, IncarnationLedger, LastHolder, MemoryLedger};

/// The minimum length of the secret. Fewer characters could be guessed by an attacker who has the
/// store.
const MIN_SECRET_LEN: usize = 32;
/// The minimum entropy of the secret, estimated from its length and distinct symbols. Below it, the
/// secret was probably typed by a person and not generated.
const MIN_SECRET_BITS: f64 = 128.0;
const SEAL_VERSION: u8 = 1;
const TAG_LEN: usize = 16;

/// The identity of one deployment. Meant to be shared in an `Arc`; `Debug` shows only the id.
pub struct Realm {
    id: RealmId,
    fingerprint: String,
    mac: hmac::Key,
    seal: aead::LessSafeKey,
    digest: hmac::Key,
}

impl Realm {
    /// Derives all keys from the secret.
    ///
    /// # Errors
    /// `validation` when the secret is shorter than 32 characters or obviously not random. The
    /// error never quotes the secret.
    pub fn new(secret: &Secret) -> Result<Self> {
        let text = secret.expose().trim().as_bytes();
        if text.len() < MIN_SECRET_LEN {
            return Err(weak(format!(
                "is shorter than {MIN_SECRET_LEN} characters; 32 random bytes in base64 do"
            )));
        }
        if most_bits(text) < MIN_SECRET_BITS {
            return Err(weak(
                "repeats too few different characters to be random; 32 random bytes in base64 do",
            ));
        }
        let root = hmac::Key::new(hmac::HMAC_SHA256, text);
        let derive = |purpose: &str| {
            Zeroizing::new(bytes::<32>(hmac::sign(&root, purpose.as_bytes()).as_ref()))
        };
        let seal =
            aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &*derive("atlas realm v1: seal"))
                .map_err(|_| Error::new(ErrorKind::Unknown, "no sealing key could be derived"))?;
        Ok(Self {
            id: RealmId::from_bytes(bytes(&*derive("atlas realm v1: id"))),
            fingerprint: HEXLOWER.encode(&derive("atlas realm v1: fingerprint")[..16]),
            mac: hmac::Key::new(hmac::HMAC_SHA256, &*derive("atlas realm v1: launch keys")),
            seal: aead::LessSafeKey::new(seal),
            digest: hmac::Key::new(hmac::HMAC_SHA256, &*derive("atlas realm v1: digest")),
        })
    }

    /// Loads the secret from its file with mode 0600, or generates one if there is no file yet.
    ///
    /// Creation is atomic: if several processes start together, all of them read the same secret.
    ///
    /// # Errors
    /// `validation` when the file is empty, weak, not a regular file, or readable by group or
    /// world; `unavailable` when it cannot be read or written.
    pub fn load_or_create(
        path: impl AsRef<std::path::Path>,
        entropy: &dyn Entropy,
    ) -> Result<Self> {
        Self::new(&file::load_or_create(path.as_ref(), entropy)?)
    }

    /// Loads the secret from its file with mode 0600, which must exist.
    ///
    /// # Errors
    /// Like [`Realm::load_or_create`], and `not_found` when there is no such file.
    pub fn load(path: impl AsRef<std::path::Path>) -> Result<Self> {
        Self::new(&file::load(path.as_ref())?)
    }

    /// The realm's id, as it appears in every launch key.
    #[must_use]
    pub fn id(&self) -> RealmId {
        self.id
    }

    /// The fingerprint that the store keeps, so that it refuses to open with another secret. It
    /// reveals nothing about the secret.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Generates a launch key for a new attempt at this second.
    #[must_use]
    pub fn mint_key(&self, now: Timestamp, entropy: &dyn Entropy) -> TrackedKey {
        let mut random = [0; 6];
        entropy.fill(&mut random);
        self.key_of(AttemptId::new(now, random))
    }

    /// The launch key of a recorded attempt.
    #[must_use]
    pub fn key_of(&self, attempt: AttemptId) -> TrackedKey {
        TrackedKey::new(self.id, attempt, self.mac_of(self.id, attempt))
    }

    /// Whether this key was minted with this realm's secret. Constant time.
    #[must_use]
    pub fn verify(&self, key: &TrackedKey) -> bool {
        let ours = key.realm() == self.id;
        let mac: bool = self
            .mac_of(key.realm(), key.attempt())
            .ct_eq(&key.mac())
            .into();
        ours & mac
    }

    /// Encrypts data for the store, bound to the record it belongs to.
    #[must_use]
    pub fn seal(&self, record: &[u8], plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        let mut nonce = [0; aead::NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut out = Vec::with_capacity(1 + nonce.len() + plain.len() + TAG_LEN);
        out.push(SEAL_VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let tag = self
            .seal
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(bound_to(record)),
                &mut out[1 + nonce.len()..],
            )
            .expect("sealing fails only beyond 256 GiB");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// A keyed digest of a value, which may be secret, to compare it later without storing it.
    pub(crate) fn digest(&self, value: &[u8]) -> String {
        HEXLOWER.encode(&hmac::sign(&self.digest, value).as_ref()[..8])
    }

    /// Decrypts the output of [`Realm::seal`] for the same record.
    ///
    /// # Errors
    /// `validation` when the bytes were not encrypted by this realm for this record, or were
    /// altered.
    pub fn open(&self, record: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let refused = || {
            Error::validation(
                "sealed",
                "was not sealed by this realm for this record, or was altered",
            )
        };
        let (&version, rest) = sealed.split_first().ok_or_else(refused)?;
        if version != SEAL_VERSION {
            return Err(Error::validation(
                "sealed",
                format!("has version {version}, and this atlas knows {SEAL_VERSION}"),
            ));
        }
        let (nonce, body) = rest.split_at_checked(aead::NONCE_LEN).ok_or_else(refused)?;
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut body = Zeroizing::new(body.to_vec());
        let len = self
            .seal
            .open_in_place(nonce, aead::Aad::from(bound_to(record)), &mut body)
            .map_err(|_| refused())?
            .len();
        body.truncate(len);
        Ok(body)
    }

    fn mac_of(&self, realm: RealmId, attempt: AttemptId) -> [u8; 5] {
        bytes(
            hmac::sign(
                &self.mac,
                TrackedKey::signed_part(realm, attempt).as_bytes(),
            )
            .as_ref(),
        )
    }
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Realm").field(&self.id).finish()
    }
}

fn bound_to(record: &[u8]) -> Vec<u8> {
    [&[SEAL_VERSION], record].concat()
}

/// The first `N` of at least `N` bytes.
fn bytes<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&from[..N]);
    out
}

fn most_bits(text: &[u8]) -> f64 {
    let mut seen = [false; 256];
    text.iter().for_each(|b| seen[usize::from(*b)] = true);
    let symbols = u16::try_from(seen.iter().filter(|s| **s).count()).unwrap_or(256);
    f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX)) * f64::from(symbols).log2()
}

fn weak(message: impl Into<String>) -> Error {
    Error::validation("realm secret", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SeededEntropy;
    use proptest::prelude::*;

    fn realm(n: u8) -> Realm {
        Realm::new(&Secret::new(format!(
            "{n:03}-0f9kXq27LmZt5cRvB1yHdWn8GsEoPa3J"
        )))
        .unwrap()
    }

    proptest! {
        #[test]
        fn a_key_is_ours_only_as_minted(seconds in 0..4_000_000_000_i64, seed: u64,
            flip in 0..5_usize, by in 1..=255_u8) {
            let (ours, theirs) = (realm(1), realm(2));
            let key = ours.mint_key(Timestamp::from_unix_seconds(seconds),
                &SeededEntropy::new(seed));
            prop_assert!(ours.verify(&key));
            prop_assert!(!theirs.verify(&key));
            prop_assert_eq!(ours.key_of(key.attempt()), key);
            let mut mac = key.mac();
            mac[flip] ^= by;
            prop_assert!(!ours.verify(&TrackedKey::new(key.realm(), key.attempt(), mac)));
            let mut attempt = *key.attempt().as_bytes();
            attempt[flip] ^= by;
            prop_assert!(!ours.verify(&TrackedKey::new(key.realm(), AttemptId::from_bytes(attempt),
                key.mac())));
            prop_assert!(!ours.verify(&TrackedKey::new(theirs.id(), key.attempt(), key.mac())));
        }

        #[test]
        fn what_was_sealed_opens_only_unaltered_for_its_own_record(plain: Vec<u8>, record: Vec<u8>,
            seed: u64, at: prop::sample::Index, by in 1..=255_u8) {
            let realm_a = realm(1);
            let sealed = realm_a.seal(&record, &plain, &SeededEntropy::new(seed));
            prop_assert_eq!(&*realm_a.open(&record, &sealed).unwrap(), &plain);
            prop_assert!(realm(2).open(&record, &sealed).is_err());
            let mut other = record.clone();
            other.push(0);
            prop_assert!(realm_a.open(&other, &sealed).is_err());
            let mut bad = sealed.clone();
            bad[at.index(sealed.len())] ^= by;
            prop_assert!(realm_a.open(&record, &bad).is_err());
            prop_assert!(realm_a.open(&record, &sealed[..at.index(sealed.len())]).is_err());
        }
    }

    #[test]
    fn a_short_or_monotonous_secret_is_refused_without_being_quoted() {
        for secret in [
            "",
            "hunter2",
            &"a".repeat(100),
            &"ab".repeat(50),
            &format!("   {}   ", "x1".repeat(15)),
        ] {
            let error = Realm::new(&Secret::new(secret)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Validation);
            assert!(
                secret.is_empty() || !error.to_string().contains(secret.trim()),
                "{error}"
            );
        }
    }

    #[test]
    fn the_same_secret_gives_the_same_realm_on_every_node() {
        let (a, b, other) = (realm(1), realm(1), realm(2));
        assert_eq!((a.id(), a.fingerprint()), (b.id(), b.fingerprint()));
        assert_ne!(a.fingerprint(), other.fingerprint());
        assert_eq!(format!("{a:?}"), format!("Realm({})", a.id()));
    }
}
