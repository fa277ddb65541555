//! The chain of token sources: memory, the durable store, `fly`'s configuration file, `fly tokens
//! create`, the manual token.
//!
//! One search runs per app for all its callers, and it continues when they stop waiting. Apps do
//! not wait for each other. A generation number counts changes to an app; the result of a search
//! with an older number is discarded.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{
    Clock, Entropy, Error, ErrorKind, Result, Secret, SystemClock, SystemEntropy, Timestamp,
};
use atlas_http::CredentialSource;
use data_encoding::BASE32_NOPAD;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use ring::digest::{SHA256, digest};
use tokio::time::Instant;
use tracing::{Instrument as _, field};

use crate::app_name::AppName;
use crate::cli::FlyCli;
use crate::telemetry;
use crate::token::flyctl_config;
use crate::token::form::FlyToken;
use crate::token::mint::{self, MintScope};
use crate::token::store::{AnyTokenStore, StoredToken, TokenSlot};

/// How long a token of the configuration file is cached: `fly` renews it every minute.
const CONFIG_BELIEVED: Duration = Duration::from_secs(60);
/// A minted token is not used in its last minute.
const MARGIN: Duration = Duration::from_secs(60);
/// No rest is longer, for an instant beyond it may not exist.
const LONGEST_REST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Number of refused values that are remembered per app.
const MOST_REJECTED: usize = 8;

/// The source of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenSource {
    /// It was in memory.
    Memory,
    /// The durable store.
    Store,
    /// `fly`'s own configuration file.
    Config,
    /// `fly tokens create`.
    Cli,
    /// Set manually by an operator.
    Manual,
    /// `FLY_ACCESS_TOKEN` or `FLY_API_TOKEN`, if the chain was configured to use it.
    Environment,
}

impl TokenSource {
    /// The stable name, for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Store => "store",
            Self::Config => "config",
            Self::Cli => "cli",
            Self::Manual => "manual",
            Self::Environment => "environment",
        }
    }
}

/// A token that can be used now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Acquired {
    /// The token.
    pub token: FlyToken,
    /// The source of the token.
    pub source: TokenSource,
    /// Until when it is used; `None` if that is unknown.
    pub expires_at: Option<Timestamp>,
}

/// Finds, stores and removes the tokens of apps. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    environment: Option<FlyToken>,
    store: Option<AnyTokenStore>,
    config: Option<PathBuf>,
    cli: Option<FlyCli>,
    scope: MintScope,
    host: String,
    expiry: Duration,
    cli_limit: Duration,
    cli_rest: Duration,
    renew_before: Duration,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    apps: Mutex<BTreeMap<AppName, App>>,
}

/// What is known of one app.
#[derive(Default)]
struct App {
    generation: u64,
    held: Option<Acquired>,
    search: Option<Search>,
    /// The next search must not take what is kept.
    renew: bool,
    rejected: Vec<[u8; 32]>,
    cli_rests_until: Option<Instant>,
    /// Held while the store is written for this app, so that no write undoes a later delete.
    writing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone)]
struct Search {
    generation: u64,
    renews: bool,
    result: Shared<BoxFuture<'static, Result<Acquired, Missed>>>,
}

/// Why a search found nothing; the error is given to all waiting callers.
#[derive(Clone, Debug)]
struct Missed {
    kind: ErrorKind,
    message: String,
}

impl From<Missed> for Error {
    fn from(missed: Missed) -> Self {
        Self::new(missed.kind, missed.message)
    }
}

/// Builds [`Tokens`].
pub struct TokensBuilder(Inner);

impl fmt::Debug for TokensBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokensBuilder").finish_non_exhaustive()
    }
}

impl TokensBuilder {
    /// Sets the store of minted and manual tokens. By default there is none.
    #[must_use]
    pub fn store(mut self, store: AnyTokenStore) -> Self {
        self.0.store = Some(store);
        self
    }

    /// Sets a token that precedes every other step except memory, as `fly` itself prefers its
    /// environment's; it is never stored. [`Tokens::environment_token`] reads it from the
    /// environment. By default there is none.
    #[must_use]
    pub fn environment(mut self, token: Option<FlyToken>) -> Self {
        self.0.environment = token;
        self
    }

    /// Sets `fly`'s configuration file; `None` leaves it out. The default is
    /// [`Tokens::default_config_file`].
    #[must_use]
    pub fn config_file(mut self, path: Option<PathBuf>) -> Self {
        self.0.config = path;
        self
    }

    /// Sets the `fly` that mints tokens; `None` disables minting. The default is the one in the
    /// `PATH`.
    #[must_use]
    pub fn cli(mut self, cli: Option<FlyCli>) -> Self {
        self.0.cli = cli;
        self
    }

