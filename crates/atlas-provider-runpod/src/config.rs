//! RunPod's URLs and API key.

use std::time::Duration;

use atlas_core::{AccountLimits, ProviderId, Result};
use atlas_http::{Connection, Pace};

use crate::RunPod;
use crate::client::Control;
use crate::jobs::Runtime;
use crate::proxy::ProxyTemplate;

/// The environment variable of the API key.
pub const API_KEY_ENV: &str = "RUNPOD_API_KEY";
/// The environment variable of another base URL of the control plane; its paths begin with `/v2/`.
pub const URL_ENV: &str = "ATLAS_RUNPOD_URL";
/// The environment variable of another base URL of the serverless runtime, including its `/v2`.
pub const RUNTIME_URL_ENV: &str = "ATLAS_RUNPOD_RUNTIME_URL";
/// The environment variable of another template for the URLs of HTTP ports:
/// `http://127.0.0.1:9000/{id}/{port}`.
pub const PROXY_URL_ENV: &str = "ATLAS_RUNPOD_PROXY_URL";

/// The environment variable of another GraphQL endpoint's complete URL.
#[cfg(feature = "graphql")]
pub const GRAPHQL_URL_ENV: &str = "ATLAS_RUNPOD_GRAPHQL_URL";

#[cfg(feature = "graphql")]
const GRAPHQL_URL: &str = "https://api.runpod.io/graphql";
const CONTROL_URL: &str = "https://api.runpod.io";
const RUNTIME_URL: &str = "https://api.runpod.ai/v2";
/// The runtime's limits are far above the control plane's, and apply per endpoint
/// (docs/clouds/runpod.md, "Serverless jobs").
const RUNTIME_INTERVAL: Duration = Duration::from_millis(5);
const RUNTIME_BURST: u32 = 200;
/// Operations with lower limits, in calls per ten seconds: cancel 100, purge 2.
const PACES: [(&str, Pace); 2] = [
    (
        "cancel_job",
        Pace {
            interval: Duration::from_millis(100),
            burst: 20,
        },
    ),
    (
        "purge_queue",
        Pace {
            interval: Duration::from_secs(5),
            burst: 2,
        },
    ),
];

/// Builds a [`RunPod`]. Settings made here take precedence over the environment.
#[derive(Debug)]
pub struct RunPodBuilder {
    connection: Connection,
    control_url: Option<String>,
    runtime_url: Option<String>,
    proxy_url: Option<String>,
    #[cfg(feature = "graphql")]
    graphql_url: Option<String>,
    #[cfg(feature = "graphql")]
    spot: bool,
}

impl Default for RunPodBuilder {
    fn default() -> Self {
        Self {
            connection: Connection::new(AccountLimits::default()),
            control_url: None,
            runtime_url: None,
            proxy_url: None,
            #[cfg(feature = "graphql")]
            graphql_url: None,
            #[cfg(feature = "graphql")]
            spot: false,
        }
    }
}

impl RunPodBuilder {
    atlas_http::connection_setters!(connection);

