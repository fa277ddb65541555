//! Many histories, on as many threads as there are cores, and the shortest beginning of one that
//! still fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::Cloud;
use crate::history;
use crate::plan::Plan;
use crate::report::{Outcome, Report, Violation};
use crate::rules::Rules;
use crate::watchdog::{HANG, Pulse};

/// How often the watchdog looks at every history under way.
const LOOK: Duration = Duration::from_secs(1);

/// Runs these seeds on these clouds and reports on them in order. Keeps nothing of a history but
/// what the report needs.
#[must_use]
pub fn seeds(clouds: &[Cloud], from: u64, count: u64) -> Report {
    let began = Instant::now();
    let mut report = Report::builder();
    let seeds: Vec<u64> = (from..from.saturating_add(count)).collect();
    in_order(&Rules::default(), clouds, &seeds, |outcome| {
        report.add(&outcome)
    });
    report.finish(began.elapsed().as_secs_f64())
}

/// Runs these seeds on these clouds under these rules and answers their outcomes in order.
pub(crate) fn under(rules: &Rules, clouds: &[Cloud], seeds: &[u64]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(seeds.len());
    in_order(rules, clouds, seeds, |outcome| outcomes.push(outcome));
    outcomes
}

/// A history under way: its place in the order, its pulse, and when that was last seen to beat.
#[derive(Debug)]
struct Underway {
    plan: Plan,
    pulse: Pulse,
    beats: u64,
    since: Instant,
}

/// What the workers and the watchdog share.
#[derive(Debug)]
struct Work {
    rules: Rules,
    clouds: Vec<Cloud>,
    seeds: Vec<u64>,
    next: AtomicUsize,
    underway: Mutex<BTreeMap<usize, Underway>>,
}

impl Work {
    fn underway(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Underway>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the seeds and hands over each outcome in the order of the seeds. A history that hangs is a
/// violation; its thread, which cannot be stopped, is left behind and replaced.
fn in_order(rules: &Rules, clouds: &[Cloud], seeds: &[u64], mut take: impl FnMut(Outcome)) {
    let work = Arc::new(Work {
        rules: rules.clone(),
        clouds: clouds.to_vec(),
        seeds: seeds.to_vec(),
        next: AtomicUsize::new(0),
        underway: Mutex::default(),
    });
    let (done, outcomes) = mpsc::channel();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..threads {
        start(&work, &done);
    }
    let mut early = BTreeMap::new();
    let mut wanted = 0;
    while wanted < seeds.len() {
        match outcomes.recv_timeout(LOOK) {
            Ok((index, outcome)) => drop(early.insert(index, outcome)),
            Err(RecvTimeoutError::Timeout) => {
                for (index, outcome) in hung(&work) {
                    early.insert(index, outcome);
                    start(&work, &done);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(outcome) = early.remove(&wanted) {
            take(outcome);
            wanted += 1;
        }
    }
}

fn start(work: &Arc<Work>, done: &Sender<(usize, Outcome)>) {
    let (work, done) = (work.clone(), done.clone());
    drop(std::thread::spawn(move || {
        loop {
            let index = work.next.fetch_add(1, Ordering::Relaxed);
            let Some(seed) = work.seeds.get(index) else {
                return;
            };
            let plan = Plan::draw(*seed, &work.clouds);
            let pulse = Pulse::default();
            let underway = Underway {
                plan: plan.clone(),
                pulse: pulse.clone(),
                beats: 0,
                since: Instant::now(),
            };
            work.underway().insert(index, underway);
            let outcome = history::run(&plan, &work.rules, &pulse);
            // One that the watchdog gave up is not reported twice.
            if work.underway().remove(&index).is_none() || done.send((index, outcome)).is_err() {
                return;
            }
        }
    }));
}

/// The histories that let no virtual time pass any more; they are under way no longer.
fn hung(work: &Work) -> Vec<(usize, Outcome)> {
    let mut underway = work.underway();
    let mut found = Vec::new();
    for (index, history) in underway.iter_mut() {
        let beats = history.pulse.beats();
        if beats != history.beats {
            (history.beats, history.since) = (beats, Instant::now());
        } else if history.since.elapsed() >= HANG {
            let what = format!("no virtual time passed for {} s", HANG.as_secs());
            found.push((*index, history.pulse.hung(&history.plan, &what)));
        }
    }
    for (index, _) in &found {
        underway.remove(index);
    }
    found
}

/// The shortest beginning of a history on these clouds that still breaks the same promise.
#[must_use]
pub fn shortest(clouds: &[Cloud], violation: &Violation) -> (usize, Violation) {
    let plan = Plan::draw(violation.seed, clouds);
    // Each beginning of a history that hangs may hang too.
    if violation.invariant == crate::watchdog::PROGRESS {
        return (plan.steps.len(), violation.clone());
    }
    for steps in 0..plan.steps.len() {
        let plan = plan.prefix(steps);
        let outcome = history::run(&plan, &Rules::default(), &Pulse::default());
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
