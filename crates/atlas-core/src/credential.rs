//! The credential a browser presents to a machine: its scheme and its secret.
//!
//! `atlas-auth` mints and verifies credentials; this module only carries them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// The environment variable that holds the bearer token the machine must require.
pub const PRESHARED_KEY_ENV: &str = "ATLAS_PRESHARED_KEY";
/// The environment variable that holds the secret with which URLs for the machine are signed.
pub const SIGNING_SECRET_ENV: &str = "ATLAS_SIGNING_SECRET";

/// The environment variable that holds the public half of the session's control secret, for the
/// machine's guard.
pub const CONTROL_KEY_ENV: &str = "ATLAS_CONTROL_KEY";

/// How the browser authenticates to the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// No authentication.
    #[default]
    None,
    /// `Authorization: Bearer <token>`.
    Bearer,
    /// A signature and an expiry in the URL.
    SignedUrl,
}

impl FromStr for Auth {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "bearer" => Ok(Self::Bearer),
            "signed-url" | "signed_url" => Ok(Self::SignedUrl),
            _ => Err(Error::validation(
                "auth",
                "must be none, bearer or signed-url",
            )),
        }
    }
}

/// A minted credential. Its secret is returned once, in the answer to the spawn that minted it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    scheme: Auth,
    token: Secret,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    control: Option<Control>,
}

/// The secret that authorises calls to a guard's control paths, and its public half.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    secret: Secret,
    key: String,
}

impl Credential {
    /// A bearer token and its hash, which is what a caller should store.
    #[must_use]
    pub fn bearer(token: Secret, hash: String) -> Self {
        Self {
            scheme: Auth::Bearer,
            token,
            hash: Some(hash),
            control: None,
        }
    }

    /// A secret for signing URLs.
    #[must_use]
    pub fn signed_url(secret: Secret) -> Self {
        Self {
            scheme: Auth::SignedUrl,
            token: secret,
            hash: None,
            control: None,
        }
    }

    /// Adds a control secret for the backend and its public half for the machine.
    #[must_use]
    pub fn with_control(self, secret: Secret, key: String) -> Self {
        Self {
            control: Some(Control { secret, key }),
            ..self
        }
    }

    /// The secret that authorises calls to the control paths of the machine's guard. It belongs to
    /// the backend only: never give it to a browser. `None` for a session that was made before
    /// control secrets existed.
    #[must_use]
    pub fn control_secret(&self) -> Option<&Secret> {
        self.control.as_ref().map(|control| &control.secret)
    }

    /// The public half of the control secret, which the machine receives.
    #[must_use]
    pub fn control_key(&self) -> Option<&str> {
        self.control.as_ref().map(|control| control.key.as_str())
    }

    /// The authentication scheme of this credential.
    #[must_use]
    pub const fn scheme(&self) -> Auth {
        self.scheme
    }

    /// The bearer token, or the secret that signs URLs.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.token
    }

    /// The SHA-256 of a bearer token in hex, which is what a caller should store.
    #[must_use]
    pub fn hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }

    /// The value of the `Authorization` header, for a bearer token.
    #[must_use]
    pub fn header(&self) -> Option<Secret> {
        (self.scheme == Auth::Bearer)
            .then(|| Secret::new(format!("Bearer {}", self.token.expose())))
    }

    /// The environment variable in which the machine finds the secret.
    #[must_use]
    pub const fn env_name(&self) -> &'static str {
        match self.scheme {
            Auth::SignedUrl => SIGNING_SECRET_ENV,
            Auth::None | Auth::Bearer => PRESHARED_KEY_ENV,
        }
    }

    /// The credential as JSON, **secret included**. `serde` reads it back.
    #[must_use]
    pub fn expose(&self) -> Value {
        let mut value =
            json!({ "scheme": self.scheme, "token": self.token.expose(), "hash": self.hash });
        if let Some(control) = &self.control {
            value["control"] = json!({ "secret": control.secret.expose(), "key": control.key });
        }
        value
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}
