//! Fly's URL, organisation and token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::config::ApiKey;
use atlas_core::{AccountLimits, Error, ProviderId, Result};
use atlas_http::{Client, Connection, CredentialSource, Pace};

use crate::client::{Cloud, PACED, versioned};
use crate::place::is_app_name;
use crate::token::Scheme;
use crate::translate::Reader;
use crate::{Fly, token};

/// The environment variable of the token.
pub const API_KEY_ENV: &str = "FLY_API_TOKEN";
/// The environment variable of another base URL, without its `/v1`.
pub const URL_ENV: &str = "ATLAS_FLY_URL";
/// The environment variable of the URL of an app's public port, with the placeholder `{app}`.
pub const PROXY_URL_ENV: &str = "ATLAS_FLY_PROXY_URL";
/// The environment variable of the organisation's slug.
pub const ORG_ENV: &str = "ATLAS_FLY_ORG";
/// The environment variable of the app in which machines without ports are made.
pub const APP_ENV: &str = "ATLAS_FLY_APP";

const BASE_URL: &str = "https://api.machines.dev";
const PROXY_URL: &str = "https://{app}.fly.dev";

/// A new machine appears within seconds, and pulling its image may take longer than a minute. Calls
/// are limited by action and machine, not by account (docs/clouds/fly.md).
const LIMITS: AccountLimits = AccountLimits {
    visibility_bound: Duration::from_secs(60),
    call_deadline: Duration::from_secs(60),
    call_interval: Duration::from_millis(20),
    burst: 20,
    concurrency: 32,
};
/// One call a second per action on a machine or app, with a burst of three.
const ACTION_PACE: Pace = Pace::every(Duration::from_secs(1)).burst(3);
/// Five calls a second for reading one machine, with a burst of ten.
const READ_PACE: Pace = Pace::every(Duration::from_millis(200)).burst(10);

/// Builds a [`Fly`]. Settings made here take precedence over the environment.
pub struct FlyBuilder {
    connection: Connection,
    source: Option<Source>,
    base_url: Option<String>,
    proxy_url: Option<String>,
    org: Option<String>,
    app: Option<String>,
    own_apps: bool,
    paces: (Pace, Pace),
}

type Source = Box<dyn FnOnce(atlas_http::ClientBuilder) -> atlas_http::ClientBuilder + Send + Sync>;

impl Default for FlyBuilder {
    fn default() -> Self {
        Self {
            connection: Connection::new(LIMITS),
            source: None,
            base_url: None,
            proxy_url: None,
            org: None,
            app: None,
            own_apps: false,
            paces: (ACTION_PACE, READ_PACE),
        }
    }
}

impl FlyBuilder {
    atlas_http::connection_setters!(connection);

