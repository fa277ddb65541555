//! What the demo tells: a line for each thing that happens, with its time, and the cloud's own
//! ledger at the end.

use std::collections::BTreeMap;

use atlas::Usd;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::failure::{Done, Failure};
use crate::output::{self, Output, Page};

/// The timeline. It goes to standard output for people, and to standard error where standard output
/// is for a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Story {
    out: Output,
    since: Instant,
    /// The cloud it is about, where it is one of several.
    of: Option<&'static str>,
}

impl Story {
    pub(super) fn begin(out: Output) -> Self {
        Self {
            out,
            since: Instant::now(),
            of: None,
        }
    }

    /// The part of it that is about one of several clouds.
    pub(super) fn of(self, cloud: &'static str) -> Self {
        Self {
            of: Some(cloud),
            ..self
        }
    }

    /// Something happened, to somebody.
    pub(super) fn tell(&self, who: &str, what: impl AsRef<str>) -> Done {
        let cloud = self
            .of
            .map(|cloud| format!("{cloud:<8} "))
            .unwrap_or_default();
        let line = format!(
            "{:6.2}s  {cloud}{who:<8} {}",
            self.since.elapsed().as_secs_f64(),
            what.as_ref()
        );
        if self.out.is_json() {
            self.out.progress(line);
            return Ok(());
        }
        self.out.line(&line)
    }
}

/// The simulator's ledger, as far as the story needs it.
#[derive(Debug, Deserialize)]
pub(super) struct Ledger {
    clouds: BTreeMap<String, CloudLedger>,
}

/// How many machines a cloud ever made and destroyed, and what they cost.
#[derive(Debug, Deserialize)]
pub(super) struct CloudLedger {
    pub(super) created: u64,
    pub(super) destroyed: u64,
    pub(super) live: u64,
    billed_usd: Usd,
}

impl Ledger {
    /// Reads the simulator's answer. A ledger that is not understood must never be taken for an
    /// empty one.
    pub(super) fn of(answer: &Value) -> Done<Self> {
        Self::deserialize(answer)
            .map_err(|error| Failure::new(format!("the simulator's ledger is not one: {error}")))
    }

    /// One cloud's part.
    pub(super) fn cloud(&self, name: &str) -> Done<&CloudLedger> {
        let found = self.clouds.get(name);
        found.ok_or_else(|| Failure::new(format!("the simulator's ledger has no cloud {name}")))
    }

    /// How many machines exist, over all clouds.
    pub(super) fn live(&self) -> u64 {
        self.clouds.values().map(|cloud| cloud.live).sum()
    }

    /// The ledger as a table.
    pub(super) fn table(&self) -> Page {
        let clouds = self.clouds.iter().map(|(name, cloud)| {
            vec![
                name.clone(),
                cloud.created.to_string(),
                cloud.destroyed.to_string(),
                cloud.live.to_string(),
                format!("${}", cloud.billed_usd),
            ]
        });
        output::table(&["CLOUD", "CREATED", "DESTROYED", "LIVE", "BILLED"], clouds)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ledger_that_is_not_understood_is_never_taken_for_an_empty_one() {
        let cloud = |created: u64, live: u64| {
            json!({"created": created, "destroyed": created - live, "live": live,
                "billed_usd": "0.5"})
        };
        let good = json!({"clouds": {"runpod": cloud(4, 1), "fly": cloud(0, 0)}});
        let good = Ledger::of(&good).unwrap();
        assert_eq!(good.live(), 1);
        assert_eq!(good.cloud("runpod").unwrap().created, 4);
        assert_eq!(good.cloud("fly").unwrap().live, 0);
        assert!(good.cloud("vast").is_err());
        for bad in [
            json!({}),
            json!({"clouds": []}),
            json!({"clouds": {"runpod": {}}}),
            json!({"clouds": {"runpod": {"live": "0"}}}),
        ] {
            assert!(Ledger::of(&bad).is_err(), "{bad}");
        }
    }
}
