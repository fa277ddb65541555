//! `Atlas`: accounts, a store and an orchestrator, checked and wired.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use atlas_core::config::resolve_account;
use atlas_core::{
    AccountName, AnyProvider, Clock, ComputeRequest, Entropy, Error, ErrorKind, Provider, Result,
    Secret, SystemClock, SystemEntropy,
};
use atlas_orchestrator::owner::OwnerSocket;
use atlas_orchestrator::store::{AnyStore, Memory, Store};
use atlas_orchestrator::{
    ActivitySource, AnyActivitySource, AnyReadyProbe, Cursor, Orchestrator, Policy, ReadyProbe,
    Risk, Scope, Session, SessionFilter, SessionId, SessionInfo, SessionKind, SessionOptions,
    Shutdown, ShutdownReport, Subscription, TaskOutcome,
};

use crate::owner;
use crate::realm::{REALM_SECRET_ENV, RealmSource};

/// Machines for users and tasks, over every account it was given. Cheap to clone; clones are the
/// same.
///
/// Dropping the last clone without [`Atlas::shutdown`] is a crash as far as the store is concerned:
/// nothing is lost, and the next process goes on after the lease ran out.
#[derive(Clone, Debug)]
pub struct Atlas(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    accounts: BTreeMap<AccountName, AnyProvider>,
    default_account: Option<AccountName>,
    idle_ttl: Option<Duration>,
    orchestrator: Orchestrator,
    /// The owner's socket, while this process holds a store that is in a file.
    socket: Mutex<Option<OwnerSocket>>,
    #[cfg(feature = "guard")]
    permits: std::sync::OnceLock<crate::guard::Renewal>,
    #[cfg(feature = "guard")]
    guards: Option<crate::guard::Guards>,
}

/// An [`Atlas`] that does not keep it alive.
#[derive(Clone, Debug)]
pub(crate) struct WeakAtlas(Weak<Inner>);

impl WeakAtlas {
    pub(crate) fn upgrade(&self) -> Result<Atlas> {
        let gone = || Error::new(ErrorKind::Unavailable, "this atlas was shut down");
        self.0.upgrade().map(Atlas).ok_or_else(gone)
    }
}

impl Atlas {
    /// Begins one.
    pub fn builder() -> AtlasBuilder {
        AtlasBuilder::default()
    }

    /// Rents a machine for a session; returns when the cloud accepted the order, or when it is
    /// known that it cannot be had.
    ///
    /// # Errors
    /// `validation` or `unsupported` before any request; `no_capacity`, `quota`, `unauthorized` and
    /// the like when no order was accepted. `unavailable` when the store or this process went away
    /// first: the session may be on record then, and ends by its limits.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the order back: the session is on record and ends by its
    /// limits.
    pub async fn spawn(&self, request: ComputeRequest, options: SessionOptions) -> Result<Session> {
        let options = self.complete(options)?;
        self.0.orchestrator.spawn(request, options).await
    }

    /// Rents a machine that runs one command to its end, learns how it ended, and gives the machine
    /// back.
    ///
    /// # Errors
    /// As [`Atlas::spawn`]. A command that failed is an outcome, not an error.
    ///
    /// # Cancel safety
    /// As [`Atlas::spawn`].
    pub async fn run_task(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
    ) -> Result<(Session, TaskOutcome)> {
        let options = self.complete(options)?;
        self.0.orchestrator.run_task(request, options).await
    }

    /// Puts a session on record without waiting for a cloud.
    ///
    /// # Errors
    /// `validation`, `unsupported`; `unavailable` when the store does not take it.
    ///
    /// # Cancel safety
    /// A dropped call may have put it on record.
    pub async fn launch(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
        kind: SessionKind,
    ) -> Result<SessionId> {
        let options = self.complete(options)?;
        self.0.orchestrator.launch(request, options, kind).await
    }

    /// An id for a session to be launched: for what has to be bound to it before, such as a
    /// callback's token.
    #[must_use]
    pub fn new_id(&self) -> SessionId {
        self.0.orchestrator.new_id()
    }

    /// As [`Atlas::launch`], under an id of [`Atlas::new_id`].
    ///
    /// # Errors
    /// As [`Atlas::launch`]; `conflict` when the id is taken.
    ///
    /// # Cancel safety
    /// As [`Atlas::launch`].
    pub async fn launch_as(
        &self,
        id: SessionId,
        request: ComputeRequest,
        options: SessionOptions,
        kind: SessionKind,
    ) -> Result<SessionId> {
        let options = self.complete(options)?;
        self.0
            .orchestrator
            .launch_as(id, request, options, kind)
            .await
    }

