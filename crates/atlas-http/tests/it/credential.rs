//! Credentials that are renewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atlas_core::{CallContext, Error, ErrorKind, Outcome, Result, RetryClass, Secret};
use atlas_http::{Call, CredentialSource};

use crate::cloud::{Cloud, answer};

#[derive(Debug, Default)]
struct Tokens(AtomicUsize);

impl CredentialSource for Tokens {
    async fn authorization(&self) -> Result<Secret> {
        match self.0.load(Ordering::SeqCst) {
            9 => Err(Error::new(ErrorKind::Unauthorized, "no token left")),
            n => Ok(Secret::new(format!("FlyV1 fm2_token_{n}"))),
        }
    }

    fn rejected(&self, value: &Secret) {
        assert_eq!(
            value.expose(),
            format!("FlyV1 fm2_token_{}", self.0.load(Ordering::SeqCst))
        );
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn get() -> Call {
    Call::get("get_compute", RetryClass::Safe, ["machines"])
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_renewed_once() {
    let tokens = Arc::new(Tokens::default());
    let cloud = Cloud::new([
        answer(401, ""),
        answer(200, "{}"),
        answer(401, "bad fm2_token_1"),
    ]);
    let client = cloud
        .builder()
        .credential_source(tokens.clone())
        .build()
        .unwrap();
    client
        .call(&CallContext::new().with_retries(0), get())
        .await
        .unwrap();
    let sent = cloud.seen(|seen| seen.headers["authorization"].to_str().unwrap().to_owned());
    assert_eq!(sent, ["FlyV1 fm2_token_0", "FlyV1 fm2_token_1"]);

    let error = client.call(&CallContext::new(), get()).await.unwrap_err();
    assert_eq!(
        (error.kind(), cloud.requests()),
        (ErrorKind::Unauthorized, 4)
    );
    assert!(!error.to_string().contains("fm2_token"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_a_token_nothing_is_sent() {
    let tokens = Arc::new(Tokens(AtomicUsize::new(9)));
    let cloud = Cloud::new([answer(200, "{}")]);
    let client = cloud.builder().credential_source(tokens).build().unwrap();
    let error = client.call(&CallContext::new(), get()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome(), cloud.requests()),
        (ErrorKind::Unauthorized, &Outcome::NeverSent, 0)
    );
}
