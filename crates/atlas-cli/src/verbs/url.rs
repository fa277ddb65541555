//! `atlas url`: signed URLs, made and checked without a cloud.

use std::time::Duration;

use atlas::auth::MIN_SECRET_BYTES;
use atlas::auth::signed_url::{self, Key, Policy, Target, Verdict};
use atlas::{Clock, SystemClock, Timestamp};
use serde_json::json;

use crate::args::{RawSecret, SigningKey, UrlFormat, UrlVerb};
use crate::failure::{Done, Failure};
use crate::output::Output;
use crate::verbs::token;

pub(crate) fn run(verb: UrlVerb, out: Output) -> Done {
    match verb {
        UrlVerb::Sign {
            url,
            key,
            expires_in,
        } => {
            let expires_at = now(&key).saturating_add(Duration::from_secs(expires_in));
            let (method, format) = (key.method.clone(), key.format);
            let secret = signing_key(key.secret, out)?;
            let signed = match format {
                UrlFormat::Compatible => signed_url::compatible::sign(&url, &secret, expires_at)
                    .map_err(Failure::given)?,
                UrlFormat::Atlas => signed_url::atlas::sign(
                    &url,
                    &secret,
                    &Policy::until(expires_at).method(method),
                )
                .map_err(Failure::given)?,
            };
            out.answer(&json!({ "url": signed, "expires_at": expires_at }), || {
                signed.clone()
            })
        }
        UrlVerb::Verify { url, key } => {
            let (at, method, format) = (now(&key), key.method.clone(), key.format);
            let secret = signing_key(key.secret, out)?;
            let verdict = match format {
                UrlFormat::Compatible => signed_url::compatible::verify(&url, &secret, at),
                UrlFormat::Atlas => Target::from_url(&method, &url)
                    .map_or(Verdict::Malformed, |target| {
                        signed_url::atlas::verify(&target, &[secret], at)
                    }),
            };
            token::answer(out, verdict.as_str())
        }
    }
}

/// The key of the secret. An empty one is refused: anybody could sign with it. A short one may be
/// in
/// use at an `ex_atlas`, which sets no least length; it is taken with a warning.
fn signing_key(given: RawSecret, out: Output) -> Done<Key> {
    let secret = token::read(given)?;
    let key = Key::existing(&secret).map_err(Failure::given)?;
    let length = secret.expose().len();
    if length < MIN_SECRET_BYTES {
        out.warn(format!(
            "warning: the secret has {length} bytes and can be guessed from a signed URL; use at \
             least {MIN_SECRET_BYTES} (`atlas token mint` makes one)"
        ));
    }
    Ok(key)
}

fn now(key: &SigningKey) -> Timestamp {
    key.now
        .map_or_else(|| SystemClock.now(), Timestamp::from_unix_seconds)
}
