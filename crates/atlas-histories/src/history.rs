//! Runs one history: a deployment over a world, with everything in its plan, until it is quiescent,
//! on virtual time; then judges it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{ComputeRequest, RealmId, Secret, Timestamp, TrackedKey, Usd};
use atlas_orchestrator::realm::{MemoryLedger, Realm};
use atlas_orchestrator::store::{Memory, MemorySnapshot};
use atlas_orchestrator::{
    Cursor, OnFailure, Scope, SessionFilter, SessionKind, SessionOptions, Shutdown, StopOutcome,
    Touch,
};
use atlas_testkit::world::{Arrival, FaultKind, Lag, Machine, MachineSpec, World, WorldClock};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::callback::Reporters;
use crate::checker::{self, Evidence, Present};
use crate::clock::HostClock;
use crate::cloud::Cloud;
use crate::dice::{self, Dice};
use crate::facts::{Facts, Seen};
use crate::node::{API_KEY, Deployment, Node};
use crate::plan::{Outside, Plan, Step, Under, Whose, Wish};
use crate::process::{Places, Remains};
use crate::report::{OnCloud, Outcome};
use crate::rules::Rules;
use crate::store::StoreWeather;
use crate::watchdog::{ENDLESS, Pulse};
use crate::way::Network;

/// The name for a machine of another user's fleet in a judgement.
pub(crate) const FLEET: &str = "fleet";
/// A secret in every session's environment: if it appears anywhere, a secret leaked.
pub(crate) const CANARY: &str = "zzCANARYzz";
/// Another account of ours, and its key, for a deploy with the wrong key.
const OTHER_ACCOUNT: &str = "our-other-one";
const OTHER_KEY: &str = "history-key-of-the-other-account";
/// After this much quiet time, every promise about the present must hold.
const QUIET: Duration = Duration::from_secs(15 * 60);
/// How often the processes are observed.
const OBSERVED: Duration = Duration::from_secs(5);
/// How often an operator looks whether a store is to be accepted.
const LOOK: Duration = Duration::from_secs(300);
/// How often an operator has to accept a store at most before all promises must hold.
const ACCEPTS: u32 = 4;
/// After this much more time, every session that was asked to end must have ended.
const ENDING: Duration = Duration::from_secs(90 * 60);

/// Runs a plan to its end with this policy.
pub(crate) fn run(plan: &Plan, rules: &Rules, pulse: &Pulse) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime without I/O can always be built");
    // The world's clock must start inside the paused runtime, or the real one leaks into it.
    let remains = Remains::default();
    let outcome = runtime.block_on(async {
        let history = History::new(plan, rules, pulse, &remains);
        match timeout(ENDLESS, history.play()).await {
            Ok(outcome) => outcome,
            Err(_) => pulse.hung(plan, "the history never came to its end"),
        }
    });
    // Crashed processes' tasks are still there. They are dropped without being run.
    remains.let_go();
    drop(runtime);
    outcome
}

struct History {
    plan: Plan,
    deployment: Deployment,
    nodes: Vec<Node>,
    lives: u64,
    facts: Facts,
    dice: Dice,
    began: Instant,
    snapshots: Vec<(Timestamp, MemorySnapshot)>,
    planted: BTreeMap<String, &'static str>,
    readers: usize,
    reporters: Reporters,
    pulse: Pulse,
}

