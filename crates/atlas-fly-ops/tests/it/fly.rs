//! The testkit's fake `fly` in a folder that goes with it.

use std::ops::Deref;
use std::path::PathBuf;

use atlas_fly_ops::FlyCli;
use atlas_testkit::fake_fly::FakeFly;
use tempfile::TempDir;

pub(crate) struct Fly {
    fake: FakeFly,
    pub(crate) dir: TempDir,
}

impl Fly {
    /// One that does what the real one does, in short.
    pub(crate) fn standard() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            fake: FakeFly::new(dir.path()).unwrap(),
            dir,
        }
    }

    /// One that does this, in shell.
    pub(crate) fn doing(scenario: &str) -> Self {
        let fly = Self::standard();
        fly.fake.doing(scenario).unwrap();
        fly
    }

    pub(crate) fn cli(&self) -> FlyCli {
        FlyCli::new().program(self.program())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Deref for Fly {
    type Target = FakeFly;

    fn deref(&self) -> &FakeFly {
        &self.fake
    }
}
