//! Where RunPod is and with which key it is called; how a pod's HTTP port becomes a URL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{AccountLimits, Clock, Entropy, Error, ProviderId, Result, Secret, SystemClock, SystemEntropy};
use atlas_http::{Body, BoxError, Client, Pace, Transport};
use http::{Request, Response};
use tower::{Layer, Service};

use crate::RunPod;
use crate::client::Control;
use crate::jobs::Runtime;

/// The variable with the API key.
pub const API_KEY_ENV: &str = "RUNPOD_API_KEY";
/// The variable with another control plane's base URL; paths below it begin with `/v2/`.
pub const URL_ENV: &str = "ATLAS_RUNPOD_URL";
/// The variable with another serverless runtime's base URL, up to and with its `/v2`.
pub const RUNTIME_URL_ENV: &str = "ATLAS_RUNPOD_RUNTIME_URL";
/// The variable with another template for the URLs of HTTP ports: `http://127.0.0.1:9000/{id}/{port}`.
pub const PROXY_URL_ENV: &str = "ATLAS_RUNPOD_PROXY_URL";

/// The variable with another GraphQL endpoint's whole URL.
#[cfg(feature = "graphql")]
pub const GRAPHQL_URL_ENV: &str = "ATLAS_RUNPOD_GRAPHQL_URL";

#[cfg(feature = "graphql")]
const GRAPHQL_URL: &str = "https://api.runpod.io/graphql";
const CONTROL_URL: &str = "https://api.runpod.io";
const RUNTIME_URL: &str = "https://api.runpod.ai/v2";
/// The runtime's own limits are far above the control plane's, and for each endpoint (docs/clouds/runpod.md, "Serverless jobs").
const RUNTIME_INTERVAL: Duration = Duration::from_millis(5);
const RUNTIME_BURST: u32 = 200;
/// Calls each ten seconds that are limited more tightly: cancels to 100, purges to 2.
const PACES: [(&str, Pace); 2] = [
    ("cancel_job", Pace { interval: Duration::from_millis(100), burst: 20 }),
    ("purge_queue", Pace { interval: Duration::from_secs(5), burst: 2 }),
];

