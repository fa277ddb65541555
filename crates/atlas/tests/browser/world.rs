//! An atlas over the mock cloud whose machines' guards are all at one address.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atlas::testkit::mock::MockCloud;
use atlas::{
    AccountLimits, AccountName, Atlas, Auth, ComputeRequest, Gpu, GuardActivity, Policy, Port,
    Reason, Redb, Session, SessionOptions, Shutdown,
};

use crate::PATIENCE;

pub(crate) struct World {
    atlas: Atlas,
    /// Where the store is, which a handover needs.
    _dir: tempfile::TempDir,
    cloud: MockCloud,
    guard: Arc<OnceLock<SocketAddr>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let limits = AccountLimits {
            visibility_bound: Duration::from_millis(50),
            call_deadline: Duration::from_secs(5),
            call_interval: Duration::from_millis(1),
            burst: 100,
            concurrency: 16,
        };
        let mut policy = Policy::default();
        policy.tick = Duration::from_millis(50);
        policy.flush = Duration::from_millis(50);
        let cloud = MockCloud::new(7).limits(limits);
        let guard = Arc::<OnceLock<SocketAddr>>::default();
        let known = Arc::clone(&guard);
        let guards = GuardActivity::new()
            .address(move |_| known.get().map(|address| format!("http://{address}")));
        let guards = guards.renew_permits(Duration::from_millis(200));
        let name = AccountName::new("mock").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let builder = Atlas::builder()
            .account(name, cloud.provider())
            .store(Redb::open(dir.path().join("atlas.redb")).unwrap())
            .state_dir(dir.path().join("state"))
            .policy(policy)
            .guard_activity(guards);
        Self {
            atlas: builder.build().await.unwrap(),
            _dir: dir,
            cloud,
            guard,
        }
    }

    /// Sets the address of the guards. Until then no guard can be read.
    pub(crate) fn guard_is_at(&self, address: SocketAddr) {
        self.guard.set(address).expect("it is said once");
    }

    pub(crate) async fn spawn(&self, options: SessionOptions) -> Session {
        let request = ComputeRequest::gpu(Gpu::H100)
            .image("x/y:1")
            .port(Port::http(8000))
            .auth(Auth::SignedUrl);
        self.atlas.spawn(request, options).await.unwrap()
    }

    /// Waits until the session's machine is proved absent, and returns the reason for its end.
    pub(crate) async fn end_of(&self, session: &Session) -> Reason {
        self.atlas
            .orchestrator()
            .await_terminated(session.id(), PATIENCE)
            .await
            .unwrap();
        session.info().await.unwrap().reason.unwrap()
    }

    pub(crate) async fn revoke(&self, session: &Session, grant: atlas::auth::grant::GrantId) {
        self.atlas.revoke_grant(session.id(), grant).await.unwrap();
    }

    /// Shuts the atlas down without ending any machine.
    pub(crate) async fn hand_over(&self) {
        self.atlas.shutdown(Shutdown::Handover).await.unwrap();
    }

    pub(crate) fn live(&self) -> u64 {
        self.cloud.world().ledger().clouds["mock"].live
    }
}
