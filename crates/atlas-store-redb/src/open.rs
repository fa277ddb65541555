//! Opens a store's file: waits for its lock, proves it sound before a byte of it changes, and
//! migrates its schema.

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use atlas_core::{Entropy, Error, ErrorKind};
use atlas_orchestrator::private_file;
use atlas_orchestrator::store::{StoreOwner, draw_incarnation};
use data_encoding::HEXLOWER;
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageError};

use crate::RedbOptions;
use crate::gate::Gate;
use crate::pages::Pages;
use crate::schema;

/// How often the lock is tried. Waiting for a file lock has no time limit, so it is polled.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Size of the page cache in memory; the operating system caches the rest.
const CACHE_BYTES: usize = 128 << 20;

/// A database that was proved sound, and the note beside it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) db: Database,
    /// The identity of the open file, whatever its path names later.
    pub(super) identity: Identity,
    pub(super) note: PathBuf,
}

enum Attempt {
    Opened(Box<Database>, Identity),
    Held,
}

/// Opens the store, creating it first if there is none. Blocks up to the wait in the options.
pub(super) fn open(path: &Path, options: &RedbOptions) -> Result<Opened, Error> {
    let mut waited = Duration::ZERO;
    loop {
        match fs::metadata(path) {
            Ok(_) => {}
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_failed(path, "cannot be examined", e));
            }
            Err(_) if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) => {
                return Err(refused(
                    path,
                    "is a symbolic link to a file that does not exist: restore that file, or \
                     remove the link to begin a new store",
                ));
            }
            Err(_) => create(path, &*options.entropy)?,
        }
        match attempt(path, Trust::Seal)? {
            Attempt::Opened(db, identity) => {
                let note = StoreOwner::note_path(path);
                // The note only serves an error message; failing to write it does not prevent
                // opening the store.
                if let Err(e) =
                    StoreOwner::this_process(&*options.clock).write(path, &*options.entropy)
                {
                    tracing::warn!(path = %note.display(), error = %e,
                        "the note of the store's owner could not be written");
                }
                return Ok(Opened {
                    db: *db,
                    identity,
                    note,
                });
            }
            Attempt::Held if waited >= options.wait => return Err(held(path, waited)),
            Attempt::Held => {
                std::thread::sleep(LOCK_POLL);
                waited += LOCK_POLL;
            }
        }
    }
}

/// Whether a file whose seal is intact is believed to be as it was left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Seal,
    Nothing,
}

fn attempt(path: &Path, trust: Trust) -> Result<Attempt, Error> {
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(refused(path, "is not a regular file; name another place"));
    }
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        // Moved away since the check: check again.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Held),
        Err(e) => return Err(io_failed(path, "cannot be opened", e)),
    };
    let meta = file
        .metadata()
        .map_err(|e| io_failed(path, "cannot be examined", e))?;
    if meta.len() == 0 {
        // We never publish an empty file, so this one was emptied, and the machines it recorded may
        // still be running.
        return Err(refused(
            path,
            "is empty, so it is not a store any more: restore it, or remove it to begin a new one",
        ));
    }
    let again = file
        .try_clone()
        .map_err(|e| io_failed(path, "cannot be opened", e))?;
    // redb locks the file too, but only when it reads, and the file must not change between the
    // check and that moment. On Linux this is one of the locks that redb takes itself, on the same
    // open file; elsewhere it is an additional one.
    match again.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Held),
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(e)) => return Err(io_failed(path, "cannot be locked", e)),
    }
    let backend = FileBackend::new(file).map_err(|e| redb_failed(path, e))?;
    let twin = again
        .try_clone()
        .map_err(|e| io_failed(path, "cannot be opened", e))?;
    let sums = private_file::with_suffix(path, ".sums");
    let gate = Gate::closed(Pages::new(backend, twin, sums))
        .map_err(|e| io_failed(path, "cannot be examined", e))?;

    let sealed = trust == Trust::Seal
        && gate
            .pages()
            .is_sealed()
            .map_err(|e| io_failed(path, "cannot be examined", e))?;
    let proved = catch_unwind(AssertUnwindSafe(|| prove(path, &gate, sealed)));
    let proved =
        proved.unwrap_or_else(|_| Err(damaged(path, "its pages contradict each other", None)));
    let (db, version) = match proved {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Attempt::Held),
        Err(_) if sealed => {
            // After a power failure, a seal may be older than the file's pages.
            drop((gate, again));
            return attempt(path, Trust::Nothing);
        }
        Err(error) => return Err(error),
    };
    let identity = Identity::of(&meta);
    if !identity.is_at(path) {
        return Ok(Attempt::Held);
    }
    let kept_at = gate.pages().kept_at();
    gate.pages().forget_kept().map_err(|e| {
        let message = format!(
            "{} is in the way of the store's checksums, and cannot be removed: remove it",
            kept_at.display()
        );
        Error::new(ErrorKind::Unavailable, message).with_source(e)
    })?;
    gate.open()
        .map_err(|e| io_failed(path, "cannot be written", e))?;
    make_private(&again).map_err(|e| io_failed(path, "cannot be made private", e))?;
    schema::migrate(&db, version, schema::STEPS)
        .map_err(|e| schema::unreadable(e).with_path(path))?;
    Ok(Attempt::Opened(Box::new(db), identity))
}

