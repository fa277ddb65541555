//! How one account of a cloud is reached, set once and shared by the clients of its APIs, and the
//! setters that every provider's builder has.

use std::fmt;
use std::sync::Arc;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{
    AccountLimits, Clock, Entropy, ProviderId, Result, Secret, SystemClock, SystemEntropy,
};

use crate::client::{Client, ClientBuilder};
use crate::transport::Transport;

/// Key, limits, transport, clock and randomness of one account. A provider's builder holds one in a
/// field, and [`connection_setters!`](crate::connection_setters) gives the builder its setters.
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
    /// Over hyper, with the system's clock and randomness, within these limits.
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

    /// The key, and where it was found.
    pub fn set_key(&mut self, key: ApiKey) {
        self.key = Some(key);
    }

    /// Reads the key from the first of these variables that is set, unless one is or will be set
    /// here.
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

    /// How long this account needs and how often it may be called.
    pub fn set_limits(&mut self, limits: AccountLimits) {
        self.limits = limits;
    }

    /// Another way to the cloud than hyper.
    pub fn set_transport(&mut self, transport: Transport) {
        self.transport = transport;
    }

    /// Allows `http://` to other machines than this one.
    pub fn set_allow_plain_http(&mut self, allow: bool) {
        self.allow_plain_http = allow;
    }

    /// Where "now" comes from.
    pub fn set_clock(&mut self, clock: Arc<dyn Clock>) {
        self.clock = clock;
    }

    /// Where jitter comes from.
    pub fn set_entropy(&mut self, entropy: Arc<dyn Entropy>) {
        self.entropy = entropy;
    }

    /// The key: the one set, else the environment's.
    ///
    /// # Errors
    /// `unauthorized` without any, naming the `variable` to set.
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

    /// The limits that are kept.
    #[must_use]
    pub const fn limits(&self) -> AccountLimits {
        self.limits
    }

    /// The transport. The clients that share one share its connections.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// Whether `http://` may leave this machine.
    #[must_use]
    pub const fn allows_plain_http(&self) -> bool {
        self.allow_plain_http
    }

    /// Where "now" comes from.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Where jitter comes from.
    #[must_use]
    pub fn entropy(&self) -> Arc<dyn Entropy> {
        self.entropy.clone()
    }

    /// Begins the client of one of the account's APIs, without a key.
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
    /// Without the key.
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
        /// The API key. It counts before the environment's.
        #[must_use]
        pub fn api_key(self, key: impl Into<$crate::setter::Secret>) -> Self {
            self.api_key_from($crate::setter::ApiKey {
                secret: key.into(),
                origin: $crate::setter::Origin::Builder,
            })
        }

        /// The API key, and where it was found, for errors.
        #[must_use]
        pub fn api_key_from(mut self, key: $crate::setter::ApiKey) -> Self {
            self.$connection.set_key(key);
            self
        }

        /// How long this account needs and how often it may be called.
        #[must_use]
        pub fn limits(mut self, limits: $crate::setter::AccountLimits) -> Self {
            self.$connection.set_limits(limits);
            self
        }

        /// Another way to the cloud than hyper: any tower `Service`. Layers added before are
        /// replaced with it.
        #[must_use]
        pub fn transport(mut self, transport: $crate::Transport) -> Self {
            self.$connection.set_transport(transport);
            self
        }

        /// Wraps the way to the cloud in a tower layer. The last one added sees a try first.
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
        /// readable.
        #[must_use]
        pub fn allow_plain_http(mut self, allow: bool) -> Self {
            self.$connection.set_allow_plain_http(allow);
            self
        }

        /// Where "now" comes from.
        #[must_use]
        pub fn clock(mut self, clock: ::std::sync::Arc<dyn $crate::setter::Clock>) -> Self {
            self.$connection.set_clock(clock);
            self
        }

        /// Where jitter comes from.
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
