//! A client of one API of one account, and how it is built.

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

/// The largest answer that is read, unless the builder says otherwise.
pub const DEFAULT_MAX_ANSWER: usize = 16 * 1024 * 1024;
const DEFAULT_RETRIES: u32 = 3;
const DEFAULT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));

/// What we say who we are. Cloudflare refuses clients that do not (`error code: 1010`).
const USER_AGENT: &str = concat!(
    "atlas/",
    env!("CARGO_PKG_VERSION"),
    " (+",
    env!("CARGO_PKG_REPOSITORY"),
    ")"
);

/// A client of one API of one account. Cheap to clone; clones share connections, pacing and the
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
    /// Begins a client for this provider's API at this URL. Its path, if any, comes before every
    /// call's.
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

    /// The limits it keeps.
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
    /// Which of the provider's APIs this is (`rest-v2`, `runtime`, `logs`): the span's `api` field.
    #[must_use]
    pub fn api(self, api: &'static str) -> Self {
        Self { api, ..self }
    }

    /// `Authorization: {scheme} {key}` on every call. An empty scheme sends the key alone. A call's
    /// own key takes the same scheme.
    #[must_use]
    pub fn api_key(self, scheme: &'static str, key: ApiKey) -> Self {
        Self {
            scheme,
            authorizer: Authorizer::key(scheme, key),
            ..self
        }
    }

    /// A source of credentials that renews them.
    #[must_use]
    pub fn credential_source(self, source: impl CredentialSource) -> Self {
        Self {
            authorizer: Ok(Authorizer::Source(Arc::new(source))),
            ..self
        }
    }

    /// Put before our own product in `User-Agent`: `my-backend/1.2`.
    #[must_use]
    pub fn user_agent(self, product: impl Into<String>) -> Self {
        Self {
            user_agent: Some(product.into()),
            ..self
        }
    }

    /// A header on every call. Mark a secret one with `set_sensitive`.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Deadline, pacing and calls under way of the account.
    #[must_use]
    pub fn limits(self, limits: AccountLimits) -> Self {
        Self { limits, ..self }
    }

    /// A pace of this operation, besides the account's: where a cloud limits it alone (Lambda's
    /// launch, Vast's endpoints).
    #[must_use]
    pub fn pace(mut self, operation: &'static str, pace: Pace) -> Self {
        self.operations.insert(operation, pace);
        self
    }

    /// Shares pacing, calls under way and retry budget with another client of the same account. Its
    /// limits and paces then count.
    #[must_use]
    pub fn share_limits_with(self, other: &Client) -> Self {
        Self {
            gate: Some(other.0.gate.clone()),
            ..self
        }
    }

    /// How often a call may be repeated, unless the call says otherwise. 3 unless set.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// The waits between repeats, unless the cloud says otherwise.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// The largest answer that is read, in bytes.
    #[must_use]
    pub fn max_answer_bytes(self, bytes: usize) -> Self {
        Self {
            max_answer: bytes,
            ..self
        }
    }

    /// The provider's reading of its own error answers; the generic one where it gives none.
    #[must_use]
    pub fn errors(self, mapper: ErrorMapper) -> Self {
        Self {
            mapper: Some(mapper),
            ..self
        }
    }

    /// The wall clock against which `Retry-After` dates are read.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The randomness of the jitter.
    #[must_use]
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// Another transport than hyper: a simulated cloud in process, a shared pool.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        Self {
            transport: Some(transport),
            ..self
        }
    }

    /// Wraps the transport in a tower layer. The last one added sees a try first.
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

    /// Allows `http://` to hosts that are not loopback. The key then crosses the network readable.
    #[must_use]
    pub fn allow_plain_http(self, allow: bool) -> Self {
        Self {
            allow_plain_http: allow,
            ..self
        }
    }

    /// The client.
    ///
    /// # Errors
    /// `validation` for a base URL that is none or is plain `http://` to another machine;
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

/// A base URL, taken apart once.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// Without a trailing slash; empty for none.
    pub(crate) path: String,
    pub(crate) port: u16,
    /// The `Host` header for HTTP/1.1, which is all that plain `http://` speaks.
    pub(crate) host: Option<HeaderValue>,
}

impl Base {
    /// Takes a base URL apart; refuses plain `http://` to other machines unless allowed.
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
                "plain http:// would send the api key readable; it is taken for loopback only, unless allowed",
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

    /// This base with the path and query of a call.
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

/// Whether a URL's host (without its port) is `localhost`, of 127.0.0.0/8 or `[::1]`, by what is
/// written: a name that only resolves to loopback does not count.
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