    /// Dollars per hour by what they are spent on: all but the serving machines are at risk.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn risk(&self) -> Result<Risk> {
        self.0.orchestrator.risk().await
    }

    /// The handle of a session on record.
    ///
    /// # Errors
    /// `not_found`; `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn session(&self, id: SessionId) -> Result<Session> {
        self.0.orchestrator.session(id).await
    }

    /// What is known of the sessions that pass.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn list(&self, filter: SessionFilter) -> Result<Vec<SessionInfo>> {
        self.0.orchestrator.list(filter).await
    }

    /// The events of one session, of one user's sessions, or of all, from a place on.
    #[must_use]
    pub fn events(&self, scope: Scope, from: Cursor) -> Subscription {
        self.0.orchestrator.subscribe(scope, from)
    }

    /// An account's provider, for calls that no session is behind: what it makes is nobody's but
    /// the caller's.
    ///
    /// # Errors
    /// `validation` when there is no such account.
    pub fn provider(&self, account: &str) -> Result<AnyProvider> {
        let known: Vec<AccountName> = self.0.accounts.keys().cloned().collect();
        let name = resolve_account(Some(&AccountName::new(account)?), None, &known)?;
        self.0
            .accounts
            .get(&name)
            .cloned()
            .ok_or_else(|| Error::validation("provider", format!("{name} is not configured")))
    }

    /// The names of its accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountName> {
        self.0.accounts.keys()
    }

    /// The orchestrator itself, for what the facade does not say.
    #[must_use]
    pub fn orchestrator(&self) -> &Orchestrator {
        &self.0.orchestrator
    }

    /// Ends this process's part: hands over, or ends every machine and waits for the proof.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be written: then the next process goes on after the
    /// lease ran out.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn shutdown(&self, how: Shutdown) -> Result<ShutdownReport> {
        let socket = self
            .0
            .socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(socket) = socket {
            socket.close().await;
        }
        #[cfg(feature = "guard")]
        if let Some(permits) = self.0.permits.get() {
            permits.end();
        }
        self.0.orchestrator.shutdown(how).await
    }

    /// Revokes a grant: the guard of the session's machine honours it no more and ends what it
    /// opened, WebSockets and downloads included. Needs [`AtlasBuilder::guard_activity`], which
    /// says
    /// where guards are.
    ///
    /// # Errors
    /// `validation` without `guard_activity`; `not_found`; `unavailable` while there is no machine;
    /// otherwise what came of the call to the guard.
    ///
    /// # Cancel safety
    /// A dropped call may have been carried out; it can be repeated.
    #[cfg(feature = "guard")]
    pub async fn revoke_grant(
        &self,
        session: atlas_orchestrator::SessionId,
        grant: atlas_auth::grant::GrantId,
    ) -> Result<()> {
        let guards = self.0.guards.as_ref().ok_or_else(|| {
            Error::validation(
                "guard_activity",
                "is not set: where guards are is not known",
            )
        })?;
        guards.revoke(session, grant).await
    }

    /// Names the account and the idle limit where the caller did not.
    fn complete(&self, options: SessionOptions) -> Result<SessionOptions> {
        let known: Vec<AccountName> = self.0.accounts.keys().cloned().collect();
        let account = resolve_account(
            options.account.as_ref(),
            self.0.default_account.as_ref(),
            &known,
        )?;
        let options = options.account(account);
        Ok(
            match (options.idle_ttl, options.no_idle_ttl, self.0.idle_ttl) {
                (None, false, Some(ttl)) => options.idle_ttl(ttl),
                _ => options,
            },
        )
    }
}

/// How an [`Atlas`] is made.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct AtlasBuilder {
    accounts: Vec<(AccountName, AnyProvider)>,
    default_account: Option<Result<AccountName>>,
    idle_ttl: Option<Duration>,
    store: Option<(AnyStore, Option<PathBuf>)>,
    policy: Policy,
    reaper: Reaper,
    sources: Vec<AnyActivitySource>,
    probe: Option<AnyReadyProbe>,
    realm: RealmSource,
    name_prefix: Option<String>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    #[cfg(feature = "guard")]
    guards: Option<crate::guard::GuardActivity>,
}

impl Default for AtlasBuilder {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            default_account: None,
            idle_ttl: None,
            store: None,
            policy: Policy::default(),
            reaper: Reaper::default(),
            sources: Vec::new(),
            probe: None,
            realm: RealmSource::default(),
            name_prefix: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            #[cfg(feature = "guard")]
            guards: None,
        }
    }
}

impl AtlasBuilder {
    /// Adds a provider as the account of its cloud's name.
    pub fn provider(self, provider: impl Provider) -> Self {
        let provider = AnyProvider::new(provider);
        let name = AccountName::from(provider.id());
        self.account(name, provider)
    }

