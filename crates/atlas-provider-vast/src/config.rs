//! Vast's URL and API key.

use std::fmt;
use std::time::Duration;

use atlas_core::{AccountLimits, Backoff, ProviderId, Result};
use atlas_http::{Connection, Pace};

use crate::Vast;
use crate::client::Cloud;
use crate::memory::Memory;
use crate::policy::OfferPolicy;
use crate::searches::Searches;

/// The environment variable of the API key.
pub const API_KEY_ENV: &str = "VAST_API_KEY";
/// The environment variable of another base URL, without its `/api/v0`.
pub const URL_ENV: &str = "ATLAS_VAST_URL";

const BASE_URL: &str = "https://console.vast.ai";

const LIMITS: AccountLimits = AccountLimits {
    visibility_bound: Duration::from_secs(90),
    call_deadline: Duration::from_secs(60),
    call_interval: Duration::from_millis(200),
    burst: 5,
    concurrency: 8,
};
/// Used when a refusal has no `Retry-After`: the shortest interval is a second.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(1500), Duration::from_secs(20));

/// Vast's minimum intervals per endpoint, slightly longer than documented. The ten searches per
/// minute are a burst of six and one every fifteen seconds (docs/clouds/vast.md).
const PACES: &[(&str, u64, u32)] = &[
    ("spawn_compute", 5_000, 1),
    ("candidates", 15_000, 6),
    ("list_compute", 1_100, 1),
    ("get_compute", 2_100, 1),
    ("terminate", 3_200, 1),
    ("stop", 1_100, 1),
    ("start", 1_100, 1),
    ("logs", 1_100, 1),
    ("identity", 5_200, 1),
    ("compute_spend", 1_100, 1),
    ("bid", 5_700, 1),
    ("exec", 1_600, 1),
    ("volumes", 5_700, 1),
];

/// Builds a [`Vast`]. Settings made here take precedence over the environment.
pub struct VastBuilder {
    connection: Connection,
    base_url: Option<String>,
    policy: OfferPolicy,
    paced: bool,
}

impl Default for VastBuilder {
    fn default() -> Self {
        Self {
            connection: Connection::new(LIMITS),
            base_url: None,
            policy: OfferPolicy::default(),
            paced: true,
        }
    }
}

impl VastBuilder {
    atlas_http::connection_setters!(connection);

    /// Reads settings that are unset on the builder from these variables.
    #[must_use]
    pub fn environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        self.connection
            .set_environment_keys(&[API_KEY_ENV], &variable);
        Self {
            base_url: self.base_url.or_else(|| variable(URL_ENV)),
            ..self
        }
    }

    /// Sets another base URL, without its `/api/v0`. `http://` is allowed for loopback only.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> Self {
        Self {
            base_url: Some(url.into()),
            ..self
        }
    }

    /// Sets which offers are acceptable.
    #[must_use]
    pub fn offers(self, policy: OfferPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Sets whether the intervals of Vast's endpoints are observed, in addition to the account's
    /// limits. A simulated Vast may have none.
    #[must_use]
    pub fn endpoint_paces(self, kept: bool) -> Self {
        Self {
            paced: kept,
            ..self
        }
    }

    /// Builds the provider.
    ///
    /// # Errors
    /// `unauthorized` without a key, naming the variable to set; `validation` for an invalid URL,
    /// or one that would send the key unencrypted to another machine.
    pub fn build(self) -> Result<Vast> {
        let id = ProviderId::new("vast").expect("a plain name");
        let key = self
            .connection
            .key(API_KEY_ENV)
            .map_err(|error| error.during(&id, "build"))?;
        let mut client = self
            .connection
            .client(
                id.clone(),
                self.base_url.unwrap_or_else(|| BASE_URL.to_owned()),
            )
            .api("v0")
            .api_key("Bearer", key)
            .errors(crate::error::map);
        if self.paced {
            client = client.backoff(BACKOFF);
            for (operation, millis, burst) in PACES {
                client = client.pace(
                    operation,
                    Pace::every(Duration::from_millis(*millis)).burst(*burst),
                );
            }
        }
        Ok(Vast {
            id,
            cloud: Cloud(client.build()?),
            policy: self.policy,
            memory: Memory::new(self.connection.clock()),
            searches: Searches::new(self.connection.clock(), self.connection.limits()),
            limits: self.connection.limits(),
            connection: self.connection,
        })
    }
}

impl fmt::Debug for VastBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VastBuilder")
            .field("base_url", &self.base_url)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
