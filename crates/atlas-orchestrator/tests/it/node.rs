//! One cloud, one store, and nodes over them that can be crashed.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use atlas_core::{
    AccountLimits, AccountName, ComputeRequest, Gpu, LAUNCH_KEY_TAG, Port, Secret, SeededEntropy,
    TrackedKey,
};
use atlas_orchestrator::store::AnyStore;
use atlas_orchestrator::store::Memory;
use atlas_orchestrator::{
    Cursor, Event, Orchestrator, Policy, Realm, Scope, SessionId, SessionOptions, SessionState,
    Spawner, StopOutcome, Task,
};
use atlas_testkit::mock::{CLOUD, MockCloud};
use atlas_testkit::world::{CloudLedger, Fault, FaultKind, MachineSpec};

use crate::weather::{Weather, behind};

pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A node's tasks: while it is pulled none is polled, and after a crash it stays so. Who would be
/// waits to be woken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plug(Arc<Mutex<Option<Vec<Waker>>>>);

impl Plug {
    fn pull(&self) {
        self.0.lock().unwrap().get_or_insert_default();
    }

    fn put_back(&self) {
        for waker in self.0.lock().unwrap().take().unwrap_or_default() {
            waker.wake();
        }
    }
}

struct Plugged {
    plug: Plug,
    task: Task,
}

impl Future for Plugged {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waiting) = &mut *self.plug.0.lock().unwrap() {
            waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        self.task.as_mut().poll(cx)
    }
}

impl Spawner for Plug {
    fn spawn(&self, _name: &'static str, task: Task) {
        drop(tokio::spawn(Plugged {
            plug: self.clone(),
            task,
        }));
    }
}

/// The world of a test.
pub(crate) struct Bench {
    pub(crate) cloud: MockCloud,
    pub(crate) store: Memory,
    pub(crate) realm: Arc<Realm>,
    pub(crate) policy: Policy,
    pub(crate) limits: AccountLimits,
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
}

/// A running node.
pub(crate) struct Node {
    pub(crate) atlas: Orchestrator,
    plug: Plug,
}

impl Node {
    /// Nothing of it is ever polled again.
    pub(crate) fn crash(self) {
        self.plug.pull();
    }

    /// Nothing of it is polled until it resumes.
    pub(crate) fn pause(&self) {
        self.plug.pull();
    }

    pub(crate) fn resume(&self) {
        self.plug.put_back();
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        let mut log = self.atlas.subscribe(Scope::All, Cursor::START);
        let mut events = Vec::new();
        while let Some(delivery) = log.try_next().await.unwrap() {
            events.push(delivery.event);
        }
        events
    }
}

