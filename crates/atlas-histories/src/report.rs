//! What a run of histories found, in the shape that scripts read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// A promise that did not hold, and how to see it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The seed that shows it.
    pub seed: u64,
    /// Which promise: `I1` to `I9`, or `progress` for a history that hangs.
    pub invariant: &'static str,
    /// What happened, in order, for people.
    pub story: String,
}

/// What happened on one cloud. A history on two clouds, and its crashes, count for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OnCloud {
    /// Histories with this cloud in them.
    pub seeds: u64,
    /// Sessions and tasks asked for there.
    pub spawns: u64,
    /// Nodes crashed that rented from it.
    pub crashes: u64,
}

/// What one history did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Nodes crashed.
    pub crashes: u64,
    /// Sessions and tasks asked for.
    pub spawns: u64,
    /// By cloud.
    pub clouds: BTreeMap<&'static str, OnCloud>,
    /// Reports that machines sent to the nodes.
    pub callbacks: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<String, u64>,
    /// A digest of everything that was seen.
    pub digest: [u8; 32],
    /// Places at which a node waited, and those at which one crashed.
    pub awaits: Awaits,
    /// Promises that were judged on at least one session or machine of this history.
    pub judged: BTreeSet<&'static str>,
    /// How often a judgement was left out, by the reason.
    pub excuses: BTreeMap<&'static str, u64>,
    /// Promises that did not hold.
    pub violations: Vec<Violation>,
}

/// The places at which a node's tasks wait, by the operation they wait in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Awaits {
    /// How often each was reached.
    pub reached: BTreeMap<String, u64>,
    /// How often a node crashed at each.
    pub crashed: BTreeMap<String, u64>,
}

impl Awaits {
    /// Adds another history's.
    pub fn add(&mut self, other: &Self) {
        for (place, count) in &other.reached {
            *self.reached.entry(place.clone()).or_default() += count;
        }
        for (place, count) in &other.crashed {
            *self.crashed.entry(place.clone()).or_default() += count;
        }
    }

    /// The share of places reached at which a node crashed at least once, in percent.
    #[must_use]
    pub fn coverage_percent(&self) -> u64 {
        let reached = self.reached.len() as u64;
        let crashed = self
            .reached
            .keys()
            .filter(|place| self.crashed.contains_key(*place))
            .count() as u64;
        (crashed * 100).checked_div(reached).unwrap_or(100)
    }
}

/// What a run of many histories found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many seeds were run.
    pub seeds: u64,
    /// How many histories were run to their end.
    pub histories: u64,
    /// Nodes crashed.
    pub crashes: u64,
    /// Sessions and tasks asked for.
    pub spawns: u64,
    /// By cloud.
    pub clouds: BTreeMap<&'static str, OnCloud>,
    /// Reports that machines sent to the nodes.
    pub callbacks: u64,
    /// Simulated hours.
    pub sim_hours: f64,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<String, u64>,
    /// For each promise, the share of histories in which it was judged, in percent.
    pub judged_percent: BTreeMap<&'static str, u64>,
    /// How often a judgement was left out, by the reason.
    pub excuses: BTreeMap<&'static str, u64>,
    /// A digest over all histories, in order of their seeds.
    pub hash: String,
    /// Promises that did not hold.
    pub violations: Vec<Violation>,
    /// Places at which tasks wait that were reached.
    pub awaits_reached: usize,
    /// The share of those at which a node crashed, in percent.
    pub awaits_crashed_percent: u64,
    /// Places reached at which none did.
    pub awaits_never_crashed: Vec<String>,
    /// Seconds of the wall clock.
    pub wall_s: f64,
}

impl Report {
    /// An empty report, to which histories are added in the order of their seeds.
    #[must_use]
    pub fn builder() -> ReportBuilder {
        ReportBuilder {
            sum: Outcome::default(),
            histories: 0,
            judged: BTreeMap::new(),
            digest: ring::digest::Context::new(&ring::digest::SHA256),
        }
    }
}

/// Joins histories one by one, so that no more of them is kept than the report needs.
pub struct ReportBuilder {
    sum: Outcome,
    histories: u64,
    judged: BTreeMap<&'static str, u64>,
    digest: ring::digest::Context,
}

impl ReportBuilder {
    /// Adds a history, in order of the seeds.
    pub fn add(&mut self, outcome: &Outcome) {
        let sum = &mut self.sum;
        self.histories += 1;
        sum.crashes += outcome.crashes;
        sum.spawns += outcome.spawns;
        sum.callbacks += outcome.callbacks;
        sum.simulated_ms += outcome.simulated_ms;
        for (kind, count) in &outcome.faults {
            *sum.faults.entry(kind.clone()).or_default() += count;
        }
        for (excuse, count) in &outcome.excuses {
            *sum.excuses.entry(excuse).or_default() += count;
        }
        for promise in &outcome.judged {
            *self.judged.entry(promise).or_default() += 1;
        }
        for (cloud, of) in &outcome.clouds {
            let cloud = sum.clouds.entry(cloud).or_default();
            cloud.seeds += of.seeds;
            cloud.spawns += of.spawns;
            cloud.crashes += of.crashes;
        }
        sum.awaits.add(&outcome.awaits);
        sum.violations.extend(outcome.violations.iter().cloned());
        self.digest.update(&outcome.digest);
    }

    /// The report on all histories that were added.
    #[must_use]
    pub fn finish(self, wall_s: f64) -> Report {
        let Self {
            sum,
            histories,
            judged,
            digest,
        } = self;
        let percent = |count: u64| (count * 100).checked_div(histories).unwrap_or(100);
        #[expect(clippy::cast_precision_loss, reason = "hours for people")]
        let sim_hours = sum.simulated_ms as f64 / 3_600_000.0;
        Report {
            seeds: histories,
            histories,
            crashes: sum.crashes,
            spawns: sum.spawns,
            clouds: sum.clouds,
            callbacks: sum.callbacks,
            sim_hours,
            faults: sum.faults,
            judged_percent: judged
                .into_iter()
                .map(|(promise, count)| (promise, percent(count)))
                .collect(),
            excuses: sum.excuses,
            hash: data_encoding::HEXLOWER.encode(digest.finish().as_ref()),
            violations: sum.violations,
            awaits_reached: sum.awaits.reached.len(),
            awaits_crashed_percent: sum.awaits.coverage_percent(),
            awaits_never_crashed: sum
                .awaits
                .reached
                .keys()
                .filter(|place| !sum.awaits.crashed.contains_key(*place))
                .cloned()
                .collect(),
            wall_s,
        }
    }
}
