//! Atlas's own format: one parameter, `atlas_sig`, bound to host, method, path and query exactly as
//! they are sent.
//!
//! Its value is `1.KEY.EXPIRY[.nNOT_BEFORE][.c][.pLENGTH].MAC`: version, key id, Unix seconds, and
//! optionally a not-before, "bound to the client's address", and the length of a path prefix that
//! is signed instead of path and query (a playlist and its segments). Nothing is decoded or sorted:
//! repeated parameters keep their order, and a URL has one canonical form.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use atlas_core::{Error, Result, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use ring::hmac;
use subtle::ConstantTimeEq;

use super::split::Parts;
use super::{Key, Verdict};

/// The parameter that carries the signature.
pub const PARAMETER: &str = "atlas_sig";

/// Characters that browsers escape in a path or a query. They are escaped before signing, so that
/// browsers send exactly what was signed.
const BROWSER_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'\'')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The conditions of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Policy {
    expires_at: Timestamp,
    not_before: Option<Timestamp>,
    method: Cow<'static, str>,
    client: Option<IpAddr>,
    prefix: Option<String>,
}

impl Policy {
    /// Permits `GET`, from now up to and including this second.
    pub const fn until(expires_at: Timestamp) -> Self {
        Self {
            expires_at,
            not_before: None,
            method: Cow::Borrowed("GET"),
            client: None,
            prefix: None,
        }
    }

    /// Makes the signature invalid before this second.
    pub fn not_before(self, instant: Timestamp) -> Self {
        Self {
            not_before: Some(instant),
            ..self
        }
    }

    /// Permits this method instead of `GET`. A WebSocket is a `GET`, and `HEAD` is permitted with
    /// `GET`.
    pub fn method(self, method: impl Into<Cow<'static, str>>) -> Self {
        Self {
            method: method.into(),
            ..self
        }
    }

    /// Permits requests only from this address, as the verifier sees it.
    pub fn client(self, address: IpAddr) -> Self {
        Self {
            client: Some(address),
            ..self
        }
    }

    /// Permits everything below this path, with any query: an HLS playlist and its segments. The
    /// path begins and ends with `/`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: Some(prefix.into()),
            ..self
        }
    }
}

/// A request, as the verifier sees it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    client: Option<IpAddr>,
}

impl<'a> Target<'a> {
    /// A request for `path` (with an optional query) on `host`, the value of its `Host` or
    /// `:authority`.
    #[must_use]
    pub fn new(method: &'a str, host: &'a str, path_and_query: &'a str) -> Self {
        let (path, query) = path_and_query
            .split_once('?')
            .map_or((path_and_query, None), |(path, query)| (path, Some(query)));
        Self {
            method,
            host,
            path,
            query,
            client: None,
        }
    }

    /// A request for a full URL; `None` if it has no host.
    #[must_use]
    pub fn from_url(method: &'a str, url: &'a str) -> Option<Self> {
        let parts = Parts::of(url);
        let host = host_of(&parts)?;
        Some(Self {
            method,
            host,
            path: parts.path,
            query: parts.query,
            client: None,
        })
    }

    /// Sets the client's address.
    #[must_use]
    pub fn client(self, address: IpAddr) -> Self {
        Self {
            client: Some(address),
            ..self
        }
    }

    /// True when it has a signature of this format, valid or not.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        signatures(self.query.unwrap_or("")).next().is_some()
    }
}

/// Signs a full URL. Characters that a browser would escape are escaped; an existing signature is
/// replaced.
///
/// # Errors
/// `validation` when the URL has no host, has `.` or `..` segments, control characters or a user
/// name, or does not begin with the policy's prefix; and for an invalid method.
pub fn sign(url: &str, key: &Key, policy: &Policy) -> Result<String> {
    let parts = Parts::to_sign(url)?;
    let host = host_of(&parts)
        .ok_or_else(|| Error::validation("url", "must name a scheme and a host, and no user"))?;
    if url.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Error::validation(
            "url",
            "has control characters, which browsers drop",
        ));
    }
    if policy.method.is_empty()
        || !policy
            .method
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        return Err(Error::validation(
            "method",
            "must be an HTTP method in capitals",
        ));
    }
    let path = escape(if parts.path.is_empty() {
        "/"
    } else {
        parts.path
    });
    if has_dot_segments(&path) {
        return Err(Error::validation(
            "url",
            "has . or .. segments, which browsers resolve",
        ));
    }
    let query = parts.query.map(without_signature);
    let query = query.as_deref().map(escape);

    let prefix = policy.prefix.as_deref().map(escape);
    if let Some(prefix) = &prefix
        && !(prefix.starts_with('/') && prefix.ends_with('/') && path.starts_with(prefix.as_ref()))
    {
        return Err(Error::validation(
            "prefix",
            "must begin and end with / and be the beginning of the URL's path",
        ));
    }
    let claims = Claims {
        expiry: policy.expires_at.unix_seconds(),
        not_before: policy.not_before.map(Timestamp::unix_seconds),
        from_client: policy.client.is_some(),
        prefix: prefix.as_deref().map(str::len),
    };
    let target = Target {
        method: &policy.method,
        host,
        path: &path,
        query: query.as_deref(),
        client: policy.client,
    };
    let tag = claims
        .mac(&key.atlas, &target)
        .ok_or_else(|| Error::validation("url", "is too long"))?;

    let mut out = String::with_capacity(url.len() + 96);
    out.push_str(parts.origin);
    out.push_str(&path);
    out.push('?');
    if let Some(query) = query.as_deref().filter(|query| !query.is_empty()) {
        out.push_str(query);
        out.push('&');
    }
    out.push_str(PARAMETER);
    out.push('=');
    claims.write(&mut out, &key.id);
    out.push('.');
    BASE64URL_NOPAD.encode_append(tag.as_ref(), &mut out);
    out.push_str(parts.fragment);
    Ok(out)
}

