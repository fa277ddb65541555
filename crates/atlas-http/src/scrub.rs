//! Removes the secrets of a request from a cloud's answer, in whatever encoding it repeats them.
//!
//! A cloud that refuses a request may quote it: in JSON (whose escapes differ by encoder: Go writes
//! `\u0026` for `&`, PHP `\/` for `/`), in a query, in base64, in a shell script, in HTML, or in
//! several of these at once. Secrets are therefore compared character by character, where each
//! character may be encoded in any of these ways.

use std::borrow::Cow;
use std::ops::Range;

use atlas_core::REDACTED;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use serde_json::Value;

/// Shorter values are words such as `1` or `on`; redacting them would make errors unreadable.
const SHORTEST: usize = 4;
/// The maximum number of backslashes before a character: an escape of an escape of an escape.
const MOST_BACKSLASHES: usize = 15;

/// The secrets of one request.
#[derive(Debug, Default)]
pub(crate) struct Scrubber {
    /// The secrets, and how base64 encodes each inside a longer text.
    needles: Vec<Needle>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Needle {
    text: Vec<char>,
    /// Base64 digits: encoders leave its letters unchanged.
    is_base64: bool,
}

impl Needle {
    fn new(text: &str, is_base64: bool) -> Self {
        Self {
            text: text.chars().collect(),
            is_base64,
        }
    }

    /// The bytes with which an encoding of it can begin.
    fn begins_with(&self) -> impl Iterator<Item = u8> + use<> {
        let first = self.text.first().copied().unwrap_or_default();
        let own = first.encode_utf8(&mut [0; 4]).as_bytes()[0];
        let escapes: &[u8] = match first {
            c if self.is_base64 && c.is_ascii_alphanumeric() => b"",
            ' ' => b"\\%&+",
            '\n' => b"\\%&\r",
            '\\' => b"%&",
            '%' => b"\\&",
            '&' => b"\\%",
            _ => b"\\%&",
        };
        std::iter::once(own).chain(escapes.iter().copied())
    }
}

impl Scrubber {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut needles = Vec::new();
        for secret in secrets.into_iter().filter(|text| text.len() >= SHORTEST) {
            needles.push(Needle::new(secret, false));
            needles.extend(in_base64(secret).map(|text| Needle::new(&text, true)));
        }
        needles.sort_unstable();
        needles.dedup();
        Self { needles }
    }

    /// Whether the text contains a secret, in any encoding.
    pub(crate) fn finds(&self, text: &str) -> bool {
        !self.spans(text).is_empty()
    }

    /// The text with every secret replaced. Overlapping secrets are replaced as one.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let spans = self.spans(text);
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut out, mut from) = (String::with_capacity(text.len()), 0);
        for span in spans {
            out.push_str(&text[from..span.start]);
            out.push_str(REDACTED);
            from = span.end;
        }
        out.push_str(&text[from..]);
        Cow::Owned(out)
    }

    /// Replaces every secret in the strings of a document, including field names. Returns whether
    /// there was one.
    pub(crate) fn json(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.text(text) {
                Cow::Owned(clean) => {
                    *text = clean;
                    true
                }
                Cow::Borrowed(_) => false,
            },
            Value::Array(items) => items
                .iter_mut()
                .fold(false, |found, item| self.json(item) | found),
            Value::Object(fields) => {
                let mut found = false;
                for name in fields.keys().cloned().collect::<Vec<_>>() {
                    if let Cow::Owned(clean) = self.text(&name)
                        && let Some(value) = fields.remove(&name)
                    {
                        fields.insert(clean, value);
                        found = true;
                    }
                }
                fields
                    .values_mut()
                    .fold(found, |found, value| self.json(value) | found)
            }
            Value::Number(number) => {
                let hidden = self.finds(&number.to_string());
                if hidden {
                    *value = Value::from(REDACTED);
                }
                hidden
            }
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// The ranges of secrets, in order and disjoint.
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut begins: [Vec<&[char]>; 256] = std::array::from_fn(|_| Vec::new());
        for needle in &self.needles {
            for byte in needle.begins_with() {
                begins[usize::from(byte)].push(&needle.text);
            }
        }
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (at, byte) in text.bytes().enumerate() {
            let longest = begins[usize::from(byte)]
                .iter()
                .filter(|_| text.is_char_boundary(at))
                .filter_map(|needle| end_of_match(text, at, needle))
                .max();
            let Some(end) = longest else {
                continue;
            };
            match spans.last_mut() {
                Some(last) if last.end > at => last.end = last.end.max(end),
                _ => spans.push(at..end),
            }
        }
        spans
    }
}

/// The base64 encodings of the text inside a longer one: one per offset from the three-byte grid,
/// without the digits that depend on its neighbours, in both alphabets.
fn in_base64(text: &str) -> impl Iterator<Item = String> {
    (0..3_usize).flat_map(move |shift| {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(text.as_bytes());
        let first = (shift * 8).div_ceil(6);
        let end = bytes.len() * 8 / 6;
        [BASE64_NOPAD.encode(&bytes), BASE64URL_NOPAD.encode(&bytes)]
            .into_iter()
            .filter_map(move |encoded| encoded.get(first..end).map(str::to_owned))
            .filter(|digits| digits.len() >= SHORTEST)
            .collect::<Vec<_>>()
    })
}

