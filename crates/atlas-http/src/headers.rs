//! Reads a cloud's headers: the request id, and how long to wait (`Retry-After`, and `RateLimit`
//! with `RateLimit-Policy`).

use std::time::Duration;

use atlas_core::Timestamp;
use http::{HeaderMap, HeaderName, header};

/// Waits longer than a day are cut: no sleep of ours is longer, and a header must not overflow a
/// timer.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Headers in which the clouds and their proxies return a request id, best first.
pub(crate) const REQUEST_IDS: [HeaderName; 3] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("fly-request-id"),
    HeaderName::from_static("cf-ray"),
];

/// The cloud's own id of the request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = REQUEST_IDS
        .iter()
        .find_map(|name| headers.get(name))?
        .to_str()
        .ok()?;
    // This cloud text appears in our errors, so it must be short and printable.
    (!id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic())).then_some(id)
}

/// How long the answer asks us to wait: `Retry-After`, else the instant in `X-RateLimit-Reset`.
pub(crate) fn retry_after(headers: &HeaderMap, now: impl Fn() -> Timestamp) -> Option<Duration> {
    asked_wait(headers, &now).or_else(|| reset(headers, now))
}

/// How long until the instant in `X-RateLimit-Reset`. Some servers send a number of seconds or
/// milliseconds there: only a plausible instant is used.
fn reset(headers: &HeaderMap, now: impl FnOnce() -> Timestamp) -> Option<Duration> {
    let seconds: i64 = headers
        .get(&X_RATELIMIT_RESET)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    (1_000_000_000..100_000_000_000)
        .contains(&seconds)
        .then(|| {
            Timestamp::from_unix_seconds(seconds)
                .since(now())
                .min(LONGEST)
        })
}

/// Seconds, or an HTTP date compared with our clock (RFC 9110 §10.2.3).
fn asked_wait(headers: &HeaderMap, now: impl FnOnce() -> Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => LONGEST,
        // "1.5" is not in the standard, but some servers send it.
        Err(_) => match text.parse::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
            Err(_) => {
                let date = jiff::fmt::rfc2822::parse(text).ok()?;
                Timestamp::from_unix_millis(date.timestamp().as_millisecond()).since(now())
            }
        },
    };
    Some(wait.min(LONGEST))
}

/// How long until an empty window ends: the longest of the empty ones.
///
/// The format is that of the IETF draft (`draft-ietf-httpapi-ratelimit-headers`):
/// `"minute";r=57;t=12, "hour";r=2800;t=1812`. A window without `t` ends after the `w` of its
/// policy.
pub(crate) fn empty_window(headers: &HeaderMap) -> Option<Duration> {
    let limits = headers.get(&RATELIMIT)?.to_str().ok()?;
    // The common case: no window is empty, and nothing has to be parsed.
    if !limits.contains("=0") && !limits.contains("= 0") {
        return None;
    }
    items(limits)
        .filter(|item| item.parameter("r") == Some(0))
        .filter_map(|item| {
            item.parameter("t").or_else(|| {
                let policies = headers.get(&RATELIMIT_POLICY)?.to_str().ok()?;
                items(policies)
                    .find(|policy| policy.name == item.name)?
                    .parameter("w")
            })
        })
        .max()
        .map(|seconds| Duration::from_secs(seconds).min(LONGEST))
}

struct Item<'a> {
    name: &'a str,
    parameters: &'a str,
}

impl Item<'_> {
    fn parameter(&self, wanted: &str) -> Option<u64> {
        self.parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            (name.trim() == wanted).then(|| value.trim().parse().ok())?
        })
    }
}

/// The items of a structured-field list. Names are quoted strings or tokens; a comma inside quotes
/// belongs to the name.
fn items(list: &str) -> impl Iterator<Item = Item<'_>> {
    let mut quoted = false;
    list.split(move |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .map(|item| {
        let item = item.trim();
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        Item {
            name: name.trim(),
            parameters,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn wait(value: &str) -> Option<Duration> {
        // 2026-11-21T10:00:00Z
        asked_wait(&headers(&[("retry-after", value)]), || {
            Timestamp::from_unix_seconds(1_795_255_200)
        })
    }

    #[test]
    fn an_instant_of_reset_counts_where_no_wait_is_told() {
        let now = || Timestamp::from_unix_seconds(1_795_255_200);
        let told = |pairs: &[(&'static str, &str)]| super::retry_after(&headers(pairs), now);
        let reset = ("x-ratelimit-reset", "1795262400");
        assert_eq!(told(&[reset]), Some(Duration::from_secs(7200)));
        assert_eq!(
            told(&[reset, ("retry-after", "3")]),
            Some(Duration::from_secs(3))
        );
        for no_instant in ["30", "1795262400000", "soon", "-5"] {
            assert_eq!(
                told(&[("x-ratelimit-reset", no_instant)]),
                None,
                "{no_instant}"
            );
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        assert_eq!(wait("30"), Some(Duration::from_secs(30)));
        assert_eq!(wait("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(
            wait("Sat, 21 Nov 2026 10:00:20 GMT"),
            Some(Duration::from_secs(20))
        );
        assert_eq!(wait("Sat, 21 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999999"), Some(LONGEST));
        assert_eq!((wait("soon"), wait("-1"), wait("")), (None, None, None));
    }

    #[test]
    fn only_an_empty_window_makes_us_wait_and_the_longest_of_them_counts() {
        let left = headers(&[(
            "ratelimit",
            r#""minute";r=57;t=12, "hour";r=2800;t=1812, "day";r=49500;t=45012"#,
        )]);
        assert_eq!(empty_window(&left), None);
        let empty = headers(&[(
            "ratelimit",
            r#""minute";r=0;t=12, "hour";r=0;t=1812, "day";r=1;t=45012"#,
        )]);
        assert_eq!(empty_window(&empty), Some(Duration::from_secs(1812)));
        let policy = headers(&[
            ("ratelimit", r#""a,b";r=0"#),
            ("ratelimit-policy", r#""x";q=1;w=5, "a,b";q=60;w=60"#),
        ]);
        assert_eq!(empty_window(&policy), Some(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn no_header_value_panics_the_parsers(bytes in prop::collection::vec(any::<u8>(), 0..80),
            text in "[\",;=rtw0-9 .:a-zA-Z+-]{0,60}") {
            for value in [HeaderValue::from_bytes(&bytes),
                HeaderValue::from_str(&text)].into_iter().flatten() {
                let mut map = HeaderMap::new();
                for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
                    map.insert(name, value.clone());
                }
                let longest = asked_wait(&map,
                    || Timestamp::UNIX_EPOCH).into_iter().chain(empty_window(&map)).max();
                prop_assert!(longest.is_none_or(|wait| wait <= LONGEST));
            }
        }
    }
}
