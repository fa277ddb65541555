//! `atlas.toml`: accounts, limits and the reaper, for programs that do not configure them in code.
//!
//! ```
//! let config = atlas::config::Config::parse(r#"
//!     default_provider = "runpod-eu"
//!     [accounts.runpod-eu]
//!     provider = "runpod"
//!     api_key_env = "RUNPOD_EU_KEY"
//!     [orchestrator]
//!     idle_ttl_ms = 900000
//!     reap_interval = "60s"
//!     reap_providers = ["runpod-eu"]
//! "#, "atlas.toml")?;
//! assert_eq!(config.default_provider.unwrap().as_str(), "runpod-eu");
//! # Ok::<(), atlas::Error>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{
    AccountLimits, AccountName, AnyProvider, Error, ErrorKind, ProviderId, Result, Secret,
};
use atlas_orchestrator::Policy;
use serde::Deserialize;

use crate::clouds::{CloudSettings, built_in_cloud, built_in_clouds};
use crate::span;

/// A complete configuration file. Unset values come from the environment, then from defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The account used when a call names none.
    pub default_provider: Option<AccountName>,
    /// The path of the store's file, relative to the working directory.
    pub store: Option<PathBuf>,
    /// The realm's secret itself.
    pub realm_secret: Option<Secret>,
    /// The file that holds the realm's secret, mode 0600; a file beside the store if unset.
    pub realm_secret_file: Option<PathBuf>,
    /// How sessions and the reaper behave.
    pub orchestrator: OrchestratorConfig,
    /// All other settings of the orchestrator, named as in [`Policy`]; rarely needed.
    pub policy: Policy,
    /// Credential sources, by name.
    pub accounts: BTreeMap<AccountName, AccountConfig>,
    /// For simulated clouds: how many times as fast their time runs. No file sets it.
    #[serde(skip)]
    pub speed: Option<u32>,
}

/// How sessions and the reaper behave. Durations are strings (`"90s"`) or whole milliseconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OrchestratorConfig {
    /// The idle limit of sessions that do not set their own.
    #[serde(deserialize_with = "span::deserialize", alias = "idle_ttl")]
    pub idle_ttl_ms: Option<Duration>,
    /// Time between two scans of an account.
    #[serde(deserialize_with = "span::deserialize")]
    pub reap_interval: Option<Duration>,
    /// The accounts that the reaper scans; all if unset.
    pub reap_providers: Option<Vec<AccountName>>,
    /// The prefix of machine names: the reaper looks only at names with it, and new machines get
    /// it.
    pub reap_name_prefix: Option<String>,
    /// The minimum age of a machine before the reaper may delete it.
    #[serde(deserialize_with = "span::deserialize")]
    pub reap_grace: Option<Duration>,
    /// The reaper only reports what it would delete.
    pub reap_report_only: Option<bool>,
    /// Time between two status checks of a session's machine.
    #[serde(deserialize_with = "span::deserialize")]
    pub poll_interval: Option<Duration>,
}

/// One account: its cloud, its API key and the cloud's limits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AccountConfig {
    /// The cloud; if unset, the cloud that the account is named after.
    pub provider: Option<ProviderId>,
    /// The API key itself. Prefer `api_key_env`.
    pub api_key: Option<Secret>,
    /// The environment variable that holds the API key; the cloud's usual one if unset.
    pub api_key_env: Option<String>,
    /// Another base URL. `http://` is allowed only for loopback addresses.
    pub base_url: Option<String>,
    /// The longest time until a change appears in the cloud's own answers.
    #[serde(deserialize_with = "span::deserialize")]
    pub visibility_bound: Option<Duration>,
    /// The maximum time of one call, including its retries.
    #[serde(deserialize_with = "span::deserialize")]
    pub call_deadline: Option<Duration>,
    /// The minimum average time between two calls.
    #[serde(deserialize_with = "span::deserialize")]
    pub call_interval: Option<Duration>,
    /// The maximum number of concurrent calls.
    pub concurrency: Option<u32>,
    /// RunPod with the feature `runpod-graphql`: allows spot pods.
    pub spot: bool,
    /// Removed; it is read only to say why.
    dead_man: RemovedDeadMan,
    /// Fly: the organisation, by its slug; the token's own where unset.
    pub org: Option<String>,
    /// Fly: the app in which machines without ports are made; each gets its own app if unset.
    pub app: Option<String>,
}

