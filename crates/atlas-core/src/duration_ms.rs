//! Durations as whole milliseconds in JSON, for `#[serde(with = "duration_ms")]`. A duration that
//! does not fit in 64 bits is written as the largest value that does.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Writes whole milliseconds.
///
/// # Errors
/// If the serializer fails.
pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(millis(*span))
}

/// Reads whole milliseconds.
///
/// # Errors
/// If the value is not a whole number that is at least zero.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

pub mod option {
    //! The same for `Option<Duration>`.

    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes whole milliseconds, or null.
    ///
    /// # Errors
    /// If the serializer fails.
    pub fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => serializer.serialize_some(&super::millis(*span)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads whole milliseconds or null.
    ///
    /// # Errors
    /// If the value is not a whole number that is at least zero.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}