/// Builds a [`RunPod`]. What is set here counts before the environment.
pub struct RunPodBuilder {
    api_key: Option<(Origin, Secret)>,
    environment_key: Option<Secret>,
    control_url: Option<String>,
    runtime_url: Option<String>,
    proxy_url: Option<String>,
    #[cfg(feature = "graphql")]
    graphql_url: Option<String>,
    #[cfg(feature = "graphql")]
    spot: bool,
    limits: AccountLimits,
    transport: Option<Transport>,
    allow_plain_http: bool,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Default for RunPodBuilder {
    fn default() -> Self {
        Self {
            api_key: None,
            environment_key: None,
            control_url: None,
            runtime_url: None,
            proxy_url: None,
            #[cfg(feature = "graphql")]
            graphql_url: None,
            #[cfg(feature = "graphql")]
            spot: false,
            limits: AccountLimits::default(),
            transport: None,
            allow_plain_http: false,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        }
    }
}

impl RunPodBuilder {
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
            environment_key: variable(API_KEY_ENV).map(Secret::new),
            control_url: self.control_url.or_else(|| variable(URL_ENV)),
            runtime_url: self.runtime_url.or_else(|| variable(RUNTIME_URL_ENV)),
            proxy_url: self.proxy_url.or_else(|| variable(PROXY_URL_ENV)),
            #[cfg(feature = "graphql")]
            graphql_url: self.graphql_url.or_else(|| variable(GRAPHQL_URL_ENV)),
            ..self
        }
    }

    /// Another control plane; paths below it begin with `/v2/`. `http://` to loopback only.
    #[must_use]
    pub fn control_url(self, url: impl Into<String>) -> Self {
        Self { control_url: Some(url.into()), ..self }
    }

    /// Another serverless runtime, up to and with its `/v2`. `http://` to loopback only.
    #[must_use]
    pub fn runtime_url(self, url: impl Into<String>) -> Self {
        Self { runtime_url: Some(url.into()), ..self }
    }

    /// Another template for the URLs of HTTP ports, with `{id}` and `{port}`. `http://` to loopback only.
    #[must_use]
    pub fn proxy_url(self, template: impl Into<String>) -> Self {
        Self { proxy_url: Some(template.into()), ..self }
    }

    /// Another GraphQL endpoint, by its whole URL. `http://` to loopback only.
    #[cfg(feature = "graphql")]
    #[must_use]
    pub fn graphql_url(self, url: impl Into<String>) -> Self {
        Self { graphql_url: Some(url.into()), ..self }
    }

    /// Rents spot pods over GraphQL: the provider then declares the capability, and its price list has bid prices.
    #[cfg(feature = "graphql")]
    #[must_use]
    pub fn spot(self, spot: bool) -> Self {
        Self { spot, ..self }
    }

    /// How long this account needs and how often it may be called.
    #[must_use]
    pub fn limits(self, limits: AccountLimits) -> Self {
        Self { limits, ..self }
    }

    /// Another way to the cloud than hyper: any tower `Service`. Layers added before are replaced with it.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// Wraps the way to the cloud in a tower layer.
    #[must_use]
    pub fn layer<L, B>(self, layer: &L) -> Self
    where
        L: Layer<Transport>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let transport = self.transport.unwrap_or_else(Transport::hyper).layered(layer);
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
    pub fn build(self) -> Result<RunPod> {
        let id = ProviderId::new("runpod").expect("a plain name");
        let (origin, given) = self.api_key.map_or((Origin::Builder, None), |(origin, key)| (origin, Some(key)));
        let key = ApiKey::resolve([(origin, given), (Origin::Environment(API_KEY_ENV), self.environment_key)], API_KEY_ENV)
            .map_err(|error| error.during(&id, "build"))?;
        let proxy = self
            .proxy_url
            .as_deref()
            .map_or_else(|| Ok(ProxyTemplate::default()), |text| ProxyTemplate::new(text, self.allow_plain_http))?;
        let transport = self.transport.unwrap_or_else(Transport::hyper);
        let client = |api, given: Option<String>, default: &str, limits: AccountLimits| {
            let builder = Client::builder(id.clone(), given.unwrap_or_else(|| default.to_owned()));
            let paces = PACES.into_iter().filter(|_| api == "runtime");
            paces
                .fold(builder, |builder, (operation, pace)| builder.pace(operation, pace))
                .api(api)
                .api_key("Bearer", key.clone())
                .limits(limits)
                .allow_plain_http(self.allow_plain_http)
                .clock(self.clock.clone())
                .entropy(self.entropy.clone())
                .transport(transport.clone())
                .errors(crate::error::map)
                .build()
        };
        let runtime_limits = AccountLimits {
            call_interval: self.limits.call_interval.min(RUNTIME_INTERVAL),
            burst: self.limits.burst.max(RUNTIME_BURST),
            concurrency: self.limits.concurrency.max(RUNTIME_BURST),
            ..self.limits
        };
        Ok(RunPod {
            control: Control(client("rest-v2", self.control_url, CONTROL_URL, self.limits)?),
            runtime: Runtime {
                client: client("runtime", self.runtime_url, RUNTIME_URL, runtime_limits)?,
                provider: id.clone(),
                entropy: self.entropy.clone(),
            },
            #[cfg(feature = "graphql")]
            graph: crate::graphql::Graph {
                client: client("graphql", self.graphql_url, GRAPHQL_URL, self.limits)?,
                spot: self.spot,
            },
            id,
            key: key.secret,
            proxy,
            limits: self.limits,
            clock: self.clock,
            entropy: self.entropy,
        })
    }
}

impl fmt::Debug for RunPodBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunPodBuilder")
            .field("control_url", &self.control_url)
            .field("runtime_url", &self.runtime_url)
            .field("proxy_url", &self.proxy_url)
            .finish_non_exhaustive()
    }
}

/// How a pod's HTTP port is reached: RunPod's proxy, or a template such as `http://127.0.0.1:9000/{id}/{port}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyTemplate(Vec<Piece>);

