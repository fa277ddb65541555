//! Durations in human-readable form: `90s`, `15m`, `1h30m`, `250ms`.

use std::time::Duration;

use atlas_core::{Error, Result};
use serde::{Deserialize, Deserializer, de};

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Parses a duration. A bare number counts seconds, as with `sleep`.
///
/// # Errors
/// `validation` when the text is not a duration.
pub fn parse(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::validation(
            "duration",
            "is not a duration; write one such as 90s, 15m or 1h30m",
        )
    };
    if text.is_empty() {
        return Err(wrong());
    }
    let (mut rest, mut millis) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = if letters == 0 && digits == text.len() {
            "s"
        } else {
            &rest[..letters]
        };
        let (_, scale) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        millis = number
            .checked_mul(*scale)
            .and_then(|more| millis.checked_add(more))
            .ok_or_else(wrong)?;
        rest = &rest[letters..];
    }
    Ok(Duration::from_millis(millis))
}

/// Formats a duration in its short form: `1h30m`, `45s`, `250ms`.
#[must_use]
pub fn show(span: Duration) -> String {
    let seconds = span.as_secs();
    match (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, 0) if !span.is_zero() => format!("{}ms", span.as_millis()),
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, 0) => format!("{m}m"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, 0, _) => format!("{h}h"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, 0, ..) => format!("{d}d"),
        (d, h, ..) => format!("{d}d{h}h"),
    }
}

/// Deserialises a string such as `"90s"`, or whole milliseconds, for configuration files.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a duration such as \"90s\", or milliseconds")]
    enum Either {
        Millis(u64),
        Text(String),
    }
    Ok(Some(match Either::deserialize(deserializer)? {
        Either::Millis(millis) => Duration::from_millis(millis),
        Either::Text(text) => parse(&text).map_err(|error| de::Error::custom(error.message()))?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_as_people_write_it() {
        let cases = [
            ("90s", 90_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("7", 7_000),
            ("1d", 86_400_000),
        ];
        for (text, millis) in cases {
            assert_eq!(
                parse(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for odd in [
            "",
            "s",
            "1x",
            "-1s",
            "1.5h",
            "1h30",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_span_is_shown_short() {
        for text in ["0s", "250ms", "45s", "15m", "1h30m", "1d", "2d3h", "24m5s"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
