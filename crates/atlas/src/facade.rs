//! `Atlas`: checks and connects accounts, a store and an orchestrator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use atlas_core::config::resolve_account;
use atlas_core::{
    AccountName, AnyProvider, Clock, ComputeRequest, Entropy, Error, ErrorKind, Provider, Result,
    Secret, SystemClock, SystemEntropy,
};
use atlas_orchestrator::store::{AnyStore, Memory};
use atlas_orchestrator::{
    Acquired, ActivitySource, AnyActivitySource, AnyReadyProbe, Cursor, Orchestrator, Policy,
    ReadyProbe, Risk, Scope, Session, SessionFilter, SessionId, SessionInfo, SessionKind,
    SessionOptions, Shutdown, ShutdownReport, Subscription, TaskOutcome,
};
use atlas_owner::OwnerSocket;

use crate::owner;
use crate::realm::{REALM_SECRET_ENV, RealmSource};

/// Rents machines for users and tasks on all configured accounts. Cheap to clone; clones share one
/// instance.
///
/// For the store, dropping the last clone without [`Atlas::shutdown`] is a crash: nothing is lost,
/// and the next process continues when the lease has expired.
#[derive(Clone, Debug)]
pub struct Atlas(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    accounts: BTreeMap<AccountName, AnyProvider>,
    default_account: Option<AccountName>,
    idle_ttl: Option<Duration>,
    orchestrator: Orchestrator,
    /// The owner's socket, if this process holds a store that is in a file.
    socket: Mutex<Option<OwnerSocket>>,
    #[cfg(feature = "guard")]
    permits: std::sync::OnceLock<crate::guard::Renewal>,
    #[cfg(feature = "guard")]
    guards: Option<crate::guard::Guards>,
}

/// A weak reference to an [`Atlas`].
#[derive(Clone, Debug)]
pub(crate) struct WeakAtlas(Weak<Inner>);

impl WeakAtlas {
    pub(crate) fn upgrade(&self) -> Result<Atlas> {
        let gone = || Error::new(ErrorKind::Unavailable, "this atlas was shut down");
        self.0.upgrade().map(Atlas).ok_or_else(gone)
    }
}

impl Atlas {
    /// Starts building an [`Atlas`].
    pub fn builder() -> AtlasBuilder {
        AtlasBuilder::default()
    }

    /// Rents a machine for a session. Returns when the cloud has accepted the order, or when it is
    /// known that no machine can be had.
    ///
    /// # Errors
    /// `validation` or `unsupported` before any request; `no_capacity`, `quota`, `unauthorized` and
    /// similar kinds when no order was accepted. `unavailable` when the store fails or this process
    /// shuts down first: the session may be recorded then, and ends by its limits.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the order: the session is recorded and ends by its
    /// limits.
    pub async fn spawn(&self, request: ComputeRequest, options: SessionOptions) -> Result<Session> {
        let options = self.complete(options)?;
        self.0.orchestrator.spawn(request, options).await
    }

    /// The session that has the session key of these options, or a new one. Of any number of
    /// concurrent calls with one key, on any number of nodes, exactly one rents a machine. Returns
    /// when the cloud has accepted the order.
    ///
    /// ```no_run
    /// # async fn handler(atlas: atlas::Atlas) -> Result<(), atlas::Error> {
    /// use atlas::{Auth, ComputeRequest, Gpu, Port, SessionOptions};
    /// let request = ComputeRequest::gpu(Gpu::H100)
    ///     .image("ghcr.io/me/infer:1")
    ///     .port(Port::http(8000))
    ///     .auth(Auth::Bearer);
    /// let options = SessionOptions::new().user("u42").key("studio:u42");
    /// let acquired = atlas.get_or_spawn(request, options).await?;
    /// acquired.session.touch();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Like [`Atlas::spawn`]; `validation` without a key; `conflict` if the session with this key
    /// was made with another request, naming the first field that differs.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the order: the next call with the same key returns its
    /// session.
    pub async fn get_or_spawn(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
    ) -> Result<Acquired> {
        let options = self.complete(options)?;
        self.0.orchestrator.get_or_spawn(request, options).await
    }

