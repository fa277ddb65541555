//! Tokens in two embedded databases that only their owner can read: `cached.redb` and `manual.redb`
//! (0600) in one folder (0700).
//!
//! Tokens are requested rarely, so nothing is held open between two calls: several processes share
//! a directory, one call at a time. What can be obtained again is rebuilt when it is corrupt;
//! manually entered tokens are refused, and left unchanged byte for byte.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result, Secret, Timestamp};
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase as _, TableDefinition};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::app_name::AppName;
use crate::token::form::FlyToken;
use crate::token::store::{StoredToken, TokenSlot, TokenStore};

/// App name to record.
const TOKENS: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("fly_tokens");
const VERSION: u32 = 1;
/// Waiting for a file lock has no time limit, so it is polled.
const LOCK_POLL: Duration = Duration::from_millis(20);
const LOCK_WAIT: Duration = Duration::from_secs(10);
const CACHE_BYTES: usize = 1 << 20;

/// The durable store. Forgotten tokens may stay in unused pages of its files until those are
/// written again.
#[derive(Clone)]
pub struct RedbTokenStore(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    /// One caller at a time within this process, before the file lock between processes.
    one: Mutex<()>,
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

/// Why a database could not be used.
enum Unusable {
    /// Its bytes make no sense.
    Corrupt,
    /// The disk, or its rights.
    Failed(Error),
}

impl Unusable {
    fn of(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::RepairAborted => Self::Corrupt,
            // Another program's database: our table is missing or different.
            redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_) => Self::Corrupt,
            redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Self::Corrupt
            }
            error => Self::Failed(unavailable("the token store cannot be used", error)),
        }
    }
}

impl RedbTokenStore {
    /// Opens the folder, or makes it with mode 0700, and proves both databases. Blocks; waits up to
    /// 10 s for another process.
    ///
    /// # Errors
    /// `validation` for a folder that others may enter or that someone else owns; `conflict` when
    /// the manual tokens are corrupt, which are then left as they are, or when another process
    /// holds the folder; `unavailable` when the disk fails. A corrupt cache is rebuilt.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_owned();
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .and_then(|()| fs::metadata(&folder));
        let meta =
            made.map_err(|cause| unavailable("the folder of the tokens cannot be made", cause))?;
        if meta.mode() & 0o077 != 0 || meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::validation(
                "token folder",
                "must be owned by this user, with mode 0700",
            ));
        }
        let inner = Inner {
            folder,
            one: Mutex::default(),
        };
        inner.alone(|inner| {
            for slot in [TokenSlot::Manual, TokenSlot::Cached] {
                inner.proved(slot)?;
            }
            Ok(())
        })?;
        Ok(Self(Arc::new(inner)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.alone(work))
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Unavailable,
                    "the token store's task ended",
                ))
            })
    }
}

impl Inner {
    /// Runs the operation with exclusive access to the directory.
    fn alone<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |cause| unavailable("the token store cannot be locked", cause);
        let lock = private()
            .create(true)
            .truncate(false)
            .open(self.folder.join("lock"))
            .map_err(failed)?;
        let mut waited = Duration::ZERO;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if waited < LOCK_WAIT => {
                    std::thread::sleep(LOCK_POLL);
                    waited += LOCK_POLL;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "another process holds the token store",
                    ));
                }
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            }
        }
        // The lock goes with the file, at the end of this.
        work(self)
    }

    fn path(&self, slot: TokenSlot) -> PathBuf {
        self.folder.join(format!("{}.redb", slot.as_str()))
    }

    /// The database of a slot, proved sound. `None` where there is none yet, or where a corrupt
    /// cache was thrown away.
    fn proved(&self, slot: TokenSlot) -> Result<Option<Database>> {
        let path = self.path(slot);
        if !path
            .try_exists()
            .map_err(|cause| unavailable("the token store cannot be read", cause))?
        {
            return Ok(None);
        }
        let opened = match slot {
            TokenSlot::Manual => sound(&path),
            TokenSlot::Cached => usable(&path),
        };
        match opened {
            Ok(database) => Ok(Some(database)),
            Err(Unusable::Failed(error)) => Err(error),
            Err(Unusable::Corrupt) => self.corrupt(slot).map(|()| None),
        }
    }

    /// What is done about a corrupt database: thrown away, or refused.
    fn corrupt(&self, slot: TokenSlot) -> Result<()> {
        match slot {
            TokenSlot::Manual => Err(Error::new(
                ErrorKind::Conflict,
                "the store of the manual tokens is corrupt; it is left as it is",
            )),
            TokenSlot::Cached => {
                tracing::warn!("the store of the cached fly tokens is corrupt and is rebuilt");
                fs::remove_file(self.path(slot))
                    .map_err(|cause| unavailable("a corrupt token store cannot be removed", cause))
            }
        }
    }

    fn read(&self, app: &AppName, slot: TokenSlot) -> Result<Option<StoredToken>> {
        let Some(database) = self.proved(slot)? else {
            return Ok(None);
        };
        let bytes = match guarded(|| bytes_of(&database, app)) {
            Ok(bytes) => bytes,
            Err(Unusable::Failed(error)) => return Err(error),
            Err(Unusable::Corrupt) => {
                drop(database);
                return self.corrupt(slot).map(|()| None);
            }
        };
        let Some(bytes) = bytes else { return Ok(None) };
        match (record(&bytes), slot) {
            (Some(record), _) => Ok(Some(record)),
            (None, TokenSlot::Manual) => Err(Error::new(
                ErrorKind::Conflict,
                "the manual token's record is corrupt; it is left as it is",
            )),
            (None, TokenSlot::Cached) => {
                tracing::warn!(
                    app = app.as_str(),
                    "a cached fly token could not be read and is dropped"
                );
                removed(&database, app).map(|()| None)
            }
        }
    }

    fn write(&self, app: &AppName, slot: TokenSlot, record: &StoredToken) -> Result<()> {
        if slot == TokenSlot::Manual {
            // A corrupt one is for its owner to look at, not to be written over.
            self.read(app, slot)?;
        }
        let token = record.token.joined();
        let kept = Kept {
            v: VERSION,
            token: token.expose(),
            expires_at: record.expires_at,
            name: record.name.as_deref(),
        };
        let bytes = serde_json::to_vec(&kept)
            .map(Zeroizing::new)
            .map_err(|cause| unavailable("a token could not be kept", cause))?;
        let database = match self.proved(slot)? {
            Some(database) => database,
            None => made(&self.path(slot))?,
        };
        let put = || -> std::result::Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction
                .open_table(TOKENS)?
                .insert(app.as_str(), bytes.as_slice())?;
            Ok(transaction.commit()?)
        };
        put().map_err(|cause| unavailable("a token could not be kept", cause))
    }

    fn delete(&self, app: &AppName, slot: TokenSlot) -> Result<()> {
        self.proved(slot)?
            .map_or(Ok(()), |database| removed(&database, app))
    }
}

