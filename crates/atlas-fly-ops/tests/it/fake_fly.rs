//! A folder in which a fake `fly` finds what to do, and leaves what it saw.

use std::fs;
use std::path::{Path, PathBuf};

use atlas_fly_ops::FlyCli;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake/fly");

pub(crate) struct FakeFly(pub(crate) TempDir);

impl FakeFly {
    /// One that does this, in shell.
    pub(crate) fn doing(scenario: &str) -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fake.then(scenario);
        fake
    }

    /// From now on it does this.
    pub(crate) fn then(&self, scenario: &str) {
        fs::write(self.0.path().join("scenario"), scenario).unwrap();
    }

    pub(crate) fn cli(&self) -> FlyCli {
        FlyCli::new().program(PROGRAM).env("FAKE_FLY", self.0.path())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.lines("calls")
    }

    /// Those processes it wrote down that still run. A zombie that nobody reaped yet runs no more, but one of ours may not be.
    pub(crate) fn alive(&self) -> Vec<String> {
        let state = |pid: &String| fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        self.lines("pids")
            .into_iter()
            .filter(|pid| state(pid).rsplit(')').next().is_some_and(|s| !s.is_empty() && !s.starts_with(" Z")))
            .collect()
    }

    /// Whether the leader (the first written down) is gone altogether: reaped.
    pub(crate) fn leader_is_reaped(&self) -> bool {
        !Path::new("/proc").join(&self.lines("pids")[0]).exists()
    }
}
