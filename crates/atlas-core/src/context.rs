//! Options that a caller may set for one call.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::launch_key::DEFAULT_NAME_PREFIX;
use crate::secret::Secret;

/// Options of one call: deadline, retries, base URL, key, name prefix, and extensions that a
/// transport understands.
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
    /// No option set: the call behaves as the provider was configured.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the total time limit of the call, including its retries.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Sets the maximum number of repeats; 0 disables them.
    #[must_use]
    pub fn with_retries(self, retries: u32) -> Self {
        Self {
            retries: Some(retries),
            ..self
        }
    }

    /// Sets another base URL. `http://` is refused except for loopback addresses.
    #[must_use]
    pub fn with_base_url(self, url: impl Into<Arc<str>>) -> Self {
        Self {
            base_url: Some(url.into()),
            ..self
        }
    }

    /// Sets another API key for an untracked call. The orchestrator refuses this option, because a
    /// session always uses its account's key.
    #[must_use]
    pub fn with_api_key(self, key: Secret) -> Self {
        Self {
            api_key: Some(key),
            ..self
        }
    }

    /// Sets the prefix of machine names.
    #[must_use]
    pub fn with_name_prefix(self, prefix: impl Into<Arc<str>>) -> Self {
        Self {
            name_prefix: prefix.into(),
            ..self
        }
    }

    /// Sets an extension for the transport, stored by its type: at most one value of each type.
    #[must_use]
    pub fn with_extension<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.extensions.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// The total time limit of the call.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The maximum number of repeats.
    #[must_use]
    pub const fn retries(&self) -> Option<u32> {
        self.retries
    }

    /// The base URL that replaces the provider's.
    #[must_use]
    pub fn base_url(&self) -> Option<&str> {
        self.base_url.as_deref()
    }

    /// The API key that replaces the account's.
    #[must_use]
    pub const fn api_key(&self) -> Option<&Secret> {
        self.api_key.as_ref()
    }

    /// The prefix of machine names.
    #[must_use]
    pub fn name_prefix(&self) -> &str {
        &self.name_prefix
    }

    /// The extension of this type, if one was set.
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
