//! The store's file with a checksum for each of its pages.
//!
//! A file that nobody changed since it was closed is not read when it is opened: a seal says so,
//! and each page is compared with its checksum when it is first read. So opening a store costs what
//! is read of it, however long its history is. A file without an intact seal is read completely.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use atlas_core::SystemEntropy;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::seal::{Kept, Seal};
use super::sums::{PAGE, Sums, sum_page};
use crate::realm::file as private_file;

/// A file whose pages have checksums.
#[derive(Debug)]
pub(super) struct Pages {
    backend: FileBackend,
    /// The same open file, for its metadata.
    file: File,
    /// Where the checksums are kept from one close to the next opening.
    kept_at: PathBuf,
    state: Mutex<State>,
    /// Whether some pages are still to be compared.
    compares: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    sums: Sums,
    unread: Unread,
    /// Whether a page was not as it was left. The next opening must then prove the file.
    damaged: bool,
}

/// The pages that are still to be compared with their checksums, one bit each.
#[derive(Debug, Default)]
struct Unread(Vec<u64>);

impl Unread {
    fn all(pages: usize) -> Self {
        Self(vec![u64::MAX; pages.div_ceil(64)])
    }

    fn contains(&self, page: usize) -> bool {
        self.0
            .get(page / 64)
            .is_some_and(|bits| bits & (1 << (page % 64)) != 0)
    }

    fn remove(&mut self, page: usize) {
        if let Some(bits) = self.0.get_mut(page / 64) {
            *bits &= !(1 << (page % 64));
        }
    }

    /// Removes this page and all after it.
    fn remove_from(&mut self, page: usize) {
        self.0.truncate(page.div_ceil(64));
        for page in page..page.next_multiple_of(64) {
            self.remove(page);
        }
    }
}

/// The pages that these bytes lie in.
fn pages(offset: u64, len: usize) -> std::ops::Range<usize> {
    let page = PAGE as u64;
    let end = offset.saturating_add(len as u64).div_ceil(page);
    usize::try_from(offset / page).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX)
}

impl Pages {
    /// Takes an open file, given twice.
    pub(super) fn new(backend: FileBackend, file: File, kept_at: PathBuf) -> Self {
        Self {
            backend,
            file,
            kept_at,
            state: Mutex::default(),
            compares: AtomicBool::new(false),
        }
    }

