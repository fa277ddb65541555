//! A worker's clock, which libfaketime moves where it is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where distributions put the library; the environment may name another place.
const PLACES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];
const PLACE_ENV: &str = "ATLAS_LIBFAKETIME";

/// The library, and the file that says how far the clock is off.
#[derive(Clone, Debug)]
pub(crate) struct FakedClock {
    library: PathBuf,
    offset: PathBuf,
}

impl FakedClock {
    /// A clock that can be moved; `None` where the library is not installed.
    pub(crate) fn find(dir: &Path) -> Option<Self> {
        let named = std::env::var_os(PLACE_ENV).map(PathBuf::from);
        let places = PLACES.iter().map(PathBuf::from);
        let library = named.into_iter().chain(places).find(|path| path.exists())?;
        let offset = dir.join("clock");
        fs::write(&offset, "+0s\n").ok()?;
        Some(Self { library, offset })
    }

    /// Moves the clock so many seconds from the true time, at once, also under a running worker.
    pub(crate) fn step(&self, seconds: i64) -> Result<(), String> {
        // Replaced in one step: the library reads it at any time.
        let draft = self.offset.with_extension("draft");
        fs::write(&draft, format!("{seconds:+}s\n"))
            .and_then(|()| fs::rename(&draft, &self.offset))
            .map_err(|error| format!("the clock could not be moved: {error}"))
    }

    /// Gives a worker this clock. Its monotonic clock is the true one.
    pub(crate) fn set_on(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    }
}