    /// Sets the scope of minted tokens. By default they can read the user's only organisation.
    #[must_use]
    pub fn scope(mut self, scope: MintScope) -> Self {
        self.0.scope = scope;
        self
    }

    /// Sets this host's name, for the names of minted tokens. Only its `[a-z0-9-]` characters are
    /// used.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        self.0.host = host
            .to_ascii_lowercase()
            .chars()
            .filter(|c| usable(*c))
            .take(40)
            .collect();
        self
    }

    /// Sets the lifetime of minted tokens. 24 h by default.
    #[must_use]
    pub fn expiry(mut self, expiry: Duration) -> Self {
        self.0.expiry = expiry.max(2 * MARGIN);
        self
    }

    /// Sets the time limit of `fly`. 15 s by default.
    #[must_use]
    pub fn cli_timeout(mut self, limit: Duration) -> Self {
        self.0.cli_limit = limit;
        self
    }

    /// Sets how long `fly` is not called again after it minted nothing. 30 s by default.
    #[must_use]
    pub fn cli_rest(mut self, rest: Duration) -> Self {
        self.0.cli_rest = rest.min(LONGEST_REST);
        self
    }

    /// Sets how long before its expiry a token is renewed in the background. 1 h by default.
    #[must_use]
    pub fn renew_before(mut self, span: Duration) -> Self {
        self.0.renew_before = span;
        self
    }

    /// Sets the clock for expiries.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.0.clock = clock;
        self
    }

    /// Sets the source of randomness for the names of minted tokens.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.0.entropy = entropy;
        self
    }

    /// Builds the chain.
    #[must_use]
    pub fn build(self) -> Tokens {
        Tokens(Arc::new(self.0))
    }
}

impl Tokens {
    /// Starts building a chain.
    #[must_use]
    pub fn builder() -> TokensBuilder {
        TokensBuilder(Inner {
            environment: None,
            store: None,
            config: Self::default_config_file(),
            cli: Some(FlyCli::new()),
            scope: MintScope::ReadOrganisation(None),
            host: "host".to_owned(),
            expiry: Duration::from_secs(24 * 3600),
            cli_limit: Duration::from_secs(15),
            cli_rest: Duration::from_secs(30),
            renew_before: Duration::from_secs(3600),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            apps: Mutex::default(),
        })
    }

