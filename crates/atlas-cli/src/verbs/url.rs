//! `atlas url`: signed URLs, made and checked without a cloud.

use std::time::Duration;

use atlas::auth::signed_url::{self, Format, Key, Policy, Target, Verdict};
use atlas::{Clock, SystemClock, Timestamp};
use serde_json::json;

use crate::args::{SigningKey, UrlFormat, UrlVerb};
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
            let secret = Key::new(&token::read(key.secret)?);
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
            let secret = token::read(key.secret)?;
            let verdict = match format {
                UrlFormat::Compatible => signed_url::verify(Format::Compatible, &url, &secret, at),
                UrlFormat::Atlas => Target::from_url(&method, &url)
                    .map_or(Verdict::Malformed, |target| {
                        signed_url::atlas::verify(&target, &[Key::new(&secret)], at)
                    }),
            };
            token::answer(out, verdict.as_str())
        }
    }
}

fn now(key: &SigningKey) -> Timestamp {
    key.now
        .map_or_else(|| SystemClock.now(), Timestamp::from_unix_seconds)
}
