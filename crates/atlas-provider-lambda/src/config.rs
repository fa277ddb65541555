//! Where Lambda is and with which key it is called.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{AccountLimits, Clock, Entropy, ProviderId, Result, Secret, SystemClock, SystemEntropy};
use atlas_http::{Client, Pace, Transport};

use crate::Lambda;
use crate::client::Cloud;

/// The variable with the API key.
pub const API_KEY_ENV: &str = "LAMBDA_LABS_API_KEY";
/// Another name of it.
pub const API_KEY_ALIAS_ENV: &str = "LAMBDA_API_KEY";
/// The variable with another base URL, up to and with its `/api/v1`.
pub const URL_ENV: &str = "ATLAS_LAMBDA_URL";
/// The variable with the name of the SSH key that every launch must name.
pub const SSH_KEY_ENV: &str = "ATLAS_LAMBDA_SSH_KEY";

const BASE_URL: &str = "https://cloud.lambda.ai/api/v1";

/// About one call a second over the whole API, and minutes until a machine is up (docs/clouds/lambda.md).
const LIMITS: AccountLimits = AccountLimits {
    visibility_bound: Duration::from_secs(120),
    call_deadline: Duration::from_secs(60),
    call_interval: Duration::from_millis(1000),
    burst: 1,
    concurrency: 4,
};
/// Lambda takes one launch in twelve seconds. A launch may leave its slot up to three calls late, behind the reads before it, and the
/// next may be on time: that much is added, or the second would come too early.
const LAUNCH_PACE: Pace = Pace::every(Duration::from_secs(15));

/// Builds a [`Lambda`]. What is set here counts before the environment.
pub struct LambdaBuilder {
    api_key: Option<(Origin, Secret)>,
    environment_keys: [Option<Secret>; 2],
    base_url: Option<String>,
    ssh_key: Option<String>,
    limits: AccountLimits,
    launch_pace: Pace,
    transport: Option<Transport>,
    allow_plain_http: bool,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Default for LambdaBuilder {
    fn default() -> Self {
        Self {
            api_key: None,
            environment_keys: [None, None],
            base_url: None,
            ssh_key: None,
            limits: LIMITS,
            launch_pace: LAUNCH_PACE,
            transport: None,
            allow_plain_http: false,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        }
    }
}

impl LambdaBuilder {
    /// The API key.
    #[must_use]
    pub fn api_key(self, key: impl Into<Secret>) -> Self {
        Self { api_key: Some((Origin::Builder, key.into())), ..self }
    }

    /// The API key, and where it was found, for errors.
    #[must_use]
    pub fn api_key_from(self, key: ApiKey) -> Self {
        Self { api_key: Some((key.origin, key.secret)), ..self }
    }

    /// Takes from these variables what is not set on the builder.
    #[must_use]
    pub fn environment(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            environment_keys: [API_KEY_ENV, API_KEY_ALIAS_ENV].map(|name| variable(name).map(Secret::new)),
            base_url: self.base_url.or_else(|| variable(URL_ENV)),
            ssh_key: self.ssh_key.or_else(|| variable(SSH_KEY_ENV)),
            ..self
        }
    }

    /// Another base URL, up to and with its `/api/v1`. `http://` to loopback only.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> Self {
        Self { base_url: Some(url.into()), ..self }
    }

    /// The SSH key that every launch must name. Unset: the account's only one.
    #[must_use]
    pub fn ssh_key(self, name: impl Into<String>) -> Self {
        Self { ssh_key: Some(name.into()), ..self }
    }

    /// How long this account needs and how often it may be called.
    #[must_use]
    pub fn limits(self, limits: AccountLimits) -> Self {
        Self { limits, ..self }
    }

    /// The pace of launches, which Lambda limits besides all calls.
    #[must_use]
    pub fn launch_pace(self, pace: Pace) -> Self {
        Self { launch_pace: pace, ..self }
    }

    /// Another way to the cloud than hyper: any tower `Service`.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// Allows `http://` to other machines than this one. The key then crosses the network readable.
    #[must_use]
    pub fn allow_plain_http(self, allow: bool) -> Self {
        Self { allow_plain_http: allow, ..self }
    }

    /// Where "now" comes from.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Where jitter comes from.
    #[must_use]
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// The provider.
    ///
    /// # Errors
    /// `unauthorized` without a key, naming the variable to set; `validation` for a URL that is none, or that would send the key
    /// readable to another machine.
    pub fn build(self) -> Result<Lambda> {
        let id = ProviderId::new("lambda").expect("a plain name");
        let (origin, given) = self.api_key.map_or((Origin::Builder, None), |(origin, key)| (origin, Some(key)));
        let [named, alias] = self.environment_keys;
        let choices =
            [(origin, given), (Origin::Environment(API_KEY_ENV), named), (Origin::Environment(API_KEY_ALIAS_ENV), alias)];
        let key = ApiKey::resolve(choices, API_KEY_ENV).map_err(|error| error.during(&id, "build"))?;
        let mut client = Client::builder(id.clone(), self.base_url.unwrap_or_else(|| BASE_URL.to_owned()))
            .api("cloud-v1")
            .api_key("Bearer", key.clone())
            .limits(self.limits)
            .pace("spawn_compute", self.launch_pace)
            .allow_plain_http(self.allow_plain_http)
            .clock(self.clock.clone())
            .entropy(self.entropy)
            .errors(crate::error::map);
        if let Some(transport) = self.transport {
            client = client.transport(transport);
        }
        Ok(Lambda {
            id,
            cloud: Cloud(client.build()?),
            key: key.secret,
            ssh_key: self.ssh_key,
            limits: self.limits,
            clock: self.clock,
        })
    }
}

impl fmt::Debug for LambdaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LambdaBuilder").field("base_url", &self.base_url).field("ssh_key", &self.ssh_key).finish_non_exhaustive()
    }
}
