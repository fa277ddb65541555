//! A client for one API of one account, and its builder.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::config::ApiKey;
use atlas_core::{
    AccountLimits, Backoff, Clock, Entropy, Error, ErrorKind, ProviderId, Result, SystemClock,
    SystemEntropy,
};
use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use tower::{Layer, Service};

use crate::body::{Body, BoxError};
use crate::credential::{Authorizer, CredentialSource};
use crate::failure::ErrorMapper;
use crate::pace::{Gate, Pace};
use crate::transport::Transport;

/// The default maximum size of an answer in bytes.
pub const DEFAULT_MAX_ANSWER: usize = 16 * 1024 * 1024;
const DEFAULT_RETRIES: u32 = 3;
const DEFAULT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));

/// Our `User-Agent`. Cloudflare refuses clients without one (`error code: 1010`).
const USER_AGENT: &str = concat!("atlas/", env!("CARGO_PKG_VERSION"), " (Rust)");

/// A client for one API of one account. Cheap to clone; clones share connections, pacing and the
/// retry budget.
#[derive(Clone, Debug)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) provider: ProviderId,
    pub(crate) api: &'static str,
    pub(crate) base: Base,
    pub(crate) allow_plain_http: bool,
    pub(crate) authorizer: Authorizer,
    pub(crate) scheme: &'static str,
    pub(crate) user_agent: HeaderValue,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) limits: AccountLimits,
    pub(crate) gate: Arc<Gate>,
    pub(crate) retries: u32,
    pub(crate) backoff: Backoff,
    pub(crate) max_answer: usize,
    pub(crate) mapper: Option<ErrorMapper>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) transport: Transport,
}