impl History {
    fn new(plan: &Plan, rules: &Rules, pulse: &Pulse, remains: &Remains) -> Self {
        let seed = plan.seed;
        let mut world = World::new(seed, WorldClock::following(1.0));
        for cloud in &plan.clouds {
            world = world.with_cloud(cloud.spec());
            world.add_key(cloud.as_str(), API_KEY, cloud.account());
            world.add_key(cloud.as_str(), OTHER_KEY, OTHER_ACCOUNT);
            world.set_lag(cloud.as_str(), Lag::within(cloud.lag()));
        }
        let entropy = dice::entropy(seed, "store");
        let store_clock = HostClock::new(world.clone(), plan.counts_sleep);
        let store = Memory::new(Arc::new(store_clock.clone()), &entropy).durable(true);
        let facts = Facts::default();
        pulse.follow(&facts);
        let deployment = Deployment {
            seed,
            nodes: plan.nodes,
            counts_sleep: plan.counts_sleep,
            store_clock,
            facts: facts.clone(),
            clouds: plan
                .clouds
                .iter()
                .map(|cloud| (*cloud, cloud.api(&world, plan.page_size)))
                .collect(),
            store,
            ledger: MemoryLedger::default(),
            secret: Secret::new(format!(
                "realm-secret-{seed:020}-0123456789abcdefghijklmnopqrstuvwxyz"
            )),
            api_key: Arc::new(Mutex::new(API_KEY)),
            rules: rules.clone(),
            last_intent: Arc::default(),
            places: Places::new(
                seed,
                plan.crashes,
                plan.stalls + if plan.nodes > 1 { rules.more_stalls } else { 0 },
            ),
            remains: remains.clone(),
            network: Network::new(seed, plan.lost_deletes_percent),
            weather: StoreWeather::new(seed, plan.store_failures_per_thousand),
            deletions: Arc::new(Mutex::new(Vec::new())),
            world,
        };
        Self {
            plan: plan.clone(),
            deployment,
            nodes: Vec::new(),
            lives: 0,
            facts,
            dice: Dice::new(seed, "history"),
            began: Instant::now(),
            snapshots: Vec::new(),
            planted: BTreeMap::new(),
            readers: 0,
            reporters: Reporters::new(seed),
            pulse: pulse.clone(),
        }
    }

    fn world(&self) -> &World {
        &self.deployment.world
    }

    fn now(&self) -> Timestamp {
        self.world().now()
    }

    /// Every machine there ever was, on any cloud.
    fn machines(&self) -> Vec<Machine> {
        self.plan
            .clouds
            .iter()
            .flat_map(|cloud| self.world().all(cloud.as_str()))
            .collect()
    }

    async fn play(mut self) -> Outcome {
        for index in 0..self.plan.nodes {
            let node = self.boot(index);
            self.nodes.push(node);
        }
        self.world().plan_faults(self.plan.weather.clone());
        self.keep_snapshot();
        for (at, step) in self.plan.steps.clone() {
            self.wait_until(self.began + at).await;
            self.take(step).await;
            if self.snapshots.len() < 64 {
                self.keep_snapshot();
            }
        }
        self.wait_until(self.began + Duration::from_secs(600).max(Instant::now() - self.began))
            .await;
        self.calm_down().await;
        let sessions = self.settle(QUIET).await;
        let live = self
            .machines()
            .into_iter()
            .filter(Machine::is_live)
            .map(|machine| machine.id)
            .collect();
        let present = Present {
            at: Some(self.now()),
            sessions,
            live,
        };
        self.end_all().await;
        let end = self.settle(ENDING).await;
        self.judge(present, end).await
    }

    fn keep_snapshot(&mut self) {
        let now = self.now();
        self.snapshots.push((now, self.deployment.store.snapshot()));
    }

    fn boot(&mut self, index: usize) -> Node {
        self.lives += 1;
        Node::boot(&self.deployment, &format!("node-{index}"), self.lives)
    }

    /// Lets time pass, and restarts crashed processes like a supervisor.
    async fn wait_until(&mut self, until: Instant) {
        loop {
            self.supervise().await;
            self.note_holds();
            self.report();
            let next = (Instant::now() + OBSERVED).min(until);
            sleep_until(next).await;
            self.pulse.beat();
            if Instant::now() >= until {
                return;
            }
        }
    }

