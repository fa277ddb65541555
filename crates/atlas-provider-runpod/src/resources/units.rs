//! Reads RunPod's bare numbers as types with units: milliseconds, seconds, gigabytes, dollars,
//! instants.
//!
//! Everything here is lenient: a value that is not usable is `None`, so it makes no resource
//! unreadable.

use std::time::Duration;

use atlas_core::{MemorySize, Timestamp, Usd, UsdPerHour};
use atlas_http::lenient;
use serde::Deserializer;

/// An instant.
pub(crate) fn instant<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    Ok(lenient::opt_text(deserializer)?.and_then(|text| text.parse().ok()))
}

/// Memory in gigabytes.
pub(crate) fn gigabytes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<MemorySize>, D::Error> {
    Ok(lenient::opt_number(deserializer)?.map(MemorySize::gib))
}

/// Dollars. RunPod writes a number, atlas a decimal string: both are accepted.
pub(crate) fn dollars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Usd>, D::Error> {
    Ok(lenient::opt_text(deserializer)?.and_then(|text| {
        let exact = text.parse().ok();
        exact.or_else(|| text.trim().parse().ok().and_then(Usd::from_f64))
    }))
}

/// A price per hour; a negative one is none.
pub(crate) fn hourly<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<UsdPerHour>, D::Error> {
    let price = dollars(deserializer)?.filter(|price| *price >= Usd::ZERO);
    Ok(price.map(UsdPerHour::new))
}

/// A duration in whole milliseconds.
pub(crate) mod millis {
    use super::{Deserializer, Duration, lenient};
    use serde::Serializer;

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(crate) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => {
                serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
            }
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(lenient::opt_number(deserializer)?.map(Duration::from_millis))
    }
}

/// A duration in seconds, whole or fractional.
pub(crate) mod seconds {
    use super::{Deserializer, Duration, lenient};
    use serde::{Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        span: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if span.subsec_nanos() == 0 {
            serializer.serialize_u64(span.as_secs())
        } else {
            serializer.serialize_f64(span.as_secs_f64())
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        option::deserialize(deserializer)?
            .ok_or_else(|| de::Error::custom("is not a span in seconds"))
    }

    /// The same for an optional value.
    pub(crate) mod option {
        use super::{Deserializer, Duration, Serializer, lenient};

        #[expect(clippy::ref_option, reason = "the signature that serde calls")]
        pub(crate) fn serialize<S: Serializer>(
            span: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match span {
                Some(span) => super::serialize(span, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            let seconds = lenient::opt_number(deserializer)?;
            Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
        }
    }
}