/// A piece of a template, taken apart once: every machine that is read has a URL made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Id,
    Port,
}

impl Default for ProxyTemplate {
    fn default() -> Self {
        Self::pieces("https://{id}-{port}.proxy.runpod.net")
    }
}

impl ProxyTemplate {
    /// Checks and takes a template.
    ///
    /// # Errors
    /// `validation`, when a placeholder is missing or it is neither `https://` nor `http://` to loopback.
    pub(crate) fn new(text: &str, allow_plain_http: bool) -> Result<Self> {
        let wrong = |message| Err(Error::validation("proxy_url", message));
        if !text.contains("{id}") || !text.contains("{port}") {
            return wrong("must contain {id} and {port}");
        }
        if !text.starts_with("https://")
            && !text.strip_prefix("http://").is_some_and(|rest| allow_plain_http || is_loopback(rest))
        {
            return wrong("must be https://, or http:// to loopback");
        }
        Ok(Self::pieces(text))
    }

    fn pieces(text: &str) -> Self {
        let mut pieces = Vec::new();
        for (nth, around_id) in text.split("{id}").enumerate() {
            pieces.extend((nth > 0).then_some(Piece::Id));
            for (nth, text) in around_id.split("{port}").enumerate() {
                pieces.extend((nth > 0).then_some(Piece::Port));
                pieces.push(Piece::Text(text.to_owned()));
            }
        }
        Self(pieces)
    }

    /// The URL of a pod's port.
    pub(crate) fn url(&self, pod: &str, port: u32) -> String {
        let mut url = String::with_capacity(64);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => url.push_str(text),
                Piece::Id => url.push_str(pod),
                Piece::Port => url.push_str(&port.to_string()),
            }
        }
        url
    }
}

/// Whether a URL's part after its scheme names this machine.
fn is_loopback(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some(bracketed) = authority.strip_prefix('[') {
        return bracketed.split(']').next() == Some("::1");
    }
    let host = authority.split(':').next().unwrap_or_default();
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_template_has_both_places_and_is_safe_to_send_a_token_to() {
        let sim = ProxyTemplate::new("http://127.0.0.1:9000/{id}/{port}", false).unwrap();
        assert_eq!(sim.url("abc", 8000), "http://127.0.0.1:9000/abc/8000");
        for bad in [
            "https://x/{id}",
            "https://x/{port}",
            "http://example.com/{id}/{port}",
            "http://127.evil.example/{id}/{port}",
            "http://localhost.evil.example/{id}/{port}",
            "http://{id}/{port}",
            "ftp://{id}{port}",
        ] {
            assert_eq!(ProxyTemplate::new(bad, false).unwrap_err().field(), Some("proxy_url"), "{bad}");
        }
    }

    #[test]
    fn the_builder_counts_before_the_environment_and_a_missing_key_is_named() {
        let env = |name: &str| match name {
            API_KEY_ENV => Some("env-key".to_owned()),
            URL_ENV => Some("http://127.0.0.1:1".to_owned()),
            _ => None,
        };
        let from_env = RunPodBuilder::default().environment(env).build().unwrap();
        assert_eq!((from_env.key.expose(), from_env.control.0.base_url().as_str()), ("env-key", "http://127.0.0.1:1"));
        let both = RunPodBuilder::default().api_key("own").control_url("https://cloud.example").environment(env).build().unwrap();
        assert_eq!((both.key.expose(), both.control.0.base_url().as_str()), ("own", "https://cloud.example"));
        assert!(!format!("{both:?}").contains("own"), "{both:?}");
        let error = RunPodBuilder::default().environment(|_| None).build().unwrap_err();
        assert_eq!(error.kind(), atlas_core::ErrorKind::Unauthorized);
        assert!(error.to_string().contains(API_KEY_ENV), "{error}");
    }

    #[test]
    fn a_key_is_never_sent_readable_to_another_machine() {
        let far = RunPodBuilder::default().api_key("k").control_url("http://cloud.example");
        assert!(far.build().is_err());
        assert!(RunPodBuilder::default().api_key("k").control_url("http://cloud.example").allow_plain_http(true).build().is_ok());
    }
}
