//! Finds the realm's secret: from the program, then the environment, then a private file beside the
//! store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atlas_core::{Entropy, Error, ErrorKind, Result, Secret};
use atlas_orchestrator::realm::{FileLedger, IncarnationLedger, MemoryLedger, Realm};

/// The environment variable that holds the realm's secret, if it is not in a file.
pub const REALM_SECRET_ENV: &str = "ATLAS_REALM_SECRET";

/// The builder's settings for the realm.
#[derive(Clone, Debug, Default)]
pub(crate) struct RealmSource {
    pub(crate) secret: Option<Secret>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) state_dir: Option<PathBuf>,
}

/// The realm, and the ledger that records its last store.
pub(crate) struct Found {
    pub(crate) realm: Realm,
    pub(crate) ledger: Arc<dyn IncarnationLedger>,
}

impl RealmSource {
    /// Finds the secret, or creates one for a new store. `store` is the path of the store, if it is
    /// in a file; `bound` says whether the store belongs to a realm already.
    ///
    /// A store without a file is lost with the process, so a generated secret need not outlive it.
    pub(crate) fn find(
        self,
        from_env: Option<Secret>,
        store: Option<&Path>,
        bound: bool,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Found> {
        let file = self.file.or_else(|| store.map(beside));
        let realm = match (self.secret.or(from_env), &file) {
            (Some(secret), _) => Realm::new(&secret)?,
            (None, Some(file)) if bound => Realm::load(file).map_err(|error| lost(file, error))?,
            (None, Some(file)) => Realm::load_or_create(file, &**entropy)?,
            (None, None) => Realm::new(&passing(&**entropy))?,
        };
        let ledger: Arc<dyn IncarnationLedger> = match &file {
            Some(file) => Arc::new(ledger(self.state_dir, file, &realm, entropy)),
            None => Arc::new(MemoryLedger::default()),
        };
        Ok(Found { realm, ledger })
    }
}

/// The ledger is in the user's state directory, by realm. A store's directory may be restored as a
/// whole, which would also roll back a file beside the store.
fn ledger(
    named: Option<PathBuf>,
    secret: &Path,
    realm: &Realm,
    entropy: &Arc<dyn Entropy>,
) -> FileLedger {
    let Some(dir) = named.or_else(state_dir) else {
        tracing::warn!(
            "there is no state directory (XDG_STATE_HOME, or a home): a store that is restored \
             together with its realm secret will not be noticed"
        );
        return FileLedger::beside(secret, entropy.clone());
    };
    FileLedger::in_state_dir(&dir, realm, entropy.clone()).or_beside(secret)
}

/// The directory for data that must outlive a restart (XDG base directories; on other systems the
/// same path below the home directory).
fn state_dir() -> Option<PathBuf> {
    let xdg = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let base = xdg.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))?;
    Some(base.join("atlas"))
}

/// The error for a store whose realm's secret is missing: a new secret could not open it.
fn lost(file: &Path, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let message = format!(
        "the realm secret {} is missing, and the store belongs to a realm: restore that file, or \
         give the secret as {REALM_SECRET_ENV}",
        file.display()
    );
    Error::new(ErrorKind::NotFound, message).with_source(error)
}

/// The path of the secret's file beside a store.
fn beside(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".realm");
    PathBuf::from(name)
}

fn passing(entropy: &dyn Entropy) -> Secret {
    use std::fmt::Write;
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    bytes
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
        .into()
}
