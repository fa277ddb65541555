//! Query parameters in the form encoding of `ex_atlas` (that of Elixir's `URI`): `~` is literal,
//! `*` is escaped, invalid escapes are kept.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'~')
    .remove(b'_')
    .remove(b'-')
    .remove(b'.');

/// One decoded parameter.
pub(crate) type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The parameters in order. An empty one between two `&` counts (`a&&b` has three), one at the end
/// does not.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = Pair<'_>> {
    query.split_terminator('&').map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

/// All parameters, with capacity for one more.
pub(crate) fn collect(query: &str) -> Vec<Pair<'_>> {
    let ampersands = query.bytes().filter(|byte| *byte == b'&').count();
    let mut all = Vec::with_capacity(ampersands + 2);
    all.extend(pairs(query));
    all
}

/// Appends `key=value`, after an `&` unless `out` ends at `start`. The appended text is ASCII.
pub(crate) fn push(out: &mut Vec<u8>, start: usize, key: &[u8], value: &[u8]) {
    if out.len() > start {
        out.push(b'&');
    }
    encode(out, key);
    out.push(b'=');
    encode(out, value);
}

fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nearly all keys and values are plain, and copying a slice is faster than inspecting each byte
    // twice.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'~' | b'_' | b'-' | b'.');
    // A fold without an early exit, so that it can be vectorised.
    if bytes.iter().fold(true, |all, byte| all & plain(*byte)) {
        return out.extend_from_slice(bytes);
    }
    for (index, word) in bytes.split(|byte| *byte == b' ').enumerate() {
        if index > 0 {
            out.push(b'+');
        }
        out.extend(percent_encode(word, ESCAPED).flat_map(str::bytes));
    }
}

fn decode(text: &str) -> Cow<'_, [u8]> {
    if text
        .bytes()
        .fold(true, |plain, byte| plain & (byte != b'%') & (byte != b'+'))
    {
        return Cow::Borrowed(text.as_bytes());
    }
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode(spaced.as_bytes()).collect());
    }
    percent_decode(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &[u8]) -> String {
        let mut out = Vec::new();
        encode(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_form_encoding_is_elixirs_and_not_the_usual_one_of_rust() {
        assert_eq!(
            encoded("a b~_-.*/é+%".as_bytes()),
            "a+b~_-.%2A%2F%C3%A9%2B%25"
        );
    }

    #[test]
    fn a_bad_escape_stays_as_it_is_written() {
        for (text, decoded) in [
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%%41", "%A"),
            ("%4%41", "%4A"),
            ("a+%2B", "a +"),
        ] {
            assert_eq!(decode(text).as_ref(), decoded.as_bytes(), "{text}");
        }
    }

    #[test]
    fn empty_parameters_count_between_ampersands_and_not_at_the_end() {
        let keys = |query| {
            pairs(query)
                .map(|(key, _)| String::from_utf8(key.into_owned()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(keys("a=1&&b&"), ["a", "", "b"]);
        assert!(keys("").is_empty());
        assert_eq!(keys("&"), [""]);
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_itself(bytes: Vec<u8>) {
            let text = encoded(&bytes);
            prop_assert_eq!(decode(&text).into_owned(), bytes);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"~_-.+%".contains(&byte)));
        }
    }
}