/// A setting that was removed: a file that still counts on it is refused. RunPod took the time and
/// never acted on it (docs/clouds/runpod.md, "GraphQL").
#[derive(Clone, Copy, Debug, Default)]
struct RemovedDeadMan;

impl<'de> Deserialize<'de> for RemovedDeadMan {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "dead_man was removed: RunPod accepts terminateAfter and never acts on it, so pods \
             ran on and were billed; delete this line, and keep an atlas process running to end \
             pods",
        ))
    }
}

impl AccountConfig {
    /// The API key that the file gives, directly or through a variable name.
    fn key(&self, account: &AccountName) -> Result<Option<ApiKey>> {
        let file = |field: &str| Origin::File(format!("accounts.{account}.{field}"));
        if let Some(secret) = &self.api_key {
            return Ok(Some(ApiKey {
                secret: secret.clone(),
                origin: file("api_key"),
            }));
        }
        let Some(variable) = &self.api_key_env else {
            return Ok(None);
        };
        let value = std::env::var(variable).ok().map(Secret::new);
        ApiKey::resolve([(file("api_key_env"), value)], variable).map(Some)
    }

    /// Whether the account sets any limit.
    fn has_limits(&self) -> bool {
        let spans = [
            self.visibility_bound,
            self.call_deadline,
            self.call_interval,
        ];
        spans.iter().any(Option::is_some) || self.concurrency.is_some()
    }

    /// The cloud's own limits, overridden by those that this account sets.
    #[must_use]
    pub fn limits(&self, of_cloud: AccountLimits) -> AccountLimits {
        AccountLimits {
            visibility_bound: self.visibility_bound.unwrap_or(of_cloud.visibility_bound),
            call_deadline: self.call_deadline.unwrap_or(of_cloud.call_deadline),
            call_interval: self.call_interval.unwrap_or(of_cloud.call_interval),
            concurrency: self.concurrency.unwrap_or(of_cloud.concurrency),
            ..of_cloud
        }
    }
}

impl Config {
    /// Every account named in the file, and every cloud whose key is in the environment.
    #[must_use]
    pub fn accounts(&self) -> BTreeSet<AccountName> {
        let set =
            |variable: &&str| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        let clouds = built_in_clouds()
            .iter()
            .filter(|cloud| cloud.key_variables.iter().any(set));
        let clouds = clouds.filter_map(|cloud| AccountName::new(cloud.name).ok());
        self.accounts
            .keys()
            .cloned()
            .chain(self.default_provider.clone())
            .chain(clouds)
            .collect()
    }

    /// The provider of an account: one from the file, or a cloud by its own name, configured from
    /// the environment.
    ///
    /// # Errors
    /// `validation` for a cloud that is not built in, or for a setting that the cloud does not
    /// have; `unauthorized` if there is no key.
    pub fn provider(&self, account: &AccountName) -> Result<AnyProvider> {
        let settings = self.accounts.get(account).cloned().unwrap_or_default();
        let cloud = match &settings.provider {
            Some(cloud) => cloud.clone(),
            None => ProviderId::new(account.as_str())?,
        };
        let Some(cloud) = built_in_cloud(cloud.as_str()) else {
            return Err(Error::validation(
                "provider",
                format!(
                    "this build of atlas has no cloud {:?}; configured accounts: {}",
                    cloud.as_str(),
                    self.known()
                ),
            ));
        };
        for (name, is_set, why) in [
            (
                "spot",
                settings.spot,
                "spot is RunPod's, and needs the feature runpod-graphql",
            ),
            ("org", settings.org.is_some(), "org and app are Fly's"),
            ("app", settings.app.is_some(), "org and app are Fly's"),
        ] {
            if is_set && !cloud.own_settings.contains(&name) {
                return Err(Error::validation(format!("accounts.{account}"), why));
            }
        }
        let mut with = CloudSettings {
            key: settings.key(account)?,
            base_url: settings.base_url.clone(),
            environment: true,
            speed: self.speed,
            spot: settings.spot,
            org: settings.org.clone(),
            app: settings.app.clone(),
            ..CloudSettings::default()
        };
        let provider = cloud.provider(&with)?;
        if !settings.has_limits() {
            return Ok(provider);
        }
        with.limits = Some(settings.limits(provider.limits()));
        cloud.provider(&with)
    }