    /// The session that has this session key, unless it is ending.
    ///
    /// # Errors
    /// `validation` if no session can have such a key; `unavailable` if the store cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn find(&self, key: &str) -> Result<Option<Session>> {
        self.0.orchestrator.find(key).await
    }

    /// Rents a machine for one command, waits for the command's outcome, and gives the machine
    /// back.
    ///
    /// # Errors
    /// Like [`Atlas::spawn`]. A command that failed is an outcome, not an error.
    ///
    /// # Cancel safety
    /// Like [`Atlas::spawn`].
    pub async fn run_task(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
    ) -> Result<(Session, TaskOutcome)> {
        let options = self.complete(options)?;
        self.0.orchestrator.run_task(request, options).await
    }

    /// Records a session without waiting for a cloud.
    ///
    /// # Errors
    /// `validation`, `unsupported`; `unavailable` when the store cannot record it.
    ///
    /// # Cancel safety
    /// A dropped call may have recorded the session.
    pub async fn launch(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
        kind: SessionKind,
    ) -> Result<SessionId> {
        let options = self.complete(options)?;
        self.0.orchestrator.launch(request, options, kind).await
    }

    /// Generates an id for a session that is launched later, for data that must be bound to the id
    /// first, such as a callback token.
    #[must_use]
    pub fn new_id(&self) -> SessionId {
        self.0.orchestrator.new_id()
    }

    /// Like [`Atlas::launch`], with an id from [`Atlas::new_id`].
    ///
    /// # Errors
    /// Like [`Atlas::launch`]; `conflict` if the id is taken.
    ///
    /// # Cancel safety
    /// Like [`Atlas::launch`].
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

    /// The current spend in dollars per hour by purpose: everything except the serving machines is
    /// at risk.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn risk(&self) -> Result<Risk> {
        self.0.orchestrator.risk().await
    }

    /// A handle to a recorded session.
    ///
    /// # Errors
    /// `not_found` if there is no such session; `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn session(&self, id: SessionId) -> Result<Session> {
        self.0.orchestrator.session(id).await
    }

    /// Information about the sessions that match the filter.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn list(&self, filter: SessionFilter) -> Result<Vec<SessionInfo>> {
        self.0.orchestrator.list(filter).await
    }

    /// Subscribes to the events of one session, of one user's sessions, or of all, after a cursor.
    #[must_use]
    pub fn events(&self, scope: Scope, from: Cursor) -> Subscription {
        self.0.orchestrator.subscribe(scope, from)
    }

    /// The provider of an account, for calls outside any session. Atlas does not look after what
    /// such calls make; the caller must.
    ///
    /// # Errors
    /// `validation` if there is no such account.
    pub fn provider(&self, account: &str) -> Result<AnyProvider> {
        let known: Vec<AccountName> = self.0.accounts.keys().cloned().collect();
        let name = resolve_account(Some(&AccountName::new(account)?), None, &known)?;
        self.0
            .accounts
            .get(&name)
            .cloned()
            .ok_or_else(|| Error::validation("provider", format!("{name} is not configured")))
    }

    /// The names of the configured accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountName> {
        self.0.accounts.keys()
    }

    /// The orchestrator, for operations that the facade does not offer.
    #[must_use]
    pub fn orchestrator(&self) -> &Orchestrator {
        &self.0.orchestrator
    }

    /// Ends every subscription once it has delivered the events so far. Call it before stopping a
    /// server that streams events, and [`Atlas::shutdown`] after that.
    pub fn end_subscriptions(&self) {
        self.0.orchestrator.end_subscriptions();
    }

    /// Shuts this process down: hands its sessions over, or ends every machine and waits for the
    /// proof.
    ///
    /// # Errors
    /// `validation` for a [`Shutdown::Handover`] of live sessions when the store is in memory;
    /// nothing was shut down then. `unavailable` when the store cannot be written; the next process
    /// then continues when the lease has expired.
    ///
    /// # Cancel safety
    /// Cancel safe: it may be called again.
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

    /// Revokes a grant: the guard of the session's machine no longer accepts it, and closes what
    /// was opened with it, WebSockets and downloads included. Requires
    /// [`AtlasBuilder::guard_activity`], which configures where guards are reached.
    ///
    /// # Errors
    /// `validation` without `guard_activity`; `not_found` if there is no such session;
    /// `unavailable` while there is no machine; otherwise the error of the call to the guard.
    ///
    /// # Cancel safety
    /// A dropped call may have been carried out. It can be repeated.
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

    /// Fills in the account and the idle limit if the caller left them unset.
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