    /// Adds a provider under a name: a second account of a cloud, or a handle that exists already.
    pub fn account(mut self, name: AccountName, provider: AnyProvider) -> Self {
        self.accounts.push((name, provider));
        self
    }

    /// The account of sessions that name none. Not needed where there is only one.
    pub fn default_provider(self, name: &str) -> Self {
        Self {
            default_account: Some(AccountName::new(name)),
            ..self
        }
    }

    /// As [`AtlasBuilder::default_provider`].
    pub fn default_account(self, name: AccountName) -> Self {
        Self {
            default_account: Some(Ok(name)),
            ..self
        }
    }

    /// How long a session may be idle that does not say so itself.
    pub fn idle_ttl(self, ttl: Duration) -> Self {
        Self {
            idle_ttl: Some(ttl),
            ..self
        }
    }

    /// Where every machine is remembered. Without it: in memory, and [`Atlas::shutdown`] ends all
    /// machines; a process that dies leaves them.
    pub fn store(self, store: impl IntoStore) -> Self {
        Self {
            store: Some(store.into_store()),
            ..self
        }
    }

    /// How the orchestrator behaves.
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The time between two scans of an account by the reaper.
    pub fn reap_interval(mut self, interval: Duration) -> Self {
        self.reaper.interval = Some(interval);
        self
    }

    /// The accounts that the reaper looks at; all of them unless set.
    pub fn reap_providers<'a>(mut self, accounts: impl IntoIterator<Item = &'a str>) -> Self {
        self.reaper.providers = Some(accounts.into_iter().map(AccountName::new).collect());
        self
    }

    /// What a machine's name must begin with to be looked at by the reaper, and what ours begin
    /// with. Empty looks at all names; whether a machine is ours is still said by its key alone.
    pub fn reap_name_prefix(self, prefix: impl Into<String>) -> Self {
        self.name_prefix(prefix)
    }

    /// How long a machine must have been seen before the reaper may end it.
    pub fn reap_grace(mut self, grace: Duration) -> Self {
        self.reaper.grace = Some(grace);
        self
    }

    /// The reaper reports what it would end, and ends nothing.
    pub fn reap_report_only(mut self, report_only: bool) -> Self {
        self.reaper.report_only = Some(report_only);
        self
    }

    /// Another source of activity besides touches.
    pub fn activity(mut self, source: impl ActivitySource) -> Self {
        self.sources.push(AnyActivitySource::new(source));
        self
    }

    /// What asks machines whether they are usable, besides their cloud. With the feature `probe` it
    /// is a `NetProbe` unless set.
    pub fn probe(self, probe: impl ReadyProbe) -> Self {
        Self {
            probe: Some(AnyReadyProbe::new(probe)),
            ..self
        }
    }

    /// What the names of machines begin with.
    pub fn name_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            name_prefix: Some(prefix.into()),
            ..self
        }
    }

    /// The realm's secret: at least 32 random characters, the same on every node that shares the
    /// store. Without it: the variable `ATLAS_REALM_SECRET`, else a private file beside the store,
    /// made on first use.
    pub fn realm_secret(mut self, secret: Secret) -> Self {
        self.realm.secret = Some(secret);
        self
    }

    /// The file of the realm's secret, instead of one beside the store.
    pub fn realm_secret_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.realm.file = Some(file.into());
        self
    }

    /// Where "now" comes from.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Where ids, jitter and tokens come from.
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// Counts the traffic through the guards in the machines as activity, besides touches.
    #[cfg(feature = "guard")]
    pub fn guard_activity(self, guards: crate::guard::GuardActivity) -> Self {
        Self {
            guards: Some(guards),
            ..self
        }
    }

    /// Checks everything and starts the orchestrator: it goes on with whatever the store has on
    /// record.
    ///
    /// # Errors
    /// `validation` for two accounts of one name, a default account that does not exist, a weak
    /// realm secret, or a store of another realm; `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// What was started is ended as in a crash.
    pub async fn build(self) -> Result<Atlas> {
        let mut accounts = BTreeMap::new();
        for (name, provider) in self.accounts {
            if accounts.insert(name.clone(), provider).is_some() {
                return Err(Error::validation(
                    "provider",
                    format!("two accounts are called {name}; give one another name"),
                ));
            }
        }
        let default_account = self.default_account.transpose()?;
        if let Some(name) = default_account
            .as_ref()
            .filter(|name| !accounts.contains_key(*name))
        {
            return Err(Error::validation(
                "default_provider",
                format!("{name} is not configured"),
            ));
        }
        let policy = self.reaper.apply(self.policy, accounts.keys())?;
        let in_memory = || {
            (
                AnyStore::new(Memory::new(self.clock.clone(), &*self.entropy)),
                None,
            )
        };
        let (store, file) = self.store.unwrap_or_else(in_memory);
        let from_env = std::env::var(REALM_SECRET_ENV).ok().map(Secret::new);
        let found = self.realm.find(from_env, file.as_deref(), &self.entropy)?;
        let mut builder = Orchestrator::builder()
            .store(store)
            .realm(found.realm)
            .ledger(found.ledger)
            .policy(policy)
            .clock(self.clock.clone())
            .entropy(self.entropy.clone());
        let entropy = self.entropy;
        if let Some(prefix) = self.name_prefix {
            builder = builder.name_prefix(prefix);
        }
        for (name, provider) in &accounts {
            builder = builder.account(name.clone(), provider.clone());
        }
        for source in self.sources {
            builder = builder.activity(source);
        }
        let probe = match self.probe {
            #[cfg(feature = "probe")]
            None => Some(AnyReadyProbe::new(crate::probe::NetProbe::new(
                self.clock.clone(),
                entropy.clone(),
            )?)),
            probe => probe,
        };
        if let Some(probe) = probe {
            builder = builder.probe(probe);
        }
        #[cfg(feature = "guard")]
        let link = Arc::new(std::sync::OnceLock::new());
        #[cfg(feature = "guard")]
        let guards = match self.guards {
            Some(settings) => {
                let guards =
                    crate::guard::Guards::new(settings, link.clone(), self.clock, entropy.clone())?;
                builder =
                    builder.activity(atlas_orchestrator::AnyActivitySource::new(guards.clone()));
                Some(guards)
            }
            None => None,
        };
        let orchestrator = builder.start().await?;
        let inner = Inner {
            accounts,
            default_account,
            idle_ttl: self.idle_ttl,
            orchestrator,
            socket: Mutex::new(None),
            #[cfg(feature = "guard")]
            permits: std::sync::OnceLock::new(),
            #[cfg(feature = "guard")]
            guards: guards.clone(),
        };
        let atlas = Atlas(Arc::new(inner));
        #[cfg(feature = "guard")]
        {
            link.get_or_init(|| WeakAtlas(Arc::downgrade(&atlas.0)));
            if let Some(renewal) = guards.and_then(crate::guard::Guards::renew_permits) {
                atlas.0.permits.get_or_init(|| renewal);
            }
        }
        if let Some(file) = file {
            let socket = owner::listen(WeakAtlas(Arc::downgrade(&atlas.0)), &file, &*entropy)?;
            *atlas
                .0
                .socket
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(socket);
        }
        Ok(atlas)
    }
}