impl Client {
    /// Starts building a client for this provider's API at this URL. The path of the URL, if any,
    /// precedes the path of every call.
    #[must_use]
    pub fn builder(provider: ProviderId, base_url: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            provider,
            api: "rest",
            base_url: base_url.into(),
            allow_plain_http: false,
            authorizer: Ok(Authorizer::None),
            scheme: "Bearer",
            user_agent: None,
            headers: Vec::new(),
            limits: AccountLimits::default(),
            operations: BTreeMap::new(),
            gate: None,
            retries: DEFAULT_RETRIES,
            backoff: DEFAULT_BACKOFF,
            max_answer: DEFAULT_MAX_ANSWER,
            mapper: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            transport: None,
        }
    }

    /// The provider this client calls.
    #[must_use]
    pub fn provider(&self) -> &ProviderId {
        &self.0.provider
    }

    /// The limits that the client observes.
    #[must_use]
    pub fn limits(&self) -> &AccountLimits {
        &self.0.limits
    }

    /// The base URL, for messages and derived URLs.
    #[must_use]
    pub fn base_url(&self) -> String {
        let Base {
            scheme,
            authority,
            path,
            ..
        } = &self.0.base;
        format!("{scheme}://{authority}{path}")
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("provider", &self.provider)
            .field("api", &self.api)
            .field("server", &self.base.authority.as_str())
            .field("credential", &self.authorizer)
            .field("limits", &self.limits)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Client`].
pub struct ClientBuilder {
    provider: ProviderId,
    api: &'static str,
    base_url: String,
    allow_plain_http: bool,
    authorizer: Result<Authorizer>,
    scheme: &'static str,
    user_agent: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    limits: AccountLimits,
    operations: BTreeMap<&'static str, Pace>,
    gate: Option<Arc<Gate>>,
    retries: u32,
    backoff: Backoff,
    max_answer: usize,
    mapper: Option<ErrorMapper>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    transport: Option<Transport>,
}

impl ClientBuilder {
    /// Sets which of the provider's APIs this is (`rest-v2`, `runtime`, `logs`): the span's `api`
    /// field.
    #[must_use]
    pub fn api(self, api: &'static str) -> Self {
        Self { api, ..self }
    }

    /// Sends `Authorization: {scheme} {key}` with every call. An empty scheme sends the key alone.
    /// A key set per call uses the same scheme.
    #[must_use]
    pub fn api_key(self, scheme: &'static str, key: ApiKey) -> Self {
        Self {
            scheme,
            authorizer: Authorizer::key(scheme, key),
            ..self
        }
    }

    /// Sets a source of credentials that can renew them.
    #[must_use]
    pub fn credential_source(self, source: impl CredentialSource) -> Self {
        Self {
            authorizer: Ok(Authorizer::Source(Arc::new(source))),
            ..self
        }
    }

    /// Sets a product name that precedes our own in `User-Agent`: `my-backend/1.2`.
    #[must_use]
    pub fn user_agent(self, product: impl Into<String>) -> Self {
        Self {
            user_agent: Some(product.into()),
            ..self
        }
    }

    /// Adds a header to every call. Mark a secret one with `set_sensitive`.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets the account's deadline, pacing and maximum of concurrent calls.
    #[must_use]
    pub fn limits(self, limits: AccountLimits) -> Self {
        Self { limits, ..self }
    }

    /// Sets a pace for this operation in addition to the account's, where the cloud limits it
    /// separately.
    #[must_use]
    pub fn pace(mut self, operation: &'static str, pace: Pace) -> Self {
        self.operations.insert(operation, pace);
        self
    }

    /// Shares pacing, concurrency limit and retry budget with another client of the same account,
    /// whose limits and paces then apply.
    #[must_use]
    pub fn share_limits_with(self, other: &Client) -> Self {
        Self {
            gate: Some(other.0.gate.clone()),
            ..self
        }
    }

    /// Sets the default maximum number of repeats of a call. The default is 3.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// Sets the waits between repeats, used when the cloud does not ask for a wait.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Sets the maximum size of an answer in bytes.
    #[must_use]
    pub fn max_answer_bytes(self, bytes: usize) -> Self {
        Self {
            max_answer: bytes,
            ..self
        }
    }

    /// Sets the provider's mapping of its own error answers; where it returns `None`, the generic
    /// mapping applies.
    #[must_use]
    pub fn errors(self, mapper: ErrorMapper) -> Self {
        Self {
            mapper: Some(mapper),
            ..self
        }
    }

    /// Sets the wall clock to which `Retry-After` dates are compared.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Sets the source of randomness for jitter.
    #[must_use]
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// Sets another transport than hyper: an in-process simulated cloud, a shared pool.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        Self {
            transport: Some(transport),
            ..self
        }
    }

    /// Wraps the transport in a tower layer. The layer added last is the outermost.
    #[must_use]
    pub fn layer<L, B>(self, layer: &L) -> Self
    where
        L: Layer<Transport>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let transport = self
            .transport
            .unwrap_or_else(Transport::hyper)
            .layered(layer);
        Self {
            transport: Some(transport),
            ..self
        }
    }

    /// Allows `http://` to hosts that are not loopback. The key then crosses the network
    /// unencrypted.
    #[must_use]
    pub fn allow_plain_http(self, allow: bool) -> Self {
        Self {
            allow_plain_http: allow,
            ..self
        }
    }

    /// Builds the client.
    ///
    /// # Errors
    /// `validation` for a base URL that is not a URL or is plain `http://` to another machine;
    /// `unauthorized` for a key that no header can hold; `unavailable` when the platform's
    /// certificates cannot be read.
    pub fn build(self) -> Result<Client> {
        let provider = self.provider.clone();
        self.checked()
            .map_err(|error| error.during(&provider, "build"))
    }

    fn checked(self) -> Result<Client> {
        let base = Base::parse(&self.base_url, self.allow_plain_http)?;
        let user_agent = match self.user_agent {
            None => HeaderValue::from_static(USER_AGENT),
            Some(product) => {
                HeaderValue::try_from(format!("{product} {USER_AGENT}")).map_err(|_| {
                    Error::validation("user_agent", "has characters no header can hold")
                })?
            }
        };
        let transport = self.transport.unwrap_or_else(Transport::hyper);
        if base.scheme == Scheme::HTTPS {
            transport.prepare_tls()?;
        }
        let gate = self
            .gate
            .unwrap_or_else(|| Arc::new(Gate::new(&self.limits, &self.operations)));
        Ok(Client(Arc::new(Inner {
            provider: self.provider,
            api: self.api,
            base,
            allow_plain_http: self.allow_plain_http,
            authorizer: self.authorizer?,
            scheme: self.scheme,
            user_agent,
            headers: self.headers,
            limits: self.limits,
            gate,
            retries: self.retries,
            backoff: self.backoff,
            max_answer: self.max_answer,
            mapper: self.mapper,
            clock: self.clock,
            entropy: self.entropy,
            transport,
        })))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("provider", &self.provider)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

/// A base URL, split into its parts once.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// Without a trailing slash; empty if there is none.
    pub(crate) path: String,
    pub(crate) port: u16,
    /// The `Host` header for HTTP/1.1, the only version used over plain `http://`.
    pub(crate) host: Option<HeaderValue>,
}

impl Base {
    /// Splits a base URL; refuses plain `http://` to other machines unless allowed.
    pub(crate) fn parse(url: &str, allow_plain_http: bool) -> Result<Self> {
        let wrong = |message| Error::validation("base_url", message);
        let parts = url
            .trim()
            .parse::<Uri>()
            .map_err(|_| wrong("is not a url"))?
            .into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(wrong("must begin with https:// and name a host"));
        };
        if authority.as_str().contains('@') {
            return Err(wrong("must not hold a user or password"));
        }
        let path = parts.path_and_query;
        if path.as_ref().is_some_and(|path| path.query().is_some()) {
            return Err(wrong("must not have a query"));
        }
        let path = path
            .map(|path| path.path().trim_end_matches('/').to_owned())
            .unwrap_or_default();
        let plain = scheme == Scheme::HTTP;
        if !plain && scheme != Scheme::HTTPS {
            return Err(wrong("must begin with https://"));
        }
        if plain && !allow_plain_http && !is_loopback(authority.host()) {
            return Err(Error::new(
                ErrorKind::Validation,
                "plain http:// would send the api key readable; it is taken for loopback only, \
                    unless allowed",
            )
            .outcome_is(atlas_core::Outcome::NotApplied(atlas_core::Next::Stop)));
        }
        let port = authority.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let host = if plain {
            HeaderValue::from_str(authority.as_str()).ok()
        } else {
            None
        };
        Ok(Self {
            scheme,
            authority,
            path,
            port,
            host,
        })
    }

    /// Joins this base with the path and query of a call.
    pub(crate) fn uri(&self, path_and_query: &str) -> Result<Uri> {
        let mut target = String::with_capacity(self.path.len() + path_and_query.len() + 1);
        target.push_str(&self.path);
        target.push_str(path_and_query);
        if target.is_empty() {
            target.push('/');
        }
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(
            target
                .try_into()
                .map_err(|_| Error::validation("path", "is too long for a url"))?,
        );
        Uri::from_parts(parts).map_err(|_| Error::validation("path", "does not make a url"))
    }
}

/// Whether a URL's host (without its port) is `localhost`, in 127.0.0.0/8 or `[::1]`, as written: a
/// name that only resolves to loopback does not count.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        for near in [
            "http://127.0.0.1:80",
            "http://127.9.9.9/v2",
            "http://localhost:1/",
            "http://[::1]:3",
            "https://cloud.example",
        ] {
            assert!(Base::parse(near, false).is_ok(), "{near}");
        }
        for far in [
            "http://cloud.example",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "https://user:pass@cloud.example",
            "https://cloud.example/?key=1",
            "/v2",
            "",
        ] {
            assert!(Base::parse(far, false).is_err(), "{far}");
        }
        assert!(Base::parse("http://10.0.0.1", true).is_ok());
    }

    #[test]
    fn a_base_path_comes_before_the_calls() {
        let base = Base::parse("https://rest.example/v2/", false).unwrap();
        assert_eq!(
            base.uri("/pods?x=1").unwrap(),
            "https://rest.example/v2/pods?x=1"
        );
        assert_eq!(base.uri("").unwrap(), "https://rest.example/v2");
    }
}
