//! The connection settings of one account, shared by the clients of its APIs, and the setters that
//! every provider's builder has.

use std::fmt;
use std::sync::Arc;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{
    AccountLimits, Clock, Entropy, ProviderId, Result, Secret, SystemClock, SystemEntropy,
};

use crate::client::{Client, ClientBuilder};
use crate::transport::Transport;

/// Key, limits, transport, clock and randomness of one account. A provider's builder has one as a
/// field, and [`connection_setters!`](crate::connection_setters) adds the setters to the builder.
#[derive(Clone)]
pub struct Connection {
    key: Option<ApiKey>,
    environment_keys: Vec<(&'static str, Option<Secret>)>,
    limits: AccountLimits,
    transport: Transport,
    allow_plain_http: bool,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Connection {
    /// The defaults: hyper, the system's clock and randomness, and these limits.
    #[must_use]
    pub fn new(limits: AccountLimits) -> Self {
        Self {
            key: None,
            environment_keys: Vec::new(),
            limits,
            transport: Transport::hyper(),
            allow_plain_http: false,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        }
    }

    /// Sets the key and its origin.
    pub fn set_key(&mut self, key: ApiKey) {
        self.key = Some(key);
    }

    /// Reads the key from the first of these variables that is set, unless a key is set explicitly.
    pub fn set_environment_keys(
        &mut self,
        names: &[&'static str],
        variable: impl Fn(&str) -> Option<String>,
    ) {
        self.environment_keys = names
            .iter()
            .map(|name| (*name, variable(name).map(Secret::new)))
            .collect();
    }

    /// Sets the account's limits.
    pub fn set_limits(&mut self, limits: AccountLimits) {
        self.limits = limits;
    }

    /// Sets another transport than hyper.
    pub fn set_transport(&mut self, transport: Transport) {
        self.transport = transport;
    }

    /// Allows `http://` to other machines than this one.
    pub fn set_allow_plain_http(&mut self, allow: bool) {
        self.allow_plain_http = allow;
    }

    /// Sets the clock.
    pub fn set_clock(&mut self, clock: Arc<dyn Clock>) {
        self.clock = clock;
    }

    /// Sets the source of jitter.
    pub fn set_entropy(&mut self, entropy: Arc<dyn Entropy>) {
        self.entropy = entropy;
    }

    /// The key: the one set explicitly, else the one from the environment.
    ///
    /// # Errors
    /// `unauthorized` if there is none, naming the `variable` to set.
    pub fn key(&self, variable: &str) -> Result<ApiKey> {
        let set = self
            .key
            .as_ref()
            .map(|key| (key.origin.clone(), Some(key.secret.clone())));
        let found = self
            .environment_keys
            .iter()
            .map(|(name, secret)| (Origin::Environment(name), secret.clone()));
        ApiKey::resolve(set.into_iter().chain(found), variable)
    }

    /// The limits of the account.
    #[must_use]
    pub const fn limits(&self) -> AccountLimits {
        self.limits
    }

    /// The transport. Clients that share it share its connections.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// Whether `http://` is allowed to other machines.
    #[must_use]
    pub const fn allows_plain_http(&self) -> bool {
        self.allow_plain_http
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// The source of jitter.
    #[must_use]
    pub fn entropy(&self) -> Arc<dyn Entropy> {
        self.entropy.clone()
    }

    /// Starts building the client of one of the account's APIs, without a key.
    #[must_use]
    pub fn client(&self, provider: ProviderId, base_url: impl Into<String>) -> ClientBuilder {
        Client::builder(provider, base_url)
            .limits(self.limits)
            .allow_plain_http(self.allow_plain_http)
            .clock(self.clock())
            .entropy(self.entropy())
            .transport(self.transport())
    }
}

impl fmt::Debug for Connection {
    /// The key is not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("key", &self.key.as_ref().map(|key| &key.origin))
            .field("limits", &self.limits)
            .field("allow_plain_http", &self.allow_plain_http)
            .finish_non_exhaustive()
    }
}

/// The setters that every provider's builder has, over its field of type [`Connection`].
///
/// ```
/// use atlas_http::Connection;
///
/// struct AcmeBuilder {
///     connection: Connection,
/// }
///
/// impl AcmeBuilder {
///     atlas_http::connection_setters!(connection);
/// }
///
/// let builder = AcmeBuilder { connection: Connection::new(Default::default()) }.api_key("k").allow_plain_http(true);
/// assert_eq!(builder.connection.key("ACME_API_KEY")?.secret.expose(), "k");
/// # Ok::<_, atlas_core::Error>(())
/// ```
#[macro_export]
macro_rules! connection_setters {
    ($connection:ident) => {
        /// Sets the API key. It takes precedence over the environment's.
        #[must_use]
        pub fn api_key(self, key: impl Into<$crate::setter::Secret>) -> Self {
            self.api_key_from($crate::setter::ApiKey {
                secret: key.into(),
                origin: $crate::setter::Origin::Builder,
            })
        }

        /// Sets the API key and its origin, which appears in errors.
        #[must_use]
        pub fn api_key_from(mut self, key: $crate::setter::ApiKey) -> Self {
            self.$connection.set_key(key);
            self
        }

        /// Sets the account's limits.
        #[must_use]
        pub fn limits(mut self, limits: $crate::setter::AccountLimits) -> Self {
            self.$connection.set_limits(limits);
            self
        }

        /// Sets another transport than hyper: any tower `Service`. It replaces layers added before.
        #[must_use]
        pub fn transport(mut self, transport: $crate::Transport) -> Self {
            self.$connection.set_transport(transport);
            self
        }

        /// Wraps the transport in a tower layer. The layer added last is the outermost.
        #[must_use]
        pub fn layer<L, B>(mut self, layer: &L) -> Self
        where
            L: $crate::setter::Layer<$crate::Transport>,
            L::Service: $crate::setter::Service<
                    $crate::setter::Request<$crate::Body>,
                    Response = $crate::setter::Response<B>,
                    Error: Into<$crate::BoxError>,
                    Future: Send + 'static,
                > + Clone
                + Send
                + Sync
                + 'static,
            B: $crate::setter::HttpBody<
                    Data = $crate::setter::Bytes,
                    Error: Into<$crate::BoxError>,
                > + Send
                + 'static,
        {
            let layered = self.$connection.transport().layered(layer);
            self.$connection.set_transport(layered);
            self
        }

        /// Allows `http://` to other machines than this one. The key then crosses the network
        /// unencrypted.
        #[must_use]
        pub fn allow_plain_http(mut self, allow: bool) -> Self {
            self.$connection.set_allow_plain_http(allow);
            self
        }

        /// Sets the clock.
        #[must_use]
        pub fn clock(mut self, clock: ::std::sync::Arc<dyn $crate::setter::Clock>) -> Self {
            self.$connection.set_clock(clock);
            self
        }

        /// Sets the source of jitter.
        #[must_use]
        pub fn entropy(mut self, entropy: ::std::sync::Arc<dyn $crate::setter::Entropy>) -> Self {
            self.$connection.set_entropy(entropy);
            self
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_set_counts_before_the_environment_and_shows_nowhere() {
        let mut connection = Connection::new(AccountLimits::default());
        assert!(
            connection
                .key("ACME_KEY")
                .unwrap_err()
                .to_string()
                .contains("ACME_KEY")
        );
        connection.set_environment_keys(&["ACME_KEY", "ACME_OLD"], |name| {
            (name == "ACME_OLD").then(|| "old".to_owned())
        });
        assert_eq!(connection.key("ACME_KEY").unwrap().secret.expose(), "old");
        connection.set_key(ApiKey {
            secret: Secret::new("hunter2"),
            origin: Origin::Builder,
        });
        assert_eq!(
            connection.key("ACME_KEY").unwrap().secret.expose(),
            "hunter2"
        );
        assert!(!format!("{connection:?}").contains("hunter2"));
    }
}
