//! What a run of histories found, in the shape that scripts read.

use std::collections::BTreeMap;

use serde::Serialize;

/// A promise that did not hold, and how to see it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The seed that shows it.
    pub seed: u64,
    /// Which promise: `I1` to `I9`.
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
    /// Joins histories, in order of their seeds.
    #[must_use]
    pub fn of(outcomes: &[Outcome], wall_s: f64) -> Self {
        let mut faults = BTreeMap::new();
        let mut clouds: BTreeMap<&'static str, OnCloud> = BTreeMap::new();
        let mut awaits = Awaits::default();
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for outcome in outcomes {
            for (kind, count) in &outcome.faults {
                *faults.entry(kind.clone()).or_default() += count;
            }
            for (cloud, of) in &outcome.clouds {
                let sum = clouds.entry(cloud).or_default();
                sum.seeds += of.seeds;
                sum.spawns += of.spawns;
                sum.crashes += of.crashes;
            }
            awaits.add(&outcome.awaits);
            digest.update(&outcome.digest);
        }
        let count = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
        #[expect(clippy::cast_precision_loss, reason = "hours for people")]
        let sim_hours = count(|o| o.simulated_ms) as f64 / 3_600_000.0;
        Self {
            seeds: outcomes.len() as u64,
            histories: outcomes.len() as u64,
            crashes: count(|o| o.crashes),
            spawns: count(|o| o.spawns),
            clouds,
            callbacks: count(|o| o.callbacks),
            sim_hours,
            faults,
            hash: data_encoding::HEXLOWER.encode(digest.finish().as_ref()),
            violations: outcomes.iter().flat_map(|o| o.violations.clone()).collect(),
            awaits_reached: awaits.reached.len(),
            awaits_crashed_percent: awaits.coverage_percent(),
            awaits_never_crashed: awaits
                .reached
                .keys()
                .filter(|p| !awaits.crashed.contains_key(*p))
                .cloned()
                .collect(),
            wall_s,
        }
    }
}
