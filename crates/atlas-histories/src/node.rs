//! One node of a deployment: the real orchestrator over the real provider and HTTP stack, in a
//! simulated process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use atlas_auth::callback::CallbackKey;
use atlas_core::{AnyProvider, Entropy, Result, Secret};
use atlas_http::Transport;
use atlas_orchestrator::realm::{MemoryLedger, Realm};
use atlas_orchestrator::store::{AnyStore, Memory, MemorySnapshot};
use atlas_orchestrator::{Orchestrator, Spawner, Task};
use atlas_testkit::dialect::cloud::Api;
use atlas_testkit::world::World;
use atlas_web::callback::Callbacks;

use crate::callback;
use crate::clock::HostClock;
use crate::cloud::Cloud;
use crate::dice;
use crate::facts::Facts;
use crate::leak::Leaky;
use crate::process::{Places, Process, Remains};
use crate::rules::Rules;
use crate::store::{StoreWeather, Watched};
use crate::way::{Deletions, Network, Way};

/// The API key of the nodes' accounts.
pub(crate) const API_KEY: &str = "history-key";

/// What all nodes of a history share.
#[derive(Clone)]
pub(crate) struct Deployment {
    pub(crate) seed: u64,
    pub(crate) world: World,
    pub(crate) nodes: usize,
    pub(crate) counts_sleep: bool,
    pub(crate) clouds: BTreeMap<Cloud, Api>,
    pub(crate) api_key: Arc<Mutex<&'static str>>,
    pub(crate) store: Memory,
    /// The clock of the host that runs the store.
    pub(crate) store_clock: HostClock,
    pub(crate) facts: Facts,
    pub(crate) ledger: MemoryLedger,
    pub(crate) secret: Secret,
    pub(crate) rules: Rules,
    /// The store's contents before the latest intent, for a store that loses acknowledged writes.
    pub(crate) last_intent: Arc<Mutex<Option<MemorySnapshot>>>,
    pub(crate) places: Places,
    pub(crate) remains: Remains,
    pub(crate) weather: StoreWeather,
    pub(crate) deletions: Deletions,
    pub(crate) network: Network,
}

/// A node: its process, its clock, and the orchestrator once it started.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) process: Process,
    pub(crate) clock: HostClock,
    orchestrator: Arc<Mutex<Option<(Orchestrator, Callbacks)>>>,
}

/// Runs every task of the orchestrator as a task of its process.
#[derive(Debug)]
struct InProcess(Process);

impl Spawner for InProcess {
    fn spawn(&self, _name: &'static str, task: Task) {
        drop(tokio::spawn(self.0.task(task)));
    }
}

impl Node {
    /// Starts a process with this name. It starts in the background; until then
    /// [`Node::orchestrator`] is `None`.
    pub(crate) fn boot(deployment: &Deployment, name: &str, life: u64) -> Self {
        let node = Self {
            name: name.to_owned(),
            process: Process::start(&deployment.remains),
            // A single node keeps its store itself: it has one clock.
            clock: if deployment.nodes == 1 {
                deployment.store_clock.clone()
            } else {
                HostClock::new(deployment.world.clone(), deployment.counts_sleep)
            },
            orchestrator: Arc::default(),
        };
        let (booted, deployment) = (node.clone(), deployment.clone());
        drop(tokio::spawn(node.process.task(async move {
            // A store that does not answer at the start is no reason to give up; a supervisor
            // starts the process again.
            for try_number in 0_u64.. {
                match booted
                    .start(&deployment, life + 1_000_000 * try_number)
                    .await
                {
                    Ok(orchestrator) => {
                        let callbacks = Callbacks::new(
                            orchestrator.clone(),
                            CallbackKey::new(&deployment.secret),
                            callback::url(),
                        );
                        *booted
                            .orchestrator
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner) =
                            Some((orchestrator, callbacks));
                        return;
                    }
                    Err(_) => tokio::time::sleep(std::time::Duration::from_secs(2)).await,
                }
            }
        })));
        node
    }

    /// The running orchestrator of a live process.
    pub(crate) fn orchestrator(&self) -> Option<Orchestrator> {
        self.running().map(|(orchestrator, _)| orchestrator)
    }

    /// The URL to which machines report, while its process is alive.
    pub(crate) fn callbacks(&self) -> Option<Callbacks> {
        self.running().map(|(_, callbacks)| callbacks)
    }

    fn running(&self) -> Option<(Orchestrator, Callbacks)> {
        self.process
            .is_alive()
            .then(|| {
                self.orchestrator
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            })
            .flatten()
    }

    async fn start(&self, deployment: &Deployment, life: u64) -> Result<Orchestrator> {
        let entropy: Arc<dyn Entropy> = Arc::new(dice::entropy(
            deployment.seed,
            &format!("{} {life}", self.name),
        ));
        let store = Watched {
            inner: AnyStore::new(deployment.store.clone()),
            process: self.process.clone(),
            places: deployment.places.clone(),
            weather: deployment.weather.clone(),
            memory: deployment.store.clone(),
            last_intent: deployment
                .rules
                .loses_intents
                .then(|| deployment.last_intent.clone()),
            drops_events: deployment.rules.drops_events,
            world: deployment.world.clone(),
            facts: deployment.facts.clone(),
        };
        let mut builder = Orchestrator::builder();
        for (cloud, api) in &deployment.clouds {
            builder = builder.account(
                cloud.account_name(),
                self.provider(deployment, *cloud, api, entropy.clone())?,
            );
        }
        builder
            .store(AnyStore::new(store))
            .realm(Realm::new(&deployment.secret)?)
            .ledger(Arc::new(deployment.ledger.clone()))
            .clock(Arc::new(self.clock.clone()))
            .entropy(entropy)
            .spawner(Arc::new(InProcess(self.process.clone())))
            .policy(deployment.rules.policy.clone())
            .node(self.name.clone())
            .start()
            .await
    }
    fn provider(
        &self,
        deployment: &Deployment,
        cloud: Cloud,
        api: &Api,
        entropy: Arc<dyn Entropy>,
    ) -> Result<AnyProvider> {
        let way = Way {
            inner: api.clone(),
            cloud,
            process: self.process.clone(),
            places: deployment.places.clone(),
            world: deployment.world.clone(),
            deletions: deployment.deletions.clone(),
            network: deployment.network.clone(),
        };
        let key = *deployment
            .api_key
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let provider = cloud.provider(
            key,
            Transport::new(way),
            Arc::new(self.clock.clone()),
            entropy,
        )?;
        Ok(if deployment.rules.leaks {
            AnyProvider::new(Leaky(provider))
        } else {
            provider
        })
    }
}
