//! `Atlas` as a program holds it.

use std::time::Duration;

use atlas::testkit::mock::MockCloud;
use atlas::{
    AccountLimits, AccountName, Atlas, Auth, CallContext, ComputeRequest, Cursor, ErrorKind,
    EventKind, Gpu, LaunchKey, ListFilter, Memory, Policy, Port, Redb, RedbOptions, Secret,
    Session, SessionOptions, SessionState, Shutdown, Subscription,
};

pub(crate) fn name(text: &str) -> AccountName {
    AccountName::new(text).expect("a plain name")
}

/// A mock cloud that is never late, and a policy as hurried as it is.
pub(crate) fn quick() -> (MockCloud, Policy) {
    let limits = AccountLimits {
        visibility_bound: Duration::from_millis(50),
        call_deadline: Duration::from_millis(500),
        call_interval: Duration::from_millis(1),
        burst: 100,
        concurrency: 16,
    };
    let mut policy = Policy::default();
    policy.lease = Duration::from_secs(1);
    policy.lease_renew = Duration::from_millis(250);
    policy.lease_margin = Duration::from_millis(100);
    policy.tick = Duration::from_millis(50);
    policy.flush = Duration::from_millis(50);
    (MockCloud::new(7).limits(limits), policy)
}

pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::H100)
        .image("x/y:1")
        .port(Port::http(8000))
        .auth(Auth::Bearer)
}

fn is_handle<T: Clone + Send + Sync + 'static>() {}
fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn handles_can_be_shared_and_futures_sent() {
    is_handle::<Atlas>();
    is_handle::<Session>();
    is_send::<Option<Subscription>>(None);
    let (cloud, policy) = quick();
    let atlas = is_send(
        Atlas::builder()
            .account(name("mock"), cloud.provider())
            .policy(policy)
            .build(),
    )
    .await
    .unwrap();
    let session = is_send(atlas.spawn(request(), SessionOptions::new()))
        .await
        .unwrap();
    is_send(session.info()).await.unwrap();
    is_send(session.stop()).await.unwrap();
    is_send(atlas.shutdown(Shutdown::TerminateAll {
        wait: Duration::from_secs(20),
    }))
    .await
    .unwrap();
}

#[tokio::test]
async fn a_session_is_spawned_touched_stopped_and_proved_to_be_gone() {
    let (cloud, policy) = quick();
    let dir = tempfile::tempdir().unwrap();
    let atlas = Atlas::builder()
        .account(name("mock"), cloud.provider())
        .default_provider("mock")
        .store(Redb::open(dir.path().join("atlas.redb")).unwrap())
        .policy(policy)
        .idle_ttl(Duration::from_secs(77))
        .build()
        .await
        .unwrap();
    let session = atlas
        .spawn(request(), SessionOptions::new().user("u42"))
        .await
        .unwrap();
    let info = session.info().await.unwrap();
    assert_eq!(
        (info.options.idle_ttl, info.options.user_id.as_deref()),
        (Some(Duration::from_secs(77)), Some("u42"))
    );
    assert!(
        info.auth
            .unwrap()
            .header()
            .unwrap()
            .expose()
            .starts_with("Bearer ")
    );
    assert_eq!(cloud.world().ledger().clouds["mock"].live, 1);

    let mut events = session.events(Cursor::START);
    assert!(matches!(
        events.next().await.unwrap().unwrap().event.kind,
        EventKind::Created { .. }
    ));
    session.stop().await.unwrap();
    atlas
        .orchestrator()
        .await_terminated(session.id(), Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(
        session.info().await.unwrap().state,
        SessionState::Terminated
    );
    assert_eq!(cloud.world().ledger().clouds["mock"].live, 0);
    atlas.shutdown(Shutdown::Handover).await.unwrap();
}

#[tokio::test]
async fn the_next_process_finds_what_the_last_one_handed_over() {
    let (cloud, policy) = quick();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("atlas.redb");
    let begin = async || {
        let store = RedbOptions::new().open_async(&path).await.unwrap();
        Atlas::builder()
            .account(name("mock"), cloud.provider())
            .store(store)
            .policy(policy.clone())
            .build()
            .await
    };
    let first = begin().await.unwrap();
    let id = first
        .spawn(request(), SessionOptions::new())
        .await
        .unwrap()
        .id();
    let token = first
        .orchestrator()
        .info(id)
        .await
        .unwrap()
        .auth
        .unwrap()
        .secret()
        .expose()
        .to_owned();
    let report = first.shutdown(Shutdown::Handover).await.unwrap();
    assert_eq!((report.handed_over, report.flushed), (1, true));
    drop(first);

    let second = begin().await.unwrap();
    let info = second.session(id).await.unwrap().info().await.unwrap();
    assert_eq!(
        info.auth.unwrap().secret().expose(),
        token,
        "a restart changed the token"
    );
    assert_eq!(cloud.world().ledger().clouds["mock"].live, 1);
    second
        .shutdown(Shutdown::TerminateAll {
            wait: Duration::from_secs(20),
        })
        .await
        .unwrap();
    assert_eq!(cloud.world().ledger().clouds["mock"].live, 0);
}

#[cfg(unix)]
#[tokio::test]
async fn the_realms_secret_is_made_beside_the_store_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("atlas.redb");
    let (cloud, policy) = quick();
    let atlas = Atlas::builder()
        .account(name("mock"), cloud.provider())
        .store(Redb::open(&path).unwrap())
        .policy(policy.clone())
        .build()
        .await
        .unwrap();
    atlas.shutdown(Shutdown::Handover).await.unwrap();
    drop(atlas);
    let file = dir.path().join("atlas.redb.realm");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let other = Atlas::builder()
        .account(name("mock"), cloud.provider())
        .store(RedbOptions::new().open_async(&path).await.unwrap())
        .policy(policy)
        .realm_secret(Secret::new("0f9kXq27LmZt5cRvB1yHdWn8GsEoPa3Jtt"))
        .build()
        .await;
    assert!(
        other.is_err(),
        "a store opened under another realm's secret"
    );
}

