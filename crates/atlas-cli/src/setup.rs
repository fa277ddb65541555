//! What a verb works with: the configuration file, the store's place, and the accounts it may use.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atlas::config::Config;
use atlas::testkit::mock::{self, MockCloud};
use atlas::testkit::world::{CloudSpec, World, WorldClock};
use atlas::{
    AccountLimits, AccountName, AnyProvider, Atlas, Clock, Entropy, Policy, REALM_SECRET_ENV, Redb,
    RedbOptions, Secret, SystemClock, SystemEntropy,
};

use atlas_orchestrator::realm::Realm;

use crate::args::Global;
use crate::failure::{Done, Failure};

/// The name of the configuration file, in the working folder and in the user's own.
const CONFIG: &str = "atlas.toml";
/// How long a verb waits for a store that another process holds and does not answer for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Settings of one run of the program.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    config: Config,
    store: PathBuf,
    /// The account named with `--provider`.
    named: Option<AccountName>,
    /// The one mock cloud of this process.
    mock: Arc<OnceLock<AnyProvider>>,
}

impl Setup {
    /// Reads the configuration and finds the store's place. Opens nothing.
    pub(crate) fn new(global: &Global) -> Done<Self> {
        let here = Path::new(CONFIG);
        let own = config_dir().map(|dir| dir.join(CONFIG));
        let config = match (&global.config, own) {
            (Some(path), _) => Config::load(path),
            (None, _) if here.exists() => Config::load_found(here),
            (None, Some(own)) if own.exists() => Config::load_own(&own),
            (None, _) => Ok(Config::default()),
        };
        let config = config.map_err(Failure::given)?;
        let store = match global.store.clone().or_else(|| config.store.clone()) {
            Some(path) => path,
            None => data_dir()?.join("atlas.redb"),
        };
        Ok(Self {
            config,
            store,
            named: global.provider.clone(),
            mock: Arc::default(),
        })
    }

    /// The store's file.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The account named on the command line.
    pub(crate) fn named(&self) -> Option<&AccountName> {
        self.named.as_ref()
    }

    /// The account that a new session is for.
    pub(crate) fn account(&self) -> Done<AccountName> {
        let wanted = self
            .named
            .clone()
            .or_else(|| self.config.default_provider.clone());
        let mut known = self.config.accounts().into_iter();
        match (wanted, known.next(), known.next()) {
            (Some(name), ..) | (None, Some(name), None) => Ok(name),
            _ => Err(Failure::usage(
                "no account is selected; use --provider or set default_provider in atlas.toml",
            )),
        }
    }

    /// How long a session may be idle where the command line does not say it.
    pub(crate) fn idle_ttl(&self) -> Option<Duration> {
        self.config.orchestrator.idle_ttl_ms
    }

    /// Whether the machines of this account cost nothing.
    pub(crate) fn is_free(&self, account: &AccountName) -> bool {
        account.as_str() == mock::CLOUD
    }

    /// The provider of one account.
    pub(crate) fn provider(&self, account: &AccountName) -> Done<AnyProvider> {
        if self.is_free(account) {
            Ok(self.mock.get_or_init(mock_provider).clone())
        } else {
            self.config.provider(account).map_err(Failure::given)
        }
    }

    /// The same for a simulated cloud whose time runs this many times as fast.
    pub(crate) fn provider_at(&self, account: &AccountName, speed: u32) -> Done<AnyProvider> {
        let mut config = self.config.clone();
        config.speed = Some(speed);
        config.provider(account).map_err(Failure::given)
    }

    /// The accounts to use: the one named, or every one there is a key for. One that cannot be used
    /// comes with the reason.
    pub(crate) fn accounts(&self) -> Vec<(AccountName, Done<AnyProvider>)> {
        let names = self
            .named
            .as_ref()
            .map_or_else(|| self.config.accounts(), |named| [named.clone()].into());
        names
            .into_iter()
            .map(|name| (name.clone(), self.provider(&name)))
            .collect()
    }

    /// What an orchestrator is given: the named account must be usable, the others may. Sessions of
    /// an account that is missing here stay as they are.
    fn usable(&self) -> Done<Vec<(AccountName, AnyProvider)>> {
        let mut usable = Vec::new();
        let mut names = self.config.accounts();
        names.extend(self.named.clone());
        for name in names {
            match self.provider(&name) {
                Ok(provider) => usable.push((name, provider)),
                Err(failure) if self.named.as_ref() == Some(&name) => return Err(failure),
                Err(failure) => {
                    tracing::warn!(account = %name, reason = %failure, "account skipped")
                }
            }
        }
        Ok(usable)
    }