/// Proves the file behind a closed gate: nobody changed it since we closed it, or it is byte for
/// byte as we left it, or redb's check of all trees and of the allocator finds it sound. Then
/// checks our own metadata. `None`: another process holds it.
fn prove(path: &Path, gate: &Gate, sealed: bool) -> Result<Option<(Database, u64)>, Error> {
    let unchanged = sealed
        || gate
            .pages()
            .is_as_left()
            .map_err(|e| io_failed(path, "cannot be read", e))?;
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(!unchanged);
    let db = match builder.create_with_backend(gate.clone()) {
        Ok(db) => db,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Ok(None),
        Err(e) => return Err(redb_failed(path, e)),
    };
    let version = schema::examine(&db).map_err(|e| e.with_path(path))?;
    Ok(Some((db, version)))
}

/// Creates a new store under a temporary name and publishes it atomically: a crash leaves no
/// partial store behind.
fn create(path: &Path, entropy: &dyn Entropy) -> Result<(), Error> {
    let failed = |e: io::Error| io_failed(path, "cannot be created", e);
    let mut random = [0; 8];
    entropy.fill(&mut random);
    let draft = private_file::with_suffix(path, &format!(".draft-{}", HEXLOWER.encode(&random)));
    let file = private_file::options()
        .read(true)
        .create_new(true)
        .open(&draft)
        .map_err(failed)?;
    let built = build(path, file, entropy).and_then(|()| match fs::hard_link(&draft, path) {
        // Another process created one meanwhile: that is the store.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failed(e)),
        _ => Ok(()),
    });
    let removed = fs::remove_file(&draft).map_err(failed);
    built.and(removed)?;
    private_file::sync_directory(path).map_err(failed)
}

fn build(path: &Path, file: File, entropy: &dyn Entropy) -> Result<(), Error> {
    let whole = file
        .try_clone()
        .map_err(|e| io_failed(path, "cannot be created", e))?;
    let backend = FileBackend::new(file).map_err(|e| redb_failed(path, e))?;
    let db = Builder::new()
        .create_with_backend(backend)
        .map_err(|e| redb_failed(path, e))?;
    schema::create(&db, &draw_incarnation(entropy))
        .map_err(|e| schema::unreadable(e).with_path(path))?;
    db.close().map_err(|e| redb_failed(path, e))?;
    whole
        .sync_all()
        .map_err(|e| io_failed(path, "cannot be created", e))
}

/// The identity of a file: its device and inode, if the system has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(Option<(u64, u64)>);

impl Identity {
    #[cfg(unix)]
    fn of(meta: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(Some((meta.dev(), meta.ino())))
    }

    #[cfg(not(unix))]
    fn of(_: &fs::Metadata) -> Self {
        Self(None)
    }

    /// Whether this path names that file. True also if the path cannot be examined, unless the
    /// error is that nothing exists there.
    pub(super) fn is_at(self, path: &Path) -> bool {
        match fs::metadata(path) {
            Ok(meta) => Self::of(&meta) == self,
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        }
    }
}

#[cfg(unix)]
fn make_private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if file.metadata()?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn make_private(_: &File) -> io::Result<()> {
    Ok(())
}

fn held(path: &Path, waited: Duration) -> Error {
    let by = match StoreOwner::of(path) {
        Some(o) if o.pid == std::process::id() => format!("this process itself, since {}", o.since),
        Some(o) => format!("process {} ({}), since {}", o.pid, o.program, o.since),
        None => "a process that left no note".to_owned(),
    };
    let waited = waited.as_secs_f32();
    Error::new(
        ErrorKind::Conflict,
        format!(
            "the store {} is held by {by}; waited {waited:.1} s for it",
            path.display()
        ),
    )
}

trait WithPath {
    fn with_path(self, path: &Path) -> Self;
}

impl WithPath for Error {
    fn with_path(self, path: &Path) -> Self {
        let message = format!("{}: {}", path.display(), self.message());
        Self::new(self.kind(), message).with_source(self)
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::validation("store", format!("{} {why}", path.display()))
}

fn damaged(path: &Path, why: &str, source: Option<DatabaseError>) -> Error {
    let error = Error::validation(
        "store",
        format!(
            "{} is damaged ({why}); nothing in it was changed: restore a copy, and keep this one",
            path.display()
        ),
    );
    match source {
        Some(source) => error.with_source(source),
        None => error,
    }
}

fn redb_failed(path: &Path, error: DatabaseError) -> Error {
    match &error {
        DatabaseError::Storage(StorageError::Corrupted(_)) => {
            damaged(path, "its checksums do not hold", Some(error))
        }
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
            damaged(path, "it is shorter than it says", Some(error))
        }
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == io::ErrorKind::InvalidData => {
            damaged(path, "it does not begin as a store does", Some(error))
        }
        _ => Error::new(
            ErrorKind::Unavailable,
            format!("the store {} could not be opened", path.display()),
        )
        .with_source(error),
    }
}

fn io_failed(path: &Path, what: &str, source: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the store {} {what}", path.display()),
    )
    .with_source(source)
}
