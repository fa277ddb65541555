//! The realm's secret in its file: mode 0600, created atomically, and refused when others can read
//! it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use atlas_core::{Entropy, Error, ErrorKind, Result, Secret};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::private_file::{publish_new, with_suffix};

const MAX_SECRET_FILE: u64 = 4096;

/// The path of the ledger that records the realm's last store: beside the secret.
#[must_use]
pub fn incarnation_path(secret: &Path) -> PathBuf {
    with_suffix(secret, ".incarnation")
}

pub(super) fn load(path: &Path) -> Result<Secret> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no realm secret at {}", path.display()),
            ));
        }
        Err(e) => return Err(unreadable(path, "cannot be opened", e)),
    };
    let meta = file
        .metadata()
        .map_err(|e| unreadable(path, "cannot be examined", e))?;
    if !meta.is_file() {
        return Err(refused(path, "is not a regular file"));
    }
    if let Some(problem) = owned_by_another(&meta).or_else(|| readable_by_others(&meta)) {
        return Err(refused(path, problem));
    }
    if meta.len() > MAX_SECRET_FILE {
        return Err(refused(path, "is larger than 4 KiB: not a secret"));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_SECRET_FILE)
        .read_to_string(&mut text)
        .map_err(|e| unreadable(path, "cannot be read as text", e))?;
    if text.trim().is_empty() {
        return Err(refused(
            path,
            "is empty; restore it, or remove it to begin a new realm",
        ));
    }
    Ok(Secret::new(text.trim()))
}

pub(super) fn load_or_create(path: &Path, entropy: &dyn Entropy) -> Result<Secret> {
    match load(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(&mut *bytes);
    let text = Zeroizing::new(format!("{}\n", BASE64URL_NOPAD.encode(&*bytes)));
    match publish_new(path, text.as_bytes(), entropy) {
        // Another process was first: its secret is the realm's, and ours was never used.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => load(path),
        Err(e) => Err(unreadable(path, "cannot be created", e)),
        Ok(()) => load(path),
    }
}

/// Checks the owner: the user who owns the file can read the secret and replace it.
#[cfg(unix)]
fn owned_by_another(meta: &fs::Metadata) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;
    (meta.uid() != rustix::process::geteuid().as_raw()).then_some(
        "belongs to another user, who knows the secret; if it is yours, make it yours with chown",
    )
}

#[cfg(not(unix))]
fn owned_by_another(_: &fs::Metadata) -> Option<&'static str> {
    None
}

#[cfg(unix)]
fn readable_by_others(meta: &fs::Metadata) -> Option<&'static str> {
    use std::os::unix::fs::PermissionsExt;
    (meta.permissions().mode() & 0o077 != 0)
        .then_some("can be read by group or world; make it 0600")
}

#[cfg(not(unix))]
fn readable_by_others(_: &fs::Metadata) -> Option<&'static str> {
    None
}

fn refused(path: &Path, why: &str) -> Error {
    Error::validation("realm secret", format!("{} {why}", path.display()))
}

fn unreadable(path: &Path, what: &str, source: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the realm secret {} {what}", path.display()),
    )
    .with_source(source)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::private_file;
    use atlas_core::{SeededEntropy, SystemEntropy};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_secret_is_private_random_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("realm");
        let first = load_or_create(&path, &SystemEntropy::new()).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(first.expose().len(), 43);
        assert_eq!(
            load_or_create(&path, &SystemEntropy::new())
                .unwrap()
                .expose(),
            first.expose()
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no draft is left"
        );
    }

    #[test]
    fn of_two_that_create_at_once_both_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("realm");
        let secrets: Vec<String> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..8)
                .map(|seed| {
                    let path = &path;
                    s.spawn(move || {
                        load_or_create(path, &SeededEntropy::new(seed))
                            .unwrap()
                            .expose()
                            .to_owned()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(secrets.windows(2).all(|w| w[0] == w[1]));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("realm");
        load_or_create(&path, &SystemEntropy::new()).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(load(&path).unwrap_err().kind(), ErrorKind::Validation);
        }
    }

    #[test]
    fn a_secret_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("realm");
        load_or_create(&path, &SystemEntropy::new()).unwrap();
        // Only root can change the owner of a file.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            let error = load_or_create(&path, &SystemEntropy::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Validation);
            assert!(error.to_string().contains("another user"), "{error}");
        }
    }

    #[test]
    fn an_empty_or_huge_file_or_a_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("realm");
        for content in [&b""[..], b"  \n", &[b'x'; 5000]] {
            private_file::replace(&path, content, &SystemEntropy::new()).unwrap();
            assert_eq!(
                load_or_create(&path, &SystemEntropy::new())
                    .unwrap_err()
                    .kind(),
                ErrorKind::Validation
            );
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        assert!(load_or_create(dir.path(), &SystemEntropy::new()).is_err());
    }
}
