//! A pod's log: server-sent events, followed across reconnects, with each line delivered once.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    Backoff, BoxStream, CallContext, Entropy, ErrorKind, LogLine, LogQuery, LogSource, Result,
    RetryClass,
};
use atlas_http::{Call, Client, StreamingAnswer};
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::sse::{Decoder, Event};

/// The stream stays open, so a reader that does not follow treats this much silence as the end.
const SILENCE_ENDS: Duration = Duration::from_secs(3);
/// A quiet container and a broken connection look the same, so after this much silence the log
/// reconnects.
const SILENCE_RECONNECTS: Duration = Duration::from_secs(60);
/// The default number of lines that the cloud returns.
const DEFAULT_TAIL: u32 = 100;
/// Number of lines remembered for a reconnect: as many as the cloud may repeat.
const SEAM: usize = 5000;
/// Maximum number of consecutive broken connections before the reader gets an error.
const MAX_BREAKS: u32 = 5;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));

/// The owner of a log.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    Pod(String),
    Worker { endpoint: String, worker: String },
}

/// A log and how to read it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) client: Client,
    pub(crate) cx: CallContext,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) owner: Owner,
    pub(crate) query: LogQuery,
}

impl Owner {
    fn path(&self) -> Vec<&str> {
        match self {
            Self::Pod(id) => vec!["v2", "pods", id, "logs"],
            Self::Worker { endpoint, worker } => {
                vec!["v2", "serverless", endpoint, "workers", worker, "logs"]
            }
        }
    }
}

/// Opens the log and streams its lines.
///
/// # Errors
/// Like any read, when it cannot be opened.
pub(crate) async fn open(source: Source) -> Result<BoxStream<Result<LogLine>>> {
    let answer = source.connect(None).await?;
    let left = (!source.query.follow && source.query.since.is_none())
        .then(|| source.query.tail.unwrap_or(DEFAULT_TAIL));
    let reader = Reader {
        source,
        answer: Some(answer),
        decoder: Decoder::default(),
        lines: VecDeque::new(),
        seam: Seam::default(),
        left,
        reconnects: 0,
        breaks: 0,
    };
    Ok(Box::pin(futures_util::stream::unfold(reader, Reader::next)))
}

impl Source {
    async fn connect(&self, last_id: Option<&str>) -> Result<StreamingAnswer> {
        let silence = if self.query.follow {
            SILENCE_RECONNECTS
        } else {
            SILENCE_ENDS
        };
        let source = self.query.source.map(|source| {
            if source == LogSource::System {
                "system"
            } else {
                "container"
            }
        });
        let mut call = Call::get("logs", RetryClass::Safe, self.owner.path())
            .query_opt("source", source)
            .query_opt(
                "tail",
                self.query.tail.map(|lines| lines.min(5000).to_string()),
            )
            .query_opt("since", self.query.since.map(|since| since.to_string()))
            .accept("text/event-stream")
            .idle_timeout(silence);
        if let Some(id) = last_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            call = call.header(HeaderName::from_static("last-event-id"), id);
        }
        self.client.call_streaming(&self.cx, call).await
    }

    /// Whether the owner of this log is gone, or in a state in which no more lines can follow.
    /// False when in doubt.
    async fn ended(&self) -> bool {
        let path = match &self.owner {
            Owner::Pod(id) => vec!["v2", "pods", id],
            Owner::Worker { endpoint, .. } => vec!["v2", "serverless", endpoint, "workers"],
        };
        let answer = match self
            .client
            .call(&self.cx, Call::get("logs", RetryClass::Safe, path))
            .await
        {
            Ok(answer) => answer,
            Err(error) => return error.kind() == ErrorKind::NotFound,
        };
        let Ok(answer) = answer.json::<Value>() else {
            return false;
        };
        match &self.owner {
            Owner::Pod(_) => {
                matches!(
                    answer.get("status").and_then(Value::as_str),
                    Some("EXITED" | "ERROR" | "TERMINATED")
                )
            }
            Owner::Worker { worker, .. } => answer
                .get("workers")
                .and_then(Value::as_array)
                .is_some_and(|all| {
                    all.iter()
                        .all(|one| one.get("id").and_then(Value::as_str) != Some(worker))
                }),
        }
    }
}

