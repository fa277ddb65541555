//! What the application observed: its requests, the answers, and their times in the world's time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atlas_core::Timestamp;
use atlas_orchestrator::{Event, SessionId};

/// All observations of the users of a history. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts(Arc<Mutex<Seen>>);

/// The observations.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The story: one line per event, in order.
    pub(crate) story: Vec<(Timestamp, String)>,
    /// The session of each user, once the spawn answered.
    pub(crate) sessions: BTreeMap<usize, SessionId>,
    /// Acknowledged touches of each session, with the instant before the call, when it had
    /// certainly not happened yet.
    pub(crate) touches: BTreeMap<SessionId, Vec<Timestamp>>,
    /// Touches that were not acknowledged, and may have counted nevertheless.
    pub(crate) deferred: BTreeMap<SessionId, Vec<Timestamp>>,
    /// Sessions that were reported to a user as terminated, with the time.
    pub(crate) told_terminated: BTreeMap<SessionId, Timestamp>,
    /// Events each reader got, by reader.
    pub(crate) read: BTreeMap<usize, Vec<Event>>,
    /// Sessions and tasks asked for, by cloud.
    pub(crate) spawns: BTreeMap<&'static str, u64>,
    /// Nodes killed.
    pub(crate) crashes: u64,
    /// The time of the last injected fault.
    pub(crate) last_fault: Option<Timestamp>,
    /// The periods in which the nodes had the key of another account.
    pub(crate) wrong_key: Vec<(Timestamp, Option<Timestamp>)>,
    /// The periods that rollbacks undid: from the snapshot until it was restored.
    pub(crate) undone: Vec<(Timestamp, Timestamp)>,
    /// The periods in which the deployment's clock was wrong, and by how many milliseconds.
    pub(crate) wrong_clock: Vec<(Timestamp, Option<Timestamp>, i64)>,
    /// The periods in which every host slept.
    pub(crate) slept: Vec<(Timestamp, Timestamp)>,
    /// The periods in which a node was paused, or the key was refused.
    pub(crate) away: Vec<(Timestamp, Timestamp)>,
    /// The periods in which a node held, because its store may have been rolled back.
    pub(crate) held: Vec<(Timestamp, Option<Timestamp>)>,
    /// When each event was written, in the world's time, by session and number: again if a rollback
    /// undid it.
    pub(crate) written: BTreeMap<([u8; 16], u64), Vec<Timestamp>>,
    /// Reports of other senders that a node accepted.
    pub(crate) forged_taken: Vec<String>,
    /// Injected failures, by name.
    pub(crate) disasters: BTreeMap<String, u64>,
}

impl Facts {
    /// All observations.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the story.
    pub(crate) fn tell(&self, at: Timestamp, line: impl Into<String>) {
        self.seen().story.push((at, line.into()));
    }

    /// Records an injected fault.
    pub(crate) fn disaster(&self, at: Timestamp, kind: &str) {
        let mut seen = self.seen();
        *seen.disasters.entry(kind.to_owned()).or_default() += 1;
        seen.last_fault = Some(at);
        seen.story.push((at, kind.to_owned()));
    }
}