    /// `$FLY_CONFIG_DIR/config.yml`, or `~/.fly/config.yml`.
    #[must_use]
    pub fn default_config_file() -> Option<PathBuf> {
        let folder = std::env::var_os("FLY_CONFIG_DIR")
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from);
        Some(
            folder
                .or_else(|| Some(std::env::home_dir()?.join(".fly")))?
                .join("config.yml"),
        )
    }

    /// `FLY_ACCESS_TOKEN`, else `FLY_API_TOKEN`, as `fly` takes them; blank counts as absent, which
    /// it does not for `fly`.
    ///
    /// # Errors
    /// `validation` for one that is no token. It is not repeated.
    pub fn environment_token() -> Result<Option<FlyToken>> {
        let given = ["FLY_ACCESS_TOKEN", "FLY_API_TOKEN"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok());
        given
            .map(Secret::new)
            .find(|text| !text.expose().trim().is_empty())
            .map(|text| FlyToken::parse(text.expose()))
            .transpose()
    }

    /// Returns a token of the app. A token in memory is returned at once, and renewed in the
    /// background when it is about to expire.
    ///
    /// # Errors
    /// `unauthorized` when every step failed; the message says why for each step, without secrets.
    ///
    /// # Cancel safety
    /// A dropped future leaves the search running for other callers.
    pub async fn get(&self, app: &AppName) -> Result<Acquired> {
        self.acquire(app, false).await
    }

    /// Returns a token that is neither the one in memory nor the one in the store. Atomic:
    /// concurrent callers get the new one. Concurrent refreshes share one search.
    ///
    /// # Errors
    /// Like [`Tokens::get`]. The earlier token is removed nevertheless.
    pub async fn refresh(&self, app: &AppName) -> Result<Acquired> {
        self.acquire(app, true).await
    }

    /// Removes the token in memory and the minted one in the store. The manual token stays.
    ///
    /// # Errors
    /// When the store cannot remove it.
    pub async fn invalidate(&self, app: &AppName) -> Result<()> {
        let writing = {
            let mut apps = self.apps();
            match apps.get_mut(app) {
                Some(state) => {
                    state.forget();
                    state.writing.clone()
                }
                None => Arc::default(),
            }
        };
        let _one = writing.lock().await;
        match &self.0.store {
            Some(store) => store.delete(app, TokenSlot::Cached).await,
            None => Ok(()),
        }
    }

    /// Stores an operator's token as the last step of the chain.
    ///
    /// # Errors
    /// When it could not be stored (also without a store); it is then not used either.
    pub async fn set_manual(&self, app: &AppName, token: FlyToken) -> Result<()> {
        let store = self.store("a manual token")?;
        store
            .put(
                app,
                TokenSlot::Manual,
                StoredToken {
                    token,
                    expires_at: None,
                    name: None,
                },
            )
            .await?;
        if let Some(state) = self.apps().get_mut(app) {
            state.rejected.clear();
        }
        Ok(())
    }

    /// Removes the operator's token.
    ///
    /// # Errors
    /// When the store cannot remove it.
    pub async fn clear_manual(&self, app: &AppName) -> Result<()> {
        self.store("a manual token")?
            .delete(app, TokenSlot::Manual)
            .await
    }

    /// Lets `fly` revoke every token that this host minted for this app and that is still valid,
    /// and removes the one in use. Returns how many were revoked.
    ///
    /// # Errors
    /// `unavailable` without a `fly`; `provider` when `fly` refused, or did not revoke all of them:
    /// the message names those that are still valid.
    pub async fn revoke(&self, app: &AppName) -> Result<usize> {
        let kept = match &self.0.store {
            Some(store) => store
                .get(app, TokenSlot::Cached)
                .await?
                .and_then(|record| record.name),
            None => None,
        };
        let cli =
            self.0.cli.as_ref().ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "there is no fly to revoke with")
            })?;
        let prefix = self.name_of(app, "");
        // The one that is kept may have been minted when this host had another name.
        let ours = |name: &str| {
            let random = name
                .strip_prefix(&prefix)
                .is_some_and(|random| random.bytes().all(|b| b.is_ascii_alphanumeric()));
            random || kept.as_deref() == Some(name)
        };
        let revoked = mint::revoke(cli, &self.0.scope, app, ours, self.0.cli_limit).await?;
        if revoked.count > 0 || revoked.failed.is_empty() {
            self.invalidate(app).await?;
        }
        if revoked.failed.is_empty() {
            return Ok(revoked.count);
        }
        let text = format!(
            "fly revoked {} tokens of {app}, and these are still good: {}",
            revoked.count,
            revoked.failed.join(", ")
        );
        Err(Error::new(ErrorKind::Provider, text))
    }

    /// The name of a minted token. Neither part has a dot, so no two apps or hosts share a name.
    fn name_of(&self, app: &AppName, random: &str) -> String {
        format!("atlas-{}.{app}.{random}", self.0.host)
    }

    /// The credential of this app for an HTTP client: renewed once when the cloud answers 401.
    #[must_use]
    pub fn credential(&self, app: &AppName) -> AppCredential {
        AppCredential {
            tokens: self.clone(),
            app: app.clone(),
        }
    }

    fn store(&self, what: &str) -> Result<&AnyTokenStore> {
        let missing = || {
            Error::new(
                ErrorKind::Unavailable,
                format!("there is no store to keep {what} in"),
            )
        };
        self.0.store.as_ref().ok_or_else(missing)
    }

    fn apps(&self) -> MutexGuard<'_, BTreeMap<AppName, App>> {
        self.0.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn acquire(&self, app: &AppName, refresh: bool) -> Result<Acquired> {
        let span = tracing::info_span!(
            "fly.token.acquire",
            app = app.as_str(),
            source = field::Empty,
            acquirer = field::Empty,
            "error.type" = field::Empty,
        );
        let begun = Instant::now();
        async {
            let span = tracing::Span::current();
            let (acquirer, result) = match self.held_or_search(app, refresh) {
                Ok(held) => ("caller", Ok(held)),
                Err(search) => ("search", search.result.await.map_err(Error::from)),
            };
            span.record("acquirer", acquirer);
            let word = match &result {
                Ok(acquired) => {
                    span.record("source", acquired.source.as_str());
                    acquired.source.as_str()
                }
                Err(error) => {
                    span.record("error.type", error.kind().as_str());
                    "none"
                }
            };
            telemetry::token_acquired(word, acquirer, begun.elapsed());
            result
        }
        .instrument(span)
        .await
    }

    /// The token in memory, or the search to wait for.
    fn held_or_search(&self, app: &AppName, refresh: bool) -> Result<Acquired, Search> {
        let now = self.0.clock.now();
        let mut apps = self.apps();
        let state = apps.entry(app.clone()).or_default();
        let held = state
            .held
            .clone()
            .filter(|held| held.expires_at.is_none_or(|end| end > now));
        if let (Some(mut held), false) = (held, refresh) {
            let near = held
                .expires_at
                .is_some_and(|end| end.saturating_sub(self.0.renew_before) <= now);
            if near && held.source != TokenSource::Config && state.search.is_none() {
                // Not waited for; the held one serves until it is there.
                self.begin(app, state, true, false);
            }
            held.source = TokenSource::Memory;
            return Ok(held);
        }
        // One that ended and is still here was cut off: nothing more will come of it.
        if let Some(search) = state
            .search
            .as_ref()
            .filter(|search| search.result.peek().is_none())
            && search.generation == state.generation
            && (search.renews || !refresh)
        {
            return Err(search.clone());
        }
        if refresh {
            state.forget();
        }
        let renews = refresh || state.renew;
        Err(self.begin(app, state, renews, refresh))
    }

    fn begin(&self, app: &AppName, state: &mut App, renews: bool, asked: bool) -> Search {
        let plan = Plan {
            generation: state.generation,
            renews,
            rejected: state.rejected.clone(),
            cli_rests: !asked
                && state
                    .cli_rests_until
                    .is_some_and(|until| until > Instant::now()),
            writing: state.writing.clone(),
        };
        let (this, app) = (self.clone(), app.clone());
        // A task of its own: it runs to its end even if every caller stops waiting.
        let task = tokio::spawn(async move { this.search(&app, plan).await }.in_current_span());
        let lost = Missed {
            kind: ErrorKind::Unavailable,
            message: "the search for a fly token was cut off".to_owned(),
        };
        let result = task
            .map(move |joined| joined.unwrap_or(Err(lost)))
            .boxed()
            .shared();
        let search = Search {
            generation: state.generation,
            renews,
            result,
        };
        state.search = Some(search.clone());
        search
    }

    async fn search(&self, app: &AppName, plan: Plan) -> Result<Acquired, Missed> {
        let found = self.walk(app, &plan).await;
        let mut apps = self.apps();
        let state = apps.entry(app.clone()).or_default();
        if state.generation == plan.generation {
            state.search = None;
            if let Ok(acquired) = &found
                && acquired.source != TokenSource::Manual
            {
                state.renew = false;
                state.held = Some(acquired.clone());
            }
        }
        found
    }

    /// The steps after memory, in their order.
    async fn walk(&self, app: &AppName, plan: &Plan) -> Result<Acquired, Missed> {
        let inner = &*self.0;
        let mut missed = Vec::new();
        match &inner.environment {
            Some(token) if plan.allows(token) => {
                return Ok(Acquired {
                    token: token.clone(),
                    source: TokenSource::Environment,
                    expires_at: None,
                });
            }
            Some(_) => missed.push("the environment's token was refused by fly".to_owned()),
            None => {}
        }
        match self.kept(app, plan).await {
            Ok(found) => return Ok(found),
            Err(why) => missed.extend(why),
        }
        match self.configured(plan).await {
            Ok(token) => {
                let expires_at = Some(inner.clock.now().saturating_add(CONFIG_BELIEVED));
                return Ok(Acquired {
                    token,
                    source: TokenSource::Config,
                    expires_at,
                });
            }
            Err(why) => missed.push(why.to_owned()),
        }
        match self.minted(app, plan).await {
            Ok(found) => return Ok(found),
            Err(why) => missed.push(why),
        }
        let manual = match &inner.store {
            None => Ok(None),
            Some(store) => store.get(app, TokenSlot::Manual).await,
        };
        match manual {
            Ok(Some(record)) if plan.allows(&record.token) => Ok(Acquired {
                token: record.token,
                source: TokenSource::Manual,
                expires_at: record.expires_at,
            }),
            other => {
                missed.push(match other {
                    Ok(Some(_)) => "the manual token was refused by fly".to_owned(),
                    Ok(None) => "there is no manual token".to_owned(),
                    Err(error) => error.message().to_owned(),
                });
                Err(Missed {
                    kind: ErrorKind::Unauthorized,
                    message: format!("no fly token: {}", missed.join("; ")),
                })
            }
        }
    }

    /// The minted token the store kept. A renewal drops it instead.
    async fn kept(&self, app: &AppName, plan: &Plan) -> Result<Acquired, Option<String>> {
        let Some(store) = &self.0.store else {
            return Err(None);
        };
        if plan.renews {
            return Err(None);
        }
        let record = store
            .get(app, TokenSlot::Cached)
            .await
            .map_err(|error| Some(error.message().to_owned()))?;
        let now = self.0.clock.now();
        record
            .filter(|record| {
                record.expires_at.is_some_and(|end| end > now) && plan.allows(&record.token)
            })
            .map(
                |StoredToken {
                     token, expires_at, ..
                 }| Acquired {
                    token,
                    source: TokenSource::Store,
                    expires_at,
                },
            )
            .ok_or(None)
    }

    async fn configured(&self, plan: &Plan) -> Result<FlyToken, &'static str> {
        let path = self
            .0
            .config
            .clone()
            .ok_or("the fly configuration file is left out")?;
        let read = tokio::task::spawn_blocking(move || flyctl_config::read(&path)).await;
        let token = read.unwrap_or(Err("the fly configuration file cannot be read"))?;
        if plan.allows(&token) {
            Ok(token)
        } else {
            Err("the token of the fly configuration file was refused by fly")
        }
    }

    async fn minted(&self, app: &AppName, plan: &Plan) -> Result<Acquired, String> {
        let inner = &*self.0;
        let cli = inner.cli.as_ref().ok_or("minting is left out")?;
        if plan.cli_rests {
            return Err("fly minted nothing a moment ago".to_owned());
        }
        let mut random = [0; 5];
        inner.entropy.fill(&mut random);
        let name = self.name_of(app, &BASE32_NOPAD.encode(&random).to_ascii_lowercase());
        let before = inner.clock.now();
        let token = match mint::create(cli, &inner.scope, app, &name, inner.expiry, inner.cli_limit)
            .await
        {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(app = app.as_str(), error = %error, "no fly token was minted");
                if let Some(state) = self.apps().get_mut(app) {
                    state.cli_rests_until = Some(Instant::now() + inner.cli_rest);
                }
                return Err(error.message().to_owned());
            }
        };
        let expires_at = Some(before.saturating_add(inner.expiry.saturating_sub(MARGIN)));
        if let Some(store) = &inner.store {
            let _one = plan.writing.lock().await;
            // Only if the app was not removed in the meantime: a late write would restore what was
            // removed.
            let current = self
                .apps()
                .get(app)
                .is_some_and(|state| state.generation == plan.generation);
            let record = StoredToken {
                token: token.clone(),
                expires_at,
                name: Some(name),
            };
            if current && let Err(error) = store.put(app, TokenSlot::Cached, record).await {
                tracing::error!(app = app.as_str(), error = %error,
                    "a minted fly token could not be kept");
            }
        }
        Ok(Acquired {
            token,
            source: TokenSource::Cli,
            expires_at,
        })
    }

    /// The cloud refused this `Authorization` value.
    fn rejected(&self, app: &AppName, value: &Secret) {
        let refused = fingerprint(value);
        let mut apps = self.apps();
        let state = apps.entry(app.clone()).or_default();
        if state.rejected.contains(&refused) {
            return;
        }
        if state.rejected.len() == MOST_REJECTED {
            state.rejected.remove(0);
        }
        state.rejected.push(refused);
        let is_held = state
            .held
            .as_ref()
            .is_none_or(|held| fingerprint(&held.token.authorization()) == refused);
        // Another caller renewed it already, if a different one is held.
        if is_held {
            state.forget();
            state.renew = true;
        }
    }
}

