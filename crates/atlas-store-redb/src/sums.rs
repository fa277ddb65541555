//! A checksum per page of the store's file, kept from one clean close to the next opening.
//!
//! Proving a file with redb's own check walks every tree and rebuilds the allocator; comparing
//! checksums reads the file once, in order. A file whose checksums all match is byte for byte as we
//! left it, and needs no other proof; any other file gets redb's check. The checksum of a page that
//! was not written since stays as it was, so damage done while the store was open is detected when
//! the page is read after the next opening.

use std::io;

use redb::StorageBackend;

pub(super) const PAGE: usize = 4096;
/// Number of bytes read at once while verifying.
const CHUNK: usize = 256 * PAGE;
/// Number of verifying threads: two are enough to saturate the disk or memory.
const READERS: usize = 2;
/// Unknown checksum: the page is read and summed at the close.
const UNKNOWN: u64 = 0;

/// The checksums of a file's pages, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sums(Vec<u64>);

impl Sums {
    /// Computes the checksums of the whole file.
    pub(super) fn of(file: &impl StorageBackend) -> io::Result<Self> {
        let len = file.len()?;
        let pages = usize::try_from(len.div_ceil(PAGE as u64)).map_err(io::Error::other)?;
        let mut sums = vec![UNKNOWN; pages];
        let share = pages.div_ceil(READERS).max(1);
        std::thread::scope(|scope| {
            let readers: Vec<_> = sums
                .chunks_mut(share)
                .enumerate()
                .map(|(n, part)| {
                    scope.spawn(move || sum_pages(file, (n * share * PAGE) as u64, len, part))
                })
                .collect();
            readers.into_iter().try_for_each(|r| {
                r.join()
                    .unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
            })
        })?;
        Ok(Self(sums))
    }

    /// Records a write.
    pub(super) fn wrote(&mut self, offset: u64, data: &[u8]) {
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = data;
        while !rest.is_empty() {
            let (page, from) = (at / PAGE, at % PAGE);
            let (now, later) = rest.split_at(rest.len().min(PAGE - from));
            if page >= self.0.len() {
                self.grow(page + 1);
            }
            self.0[page] = if now.len() == PAGE { sum(now) } else { UNKNOWN };
            at += now.len();
            rest = later;
        }
    }

    /// Records a new length.
    pub(super) fn set_len(&mut self, len: u64) {
        let pages = usize::try_from(len.div_ceil(PAGE as u64)).unwrap_or(usize::MAX);
        if pages > self.0.len() {
            return self.grow(pages);
        }
        self.0.truncate(pages);
        if let Some(last) = self.0.last_mut() {
            *last = UNKNOWN;
        }
    }

    /// The former last page may have been partial, and is complete now.
    fn grow(&mut self, pages: usize) {
        if let Some(last) = self.0.last_mut() {
            *last = UNKNOWN;
        }
        self.0.resize(pages, UNKNOWN);
    }

    /// Computes the unknown checksums from the file.
    pub(super) fn complete(&mut self, file: &impl StorageBackend) -> io::Result<()> {
        let len = file.len()?;
        if len.div_ceil(PAGE as u64) != self.0.len() as u64 {
            self.set_len(len);
        }
        for page in 0..self.0.len() {
            if self.0[page] == UNKNOWN {
                sum_pages(file, (page * PAGE) as u64, len, &mut self.0[page..=page])?;
            }
        }
        Ok(())
    }

    /// The number of pages.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is the checksum of a page; true also if it is not known.
    pub(super) fn is(&self, page: usize, found: u64) -> bool {
        self.0
            .get(page)
            .is_none_or(|known| *known == found || *known == UNKNOWN)
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.0
    }

    pub(super) fn from_words(words: &[u64]) -> Self {
        Self(words.to_vec())
    }
}

/// The checksum of one page, with its content if that is at hand.
pub(super) fn sum_page(
    file: &impl StorageBackend,
    page: usize,
    content: Option<&[u8]>,
) -> io::Result<u64> {
    if let Some(content) = content {
        return Ok(sum(content));
    }
    let mut found = [UNKNOWN];
    sum_pages(file, (page * PAGE) as u64, file.len()?, &mut found)?;
    Ok(found[0])
}

fn sum_pages(file: &impl StorageBackend, from: u64, len: u64, sums: &mut [u64]) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK.min(sums.len() * PAGE)];
    let mut at = from;
    for part in sums.chunks_mut(CHUNK / PAGE) {
        let size = usize::try_from((len - at).min((part.len() * PAGE) as u64))
            .map_err(io::Error::other)?;
        file.read(at, &mut buffer[..size])?;
        for (sum_, page) in part.iter_mut().zip(buffer[..size].chunks(PAGE)) {
            *sum_ = sum(page);
        }
        at += size as u64;
    }
    Ok(())
}

/// A checksum of four lanes of xor, multiply, shift. Each step is invertible, so a change to a
/// single word is always detected; the lanes are mixed once more before they are combined, so that
/// differences in two of them do not affect the same bits. It detects accidental damage at memory
/// speed; it does not protect against deliberate forgery.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let stir = |n: u64| {
        let n = n.wrapping_mul(ODD);
        n ^ (n >> 32)
    };
    let mut lanes = [1, 2, 3, 4].map(stir);
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    for block in blocks.iter().chain([&last]) {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = stir(*lane ^ u64::from_le_bytes(*word));
        }
    }
    let all = lanes
        .into_iter()
        .fold(stir(bytes.len() as u64), |all, lane| {
            stir(all ^ stir(stir(lane)).rotate_left(17))
        });
    all.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    proptest! {
        #[test]
        fn sums_kept_along_are_those_of_the_file(start in 0..40_000_u64,
            ops in prop::collection::vec((0..40_000_u64, prop::collection::vec(any::<u8>(),
                0..9000), prop::option::of(0..60_000_u64)), 0..10)) {
            let file = InMemoryBackend::new();
            file.set_len(start).unwrap();
            let mut kept = Sums::of(&file).unwrap();
            for (at, data, len) in ops.into_iter().chain([(0, vec![], Some(100)), (0, vec![],
                Some(4096))]) {
                if let Some(len) = len {
                    file.set_len(len).unwrap();
                    kept.set_len(len);
                }
                if at + data.len() as u64 <= file.len().unwrap() {
                    file.write(at, &data).unwrap();
                    kept.wrote(at, &data);
                }
            }
            kept.complete(&file).unwrap();
            prop_assert_eq!(kept, Sums::of(&file).unwrap());
        }

        #[test]
        fn a_changed_byte_a_swap_and_a_cut_change_the_sum(page in prop::collection::vec(any::<u8>(), 64..4096), at: prop::sample::Index, by in 1..=255_u8) {
            let before = sum(&page);
            let mut other = page.clone();
            other[at.index(page.len())] ^= by;
            prop_assert_ne!(sum(&other), before);
            let mut other = page.clone();
            other.rotate_left(8);
            prop_assert!(other == page || sum(&other) != before);
            prop_assert_ne!(sum(&page[..page.len() - 1]), before);
        }
    }
}