    /// The names of the file's accounts, for error messages.
    fn known(&self) -> String {
        let names: Vec<&str> = self.accounts.keys().map(AccountName::as_str).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    }

    /// The orchestrator's policy for these accounts: `[policy]`, overridden by the ex_atlas names
    /// and by each account's own settings.
    #[must_use]
    pub fn policy<'a>(
        &self,
        accounts: impl IntoIterator<Item = (&'a AccountName, &'a AnyProvider)>,
    ) -> Policy {
        let mut policy = self.policy.clone();
        let set = &self.orchestrator;
        policy.default_account.grace = set.reap_grace.unwrap_or(policy.default_account.grace);
        policy.default_account.reap_interval = set
            .reap_interval
            .unwrap_or(policy.default_account.reap_interval);
        policy.default_account.poll_interval = set
            .poll_interval
            .unwrap_or(policy.default_account.poll_interval);
        policy.default_account.report_only = set
            .reap_report_only
            .unwrap_or(policy.default_account.report_only);
        for (name, provider) in accounts {
            let mut account = policy.account(name).clone();
            if let Some(reaped) = &set.reap_providers {
                account.reap = reaped.contains(name);
            }
            if let Some(own) = self.accounts.get(name) {
                account.limits =
                    Some(own.limits(account.limits.unwrap_or_else(|| provider.limits())));
            }
            policy = policy.with_account(name.clone(), account);
        }
        policy
    }

    /// Reads a file that the user named explicitly. It may set everything.
    ///
    /// # Errors
    /// `unavailable` when it cannot be read. `validation` when it is wrong; the message names the
    /// position and never a secret.
    pub fn load(path: &Path) -> Result<Self> {
        let (_, text) = read(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the file in the user's own configuration directory. It may set everything, and must
    /// belong to the user.
    ///
    /// # Errors
    /// Like [`Config::load`]; `validation` for a file that belongs to another user, or that
    /// everyone can write.
    pub fn load_own(path: &Path) -> Result<Self> {
        let (meta, text) = read(path)?;
        refuse_foreign(path, &meta)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a file found in the working directory, which may be a clone of another person's
    /// repository. Such a file may not set keys or secrets, nor where they come from or are sent
    /// to: otherwise the author of that directory would receive the user's keys, or the secrets of
    /// the user's machines.
    ///
    /// # Errors
    /// Like [`Config::load_own`]; `validation` for a setting that such a file may not contain.
    pub fn load_found(path: &Path) -> Result<Self> {
        let config = Self::load_own(path)?;
        match config.trusted_setting() {
            None => Ok(config),
            Some((field, why)) => Err(Error::validation(
                &field,
                format!(
                    "{} was found in the working folder and may not set {field}, {why}; name the \
                     file with --config, or move the setting to the atlas.toml of your \
                     configuration folder",
                    path.display(),
                ),
            )),
        }
    }

    /// The first setting that a file found in the working directory may not contain, and the
    /// reason.
    fn trusted_setting(&self) -> Option<(String, &'static str)> {
        let secret = "which identifies your machines";
        if self.realm_secret.is_some() {
            return Some(("realm_secret".to_owned(), secret));
        }
        if self.realm_secret_file.is_some() {
            return Some(("realm_secret_file".to_owned(), secret));
        }
        let inside = |path: &PathBuf| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        if !self.store.as_ref().is_none_or(inside) {
            let why = "whose secrets lie beside it, outside this folder";
            return Some(("store".to_owned(), why));
        }
        self.accounts.iter().find_map(|(name, account)| {
            let (field, why) = if account.base_url.is_some() {
                ("base_url", "which receives the account's key")
            } else if account.api_key_env.is_some() {
                ("api_key_env", "which selects the secret that is sent")
            } else if account.api_key.is_some() {
                ("api_key", "whose owner sees what your machines are given")
            } else {
                return None;
            };
            Some((format!("accounts.{name}.{field}"), why))
        })
    }

    /// Parses the text of a file; `name` appears in errors.
    ///
    /// # Errors
    /// `validation`, naming the position and never a secret.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        // The parser's own `Display` quotes the line it failed on, which may contain a key. Only
        // its message and position are kept.
        let place = |error: &toml::de::Error| {
            error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1)
        };
        let wrong = |error: &toml::de::Error, path: String| {
            let about = if path.ends_with("key") || path.ends_with("secret") {
                "must be a text"
            } else {
                error.message()
            };
            Error::validation(path, format!("{about} ({name}, line {})", place(error)))
        };
        let document =
            toml::Deserializer::parse(text).map_err(|error| wrong(&error, "config".to_owned()))?;
        let config: Self = serde_path_to_error::deserialize(document)
            .map_err(|error| wrong(error.inner(), error.path().to_string()))?;
        Ok(config)
    }
}

