//! The seal of a file: what shows that nobody changed it since it was closed.
//!
//! The seal is the file's identity, length and times. A system updates the modification time of a
//! file with the coarse time of its clock, so two changes in a row may give the same one. The
//! nanoseconds of the sealed time are therefore drawn at random: a later change gives other ones.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use atlas_core::Entropy;

use super::sums::{Sums, sum};

const MAGIC: &[u8; 16] = b"atlas page sums2";
/// The numbers of a seal.
const NUMBERS: usize = 7;

/// The state of a file's metadata: device, inode, length, and the times of its last changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal([u64; NUMBERS]);

impl Seal {
    #[cfg(unix)]
    fn from_metadata(meta: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let times = [
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ];
        let [m, m_nanos, c, c_nanos] = times.map(i64::cast_unsigned);
        Some(Self([
            meta.dev(),
            meta.ino(),
            meta.len(),
            m,
            m_nanos,
            c,
            c_nanos,
        ]))
    }

    #[cfg(not(unix))]
    fn from_metadata(_: &Metadata) -> Option<Self> {
        None
    }

    /// The state of this file now; `None` where the system does not tell it.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    /// Seals a file. `None` where the file system does not keep times exactly enough.
    pub(super) fn put_on(file: &File, entropy: &dyn Entropy) -> io::Result<Option<Self>> {
        let modified = file.metadata()?.modified()?;
        let Ok(since) = modified.duration_since(UNIX_EPOCH) else {
            return Ok(None);
        };
        let nanos = u32::try_from(entropy.next_u64() % 1_000_000_000).unwrap_or_default();
        let sealed = UNIX_EPOCH + Duration::new(since.as_secs(), nanos);
        file.set_modified(sealed)?;
        let meta = file.metadata()?;
        if meta.modified()? != sealed {
            return Ok(None);
        }
        Ok(Self::from_metadata(&meta))
    }
}

/// What is kept from one close to the next opening.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    seal: [u64; NUMBERS],
    pub(super) sums: Sums,
}

impl Kept {
    pub(super) fn is_sealed_by(&self, seal: Option<Seal>) -> bool {
        seal.is_some_and(|seal| seal.0 == self.seal)
    }

    /// The stored form; its own checksum is last.
    pub(super) fn encode(seal: Option<Seal>, sums: &Sums) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let seal = seal.map_or([0; NUMBERS], |seal| seal.0);
        for number in seal.iter().chain(sums.words()) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&sum(&out).to_le_bytes());
        out
    }

    /// Reads the output of [`Kept::encode`]; `None` if there is none, or it is damaged itself.
    pub(super) fn load(path: &Path) -> Option<Self> {
        // Opening a FIFO would wait for a writer.
        if !fs::metadata(path).ok()?.is_file() {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let (body, own) = bytes.split_last_chunk::<8>()?;
        let (words, rest) = body.strip_prefix(MAGIC)?.as_chunks::<8>();
        if sum(body) != u64::from_le_bytes(*own) || !rest.is_empty() {
            return None;
        }
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (seal, sums) = words.split_first_chunk::<NUMBERS>()?;
        Some(Self {
            seal: *seal,
            sums: Sums::from_words(sums),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_sums_are_no_sums() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let words: Vec<u64> = (1..500).collect();
        let seal = [1, 2, 3, 4, 5, 6, 7];
        let kept = Kept {
            seal,
            sums: Sums::from_words(&words),
        };
        fs::write(&path, Kept::encode(Some(Seal(seal)), &kept.sums)).unwrap();
        assert_eq!(Kept::load(&path), Some(kept));
        let good = fs::read(&path).unwrap();
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            assert_eq!(Kept::load(&path), None, "{len}");
        }
        for at in (0..good.len()).step_by(37) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(Kept::load(&path), None, "{at}");
        }
    }
}