impl App {
    fn forget(&mut self) {
        self.generation += 1;
        self.held = None;
        self.search = None;
    }
}

/// What a search has to know of its app.
struct Plan {
    generation: u64,
    renews: bool,
    rejected: Vec<[u8; 32]>,
    cli_rests: bool,
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Plan {
    fn allows(&self, token: &FlyToken) -> bool {
        !self.rejected.contains(&fingerprint(&token.authorization()))
    }
}

fn fingerprint(value: &Secret) -> [u8; 32] {
    let mut short = [0; 32];
    short.copy_from_slice(digest(&SHA256, value.expose().as_bytes()).as_ref());
    short
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("scope", &self.0.scope)
            .field("store", &self.0.store)
            .finish_non_exhaustive()
    }
}

/// The credential of one app, for an `atlas-http` client.
#[derive(Clone, Debug)]
pub struct AppCredential {
    tokens: Tokens,
    app: AppName,
}

impl CredentialSource for AppCredential {
    async fn authorization(&self) -> Result<Secret> {
        Ok(self.tokens.get(&self.app).await?.token.authorization())
    }

    fn rejected(&self, value: &Secret) {
        self.tokens.rejected(&self.app, value);
    }

    fn origin(&self) -> String {
        format!("the token chain of {}", self.app)
    }
}
