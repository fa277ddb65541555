//! The note beside a store that names the process which holds it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use atlas_core::{Clock, Entropy, Timestamp};
use serde::{Deserialize, Serialize};

use crate::private_file;

/// The holder of a store, as written beside it. Other processes name it in their errors while they
/// wait for the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreOwner {
    /// The process id of the owner.
    pub pid: u32,
    /// The program's name.
    pub program: String,
    /// When it opened the store.
    pub since: Timestamp,
}

impl StoreOwner {
    /// This process, as the holder of a store from now on.
    #[must_use]
    pub fn this_process(clock: &dyn Clock) -> Self {
        let exe = std::env::current_exe().ok();
        let program = exe
            .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "unknown".to_owned());
        Self {
            pid: std::process::id(),
            program,
            since: clock.now(),
        }
    }

    /// Reads the note beside a store. It is only a hint: its writer may be dead.
    #[must_use]
    pub fn of(store: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::note_path(store)).ok()?).ok()
    }

    /// Writes the note beside a store that this process has locked.
    ///
    /// # Errors
    /// When the file cannot be written. The store can be used nevertheless.
    pub fn write(&self, store: &Path, entropy: &dyn Entropy) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        private_file::replace(&Self::note_path(store), &text, entropy)
    }

    /// The path of the note. Remove it before the store's lock is released.
    #[must_use]
    pub fn note_path(store: &Path) -> PathBuf {
        private_file::with_suffix(store, ".owner")
    }
}
