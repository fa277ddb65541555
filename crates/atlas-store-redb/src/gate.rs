//! A gate between redb and its file: nothing is written to the file until its contents are proved
//! sound.
//!
//! Opening a redb file writes to it (a recovery flag, repairs), even if the file then turns out to
//! be damaged. So while the gate is closed, writes are kept in memory, in order; opening the gate
//! replays them, with their syncs, as redb made them. A refused file is left exactly as it was
//! found.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

use crate::pages::Pages;

const PAGE: u64 = crate::sums::PAGE as u64;
/// More than any repair writes; a file that needs more is not one of ours.
const MAX_HELD_BACK: usize = 256 << 20;

/// A backend whose clones share one gate.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Pages,
    open: AtomicBool,
    held: Mutex<Held>,
}

/// What redb has written so far: as pages for reading, and as a log for replay.
#[derive(Debug)]
struct Held {
    len: u64,
    /// How many of the file's own bytes are still valid, because no shorter length has cut them
    /// off.
    from_file: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
    log: Vec<Step>,
    bytes: usize,
}

#[derive(Debug)]
enum Step {
    Write(u64, Box<[u8]>),
    SetLen(u64),
    Sync,
}

impl Gate {
    /// Takes the file with the gate closed.
    pub(super) fn closed(file: Pages) -> io::Result<Self> {
        let len = file.len()?;
        let held = Held {
            len,
            from_file: len,
            pages: BTreeMap::new(),
            log: Vec::new(),
            bytes: 0,
        };
        Ok(Self(Arc::new(Inner {
            file,
            open: AtomicBool::new(false),
            held: Mutex::new(held),
        })))
    }

    /// The file behind the gate.
    pub(super) fn pages(&self) -> &Pages {
        &self.0.file
    }

    /// Writes what was held back, and passes everything through from now on.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut held = self.held();
        for step in std::mem::take(&mut held.log) {
            match step {
                Step::Write(offset, data) => self.0.file.write(offset, &data)?,
                Step::SetLen(len) => self.0.file.set_len(len)?,
                Step::Sync => self.0.file.sync_data()?,
            }
        }
        held.pages = BTreeMap::new();
        self.0.open.store(true, Ordering::Release);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn read(&self, file: &Pages, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(out.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "read beyond the end of the store",
            ));
        }
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let (page, from) = (at / PAGE, usize_of(at % PAGE));
            let (now, later) = rest.split_at_mut(rest.len().min(usize_of(PAGE) - from));
            match self.pages.get(&page) {
                Some(bytes) => now.copy_from_slice(&bytes[from..from + now.len()]),
                None => self.read_file(file, at, now)?,
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn read_file(&self, file: &Pages, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize_of(self.from_file.saturating_sub(offset).min(out.len() as u64));
        let (file_part, zeros) = out.split_at_mut(there);
        zeros.fill(0);
        if file_part.is_empty() {
            Ok(())
        } else {
            file.read(offset, file_part)
        }
    }

    fn write(&mut self, file: &Pages, offset: u64, data: &[u8]) -> io::Result<()> {
        self.keep(data.len())?;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (page, from) = (at / PAGE, usize_of(at % PAGE));
            let (now, later) = rest.split_at(rest.len().min(usize_of(PAGE) - from));
            if !self.pages.contains_key(&page) {
                let mut bytes = vec![0; usize_of(PAGE)].into_boxed_slice();
                self.read_file(file, page * PAGE, &mut bytes)?;
                self.pages.insert(page, bytes);
            }
            if let Some(bytes) = self.pages.get_mut(&page) {
                bytes[from..from + now.len()].copy_from_slice(now);
            }
            at += now.len() as u64;
            rest = later;
        }
        self.len = self.len.max(at);
        self.log.push(Step::Write(offset, data.into()));
        Ok(())
    }

    fn set_len(&mut self, file: &Pages, len: u64) -> io::Result<()> {
        if len < self.len {
            self.from_file = self.from_file.min(len);
            self.pages.split_off(&len.div_ceil(PAGE));
            let cut = usize_of(len % PAGE);
            if cut != 0 {
                let page = len / PAGE;
                let mut bytes = vec![0; usize_of(PAGE)].into_boxed_slice();
                match self.pages.get(&page) {
                    Some(old) => bytes[..cut].copy_from_slice(&old[..cut]),
                    None => self.read_file(file, page * PAGE, &mut bytes[..cut])?,
                }
                self.pages.insert(page, bytes);
            }
        }
        self.len = len;
        self.log.push(Step::SetLen(len));
        Ok(())
    }

    fn keep(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_HELD_BACK {
            return Err(io::Error::other(
                "opening the store would rewrite more of it than a repair does",
            ));
        }
        Ok(())
    }
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).expect("an offset inside a page, or a length bounded by a buffer's")
}

