//! What a caller may set for one call.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::launch_key::DEFAULT_NAME_PREFIX;
use crate::secret::Secret;

/// Options of one call: deadline, retries, base URL, key, name prefix, and whatever a transport
/// understands besides.
#[derive(Clone)]
pub struct CallContext {
    timeout: Option<Duration>,
    retries: Option<u32>,
    base_url: Option<Arc<str>>,
    api_key: Option<Secret>,
    name_prefix: Arc<str>,
    extensions: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Default for CallContext {
    fn default() -> Self {
        Self {
            timeout: None,
            retries: None,
            base_url: None,
            api_key: None,
            name_prefix: DEFAULT_NAME_PREFIX.into(),
            extensions: HashMap::new(),
        }
    }
}

impl CallContext {
    /// Nothing set: everything as the provider was built.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The longest the call may take, its retries included.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// How often the call may be repeated; 0 for never.
    #[must_use]
    pub fn with_retries(self, retries: u32) -> Self {
        Self {
            retries: Some(retries),
            ..self
        }
    }

    /// Another base URL. `http://` is refused except to loopback.
    #[must_use]
    pub fn with_base_url(self, url: impl Into<Arc<str>>) -> Self {
        Self {
            base_url: Some(url.into()),
            ..self
        }
    }

    /// Another key, for an untracked call. A session's account keeps its own: the orchestrator
    /// refuses this.
    #[must_use]
    pub fn with_api_key(self, key: Secret) -> Self {
        Self {
            api_key: Some(key),
            ..self
        }
    }

    /// What machine names begin with.
    #[must_use]
    pub fn with_name_prefix(self, prefix: impl Into<Arc<str>>) -> Self {
        Self {
            name_prefix: prefix.into(),
            ..self
        }
    }

    /// Something the transport understands, by its type. One value of each type.
    #[must_use]
    pub fn with_extension<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.extensions.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// The longest the call may take.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// How often the call may be repeated.
    #[must_use]
    pub const fn retries(&self) -> Option<u32> {
        self.retries
    }

    /// The base URL instead of the provider's.
    #[must_use]
    pub fn base_url(&self) -> Option<&str> {
        self.base_url.as_deref()
    }

    /// The key instead of the account's.
    #[must_use]
    pub const fn api_key(&self) -> Option<&Secret> {
        self.api_key.as_ref()
    }

    /// What machine names begin with.
    #[must_use]
    pub fn name_prefix(&self) -> &str {
        &self.name_prefix
    }

    /// What was set of this type.
    #[must_use]
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.extensions.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext")
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("base_url", &self.base_url)
            .field("api_key", &self.api_key)
            .field("name_prefix", &self.name_prefix)
            .finish_non_exhaustive()
    }
}
