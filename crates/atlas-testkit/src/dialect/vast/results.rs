//! Logs and the output of commands: written to another host, some time after they were asked for.

use std::collections::BTreeMap;

use atlas_core::LogSource;
use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use super::envelope::{Failure, ok, plain};
use super::stock::NAME;
use super::{Call, Vast};
use crate::dialect::SimBody;

/// The commands that may be run.
const COMMANDS: &[&str] = &["ls", "rm", "du"];

/// What was written to the other host, by the last part of its URL.
#[derive(Debug, Default)]
pub(super) struct Results {
    written: BTreeMap<String, Written>,
    /// How many times a key was sent there.
    pub(super) leaked: u32,
}

#[derive(Debug)]
struct Written {
    instance: String,
    text: String,
    /// How often it is not there yet.
    polls: u32,
}

impl Vast {
    pub(super) fn logs(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id).map_err(Failure::bare)?;
        let body = call.json()?;
        let text = |field: &str| match &body[field] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(Failure::invalid(format!("{field} must be a string"))),
        };
        let (tail, filter) = (text("tail")?, text("filter")?);
        let source = if text("daemon_logs")?.as_deref() == Some("true") {
            LogSource::System
        } else {
            LogSource::Container
        };
        let tail: usize = tail
            .map_or(Ok(1000), |tail| tail.parse())
            .map_err(|_| Failure::invalid("tail must be a number"))?;
        let entries = self
            .world
            .log_of(NAME, &call.account, id, Some(source))
            .unwrap_or_default();
        let lines: Vec<&str> = entries
            .iter()
            .map(|entry| entry.line.as_str())
            .filter(|line| filter.as_ref().is_none_or(|part| line.contains(part)))
            .collect();
        let kept = lines[lines.len().saturating_sub(tail)..].join("\n");
        let result_url = self.write(id, if kept.is_empty() { kept } else { kept + "\n" });
        Ok(ok(&json!({ "success": true, "result_url": result_url,
                "msg": "Logs are being uploaded." })))
    }

    pub(super) fn command(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id).map_err(|_| {
            Failure::new(
                400,
                "invalid_container_id",
                "error 400/3700: no such container",
            )
        })?;
        let body = call.json()?;
        let command = body["command"]
            .as_str()
            .filter(|command| command.len() <= 512)
            .ok_or_else(|| Failure::invalid("command"))?;
        if !command
            .split_whitespace()
            .next()
            .is_some_and(|program| COMMANDS.contains(&program))
        {
            return Err(Failure::invalid("command is not among those allowed"));
        }
        let result_url = self.write(id, format!("$ {command}\n"));
        Ok(ok(
            &json!({ "success": true, "writeable_path": "/var/lib/vast", "result_url": result_url,
                "msg": "The command is being run." }),
        ))
    }

    fn write(&self, instance: &str, text: String) -> String {
        let name = format!("{instance}-{}", self.next_number());
        let mut shared = self.shared();
        let polls = shared.quirks.result_polls;
        shared.results.written.insert(
            name.clone(),
            Written {
                instance: instance.to_owned(),
                text,
                polls,
            },
        );
        format!(
            "{}/{name}.log?X-Amz-Signature=zz%2Fsigned%3D",
            shared.quirks.results_url
        )
    }

    /// The other host. It knows signatures, not keys, and refuses a call that brings both.
    pub(super) fn result(&self, parts: &http::request::Parts) -> Response<SimBody> {
        let mut shared = self.shared();
        let keyed = parts.headers.contains_key(header::AUTHORIZATION)
            || parts
                .uri
                .query()
                .is_some_and(|query| query.contains("api_key="));
        if keyed {
            shared.results.leaked += 1;
            return plain(
                StatusCode::BAD_REQUEST,
                "<Error><Code>InvalidArgument</Code></Error>",
            );
        }
        let signed = parts.uri.query() == Some("X-Amz-Signature=zz%2Fsigned%3D");
        let name = parts
            .uri
            .path()
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_suffix(".log"))
            .unwrap_or_default();
        let Some(written) = shared.results.written.get_mut(name).filter(|_| signed) else {
            return plain(
                StatusCode::NOT_FOUND,
                "<Error><Code>NoSuchKey</Code></Error>",
            );
        };
        // What an instance wrote goes with it.
        if !self
            .world
            .truth(NAME, &written.instance)
            .is_some_and(|machine| machine.is_live())
        {
            return plain(
                StatusCode::NOT_FOUND,
                "<Error><Code>NoSuchKey</Code></Error>",
            );
        }
        if written.polls > 0 {
            written.polls -= 1;
            return plain(
                StatusCode::FORBIDDEN,
                "<Error><Code>AccessDenied</Code></Error>",
            );
        }
        plain(StatusCode::OK, &written.text)
    }
}
