//! Disables one safeguard, with the layers that mask it, and searches for the violation that it
//! prevents.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cloud::Cloud;
use crate::report::Outcome;
use crate::rules::Rules;
use crate::run;

/// Maximum number of seeds before a sabotage counts as not caught.
pub const SEEDS: u64 = 2_000;

/// A safeguard to remove.
pub(crate) struct Sabotage {
    /// The name that `--sabotage` takes.
    pub(crate) name: &'static str,
    /// The promise that it protects.
    pub(crate) invariants: &'static [&'static str],
    /// Disables it and what masks it.
    pub(crate) apply: fn(&mut Rules),
    /// Where to search, if not on every cloud: a violation that needs many machines at once, or a
    /// quick cloud, appears there in fewer histories.
    pub(crate) clouds: Option<&'static [Cloud]>,
    /// Seeds that caught it before; they are tried first. With the safeguard, none of them breaks
    /// the promise.
    pub(crate) known: &'static [u64],
}

const RUNPOD: Option<&[Cloud]> = Some(&[Cloud::RUNPOD]);

/// The result of a sabotage.
#[derive(Clone, Debug, Serialize)]
pub struct Caught {
    /// Whether a violation of the promise was found, and every seed on record shows something.
    pub caught: bool,
    /// The seed that showed it, and that breaks nothing with the safeguard.
    pub seed: Option<u64>,
    /// The violated promise.
    pub invariant: String,
    /// The number of histories that this took.
    pub histories: u64,
    /// Seeds on record that break the promise with the safeguard too, so they show nothing.
    pub unclean: Vec<u64>,
}

/// Every sabotage of this name, or all, each hunted for on these clouds through at most so many
/// seeds.
///
/// # Errors
/// When no sabotage has this name.
pub fn run(name: &str, clouds: &[Cloud], seeds: u64) -> Result<BTreeMap<String, Caught>, String> {
    let chosen: Vec<&Sabotage> = ALL
        .iter()
        .filter(|sabotage| name == "all" || sabotage.name == name)
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|sabotage| sabotage.name).collect();
        return Err(format!(
            "there is no sabotage {name}; there are {}",
            names.join(", ")
        ));
    }
    Ok(chosen
        .into_iter()
        .map(|sabotage| (sabotage.name.to_owned(), hunt(sabotage, clouds, seeds)))
        .collect())
}

/// How many histories are run before it is looked whether one of them caught it.
const AT_A_TIME: usize = 8;

fn hunt(sabotage: &Sabotage, clouds: &[Cloud], most: u64) -> Caught {
    let mut sabotaged = Rules::default();
    (sabotage.apply)(&mut sabotaged);
    let clouds = sabotage.clouds.unwrap_or(clouds);
    let broken = |outcome: Outcome| {
        let violations = outcome.violations.into_iter();
        violations.map(|violation| violation.invariant).collect()
    };
    search(sabotage, most, |is_sabotaged, seeds| {
        let honest = Rules::default();
        let rules = if is_sabotaged { &sabotaged } else { &honest };
        let outcomes = run::under(rules, clouds, seeds);
        outcomes.into_iter().map(broken).collect()
    })
}

/// The promises that a history breaks.
type Broken = Vec<&'static str>;

