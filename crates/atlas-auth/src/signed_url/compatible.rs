//! The format of `ex_atlas`: `exp` and `sig`, bound to the path and the parameters.
//!
//! The signature is HMAC-SHA256, in url-safe base64 without padding, over `path?query`, where the
//! query contains every parameter except `sig`, including `exp`, sorted bytewise by decoded key. It
//! is *not* bound to host or method: new code should use [`super::atlas`].

use std::borrow::Cow;

use atlas_core::{Result, Secret, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use super::query::{self, Pair};
use super::split::Parts;
use super::{Key, Verdict};

const EXP: &[u8] = b"exp";
const SIG: &[u8] = b"sig";

/// Signs a full URL, or path and query. Keeps the last value of a repeated parameter and writes
/// each once, sorted; an existing `exp` or `sig` is replaced.
///
/// # Errors
/// `validation` for a URL that begins with `//`: its first segment is a host to some servers and a
/// path to others.
pub fn sign(url: &str, key: &Key, expires_at: Timestamp) -> Result<String> {
    sign_with(&key.compatible, url, expires_at)
}

/// Verifies a full URL, or path and query. Refuses a repeated parameter, because a signature covers
/// only one value.
#[must_use]
pub fn verify(url: &str, key: &Key, now: Timestamp) -> Verdict {
    verify_with(&key.compatible, url, now)
}

pub(super) fn signature(query: &str) -> Option<Vec<u8>> {
    let params = query::collect(query);
    let (_, value) = params
        .into_iter()
        .rev()
        .find(|(name, _)| name.as_ref() == SIG)?;
    Some(value.into_owned())
}

pub(super) fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

pub(super) fn sign_with(key: &hmac::Key, url: &str, expires_at: Timestamp) -> Result<String> {
    let parts = Parts::to_sign(url)?;
    let exp = expires_at.unix_seconds().to_string();
    let mut params = query::collect(parts.query.unwrap_or(""));
    params.retain(|(name, _)| ![EXP, SIG].contains(&name.as_ref()));
    params.push((Cow::Borrowed(EXP), Cow::Borrowed(exp.as_bytes())));
    params.sort_by(|(a, _), (b, _)| a.cmp(b));
    // The sort is stable: of equal keys, the later one has the later value.
    params.dedup_by(|later, kept| {
        later.0 == kept.0 && {
            std::mem::swap(&mut later.1, &mut kept.1);
            true
        }
    });

    let canonical = Canonical::of(parts.path, &params);
    let mut tag = [0; 43];
    BASE64URL_NOPAD.encode_mut(hmac::sign(key, &canonical.text).as_ref(), &mut tag);
    let (before, after) = canonical.query().split_at(canonical.sig_at);
    let out = [
        parts.origin.as_bytes(),
        parts.path.as_bytes(),
        b"?",
        before,
        b"&sig=",
        &tag,
        after,
        parts.fragment.as_bytes(),
    ];
    Ok(String::from_utf8(out.concat()).expect("parts of a text, and ASCII"))
}

pub(super) fn verify_with(key: &hmac::Key, url: &str, now: Timestamp) -> Verdict {
    let parts = Parts::of(url);
    let mut params = query::collect(parts.query.unwrap_or(""));
    let last = |name: &[u8]| {
        params
            .iter()
            .rev()
            .find(|(key, _)| key.as_ref() == name)
            .map(|(_, value)| value.as_ref())
    };
    let (Some(exp), Some(sig)) = (last(EXP), last(SIG).filter(|sig| !sig.is_empty())) else {
        return Verdict::Malformed;
    };
    let Some(expiry) = seconds(exp) else {
        return Verdict::Malformed;
    };
    if expiry < now.unix_seconds() {
        return Verdict::Expired;
    }
    // Strict decoding: a signature has only one valid spelling.
    let mut tag = [0; 32];
    let decoded = sig.len() == 43 && BASE64URL_NOPAD.decode_mut(sig, &mut tag).is_ok();
    // A signed URL is sorted, with each name once.
    let mut repeated = false;
    if !params.is_sorted_by(|(a, _), (b, _)| a < b) {
        params.sort_by(|(a, _), (b, _)| a.cmp(b));
        repeated = params.windows(2).any(|pair| pair[0].0 == pair[1].0);
    }
    let canonical = Canonical::of(parts.path, &params);
    match hmac::verify(key, &canonical.text, &tag) {
        Ok(()) if decoded && !repeated => Verdict::Ok,
        _ => Verdict::BadSignature,
    }
}

/// Parses the expiry, a whole number in its canonical spelling only. Values beyond 64 bits mean no
/// expiry.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = text == "0" || (digits.starts_with(|first: char| ('1'..='9').contains(&first)));
    if !canonical || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if digits.len() < text.len() {
        i64::MIN
    } else {
        i64::MAX
    }))
}

/// The signed text, from sorted parameters; a `sig` among them is left out.
struct Canonical {
    text: Vec<u8>,
    query_at: usize,
    /// The position of `sig` in the query: before its `&`, or at the end. Never 0, because `exp`
    /// sorts before it.
    sig_at: usize,
}

impl Canonical {
    fn of(path: &str, params: &[Pair<'_>]) -> Self {
        let mut text = Vec::with_capacity(2 * path.len() + 128);
        text.extend_from_slice(if path.is_empty() {
            b"/"
        } else {
            path.as_bytes()
        });
        text.push(b'?');
        let query_at = text.len();
        let mut sig_at = None;
        for (name, value) in params {
            if name.as_ref() >= SIG {
                sig_at.get_or_insert(text.len() - query_at);
                if name.as_ref() == SIG {
                    continue;
                }
            }
            query::push(&mut text, query_at, name, value);
        }
        let sig_at = sig_at.unwrap_or(text.len() - query_at);
        Self {
            text,
            query_at,
            sig_at,
        }
    }

    fn query(&self) -> &[u8] {
        &self.text[self.query_at..]
    }
}
