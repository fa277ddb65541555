//! The seal of a file: what shows that nobody changed it since it was closed.
//!
//! The seal is the file's identity, length and times. A system updates the modification time of a
//! file with the coarse time of its clock, so two changes in a row may give the same one. The
//! nanoseconds of the sealed time are therefore drawn at random: a later change gives other ones.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use atlas_core::Entropy;

use super::sums::{Sums, sum};
use atlas_orchestrator::private_file;

const MAGIC: &[u8; 16] = b"atlas page sums3";
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

/// Bytes before the blocks of checksums: the mark, the seal, the number of pages, and the checksum
/// of these.
const HEAD: usize = MAGIC.len() + (NUMBERS + 2) * 8;

/// What is kept from one close to the next opening.
#[derive(Debug)]
pub(super) struct Kept {
    seal: [u64; NUMBERS],
    pub(super) sums: Sums,
}

impl Kept {
    pub(super) fn is_sealed_by(&self, seal: Option<Seal>) -> bool {
        seal.is_some_and(|seal| seal.0 == self.seal)
    }

    /// The stored form.
    pub(super) fn encode(seal: Option<Seal>, sums: &mut Sums) -> io::Result<Vec<u8>> {
        let mut out = MAGIC.to_vec();
        let seal = seal.map_or([0; NUMBERS], |seal| seal.0);
        for number in seal.iter().chain(&[sums.len() as u64]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let own = sum(&out);
        out.extend_from_slice(&own.to_le_bytes());
        sums.encode(&mut out)?;
        Ok(out)
    }

    /// Reads the head of what [`Kept::encode`] returned; `None` if there is none, or it is damaged.
    /// The checksums are read when they are needed.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let mut file = private_file::open_regular(path).ok()?;
        let mut head = [0; HEAD];
        file.read_exact(&mut head).ok()?;
        let (body, own) = head.split_last_chunk::<8>()?;
        let (words, _) = body.strip_prefix(MAGIC)?.as_chunks::<8>();
        if sum(body) != u64::from_le_bytes(*own) {
            return None;
        }
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (len, seal) = words.split_last()?;
        Some(Self {
            seal: seal.try_into().ok()?,
            sums: Sums::kept_in(file, HEAD as u64, usize::try_from(*len).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;
    use std::fs;

    #[test]
    fn damaged_sums_are_no_sums() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let file = InMemoryBackend::new();
        file.set_len(1200 * 4096).unwrap();
        file.write(600 * 4096, b"content").unwrap();
        let seal = [1, 2, 3, 4, 5, 6, 7];
        let mut sums = Sums::of(&file).unwrap();
        let good = Kept::encode(Some(Seal(seal)), &mut sums).unwrap();
        let mut load = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let kept = Kept::load(&path).filter(|kept| kept.is_sealed_by(Some(Seal(seal))));
            kept.is_some_and(|mut kept| kept.sums.equals(&mut sums))
        };
        assert!(load(&good));
        for len in (0..good.len()).step_by(3) {
            assert!(!load(&good[..len]), "{len}");
        }
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!load(&bad), "{at}");
        }
    }
}