struct Reader {
    source: Source,
    answer: Option<StreamingAnswer>,
    decoder: Decoder,
    lines: VecDeque<LogLine>,
    seam: Seam,
    /// Number of lines still wanted; `None` for all.
    left: Option<u32>,
    /// Consecutive connections that delivered nothing, and how many of them broke.
    reconnects: u32,
    breaks: u32,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<LogLine>, Self)> {
        loop {
            if self.left == Some(0) {
                return None;
            }
            if let Some(line) = self.lines.pop_front() {
                self.left = self.left.map(|left| left - 1);
                return Some((Ok(line), self));
            }
            let answer = self.answer.as_mut()?;
            let broken = match answer.chunk().await {
                Some(Ok(bytes)) => {
                    (self.reconnects, self.breaks) = (0, 0);
                    let seam = &mut self.seam;
                    self.lines.extend(
                        self.decoder
                            .feed(&bytes)
                            .into_iter()
                            .filter(|event| seam.is_new(event))
                            .map(line),
                    );
                    continue;
                }
                // Everything that was requested was read: this is the end, not a failure.
                None if !self.source.query.follow => return None,
                Some(Err(error))
                    if error.kind() == ErrorKind::Timeout && !self.source.query.follow =>
                {
                    return None;
                }
                Some(Err(error)) if error.kind() != ErrorKind::Timeout => Some(error),
                // Closed, or silent: a quiet log and a dead one look the same here.
                _ if self.source.ended().await => return None,
                _ => None,
            };
            self.reconnects = self.reconnects.saturating_add(1);
            if let Some(error) = broken {
                self.breaks += 1;
                if self.breaks > MAX_BREAKS {
                    self.answer = None;
                    return Some((Err(error), self));
                }
            }
            tokio::time::sleep(BACKOFF.delay(self.reconnects.min(10) - 1, &*self.source.entropy))
                .await;
            self.decoder = Decoder::default();
            let last = self.seam.reconnect();
            match self.source.connect(last.as_deref()).await {
                Ok(answer) => self.answer = Some(answer),
                Err(error) if error.kind() == ErrorKind::NotFound && self.source.query.follow => {
                    return None;
                }
                Err(error) => {
                    self.answer = None;
                    return Some((Err(error), self));
                }
            }
        }
    }
}

/// Remembers delivered lines, and drops those that a reconnect repeats. Within one connection
/// nothing is dropped, because a program may print the same line twice in one instant.
#[derive(Debug, Default)]
struct Seam {
    last_id: Option<String>,
    /// Hashes, because the events themselves may be large.
    given: VecDeque<u64>,
    repeated: Vec<u64>,
}

impl Seam {
    fn is_new(&mut self, event: &Event) -> bool {
        if event.id.is_some() {
            self.last_id.clone_from(&event.id);
        }
        let mut hasher = DefaultHasher::new();
        event.hash(&mut hasher);
        let event = hasher.finish();
        if let Some(known) = self.repeated.iter().position(|known| *known == event) {
            self.repeated.remove(known);
            return false;
        }
        if self.given.len() == SEAM {
            self.given.pop_front();
        }
        self.given.push_back(event);
        true
    }

    /// The event id from which to continue.
    fn reconnect(&mut self) -> Option<String> {
        self.repeated = self.given.iter().copied().collect();
        self.last_id.clone()
    }
}

fn line(event: Event) -> LogLine {
    let value: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    LogLine {
        timestamp: text("ts")
            .or(event.id.as_deref().and_then(|id| id.split('/').next()))
            .and_then(|ts| ts.parse().ok()),
        source: if text("source") == Some("system") {
            LogSource::System
        } else {
            LogSource::Container
        },
        text: text("line").map_or(event.data.clone(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, line: &str) -> Event {
        Event {
            id: Some(id.to_owned()),
            data: format!(r#"{{"source":"container","line":"{line}","ts":"{id}"}}"#),
        }
    }

    #[test]
    fn a_reconnect_repeats_nothing_and_loses_nothing() {
        let mut seam = Seam::default();
        // The same line twice in one instant is two lines.
        let first = [event("t1", "a"), event("t2", "b"), event("t2", "b")];
        assert!(first.iter().all(|event| seam.is_new(event)));
        assert_eq!(seam.reconnect().as_deref(), Some("t2"));
        let second = [
            event("t2", "b"),
            event("t2", "b"),
            event("t2", "b"),
            event("t3", "c"),
        ];
        let new: Vec<_> = second.iter().map(|event| seam.is_new(event)).collect();
        assert_eq!(new, [false, false, true, true]);
    }

    #[test]
    fn a_line_is_read_with_its_source_and_time_and_what_is_not_json_is_kept() {
        let read = line(event("2026-09-03T10:16:09.001Z", "ready on :8000"));
        assert_eq!(
            (read.text.as_str(), read.source),
            ("ready on :8000", LogSource::Container)
        );
        assert_eq!(
            read.timestamp.unwrap().to_string(),
            "2026-09-03T10:16:09.001Z"
        );
        let odd = line(Event {
            id: Some("2026-06-01T12:02:03Z/000000000001".to_owned()),
            data: "plain".to_owned(),
        });
        assert_eq!(
            (odd.text.as_str(), odd.timestamp.is_some()),
            ("plain", true)
        );
    }
}
