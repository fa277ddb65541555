//! Identifiers: providers, accounts, and the clouds' ids of what we rented.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};

/// Checks a short name chosen by atlas or its user: 1 to 63 characters of `[a-z0-9-]`, beginning
/// with a letter.
fn checked_name(field: &'static str, text: &str) -> Result<Arc<str>> {
    let ok = (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok {
        Ok(text.into())
    } else {
        Err(Error::validation(
            field,
            "must be 1 to 63 of a-z, 0-9 and -, beginning with a letter",
        ))
    }
}

/// Checks an id that a cloud assigned: opaque, but safe inside one URL path segment.
fn checked_foreign(field: &'static str, text: &str) -> Result<Arc<str>> {
    let ok = (1..=200).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'\\' | b'?' | b'#' | b'%'))
        && text != "."
        && text != "..";
    if ok {
        Ok(text.into())
    } else {
        Err(Error::validation(
            field,
            "must be 1 to 200 printable ASCII characters without / \\ ? # %",
        ))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and wraps it.
            ///
            /// # Errors
            /// `validation`, naming what is wrong with it.
            pub fn new(text: impl AsRef<str>) -> Result<Self> {
                $check($field, text.as_ref()).map(Self)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// A kind of cloud: a built-in one such as `runpod`, `mock`, or a user's own.
    ProviderId, "provider", checked_name
);
id!(
    /// A named credential source: `runpod`, `runpod-eu`. A machine, an attempt and a pacing budget
    /// belong to one.
    AccountName, "account", checked_name
);
id!(
    /// The cloud's id of a machine. Opaque; safe inside one path segment.
    ComputeId, "compute_id", checked_foreign
);
id!(
    /// The cloud's id of a serverless job.
    JobId, "job_id", checked_foreign
);
id!(
    /// The cloud's id of a network volume.
    VolumeId, "network_volume_id", checked_foreign
);

impl From<&ProviderId> for AccountName {
    /// The account name used when it is the only account of its cloud.
    fn from(id: &ProviderId) -> Self {
        Self(id.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_id_cannot_leave_its_path_segment() {
        for hostile in [
            "", "a/b", "..", ".", "a?b", "a#b", "a%2fb", "a b", "a\nb", "é",
        ] {
            assert!(ComputeId::new(hostile).is_err(), "{hostile:?}");
        }
        assert!(ComputeId::new("q8d2m5x0c7hn4v").is_ok());
    }
}
