//! Prepares the reports of machines for storage: each event is one clean line, and a session stores
//! a limited number of them.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The maximum length of a stored report in bytes.
pub const MAX_TEXT: usize = 4096;
/// The maximum number of reports per session.
const MAX_REPORTS: u32 = 20_000;
/// The maximum total size of a session's reports in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Counts the stored reports of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports {
    /// Number of reports.
    pub count: u32,
    /// Total size of their text in bytes.
    pub bytes: u64,
}

impl Reports {
    /// True before the first report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Counts one more report; false if a limit is reached.
    pub fn take(&mut self, text: &str) -> bool {
        let bytes = self.bytes.saturating_add(text.len() as u64);
        if self.count >= MAX_REPORTS || bytes > MAX_BYTES {
            return false;
        }
        (self.count, self.bytes) = (self.count + 1, bytes);
        true
    }
}

/// Reduces a text to one line that controls neither a terminal nor the reading direction. A JSON
/// object keeps its meaning: unsafe characters in it are escaped. In other text a line break
/// becomes the two characters `\n` and a tab a space; other invisible characters are removed.
pub fn one_line(text: &str) -> String {
    let text = text.trim();
    if serde_json::from_str::<Map<String, Value>>(text).is_ok() {
        return escaped(text);
    }
    let mut line = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => line.push_str("\\n"),
            '\t' => line.push(' '),
            c if is_invisible(c) => {}
            c => line.push(c),
        }
    }
    let mut end = line.len().min(MAX_TEXT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

/// A JSON text with every invisible character escaped. Outside strings there is only white space,
/// and strings contain no raw control character below U+0020 (RFC 8259), so the result is
/// unambiguous.
fn escaped(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if is_invisible(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(line, "\\u{unit:04x}").expect("writing to a string cannot fail");
                }
            }
            c => line.push(c),
        }
    }
    line
}

/// Control characters, and characters that are invisible themselves but change how the text around
/// them is read: directions, joiners, zero-width and tag characters.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_one_line_without_anything_that_cannot_be_seen() {
        assert_eq!(
            one_line("epoch 1\r\n   7  2026-11-30T16:00:00Z  terminated\n"),
            "epoch 1\\n   7  2026-11-30T16:00:00Z  terminated"
        );
        assert_eq!(one_line("a\x1b[31mb\u{9b}31m\tc\x07\x7f"), "a[31mb31m c");
        assert_eq!(one_line("x\u{202e}y\u{200b}z\u{feff}\u{2066}"), "xyz");
        assert_eq!(one_line("one\u{2028}two\u{85}three"), "one\\ntwo\\nthree");
    }

    #[test]
    fn a_json_object_keeps_its_meaning() {
        let raw = "{\n \"p\":\"\u{9b}31mC1 \u{202e}gnp \u{7f}\u{e0041}\",\t\"n\": 1 }";
        let line = one_line(raw);
        assert!(!line.chars().any(is_invisible), "{line:?}");
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(&line), read(raw));
    }

    #[test]
    fn a_session_keeps_so_many_reports_and_so_many_bytes_of_them() {
        let mut reports = Reports::default();
        let taken = (0..40_000).filter(|_| reports.take("x")).count();
        assert_eq!(taken, MAX_REPORTS as usize);
        let mut reports = Reports::default();
        let text = "x".repeat(MAX_TEXT);
        let taken = (0..20_000).filter(|_| reports.take(&text)).count();
        assert_eq!(taken as u64 * MAX_TEXT as u64, MAX_BYTES);
    }
}