    /// Notes from when until when a node holds because its store may have been rolled back.
    fn note_holds(&self) {
        let now = self.now();
        let mut nodes = self.nodes.iter().filter_map(Node::orchestrator);
        let holds = nodes.any(|orchestrator| orchestrator.hold().is_some());
        let held = &mut self.facts.seen().held;
        match held.last_mut() {
            Some((_, until @ None)) if !holds => *until = Some(now),
            Some((_, None)) => {}
            _ if holds => held.push((now.saturating_sub(OBSERVED), None)),
            _ => {}
        }
    }

    /// Machines of ours that can report do.
    fn report(&self) {
        let machines: Vec<Machine> = self
            .machines()
            .into_iter()
            .filter(|machine| !self.planted.contains_key(&machine.id))
            .collect();
        self.reporters.speak(
            &machines,
            &self.nodes,
            &self.facts,
            self.world(),
            &self.deployment.places,
        );
    }

    async fn supervise(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].process.is_alive() {
                continue;
            }
            {
                let now = self.now();
                let mut seen = self.facts.seen();
                seen.crashes += 1;
                seen.last_fault = Some(now);
                seen.story
                    .push((now, format!("node-{index} crashed, and is started again")));
            }
            if self.nodes.len() == 1
                && let Some(before) = self
                    .deployment
                    .last_intent
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take()
            {
                self.deployment.store.restore(&before);
            }
            // A supervisor takes a moment; sometimes long enough for another node to take over.
            sleep(self.dice.seconds(0..4)).await;
            self.nodes[index] = self.boot(index);
        }
    }

    async fn take(&mut self, step: Step) {
        let now = self.now();
        match step {
            Step::Spawn(wish) => self.spawn(wish, None),
            Step::Task(wish, command) => self.spawn(wish, Some(command)),
            Step::Touch(user) => self.touch(user),
            Step::Stop(user) => self.stop(user),
            Step::Crash(index) => {
                self.facts.disaster(now, "crash");
                self.deployment.places.killed_at_rest();
                self.nodes[index].process.crash();
            }
            Step::Pause(index, span) => {
                self.facts.disaster(now, "pause");
                let until = now.saturating_add(span);
                self.facts.seen().away.push((now, until));
                let process = self.nodes[index].process.clone();
                process.pause();
                drop(tokio::spawn(async move {
                    sleep(span).await;
                    process.resume();
                }));
            }
            Step::WrongClock(Whose::Store, error) => {
                self.facts.disaster(now, "clock-step");
                self.facts
                    .tell(now, format!("the store's clock is wrong by {error} ms"));
                self.store_clock_is_wrong_by(error);
            }
            Step::WrongClock(Whose::Node(index), error) => {
                self.facts.disaster(now, "node-clock-step");
                self.nodes[index].clock.set_error_ms(error);
            }
            Step::Sleep(span) => {
                self.facts.disaster(now, "sleep");
                self.facts
                    .tell(now, format!("every host sleeps for {span:?}"));
                let until = now.saturating_add(span);
                self.facts.seen().slept.push((now, until));
                self.world().clock().sleep_through(span);
            }
            Step::Redeploy(index) => self.redeploy(index).await,
            Step::Outside(what) => self.outside(what),
            Step::Rollback(under) => self.roll_back(under),
            Step::KeyRevoked(span) => {
                self.facts.disaster(now, "revoke-key");
                let until = now.saturating_add(span);
                self.facts.seen().away.push((now, until));
                self.world().count_fault(FaultKind::RevokeKey);
                let cloud = self.some_cloud();
                self.world().revoke_key(cloud.as_str(), API_KEY);
                self.restore_key_after(cloud, span);
            }
            Step::Refuse(refusal, span) => {
                self.facts.disaster(now, refusal.name());
                self.facts
                    .tell(now, format!("the clouds refuse {refusal:?} for {span:?}"));
                self.deployment.network.refuse(refusal, span);
            }
            Step::WrongKey => {
                self.facts.disaster(now, "swap-account");
                self.world().count_fault(FaultKind::SwapAccount);
                self.deploy_with(OTHER_KEY);
            }
            Step::RightKey => self.deploy_with(API_KEY),
            Step::Accept => self.operator().await,
        }
    }

    fn store_clock_is_wrong_by(&self, error: i64) {
        let now = self.now();
        let wrong = &mut self.facts.seen().wrong_clock;
        if let Some((_, until @ None, _)) = wrong.last_mut() {
            *until = Some(now);
        }
        if error != 0 {
            wrong.push((now, None, error));
        }
        self.deployment.store_clock.set_error_ms(error);
    }

    /// A cloud of the history, drawn where there are two.
    fn some_cloud(&self) -> Cloud {
        match self.plan.clouds[..] {
            [only] => only,
            _ => *self.dice.pick(&self.plan.clouds),
        }
    }

    fn restore_key_after(&self, cloud: Cloud, span: Duration) {
        let world = self.world().clone();
        drop(tokio::spawn(async move {
            sleep(span).await;
            world.restore_key(cloud.as_str(), API_KEY);
        }));
    }

    /// Every node is started again, with this key.
    fn deploy_with(&mut self, key: &'static str) {
        let now = self.now();
        match self.facts.seen().wrong_key.last_mut() {
            Some((_, until)) if key == API_KEY && until.is_none() => *until = Some(now),
            _ => {}
        }
        if key != API_KEY {
            self.facts.seen().wrong_key.push((now, None));
        }
        *self
            .deployment
            .api_key
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = key;
        for index in 0..self.nodes.len() {
            self.nodes[index].process.crash();
            self.nodes[index] = self.boot(index);
        }
    }

    /// A node that is up, drawn.
    fn some_node(&self) -> Option<Node> {
        let up: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|node| node.orchestrator().is_some())
            .collect();
        (!up.is_empty()).then(|| (*self.dice.pick(&up)).clone())
    }

    fn spawn(&mut self, wish: Wish, command: Option<Vec<String>>) {
        let Some(node) = self.some_node() else {
            return self
                .facts
                .tell(self.now(), format!("user {} finds no node", wish.user));
        };
        let (Some(orchestrator), Some(callbacks)) = (node.orchestrator(), node.callbacks()) else {
            return;
        };
        let (facts, world) = (self.facts.clone(), self.world().clone());
        *facts.seen().spawns.entry(wish.cloud.as_str()).or_default() += 1;
        let user = wish.user;
        facts.tell(
            world.now(),
            format!(
                "user {user} asks {} for {wish:?}, command {command:?}",
                node.name
            ),
        );
        self.readers += 1;
        let reader = self.readers;
        drop(tokio::spawn(node.process.task(async move {
            let request = request(&wish, command.is_some());
            let options = options(&wish);
            let (request, kind) = match command {
                Some(command) => (request.command(command), SessionKind::Task),
                None => (request, SessionKind::Interactive),
            };
            let launched = if wish.reports {
                callbacks.launch(request, options, kind).await
            } else {
                orchestrator.launch(request, options, kind).await
            };
            let id = match launched {
                Ok(id) => id,
                Err(error) => {
                    return facts.tell(world.now(), format!("user {user} got no session: {error}"));
                }
            };
            facts.seen().sessions.insert(user, id);
            facts.tell(world.now(), format!("user {user} has session {id}"));
            let mut events = orchestrator.subscribe(Scope::Session(id), Cursor::START);
            loop {
                match events.next().await {
                    Ok(Some(delivery)) => facts
                        .seen()
                        .read
                        .entry(reader)
                        .or_default()
                        .push(delivery.event),
                    Ok(None) => return,
                    // The store did not answer: a reader goes on from its cursor.
                    Err(_) => sleep(Duration::from_secs(1)).await,
                }
            }
        })));
    }

    fn touch(&mut self, user: usize) {
        let Some(id) = self.facts.seen().sessions.get(&user).copied() else {
            return;
        };
        let Some(node) = self.some_node() else { return };
        let Some(orchestrator) = node.orchestrator() else {
            return;
        };
        let (facts, world) = (self.facts.clone(), self.world().clone());
        drop(tokio::spawn(node.process.task(async move {
            let before = world.now();
            match orchestrator.touch(id) {
                Touch::Recorded => facts.seen().touches.entry(id).or_default().push(before),
                Touch::Deferred => facts.seen().deferred.entry(id).or_default().push(before),
                _ => {}
            }
        })));
    }

    fn stop(&mut self, user: usize) {
        let Some(node) = self.some_node() else { return };
        let Some(orchestrator) = node.orchestrator() else {
            return;
        };
        let (facts, world) = (self.facts.clone(), self.world().clone());
        let known = facts.seen().sessions.get(&user).copied();
        facts.tell(world.now(), format!("user {user} goes away"));
        drop(tokio::spawn(node.process.task(async move {
            let ids = match known {
                Some(id) => vec![id],
                // Gone before the spawn answered: the application knows its user, not yet the
                // session.
                None => match orchestrator
                    .list(SessionFilter::live().user(format!("u{user}")))
                    .await
                {
                    Ok(found) => found.into_iter().map(|info| info.id).collect(),
                    Err(_) => Vec::new(),
                },
            };
            for id in ids {
                if let Ok(StopOutcome::Terminated) = orchestrator.stop_tracked(id).await {
                    facts.seen().told_terminated.insert(id, world.now());
                }
            }
        })));
    }

    async fn redeploy(&mut self, index: usize) {
        let now = self.now();
        self.facts.disaster(now, "redeploy");
        let node = self.nodes[index].clone();
        if let Some(orchestrator) = node.orchestrator() {
            let leaving = node.process.task(async move {
                let _ = orchestrator.shutdown(Shutdown::Handover).await;
            });
            let _ = timeout(Duration::from_secs(30), leaving).await;
        }
        node.process.crash();
        self.nodes[index] = self.boot(index);
    }

    fn roll_back(&mut self, under: Under) {
        let now = self.now();
        let oldest = self.snapshots.len().saturating_sub(6);
        let drawn = self.dice.draw(oldest as u64..self.snapshots.len() as u64);
        let Some((taken, snapshot)) = self
            .snapshots
            .get(usize::try_from(drawn).unwrap_or(0))
            .cloned()
        else {
            return;
        };
        self.facts.disaster(
            now,
            if under == Under::Rest {
                "rollback"
            } else {
                "rollback-under-nodes"
            },
        );
        if under == Under::Rest {
            for node in &self.nodes {
                node.process.crash();
            }
        }
        self.facts.seen().undone.push((taken, now));
        self.deployment.store.restore(&snapshot);
    }

    /// A machine that another user made.
    fn plant(&mut self, cloud: Cloud, spec: MachineSpec, kind: &'static str) -> Option<Machine> {
        let account = self.world().account(cloud.account());
        let made = self
            .world()
            .plant_machine(cloud.as_str(), &account, spec)
            .ok()?;
        self.planted.insert(made.id.clone(), kind);
        Some(made)
    }

    fn outside(&mut self, what: Outside) {
        let (world, now, cloud) = (self.world().clone(), self.now(), self.some_cloud());
        let name = cloud.as_str();
        let ours: Vec<_> = world
            .all(name)
            .into_iter()
            .filter(|machine| {
                machine.is_live()
                    && !self.planted.contains_key(&machine.id)
                    && machine.launch_key().is_some()
            })
            .collect();
        let some = (!ours.is_empty()).then(|| self.dice.pick(&ours).clone());
        let marked = |name: String, key: Option<TrackedKey>| {
            let mut spec = cloud.strangers(&world, name);
            cloud.mark(&mut spec, key);
            spec
        };
        let entropy = dice::entropy(self.plan.seed, &format!("outside {now}"));
        match what {
            Outside::Foreign => {
                drop(self.plant(cloud, marked("somebody-elses".to_owned(), None), "foreign"))
            }
            Outside::LookAlike => {
                drop(self.plant(
                    cloud,
                    marked("atlas-session-a1-not-a-key".to_owned(), None),
                    "look-alike",
                ));
            }
            Outside::OtherRealm => {
                let other = Realm::new(&Secret::new(
                    "another-deployments-secret-0123456789-abcdefghijklmnopqrstuvwxyz",
                ));
                let Ok(other) = other else { return };
                let key = other.mint_key(now, &entropy);
                self.plant(
                    cloud,
                    marked(format!("atlas-theirs-{key}"), Some(key)),
                    "other-realm",
                );
            }
            Outside::Forged => {
                let realm = ours
                    .first()
                    .and_then(|m| m.launch_key())
                    .map_or_else(|| RealmId::from_bytes([1; 4]), |key| key.realm());
                let attempt = atlas_core::AttemptId::new(now, [7; 6]);
                let key = TrackedKey::new(realm, attempt, [0; 5]);
                self.plant(
                    cloud,
                    marked(format!("atlas-forged-{key}"), Some(key)),
                    "forged",
                );
            }
            Outside::Clone => {
                if let Some(machine) = some {
                    self.plant(cloud, cloud.copy(&world, &machine), "clone");
                }
            }
            Outside::Fleet => {
                // Only machines past their start: these cannot be mistaken for a call that was
                // committed twice.
                let old = ours
                    .iter()
                    .find(|machine| now.since(machine.created_at) > Duration::from_secs(600));
                for _ in 0..12 {
                    if let Some(machine) = old {
                        self.plant(cloud, cloud.copy(&world, machine), FLEET);
                    }
                }
            }
            Outside::CopiedEnvironment => {
                if let Some(machine) = some {
                    self.plant(
                        cloud,
                        marked("their-own-thing".to_owned(), machine.launch_key()),
                        "copied",
                    );
                }
            }
            Outside::Misshown(span) => self.misshow(cloud, span),
            Outside::Rename => {
                if let Some(machine) = some {
                    world.rename_machine(name, &machine.id, "renamed-by-hand");
                }
            }
            Outside::Misname => {
                if let Some(machine) = some {
                    let key = TrackedKey::new(
                        RealmId::from_bytes([9; 4]),
                        atlas_core::AttemptId::new(now, [3; 6]),
                        [1; 5],
                    );
                    world.rename_machine(name, &machine.id, &format!("atlas-wrong-{key}"));
                }
            }
            Outside::Destroy => drop(some.map(|machine| world.destroy_machine(name, &machine.id))),
            Outside::Stop => drop(some.map(|machine| world.stop_machine(name, &machine.id))),
            Outside::StopForAWhile(span) => {
                if let Some(machine) = some {
                    world.stop_machine(name, &machine.id);
                    let account = world.account(cloud.account());
                    drop(tokio::spawn(async move {
                        sleep(span).await;
                        // Gone meanwhile, where its session was ended for it.
                        let _ = world.start(name, &account, &machine.id, &Arrival::default());
                    }));
                }
            }
            Outside::Preempt => drop(some.map(|machine| world.preempt_machine(name, &machine.id))),
            Outside::Fail => drop(some.map(|machine| world.fail_machine(name, &machine.id))),
        }
        self.facts.disaster(now, "outside");
        self.facts.tell(now, format!("{what:?} on {cloud}"));
    }

    /// The cloud mixes up two rows for a while: another user's machine appears under the name and
    /// key of one of ours that is gone.
    fn misshow(&mut self, cloud: Cloud, span: Duration) {
        let (world, now) = (self.world().clone(), self.now());
        let long_gone = |machine: &Machine| {
            machine
                .destroyed_at
                .is_some_and(|gone| now.since(gone) > Duration::from_secs(400))
        };
        let machines = world.all(cloud.as_str()).into_iter();
        let gone = machines
            .filter(|machine| !self.planted.contains_key(&machine.id))
            .find(long_gone);
        let Some(key) = gone.as_ref().and_then(Machine::launch_key) else {
            return;
        };
        let Some(theirs) = self.plant(cloud, cloud.strangers(&world, "somebody-elses"), "foreign")
        else {
            return;
        };
        let name = gone.map(|machine| machine.spec.name).unwrap_or_default();
        let account = world.account(cloud.account());
        let _ = world.update(cloud.as_str(), &account, &theirs.id, |machine| {
            machine.spec.name = name;
            cloud.mark(&mut machine.spec, Some(key));
        });
        drop(tokio::spawn(async move {
            sleep(span).await;
            let _ = world.update(cloud.as_str(), &account, &theirs.id, |machine| {
                machine.spec.name = "somebody-elses".to_owned();
                cloud.mark(&mut machine.spec, None);
            });
        }));
    }

    /// All faults end, all nodes are restarted, and an operator handles what requires attention.
    async fn calm_down(&mut self) {
        let now = self.now();
        self.deployment.places.disarm();
        self.deployment.weather.calm();
        self.deployment.network.calm();
        self.world().calm();
        for cloud in &self.plan.clouds {
            self.world().restore_key(cloud.as_str(), API_KEY);
        }
        // A history cut short may end in the middle of a wrong deploy.
        if *self
            .deployment
            .api_key
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            != API_KEY
        {
            self.deploy_with(API_KEY);
        }
        for node in &self.nodes {
            node.process.resume();
            node.clock.set_error_ms(0);
        }
        self.store_clock_is_wrong_by(0);
        self.facts.seen().last_fault = Some(now);
        self.facts.tell(now, "the weather is calm from now on");
        self.wait_until(Instant::now() + Duration::from_secs(180))
            .await;
        self.operator().await;
    }

    /// The actions of an operator: accepts the store if it is on hold, acknowledges a breaker.
    async fn operator(&mut self) {
        // No operator acknowledges a breaker whose report contains another user's whole fleet.
        let looks_right = !self.planted.values().any(|kind| *kind == FLEET);
        for node in self.nodes.clone() {
            let Some(orchestrator) = node.orchestrator() else {
                continue;
            };
            let (facts, world, clouds) = (
                self.facts.clone(),
                self.world().clone(),
                self.plan.clouds.clone(),
            );
            let work = node.process.task(async move {
                if orchestrator.hold().is_some() {
                    let accepted = orchestrator.accept_store().await;
                    facts.tell(
                        world.now(),
                        format!("the operator accepts the store: {accepted:?}"),
                    );
                }
                for cloud in clouds.into_iter().filter(|_| looks_right) {
                    let _ = orchestrator
                        .acknowledge_breaker(&cloud.account_name())
                        .await;
                }
            });
            let _ = timeout(Duration::from_secs(60), work).await;
        }
        let now = self.now();
        self.facts.seen().last_fault = Some(now);
    }

    /// Waits, with the operator checking periodically, and returns the deployment's own view at the
    /// end.
    async fn settle(&mut self, span: Duration) -> Vec<atlas_orchestrator::SessionInfo> {
        let mut until = Instant::now() + span;
        let mut accepts = 0;
        while Instant::now() < until {
            self.wait_until((Instant::now() + LOOK).min(until)).await;
            if self
                .nodes
                .iter()
                .filter_map(Node::orchestrator)
                .any(|orchestrator| orchestrator.hold().is_some())
            {
                self.operator().await;
                // The promises count from the last of these.
                accepts += 1;
                if accepts <= ACCEPTS {
                    until = until.max(Instant::now() + span);
                }
            }
            if span == ENDING
                && self
                    .machines()
                    .iter()
                    .all(|m| !m.is_live() || self.planted.contains_key(&m.id))
            {
                let all = self.view().await;
                if all
                    .iter()
                    .all(|info| info.state == atlas_orchestrator::SessionState::Terminated)
                {
                    return all;
                }
            }
        }
        self.view().await
    }

    async fn view(&mut self) -> Vec<atlas_orchestrator::SessionInfo> {
        for node in self.nodes.clone() {
            if let Some(orchestrator) = node.orchestrator() {
                let asked = timeout(
                    Duration::from_secs(120),
                    node.process
                        .task(async move { orchestrator.list(SessionFilter::all()).await }),
                );
                if let Ok(Ok(all)) = asked.await {
                    return all;
                }
            }
        }
        Vec::new()
    }

    async fn end_all(&mut self) {
        self.facts.tell(self.now(), "everybody goes home");
        for node in self.nodes.clone() {
            let Some(orchestrator) = node.orchestrator() else {
                continue;
            };
            drop(tokio::spawn(node.process.task(async move {
                for info in orchestrator
                    .list(SessionFilter::live())
                    .await
                    .unwrap_or_default()
                {
                    let _ = orchestrator.stop_tracked(info.id).await;
                }
            })));
            // One node is enough while it lives.
            break;
        }
    }

    async fn judge(self, present: Present, end: Vec<atlas_orchestrator::SessionInfo>) -> Outcome {
        let evidence = Evidence {
            plan: &self.plan,
            world: self.world().clone(),
            store: &self.deployment.store,
            secret: &self.deployment.secret,
            policy: &self.deployment.rules.policy,
            facts: &self.facts,
            deletions: self
                .deployment
                .deletions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            planted: &self.planted,
            present,
            end,
        };
        let judgement = checker::check(&evidence).await;
        let digest = evidence.digest().await;
        let mut faults: BTreeMap<String, u64> = self
            .world()
            .struck()
            .into_iter()
            .map(|(kind, n)| (kind.to_string(), n))
            .collect();
        let seen = self.facts.seen();
        for (kind, count) in &seen.disasters {
            *faults.entry(kind.clone()).or_default() += count;
        }
        *faults.entry("store-write-failure".to_owned()).or_default() +=
            self.deployment.weather.struck();
        *faults.entry("lost-delete".to_owned()).or_default() +=
            self.deployment.network.lost_deletes();
        *faults.entry("stall".to_owned()).or_default() += self.deployment.places.stalls();
        let (callbacks, forged) = self.reporters.counts();
        *faults.entry("forged-callback".to_owned()).or_default() += forged;
        let awaits = self.deployment.places.awaits();
        Outcome {
            crashes: seen.crashes,
            spawns: seen.spawns.values().sum(),
            clouds: self
                .plan
                .clouds
                .iter()
                .map(|cloud| (cloud.as_str(), on_cloud(*cloud, &seen)))
                .collect(),
            callbacks,
            simulated_ms: u64::try_from((Instant::now() - self.began).as_millis())
                .unwrap_or(u64::MAX),
            faults,
            digest,
            awaits,
            judged: judgement.judged,
            excuses: judgement.excuses,
            violations: judgement.violations,
        }
    }
}

fn on_cloud(cloud: Cloud, seen: &Seen) -> OnCloud {
    OnCloud {
        seeds: 1,
        spawns: seen.spawns.get(cloud.as_str()).copied().unwrap_or(0),
        crashes: seen.crashes,
    }
}

fn request(wish: &Wish, is_task: bool) -> ComputeRequest {
    wish.cloud
        .request(is_task, wish.spot)
        .name(format!("u{}", wish.user))
        .auth(atlas_core::Auth::Bearer)
        .env("CANARY", CANARY)
}

fn options(wish: &Wish) -> SessionOptions {
    let mut options = SessionOptions::new()
        .account(wish.cloud.account_name())
        .user(format!("u{}", wish.user))
        .idle_ttl(wish.idle_ttl);
    if let Some(limit) = wish.max_runtime {
        options = options.max_runtime(limit);
    }
    if let Some(limit) = wish.max_cost.filter(|cost| *cost > Usd::ZERO) {
        options = options.max_cost(limit);
    }
    if let Some(limit) = wish.ready_timeout {
        options = options.ready_timeout(limit);
    }
    if wish.respawns > 0 {
        options = options.on_failure(OnFailure::Respawn(wish.respawns));
    }
    if wish.hedge { options.hedge() } else { options }
}
