//! How sessions look to people. Programs get the JSON itself.

use std::time::Duration;

use atlas::owner::{EventItem, SessionView};
use atlas::{Clock, SystemClock, UsdPerHour, plain_line, span};
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::{self, Page};

/// A session on several lines.
pub(crate) fn describe(session: &SessionView) -> String {
    let SessionView { info, auth, .. } = session;
    let mut lines: Vec<(&str, String)> = Vec::new();
    let mut line = |name, text: Option<String>| lines.extend(text.map(|text| (name, text)));
    line("session", shown(&info.id));
    line("state", shown(&info.state));
    line("account", shown(&info.account));
    line("user", shown(&info.options.user_id));
    if let Some(compute) = &info.compute {
        line("machine", shown(&compute.id));
        line("status", shown(&compute.status));
        line("name", shown(&compute.name));
    }
    if let Some(auth) = auth {
        line("token", shown(&auth.token));
        line("hash", shown(&auth.hash));
    }
    line("price", shown(&price(session)));
    line("cost", shown(&info.cost.spent));
    line("active", shown(&info.last_activity));
    line("by", shown(&info.last_activity_source));
    line("ends", shown(&info.next_deadline));
    line("reason", shown(&info.reason));
    line("outcome", shown(&info.outcome));
    line("stuck", shown(&info.stuck));
    for port in info.compute.iter().flat_map(|compute| &compute.ports) {
        let url = shown(&port.url).unwrap_or_else(|| "no address yet".to_owned());
        let port = format!("{}/{}  {url}", port.internal, plain(&port.protocol));
        line("port", Some(port));
    }
    for attempt in &info.attempts {
        let words = [
            shown(&attempt.attempt),
            shown(&attempt.phase),
            shown(&attempt.placed),
            shown(&attempt.message),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        line("attempt", Some(words.join("  ")));
    }
    for decision in &info.decisions {
        let (at, text) = (plain(&decision.at), plain(&decision.text));
        line("why", Some(format!("{at}  {text}")));
    }
    lines
        .iter()
        .map(|(name, value)| format!("{name:<9}{value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Sessions as a table.
pub(crate) fn table(sessions: &[SessionView]) -> Page {
    if sessions.is_empty() {
        return Page::from("no sessions");
    }
    let now = SystemClock.now();
    let rows = sessions.iter().map(|session| {
        let info = &session.info;
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let compute = info.compute.as_ref();
        vec![
            cell(shown(&info.id)),
            cell(shown(&info.state)),
            cell(shown(&info.account)),
            cell(shown(&compute.map(|compute| &compute.id))),
            cell(shown(&compute.map(|compute| &compute.status))),
            cell(shown(&info.options.user_id)),
            cell(shown(&price(session))),
            span::show(whole(now.since(info.created_at))),
        ]
    });
    output::table(
        &[
            "SESSION", "STATE", "ACCOUNT", "MACHINE", "STATUS", "USER", "$/H", "AGE",
        ],
        rows,
    )
}

/// An event on one line; `cursor` resumes the stream after it.
pub(crate) fn event(item: &EventItem) -> String {
    let EventItem { cursor, event } = item;
    let kind = json!(event.kind);
    let fields = kind.as_object().into_iter().flatten();
    let mut rest: Vec<String> = fields
        .filter(|(name, value)| *name != "event" && !value.is_null())
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    rest.push(format!("cursor={cursor}"));
    format!(
        "{:>4}  {}  {:<16} {}",
        event.seq,
        plain(&event.at),
        event.kind.name(),
        rest.join(" ")
    )
}

/// The price of its machine: as last seen, else as ordered.
pub(crate) fn price(session: &SessionView) -> Option<UsdPerHour> {
    let cost = &session.info.cost;
    cost.observed.or(cost.quoted)
}

/// A value in words; `None` where there is nothing to say.
fn shown(value: &impl Serialize) -> Option<String> {
    Some(plain(value)).filter(|text| !text.is_empty())
}

/// A value in words.
pub(crate) fn plain(value: &impl Serialize) -> String {
    words(&json!(value))
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain_line(text),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(name, value)| format!("{name}={}", words(value)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        other => other.to_string(),
    }
}

fn whole(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}
