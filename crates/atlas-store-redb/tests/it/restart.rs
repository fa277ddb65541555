//! The same sessions on a real file: what a process leaves, the next one goes on with.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AccountLimits, AccountName, Auth, ComputeRequest, Gpu, Port, Secret};
use atlas_orchestrator::store::AnyStore;
use atlas_orchestrator::{
    Cursor, Event, Orchestrator, Policy, Realm, Scope, SessionOptions, SessionState, Shutdown,
    StopOutcome, Touch,
};
use atlas_store_redb::Redb;
use atlas_testkit::mock::{CLOUD, KEY, MockCloud};
use atlas_testkit::world::{CloudSpec, World, WorldClock};

fn account() -> AccountName {
    AccountName::new("mock").unwrap()
}

fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::H100)
        .image("x/y:1")
        .port(Port::http(8000))
}

fn options() -> SessionOptions {
    SessionOptions::new().idle_ttl(Duration::from_secs(3600))
}

/// Every session's log is gapless.
fn assert_gapless(events: &[Event]) {
    let mut last = std::collections::BTreeMap::new();
    for event in events {
        let before = last.insert(event.session, event.seq).unwrap_or(0);
        assert_eq!(event.seq, before + 1, "{event:?}");
    }
}

async fn start(cloud: &MockCloud, path: &std::path::Path) -> Orchestrator {
    let limits = AccountLimits {
        visibility_bound: Duration::from_millis(300),
        call_deadline: Duration::from_millis(500),
        call_interval: Duration::from_millis(1),
        ..AccountLimits::default()
    };
    let mut policy = Policy::default();
    policy.lease = Duration::from_millis(600);
    policy.lease_renew = Duration::from_millis(100);
    policy.lease_margin = Duration::from_millis(50);
    policy.default_account.limits = Some(limits);
    Orchestrator::builder()
        .account(account(), cloud.provider())
        .store(AnyStore::new(Redb::open(path).unwrap()))
        .realm(Arc::new(
            Realm::new(&Secret::new("c29tZSByYW5kb20gbG9va2luZyB0ZXN0IHNlY3JldCE=")).unwrap(),
        ))
        .policy(policy)
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_session_survives_its_process_on_a_redb_file() {
    let world = World::new(1, WorldClock::following(60.0)).with_cloud(CloudSpec::plain(CLOUD));
    world.add_key(CLOUD, KEY, "me");
    let cloud = MockCloud::in_world(world);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let atlas = start(&cloud, &path).await;
    let session = atlas
        .spawn(request().auth(Auth::Bearer), options().user("u42"))
        .await
        .unwrap();
    let id = session.id();
    let token = session
        .info()
        .await
        .unwrap()
        .auth
        .unwrap()
        .secret()
        .expose()
        .to_owned();
    assert_eq!(session.touch(), Touch::Recorded);
    let report = atlas.shutdown(Shutdown::Handover).await.unwrap();
    assert_eq!((report.handed_over, report.flushed), (1, true));
    drop((session, atlas));
    let bytes = std::fs::read(&path).unwrap();
    assert!(
        !bytes
            .windows(token.len())
            .any(|window| window == token.as_bytes()),
        "the token lies sealed in the file"
    );
    let atlas = start(&cloud, &path).await;
    let info = atlas
        .await_ready(id, Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(info.state, SessionState::Ready);
    assert_eq!(info.auth.unwrap().secret().expose(), token);
    atlas.stop_tracked(id).await.unwrap();
    assert_eq!(
        atlas
            .await_terminated(id, Duration::from_secs(20))
            .await
            .unwrap(),
        StopOutcome::Terminated
    );
    assert_eq!(cloud.world().ledger().clouds[CLOUD].live, 0);
    let mut log = atlas.subscribe(Scope::All, Cursor::START);
    let mut events = Vec::new();
    while let Some(delivery) = log.try_next().await.unwrap() {
        events.push(delivery.event);
    }
    assert_gapless(&events);
    atlas.shutdown(Shutdown::Handover).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_process_whose_store_was_replaced_under_it_holds_and_ends_nothing() {
    let world = World::new(4, WorldClock::following(60.0)).with_cloud(CloudSpec::plain(CLOUD));
    world.add_key(CLOUD, KEY, "me");
    let cloud = MockCloud::in_world(world);
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("a.redb"), dir.path().join("copy.redb"));
    let atlas = start(&cloud, &path).await;
    let session = atlas.spawn(request(), options()).await.unwrap();
    std::fs::copy(&path, &copy).unwrap();
    session.extend(Duration::from_secs(7200)).await.unwrap();
    std::fs::rename(&copy, &path).unwrap();
    let error = session
        .extend(Duration::from_secs(10_800))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
    assert!(atlas.hold().is_some());
    assert_eq!(cloud.world().ledger().clouds[CLOUD].live, 1);
}
