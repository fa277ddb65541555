//! Tokens in files that only their owner can read: one file per record (0600) in one folder (0700).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use atlas_core::{Error, ErrorKind, Result, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::app_name::AppName;
use crate::token::form::FlyToken;
use crate::token::store::{StoredToken, TokenSlot, TokenStore};

const VERSION: u32 = 1;
const LARGEST: u64 = 256 * 1024;

/// The durable store. A record that cannot be read is dropped when it can be had again, and refused and preserved when it was given
/// by hand.
#[derive(Clone, Debug)]
pub struct FileTokenStore {
    folder: Arc<Path>,
    /// One writer at a time within this process; between processes the rename decides.
    writing: Arc<Mutex<()>>,
}

/// A record as it is read. `Secret` would be written redacted: see [`Kept`].
#[derive(Deserialize)]
struct Record {
    v: u32,
    token: Secret,
    expires_at: Option<Timestamp>,
    name: Option<String>,
}

/// A record as it is written.
#[derive(Serialize)]
struct Kept<'a> {
    v: u32,
    token: &'a str,
    expires_at: Option<Timestamp>,
    name: Option<&'a str>,
}

impl FileTokenStore {
    /// Opens the folder, or makes it with mode 0700. Reads and writes the file system.
    ///
    /// # Errors
    /// `validation` for a folder that others may enter or that someone else owns; `unavailable` when it cannot be made.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| fs::metadata(folder))
            .map_err(|cause| unavailable("the folder of the tokens cannot be made", cause))
            .and_then(|meta| {
                if meta.mode() & 0o077 != 0 || meta.uid() != rustix::process::geteuid().as_raw() {
                    Err(Error::validation("token folder", "must be owned by this user, with mode 0700"))
                } else {
                    Ok(())
                }
            })?;
        Ok(Self { folder: folder.into(), writing: Arc::default() })
    }

    fn path(&self, app: &AppName, slot: TokenSlot) -> PathBuf {
        // An app name has no dot: no two records share a file.
        self.folder.join(format!("{app}.{}.json", slot.as_str()))
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this))
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "the token store's task ended")))
    }

    fn read(&self, app: &AppName, slot: TokenSlot) -> Result<Option<StoredToken>> {
        let path = self.path(app, slot);
        let mut bytes = Zeroizing::new(Vec::new());
        match File::open(&path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable("a token's file cannot be read", error)),
            Ok(_) => {}
        }
        let parsed = serde_json::from_slice::<Record>(&bytes).ok().filter(|record| record.v == VERSION).and_then(
            |Record { token, expires_at, name, .. }| {
                Some(StoredToken { token: FlyToken::parse(token.expose()).ok()?, expires_at, name })
            },
        );
        match (parsed, slot) {
            (Some(record), _) => Ok(Some(record)),
            (None, TokenSlot::Manual) => {
                Err(Error::new(ErrorKind::Conflict, "the file of the manual token is corrupt; it is left as it is"))
            }
            (None, TokenSlot::Cached) => {
                tracing::warn!(app = app.as_str(), "a cached fly token could not be read and is dropped");
                remove(&path).map(|()| None)
            }
        }
    }

    fn write(&self, app: &AppName, slot: TokenSlot, record: &StoredToken) -> Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if slot == TokenSlot::Manual {
            // A corrupt one is for its owner to look at, not to be written over.
            self.read(app, slot)?;
        }
        let token = record.token.joined();
        let record = Kept { v: VERSION, token: token.expose(), expires_at: record.expires_at, name: record.name.as_deref() };
        let path = self.path(app, slot);
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let written = serde_json::to_vec(&record).map(Zeroizing::new).map_err(io::Error::other).and_then(|bytes| {
            remove_quietly(&fresh)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.folder)?.sync_all()
        });
        written.map_err(|cause| unavailable("a token could not be kept", cause))
    }
}

impl TokenStore for FileTokenStore {
    async fn get(&self, app: &AppName, slot: TokenSlot) -> Result<Option<StoredToken>> {
        let app = app.clone();
        self.blocking(move |this| this.read(&app, slot)).await
    }

    async fn put(&self, app: &AppName, slot: TokenSlot, record: StoredToken) -> Result<()> {
        let app = app.clone();
        self.blocking(move |this| this.write(&app, slot, &record)).await
    }

    async fn delete(&self, app: &AppName, slot: TokenSlot) -> Result<()> {
        let path = self.path(app, slot);
        self.blocking(move |_| remove(&path)).await
    }
}

fn remove(path: &Path) -> Result<()> {
    remove_quietly(path).map_err(|cause| unavailable("a token's file cannot be removed", cause))
}

fn remove_quietly(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unavailable(message: &str, cause: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, message).with_source(cause)
}
