//! How sessions look to people. Programs get the JSON itself.

use atlas::{Clock, SystemClock, Timestamp, plain_line, span};
use serde_json::Value;

use crate::output::{self, Page};

/// A session on several lines.
pub(crate) fn describe(session: &Value) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    let mut line = |name, value: &Value| {
        if let Some(text) = shown(value) {
            lines.push((name, text));
        }
    };
    line("session", &session["session"]);
    line("state", &session["state"]);
    line("account", &session["account"]);
    line("user", &session["options"]["user_id"]);
    let compute = &session["compute"];
    line("machine", &compute["id"]);
    line("status", &compute["status"]);
    line("name", &compute["name"]);
    line("token", &compute["auth"]["token"]);
    line("hash", &compute["auth"]["hash"]);
    line("price", price(session));
    line("cost", &session["cost"]["spent"]);
    line("active", &session["last_activity"]);
    line("by", &session["last_activity_source"]);
    line("ends", &session["next_deadline"]);
    line("reason", &session["reason"]);
    line("outcome", &session["outcome"]);
    line("stuck", &session["stuck"]);
    for port in list(&compute["ports"]) {
        let place = shown(&port["url"]).unwrap_or_else(|| "no address yet".to_owned());
        lines.push((
            "port",
            format!(
                "{}/{}  {place}",
                plain(&port["internal"]),
                plain(&port["protocol"])
            ),
        ));
    }
    for attempt in list(&session["attempts"]) {
        let words = [
            &attempt["attempt"],
            &attempt["phase"],
            &attempt["placed"],
            &attempt["message"],
        ];
        lines.push((
            "attempt",
            words
                .into_iter()
                .filter_map(shown)
                .collect::<Vec<_>>()
                .join("  "),
        ));
    }
    for decision in list(&session["decisions"]) {
        lines.push((
            "why",
            format!("{}  {}", plain(&decision["at"]), plain(&decision["text"])),
        ));
    }
    lines
        .iter()
        .map(|(name, value)| format!("{name:<9}{value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Sessions as a table.
pub(crate) fn table(sessions: &Value) -> Page {
    let sessions = list(sessions);
    if sessions.is_empty() {
        return Page::from("no sessions");
    }
    let now = SystemClock.now();
    let rows = sessions.iter().map(|session| {
        let cell = |value: &Value| shown(value).unwrap_or_else(|| "-".to_owned());
        let created = session["created_at"]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        vec![
            cell(&session["session"]),
            cell(&session["state"]),
            cell(&session["account"]),
            cell(&session["compute"]["id"]),
            cell(&session["compute"]["status"]),
            cell(&session["options"]["user_id"]),
            cell(price(session)),
            created.map_or_else(
                || "-".to_owned(),
                |created| span::show(whole(now.since(created))),
            ),
        ]
    });
    output::table(
        &[
            "SESSION", "STATE", "ACCOUNT", "MACHINE", "STATUS", "USER", "$/H", "AGE",
        ],
        rows,
    )
}

/// An event on one line.
pub(crate) fn event(event: &Value) -> String {
    let known = ["session", "user_id", "seq", "at", "event"];
    let rest = event
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
    let rest: Vec<String> = rest
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    format!(
        "{:>4}  {}  {:<16} {}",
        plain(&event["seq"]),
        plain(&event["at"]),
        plain(&event["event"]),
        rest.join(" ")
    )
}

/// The price of its machine: as last seen, else as ordered.
fn price(session: &Value) -> &Value {
    let cost = &session["cost"];
    if cost["observed"].is_null() {
        &cost["quoted"]
    } else {
        &cost["observed"]
    }
}

/// A value in words; `None` where there is nothing to say.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        value => Some(plain(value)).filter(|text| !text.is_empty()),
    }
}

/// A value in words.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain_line(text),
        Value::Object(fields) => {
            let words = fields.iter().filter(|(_, value)| !value.is_null());
            words
                .map(|(name, value)| format!("{name}={}", plain(value)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn whole(span: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_secs(span.as_secs())
}
