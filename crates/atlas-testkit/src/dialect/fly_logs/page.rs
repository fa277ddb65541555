//! One page: which lines, in which order, and how they are written.

use atlas_core::Timestamp;
use http::{Response, header};
use serde_json::{Value, json};

use super::{Line, Quirks};
use crate::dialect::SimBody;

/// What a request asks for.
pub(super) struct Wanted<'a> {
    /// The cursor; `None` for the newest.
    pub(super) from: Option<u64>,
    /// Nothing before this.
    pub(super) oldest: u64,
    pub(super) region: Option<&'a str>,
    pub(super) instance: Option<&'a str>,
}

impl Wanted<'_> {
    pub(super) fn holds(&self, line: &Line, inclusive: bool) -> bool {
        let fits = |wanted: Option<&str>, has: &Option<String>| {
            wanted.is_none_or(|wanted| has.as_deref() == Some(wanted))
        };
        let after = self.from.is_none_or(|from| {
            if inclusive {
                line.at >= from
            } else {
                line.at > from
            }
        });
        after
            && line.at >= self.oldest
            && fits(self.region, &line.region)
            && fits(self.instance, &line.instance)
    }
}

pub(super) fn answer(
    app: &str,
    mut lines: Vec<Line>,
    wanted: &Wanted<'_>,
    quirks: &Quirks,
) -> Response<SimBody> {
    // Stable: those of one nanosecond stay in the order they were written.
    lines.sort_by_key(|line| line.at);
    let size = quirks.page_size.max(1);
    match wanted.from {
        None => drop(lines.drain(..lines.len().saturating_sub(size))),
        Some(_) => lines.truncate(size),
    }
    let next = lines.last().map(|line| line.at).or(wanted.from);
    let at_end = lines.is_empty();
    if quirks.repeats
        && let Some(first) = lines.first().filter(|line| line.id.is_some())
    {
        lines.push(first.clone());
    }
    if quirks.disorder {
        let half = lines.len() / 2;
        lines.rotate_left(half);
    }
    if quirks.feed_shape {
        let body: String = lines
            .iter()
            .map(|line| format!("{}\n", feed(app, line)))
            .collect();
        return document(body.into_bytes(), "application/x-ndjson");
    }
    let token = match next {
        None => json!(""),
        Some(ns) if quirks.token_as_number => json!(ns),
        Some(ns) => json!(ns.to_string()),
    };
    let mut body = json!({ "data": lines.iter().map(element).collect::<Vec<_>>() });
    if !(at_end && quirks.no_token_at_end) {
        body["meta"] = json!({ "next_token": token });
    }
    document(body.to_string().into_bytes(), "application/vnd.api+json")
}

fn element(line: &Line) -> Value {
    if let Some(raw) = &line.raw {
        return raw.clone();
    }
    let meta = json!({ "instance": line.instance, "region": line.region, "event": {
        "provider": line.provider } });
    let mut attributes = json!({
        "message": line.message, "level": line.level, "instance": line.instance,
            "region": line.region, "meta": meta,
    });
    if let Some(timestamp) = timestamp(line) {
        attributes["timestamp"] = timestamp.into();
    }
    json!({ "id": line.id, "type": "log", "attributes": attributes })
}

fn feed(app: &str, line: &Line) -> Value {
    if let Some(raw) = &line.raw {
        return raw.clone();
    }
    json!({
        "event": { "provider": line.provider }, "fly": { "app": { "instance": line.instance,
            "name": app }, "region": line.region },
        "host": "b3f1", "log": { "level": line.level }, "message": line.message,
            "timestamp": timestamp(line),
    })
}

/// RFC 3339 with nine digits.
fn timestamp(line: &Line) -> Option<String> {
    match &line.timestamp {
        Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        None => {
            let seconds = i64::try_from(line.at / 1_000_000_000).unwrap_or(i64::MAX);
            let second = Timestamp::from_unix_seconds(seconds).to_string();
            Some(format!(
                "{}.{:09}Z",
                second.trim_end_matches('Z'),
                line.at % 1_000_000_000
            ))
        }
    }
}

fn document(body: Vec<u8>, kind: &'static str) -> Response<SimBody> {
    let mut response = Response::new(SimBody::from(body));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
