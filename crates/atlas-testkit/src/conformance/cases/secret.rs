//! No secret byte in what a provider shows.

use atlas_core::{Auth, Credential, Secret};

use crate::conformance::bench::{Bench, Verdict, ensure};
use crate::world::FaultKind;

const CANARY: &str = "conformance-canary-5f3a9c";
const TOKEN: &str = "conformance-token-77b1e0d2";

pub(super) async fn no_secret_is_shown(bench: &Bench<'_>) -> Verdict {
    let (canary, token) = (Secret::new(CANARY), Secret::new(TOKEN));
    let credential = Credential::bearer(token.clone(), "0".repeat(64));
    let request = bench
        .request()
        .env("CONFORMANCE_CANARY", canary.clone())
        .auth(Auth::Bearer)
        .credential(Some(credential));
    let (key, made) = bench.spawn(request).await?;
    let read = bench.until_shown(&made.id).await?;
    bench.until_found(&key, 1).await?;
    let listed = bench
        .provider()
        .find_by_launch_key(bench.cx(), &key)
        .await?
        .computes;
    ensure!(!listed.is_empty(), "the key finds nothing");
    for compute in [made, read].iter().chain(&listed) {
        let json = serde_json::to_string(compute).unwrap_or_default();
        for shown in [
            format!("{compute:?}"),
            format!("{compute:#?}"),
            json,
            compute.raw.to_string(),
        ] {
            bench.shows_no_secret(&shown, &[&canary, &token])?;
        }
    }
    bench.shows_no_secret(&format!("{:?}", bench.provider()), &[])
}

pub(super) async fn no_secret_is_in_an_error(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    let (canary, token) = (Secret::new(CANARY), Secret::new(TOKEN));
    let credential = Credential::bearer(token.clone(), "0".repeat(64));
    let request = || {
        bench
            .request()
            .env("CONFORMANCE_CANARY", canary.clone())
            .auth(Auth::Bearer)
            .credential(Some(credential.clone()))
    };
    for fault in [
        FaultKind::Status500,
        FaultKind::Status429,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::CommitThenReset,
        FaultKind::NoCapacity,
    ] {
        bench.inject("spawn_compute", fault, 1).await?;
        let (_, error) = bench.spawn_failing(&bench.once(), request()).await?;
        let mut shown = format!("{error} {error:?} {error:#?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            shown.push_str(&cause.to_string());
            source = cause.source();
        }
        bench.shows_no_secret(&shown, &[&canary, &token])?;
    }
    Ok(())
}
