//! Lambda's URL and API key.

use std::fmt;
use std::time::Duration;

use atlas_core::{AccountLimits, ProviderId, Result};
use atlas_http::{Connection, Pace};

use crate::Lambda;
use crate::client::Cloud;

/// The environment variable of the API key.
pub const API_KEY_ENV: &str = "LAMBDA_LABS_API_KEY";
/// Another environment variable of the API key.
pub const API_KEY_ALIAS_ENV: &str = "LAMBDA_API_KEY";
/// The environment variable of another base URL, including its `/api/v1`.
pub const URL_ENV: &str = "ATLAS_LAMBDA_URL";
/// The environment variable of the name of the SSH key that every launch must name.
pub const SSH_KEY_ENV: &str = "ATLAS_LAMBDA_SSH_KEY";

const BASE_URL: &str = "https://cloud.lambda.ai/api/v1";

/// About one call a second over the whole API, and minutes until a machine is up
/// (docs/clouds/lambda.md).
const LIMITS: AccountLimits = AccountLimits {
    visibility_bound: Duration::from_secs(120),
    call_deadline: Duration::from_secs(60),
    call_interval: Duration::from_millis(1000),
    burst: 1,
    concurrency: 4,
};
/// Lambda accepts one launch in twelve seconds. A launch may be sent up to three calls after its
/// slot, behind earlier reads, and the next one may be on time. That much is added, or the second
/// launch would come too early.
const LAUNCH_PACE: Pace = Pace::every(Duration::from_secs(15));

/// Builds a [`Lambda`]. Settings made here take precedence over the environment.
pub struct LambdaBuilder {
    connection: Connection,
    base_url: Option<String>,
    ssh_key: Option<String>,
    launch_pace: Pace,
}

impl Default for LambdaBuilder {
    fn default() -> Self {
        Self {
            connection: Connection::new(LIMITS),
            base_url: None,
            ssh_key: None,
            launch_pace: LAUNCH_PACE,
        }
    }
}

impl LambdaBuilder {
    atlas_http::connection_setters!(connection);

    /// Reads settings that are unset on the builder from these variables.
    #[must_use]
    pub fn environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        self.connection
            .set_environment_keys(&[API_KEY_ENV, API_KEY_ALIAS_ENV], &variable);
        Self {
            base_url: self.base_url.or_else(|| variable(URL_ENV)),
            ssh_key: self.ssh_key.or_else(|| variable(SSH_KEY_ENV)),
            ..self
        }
    }

    /// Sets another base URL, including its `/api/v1`. `http://` is allowed for loopback only.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> Self {
        Self {
            base_url: Some(url.into()),
            ..self
        }
    }

    /// Sets the SSH key that every launch must name. Default: the account's only one.
    #[must_use]
    pub fn ssh_key(self, name: impl Into<String>) -> Self {
        Self {
            ssh_key: Some(name.into()),
            ..self
        }
    }

    /// Sets the pace of launches, which Lambda limits in addition to all calls.
    #[must_use]
    pub fn launch_pace(self, pace: Pace) -> Self {
        Self {
            launch_pace: pace,
            ..self
        }
    }

    /// Builds the provider.
    ///
    /// # Errors
    /// `unauthorized` without a key, naming the variable to set; `validation` for an invalid URL,
    /// or one that would send the key unencrypted to another machine.
    pub fn build(self) -> Result<Lambda> {
        let id = ProviderId::new("lambda").expect("a plain name");
        let key = self
            .connection
            .key(API_KEY_ENV)
            .map_err(|error| error.during(&id, "build"))?;
        let client = self
            .connection
            .client(
                id.clone(),
                self.base_url.unwrap_or_else(|| BASE_URL.to_owned()),
            )
            .api("cloud-v1")
            .api_key("Bearer", key.clone())
            .pace("spawn_compute", self.launch_pace)
            .errors(crate::error::map)
            .build()?;
        Ok(Lambda {
            id,
            cloud: Cloud(client),
            key: key.secret,
            ssh_key: self.ssh_key,
            limits: self.connection.limits(),
            clock: self.connection.clock(),
        })
    }
}

impl fmt::Debug for LambdaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LambdaBuilder")
            .field("base_url", &self.base_url)
            .field("ssh_key", &self.ssh_key)
            .finish_non_exhaustive()
    }
}
