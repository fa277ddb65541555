//! The path of a store's socket, and the checks of its ownership.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use atlas_core::{Error, ErrorKind};
use atlas_orchestrator::private_file::with_suffix;
use data_encoding::HEXLOWER;
use ring::digest;
use tokio::net::{UnixListener, UnixStream};

/// The maximum length of a socket path: 108 bytes on Linux and 104 on macOS, including a final
/// zero.
const MAX_PATH: usize = 103;
/// The length of `/.atlas-`, sixteen digits and `/s`: where the socket is made before it is
/// published.
const DRAFT_LEN: usize = 26;
const NAME_IN_FALLBACK: &str = "owner.sock";

/// The socket of this store: beside it or, if that path is too long, in a private directory below
/// the temporary one.
///
/// Both sides must compute the same path, so it depends only on the store's real path.
///
/// # Errors
/// When the store does not exist.
pub(super) fn socket_of(store: &Path) -> io::Result<PathBuf> {
    let store = fs::canonicalize(store)?;
    let beside = with_suffix(&store, ".sock");
    let directory = beside.parent().map_or(0, |d| d.as_os_str().len());
    if beside.as_os_str().len().max(directory + DRAFT_LEN) <= MAX_PATH {
        return Ok(beside);
    }
    let hash = digest::digest(&digest::SHA256, store.as_os_str().as_bytes());
    let directory =
        std::env::temp_dir().join(format!("atlas-{}", HEXLOWER.encode(&hash.as_ref()[..12])));
    Ok(directory.join(NAME_IN_FALLBACK))
}

/// Binds the socket so that it is never accessible to others, not even briefly, and replaces one
/// that a dead owner left behind. `draft` is 16 characters that no other process uses.
pub(super) fn bind(path: &Path, store: &Path, draft: &str) -> Result<UnixListener, Error> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(failed(path, "already exists and is not a socket", None));
        }
        _ => {}
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    if path.ends_with(NAME_IN_FALLBACK) && !directory.exists() {
        private_directory(directory)
            .map_err(|e| failed(path, "has no directory, and none could be made", Some(e)))?;
    }
    check_directory(path, store)?;
    let draft = directory.join(format!(".atlas-{draft}"));
    private_directory(&draft).map_err(|e| failed(path, "could not be made", Some(e)))?;
    let hidden = draft.join("s");
    // Renaming keeps the listener, and atomically replaces a dead owner's socket.
    let bound = UnixListener::bind(&hidden).and_then(|listener| {
        fs::set_permissions(&hidden, Permissions::from_mode(0o600))?;
        fs::rename(&hidden, path)?;
        Ok(listener)
    });
    if bound.is_err() && hidden.exists() {
        fs::remove_file(&hidden).map_err(|e| failed(path, "could not be cleaned up", Some(e)))?;
    }
    fs::remove_dir(&draft).map_err(|e| failed(path, "could not be cleaned up", Some(e)))?;
    bound.map_err(|e| failed(path, "could not be bound", Some(e)))
}

/// Checks that no other user can have placed the socket in the fallback directory.
pub(super) fn check_directory(path: &Path, store: &Path) -> Result<(), Error> {
    if !path.ends_with(NAME_IN_FALLBACK) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let examine =
        |p: &Path| fs::symlink_metadata(p).map_err(|e| failed(path, "cannot be examined", Some(e)));
    let (dir, owner) = (
        examine(directory)?,
        fs::metadata(store).map_err(|e| failed(path, "cannot be examined", Some(e)))?,
    );
    if !dir.is_dir() || dir.permissions().mode() & 0o077 != 0 || dir.uid() != owner.uid() {
        return Err(failed(
            path,
            "is in a directory that is not the store's owner's alone",
            None,
        ));
    }
    Ok(())
}

/// This process's user id, as reported by the kernel.
pub(super) fn own_uid() -> io::Result<u32> {
    Ok(UnixStream::pair()?.0.peer_cred()?.uid())
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

pub(super) fn failed(path: &Path, what: &str, source: Option<io::Error>) -> Error {
    let error = Error::new(
        ErrorKind::Unavailable,
        format!("the owner's socket {} {what}", path.display()),
    );
    match source {
        Some(source) => error.with_source(source),
        None => error,
    }
}
