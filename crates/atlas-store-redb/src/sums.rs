//! A checksum per page of the store's file, kept from one clean close to the next opening.
//!
//! Proving a file with redb's own check walks every tree and rebuilds the allocator; comparing
//! checksums reads the file once, in order. A file whose checksums all match is byte for byte as we
//! left it, and needs no other proof; any other file gets redb's check. The checksum of a page that
//! was not written since stays as it was, so damage done while the store was open is detected when
//! the page is read after the next opening.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use redb::StorageBackend;

pub(super) const PAGE: usize = 4096;
/// Number of bytes read at once while verifying.
const CHUNK: usize = 256 * PAGE;
/// Number of verifying threads: two are enough to saturate the disk or memory.
const READERS: usize = 2;
/// Unknown checksum: the page is read and summed at the close.
const UNKNOWN: u64 = 0;
/// Checksums are kept in blocks of this many; each block is followed by its own checksum.
const IN_BLOCK: usize = 511;
const BLOCK_BYTES: usize = (IN_BLOCK + 1) * 8;

type Block = [u64; IN_BLOCK];

/// The checksums of a file's pages, in order. Kept ones are read from their file, block by block,
/// when they are needed.
#[derive(Debug, Default)]
pub(super) struct Sums {
    len: usize,
    blocks: Vec<Option<Box<Block>>>,
    kept: Option<Kept>,
}

/// A file with blocks of checksums, and where they begin in it.
#[derive(Debug)]
struct Kept(File, u64);

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
        Ok(Self::from_words(&sums))
    }

    fn from_words(words: &[u64]) -> Self {
        let block = |words: &[u64]| {
            let mut block = Box::new([UNKNOWN; IN_BLOCK]);
            block[..words.len()].copy_from_slice(words);
            Some(block)
        };
        Self {
            len: words.len(),
            blocks: words.chunks(IN_BLOCK).map(block).collect(),
            kept: None,
        }
    }

    /// The checksums of this many pages that begin here in this file.
    pub(super) fn kept_in(file: File, begin: u64, len: usize) -> Self {
        Self {
            len,
            blocks: (0..len.div_ceil(IN_BLOCK)).map(|_| None).collect(),
            kept: Some(Kept(file, begin)),
        }
    }

    /// The number of pages.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn block(&mut self, number: usize) -> io::Result<&mut Block> {
        let damaged = || io::Error::other("the kept checksums of the store's pages are damaged");
        let block = self.blocks.get_mut(number).ok_or_else(damaged)?;
        match block {
            Some(block) => Ok(block),
            None => {
                let Kept(file, begin) = self.kept.as_ref().ok_or_else(damaged)?;
                let read = read_block(file, begin + (number * BLOCK_BYTES) as u64)?;
                Ok(block.insert(read.ok_or_else(damaged)?))
            }
        }
    }

    fn get(&mut self, page: usize) -> io::Result<u64> {
        Ok(self.block(page / IN_BLOCK)?[page % IN_BLOCK])
    }

    fn set(&mut self, page: usize, sum: u64) -> io::Result<()> {
        self.block(page / IN_BLOCK)?[page % IN_BLOCK] = sum;
        Ok(())
    }

    /// Whether this is the checksum of a page; true also if it is not known.
    pub(super) fn is(&mut self, page: usize, found: u64) -> io::Result<bool> {
        if page >= self.len {
            return Ok(true);
        }
        let known = self.get(page)?;
        Ok(known == found || known == UNKNOWN)
    }

    /// Whether both have the same checksums, all of them readable.
    pub(super) fn equals(&mut self, other: &mut Self) -> bool {
        self.len == other.len
            && (0..self.blocks.len()).all(|n| match (self.block(n), other.block(n)) {
                (Ok(one), Ok(other)) => one == other,
                _ => false,
            })
    }

    /// Records a write.
    pub(super) fn wrote(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = data;
        while !rest.is_empty() {
            let (page, from) = (at / PAGE, at % PAGE);
            let (now, later) = rest.split_at(rest.len().min(PAGE - from));
            if page >= self.len {
                self.grow(page + 1)?;
            }
            self.set(page, if now.len() == PAGE { sum(now) } else { UNKNOWN })?;
            at += now.len();
            rest = later;
        }
        Ok(())
    }

    /// Records a new length.
    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let pages = usize::try_from(len.div_ceil(PAGE as u64)).unwrap_or(usize::MAX);
        if pages > self.len {
            return self.grow(pages);
        }
        self.len = pages;
        self.blocks.truncate(pages.div_ceil(IN_BLOCK));
        match pages.checked_sub(1) {
            Some(last) => {
                self.set(last, UNKNOWN)?;
                // What was cut off in the last block is zero again if the file grows.
                self.block(last / IN_BLOCK)?[last % IN_BLOCK + 1..].fill(UNKNOWN);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The former last page may have been partial, and is complete now.
    fn grow(&mut self, pages: usize) -> io::Result<()> {
        if let Some(last) = self.len.checked_sub(1) {
            self.set(last, UNKNOWN)?;
        }
        self.len = pages;
        self.blocks.resize_with(pages.div_ceil(IN_BLOCK), || {
            Some(Box::new([UNKNOWN; IN_BLOCK]))
        });
        Ok(())
    }

    /// Computes the unknown checksums from the file.
    pub(super) fn complete(&mut self, file: &impl StorageBackend) -> io::Result<()> {
        let len = file.len()?;
        if len.div_ceil(PAGE as u64) != self.len as u64 {
            self.set_len(len)?;
        }
        for page in 0..self.len {
            // A block that was not needed has no unknown checksum.
            let is_here = self
                .blocks
                .get(page / IN_BLOCK)
                .is_some_and(Option::is_some);
            if is_here && self.get(page)? == UNKNOWN {
                let found = sum_page(file, page, None)?;
                self.set(page, found)?;
            }
        }
        Ok(())
    }

    /// Appends the blocks, as [`Sums::kept_in`] reads them.
    pub(super) fn encode(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        for number in 0..self.blocks.len() {
            let begin = out.len();
            for word in self.block(number)? {
                out.extend_from_slice(&word.to_le_bytes());
            }
            let own = sum(&out[begin..]);
            out.extend_from_slice(&own.to_le_bytes());
        }
        Ok(())
    }
}

/// The block that begins here; `None` if it is damaged.
fn read_block(mut file: &File, begin: u64) -> io::Result<Option<Box<Block>>> {
    let mut bytes = [0; BLOCK_BYTES];
    file.seek(SeekFrom::Start(begin))?;
    file.read_exact(&mut bytes)?;
    let (words, _) = bytes.as_chunks::<8>();
    let Some((own, words)) = words.split_last() else {
        return Ok(None);
    };
    if sum(&bytes[..IN_BLOCK * 8]) != u64::from_le_bytes(*own) {
        return Ok(None);
    }
    let mut block = Box::new([UNKNOWN; IN_BLOCK]);
    for (to, word) in block.iter_mut().zip(words) {
        *to = u64::from_le_bytes(*word);
    }
    Ok(Some(block))
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
                    kept.set_len(len).unwrap();
                }
                if at + data.len() as u64 <= file.len().unwrap() {
                    file.write(at, &data).unwrap();
                    kept.wrote(at, &data).unwrap();
                }
            }
            kept.complete(&file).unwrap();
            prop_assert!(kept.equals(&mut Sums::of(&file).unwrap()));
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
