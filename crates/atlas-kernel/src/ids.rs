//! Session ids, which sort by time of creation.

use std::fmt;
use std::str::FromStr;

use atlas_core::{Entropy, Error, Result, Timestamp};
use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The id of a session: 48 bits of milliseconds, then 80 random bits. Written as 26 characters of
/// lower-case Crockford base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 16]);

fn crockford() -> &'static Encoding {
    static ENCODING: std::sync::LazyLock<Encoding> = std::sync::LazyLock::new(|| {
        let mut spec = Specification::new();
        spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
        spec.encoding().expect("the alphabet is valid")
    });
    &ENCODING
}

impl SessionId {
    /// A new id.
    #[must_use]
    pub fn new(now: Timestamp, entropy: &dyn Entropy) -> Self {
        let mut id = [0; 16];
        let millis = u64::try_from(now.unix_millis()).unwrap_or(0);
        id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        entropy.fill(&mut id[6..]);
        Self(id)
    }

    /// The bytes, which sort in order of creation.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads an id from stored bytes, if they have the right length.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crockford().encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        crockford()
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| Self::from_slice(&bytes))
            .ok_or_else(|| {
                Error::validation(
                    "session",
                    "not 26 characters of lower-case Crockford base32",
                )
            })
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SeededEntropy;

    #[test]
    fn an_id_reads_back_and_sorts_by_its_time() {
        let entropy = SeededEntropy::new(1);
        let early = SessionId::new(Timestamp::from_unix_millis(1_790_000_000_000), &entropy);
        let late = SessionId::new(Timestamp::from_unix_millis(1_790_000_000_001), &entropy);
        assert_eq!(early.to_string().parse::<SessionId>().unwrap(), early);
        assert!(early < late && early.to_string() < late.to_string());
        assert!("short".parse::<SessionId>().is_err());
    }
}