impl StorageBackend for Gate {
    fn len(&self) -> io::Result<u64> {
        if self.is_open() {
            self.0.file.len()
        } else {
            Ok(self.held().len)
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.is_open() {
            self.0.file.read(offset, out)
        } else {
            self.held().read(&self.0.file, offset, out)
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !self.is_open() {
            return self.held().set_len(&self.0.file, len);
        }
        self.0.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_open() {
            return self.0.file.sync_data();
        }
        self.held().log.push(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if !self.is_open() {
            return self.held().write(&self.0.file, offset, data);
        }
        self.0.file.write(offset, data)
    }

    /// The last call; it releases the lock.
    fn close(&self) -> io::Result<()> {
        if self.is_open() {
            self.0.file.keep();
        }
        self.0.file.backend().close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.backend().try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.file.backend().try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.backend().lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.backend().lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.backend().unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.backend().query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redb::backends::FileBackend;
    use std::fs;

    #[derive(Clone, Debug)]
    enum Op {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Sync,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        prop::collection::vec(
            prop_oneof![
                (0..20_000_u64, prop::collection::vec(any::<u8>(), 0..9000))
                    .prop_map(|(at, data)| Op::Write(at, data)),
                (0..30_000_u64).prop_map(Op::SetLen),
                Just(Op::Sync),
            ],
            0..12,
        )
    }

    fn run(backend: &impl StorageBackend, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Write(at, data) => backend.write(*at, data).unwrap(),
                Op::SetLen(len) => backend.set_len(*len).unwrap(),
                Op::Sync => backend.sync_data().unwrap(),
            }
        }
    }

    fn whole(backend: &impl StorageBackend) -> Vec<u8> {
        let mut out = vec![0; usize_of(backend.len().unwrap())];
        backend.read(0, &mut out).unwrap();
        out
    }

    fn pages(file: &tempfile::NamedTempFile) -> Pages {
        let open = file.reopen().unwrap();
        let backend = FileBackend::new(open.try_clone().unwrap()).unwrap();
        Pages::new(backend, open, file.path().with_extension("sums"))
    }

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, FileBackend) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let backend = FileBackend::new(file.reopen().unwrap()).unwrap();
        (file, backend)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_closed_gate_shows_what_was_written_and_an_open_one_has_written_it(content in prop::collection::vec(any::<u8>(), 0..15_000), ops in ops()) {
            let (plain, direct) = file(&content);
            let (guarded, _) = file(&content);
            let gate = Gate::closed(pages(&guarded)).unwrap();
            prop_assert!(!gate.pages().is_sealed().unwrap() && !gate.pages().is_as_left().unwrap());
            run(&direct, &ops);
            run(&gate, &ops);
            prop_assert_eq!(&fs::read(guarded.path()).unwrap(), &content,
                "nothing reached the file");
            prop_assert!(whole(&gate) == whole(&direct));
            gate.open().unwrap();
            prop_assert!(fs::read(guarded.path()).unwrap() == fs::read(plain.path()).unwrap());
            run(&direct, &ops);
            run(&gate, &ops);
            prop_assert!(fs::read(guarded.path()).unwrap() == fs::read(plain.path()).unwrap());

            gate.close().unwrap();
            let again = || pages(&guarded);
            prop_assert!(again().is_sealed().unwrap() && again().is_as_left().unwrap());
            again().forget_kept().unwrap();
            prop_assert!(!again().is_sealed().unwrap() && !again().is_as_left().unwrap(),
                "an open store has no sums to trust");
        }
    }
}
