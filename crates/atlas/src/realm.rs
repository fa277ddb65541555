//! Where the realm's secret comes from: what the program says, then the environment, then a private
//! file beside the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atlas_core::{Entropy, Result, Secret};
use atlas_orchestrator::realm::{FileLedger, IncarnationLedger, MemoryLedger, Realm};

/// The variable that holds the realm's secret, where it is not in a file.
pub const REALM_SECRET_ENV: &str = "ATLAS_REALM_SECRET";

/// What a builder was told about the realm.
#[derive(Clone, Debug, Default)]
pub(crate) struct RealmSource {
    pub(crate) secret: Option<Secret>,
    pub(crate) file: Option<PathBuf>,
}

/// The realm, and where the last store to hold it is remembered.
pub(crate) struct Found {
    pub(crate) realm: Realm,
    pub(crate) ledger: Arc<dyn IncarnationLedger>,
}

impl RealmSource {
    /// Finds the secret, or makes one on first use. `store` is the store's file, where it has one.
    ///
    /// A store without a file dies with the process, and so may a secret that nobody gave.
    pub(crate) fn find(
        self,
        from_env: Option<Secret>,
        store: Option<&Path>,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Found> {
        let file = self.file.or_else(|| store.map(beside));
        let ledger: Arc<dyn IncarnationLedger> = match &file {
            Some(file) => Arc::new(FileLedger::beside(file, entropy.clone())),
            None => Arc::new(MemoryLedger::default()),
        };
        let realm = match (self.secret.or(from_env), &file) {
            (Some(secret), _) => Realm::new(&secret)?,
            (None, Some(file)) => Realm::load_or_create(file, &**entropy)?,
            (None, None) => Realm::new(&passing(&**entropy))?,
        };
        Ok(Found { realm, ledger })
    }
}

/// The file beside a store.
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
