//! The source of the `Authorization` header: a key, or a source that renews its token.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::Arc;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{Error, ErrorKind, Result, Secret};
use http::HeaderValue;

/// Provides the complete `Authorization` value for each attempt, for tokens that expire or come
/// from a file or command.
pub trait CredentialSource: Debug + Send + Sync + 'static {
    /// The complete value including its scheme (`Bearer x`, `FlyV1 y`). Called before every
    /// attempt, so implementations should cache it.
    ///
    /// # Errors
    /// `unauthorized` when there is none; the call then fails before anything is sent.
    fn authorization(&self) -> impl Future<Output = Result<Secret>> + Send;

    /// The cloud refused this value with 401: discard it if it is still the current one. The call
    /// is then repeated once.
    fn rejected(&self, value: &Secret);

    /// The origin of the credential, for errors: "the api key from {origin} was rejected".
    fn origin(&self) -> String {
        "the credential source".to_owned()
    }
}

impl<S: CredentialSource> CredentialSource for Arc<S> {
    async fn authorization(&self) -> Result<Secret> {
        S::authorization(self).await
    }

    fn rejected(&self, value: &Secret) {
        S::rejected(self, value);
    }

    fn origin(&self) -> String {
        S::origin(self)
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub(crate) trait ErasedSource: Debug + Send + Sync {
    fn authorization(&self) -> BoxFuture<'_, Result<Secret>>;
    fn rejected(&self, value: &Secret);
    fn origin(&self) -> String;
}

impl<S: CredentialSource> ErasedSource for S {
    fn authorization(&self) -> BoxFuture<'_, Result<Secret>> {
        Box::pin(CredentialSource::authorization(self))
    }

    fn rejected(&self, value: &Secret) {
        CredentialSource::rejected(self, value);
    }

    fn origin(&self) -> String {
        CredentialSource::origin(self)
    }
}

/// How a client authorises its calls.
#[derive(Clone)]
pub(crate) enum Authorizer {
    None,
    Key {
        value: HeaderValue,
        key: Secret,
        origin: Origin,
    },
    Source(Arc<dyn ErasedSource>),
}

/// The value that a source provided for one attempt.
pub(crate) struct Authorization {
    pub(crate) value: HeaderValue,
    pub(crate) secret: Secret,
}

impl Authorization {
    pub(crate) async fn from(source: &dyn ErasedSource) -> Result<Self> {
        let secret = source.authorization().await?;
        Ok(Self {
            value: header("", &secret, &source.origin())?,
            secret,
        })
    }
}

impl Authorizer {
    pub(crate) fn key(scheme: &str, key: ApiKey) -> Result<Self> {
        let value = header(scheme, &key.secret, &key.origin.to_string())?;
        Ok(Self::Key {
            value,
            key: key.secret,
            origin: key.origin,
        })
    }

    /// The origin of the credential, for errors.
    pub(crate) fn origin(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Key { origin, .. } => Some(origin.to_string()),
            Self::Source(source) => Some(source.origin()),
        }
    }

    /// The secret that must not appear in any error text.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Key { key, .. } => Some(key),
            Self::None | Self::Source(_) => None,
        }
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Key { origin, .. } => write!(f, "Key(from {origin})"),
            Self::Source(source) => write!(f, "Source({})", source.origin()),
        }
    }
}

/// The header's value, marked sensitive, so that neither `Debug` nor HTTP/2's compression tables
/// contain it.
fn header(scheme: &str, secret: &Secret, origin: &str) -> Result<HeaderValue> {
    let text = if scheme.is_empty() {
        secret.clone()
    } else {
        Secret::new(format!("{scheme} {}", secret.expose()))
    };
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| {
        Error::new(
            ErrorKind::Unauthorized,
            format!("the api key from {origin} has characters no header can hold"),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}
