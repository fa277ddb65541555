//! What the application saw: what it asked for, what it was told, and when, in the world's time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atlas_core::Timestamp;
use atlas_orchestrator::{Event, SessionId};

/// Everything the users of a history saw. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts(Arc<Mutex<Seen>>);

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// A line for each thing, in order: the story.
    pub(crate) story: Vec<(Timestamp, String)>,
    /// The session of each user, once the spawn answered.
    pub(crate) sessions: BTreeMap<usize, SessionId>,
    /// Acknowledged touches of each session: the instant before the call, when it certainly had not
    /// happened yet.
    pub(crate) touches: BTreeMap<SessionId, Vec<Timestamp>>,
    /// Touches that were not acknowledged, and may have counted all the same.
    pub(crate) deferred: BTreeMap<SessionId, Vec<Timestamp>>,
    /// Sessions a user was told are terminated, and when.
    pub(crate) told_terminated: BTreeMap<SessionId, Timestamp>,
    /// Events each reader got, by reader.
    pub(crate) read: BTreeMap<usize, Vec<Event>>,
    /// Sessions and tasks asked for, by cloud.
    pub(crate) spawns: BTreeMap<&'static str, u64>,
    /// Nodes killed.
    pub(crate) crashes: u64,
    /// When something last went wrong on purpose.
    pub(crate) last_fault: Option<Timestamp>,
    /// From when until when the nodes had the key of another account.
    pub(crate) wrong_key: Vec<(Timestamp, Option<Timestamp>)>,
    /// The times that rollbacks undid: from the snapshot until it was put back.
    pub(crate) undone: Vec<(Timestamp, Timestamp)>,
    /// From when until when the clock that the deployment's time is read from was wrong, and by how
    /// many milliseconds.
    pub(crate) wrong_clock: Vec<(Timestamp, Option<Timestamp>, i64)>,
    /// When each event was written, in the world's time: by its session and its number.
    pub(crate) written: BTreeMap<([u8; 16], u64), Timestamp>,
    /// Reports of strangers that a node took.
    pub(crate) forged_taken: Vec<String>,
    /// Disasters, by name.
    pub(crate) disasters: BTreeMap<String, u64>,
}

impl Facts {
    /// All of it.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of the story.
    pub(crate) fn tell(&self, at: Timestamp, line: impl Into<String>) {
        self.seen().story.push((at, line.into()));
    }

    /// Something went wrong on purpose.
    pub(crate) fn disaster(&self, at: Timestamp, kind: &str) {
        let mut seen = self.seen();
        *seen.disasters.entry(kind.to_owned()).or_default() += 1;
        seen.last_fault = Some(at);
        seen.story.push((at, kind.to_owned()));
    }
}
