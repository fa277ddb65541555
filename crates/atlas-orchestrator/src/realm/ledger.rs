//! Records which store held the realm last, outside every store, so that a copy or a rollback of a
//! store is detected.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use atlas_core::{Entropy, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::{Realm, file};
use crate::private_file;
use crate::store::StoreInfo;

const MAX_LEDGER_FILE: u64 = 64 * 1024;

/// The store that held the realm last, and its newest known commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastHolder {
    /// The store's incarnation id.
    pub incarnation: String,
    /// The newest commit known when this was written. A store with an older newest commit was
    /// rolled back.
    pub commit: u64,
}

/// The ledger's verdict on a store that claims the realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No store ever held the realm.
    First,
    /// This store held the realm last, and it is not behind.
    Continues,
    /// Another store held the realm last: this one is a copy, or a new one that replaces a lost
    /// one.
    Stranger(LastHolder),
    /// This store held the realm last and has lost commits since: a rollback.
    Behind(LastHolder),
}

/// Stores the last holder of the realm. Calls are short and may block on a small local file.
pub trait IncarnationLedger: Debug + Send + Sync + 'static {
    /// The last holder; `None` if the realm was never held.
    ///
    /// # Errors
    /// `unavailable` when it cannot be read. The caller must then draw no conclusion, in particular
    /// not "never held".
    fn last(&self) -> Result<Option<LastHolder>>;

    /// Durably records a new last holder.
    ///
    /// # Errors
    /// `unavailable` when it could not be written.
    fn record(&self, holder: &LastHolder) -> Result<()>;
}

impl LastHolder {
    /// Describes this store in its current state.
    #[must_use]
    pub fn of(store: &StoreInfo) -> Self {
        Self {
            incarnation: store.incarnation.clone(),
            commit: store.last_commit,
        }
    }
}

impl Claim {
    /// Compares a store with the last holder. Every verdict except the first two makes a process
    /// hold (docs/architecture.md).
    #[must_use]
    pub fn of(store: &StoreInfo, last: Option<LastHolder>) -> Self {
        match last {
            None => Self::First,
            Some(last) if last.incarnation != store.incarnation => Self::Stranger(last),
            Some(last) if last.commit > store.last_commit => Self::Behind(last),
            Some(_) => Self::Continues,
        }
    }
}

/// A ledger in a file with mode 0600.
#[derive(Debug)]
pub struct FileLedger {
    path: PathBuf,
    /// The path used by older versions; read while there is no file at `path`.
    before: Option<PathBuf>,
    entropy: Arc<dyn Entropy>,
}

impl FileLedger {
    /// The ledger beside this secret file.
    pub fn beside(secret: &Path, entropy: Arc<dyn Entropy>) -> Self {
        Self::at(file::incarnation_path(secret), entropy)
    }

    /// The ledger of this realm in the user's state directory, which is created on first use. It is
    /// outside the directory of the store, so that it is not rolled back with the store.
    pub fn in_state_dir(dir: &Path, realm: &Realm, entropy: Arc<dyn Entropy>) -> Self {
        let name = format!("{}.incarnation", realm.fingerprint());
        Self::at(dir.join(name), entropy)
    }

    /// Falls back to a ledger beside this secret file: reads it while this ledger has no file of
    /// its own, and writes it if this ledger's directory cannot be created.
    #[must_use]
    pub fn or_beside(self, secret: &Path) -> Self {
        Self {
            before: Some(file::incarnation_path(secret)),
            ..self
        }
    }

    /// The ledger in this file, for a secret that comes from the environment.
    pub fn at(path: impl Into<PathBuf>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            path: path.into(),
            before: None,
            entropy,
        }
    }

    /// The path to write to: the ledger's own, unless its directory cannot be created and there is
    /// a fallback.
    fn place(&self) -> &Path {
        let made = self.path.parent().is_none_or(|dir| {
            dir.as_os_str().is_empty()
                || dir.is_dir()
                || private_file::private_directories(dir).is_ok()
        });
        match &self.before {
            Some(before) if !made => before,
            _ => &self.path,
        }
    }
}

fn failed(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the last incarnation in {} {what}", path.display()),
    )
}

fn read(path: &Path) -> Result<Option<LastHolder>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_LEDGER_FILE).read_to_end(&mut text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => Err(e),
    }
    .map_err(|e| failed(path, "cannot be read").with_source(e))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| failed(path, "is damaged").with_source(e))
}

impl IncarnationLedger for FileLedger {
    fn last(&self) -> Result<Option<LastHolder>> {
        match (read(&self.path)?, &self.before) {
            (None, Some(before)) => read(before),
            (last, _) => Ok(last),
        }
    }

    fn record(&self, holder: &LastHolder) -> Result<()> {
        let path = self.place();
        let text = serde_json::to_vec(holder)
            .map_err(|e| failed(path, "cannot be written").with_source(e))?;
        private_file::replace(path, &text, &*self.entropy)
            .map_err(|e| failed(path, "cannot be written").with_source(e))
    }
}

/// A ledger in memory, shared by its clones: for simulated nodes and for a memory store.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger(Arc<Mutex<Option<LastHolder>>>);

impl MemoryLedger {
    /// A ledger of a realm that was never held.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl IncarnationLedger for MemoryLedger {
    fn last(&self) -> Result<Option<LastHolder>> {
        Ok(self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }

    fn record(&self, holder: &LastHolder) -> Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(holder.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Memory, Store, Table};
    use atlas_core::{SystemClock, SystemEntropy};

    fn store() -> Memory {
        Memory::new(Arc::new(SystemClock), &SystemEntropy::new())
    }

    async fn write(store: &Memory) {
        let mut batch = Batch::new();
        batch.put(Table::Realm, *b"k", *b"v");
        store.commit(batch).await.unwrap();
    }

    async fn claim(store: &Memory, ledger: &dyn IncarnationLedger) -> Claim {
        Claim::of(&store.info().await.unwrap(), ledger.last().unwrap())
    }

    #[tokio::test]
    async fn a_rolled_back_store_a_fresh_one_and_an_overtaken_copy_are_noticed() {
        let (ledger, first) = (MemoryLedger::new(), store());
        assert_eq!(claim(&first, &ledger).await, Claim::First);
        let snapshot = first.snapshot();
        write(&first).await;
        let last = LastHolder::of(&first.info().await.unwrap());
        ledger.record(&last).unwrap();
        write(&first).await;
        assert_eq!(claim(&first, &ledger).await, Claim::Continues);
        assert_eq!(
            claim(&store(), &ledger).await,
            Claim::Stranger(last.clone())
        );
        let copy = first.copy();
        first.restore(&snapshot);
        assert_eq!(claim(&first, &ledger).await, Claim::Behind(last));
        copy.set_incarnation("accepted").await.unwrap();
        ledger
            .record(&LastHolder::of(&copy.info().await.unwrap()))
            .unwrap();
        assert!(matches!(claim(&first, &ledger).await, Claim::Stranger(_)));
    }

    #[test]
    fn the_file_ledger_remembers_and_damage_is_not_never_held() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = FileLedger::beside(&dir.path().join("realm"), Arc::new(SystemEntropy::new()));
        assert_eq!(ledger.last().unwrap(), None);
        let holder = LastHolder {
            incarnation: "i".to_owned(),
            commit: 7,
        };
        ledger.record(&holder).unwrap();
        assert_eq!(ledger.last().unwrap(), Some(holder));
        for damage in [&b""[..], b"{", b"\0\0\0\0"] {
            std::fs::write(&ledger.path, damage).unwrap();
            assert_eq!(ledger.last().unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }
}