/// Configures and builds an [`Atlas`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct AtlasBuilder {
    accounts: Vec<(AccountName, AnyProvider)>,
    default_account: Option<Result<AccountName>>,
    idle_ttl: Option<Duration>,
    store: Option<AnyStore>,
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
    /// Adds a provider as the account named after its cloud.
    pub fn provider(self, provider: impl Provider) -> Self {
        let provider = AnyProvider::new(provider);
        let name = AccountName::from(provider.id());
        self.account(name, provider)
    }

    /// Adds a provider under a name: a second account of a cloud, or an existing handle.
    pub fn account(mut self, name: AccountName, provider: AnyProvider) -> Self {
        self.accounts.push((name, provider));
        self
    }

    /// Sets the account of sessions that name none. Not needed if there is only one account.
    pub fn default_provider(self, name: &str) -> Self {
        Self {
            default_account: Some(AccountName::new(name)),
            ..self
        }
    }

    /// Like [`AtlasBuilder::default_provider`].
    pub fn default_account(self, name: AccountName) -> Self {
        Self {
            default_account: Some(Ok(name)),
            ..self
        }
    }

    /// Sets the idle limit of sessions that do not set their own.
    pub fn idle_ttl(self, ttl: Duration) -> Self {
        Self {
            idle_ttl: Some(ttl),
            ..self
        }
    }

    /// Sets the store that records every machine. By default it is in memory: [`Atlas::shutdown`]
    /// then ends all machines, and a process that dies leaves them running.
    ///
    /// Beside a store with a [`location`](atlas_orchestrator::store::Store::location) lie the
    /// realm's secret, unless it is given, and the socket of this process.
    pub fn store(self, store: impl Into<AnyStore>) -> Self {
        Self {
            store: Some(store.into()),
            ..self
        }
    }

    /// Sets the policy of the orchestrator.
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Sets the time between two reaper scans of an account.
    pub fn reap_interval(mut self, interval: Duration) -> Self {
        self.reaper.interval = Some(interval);
        self
    }

    /// Sets the accounts that the reaper scans; all by default.
    pub fn reap_providers<'a>(mut self, accounts: impl IntoIterator<Item = &'a str>) -> Self {
        self.reaper.providers = Some(accounts.into_iter().map(AccountName::new).collect());
        self
    }

    /// Sets the prefix of machine names: the reaper looks only at names with it, and new machines
    /// get it. An empty prefix matches all names. Whether a machine is ours is decided by its key
    /// alone.
    pub fn reap_name_prefix(self, prefix: impl Into<String>) -> Self {
        self.name_prefix(prefix)
    }

    /// Sets how long the reaper must have seen a machine before it may delete it.
    pub fn reap_grace(mut self, grace: Duration) -> Self {
        self.reaper.grace = Some(grace);
        self
    }

    /// Makes the reaper only report what it would delete.
    pub fn reap_report_only(mut self, report_only: bool) -> Self {
        self.reaper.report_only = Some(report_only);
        self
    }

    /// Adds a source of activity besides touches.
    pub fn activity(mut self, source: impl ActivitySource) -> Self {
        self.sources.push(AnyActivitySource::new(source));
        self
    }

    /// Sets the probe that asks machines whether they are usable, in addition to their cloud's
    /// status. With the feature `probe`, the default is a `NetProbe`.
    pub fn probe(self, probe: impl ReadyProbe) -> Self {
        Self {
            probe: Some(AnyReadyProbe::new(probe)),
            ..self
        }
    }

    /// Sets the prefix of machine names.
    pub fn name_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            name_prefix: Some(prefix.into()),
            ..self
        }
    }

    /// Sets the realm's secret: at least 32 random characters, the same on every node that shares
    /// the store. By default it is read from the variable `ATLAS_REALM_SECRET`, else from a private
    /// file beside the store, which is created on first use.
    pub fn realm_secret(mut self, secret: Secret) -> Self {
        self.realm.secret = Some(secret);
        self
    }

    /// Sets the file of the realm's secret, instead of one beside the store.
    pub fn realm_secret_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.realm.file = Some(file.into());
        self
    }

    /// Sets the directory that records how far the store of each realm has come, so that a store
    /// that was rolled back, restored or copied is detected. The default is
    /// `$XDG_STATE_HOME/atlas`, else `~/.local/state/atlas`. It must not be restored together with
    /// the store.
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.realm.state_dir = Some(dir.into());
        self
    }

    /// Sets the source of the current time.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Sets the source of ids, jitter and tokens.
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// Counts traffic through the guards in the machines as activity, besides touches.
    #[cfg(feature = "guard")]
    pub fn guard_activity(self, guards: crate::guard::GuardActivity) -> Self {
        Self {
            guards: Some(guards),
            ..self
        }
    }

    /// Checks the configuration and starts the orchestrator, which continues with all sessions that
    /// the store has recorded.
    ///
    /// # Errors
    /// `validation` for two accounts of one name, a default account that does not exist, a weak
    /// realm secret, or a store of another realm; `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// If the future is dropped, what was started ends as in a crash.
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
        let in_memory = || AnyStore::new(Memory::new(self.clock.clone(), &*self.entropy));
        let store = self.store.unwrap_or_else(in_memory);
        let location = store.location().map(Path::to_owned);
        let from_env = std::env::var(REALM_SECRET_ENV).ok().map(Secret::new);
        let bound = store.info().await?.fingerprint.is_some();
        let found = self
            .realm
            .find(from_env, location.as_deref(), bound, &self.entropy)?;
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
        if let Some(location) = location {
            let listening =
                owner::listen(WeakAtlas(Arc::downgrade(&atlas.0)), &location, &*entropy);
            let socket = match listening {
                Ok(socket) => socket,
                Err(error) => {
                    // The caller never receives the atlas that was started, so it hands over to the
                    // next process.
                    if let Err(left) = atlas.shutdown(Shutdown::Handover).await {
                        tracing::warn!(error = %left, "a failed build did not hand over");
                    }
                    return Err(error);
                }
            };
            *atlas
                .0
                .socket
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(socket);
        }
        Ok(atlas)
    }
}

/// The reaper settings of the builder.
#[derive(Debug, Default)]
struct Reaper {
    interval: Option<Duration>,
    providers: Option<Vec<Result<AccountName>>>,
    grace: Option<Duration>,
    report_only: Option<bool>,
}

impl Reaper {
    /// Overrides the policy with these settings.
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
