//! Text that must never be printed: API keys, tokens, environment values.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// The text that replaces a secret wherever it would be printed or serialised.
pub const REDACTED: &str = "[redacted]";

/// A secret string. Wiped from memory when dropped; `Debug` and `Serialize` never show it.
///
/// There is deliberately no `Display` and no comparison: compare secrets in constant time
/// (`atlas-auth`).
///
/// ```
/// let key = atlas_core::Secret::new("rpa_123");
/// assert_eq!(format!("{key:?}"), "Secret(..)");
/// assert_eq!(key.expose(), "rpa_123");
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Each use of this method is a place where a secret can leak.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True if the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        if *text == REDACTED {
            return Err(de::Error::custom("a redacted secret cannot be read back"));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_secret_is_refused_instead_of_becoming_the_secret() {
        let json = serde_json::to_string(&Secret::new("k")).unwrap();
        assert_eq!(json, "\"[redacted]\"");
        assert!(serde_json::from_str::<Secret>(&json).is_err());
    }
}
