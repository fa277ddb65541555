//! Splits chunks of bytes into lines: joins split lines and characters, cuts endless lines, and
//! removes colour.

/// The maximum length of a stored line in bytes. The rest is dropped and marked as truncated.
pub(crate) const LONGEST_LINE: usize = 64 * 1024;

/// One line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) cut: bool,
}

/// Splits one output. `\n`, `\r\n` and a lone `\r` (a progress bar) each end a line; empty lines
/// are dropped.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    pending: Vec<u8>,
    cut: bool,
}

impl Splitter {
    /// Takes the next bytes; returns each line that they complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut give: impl FnMut(Line)) {
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.keep(&bytes[..at]);
            give_line(self.take(), &mut give);
            bytes = &bytes[at + 1..];
        }
        self.keep(bytes);
    }

    /// The last line, if the output did not end with a line end.
    pub(crate) fn finish(&mut self, mut give: impl FnMut(Line)) {
        give_line(self.take(), &mut give);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE - self.pending.len();
        self.cut |= bytes.len() > room;
        self.pending
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn take(&mut self) -> Line {
        let cut = std::mem::take(&mut self.cut);
        if cut {
            // Not in the middle of a character.
            while self.pending.last().is_some_and(|byte| byte & 0xC0 == 0x80) {
                self.pending.pop();
            }
            if self.pending.last().is_some_and(|byte| *byte >= 0xC0) {
                self.pending.pop();
            }
        }
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        Line { text, cut }
    }
}

fn give_line(line: Line, give: &mut impl FnMut(Line)) {
    if !line.text.is_empty() {
        give(line);
    }
}

/// A line of foreign text without terminal sequences and other characters that could mislead a
/// reader; tabs stay.
#[must_use]
pub fn plain(text: &str) -> String {
    atlas_core::plain(text).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, |line| out.push(line.text));
        }
        splitter.finish(|line| out.push(line.text));
        out
    }

    #[test]
    fn a_progress_bar_is_lines_and_empty_ones_are_dropped() {
        assert_eq!(lines(&[b"10%\r20%\r\n\n\ndone"]), ["10%", "20%", "done"]);
    }

    #[test]
    fn an_endless_line_is_cut_between_characters_and_the_next_one_is_whole() {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        for _ in 0..1000 {
            splitter.feed("aé€".repeat(200).as_bytes(), |line| out.push(line));
        }
        splitter.feed(b"\nnext\n", |line| out.push(line));
        assert_eq!(out.len(), 2);
        assert!(
            out[0].cut && out[0].text.len() <= LONGEST_LINE && !out[0].text.contains('\u{fffd}')
        );
        assert_eq!(
            out[1],
            Line {
                text: "next".into(),
                cut: false
            }
        );
    }

    #[test]
    fn terminal_sequences_are_taken_out() {
        let text = "\u{1b}[1;32m==>\u{1b}[0m Building\u{1b}]8;;https://x\u{7} \
            a\u{1b}]0;t\u{1b}\\b\u{1b}(B\tc\u{8}";
        assert_eq!(plain(text), "==> Building ab\tc");
    }

    proptest! {
        #[test]
        fn where_chunks_end_makes_no_difference(text in "[aé€🚀\\n\\r]{0,200}", size in 1_usize..9) {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(lines(&chunks), lines(&[text.as_bytes()]));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for line in lines(&[&bytes]) {
                let clean = plain(&line);
                prop_assert!(clean.chars().all(|c| !c.is_control() || c == '\t'), "{clean:?}");
            }
        }
    }
}
