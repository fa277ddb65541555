//! The log API's answers: one JSON:API document. The format of Fly's internal feed, one object per
//! line, is parsed too.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use atlas_core::{Error, Result, Timestamp};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A position in an app's log: nanoseconds since 1970, like the API's `next_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogCursor(pub u64);

impl LogCursor {
    /// The instant of the position.
    pub(crate) fn instant(self) -> Timestamp {
        let seconds = i64::try_from(self.0 / 1_000_000_000).unwrap_or(i64::MAX);
        Timestamp::from_unix_seconds(seconds)
            .saturating_add(Duration::from_nanos(self.0 % 1_000_000_000))
    }

    /// An earlier position.
    pub(crate) fn before(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Nanoseconds since 1970.
pub(crate) fn nanos(at: Timestamp) -> u64 {
    let millis = at.unix_millis();
    let rest = at.since(Timestamp::from_unix_millis(millis)).subsec_nanos();
    u64::try_from(millis)
        .unwrap_or(0)
        .saturating_mul(1_000_000)
        .saturating_add(u64::from(rest))
}

impl FromStr for LogCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.trim()
            .parse()
            .map(Self)
            .map_err(|_| Error::validation("cursor", "must be nanoseconds since 1970"))
    }
}

/// One log entry. Every field may be missing. The output of an app may be secret: keep it out of
/// our own logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogEntry {
    /// The API's own id; opaque.
    pub id: Option<String>,
    /// When, to the nanosecond; `None` also if it cannot be parsed.
    pub timestamp: Option<Timestamp>,
    /// What was printed. May hold newlines and terminal sequences.
    pub message: Option<String>,
    /// `info`, `error`, ...: free text.
    pub level: Option<String>,
    /// The machine.
    pub instance: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The writer: `app`, `runner`, `proxy`, ...
    pub provider: Option<String>,
}

impl LogEntry {
    /// The printed text without terminal sequences; line breaks are kept. Empty if nothing was
    /// printed.
    #[must_use]
    pub fn plain_message(&self) -> String {
        let lines: Vec<String> = self
            .message
            .as_deref()
            .unwrap_or_default()
            .lines()
            .map(crate::deploy::plain)
            .collect();
        lines.join("\n")
    }
}

/// One answer of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogPage {
    /// The entries, oldest first.
    pub entries: Vec<LogEntry>,
    /// The next cursor. The same as requested, or none: there are no more entries for now.
    pub next: Option<LogCursor>,
    /// Entries that could not be read.
    pub skipped: usize,
}

impl LogPage {
    /// Parses the API's answer, or lines of the internal feed. Unreadable parts are skipped and
    /// counted; `None` if nothing is readable.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        read(body)
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    data: Option<Vec<Entry<'a>>>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default, deserialize_with = "token")]
    next_token: Option<LogCursor>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    id: Option<String>,
    #[serde(borrow)]
    attributes: Option<Attributes<'a>>,
}

#[derive(Default, Deserialize)]
struct Attributes<'a> {
    #[serde(default)]
    timestamp: Instant,
    message: Option<String>,
    level: Option<String>,
    instance: Option<String>,
    region: Option<String>,
    #[serde(borrow)]
    meta: Option<EntryMeta<'a>>,
}

#[derive(Default, Deserialize)]
struct EntryMeta<'a> {
    #[serde(borrow)]
    instance: Option<Text<'a>>,
    #[serde(borrow)]
    region: Option<Text<'a>>,
    event: Option<Event>,
}

/// Text that is mostly thrown away: borrowed where it can be.
struct Text<'a>(Cow<'a, str>);

/// A timestamp; none where there is none, or an odd one.
#[derive(Default)]
struct Instant(Option<Timestamp>);

#[derive(Deserialize)]
struct Event {
    provider: Option<String>,
}

/// One line of the internal feed.
#[derive(Deserialize)]
struct FeedLine {
    event: Option<Event>,
    fly: Option<FeedFly>,
    log: Option<FeedLog>,
    message: String,
    #[serde(default)]
    timestamp: Instant,
}

#[derive(Deserialize)]
struct FeedFly {
    app: Option<FeedApp>,
    region: Option<String>,
}

#[derive(Deserialize)]
struct FeedApp {
    instance: Option<String>,
}

#[derive(Deserialize)]
struct FeedLog {
    level: Option<String>,
}

/// Reads one line of the internal feed.
#[cfg(feature = "nats")]
pub(crate) fn read_line(line: &[u8]) -> Option<LogEntry> {
    serde_json::from_slice::<FeedLine>(line)
        .ok()
        .map(LogEntry::from)
}

/// Reads a page. What of it makes no sense is skipped and counted; `None` where none of it does.
pub(crate) fn read(body: &[u8]) -> Option<LogPage> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Some(LogPage::default());
    }
    if let Ok(document) = serde_json::from_slice::<Document<'_>>(body)
        && (document.data.is_some() || document.meta.is_some())
    {
        return Some(LogPage {
            entries: document
                .data
                .unwrap_or_default()
                .into_iter()
                .map(LogEntry::from)
                .collect(),
            next: document.meta.and_then(|meta| meta.next_token),
            skipped: 0,
        });
    }
    one_by_one(body).or_else(|| lines(body))
}