    /// Reads settings that are unset on the builder from these variables.
    #[must_use]
    pub fn environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        self.connection
            .set_environment_keys(&[API_KEY_ENV], &variable);
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        Self {
            base_url: self.base_url.or_else(|| set(URL_ENV)),
            proxy_url: self.proxy_url.or_else(|| set(PROXY_URL_ENV)),
            org: self.org.or_else(|| set(ORG_ENV)),
            app: self.app.or_else(|| set(APP_ENV)),
            ..self
        }
    }

    /// Sets a source that renews tokens, instead of one token. It returns complete `Authorization`
    /// values.
    #[must_use]
    pub fn credential_source(self, source: impl CredentialSource) -> Self {
        Self {
            source: Some(Box::new(|client| client.credential_source(source))),
            ..self
        }
    }

    /// Sets another base URL, without its `/v1`. `http://` is allowed for loopback only, unless
    /// enabled; inside Fly the URL is `http://_api.internal:4280`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> Self {
        Self {
            base_url: Some(url.into()),
            ..self
        }
    }

    /// Sets the URL of an app's public port, with the placeholder `{app}`. Default:
    /// `https://{app}.fly.dev`.
    #[must_use]
    pub fn proxy_url(self, url: impl Into<String>) -> Self {
        Self {
            proxy_url: Some(url.into()),
            ..self
        }
    }

    /// Sets the organisation by its slug. Default: the token's organisation.
    #[must_use]
    pub fn org(self, slug: impl Into<String>) -> Self {
        Self {
            org: Some(slug.into()),
            ..self
        }
    }

    /// Sets the app in which machines without ports are made. Default: each machine gets its own
    /// app.
    #[must_use]
    pub fn app(self, name: impl Into<String>) -> Self {
        Self {
            app: Some(name.into()),
            ..self
        }
    }

    /// Gives every machine its own app and private network, even without ports. Machines in one
    /// app, or on one network, can reach each other.
    #[must_use]
    pub fn own_apps(self, own: bool) -> Self {
        Self {
            own_apps: own,
            ..self
        }
    }

    /// Sets how often an action on a machine or app may be called, and how often one machine may be
    /// read.
    #[must_use]
    pub fn paces(self, action: Pace, read: Pace) -> Self {
        Self {
            paces: (action, read),
            ..self
        }
    }

    /// Builds the provider.
    ///
    /// # Errors
    /// `unauthorized` without a token, naming the variable to set; `validation` for an invalid URL,
    /// one that would send the token unencrypted to another machine, an invalid app name, or a
    /// proxy URL without `{app}`.
    pub fn build(self) -> Result<Fly> {
        let id = ProviderId::new("fly").expect("a plain name");
        self.checked(id.clone())
            .map_err(|error| error.during(&id, "build"))
    }

    fn checked(self, id: ProviderId) -> Result<Fly> {
        if self.app.as_deref().is_some_and(|app| !is_app_name(app)) {
            return Err(Error::validation(
                "app",
                "must be up to 63 lower-case letters, digits and dashes",
            ));
        }
        let url = self
            .proxy_url
            .unwrap_or_else(|| PROXY_URL.to_owned())
            .trim_end_matches('/')
            .to_owned();
        if !url.contains("{app}") {
            return Err(Error::validation(
                "proxy_url",
                "must have {app} where the app's name goes",
            ));
        }
        let base = self.base_url.unwrap_or_else(|| BASE_URL.to_owned());
        let (action, read) = self.paces;
        let begin = || {
            let client = self.connection.client(id.clone(), versioned(&base));
            let client = client.api("machines-v1").errors(crate::error::map);
            PACED.iter().fold(client, |client, (operation, reads)| {
                client.pace(operation, if *reads { read } else { action })
            })
        };
        let own = match self.source {
            Some(source) => source(begin()).build()?,
            None => {
                let key = self.connection.key(API_KEY_ENV)?;
                let (scheme, secret) = token::read(&key.secret)?;
                begin()
                    .api_key(
                        scheme.as_str(),
                        ApiKey {
                            secret,
                            origin: key.origin,
                        },
                    )
                    .build()?
            }
        };
        // A call's own token uses its own scheme, whatever the account's is.
        let of_calls = |scheme: Scheme| -> Result<Client> {
            let none = ApiKey {
                secret: atlas_core::Secret::new("none"),
                origin: atlas_core::config::Origin::Call,
            };
            begin()
                .api_key(scheme.as_str(), none)
                .share_limits_with(&own)
                .build()
        };
        let cloud = Cloud {
            flyv1: of_calls(Scheme::FlyV1)?,
            bearer: of_calls(Scheme::Bearer)?,
            own,
        };
        Ok(Fly {
            reader: Reader {
                provider: id.clone(),
                url,
            },
            id,
            cloud,
            org: self.org,
            app: self.app,
            own_apps: self.own_apps,
            limits: self.connection.limits(),
            recent: Arc::default(),
        })
    }
}

impl fmt::Debug for FlyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlyBuilder")
            .field("base_url", &self.base_url)
            .field("org", &self.org)
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}
