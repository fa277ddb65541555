//! Converts RunPod's bare numbers to types with units: milliseconds, seconds, gigabytes, dollars.

/// A duration as whole milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        span: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(deserializer)?))
    }
}

/// Seconds, whole or fractional.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

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
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?)
            .map_err(|_| de::Error::custom("not a span in seconds"))
    }

    /// The same for an optional value.
    pub(crate) mod option {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, Serializer, de};

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
            let seconds = Option::<f64>::deserialize(deserializer)?;
            let span = seconds.map(|seconds| {
                Duration::try_from_secs_f64(seconds).map_err(|_| de::Error::custom("not a span"))
            });
            span.transpose()
        }
    }
}

/// US dollars.
pub(crate) mod usd {
    use atlas_core::Usd;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    /// RunPod writes a number, atlas a decimal string: both are accepted.
    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(crate) enum Written {
        Number(f64),
        Text(Usd),
    }

    impl Written {
        pub(crate) fn amount(self) -> Option<Usd> {
            match self {
                Self::Number(dollars) => Usd::from_f64(dollars),
                Self::Text(amount) => Some(amount),
            }
        }
    }

    pub(crate) fn serialize<S: Serializer>(amount: &Usd, serializer: S) -> Result<S::Ok, S::Error> {
        amount.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Usd, D::Error> {
        Written::deserialize(deserializer)?
            .amount()
            .ok_or_else(|| de::Error::custom("not an amount of dollars"))
    }
}

/// US dollars per hour, or `None` if the cloud gives no value.
pub(crate) mod hourly {
    use atlas_core::UsdPerHour;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::usd::Written;

    pub(crate) fn serialize<S: Serializer>(
        price: &Option<UsdPerHour>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        price.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<UsdPerHour>, D::Error> {
        Ok(Option::<Written>::deserialize(deserializer)?
            .and_then(Written::amount)
            .map(UsdPerHour::new))
    }
}

/// Memory in gigabytes.
pub(crate) mod gigabytes {
    use atlas_core::MemorySize;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        memory: &MemorySize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(memory.as_gib())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<MemorySize, D::Error> {
        Ok(MemorySize::gib(u32::deserialize(deserializer)?))
    }
}