/// Searches for a history that breaks a promise without the safeguard and keeps it with it. `run`
/// runs seeds, without the safeguard or with it.
fn search(sabotage: &Sabotage, most: u64, run: impl Fn(bool, &[u64]) -> Vec<Broken>) -> Caught {
    let protected = |broken: &Broken| {
        let invariants = sabotage.invariants.iter().copied();
        invariants.into_iter().find(|one| broken.contains(one))
    };
    let breaks_anyway = |seed: u64| {
        run(false, &[seed])
            .iter()
            .any(|one| protected(one).is_some())
    };
    let known = sabotage.known.iter().copied();
    let unclean: Vec<u64> = known.clone().filter(|seed| breaks_anyway(*seed)).collect();
    let seeds: Vec<u64> = known.chain(0..most).collect();
    let mut histories = 0;
    for seeds in seeds.chunks(AT_A_TIME) {
        for (seed, broken) in seeds.iter().zip(run(true, seeds)) {
            histories += 1;
            if let Some(invariant) = protected(&broken)
                && !breaks_anyway(*seed)
            {
                return Caught {
                    caught: unclean.is_empty(),
                    seed: Some(*seed),
                    invariant: invariant.to_owned(),
                    histories,
                    unclean,
                };
            }
        }
    }
    Caught {
        caught: false,
        seed: None,
        invariant: sabotage.invariants[0].to_owned(),
        histories,
        unclean,
    }
}