fn read(path: &Path) -> Result<(Metadata, String)> {
    let unreadable = |error| {
        Error::new(
            ErrorKind::Unavailable,
            format!("could not read the configuration {}", path.display()),
        )
        .with_source(error)
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok((meta, text))
}

/// Refuses a file that another user could have written.
#[cfg(unix)]
fn refuse_foreign(path: &Path, meta: &Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let problem = if meta.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user; name it with --config if you trust it, or remove it"
    } else if meta.mode() & 0o002 != 0 {
        "can be written by every user; check what is in it, then chmod o-w"
    } else {
        return Ok(());
    };
    Err(Error::validation(
        "config",
        format!("{} {problem}", path.display()),
    ))
}

/// Other systems do not report the owner of a file.
#[cfg(not(unix))]
fn refuse_foreign(_: &Path, _: &Metadata) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_only_found_sets_no_key_and_no_place_of_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("atlas.toml");
        for (text, field) in [
            (
                "[accounts.runpod]\nbase_url = 'https://x'",
                "accounts.runpod.base_url",
            ),
            (
                "[accounts.a]\napi_key_env = 'GITHUB_TOKEN'",
                "accounts.a.api_key_env",
            ),
            ("[accounts.a]\napi_key = 'k'", "accounts.a.api_key"),
            ("realm_secret = 'known'", "realm_secret"),
            ("realm_secret_file = 'realm'", "realm_secret_file"),
            ("store = '/tmp/atlas.redb'", "store"),
            ("store = 'a/../../atlas.redb'", "store"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Config::load_found(&path).unwrap_err();
            let shown = error.to_string();
            assert_eq!(error.field(), Some(field), "{shown}");
            assert!(
                shown.contains("--config") && shown.contains(path.to_str().unwrap()),
                "{shown}"
            );
            assert!(Config::load(&path).is_ok() && Config::load_own(&path).is_ok());
        }
        let text = "store = './data/atlas.redb'\n[accounts.runpod]\ncall_deadline = '10s'";
        std::fs::write(&path, text).unwrap();
        assert!(Config::load_found(&path).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_could_have_written_is_refused_unless_it_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("atlas.toml");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o646)).unwrap();
        for refused in [Config::load_found(&path), Config::load_own(&path)] {
            assert!(refused.unwrap_err().to_string().contains("every user"));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Config::load_found(&path).is_ok());
        // Only root can change the owner of a file.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            for refused in [Config::load_found(&path), Config::load_own(&path)] {
                assert!(refused.unwrap_err().to_string().contains("another user"));
            }
            assert!(Config::load(&path).is_ok());
        }
    }

    #[test]
    fn a_whole_file_reads() {
        let config = Config::parse(
            r#"
            default_provider = "runpod"
            store = "atlas.redb"
            realm_secret_file = "atlas.realm"
            [orchestrator]
            idle_ttl_ms = 900000
            reap_interval = "60s"
            reap_providers = ["runpod", "runpod-eu"]
            reap_name_prefix = "atlas-"
            reap_grace = "5m"
            reap_report_only = true
            [policy]
            lease_ms = 3000
            [accounts.runpod]
            [accounts.runpod-eu]
            provider = "runpod"
            api_key = "rpa_1"
            visibility_bound = "2m"
            "#,
            "atlas.toml",
        )
        .unwrap();
        assert_eq!(
            config.orchestrator.idle_ttl_ms,
            Some(Duration::from_secs(900))
        );
        assert_eq!(
            config.orchestrator.reap_interval,
            Some(Duration::from_secs(60))
        );
        let mock = atlas_testkit::mock::MockCloud::new(1).provider();
        let (seen, spared) = (
            AccountName::new("runpod").unwrap(),
            AccountName::new("lambda").unwrap(),
        );
        let policy = config.policy([(&seen, &mock), (&spared, &mock)]);
        let (seen, spared) = (policy.account(&seen), policy.account(&spared));
        assert_eq!(
            (seen.reap_interval, seen.grace),
            (Duration::from_secs(60), Duration::from_secs(300))
        );
        assert_eq!(
            (seen.reap, seen.report_only, spared.reap),
            (true, true, false)
        );
        let eu = &config.accounts["runpod-eu"];
        assert_eq!(eu.api_key.as_ref().unwrap().expose(), "rpa_1");
        assert_eq!(
            eu.limits(AccountLimits::default()).visibility_bound,
            Duration::from_secs(120)
        );
        assert!(!format!("{config:?}").contains("rpa_1"));
    }

    #[cfg(all(feature = "fly", feature = "lambda"))]
    #[test]
    fn an_organisation_and_an_app_are_for_fly_only() {
        let provider = |text: &str, name: &str| {
            Config::parse(text, "atlas.toml")
                .unwrap()
                .provider(&AccountName::new(name).unwrap())
        };
        let fly = provider(
            "[accounts.fly]\napi_key = 'fm2_a'\norg = 'acme'\napp = 'pods'\n",
            "fly",
        )
        .unwrap();
        assert_eq!(fly.id().as_str(), "fly");
        let foreign =
            provider("[accounts.lambda]\napi_key = 'k'\napp = 'pods'\n", "lambda").unwrap_err();
        assert!(
            foreign.to_string().contains("org and app are Fly's"),
            "{foreign}"
        );
    }

    #[cfg(feature = "runpod-graphql")]
    #[test]
    fn runpods_old_api_is_used_only_where_the_file_says_so() {
        let text = "[accounts.a]\nprovider = 'runpod'\napi_key = 'k'\nspot = \
            true\n[accounts.b]\nprovider = 'runpod'\napi_key = 'k'";
        let config = Config::parse(text, "atlas.toml").unwrap();
        let has = |name: &str| {
            let capabilities = config
                .provider(&AccountName::new(name).unwrap())
                .unwrap()
                .capabilities();
            capabilities.has(atlas_core::Capability::Spot)
        };
        assert_eq!((has("a"), has("b")), (true, false));
        let other = Config::parse(
            "[accounts.lambda]\napi_key = 'k'\nspot = true\n",
            "atlas.toml",
        )
        .unwrap();
        assert!(
            other
                .provider(&AccountName::new("lambda").unwrap())
                .is_err()
        );
    }

    #[test]
    fn a_file_with_the_removed_dead_man_is_refused_and_says_why() {
        for value in ["true", "false"] {
            let text = format!("[accounts.rp]\nprovider = 'runpod'\ndead_man = {value}\n");
            let error = Config::parse(&text, "atlas.toml").unwrap_err();
            assert_eq!(
                (error.kind(), error.field()),
                (ErrorKind::Validation, Some("accounts.rp.dead_man"))
            );
            let shown = error.to_string();
            for part in [
                "was removed",
                "never acts on it",
                "delete this line",
                "line 3",
            ] {
                assert!(shown.contains(part), "{shown}");
            }
        }
    }

    #[test]
    fn a_wrong_file_names_the_place_and_never_the_key() {
        for (text, place) in [
            ("store = 3\n", "store"),
            ("[accounts.a]\napi_key = \"rpa_1\"\napi_kye = 1\n", "line 3"),
            ("[accounts.a]\napi_key = 'rpa_1' x\n", "line 2"),
            (
                "[accounts.a]\napi_key = [\"rpa_1\"]\n",
                "accounts.a.api_key",
            ),
            (
                "[orchestrator]\nreap_interval = \"soon\"\n",
                "orchestrator.reap_interval",
            ),
            ("[accounts.A]\n", "accounts"),
        ] {
            let error = Config::parse(text, "atlas.toml").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Validation);
            let shown = error.to_string();
            assert!(
                shown.contains(place) && shown.contains("atlas.toml") && !shown.contains("rpa_1"),
                "{shown}"
            );
        }
    }
}
