//! Many histories, on as many threads as there are cores, and the shortest beginning of one that
//! still fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cloud::Cloud;
use crate::history;
use crate::plan::Plan;
use crate::report::{Outcome, Violation};
use crate::rules::Rules;

/// Runs these seeds on these clouds and answers their outcomes in order.
#[must_use]
pub fn seeds(clouds: &[Cloud], from: u64, count: u64) -> Vec<Outcome> {
    under(
        &Rules::default(),
        clouds,
        &(from..from.saturating_add(count)).collect::<Vec<_>>(),
    )
}

/// Runs these seeds on these clouds under these rules and answers their outcomes in order.
pub(crate) fn under(rules: &Rules, clouds: &[Cloud], seeds: &[u64]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = seeds.get(index) else { return };
                    let outcome = history::run(&Plan::draw(*seed, clouds), rules);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((index, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// The shortest beginning of a history on these clouds that still breaks the same promise.
#[must_use]
pub fn shortest(clouds: &[Cloud], violation: &Violation) -> (usize, Violation) {
    let plan = Plan::draw(violation.seed, clouds);
    for steps in 0..plan.steps.len() {
        let outcome = history::run(&plan.prefix(steps), &Rules::default());
        if let Some(same) = outcome
            .violations
            .into_iter()
            .find(|other| other.invariant == violation.invariant)
        {
            return (steps, same);
        }
    }
    (plan.steps.len(), violation.clone())
}
