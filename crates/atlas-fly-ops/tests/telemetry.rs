//! What spans and events say of tokens, deploys and logs, and what they never say. A process of its
//! own: other threads without a subscriber would switch the spans off.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use atlas_fly_ops::{
    AppName, DeployRequest, DeployTicket, FlyCli, FlyToken, LogClient, LogFilter, Tokens,
};
use atlas_http::{Body, Transport};
use atlas_testkit::fake_fly::FakeFly;
use http::{Request, Response};
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn spans_name_sources_counts_and_outcomes_and_no_token_or_line() {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _set = tracing::subscriber::set_default(subscriber);

    let fake = tempfile::tempdir().unwrap();
    let fly = FakeFly::new(fake.path()).unwrap();
    fly.doing(
        r#"case "$*" in
        tokens*) echo leak-notice >&2; echo '{"token":"FlyV1 fm2_leak-minted"}';;
        *) echo leak-line; echo leak-error >&2; exit 3;;
        esac"#,
    )
    .unwrap();
    let cli = FlyCli::new()
        .program(fly.program())
        .env("BUILD_SECRET", "leak-env");
    let tokens = Tokens::builder()
        .config_file(None)
        .cli(Some(cli.clone()))
        .build();
    let shop = AppName::new("shop").unwrap();
    tokens.get(&shop).await.unwrap();

    let mut request = DeployRequest::new(fake.path());
    request.token = Some(FlyToken::parse("fm2_leak-deploy").unwrap());
    let printed = format!("{cli:?} {request:?}");
    let error = cli
        .stream_deploy(DeployTicket("ticket-7".into()), request)
        .unwrap()
        .finish()
        .await
        .unwrap_err();
    assert!(error.output().unwrap().text().contains("leak-line"));

    assert!(
        cli.deploy(DeployRequest::new(fake.path().join("absent")))
            .await
            .is_err()
    );

    let api = tower::service_fn(|request: Request<Body>| async move {
        assert_eq!(request.headers()["authorization"], "FlyV1 fm2_leak-minted");
        let page = br#"{"data":[{"id":"leak-id","attributes":{"message":"leak-message"}}]}"#;
        Ok::<_, Infallible>(Response::new(Body::from(page.to_vec())))
    });
    let client = LogClient::with_transport(tokens, "https://api.example", Transport::new(api));
    client.page(&shop, &LogFilter::all(), None).await.unwrap();

    let said = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
    for expected in [
        "source=\"cli\"",
        "acquirer=\"search\"",
        "ticket=\"ticket-7\"",
        "lines=2",
        "result=\"exit_code\"",
        "status=200",
        "count=1",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    // Only what ran has an end: a folder that is none does not.
    let ends = said.matches("deploy ended").count();
    assert_eq!(
        (ends, said.matches("deploy line").count()),
        (1, 2),
        "{said}"
    );
    assert!(
        !said.contains("leak") && !printed.contains("leak"),
        "{said}\n{printed}"
    );
}
