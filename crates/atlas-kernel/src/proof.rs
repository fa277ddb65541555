//! The proof that an order left no machine: its bounds have passed, every DELETE was answered, two
//! walks one bound apart contain none, and afterwards each recorded id is read absent. If no id is
//! recorded, nothing can contradict a listing that is wrong without saying so; then the order must
//! have been searched for in several walks, not only waited for. A 404 alone, or a walk alone,
//! proves nothing. A serving machine counts as dead only when point reads do not
//! find it and a walk made since the first of them does not contain it.

use std::time::Duration;

use atlas_core::Timestamp;

use super::input::{AttemptEvidence, Cx};
use super::record::{Attempt, Bounds, Fate};
use crate::session::AttemptPhase;

/// Whether every DELETE that the end requires was answered.
pub(super) fn all_answered(attempt: &Attempt, e: &AttemptEvidence) -> bool {
    attempt
        .sighted
        .iter()
        .filter(|seen| matches!(seen.fate, Fate::Doomed | Fate::Kept))
        .all(|seen| {
            e.deletes
                .get(&seen.id)
                .is_some_and(|d| d.answered_at.is_some())
        })
}

/// The minimum time between the two walks of a proof. A machine that lags behind its listing by up
/// to a bound cannot be missing from both.
pub(super) fn walk_spacing(killed: bool, bounds: &Bounds) -> Duration {
    if killed {
        bounds.limits.visibility_bound.max(Duration::from_secs(1))
    } else {
        Duration::from_secs(1)
    }
}

/// How many walks must lack the machine of an order without a recorded id.
const SEARCHES: u32 = 6;
/// Walks of a search are at least this fraction of a visibility bound apart: two listings shortly
/// after each other may be wrong in the same way.
const SEARCHED_IN: u32 = 8;

/// The minimum time between two walks of a search.
pub(super) fn search_spacing(bounds: &Bounds) -> Duration {
    bounds.limits.visibility_bound / SEARCHED_IN
}

/// Counts a complete walk that lacks the machine. One that started before the machine had to be
/// listed does not count.
pub(super) fn search(
    attempt: &Attempt,
    e: &mut AttemptEvidence,
    begun: Timestamp,
    bounds: &Bounds,
) {
    let called = attempt.calling_at.unwrap_or(attempt.created_at);
    if begun < called.saturating_add(bounds.limits.visibility_bound) {
        return;
    }
    match &mut e.searched {
        Some((walks, latest)) if begun >= latest.saturating_add(search_spacing(bounds)) => {
            (*walks, *latest) = (walks.saturating_add(1), begun);
        }
        Some(_) => {}
        none => *none = Some((1, begun)),
    }
}

/// Whether the machine of this order was searched for in enough walks. While a process is paused
/// or stopped, an order grows older without any search. A machine with a recorded id is read by
/// that id instead.
pub(super) fn searched(attempt: &Attempt, e: &AttemptEvidence) -> bool {
    attempt.own().next().is_some() || e.searched.is_some_and(|(walks, _)| walks >= SEARCHES)
}

/// A walk that started earlier proves nothing: bounds had not passed, or a DELETE was not answered.
pub(super) fn walks_count_from(
    attempt: &Attempt,
    e: Option<&AttemptEvidence>,
    bounds: &Bounds,
) -> Timestamp {
    let answered = e
        .into_iter()
        .flat_map(|e| e.deletes.values())
        .filter_map(|d| d.answered_at)
        .max();
    attempt.settled_at(bounds).max(
        answered
            .filter(|_| attempt.kill.is_some())
            .unwrap_or(attempt.created_at),
    )
}

/// When the second of two valid walks started: both after every bound and every DELETE, and far
/// enough apart.
pub(super) fn both_walks(attempt: &Attempt, e: &AttemptEvidence, cx: &Cx<'_>) -> Option<Timestamp> {
    let from = walks_count_from(attempt, Some(e), &cx.bounds);
    let spacing = walk_spacing(attempt.kill.is_some(), &cx.bounds);
    match e.walks {
        [Some(first), Some(second)] if first >= from && second >= first.saturating_add(spacing) => {
            Some(second)
        }
        _ => None,
    }
}

/// Whether everything except the account's identity proves that nothing of this attempt is left, or
/// that its serving machine vanished.
pub(super) fn proved(attempt: &Attempt, evidence: Option<&AttemptEvidence>, cx: &Cx<'_>) -> bool {
    let none = AttemptEvidence::default();
    let e = evidence.unwrap_or(&none);
    let safeguards = cx.policy.safeguards();
    if cx.now < attempt.settled_at(&cx.bounds) && safeguards.confirm {
        return false;
    }
    if attempt.is_serving() {
        return cx.now >= attempt.may_vanish_at(&cx.bounds)
            && attempt
                .serving
                .as_ref()
                .is_some_and(|id| e.suspect && e.absent.contains_key(id))
            && e.unshown >= e.suspect_since
            && e.unshown.is_some();
    }
    let killed = attempt.kill.is_some();
    if e.in_call
        || matches!(attempt.phase, AttemptPhase::Intent | AttemptPhase::Calling)
        || killed && !all_answered(attempt, e)
    {
        return false;
    }
    if killed && !safeguards.confirm {
        return true;
    }
    let Some(walked) = both_walks(attempt, e, cx).filter(|_| searched(attempt, e)) else {
        return false;
    };
    !safeguards.point_read
        || attempt
            .own()
            .all(|seen| e.absent.get(&seen.id).is_some_and(|begun| *begun >= walked))
}