    /// Reads settings that are unset on the builder from these variables.
    #[must_use]
    pub fn environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        self.connection
            .set_environment_keys(&[API_KEY_ENV], &variable);
        Self {
            control_url: self.control_url.or_else(|| variable(URL_ENV)),
            runtime_url: self.runtime_url.or_else(|| variable(RUNTIME_URL_ENV)),
            proxy_url: self.proxy_url.or_else(|| variable(PROXY_URL_ENV)),
            #[cfg(feature = "graphql")]
            graphql_url: self.graphql_url.or_else(|| variable(GRAPHQL_URL_ENV)),
            ..self
        }
    }

    /// Sets another control plane; its paths begin with `/v2/`. `http://` is allowed for loopback
    /// only.
    #[must_use]
    pub fn control_url(self, url: impl Into<String>) -> Self {
        Self {
            control_url: Some(url.into()),
            ..self
        }
    }

    /// Sets another serverless runtime, including its `/v2`. `http://` is allowed for loopback
    /// only.
    #[must_use]
    pub fn runtime_url(self, url: impl Into<String>) -> Self {
        Self {
            runtime_url: Some(url.into()),
            ..self
        }
    }

    /// Sets another template for the URLs of HTTP ports, with `{id}` and `{port}`. `http://` is
    /// allowed for loopback only.
    #[must_use]
    pub fn proxy_url(self, template: impl Into<String>) -> Self {
        Self {
            proxy_url: Some(template.into()),
            ..self
        }
    }

    /// Sets another GraphQL endpoint by its complete URL. `http://` is allowed for loopback only.
    #[cfg(feature = "graphql")]
    #[must_use]
    pub fn graphql_url(self, url: impl Into<String>) -> Self {
        Self {
            graphql_url: Some(url.into()),
            ..self
        }
    }

    /// Rents spot pods through the deprecated GraphQL API: the provider then declares the
    /// capability, and its price list has bid prices. RunPod is withdrawing spot: an order that it
    /// refuses because it has no instance is an `unsupported` error, so that it is not repeated
    /// later.
    #[cfg(feature = "graphql")]
    #[must_use]
    pub fn spot(self, spot: bool) -> Self {
        Self { spot, ..self }
    }

    /// Builds the provider.
    ///
    /// # Errors
    /// `unauthorized` without a key, naming the variable to set; `validation` for an invalid URL,
    /// or one that would send the key unencrypted to another machine.
    pub fn build(self) -> Result<RunPod> {
        let id = ProviderId::new("runpod").expect("a plain name");
        let key = self
            .connection
            .key(API_KEY_ENV)
            .map_err(|error| error.during(&id, "build"))?;
        let proxy = self.proxy_url.as_deref().map_or_else(
            || Ok(ProxyTemplate::default()),
            |text| ProxyTemplate::new(text, self.connection.allows_plain_http()),
        )?;
        let client = |api, given: Option<String>, default: &str| {
            let client = self
                .connection
                .client(id.clone(), given.unwrap_or_else(|| default.to_owned()));
            client
                .api(api)
                .api_key("Bearer", key.clone())
                .errors(crate::error::map)
        };
        let limits = self.connection.limits();
        let runtime_limits = AccountLimits {
            call_interval: limits.call_interval.min(RUNTIME_INTERVAL),
            burst: limits.burst.max(RUNTIME_BURST),
            concurrency: limits.concurrency.max(RUNTIME_BURST),
            ..limits
        };
        let runtime = client("runtime", self.runtime_url, RUNTIME_URL).limits(runtime_limits);
        let runtime = PACES
            .into_iter()
            .fold(runtime, |runtime, (operation, pace)| {
                runtime.pace(operation, pace)
            });
        Ok(RunPod {
            control: Control(client("rest-v2", self.control_url, CONTROL_URL).build()?),
            runtime: Runtime {
                client: runtime.build()?,
                provider: id.clone(),
                entropy: self.connection.entropy(),
            },
            #[cfg(feature = "graphql")]
            graph: crate::graphql::Graph::new(
                client("graphql", self.graphql_url, GRAPHQL_URL).build()?,
                self.spot,
            ),
            id,
            key: key.secret,
            proxy,
            limits,
            clock: self.connection.clock(),
            entropy: self.connection.entropy(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_counts_before_the_environment_and_a_missing_key_is_named() {
        let env = |name: &str| match name {
            API_KEY_ENV => Some("env-key".to_owned()),
            URL_ENV => Some("http://127.0.0.1:1".to_owned()),
            _ => None,
        };
        let from_env = RunPodBuilder::default().environment(env).build().unwrap();
        assert_eq!(
            (
                from_env.key.expose(),
                from_env.control.0.base_url().as_str()
            ),
            ("env-key", "http://127.0.0.1:1")
        );
        let both = RunPodBuilder::default()
            .api_key("own")
            .control_url("https://cloud.example")
            .environment(env)
            .build()
            .unwrap();
        assert_eq!(
            (both.key.expose(), both.control.0.base_url().as_str()),
            ("own", "https://cloud.example")
        );
        assert!(!format!("{both:?}").contains("own"), "{both:?}");
        let error = RunPodBuilder::default()
            .environment(|_| None)
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), atlas_core::ErrorKind::Unauthorized);
        assert!(error.to_string().contains(API_KEY_ENV), "{error}");
    }

    #[test]
    fn a_key_is_never_sent_readable_to_another_machine() {
        let far = RunPodBuilder::default()
            .api_key("k")
            .control_url("http://cloud.example");
        assert!(far.build().is_err());
        assert!(
            RunPodBuilder::default()
                .api_key("k")
                .control_url("http://cloud.example")
                .allow_plain_http(true)
                .build()
                .is_ok()
        );
    }
}