    pub(super) fn backend(&self) -> &FileBackend {
        &self.backend
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody changed the file since its last close. Its pages are then compared when they
    /// are first read.
    pub(super) fn is_sealed(&self) -> io::Result<bool> {
        let seal = Seal::of(&self.file)?;
        let Some(kept) = Kept::load(&self.kept_at).filter(|kept| kept.is_sealed_by(seal)) else {
            return Ok(false);
        };
        let unread = Unread::all(kept.sums.len());
        let sums = kept.sums;
        *self.state() = State {
            sums,
            unread,
            damaged: false,
        };
        self.compares.store(true, Ordering::Release);
        Ok(true)
    }

    /// Reads the whole file; true if it is, byte for byte, as it was at the last close.
    pub(super) fn is_as_left(&self) -> io::Result<bool> {
        let mut found = Sums::of(&self.backend)?;
        let kept = Kept::load(&self.kept_at);
        let same = kept.is_some_and(|mut kept| kept.sums.equals(&mut found));
        self.compares.store(false, Ordering::Release);
        *self.state() = State {
            sums: found,
            ..State::default()
        };
        Ok(same)
    }

    /// Removes the kept checksums: from here on they no longer match the file.
    pub(super) fn forget_kept(&self) -> io::Result<()> {
        match fs::remove_file(&self.kept_at) {
            Ok(()) => private_file::sync_directory(&self.kept_at),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Where the checksums are kept.
    pub(super) fn kept_at(&self) -> &Path {
        &self.kept_at
    }

    /// Keeps the checksums for the next opening. Without them, opening only takes longer.
    pub(super) fn keep(&self) {
        let mut state = self.state();
        if state.damaged {
            return;
        }
        let entropy = SystemEntropy::new();
        let kept = state.sums.complete(&self.backend).and_then(|()| {
            let seal = Seal::put_on(&self.file, &entropy)?;
            let text = Kept::encode(seal, &mut state.sums)?;
            private_file::replace(&self.kept_at, &text, &entropy)
        });
        if let Err(e) = kept {
            tracing::warn!(path = %self.kept_at.display(), error = %e,
                "the checksums of the store's pages could not be kept; the next opening takes \
                 longer");
        }
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)?;
        if !self.compares.load(Ordering::Acquire) {
            return Ok(());
        }
        for page in pages(offset, out.len()) {
            let begin = (page * PAGE) as u64;
            let whole = begin
                .checked_sub(offset)
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| out.get(at..at + PAGE));
            self.compare(page, whole)?;
        }
        Ok(())
    }

    /// Compares a page with its checksum, unless this was done before.
    fn compare(&self, page: usize, content: Option<&[u8]>) -> io::Result<()> {
        if !self.state().unread.contains(page) {
            return Ok(());
        }
        let found = sum_page(&self.backend, page, content)?;
        let mut state = self.state();
        // A page that was written meanwhile is not what was read, and needs no comparison.
        if state.unread.contains(page) && !state.sums.is(page, found)? {
            state.damaged = true;
            return Err(io::Error::other(format!(
                "page {page} of the file is damaged: it is not as it was left"
            )));
        }
        state.unread.remove(page);
        Ok(())
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        let touched = pages(offset, data.len());
        if self.compares.load(Ordering::Acquire) {
            // The rest of a page that is partly written must be sound: its new checksum is taken
            // from the file.
            for page in touched.clone() {
                let begin = (page * PAGE) as u64;
                if begin < offset || begin + PAGE as u64 > end {
                    self.compare(page, None)?;
                }
            }
        }
        {
            let mut state = self.state();
            state.sums.wrote(offset, data)?;
            touched.for_each(|page| state.unread.remove(page));
        }
        self.backend.write(offset, data)
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        {
            let mut state = self.state();
            state.sums.set_len(len)?;
            let whole = usize::try_from(len / PAGE as u64).unwrap_or(usize::MAX);
            state.unread.remove_from(whole);
        }
        self.backend.set_len(len)
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    static CONTENT: [u8; 5 * PAGE] = [7; 5 * PAGE];

    fn pages_of(path: &Path) -> Pages {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let backend = FileBackend::new(file.try_clone().unwrap()).unwrap();
        Pages::new(backend, file, path.with_extension("sums"))
    }

    /// A file that was closed with a seal.
    fn sealed(path: &Path) {
        fs::write(path, CONTENT).unwrap();
        let pages = pages_of(path);
        assert!(!pages.is_sealed().unwrap());
        pages.is_as_left().unwrap();
        pages.keep();
        assert!(pages_of(path).is_sealed().unwrap());
    }

    #[test]
    fn a_write_by_anybody_breaks_the_seal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for content in [&CONTENT[..], b"short"] {
            sealed(&path);
            fs::write(&path, content).unwrap();
            assert!(!pages_of(&path).is_sealed().unwrap());
        }
        sealed(&path);
        let copy = dir.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        let meta = fs::metadata(&path).unwrap();
        fs::rename(&copy, &path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(meta.modified().unwrap()).unwrap();
        let pages = pages_of(&path);
        assert!(
            !pages.is_sealed().unwrap(),
            "the same content in another file"
        );
        assert!(pages.is_as_left().unwrap(), "it is read completely");
    }

    #[test]
    fn a_page_that_changed_under_the_seal_is_never_read_as_sound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, CONTENT).unwrap();
        let pages = pages_of(&path);
        pages.is_as_left().unwrap();
        pages.file.write_all_at(&[8], 3 * PAGE as u64 + 99).unwrap();
        pages.keep();

        let pages = pages_of(&path);
        assert!(pages.is_sealed().unwrap());
        let (mut whole, mut part) = ([0; PAGE], [0; 10]);
        pages.read(0, &mut whole).unwrap();
        pages.read(4 * PAGE as u64 + 5, &mut part).unwrap();
        pages.read(3 * PAGE as u64, &mut whole).unwrap_err();
        pages.read(3 * PAGE as u64 + 1, &mut part).unwrap_err();
        pages.write(3 * PAGE as u64 + 1, &part).unwrap_err();
        pages.write(3 * PAGE as u64, &whole).unwrap();
        pages.read(3 * PAGE as u64, &mut whole).unwrap();
        fs::remove_file(pages.kept_at()).unwrap();
        pages.keep();
        assert!(
            !pages.kept_at().exists(),
            "the next opening proves the file"
        );
        pages.set_len(2 * PAGE as u64).unwrap();
        pages.set_len(5 * PAGE as u64).unwrap();
        pages.read(4 * PAGE as u64, &mut whole).unwrap();
        assert_eq!(whole, [0; PAGE], "what was cut off is not compared");
    }
}
