//! `token_verify`, `url_sign`, `url_verify`: what a credential costs over the bare ring primitive
//! on the same bytes.
//!
//! The rows named so take a secret and a URL, as a program does that looks at one; the baseline
//! makes its key from the same secret. `kept_*` keep the key, on both sides; `atlas_*` are the
//! format for new code, with its key kept.

use std::hint::black_box;
use std::time::Duration;

use atlas_auth::signed_url::{self, Format, Key, Policy, Target, Verdict, atlas, compatible};
use atlas_auth::token;
use atlas_core::{Secret, SystemEntropy, Timestamp};
use ring::{digest, hmac};

use crate::Failure;
use crate::measure::{Row, cpu_time, median};

/// As RunPod's proxy names a port, with a path and the parameters of a player.
const URL: &str = "https://q8d2m5x0c7hn4v-8000.proxy.runpod.net/v1/sessions/7f3a9c2e/stream/master.m3u8?user=u42&quality=720p&codec=h264";
const HOUR: Duration = Duration::from_secs(3600);
const ROUNDS: usize = 101;
const CALLS: u32 = 2_000;

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_747_000_000)
}

pub(crate) fn token_verify(name: &'static str) -> Result<Row, Failure> {
    let minted = token::mint(&SystemEntropy::new());
    let shown = minted.secret().expose().to_owned();
    let kept = token::Hash::of(minted.secret());
    check(kept.matches(&shown))?;
    let ours = || kept.matches(black_box(&shown));
    Ok(compare(name, ours, || {
        digest::digest(&digest::SHA256, black_box(shown.as_bytes()))
    }))
}

/// Signing or verifying.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Sign,
    Verify,
}

/// A secret and a URL at a time, in the compatible format.
pub(crate) fn one_shot(name: &'static str, work: Work) -> Result<Row, Failure> {
    let secret = signed_url::mint_secret(&SystemEntropy::new())
        .secret()
        .clone();
    let signed = signed_url::sign(Format::Compatible, URL, &secret, now(), HOUR)?;
    let (message, tag) = compatible_parts(&signed, &secret)?;
    let key = || hmac::Key::new(hmac::HMAC_SHA256, black_box(secret.expose().as_bytes()));
    Ok(match work {
        Work::Sign => compare(
            name,
            || signed_url::sign(Format::Compatible, black_box(URL), &secret, now(), HOUR),
            || hmac::sign(&key(), black_box(&message)),
        ),
        Work::Verify => compare(
            name,
            || signed_url::verify(Format::Compatible, black_box(&signed), &secret, now()),
            || hmac::verify(&key(), black_box(&message), black_box(&tag)),
        ),
    })
}

/// The compatible format with its key kept.
pub(crate) fn kept(name: &'static str, work: Work) -> Result<Row, Failure> {
    let secret = signed_url::mint_secret(&SystemEntropy::new())
        .secret()
        .clone();
    let (key, bare) = (
        Key::new(&secret)?,
        hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()),
    );
    let until = now().saturating_add(HOUR);
    let signed = compatible::sign(URL, &key, until)?;
    let (message, tag) = compatible_parts(&signed, &secret)?;
    Ok(match work {
        Work::Sign => compare(
            name,
            || compatible::sign(black_box(URL), &key, until),
            || hmac::sign(&bare, black_box(&message)),
        ),
        Work::Verify => compare(
            name,
            || compatible::verify(black_box(&signed), &key, now()),
            || hmac::verify(&bare, black_box(&message), black_box(&tag)),
        ),
    })
}

/// The atlas format with its key kept, against a MAC over as many bytes as it signs.
pub(crate) fn atlas_format(name: &'static str, work: Work) -> Result<Row, Failure> {
    let secret = signed_url::mint_secret(&SystemEntropy::new())
        .secret()
        .clone();
    let keys = [Key::new(&secret)?];
    let bare = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let policy = Policy::until(now().saturating_add(HOUR));
    let signed = atlas::sign(URL, &keys[0], &policy)?;
    let target = Target::from_url("GET", &signed).ok_or("a signed URL names a host")?;
    check(atlas::verify(&target, &keys, now()) == Verdict::Ok)?;
    // Two instants, a byte of flags, five lengths; method, and everything of the URL but `https://`
    // and `?`.
    let message = vec![b'x'; 17 + 5 * 4 + "GET".len() + URL.len() - "https://?".len()];
    let tag = hmac::sign(&bare, &message);
    Ok(match work {
        Work::Sign => compare(
            name,
            || atlas::sign(black_box(URL), &keys[0], &policy),
            || hmac::sign(&bare, black_box(&message)),
        ),
        Work::Verify => compare(
            name,
            || {
                Target::from_url("GET", black_box(&signed))
                    .map(|target| atlas::verify(&target, &keys, now()))
            },
            || hmac::verify(&bare, black_box(&message), black_box(tag.as_ref())),
        ),
    })
}

/// What the peer's signature is over, and the signature; proved to be that before it is a baseline.
fn compatible_parts(signed: &str, secret: &Secret) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let path_at = "https://".len() + signed["https://".len()..].find('/').ok_or("a path")?;
    let (path, query) = signed[path_at..].split_once('?').ok_or("a query")?;
    let (sig, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| pair.starts_with("sig="));
    let message = format!("{path}?{}", rest.join("&")).into_bytes();
    let sig = sig
        .first()
        .and_then(|pair| pair.strip_prefix("sig="))
        .ok_or("a signature")?;
    let tag = data_encoding::BASE64URL_NOPAD.decode(sig.as_bytes())?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    check(hmac::verify(&key, &message, &tag).is_ok())?;
    check(signed_url::verify(Format::Compatible, signed, secret, now()).is_ok())?;
    Ok((message, tag))
}

fn check(holds: bool) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err("the two sides do not do the same".into())
    }
}

/// CPU nanoseconds a call of each, in turns.
fn compare<A, B>(name: &'static str, ours: impl Fn() -> A, bare: impl Fn() -> B) -> Row {
    let (mut value, mut base) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let both = (nanos(&ours), nanos(&bare));
        // The first warms up.
        if round > 0 {
            value.push(both.0);
            base.push(both.1);
        }
    }
    Row {
        name,
        value: median(value),
        unit: "CPU nanoseconds a call",
        baseline: Some(median(base)),
        point_reads: None,
    }
}

fn nanos<T>(call: &impl Fn() -> T) -> f64 {
    let before = cpu_time();
    for _ in 0..CALLS {
        black_box(call());
    }
    cpu_time().saturating_sub(before).as_secs_f64() * 1e9 / f64::from(CALLS)
}
