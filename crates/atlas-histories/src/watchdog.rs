//! Notices a history that makes no progress. A driver that spins without yielding keeps the
//! history's only thread forever, so the history cannot detect it itself: another thread does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::facts::Facts;
use crate::plan::Plan;
use crate::report::{Outcome, Violation};

/// A history that lets no virtual time pass for this long on the wall clock hangs. A history takes
/// a tenth of a second in a release build and some seconds in a debug build.
pub(crate) const HANG: Duration = Duration::from_secs(120);
/// A history that is not at its end after this much virtual time never comes to one. Plans last
/// some hours.
pub(crate) const ENDLESS: Duration = Duration::from_secs(60 * 24 * 3600);
/// The invariant that a history without progress breaks.
pub(crate) const PROGRESS: &str = "progress";

/// A sign of life of one history, readable while its thread is busy. Clones are handles to the
/// same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse {
    beats: Arc<AtomicU64>,
    facts: Arc<Mutex<Option<Facts>>>,
}

impl Pulse {
    /// Virtual time has passed.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// How often virtual time has passed.
    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// What this history's users see, for the story of a hang.
    pub(crate) fn follow(&self, facts: &Facts) {
        let mut slot = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(facts.clone());
    }

    /// The outcome of a history that makes no progress.
    pub(crate) fn hung(&self, plan: &Plan, what: &str) -> Outcome {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = facts.as_ref().map_or_else(Vec::new, |facts| {
            let seen = facts.seen();
            let line = |(at, line): &(_, String)| format!("{at} {line}");
            seen.story.iter().map(line).collect()
        });
        let violation = Violation {
            seed: plan.seed,
            invariant: PROGRESS,
            story: format!("{what}\n{}", lines.join("\n")),
        };
        Outcome {
            violations: vec![violation],
            ..Outcome::default()
        }
    }
}
