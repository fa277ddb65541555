//! Files that only their owner can read, written atomically. They lie beside a store: the realm's
//! secret, the ledger, the note that names the store's holder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use atlas_core::Entropy;
use data_encoding::HEXLOWER;

/// The path with this text appended to its last component.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Atomically creates a file with this content and mode 0600, or fails if the name is taken.
///
/// A hard link is the only way in the standard library to publish a finished file under a name
/// without replacing another file.
///
/// # Errors
/// When the file system refuses it; no draft is left behind unless that is refused too.
pub fn publish_new(path: &Path, content: &[u8], entropy: &dyn Entropy) -> io::Result<()> {
    let draft = write_draft(path, content, entropy)?;
    let linked = fs::hard_link(&draft, path);
    let removed = fs::remove_file(&draft);
    linked.and(removed)?;
    sync_directory(path)
}

/// Atomically replaces a file's content: after a crash it is the old or the new content.
///
/// # Errors
/// When the file system refuses it; no draft is left behind unless that is refused too.
pub fn replace(path: &Path, content: &[u8], entropy: &dyn Entropy) -> io::Result<()> {
    let draft = write_draft(path, content, entropy)?;
    if let Err(e) = fs::rename(&draft, path) {
        fs::remove_file(&draft)?;
        return Err(e);
    }
    sync_directory(path)
}

fn write_draft(path: &Path, content: &[u8], entropy: &dyn Entropy) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    entropy.fill(&mut random);
    let draft = with_suffix(path, &format!(".draft-{}", HEXLOWER.encode(&random)));
    let mut file = options().create_new(true).open(&draft)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(e) = written {
        fs::remove_file(&draft)?;
        return Err(e);
    }
    Ok(draft)
}

/// Options that open for writing and create the file with access for the owner only.
#[must_use]
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Creates a directory and its parents with access for the owner only.
///
/// # Errors
/// When the file system refuses it.
pub fn private_directories(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes a new directory entry survive a power failure.
///
/// # Errors
/// When the directory cannot be opened or synchronised.
pub fn sync_directory(of: &Path) -> io::Result<()> {
    let parent = match of.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
