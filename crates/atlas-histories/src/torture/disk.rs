//! The disk of a run: a small file system of its own where one can be mounted, so that it can be
//! made full.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Large enough for a run, and small enough to be filled in a moment.
const SIZE: &str = "size=64m";

/// A directory, and whether a file system of its own is mounted there.
pub(crate) struct Disk {
    dir: TempDir,
    mounted: bool,
}

impl Disk {
    /// Mounts a small file system, or uses a plain directory where that is not allowed.
    pub(crate) fn new() -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("atlas-torture-")
            .tempdir()
            .map_err(|error| format!("no directory: {error}"))?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        Ok(Self { dir, mounted })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether it can be made full.
    pub(crate) const fn can_be_full(&self) -> bool {
        self.mounted
    }

    /// Fills it to the last byte, until what is returned is dropped.
    pub(crate) fn fill(&self) -> Result<Filler, String> {
        let path = self.path().join("filler");
        let failed = |error| format!("the disk could not be filled: {error}");
        let mut file = File::create(&path).map_err(failed)?;
        let filler = Filler(path);
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        Ok(filler)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let ended = Command::new("umount")
                .arg("-l")
                .arg(self.dir.path())
                .status();
            if !ended.is_ok_and(|status| status.success()) {
                eprintln!("torture: {} is still mounted", self.dir.path().display());
            }
        }
    }
}

/// The file that fills a disk. Dropping it makes room.
pub(crate) struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("torture: the disk stays full: {error}");
        }
    }
}