/// The end of the longest encoding of the needle that begins here.
fn end_of_match(text: &str, at: usize, needle: &[char]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let (mut ends, mut next) = (Vec::new(), Vec::new());
    spellings(&text[at..], *first, |length| ends.push(at + length));
    for c in rest {
        next.clear();
        for end in &ends {
            spellings(&text[*end..], *c, |length| next.push(end + length));
        }
        next.sort_unstable();
        next.dedup();
        std::mem::swap(&mut ends, &mut next);
        if ends.is_empty() {
            return None;
        }
    }
    ends.into_iter().max()
}

/// Reports the length of every encoding of `c` at the start of the text.
fn spellings(text: &str, c: char, mut give: impl FnMut(usize)) {
    if text.starts_with(c) {
        give(c.len_utf8());
    }
    match text.as_bytes().first() {
        Some(b'\\') => escaped(text, c, &mut give),
        Some(b'%') => percent(text, c, &mut give),
        Some(b'&') => entity(text, c, &mut give),
        Some(b'+') if c == ' ' => give(1),
        _ => {}
    }
    match c {
        // How shells escape a quote: '\'' and '"'"', whose inner part may be escaped again.
        '\'' if text.starts_with('\'') => {
            let inner = text[1..].trim_start_matches('\\');
            let begun = text.len() - inner.len();
            if begun > 1 && inner.starts_with("''") {
                give(begun + 2);
            }
            if let Some(rest) = inner.strip_prefix('"').and_then(|r| r.strip_prefix('\''))
                && let Some(rest) = rest.trim_start_matches('\\').strip_prefix("\"'")
            {
                give(text.len() - rest.len());
            }
        }
        // A line end, and the indentation that a YAML block adds after it.
        '\n' => {
            for end in ["\r\n", "\n"] {
                if let Some(rest) = text.strip_prefix(end) {
                    give(end.len());
                    give(text.len() - rest.trim_start_matches([' ', '\t']).len());
                }
            }
        }
        _ => {}
    }
}

/// Backslash escapes: of JSON, Python, Rust, shells, and of any of them inside another.
fn escaped(text: &str, c: char, give: &mut impl FnMut(usize)) {
    let all = text.bytes().take_while(|byte| *byte == b'\\').count();
    for count in 1..=all.min(MOST_BACKSLASHES) {
        if c == '\\' {
            give(count);
        }
    }
    // The escaped character follows the last backslash.
    if all > MOST_BACKSLASHES {
        return;
    }
    let rest = &text[all..];
    if c != '\\' && rest.starts_with(c) {
        give(all + c.len_utf8());
    }
    let short = match c {
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\u{8}' => 'b',
        '\u{c}' => 'f',
        '\u{b}' => 'v',
        '\u{7}' => 'a',
        '\u{1b}' => 'e',
        '\0' => '0',
        _ => '\\',
    };
    if short != '\\' && rest.starts_with(short) {
        give(all + 1);
    }
    let code = u32::from(c);
    let hex = |text: &str, digits: usize| {
        let digits = text.get(..digits)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| u32::from_str_radix(digits, 16).ok())?
    };
    for (letter, digits) in [('u', 4), ('x', 2), ('U', 8)] {
        if let Some(rest) = rest.strip_prefix(letter)
            && hex(rest, digits) == Some(code)
        {
            give(all + 1 + digits);
        }
    }
    if let Some(inner) = rest
        .strip_prefix("u{")
        .and_then(|rest| rest.split_once('}'))
        && hex(inner.0, inner.0.len()) == Some(code)
        && !inner.0.is_empty()
    {
        give(all + 3 + inner.0.len());
    }
    // Outside the basic multilingual plane, JSON writes a pair of surrogates.
    let mut units = [0; 2];
    if let [high, low] = c.encode_utf16(&mut units)
        && let Some(first) = rest.strip_prefix('u')
        && hex(first, 4) == Some(u32::from(*high))
    {
        let second = first[4..].trim_start_matches('\\');
        let slashes = first.len() - 4 - second.len();
        if slashes > 0
            && let Some(second) = second.strip_prefix('u')
            && hex(second, 4) == Some(u32::from(*low))
        {
            give(all + 5 + slashes + 5);
        }
    }
}

/// `%2F`, and `%252F` for text that was encoded twice.
fn percent(text: &str, c: char, give: &mut impl FnMut(usize)) {
    if c == '%' {
        let mut length = 1;
        while text[length..].starts_with("25") {
            length += 2;
            give(length);
        }
        return;
    }
    let mut rest = text;
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        let Some(digits) = rest.strip_prefix('%') else {
            return;
        };
        let digits = digits.trim_start_matches("25");
        let hex = digits
            .get(..2)
            .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) != Some(byte) {
            return;
        }
        rest = &digits[2..];
    }
    give(text.len() - rest.len());
}