/// Verifies a request. It may be signed with any of the keys.
#[must_use]
pub fn verify(target: &Target<'_>, keys: &[Key], now: Timestamp) -> Verdict {
    let query = target.query.unwrap_or("");
    let mut found = signatures(query);
    let (Some(value), None) = (found.next(), found.next()) else {
        return Verdict::Malformed;
    };
    let Some((claims, key_id, tag)) = Claims::parse(value) else {
        return Verdict::Malformed;
    };
    let now = now.unix_seconds();
    if claims.expiry < now {
        return Verdict::Expired;
    }
    let early = claims.not_before.is_some_and(|instant| now < instant);
    let Some(key) = keys.iter().find(|key| key.id == key_id) else {
        return Verdict::BadSignature;
    };
    let signed = without_signature(query);
    // A signer without a query wrote `?atlas_sig=…`, and one with an empty query the same.
    let path = if target.path.is_empty() {
        "/"
    } else {
        target.path
    };
    let target = Target {
        path,
        query: Some(&signed),
        ..*target
    };
    let signed_for = |method| {
        let target = Target { method, ..target };
        let expected = claims.mac(&key.atlas, &target);
        expected.is_some_and(|expected| bool::from(expected.as_ref().ct_eq(&tag)))
    };
    // A client that may read an answer may read its headers (RFC 9110 §9.3.2).
    let good = signed_for(target.method) || (target.method == "HEAD" && signed_for("GET"));
    if good && !early {
        Verdict::Ok
    } else {
        Verdict::BadSignature
    }
}

/// The key of this format, derived so that no compatible signature (over `path?…exp=…`) is valid in
/// this one.
pub(super) fn derive(secret: &hmac::Key) -> hmac::Key {
    hmac::Key::new(
        hmac::HMAC_SHA256,
        hmac::sign(secret, b"atlas signed url v1").as_ref(),
    )
}

/// The contents of a signature besides key and MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claims {
    expiry: i64,
    not_before: Option<i64>,
    from_client: bool,
    prefix: Option<usize>,
}

impl Claims {
    fn write(&self, out: &mut String, key_id: &str) {
        let written = write!(out, "1.{key_id}.{}", self.expiry)
            .and_then(|()| {
                self.not_before
                    .map_or(Ok(()), |instant| write!(out, ".n{instant}"))
            })
            .and_then(|()| out.write_str(if self.from_client { ".c" } else { "" }))
            .and_then(|()| {
                self.prefix
                    .map_or(Ok(()), |length| write!(out, ".p{length}"))
            });
        written.expect("writing to a string cannot fail");
    }

    /// Parses the only spelling that [`Claims::write`] produces, and the MAC after it.
    fn parse(value: &str) -> Option<(Self, &str, [u8; 32])> {
        let (fields, mac) = value.strip_prefix("1.")?.rsplit_once('.')?;
        let mut tag = [0; 32];
        if mac.len() != 43
            || BASE64URL_NOPAD
                .decode_mut(mac.as_bytes(), &mut tag)
                .is_err()
        {
            return None;
        }
        let mut fields = fields.split('.').peekable();
        let key_id = fields.next()?;
        let expiry = number(fields.next()?)?;
        let not_before = match fields.next_if(|field| field.starts_with('n')) {
            Some(field) => Some(number(&field[1..])?),
            None => None,
        };
        let from_client = fields.next_if_eq(&"c").is_some();
        let prefix = match fields.next_if(|field| field.starts_with('p')) {
            Some(field) => Some(usize::try_from(number(&field[1..])?).ok()?),
            None => None,
        };
        fields.next().is_none().then_some((
            Self {
                expiry,
                not_before,
                from_client,
                prefix,
            },
            key_id,
            tag,
        ))
    }

