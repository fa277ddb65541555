//! Room on the store's disk for what must be written when the disk is full: limits that are
//! reached, and the ends of machines.
//!
//! The room is kept by a file beside the store. When the disk is full, that file is removed and
//! what failed is written again. From then on no session is added, until there is room for the file
//! again.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use atlas_orchestrator::private_file;

const SIZE: usize = 1 << 20;
/// How often it is checked whether there is room again.
const CHECK: Duration = Duration::from_secs(1);

/// The file that keeps the room, and whether it is there.
#[derive(Debug)]
pub(super) struct Reserve {
    path: Option<PathBuf>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Unknown,
    Kept,
    /// The disk is full, as of the last check.
    InUse(Instant),
    /// It cannot be kept here, for another reason than a full disk.
    Without,
}

impl Reserve {
    /// The reserve of this store.
    pub(super) fn of(store: &Path) -> Self {
        Self {
            path: Some(private_file::with_suffix(store, ".reserve")),
            state: State::Unknown,
        }
    }

    /// For a store that is not in a file.
    #[cfg(test)]
    pub(super) const fn none() -> Self {
        Self {
            path: None,
            state: State::Without,
        }
    }

    /// Whether the disk is full, and the reserve is being used.
    pub(super) const fn is_in_use(&self) -> bool {
        matches!(self.state, State::InUse(_))
    }

    /// Makes the file if it is missing and there is room for it.
    pub(super) fn keep(&mut self) {
        let Some(path) = &self.path else { return };
        match self.state {
            State::Kept | State::Without => return,
            State::InUse(checked) if checked.elapsed() < CHECK => return,
            State::Unknown | State::InUse(_) => {}
        }
        let was_in_use = self.is_in_use();
        self.state = match make(path) {
            Ok(()) => State::Kept,
            Err(e) if is_full(&e) => State::InUse(Instant::now()),
            Err(e) => {
                tracing::debug!(path = %path.display(), error = %e,
                    "no room can be reserved for the store");
                State::Without
            }
        };
        match (was_in_use, self.is_in_use()) {
            (true, false) => tracing::info!(path = %path.display(),
                "the store's disk has room again; sessions are started again"),
            (false, true) => tracing::error!(path = %path.display(),
                "the store's disk is full; running sessions are kept within their limits, and no \
                 session is started until there is room"),
            _ => {}
        }
    }

    /// Gives up the room, so that it can be written to. False if there was none.
    pub(super) fn release(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        if !matches!(self.state, State::Kept) || fs::remove_file(path).is_err() {
            return false;
        }
        tracing::error!(path = %path.display(),
            "the store's disk is full; what was reserved is used for the ends of machines, and no \
             session is started until there is room");
        self.state = State::InUse(Instant::now());
        true
    }
}

/// Whether an error says that the disk is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn make(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() == SIZE as u64 => return Ok(()),
        Ok(meta) if !meta.is_file() => return Err(io::ErrorKind::AlreadyExists.into()),
        _ => {}
    }
    if !has_room(path) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let mut file = private_file::options()
        .create(true)
        .truncate(true)
        .open(path)?;
    // Neither sparse nor compressible, or the file system would reserve nothing.
    let mut word = 0x9E37_79B9_7F4A_7C15_u64;
    let mut content = Vec::with_capacity(SIZE);
    while content.len() < SIZE {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        content.extend_from_slice(&word.to_le_bytes());
    }
    let written = file.write_all(&content).and_then(|()| file.sync_all());
    if written.is_err() {
        fs::remove_file(path)?;
    }
    written
}

/// Whether as much again remains free. Without it, making the file would fill the disk.
#[cfg(unix)]
fn has_room(path: &Path) -> bool {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    rustix::fs::statvfs(dir).map_or(true, |stat| {
        stat.f_bavail.saturating_mul(stat.f_frsize) >= 2 * SIZE as u64
    })
}

#[cfg(not(unix))]
fn has_room(_: &Path) -> bool {
    true
}