/// A document with a part that is not as expected: each entry by itself.
fn one_by_one(body: &[u8]) -> Option<LogPage> {
    let mut document: Value = serde_json::from_slice(body).ok()?;
    let Value::Array(data) = document.get_mut("data")?.take() else {
        return None;
    };
    let next = document
        .get_mut("meta")
        .and_then(|meta| serde_json::from_value::<Meta>(meta.take()).ok());
    let mut page = LogPage {
        next: next.and_then(|meta| meta.next_token),
        ..LogPage::default()
    };
    for entry in data {
        match Entry::deserialize(&entry) {
            Ok(entry) => page.entries.push(entry.into()),
            Err(_) => page.skipped += 1,
        }
    }
    Some(page)
}

fn lines(body: &[u8]) -> Option<LogPage> {
    let mut page = LogPage::default();
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.iter().all(u8::is_ascii_whitespace))
    {
        match serde_json::from_slice::<FeedLine>(line) {
            Ok(line) => page.entries.push(line.into()),
            Err(_) => page.skipped += 1,
        }
    }
    (!page.entries.is_empty()).then_some(page)
}

impl From<Entry<'_>> for LogEntry {
    fn from(entry: Entry<'_>) -> Self {
        let attributes = entry.attributes.unwrap_or_default();
        let meta = attributes.meta.unwrap_or_default();
        Self {
            id: entry.id,
            timestamp: attributes.timestamp.0,
            message: attributes.message,
            level: attributes.level,
            instance: attributes
                .instance
                .or_else(|| meta.instance.map(|text| text.0.into_owned())),
            region: attributes
                .region
                .or_else(|| meta.region.map(|text| text.0.into_owned())),
            provider: meta.event.and_then(|event| event.provider),
        }
    }
}

impl From<FeedLine> for LogEntry {
    fn from(line: FeedLine) -> Self {
        let (app, region) = line.fly.map_or((None, None), |fly| (fly.app, fly.region));
        Self {
            id: None,
            timestamp: line.timestamp.0,
            message: Some(line.message),
            level: line.log.and_then(|log| log.level),
            instance: app.and_then(|app| app.instance),
            region,
            provider: line.event.and_then(|event| event.provider),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsIs;

        impl<'de> Visitor<'de> for AsIs {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(AsIs)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Instant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a timestamp")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Instant(text.parse().ok()))
            }

            fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Instant(None))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Instant(None))
            }

            fn visit_some<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_str(self)
            }
        }

        deserializer.deserialize_option(Read)
    }
}

/// A string or a whole number, never by way of a float: it is beyond 2^53. Anything else is none.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LogCursor>, D::Error> {
    struct Token;

    impl<'de> Visitor<'de> for Token {
        type Value = Option<LogCursor>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a cursor")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.parse().ok())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(LogCursor(number)))
        }

        fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }

    deserializer.deserialize_any(Token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_is_read_with_its_nanoseconds() {
        for token in ["\"1790064850123456789\"", "1790064850123456789"] {
            let body = format!(
                r#"{{"data":[{{"id":"i1","type":"log","attributes":{{"timestamp":"2026-09-22T08:14:10.123456789Z","message":"hi",
                "level":"info","instance":"m1","region":"fra","meta":{{"event":{{"provider":"app"}}}}}}}}],"meta":{{"next_token":{token}}}}}"#
            );
            let page = read(body.as_bytes()).unwrap();
            assert_eq!(
                (page.next, page.skipped, page.entries.len()),
                (Some(LogCursor(1_790_064_850_123_456_789)), 0, 1)
            );
            let entry = &page.entries[0];
            assert_eq!(
                entry.timestamp.unwrap().to_string(),
                "2026-09-22T08:14:10.123456789Z"
            );
            assert_eq!(
                (entry.message.as_deref(), entry.provider.as_deref()),
                (Some("hi"), Some("app"))
            );
        }
    }

    #[test]
    fn missing_null_and_odd_parts_cost_only_themselves() {
        let seen = |body: &str| {
            read(body.as_bytes())
                .map(|page| (page.entries.len(), page.skipped, page.next.is_some()))
        };
        for (body, expected) in [
            ("", Some((0, 0, false))),
            (
                r#"{"data":[],"meta":{"next_token":""}}"#,
                Some((0, 0, false)),
            ),
            (
                r#"{"data":null,"meta":{"next_token":1.5}}"#,
                Some((0, 0, false)),
            ),
            (
                r#"{"data":[{},{"id":null,"attributes":null}],"meta":null}"#,
                Some((2, 0, false)),
            ),
            (
                r#"{"data":[{"attributes":{"message":7}},5,{"id":"x"}],"meta":{"next_token":"9"}}"#,
                Some((1, 2, true)),
            ),
            (
                r#"{"data":[{"attributes":{"timestamp":"yesterday"}}]}"#,
                Some((1, 0, false)),
            ),
            (
                "{\"message\":\"a\",\"fly\":null}\nnot \
                    json\n\n{\"message\":\"b\",\"fly\":{\"app\":{\"instance\":\"m\"}}}\n",
                Some((2, 1, false)),
            ),
            ("<html>", None),
            ("[]", None),
        ] {
            assert_eq!(seen(body), expected, "{body}");
        }
    }

    #[test]
    fn a_line_of_ten_megabytes_is_one_entry() {
        let body = format!(
            r#"{{"data":[{{"id":"a","attributes":{{"message":"{}"}}}}]}}"#,
            "x".repeat(10_000_000)
        );
        assert_eq!(
            read(body.as_bytes()).unwrap().entries[0]
                .message
                .as_ref()
                .unwrap()
                .len(),
            10_000_000
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300),
            text in "[{}\\[\\]\",:a-z0-9]{0,80}") {
            let _ = (read(&bytes), read(text.as_bytes()));
        }
    }
}