#[tokio::test]
async fn contradictions_are_found_before_anything_starts() {
    let (cloud, _) = quick();
    let twice = Atlas::builder()
        .account(name("a"), cloud.provider())
        .account(name("a"), cloud.provider())
        .build()
        .await;
    assert_eq!(twice.unwrap_err().field(), Some("provider"));
    let nobody = Atlas::builder()
        .account(name("a"), cloud.provider())
        .default_provider("b")
        .build()
        .await;
    assert_eq!(nobody.unwrap_err().field(), Some("default_provider"));
    let odd = Atlas::builder()
        .account(name("a"), cloud.provider())
        .default_provider("B!")
        .build()
        .await;
    assert_eq!(odd.unwrap_err().kind(), ErrorKind::Validation);
}

#[tokio::test]
async fn of_two_accounts_without_a_default_one_must_be_named() {
    let (first, policy) = quick();
    let (second, _) = quick();
    let atlas = Atlas::builder()
        .account(name("one"), first.provider())
        .account(name("two"), second.provider())
        .policy(policy)
        .build()
        .await
        .unwrap();
    assert_eq!(
        atlas
            .spawn(request(), SessionOptions::new())
            .await
            .unwrap_err()
            .field(),
        Some("provider")
    );
    atlas
        .spawn(request(), SessionOptions::new().account(name("two")))
        .await
        .unwrap();
    let live = |cloud: &MockCloud| cloud.world().ledger().clouds["mock"].live;
    assert_eq!((live(&first), live(&second)), (0, 1));
    atlas
        .shutdown(Shutdown::TerminateAll {
            wait: Duration::from_secs(20),
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_untracked_call_is_nobodys_but_the_callers() {
    let (cloud, policy) = quick();
    let atlas = Atlas::builder()
        .account(name("mock"), cloud.provider())
        .store(Memory::new(
            std::sync::Arc::new(atlas::SystemClock),
            &atlas::SystemEntropy::new(),
        ))
        .policy(policy)
        .build()
        .await
        .unwrap();
    let provider = atlas.provider("mock").unwrap();
    let cx = CallContext::new();
    let made = provider
        .spawn_compute(&cx, &LaunchKey::untracked(), &request().auth(Auth::None))
        .await
        .unwrap();
    assert!(made.keys.key().is_none());
    assert!(atlas.orchestrator().list_ids().await.unwrap().is_empty());
    atlas
        .shutdown(Shutdown::TerminateAll {
            wait: Duration::from_secs(20),
        })
        .await
        .unwrap();
    assert_eq!(
        provider
            .list_compute(&cx, &ListFilter::all())
            .await
            .unwrap()
            .computes
            .len(),
        1
    );
    assert_eq!(atlas.provider("fly").unwrap_err().field(), Some("provider"));
}

#[cfg(unix)]
#[tokio::test]
async fn an_atlas_that_cannot_be_built_lets_go_of_its_store() {
    let (cloud, policy) = quick();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let build = async |store| {
        Atlas::builder()
            .account(name("mock"), cloud.provider())
            .store(store)
            .state_dir(dir.path())
            .policy(policy.clone())
            .build()
            .await
    };
    // Something that is no socket is in the owner's socket's place.
    let taken = dir.path().join("a.redb.sock");
    std::fs::create_dir(&taken).unwrap();
    let error = build(Redb::open(&path).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("a.redb.sock"), "{error}");
    std::fs::remove_dir(&taken).unwrap();
    let at_once = RedbOptions::new().wait(Duration::from_secs(2));
    let atlas = build(at_once.open_async(&path).await.unwrap())
        .await
        .unwrap();
    atlas.shutdown(Shutdown::Handover).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_was_restored_with_everything_in_it_makes_the_next_process_hold() {
    let (cloud, policy) = quick();
    let dir = tempfile::tempdir().unwrap();
    let (data, saved) = (dir.path().join("data"), dir.path().join("saved"));
    std::fs::create_dir(&data).unwrap();
    let begin = async || {
        let options = RedbOptions::new().wait(Duration::from_secs(5));
        Atlas::builder()
            .account(name("mock"), cloud.provider())
            .store(options.open_async(data.join("a.redb")).await.unwrap())
            .state_dir(dir.path().join("state"))
            .policy(policy.clone())
            .build()
            .await
            .unwrap()
    };
    let first = begin().await;
    let id = first
        .spawn(request(), SessionOptions::new())
        .await
        .unwrap()
        .id();
    first.shutdown(Shutdown::Handover).await.unwrap();
    drop(first);
    std::fs::create_dir(&saved).unwrap();
    for entry in std::fs::read_dir(&data).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), saved.join(entry.file_name())).unwrap();
    }
    let second = begin().await;
    assert_eq!(second.orchestrator().hold(), None);
    second
        .orchestrator()
        .extend(id, Duration::from_secs(7200))
        .await
        .unwrap();
    second.shutdown(Shutdown::Handover).await.unwrap();
    drop(second);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&saved, &data).unwrap();
    let third = begin().await;
    let hold = third.orchestrator().hold();
    assert!(hold.is_some_and(|why| why.contains("less in it")));
    third.orchestrator().accept_store().await.unwrap();
    assert_eq!(third.orchestrator().hold(), None);
    third.shutdown(Shutdown::Handover).await.unwrap();
    drop(third);
    let fourth = begin().await;
    assert_eq!(
        fourth.orchestrator().hold(),
        None,
        "the accept was remembered"
    );
    let wait = Duration::from_secs(20);
    fourth
        .shutdown(Shutdown::TerminateAll { wait })
        .await
        .unwrap();
}

#[tokio::test]
async fn no_secret_is_made_for_a_store_that_has_lost_its_own() {
    let (cloud, policy) = quick();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let begin = async || {
        let options = RedbOptions::new().wait(Duration::from_secs(5));
        Atlas::builder()
            .account(name("mock"), cloud.provider())
            .store(options.open_async(&path).await.unwrap())
            .state_dir(dir.path())
            .policy(policy.clone())
            .build()
            .await
    };
    let atlas = begin().await.unwrap();
    atlas.shutdown(Shutdown::Handover).await.unwrap();
    drop(atlas);
    let (secret, aside) = (dir.path().join("a.redb.realm"), dir.path().join("aside"));
    std::fs::rename(&secret, &aside).unwrap();
    let error = begin().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("a.redb.realm"), "{error}");
    assert!(!secret.exists(), "another secret is in its place");
    std::fs::rename(&aside, &secret).unwrap();
    begin()
        .await
        .unwrap()
        .shutdown(Shutdown::Handover)
        .await
        .unwrap();
}