/// `&amp;`, `&#38;`, `&#x26;`.
fn entity(text: &str, c: char, give: &mut impl FnMut(usize)) {
    let Some((name, _)) = text[1..]
        .split_once(';')
        .filter(|(name, _)| name.len() <= 8)
    else {
        return;
    };
    let code = name.strip_prefix('#').and_then(|number| {
        match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        }
        .ok()
    });
    let named = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    };
    if named == Some(c) || code == Some(u32::from(c)) {
        give(name.len() + 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn scrubbed(secrets: &[&str], text: &str) -> String {
        Scrubber::new(secrets.iter().copied())
            .text(text)
            .into_owned()
    }

    /// JSON as written by an encoder that escapes everything it may.
    fn in_ascii_json(text: &str) -> String {
        text.encode_utf16()
            .map(|unit| format!("\\u{unit:04X}"))
            .collect()
    }

    fn in_go_json(text: &str) -> String {
        let json = serde_json::to_string(text).unwrap();
        json[1..json.len() - 1]
            .replace('&', "\\u0026")
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
    }

    fn in_php_json(text: &str) -> String {
        in_go_json(text).replace('/', "\\/")
    }

    fn in_shell(text: &str) -> String {
        format!("'{}'", text.replace('\'', "'\\''"))
    }

    fn in_python_shell(text: &str) -> String {
        format!("'{}'", text.replace('\'', "'\"'\"'"))
    }

    fn in_html(text: &str) -> String {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('"', "&#34;")
            .replace('\'', "&#x27;")
    }

    fn in_query(text: &str) -> String {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }

    const SPELLINGS: [fn(&str) -> String; 9] = [
        str::to_owned,
        in_ascii_json,
        in_go_json,
        in_php_json,
        in_shell,
        in_python_shell,
        in_html,
        in_query,
        |text| in_query(&in_query(text)),
    ];

    #[test]
    fn a_value_that_contains_another_is_replaced_whole() {
        let secrets = ["shop", "postgres://u:hunter2@db/shop"];
        assert_eq!(
            scrubbed(&secrets, "APP=shop URL=postgres://u:hunter2@db/shop."),
            "APP=[redacted] URL=[redacted]."
        );
        assert_eq!(scrubbed(&["abcd", "cdefgh"], "xabcdefghx"), "x[redacted]x");
    }

    #[test]
    fn a_document_is_scrubbed_in_its_decoded_strings_names_and_numbers() {
        let mut value = serde_json::from_str(
            r#"{"at":"\u0068unter2","hunter2":[{"pin":12345}],"in":"[\"h\\u0075nter2\"]"}"#,
        )
        .unwrap();
        assert!(Scrubber::new(["hunter2", "12345"]).json(&mut value));
        assert_eq!(
            value.to_string(),
            r#"{"[redacted]":[{"pin":"[redacted]"}],"at":"[redacted]","in":"[\"[redacted]\"]"}"#
        );
        assert!(!Scrubber::new(["hunter2"]).json(&mut serde_json::json!({"a": ["b", 1, null]})));
    }

    #[test]
    fn short_values_are_left_alone() {
        assert_eq!(scrubbed(&["on", "1"], "1 on"), "1 on");
    }

    #[test]
    fn an_answer_full_of_escapes_is_scrubbed_in_linear_time() {
        let secrets: Vec<String> = (0..50).map(|n| format!("%%%%'\\secret-{n}")).collect();
        let scrubber = Scrubber::new(secrets.iter().map(String::as_str));
        let text = "%%%%%%%%\\\\\\\\''''".repeat(2_000);
        assert!(!scrubber.finds(&text));
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_secret_is_replaced(
            secret in "[a-zA-Z0-9/&<>'\"\\\\%+= :@\\n€🚀-]{4,24}",
            spelling in 0..SPELLINGS.len(),
            encoder in 0..3_usize,
            before in "[a-z ]{0,5}",
        ) {
            let spelled = SPELLINGS[spelling](&secret);
            let text = scrubbed(&[&secret], &format!("{before}{spelled}"));
            prop_assert!(text.contains(REDACTED), "{secret:?} as {spelled:?}: {text:?}");

            let encode = [in_ascii_json, in_go_json, in_php_json][encoder];
            let body = format!(r#"{{"detail":"{}"}}"#, encode(&format!("{before}{spelled}")));
            let mut value = serde_json::from_str(&body).unwrap();
            prop_assert!(Scrubber::new([secret.as_str()]).json(&mut value), "{body}");
            prop_assert!(value["detail"].as_str().unwrap().contains(REDACTED), "{value}");

            for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
                let digits = encoding.encode(format!("{before}{secret}{before}").as_bytes());
                let text = scrubbed(&[&secret], &digits);
                prop_assert!(text.contains(REDACTED), "{secret:?} in {digits}");
            }
        }

        #[test]
        fn text_without_a_secret_is_kept(text in "\\PC{0,60}") {
            prop_assume!(!text.contains("hunter2"));
            prop_assert_eq!(scrubbed(&["hunter2\u{1}"], &text), text);
        }
    }
}