    /// The MAC over claims and request; `None` when the request cannot be what was signed.
    fn mac(&self, key: &hmac::Key, target: &Target<'_>) -> Option<hmac::Tag> {
        let scope = match self.prefix {
            None => target.path,
            // A path that the server behind might resolve to one outside the prefix was not signed.
            Some(_) if has_dot_segments(target.path) => return None,
            Some(length) => target
                .path
                .get(..length)
                .filter(|prefix| prefix.ends_with('/'))?,
        };
        let query = if self.prefix.is_some() {
            ""
        } else {
            target.query.unwrap_or("")
        };
        let client = match (self.from_client, target.client) {
            (false, _) => String::new(),
            (true, None) => return None,
            (true, Some(address)) => address.to_canonical().to_string(),
        };
        let fields = [target.method, target.host, scope, query, client.as_str()];
        let mut message =
            Vec::with_capacity(64 + fields.iter().map(|field| field.len()).sum::<usize>());
        message.extend(self.expiry.to_be_bytes());
        message.extend(self.not_before.unwrap_or_default().to_be_bytes());
        message.push(
            u8::from(self.not_before.is_some())
                | u8::from(self.from_client) << 1
                | u8::from(self.prefix.is_some()) << 2,
        );
        for (index, field) in fields.into_iter().enumerate() {
            message.extend(u32::try_from(field.len()).ok()?.to_be_bytes());
            message.extend(field.as_bytes());
            if index == 1 {
                let start = message.len() - field.len();
                message[start..].make_ascii_lowercase();
            }
        }
        Some(hmac::sign(key, &message))
    }
}

/// The host as browsers send it: without the scheme's default port. `None` if there is none, or
/// with a user name.
fn host_of<'a>(parts: &Parts<'a>) -> Option<&'a str> {
    let port = match parts.scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => ":443",
        "http" | "ws" => ":80",
        _ => return None,
    };
    let host = parts
        .authority
        .strip_suffix(port)
        .unwrap_or(parts.authority);
    (!host.is_empty() && host.is_ascii() && !host.contains(['@', ' ', '\\'])).then_some(host)
}

pub(super) fn signatures(query: &str) -> impl Iterator<Item = &str> {
    query
        .split('&')
        .filter_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))
}

/// The query without any signature of this format; the rest is unchanged.
pub(crate) fn without_signature(query: &str) -> Cow<'_, str> {
    if signatures(query).next().is_none() {
        return Cow::Borrowed(query);
    }
    if let Some((rest, last)) = query.rsplit_once('&')
        && signatures(last).next().is_some()
        && signatures(rest).next().is_none()
    {
        return Cow::Borrowed(rest);
    }
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| signatures(pair).next().is_none())
        .collect();
    Cow::Owned(kept.join("&"))
}

fn escape(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, BROWSER_ESCAPES).into()
}

/// True when a server may resolve the path to another: dot segments, in any spelling, and disguised
/// separators.
///
/// Escapes are decoded more than once (`%252e`), a backslash is a separator to some servers, text
/// after a `;` is a parameter to others, and some drop or fold NUL, blanks and over-long or
/// full-width spellings.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii() && !matches!(byte, b'%' | b'\\');
    if path.bytes().all(plain) {
        return plainly_has_dot_segments(path.as_bytes());
    }
    // How many times a path is decoded on its way: by a proxy, by a server, by a framework.
    const DECODINGS: usize = 3;
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..=DECODINGS {
        if plainly_has_dot_segments(&bytes) {
            return true;
        }
        let decoded: Vec<u8> = percent_encoding::percent_decode(&bytes).collect();
        if decoded == bytes {
            return false;
        }
        bytes = decoded;
    }
    // Still escaped after that: no legitimate client sends such a path.
    true
}

fn plainly_has_dot_segments(path: &[u8]) -> bool {
    const FOLDED: [(&[u8], u8); 6] = [
        (b"\xc0\xae", b'.'),
        (b"\xef\xbc\x8e", b'.'),
        (b"\xc0\xaf", b'/'),
        (b"\xef\xbc\x8f", b'/'),
        (b"\xef\xbc\xbc", b'/'),
        (b"\\", b'/'),
    ];
    let mut folded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match FOLDED.iter().find(|(long, _)| rest.starts_with(long)) {
            Some((long, plain)) => {
                folded.push(*plain);
                rest = &rest[long.len()..];
            }
            None => {
                folded.push(*first);
                rest = after;
            }
        }
    }
    folded.split(|byte| *byte == b'/').any(|segment| {
        // `..;x` is `..` to servers that support path parameters.
        let name = segment
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or(segment);
        let mut dots = name.iter().filter(|byte| **byte > b' ' && **byte != 0x7f);
        let (first, second, third) = (dots.next(), dots.next(), dots.next());
        first == Some(&b'.') && second.is_none_or(|byte| *byte == b'.') && third.is_none()
    })
}

/// Parses a whole number in its canonical spelling only.
fn number(text: &str) -> Option<i64> {
    let value: i64 = text.parse().ok()?;
    let mut buffer = String::with_capacity(20);
    write!(buffer, "{value}").ok()?;
    (buffer == text).then_some(value)
}