/// What a builder was told about the reaper.
#[derive(Debug, Default)]
struct Reaper {
    interval: Option<Duration>,
    providers: Option<Vec<Result<AccountName>>>,
    grace: Option<Duration>,
    report_only: Option<bool>,
}

impl Reaper {
    /// The policy with what was said here instead of what it says.
    fn apply<'a>(
        self,
        mut policy: Policy,
        accounts: impl Iterator<Item = &'a AccountName>,
    ) -> Result<Policy> {
        let known: Vec<AccountName> = accounts.cloned().collect();
        let reaped = self
            .providers
            .map(|named| named.into_iter().collect::<Result<Vec<_>>>())
            .transpose()?;
        if let Some(odd) = reaped.iter().flatten().find(|name| !known.contains(name)) {
            return Err(Error::validation(
                "reap_providers",
                format!("{odd} is not configured"),
            ));
        }
        for name in known {
            let mut account = policy.account(&name).clone();
            account.reap_interval = self.interval.unwrap_or(account.reap_interval);
            account.grace = self.grace.unwrap_or(account.grace);
            account.report_only = self.report_only.unwrap_or(account.report_only);
            account.reap = reaped
                .as_ref()
                .map_or(account.reap, |reaped| reaped.contains(&name));
            policy = policy.with_account(name, account);
        }
        Ok(policy)
    }
}

/// What [`AtlasBuilder::store`] takes: a store, and the file it is in, where it is in one.
pub trait IntoStore {
    /// The store and its file.
    fn into_store(self) -> (AnyStore, Option<PathBuf>);
}

impl<S: Store> IntoStore for S {
    fn into_store(self) -> (AnyStore, Option<PathBuf>) {
        let any: &dyn std::any::Any = &self;
        let file = any
            .downcast_ref::<atlas_orchestrator::store::Redb>()
            .map(|redb| redb.path().to_owned());
        (AnyStore::new(self), file)
    }
}
