//! Configures and starts an orchestrator.

use std::sync::Arc;

use atlas_core::{
    AccountName, AnyProvider, AttemptId, Clock, Entropy, Error, LaunchKey, RealmId, Result,
    SystemClock, SystemEntropy, TrackedKey,
};

use crate::activity::{AnyActivitySource, AnyReadyProbe};
use crate::kernel::clock::MAX_DIFFERENCE;
use crate::orchestrator::Orchestrator;
use crate::policy::Policy;
use crate::realm::{IncarnationLedger, Realm};
use crate::runtime::account::Account;
use crate::runtime::adopt::adopt;
use crate::runtime::core::{Core, HOLD_ROW, HoldRow, Parts};
use crate::runtime::deadline::{Progress, WithDeadline};
use crate::runtime::steady::Steady;
use crate::runtime::{
    Spawner, TokioSpawner, clock, feed, flush, index, janitor, nodes, reconciler, rounds,
};
use crate::store::{AnyStore, Table};

const DEFAULT_NODE: &str = "local";

/// Configures and starts an [`Orchestrator`].
#[derive(Debug)]
pub struct Builder {
    accounts: Vec<(AccountName, AnyProvider)>,
    default_account: Option<AccountName>,
    store: Option<AnyStore>,
    realm: Option<Arc<Realm>>,
    ledger: Option<Arc<dyn IncarnationLedger>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    spawner: Arc<dyn Spawner>,
    policy: Policy,
    name_prefix: String,
    node: String,
    sources: Vec<AnyActivitySource>,
    probe: Option<AnyReadyProbe>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            accounts: Vec::new(),
            default_account: None,
            store: None,
            realm: None,
            ledger: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            spawner: Arc::new(TokioSpawner),
            policy: Policy::default(),
            name_prefix: atlas_core::DEFAULT_NAME_PREFIX.to_owned(),
            node: DEFAULT_NODE.to_owned(),
            sources: Vec::new(),
            probe: None,
        }
    }

    /// Adds an account to rent from.
    #[must_use]
    pub fn account(mut self, name: AccountName, provider: AnyProvider) -> Self {
        self.accounts.retain(|(known, _)| *known != name);
        self.accounts.push((name, provider));
        self
    }

    /// Sets the account of sessions that name none. Not needed if there is only one account.
    #[must_use]
    pub fn default_account(self, name: AccountName) -> Self {
        Self {
            default_account: Some(name),
            ..self
        }
    }

    /// Sets the store of all records.
    #[must_use]
    pub fn store(self, store: AnyStore) -> Self {
        Self {
            store: Some(store),
            ..self
        }
    }

    /// Sets the realm that the deployment belongs to.
    #[must_use]
    pub fn realm(self, realm: impl Into<Arc<Realm>>) -> Self {
        Self {
            realm: Some(realm.into()),
            ..self
        }
    }

    /// Sets the ledger outside the store that records the realm's last store. With it, a
    /// rolled-back or copied store is detected at once.
    #[must_use]
    pub fn ledger(self, ledger: Arc<dyn IncarnationLedger>) -> Self {
        Self {
            ledger: Some(ledger),
            ..self
        }
    }

    /// Sets another clock than the operating system's. It is only compared with others: deadlines
    /// follow the store's clock and the clouds', advanced monotonically. This clock shows when the
    /// host was suspended.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Sets another source of randomness than the operating system's.
    #[must_use]
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// Sets how background tasks are spawned, instead of tokio's own `spawn`.
    #[must_use]
    pub fn spawner(self, spawner: Arc<dyn Spawner>) -> Self {
        Self { spawner, ..self }
    }

    /// Sets the policy.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Sets the prefix of machine names. The reaper ignores machines without it.
    #[must_use]
    pub fn name_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            name_prefix: prefix.into(),
            ..self
        }
    }

    /// Sets this node's name: different for each node that shares the store, the same after a
    /// restart.
    #[must_use]
    pub fn node(self, name: impl Into<String>) -> Self {
        Self {
            node: name.into(),
            ..self
        }
    }

    /// Sets the probe that decides whether a running machine is usable, in addition to its cloud's
    /// status.
    #[must_use]
    pub fn probe(self, probe: AnyReadyProbe) -> Self {
        Self {
            probe: Some(probe),
            ..self
        }
    }

    /// Adds a source of activity besides touches.
    #[must_use]
    pub fn activity(mut self, source: AnyActivitySource) -> Self {
        self.sources.push(source);
        self
    }

    /// Reads the recorded state and continues with it.
    ///
    /// # Errors
    /// `validation` when the store, the realm or the accounts are missing or contradict each other,
    /// or the policy cannot work; `conflict` when the store belongs to another realm, or another
    /// node holds this node's lease; `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing keeps running; the node's lease expires by itself.
    pub async fn start(self) -> Result<Orchestrator> {
        let missing = |field: &str| Error::validation(field, "is needed to start an orchestrator");
        let store = self.store.ok_or_else(|| missing("store"))?;
        self.policy.check()?;
        // A node with a lease would have lost it by then, so a later answer is useless.
        let progress = Arc::new(Progress::new(self.policy.safeguards().incarnation));
        let store = WithDeadline::new(store, self.policy.lease, progress.clone());
        let store = AnyStore::new(store);
        let realm = self.realm.ok_or_else(|| missing("realm"))?;
        if self.node.is_empty()
            || self.node.len() > 200
            || self.node.contains('/')
            || self.node.chars().any(char::is_control)
        {
            return Err(Error::validation(
                "node",
                "must be 1 to 200 printable characters without /",
            ));
        }
        let sample = TrackedKey::new(
            RealmId::from_bytes([0; 4]),
            AttemptId::new(self.clock.now(), [0; 6]),
            [0; 5],
        );
        if !LaunchKey::Tracked(sample)
            .machine_name(&self.name_prefix, None)
            .starts_with(&self.name_prefix)
        {
            // Machines whose names do not begin with the prefix would never be reaped.
            return Err(Error::validation(
                "name_prefix",
                "must be at most 12 of a-z, 0-9 and single dashes",
            ));
        }
        let default_account = match self.default_account {
            Some(name) if !self.accounts.iter().any(|(known, _)| *known == name) => {
                return Err(Error::validation(
                    "default_account",
                    format!("no account is called {name}"),
                ));
            }
            None if self.accounts.len() == 1 => self.accounts.first().map(|(name, _)| name.clone()),
            named => named,
        };
        store.bind(realm.fingerprint()).await?;
        let info = store.info().await?;
        let now = store.now().await?;
        let skew = now.since(self.clock.now()).max(self.clock.now().since(now));
        if skew > MAX_DIFFERENCE {
            tracing::warn!(
                ?skew,
                "this machine's clock and the store's differ; sessions are judged by the store's"
            );
        }
        let steady = Arc::new(Steady::new(now, self.clock.clone(), self.policy.lease));
        let accounts: Vec<Arc<Account>> = self
            .accounts
            .into_iter()
            .map(|(name, provider)| {
                Account::new(
                    name,
                    provider,
                    &self.policy,
                    &self.name_prefix,
                    steady.clone(),
                    self.spawner.clone(),
                )
            })
            .collect();
        let core = Arc::new(Core::new(Parts {
            store,
            progress,
            exclusive: info.exclusive,
            durable: info.durable,
            realm,
            ledger: self.ledger,
            entropy: self.entropy,
            spawner: self.spawner,
            policy: self.policy,
            accounts,
            default_account,
            name_prefix: self.name_prefix,
            node: self.node,
            sources: self.sources,
            probe: self.probe,
            steady,
            clock: self.clock,
        }));
        if let Some(row) = core.store.get(Table::Realm, HOLD_ROW).await? {
            let why = serde_json::from_slice::<HoldRow>(&row.value)
                .map_or_else(|_| "held before".to_owned(), |row| row.why);
            core.held_before(why);
        }
        nodes::watch_ledger(&core).await;
        nodes::enlist_within(&core, core.policy.lease.saturating_mul(2)).await?;
        adopt(&core).await?;
        let position = core.store.info().await?.last_position;
        let suspects = core
            .accounts
            .iter()
            .map(|account| (account.name.clone(), Arc::default()))
            .collect();
        let orchestrator = Orchestrator {
            core,
            suspects: Arc::new(suspects),
        };
        begin(&orchestrator, position);
        Ok(orchestrator)
    }
}

/// Starts the background tasks.
fn begin(orchestrator: &Orchestrator, position: u64) {
    let core = &orchestrator.core;
    core.spawn("reconciler", reconciler::keep(core.clone()));
    core.spawn("lease", nodes::keep(core.clone()));
    core.spawn("clock", clock::keep(core.clone()));
    core.spawn("inherit", nodes::inherit(core.clone()));
    core.spawn("flush", flush::keep(core.clone()));
    core.spawn("janitor", janitor::keep(core.clone()));
    core.spawn("index", index::keep(core.clone()));
    core.spawn("feed", feed::keep(core.clone(), position));
    #[cfg(feature = "metrics")]
    core.spawn(
        "gauge",
        crate::runtime::gauge::keep(
            core.clone(),
            orchestrator.suspects.values().cloned().collect(),
        ),
    );
    for account in &core.accounts {
        if let Some(suspects) = orchestrator.suspects.get(&account.name) {
            core.spawn(
                "rounds",
                rounds::keep(core.clone(), account.clone(), suspects.clone()),
            );
        }
    }
}
