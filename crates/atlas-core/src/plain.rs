//! Makes foreign text (from a cloud, a machine or a repository) safe to print on a terminal:
//! removes what could control the terminal or change the order or look of the text around it.

use std::iter::Peekable;
use std::str::Chars;

/// The text without terminal sequences, control characters (C0, C1, DEL; tabs and line feeds
/// stay), bidirectional controls and invisible characters.
///
/// ```
/// assert_eq!(atlas_core::plain("\u{1b}[31mred\u{7} \u{202e}gnp"), "red gnp");
/// ```
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_escape(&mut rest),
            '\u{9b}' => skip_control_sequence(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_string(&mut rest),
            '\t' | '\n' => out.push(c),
            c if !is_unsafe(c) => out.push(c),
            _ => {}
        }
    }
    out
}

/// [`plain`] on a single line: each run of line feeds and tabs becomes one space.
#[must_use]
pub fn plain_line(text: &str) -> String {
    let text = plain(text);
    if !text.contains(['\n', '\t']) {
        return text;
    }
    text.split(['\n', '\t'])
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether this character can mislead a terminal or a reader: control characters, bidirectional
/// controls and invisible characters.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Soft hyphen, grapheme joiner, Arabic letter mark, Hangul and Khmer fillers, Mongolian
            // vowel separator.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                // Zero-width characters and directional marks; line and paragraph separators,
                // embeddings and overrides; word joiner, invisible operators, isolates.
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                // Fillers, byte order mark, interlinear annotations, language tags.
                | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

fn skip_escape(rest: &mut Peekable<Chars<'_>>) {
    match rest.peek() {
        Some('[') => {
            rest.next();
            skip_control_sequence(rest);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            rest.next();
            skip_string(rest);
        }
        // Two more characters follow: a choice of character set.
        Some('(' | ')' | '*' | '+' | '-' | '.' | '/' | '#' | '%' | ' ') => {
            rest.next();
            rest.next_if(|c| !c.is_control());
        }
        // A line end, or the start of another sequence, is handled by the caller.
        Some(c) if !c.is_control() => {
            rest.next();
        }
        _ => {}
    }
}

/// Skips the rest of a CSI sequence: parameters up to a final character. A control character ends
/// the sequence early.
fn skip_control_sequence(rest: &mut Peekable<Chars<'_>>) {
    while let Some(c) = rest.next_if(|c| matches!(c, '\u{20}'..='\u{7e}')) {
        if c >= '\u{40}' {
            return;
        }
    }
}

/// Skips the rest of an OSC, DCS, SOS, PM or APC string, up to BEL, ST or the end of the line. A
/// terminal would continue past the end of the line; stopping there prevents a program from hiding
/// the text that follows.
fn skip_string(rest: &mut Peekable<Chars<'_>>) {
    while let Some(c) = rest.next_if(|c| *c != '\n') {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' if rest.next_if_eq(&'\\').is_some() => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_controls_overrides_and_invisible_characters_are_removed() {
        for (text, shown) in [
            ("\u{1b}[1;32m==>\u{1b}[0m Building", "==> Building"),
            ("a\u{1b}]8;;https://x\u{7}b\u{1b}]0;t\u{1b}\\c", "abc"),
            ("a\u{1b}(Bb\u{1b}7c\u{8}\r\u{7f}d", "abcd"),
            ("a\u{9b}31mb\u{9d}0;title\u{9c}c\u{85}d", "abcd"),
            ("a\u{202e}b\u{2066}c\u{200b}d\u{feff}e\u{e0041}f", "abcdef"),
            ("a\u{1b}]0;never ended\nb", "a\nb"),
            ("a\u{1b}\nb\u{1b}", "a\nb"),
            ("a\u{1b}[31\nb", "a\nb"),
            ("tab\tand line\nstay", "tab\tand line\nstay"),
            ("żółć 日本 🚀", "żółć 日本 🚀"),
        ] {
            assert_eq!(plain(text), shown, "{text:?}");
        }
        assert_eq!(plain_line("a\r\n\n\tb\n"), "a b");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left_and_plain_text_stays(
            text in "([a-z \\n]|\u{1b}\\[?|[\u{0}-\u{9f}\u{200b}-\u{206f}]|\u{1b}\\]){0,40}",
            safe in "[a-zA-Z0-9 ą日\\n\\t\\[\\]m;]{0,40}",
        ) {
            prop_assert!(!plain(&text).contains(|c| is_unsafe(c) && c != '\n' && c != '\t'));
            prop_assert!(!plain_line(&text).contains(is_unsafe));
            prop_assert_eq!(plain(&safe), safe.as_str());
            prop_assert_eq!(plain(&plain(&text)), plain(&text));
        }
    }
}