/// All of them. What each masks is said where it is removed with it.
pub(crate) const ALL: &[Sabotage] = &[
    Sabotage {
        name: "no-intent",
        invariants: &["I1"],
        apply: |r| {
            r.loses_intents = true;
            // A store that is seen to have been rolled back makes everything stop.
            r.policy.safeguards.incarnation = false;
        },
        clouds: None,
        known: &[4],
    },
    Sabotage {
        name: "blind-retry",
        invariants: &["I3"],
        apply: |r| r.policy.safeguards.resolve_unknown = false,
        clouds: None,
        known: &[3],
    },
    Sabotage {
        name: "trust-partial-list",
        invariants: &["I8", "I3", "I2"],
        apply: |r| {
            r.policy.safeguards.complete_walks = false;
            // A machine that an incomplete walk lacks is read by its id anyway, if the id is known.
            r.policy.safeguards.point_read = false;
        },
        clouds: RUNPOD,
        known: &[62],
    },
    Sabotage {
        name: "absence-by-list",
        invariants: &["I8"],
        apply: |r| r.policy.safeguards.point_read = false,
        clouds: RUNPOD,
        known: &[62],
    },
    Sabotage {
        name: "no-fence",
        invariants: &["I2", "I3", "I7", "I8"],
        apply: |r| {
            r.policy.safeguards.fence = false;
            r.more_stalls = 6;
        },
        clouds: RUNPOD,
        known: &[535],
    },
    Sabotage {
        name: "no-mac",
        invariants: &["I4"],
        apply: |r| r.policy.safeguards.mac = false,
        clouds: None,
        known: &[8],
    },
    Sabotage {
        name: "one-carrier",
        invariants: &["I4"],
        apply: |r| r.policy.safeguards.all_carriers = false,
        clouds: None,
        known: &[16],
    },
    Sabotage {
        name: "adopt-first-only",
        invariants: &["I2", "I8"],
        apply: |r| r.policy.safeguards.every_duplicate = false,
        clouds: None,
        known: &[14],
    },
    Sabotage {
        name: "no-confirm",
        invariants: &["I8"],
        apply: |r| r.policy.safeguards.confirm = false,
        clouds: None,
        known: &[9],
    },
    Sabotage {
        name: "no-account",
        invariants: &["I8"],
        apply: |r| r.policy.safeguards.account_identity = false,
        clouds: RUNPOD,
        known: &[20],
    },
    Sabotage {
        name: "no-incarnation",
        invariants: &["I2", "I4", "I8"],
        apply: |r| r.policy.safeguards.incarnation = false,
        clouds: None,
        known: &[1],
    },
    Sabotage {
        name: "give-up-terminate",
        invariants: &["I2", "I8"],
        apply: |r| r.policy.safeguards.retry_kill = false,
        clouds: None,
        known: &[14],
    },
    Sabotage {
        name: "reap-unknown",
        invariants: &["I4"],
        apply: |r| {
            r.policy.safeguards.spare_unresolved = false;
            // An attempt is unresolved only for a moment, so waiting for a second look would spare
            // it anyway.
            r.policy.safeguards.two_sightings = false;
            r.policy.safeguards.grace = false;
        },
        clouds: None,
        known: &[14],
    },
    Sabotage {
        name: "single-sighting",
        invariants: &["I4"],
        apply: |r| {
            r.policy.safeguards.two_sightings = false;
            // Grace is longer than the time between two scans.
            r.policy.safeguards.grace = false;
        },
        clouds: None,
        known: &[14],
    },
    Sabotage {
        name: "no-grace",
        invariants: &["I4"],
        apply: |r| r.policy.safeguards.grace = false,
        clouds: None,
        known: &[43],
    },
    Sabotage {
        name: "no-breaker",
        invariants: &["I4"],
        apply: |r| r.policy.safeguards.breaker = false,
        clouds: None,
        known: &[91],
    },
    Sabotage {
        name: "touch-lost",
        invariants: &["I6"],
        apply: |r| r.policy.safeguards.flush_touches = false,
        clouds: None,
        known: &[4],
    },
    Sabotage {
        name: "idle-early",
        invariants: &["I6"],
        apply: |r| r.policy.safeguards.idle_margin = false,
        clouds: RUNPOD,
        known: &[9],
    },
    Sabotage {
        name: "idle-unannounced",
        invariants: &["I6"],
        apply: |r| r.policy.safeguards.announced_ends = false,
        clouds: RUNPOD,
        known: &[165],
    },
    Sabotage {
        name: "any-clock",
        invariants: &["I6"],
        apply: |r| r.policy.safeguards.time_trust = false,
        clouds: RUNPOD,
        known: &[68],
    },
    Sabotage {
        name: "cost-overrun",
        invariants: &["I5"],
        apply: |r| r.policy.safeguards.cost_margin = false,
        clouds: RUNPOD,
        known: &[4],
    },
    Sabotage {
        name: "event-gap",
        invariants: &["I7"],
        apply: |r| r.drops_events = true,
        clouds: None,
        known: &[0],
    },
    Sabotage {
        name: "respawn-leak",
        invariants: &["I2", "I8"],
        apply: |r| r.policy.safeguards.respawn_kills_old = false,
        clouds: RUNPOD,
        known: &[153],
    },
    Sabotage {
        name: "leak-secret",
        invariants: &["I9"],
        apply: |r| r.leaks = true,
        clouds: None,
        known: &[1],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    const SEVEN: Sabotage = Sabotage {
        name: "seven",
        invariants: &["I2", "I8"],
        apply: |_| {},
        clouds: None,
        known: &[7],
    };

    /// The seeds that break I8 without the safeguard, and those that break it anyway.
    fn caught(without: &[u64], anyway: &[u64]) -> Caught {
        search(&SEVEN, 20, |sabotaged, seeds| {
            let breaks = |seed: &u64| anyway.contains(seed) || sabotaged && without.contains(seed);
            let broken = |seed| if breaks(seed) { vec!["I8"] } else { vec!["I4"] };
            seeds.iter().map(broken).collect()
        })
    }

    #[test]
    fn a_known_seed_that_keeps_the_promise_with_the_safeguard_is_tried_first() {
        let caught = caught(&[3, 7], &[]);
        assert!(caught.caught);
        assert_eq!((caught.seed, caught.histories), (Some(7), 1));
        assert_eq!(caught.invariant, "I8");
    }

    #[test]
    fn a_known_seed_that_breaks_the_promise_with_the_safeguard_too_is_not_accepted() {
        let caught = caught(&[3], &[7]);
        assert!(!caught.caught);
        assert_eq!((caught.seed, caught.unclean), (Some(3), vec![7]));
    }

    #[test]
    fn a_seed_that_breaks_the_promise_anyway_shows_nothing() {
        let caught = caught(&[], &[4, 5]);
        assert!(!caught.caught);
        assert_eq!((caught.seed, caught.histories), (None, 21));
    }
}
