//! Sessions are kept alive and ended by what their guards saw, at the end with a real browser.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod chromium;
mod page;
mod pod;
mod world;

use std::time::Duration;

use atlas::auth::grant::{Access, GrantKey, Scope};
use atlas::auth::signed_url::{self, Format};
use atlas::{Clock, Limit, Reason, SessionOptions, SessionState, SystemClock, SystemEntropy};

use chromium::Chromium;
use page::Page;
use pod::Pod;
use world::World;

const IDLE: Duration = Duration::from_secs(2);
const HOUR: Duration = Duration::from_secs(3600);
/// A page's ticks are 100 ms apart: four times the idle limit.
const TICKS: u64 = 80;
/// Time limit for steps that take almost no time on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_guard_without_traffic_ends_its_session_for_idleness() {
    let world = World::new().await;
    let session = world
        .spawn(
            SessionOptions::new()
                .idle_ttl(Duration::from_millis(500))
                .max_runtime(HOUR),
        )
        .await;
    let pod = Pod::start(&session.info().await.unwrap(), "*").await;
    world.guard_is_at(pod.guard);
    assert_eq!(
        world.end_of(&session).await,
        Reason::Limit {
            limit: Limit::IdleTtl
        }
    );
    assert!(session.info().await.unwrap().auth.is_none());
}

#[tokio::test]
async fn a_machine_keeps_its_permit_while_its_atlas_lives_and_loses_it_when_none_does() {
    let world = World::new().await;
    let session = world
        .spawn(SessionOptions::new().idle_ttl(HOUR).max_runtime(HOUR))
        .await;
    let pod = Pod::start(&session.await_ready(PATIENCE).await.unwrap(), "*").await;
    world.guard_is_at(pod.guard);
    // Three times the permit's lifetime without a renewal.
    assert!(
        tokio::time::timeout(Duration::from_secs(6), pod.permit.lapsed())
            .await
            .is_err(),
        "nobody renewed it"
    );
    world.hand_over().await;
    assert_eq!(world.live(), 1);
    assert!(
        tokio::time::timeout(PATIENCE, pod.permit.lapsed())
            .await
            .is_ok(),
        "the dead renew it"
    );
}

#[tokio::test]
async fn an_atlas_revokes_a_grant_and_the_pages_credential_does_not() {
    let world = World::new().await;
    let session = world
        .spawn(SessionOptions::new().idle_ttl(HOUR).max_runtime(HOUR))
        .await;
    let info = session.await_ready(PATIENCE).await.unwrap();
    let pod = Pod::start(&info, "*").await;
    world.guard_is_at(pod.guard);
    let credential = info.auth.unwrap();
    let key = GrantKey::new(credential.secret()).unwrap();
    let mint = |scope| key.mint(scope, SystemClock.now(), HOUR, &SystemEntropy::new());
    let (grant, token) = mint(Scope::new(Access::Read, "/ws").unwrap());
    let target = format!("/ws?atlas_grant={}", token.expose());
    assert_eq!(pod.upgrade(&target).await, 101);
    let (_, forged) = mint(Scope::control(Access::All));
    assert_eq!(pod.control("permit", forged.expose()).await, 401);
    assert_eq!(
        pod.control("permit", credential.secret().expose()).await,
        401
    );
    let control = credential.control_secret().unwrap();
    assert_eq!(pod.control("permit", control.expose()).await, 200);
    world.revoke(&session, grant.id()).await;
    assert_eq!(pod.upgrade(&target).await, 401);
}

#[tokio::test]
async fn a_guard_that_cannot_be_read_ends_nothing_but_the_longest_runtime_does() {
    let world = World::new().await;
    let limits = SessionOptions::new()
        .idle_ttl(Duration::from_secs(1))
        .max_runtime(Duration::from_secs(6));
    let session = world.spawn(limits).await;
    assert_eq!(
        world.end_of(&session).await,
        Reason::Limit {
            limit: Limit::MaxRuntime
        }
    );
}

#[tokio::test]
async fn a_browser_plays_and_talks_with_its_credentials_alone_and_its_silence_ends_the_session() {
    let Some(program) = chromium::find() else {
        return;
    };
    let mut page = Page::start().await;
    let browser = Chromium::start(&program, &page.url());
    page.asked().await;

    let world = World::new().await;
    let session = world
        .spawn(SessionOptions::new().idle_ttl(IDLE).max_runtime(HOUR))
        .await;
    // A guard that cannot be read until its machine is there does not end the session.
    let info = session.await_ready(PATIENCE).await.unwrap();
    let pod = Pod::start(&info, &page.origin()).await;
    world.guard_is_at(pod.guard);
    let credential = info.auth.unwrap();
    let (now, guard) = (SystemClock.now(), pod.guard);
    let bare_media = format!("http://{guard}/media.wav");
    let media =
        signed_url::sign(Format::Atlas, &bare_media, credential.secret(), now, HOUR).unwrap();
    let key = GrantKey::new(credential.secret()).unwrap();
    let scope = Scope::new(Access::Read, "/ws").unwrap();
    let (_, grant) = key.mint(scope, now, HOUR, &SystemEntropy::new());
    let bare_socket = format!("ws://{guard}/ws");
    let socket = format!(
        "{bare_socket}?{}={}",
        atlas::auth::grant::PARAMETER,
        grant.expose()
    );
    assert_eq!(pod.upgrade("/ws").await, 401);
    assert_eq!(pod.upgrade("/ws?atlas_grant=ag1.x.y").await, 401);
    page.plan(&serde_json::json!({
        "bare_media": bare_media, "media": media, "bare_socket": bare_socket, "socket": socket,
    }));

    for told in [
        "bare-media-refused",
        "bare-status-401",
        "bare-socket-refused",
        "media-played",
        "socket-open",
    ] {
        assert_eq!(page.told().await, told);
    }
    assert_eq!(
        pod.seen(),
        ["/media.wav", "/ws"],
        "the server saw no credential, and nothing that had none"
    );

    let before = tokio::time::Instant::now();
    pod.ticks(TICKS).await;
    assert!(before.elapsed() > 3 * IDLE, "{:?}", before.elapsed());
    assert_eq!(
        session.info().await.unwrap().state,
        SessionState::Ready,
        "its traffic alone kept it"
    );

    // The socket stays open, and nothing moves on it.
    pod.hush();
    assert_eq!(page.told().await, "hushed");
    assert_eq!(
        world.end_of(&session).await,
        Reason::Limit {
            limit: Limit::IdleTtl
        }
    );
    assert_eq!(world.live(), 0);
    browser.end().await;
}