impl TokenStore for RedbTokenStore {
    async fn get(&self, app: &AppName, slot: TokenSlot) -> Result<Option<StoredToken>> {
        let app = app.clone();
        self.blocking(move |inner| inner.read(&app, slot)).await
    }

    async fn put(&self, app: &AppName, slot: TokenSlot, record: StoredToken) -> Result<()> {
        let app = app.clone();
        self.blocking(move |inner| inner.write(&app, slot, &record))
            .await
    }

    async fn delete(&self, app: &AppName, slot: TokenSlot) -> Result<()> {
        let app = app.clone();
        self.blocking(move |inner| inner.delete(&app, slot)).await
    }
}

/// Opens a database that is to be left as it is where it is not sound. redb repairs what it opens,
/// so a copy is tried first.
fn sound(path: &Path) -> std::result::Result<Database, Unusable> {
    let failed = |cause| Unusable::Failed(unavailable("the token store cannot be read", cause));
    let copy = path.with_extension("proof");
    remove_quietly(&copy).map_err(failed)?;
    let mut proof = private().create_new(true).open(&copy).map_err(failed)?;
    let copied = File::open(path)
        .and_then(|mut from| io::copy(&mut from, &mut proof))
        .map_err(failed);
    let tried = copied.and_then(|_| usable(&copy));
    remove_quietly(&copy).map_err(failed)?;
    tried.and_then(|_| usable(path))
}

/// Opens a database and proves it.
fn usable(path: &Path) -> std::result::Result<Database, Unusable> {
    let failed = |cause| Unusable::Failed(unavailable("the token store cannot be read", cause));
    let meta = fs::metadata(path).map_err(failed)?;
    // An empty file would become a new database.
    if !meta.is_file() || meta.len() == 0 {
        return Err(Unusable::Corrupt);
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    }
    guarded(|| {
        let database = builder()
            .set_check_integrity_on_open(true)
            .open(path)
            .map_err(Unusable::of)?;
        database
            .begin_read()
            .map_err(Unusable::of)?
            .open_table(TOKENS)
            .map_err(Unusable::of)?;
        Ok(database)
    })
}

/// Makes a new database under a draft name and publishes it whole: a crash leaves no half-made
/// store behind.
fn made(path: &Path) -> Result<Database> {
    let failed = |cause: redb::Error| unavailable("the token store cannot be made", cause);
    let draft = path.with_extension("draft");
    remove_quietly(&draft).map_err(|cause| failed(cause.into()))?;
    let build = || -> std::result::Result<Database, redb::Error> {
        let file = private().create_new(true).open(&draft)?;
        let database = builder().create_with_backend(FileBackend::new(file)?)?;
        let transaction = database.begin_write()?;
        transaction.open_table(TOKENS)?;
        transaction.commit()?;
        database.close()?;
        fs::rename(&draft, path)?;
        File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()?;
        Ok(builder().open(path)?)
    };
    build().map_err(failed)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn bytes_of(
    database: &Database,
    app: &AppName,
) -> std::result::Result<Option<Zeroizing<Vec<u8>>>, Unusable> {
    let table = database
        .begin_read()
        .map_err(Unusable::of)?
        .open_table(TOKENS)
        .map_err(Unusable::of)?;
    let found = table.get(app.as_str()).map_err(Unusable::of)?;
    Ok(found.map(|bytes| Zeroizing::new(bytes.value().to_vec())))
}

fn removed(database: &Database, app: &AppName) -> Result<()> {
    let remove = || -> std::result::Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(TOKENS)?.remove(app.as_str())?;
        Ok(transaction.commit()?)
    };
    remove().map_err(|cause| unavailable("a token could not be forgotten", cause))
}

fn record(bytes: &[u8]) -> Option<StoredToken> {
    let Record {
        token,
        expires_at,
        name,
        ..
    } = serde_json::from_slice(bytes)
        .ok()
        .filter(|record: &Record| record.v == VERSION)?;
    Some(StoredToken {
        token: FlyToken::parse(token.expose()).ok()?,
        expires_at,
        name,
    })
}

/// A damaged database can make redb panic; that is damage too.
fn guarded<T>(
    work: impl FnOnce() -> std::result::Result<T, Unusable>,
) -> std::result::Result<T, Unusable> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Unusable::Corrupt))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn remove_quietly(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unavailable(message: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unavailable, message).with_source(cause)
}

impl fmt::Debug for RedbTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbTokenStore")
            .field("folder", &self.0.folder)
            .finish_non_exhaustive()
    }
}