    /// Whether the secret of the realm with this fingerprint is at one of the places where atlas
    /// looks for it.
    pub(crate) fn has_secret_of(&self, fingerprint: &str) -> bool {
        let mut beside = self.store.as_os_str().to_owned();
        beside.push(".realm");
        let named = self.config.realm_secret_file.clone();
        let file = named.unwrap_or_else(|| PathBuf::from(beside));
        let in_env = env::var(REALM_SECRET_ENV).ok().map(Secret::new);
        let given = [self.config.realm_secret.clone(), in_env];
        given
            .iter()
            .flatten()
            .filter_map(|secret| Realm::new(secret).ok())
            .chain(Realm::load(file).ok())
            .any(|realm| realm.fingerprint() == fingerprint)
    }

    /// Takes the store's file, if no other process holds it at the moment.
    pub(crate) async fn take(&self) -> Done<Option<Redb>> {
        match self.open_store(Duration::ZERO).await {
            Ok(store) => Ok(Some(store)),
            Err(held) if held.kind() == "conflict" => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Starts an atlas on this store, with every account there is a key for.
    pub(crate) async fn start(&self, store: Redb) -> Done<Atlas> {
        self.start_with(store, self.usable()?).await
    }

    /// Opens the store in this process, with these accounts and no others.
    pub(crate) async fn open_with(&self, accounts: Vec<(AccountName, AnyProvider)>) -> Done<Atlas> {
        let store = self.open_store(LONGEST_WAIT).await?;
        self.start_with(store, accounts).await
    }

    async fn open_store(&self, wait: Duration) -> Done<Redb> {
        if let Some(dir) = self
            .store
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
        {
            fs::create_dir_all(dir).map_err(|error| {
                Failure::new(format!("could not create {}: {error}", dir.display()))
            })?;
        }
        let options = RedbOptions::new().wait(wait);
        Ok(options.open_async(&self.store).await?)
    }

    async fn start_with(
        &self,
        store: Redb,
        accounts: Vec<(AccountName, AnyProvider)>,
    ) -> Done<Atlas> {
        let mut policy = self
            .config
            .policy(accounts.iter().map(|(name, provider)| (name, provider)));
        if !accounts.is_empty() && accounts.iter().all(|(name, _)| self.is_free(name)) {
            policy = hurried(policy);
        }
        let mut builder = Atlas::builder().store(store).policy(policy);
        for (name, provider) in accounts {
            builder = builder.account(name, provider);
        }
        if let Ok(name) = self.account() {
            builder = builder.default_account(name);
        }
        if let Some(ttl) = self.config.orchestrator.idle_ttl_ms {
            builder = builder.idle_ttl(ttl);
        }
        if let Some(prefix) = &self.config.orchestrator.reap_name_prefix {
            builder = builder.name_prefix(prefix);
        }
        if let Some(secret) = &self.config.realm_secret {
            builder = builder.realm_secret(secret.clone());
        }
        if let Some(file) = &self.config.realm_secret_file {
            builder = builder.realm_secret_file(file);
        }
        Ok(builder.build().await?)
    }
}

/// The mock cloud is in this process: nothing about it is late.
const FREE_LIMITS: AccountLimits = AccountLimits {
    visibility_bound: Duration::from_millis(100),
    call_deadline: Duration::from_secs(1),
    call_interval: Duration::from_millis(1),
    burst: 100,
    concurrency: 16,
};

/// As patient as a cloud in this process needs: before a machine is called gone, a lease and a call
/// are waited for.
fn hurried(policy: Policy) -> Policy {
    let mut policy = policy;
    policy.lease = Duration::from_secs(2);
    policy.lease_renew = Duration::from_millis(500);
    policy.lease_margin = Duration::from_millis(200);
    policy.flush = Duration::from_millis(200);
    policy.tick = Duration::from_millis(100);
    policy.default_account.poll_interval = Duration::from_millis(200);
    for account in policy.accounts.values_mut() {
        account.poll_interval = Duration::from_millis(200);
    }
    policy
}

/// A cloud of no vendor, in this process: it lives as long as the process does, and costs nothing.
fn mock_provider() -> AnyProvider {
    let entropy: &dyn Entropy = &SystemEntropy::new();
    let clock = WorldClock::following_from(SystemClock.now(), 1.0);
    let world = World::new(entropy.next_u64(), clock).with_cloud(CloudSpec::plain(mock::CLOUD));
    world.add_key(mock::CLOUD, mock::KEY, "me");
    MockCloud::in_world(world).limits(FREE_LIMITS).provider()
}

/// The folder of this program's data.
fn data_dir() -> Done<PathBuf> {
    user_dir("XDG_DATA_HOME", ".local/share")
        .ok_or_else(|| Failure::usage("no home directory is set; name the store with --store FILE"))
}

/// The folder of this program's configuration.
fn config_dir() -> Option<PathBuf> {
    user_dir("XDG_CONFIG_HOME", ".config")
}

/// Where a user's programs keep their files (XDG base directories; on other systems the same place
/// under the home directory).
fn user_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let xdg = env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || env::home_dir().map(|home| home.join(below_home));
    Some(xdg.or_else(home)?.join("atlas"))
}