impl Bench {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_limits(
            seed,
            AccountLimits {
                visibility_bound: BOUND,
                call_deadline: Duration::from_secs(10),
                call_interval: Duration::from_millis(10),
                burst: 10,
                concurrency: 8,
            },
        )
    }

    /// A cloud with these bounds and this pace.
    pub(crate) fn with_limits(seed: u64, limits: AccountLimits) -> Self {
        let cloud = MockCloud::new(seed).limits(limits);
        let clock = Arc::new(cloud.world().clock().clone());
        let store = Memory::new(clock, &SeededEntropy::new(seed)).durable(true);
        let secret = Secret::new("c29tZSByYW5kb20gbG9va2luZyB0ZXN0IHNlY3JldCE=");
        let policy = Policy::default();
        Self {
            cloud,
            store,
            realm: Arc::new(Realm::new(&secret).unwrap()),
            policy,
            limits,
            seed,
            weather: Weather::default(),
        }
    }

    /// Room for as many machines as anybody wants.
    pub(crate) fn stock_up(&self) {
        let world = self.cloud.world();
        let spec = world.cloud(CLOUD).unwrap();
        for shape in &spec.shapes {
            for tier in shape.tiers.keys() {
                for region in &spec.regions {
                    world.set_stock(CLOUD, &shape.native, tier, &region.id, 10_000);
                }
            }
        }
    }

    /// A node whose machines' names begin so.
    pub(crate) async fn with_prefix(&self, prefix: &str) -> atlas_core::Result<Orchestrator> {
        let builder = Orchestrator::builder()
            .account(account(), self.cloud.provider())
            .realm(self.realm.clone());
        builder
            .store(AnyStore::new(self.store.clone()))
            .name_prefix(prefix)
            .node("prefixed")
            .start()
            .await
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        self.node_over(name, AnyStore::new(self.store.clone()))
            .await
    }

    /// The same, where it may be refused.
    pub(crate) async fn try_node(&self, name: &str) -> atlas_core::Result<Node> {
        self.try_node_over(name, AnyStore::new(self.store.clone()))
            .await
    }

    /// A node that sees the store through another one.
    pub(crate) async fn node_over(&self, name: &str, store: AnyStore) -> Node {
        self.try_node_over(name, store).await.unwrap()
    }

    async fn try_node_over(&self, name: &str, store: AnyStore) -> atlas_core::Result<Node> {
        let plug = Plug::default();
        let atlas = Orchestrator::builder()
            .account(
                account(),
                behind(self.cloud.provider(), self.weather.clone()),
            )
            .store(store)
            .realm(self.realm.clone())
            .entropy(Arc::new(SeededEntropy::new(self.seed ^ name.len() as u64)))
            .spawner(Arc::new(plug.clone()))
            .policy(self.policy.clone())
            .node(name)
            .start()
            .await?;
        Ok(Node { atlas, plug })
    }

    pub(crate) fn fault(&self, operation: &str, kind: FaultKind) {
        self.cloud
            .world()
            .inject([Fault::new(CLOUD, operation, kind)]);
    }

    /// Another user makes this machine on our account.
    pub(crate) fn plant(&self, spec: MachineSpec) {
        let me = self.cloud.world().account("me");
        self.cloud.world().plant_machine(CLOUD, &me, spec).unwrap();
    }

    pub(crate) fn ledger(&self) -> CloudLedger {
        self.cloud.world().ledger().clouds[CLOUD].clone()
    }
}

/// A machine that carries this key in every place.
pub(crate) fn carrying(key: TrackedKey) -> MachineSpec {
    let mut spec = MachineSpec::gpu("gpu-a", 1).named(format!("atlas-x-{key}"));
    spec.tags = BTreeMap::from([(LAUNCH_KEY_TAG.to_owned(), key.to_string())]);
    spec
}

/// A session that had a machine and ended, and the key that its machine carried.
pub(crate) async fn ended(bench: &Bench, node: &Node) -> (SessionId, TrackedKey) {
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(300).await;
    let key = bench.ledger().machines[0].launch_key.unwrap();
    session.stop().await.unwrap();
    settle(node, session.id()).await;
    (session.id(), key)
}

pub(crate) fn account() -> AccountName {
    AccountName::new("mock").unwrap()
}

pub(crate) fn request() -> ComputeRequest {
    ComputeRequest::gpu(Gpu::H100)
        .image("x/y:1")
        .port(Port::http(8000))
}

pub(crate) fn options() -> SessionOptions {
    SessionOptions::new().idle_ttl(Duration::from_secs(3600))
}

pub(crate) async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Waits for the proof, and demands it within what the protocol promises.
pub(crate) async fn settle(node: &Node, id: SessionId) {
    let outcome = node
        .atlas
        .await_terminated(id, Duration::from_secs(900))
        .await
        .unwrap();
    assert_eq!(
        outcome,
        StopOutcome::Terminated,
        "{:?}",
        node.atlas.info(id).await.unwrap()
    );
    assert_eq!(
        node.atlas.info(id).await.unwrap().state,
        SessionState::Terminated
    );
}

/// Every session's log is gapless.
pub(crate) fn assert_gapless(events: &[Event]) {
    let mut last = std::collections::BTreeMap::new();
    for event in events {
        let before = last.insert(event.session, event.seq).unwrap_or(0);
        assert_eq!(event.seq, before + 1, "{event:?}");
    }
}
