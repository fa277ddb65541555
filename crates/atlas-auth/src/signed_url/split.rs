//! Splits a URL into its parts by RFC 3986 appendix B, without decoding anything.

use atlas_core::{Error, Result};

/// The parts of a URL. Concatenated, they are the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// Scheme and authority with their punctuation (`https://host:1`), or empty.
    pub(super) origin: &'a str,
    pub(super) scheme: &'a str,
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    /// The query without its `?`.
    pub(super) query: Option<&'a str>,
    /// The fragment with its `#`; empty if the URL has none.
    pub(super) fragment: &'a str,
}

impl<'a> Parts<'a> {
    /// Splits a full URL, or path and query. A text that begins with `/` is a path, `//host/path`
    /// too: a request line allows no other interpretation, and a parser that took the second
    /// segment for a host would verify the signature of another path.
    pub(super) fn of(url: &'a str) -> Self {
        let (rest, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
        let (before, query) = rest
            .split_once('?')
            .map_or((rest, None), |(before, query)| (before, Some(query)));
        let (scheme, after) = match before.split_once(':') {
            Some((scheme, after)) if is_scheme(scheme) => (scheme, after),
            _ => ("", before),
        };
        let (authority, path) = match after.strip_prefix("//") {
            Some(after) if !scheme.is_empty() => {
                after.split_at(after.find('/').unwrap_or(after.len()))
            }
            _ => ("", after),
        };
        let origin = &before[..before.len() - path.len()];
        Self {
            origin,
            scheme,
            authority,
            path,
            query,
            fragment,
        }
    }

    /// The same, for signing.
    pub(super) fn to_sign(url: &'a str) -> Result<Self> {
        if url.starts_with("//") {
            return Err(Error::validation(
                "url",
                "begins with //: write its scheme, or only its path and query",
            ));
        }
        Ok(Self::of(url))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_that_begins_with_two_slashes_names_no_host() {
        let parts = Parts::of("//evil.example/stream?a=1");
        assert_eq!((parts.authority, parts.path), ("", "//evil.example/stream"));
        assert!(Parts::to_sign("//evil.example/stream").is_err());
        assert_eq!(Parts::of("https://h//x").path, "//x");
    }

    #[test]
    fn a_colon_after_the_first_slash_is_no_scheme() {
        assert_eq!(Parts::of("/a:b?c").path, "/a:b");
        assert_eq!(Parts::of("https:/p").path, "/p");
    }

    proptest! {
        #[test]
        fn the_parts_joined_are_the_url(url in "[a-z:/?#&=%. ]{0,40}") {
            let parts = Parts::of(&url);
            let query = parts.query.map(|query| format!("?{query}")).unwrap_or_default();
            prop_assert_eq!(format!("{}{}{}{}", parts.origin, parts.path, query, parts.fragment),
                url);
        }
    }
}
