//! The guard's configuration, from environment variables (and `--listen`, `--upstream`).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atlas_auth::control::ControlKey;
use atlas_auth::grant::{GrantKey, Revoked};
use atlas_auth::signed_url::Key;
use atlas_auth::{MIN_SECRET_BYTES, Verifier};
use atlas_core::{
    CONTROL_KEY_ENV, Clock, PRESHARED_KEY_ENV, SIGNING_SECRET_ENV, Secret, SystemClock,
};
use hyper::header::{HeaderName, HeaderValue};

use crate::control::Control;

/// The environment variable of the next secret for signing URLs, during a rotation.
pub(crate) const NEXT_SIGNING_SECRET_ENV: &str = "ATLAS_SIGNING_SECRET_NEXT";
/// The minimum length even for an existing signing secret: a shorter one can be guessed from one
/// signed URL.
const SHORTEST_SIGNING_SECRET: usize = 8;

/// The error for an invalid setting. Names the setting, never its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    name: &'static str,
    problem: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// The origins from which a browser may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    /// CORS is left to the server behind.
    Passed,
    Any,
    These(Vec<HeaderValue>),
}

/// The configuration of a guard.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) upstream_http2: bool,
    pub(crate) verifier: Verifier,
    pub(crate) control: Control,
    pub(crate) revoked: Arc<Revoked>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) origins: Origins,
    pub(crate) client_header: Option<HeaderName>,
    pub(crate) max_header_bytes: u32,
    pub(crate) header_timeout: Duration,
    pub(crate) half_closed_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) max_streams: usize,
    pub(crate) max_streams_each: usize,
    pub(crate) warnings: Vec<ConfigError>,
    pub(crate) permit: Option<Duration>,
}

impl Config {
    /// Reads the environment through `lookup`.
    ///
    /// # Errors
    /// When a value cannot be parsed, or there is no credential at all, because an open guard is
    /// never intended.
    pub fn from_env(lookup: impl Fn(&'static str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::new(lookup, Arc::new(SystemClock))
    }

    /// The same with another clock.
    ///
    /// # Errors
    /// Like [`Config::from_env`].
    pub fn new(
        lookup: impl Fn(&'static str) -> Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        let lookup = |name| lookup(name).filter(|value| !value.trim().is_empty());
        let secret = |name| lookup(name).map(|value| Secret::new(value.trim()));
        let revoked = Arc::<Revoked>::default();
        let mut verifier = Verifier::new(Arc::clone(&clock)).revoked(Arc::clone(&revoked));
        let (mut bearer, mut grants, mut warnings) = (None, vec![], vec![]);
        let short = |name| ConfigError {
            name,
            problem: "must be at least 16 bytes; `atlas token mint` makes one",
        };
        if let Some(token) = secret(PRESHARED_KEY_ENV) {
            let short = |_| short(PRESHARED_KEY_ENV);
            verifier = verifier.bearer(&token).map_err(short)?;
            grants.push(GrantKey::new(&token).map_err(short)?);
            bearer = Some(atlas_auth::token::Hash::of(&token));
        }
        let mut signs = false;
        for name in [SIGNING_SECRET_ENV, NEXT_SIGNING_SECRET_ENV] {
            let Some(secret) = secret(name) else {
                continue;
            };
            let length = secret.expose().len();
            if length < SHORTEST_SIGNING_SECRET {
                return Err(short(name));
            }
            verifier = verifier.url_key(Key::existing(&secret).map_err(|_| short(name))?);
            signs = true;
            if length < MIN_SECRET_BYTES {
                // Refusing it would take running machines out of service whose operator chose it.
                warnings.push(ConfigError {
                    name,
                    problem: "is shorter than 16 bytes and can be guessed; it signs no grants",
                });
            } else {
                grants.push(GrantKey::new(&secret).map_err(|_| short(name))?);
            }
        }
        if bearer.is_none() && !signs {
            return Err(ConfigError {
                name: PRESHARED_KEY_ENV,
                problem: "neither it nor ATLAS_SIGNING_SECRET is set",
            });
        }
        for key in &grants {
            verifier = verifier.grant_key(key.clone());
        }
        let control = match lookup(CONTROL_KEY_ENV) {
            Some(key) => {
                let problem = "is not a control key that atlas minted";
                Control::Key(key.trim().parse::<ControlKey>().map_err(|_| ConfigError {
                    name: CONTROL_KEY_ENV,
                    problem,
                })?)
            }
            None => Control::Credential { bearer, grants },
        };
        if let Some(host) = lookup("ATLAS_GUARD_HOST") {
            verifier = verifier.host(host.trim());
        }
        if flag("ATLAS_GUARD_ATLAS_URLS_ONLY", &lookup)? {
            verifier = verifier.atlas_format_only();
        }
        if flag("ATLAS_GUARD_COMPATIBLE_ANY_METHOD", &lookup)? {
            verifier = verifier.compatible_for_any_method();
        }
        // No span is longer than a century, because an instant so far away may not be
        // representable.
        let seconds = |name, default| {
            number(name, &lookup, default)
                .map(|span| Duration::from_secs(span.min(u32::MAX.into())))
        };
        let clamp =
            |value: u64, low: u32, high: u32| u32::try_from(value).unwrap_or(high).clamp(low, high);
        let count = |name, default| {
            number(name, &lookup, default).map(|count| clamp(count, 1, 1 << 20) as usize)
        };
        Ok(Self {
            listen: address(
                "ATLAS_GUARD_LISTEN",
                lookup("ATLAS_GUARD_LISTEN")
                    .as_deref()
                    .unwrap_or("0.0.0.0:8000"),
            )?,
            upstream: address(
                "ATLAS_GUARD_UPSTREAM",
                lookup("ATLAS_GUARD_UPSTREAM")
                    .as_deref()
                    .unwrap_or("127.0.0.1:8001"),
            )?,
            upstream_http2: flag("ATLAS_GUARD_UPSTREAM_HTTP2", &lookup)?,
            verifier,
            control,
            revoked,
            clock,
            origins: origins(lookup("ATLAS_GUARD_CORS_ORIGINS").as_deref())?,
            client_header: client_header(lookup("ATLAS_GUARD_CLIENT_HEADER").as_deref())?,
            max_header_bytes: clamp(
                number("ATLAS_GUARD_MAX_HEADER_BYTES", &lookup, 32 * 1024)?,
                1024,
                1 << 20,
            ),
            header_timeout: seconds("ATLAS_GUARD_HEADER_TIMEOUT_SECS", 15)?,
            half_closed_timeout: seconds("ATLAS_GUARD_HALF_CLOSED_TIMEOUT_SECS", 30)?,
            max_connections: count("ATLAS_GUARD_MAX_CONNECTIONS", 4096)?,
            max_streams: count("ATLAS_GUARD_MAX_STREAMS", 2048)?,
            max_streams_each: count("ATLAS_GUARD_MAX_STREAMS_PER_CREDENTIAL", 256)?,
            warnings,
            permit: lookup("ATLAS_GUARD_PERMIT_SECS")
                .map(|_| seconds("ATLAS_GUARD_PERMIT_SECS", 0))
                .transpose()?,
        })
    }

    /// Sets the address to listen on.
    ///
    /// # Errors
    /// When it is not an `IP:PORT`.
    pub fn listen(self, listen: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            listen: address("--listen", listen)?,
            ..self
        })
    }

    /// Sets the server to forward to.
    ///
    /// # Errors
    /// When it is not an `IP:PORT`.
    pub fn upstream(self, upstream: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            upstream: address("--upstream", upstream)?,
            ..self
        })
    }

    /// Settings that work but should be changed.
    #[must_use]
    pub fn warnings(&self) -> &[ConfigError] {
        &self.warnings
    }

    /// How long the machine may run without a renewed permit.
    #[must_use]
    pub const fn permit(&self) -> Option<Duration> {
        self.permit
    }
}

/// Parses an address. Names are not resolved, except `localhost`, which needs no resolver: a static
/// binary has none to rely on.
fn address(name: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    let text = text.trim();
    let text = text
        .strip_prefix("localhost:")
        .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| ConfigError {
        name,
        problem: "must be IP:PORT",
    })
}

fn number(
    name: &'static str,
    lookup: &impl Fn(&'static str) -> Option<String>,
    default: u64,
) -> Result<u64, ConfigError> {
    match lookup(name).map(|text| text.trim().parse()) {
        None => Ok(default),
        Some(Ok(value)) if value > 0 => Ok(value),
        Some(_) => Err(ConfigError {
            name,
            problem: "must be a whole number above zero",
        }),
    }
}

fn flag(
    name: &'static str,
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<bool, ConfigError> {
    match lookup(name).as_deref().map(str::trim) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(ConfigError {
            name,
            problem: "must be 1 or 0",
        }),
    }
}

fn origins(list: Option<&str>) -> Result<Origins, ConfigError> {
    let Some(list) = list else {
        return Ok(Origins::Passed);
    };
    if list.trim() == "*" {
        return Ok(Origins::Any);
    }
    // A browser's origin has no slash at its end, but pasted URLs often do.
    let origins = list
        .split([',', ' '])
        .map(|origin| origin.trim_end_matches('/'))
        .filter(|origin| !origin.is_empty());
    let origins = origins.map(HeaderValue::from_str);
    let origins = origins.collect::<Result<_, _>>();
    origins.map(Origins::These).map_err(|_| ConfigError {
        name: "ATLAS_GUARD_CORS_ORIGINS",
        problem: "must be * or origins such as https://app.example",
    })
}

fn client_header(name: Option<&str>) -> Result<Option<HeaderName>, ConfigError> {
    let parse = |name: &str| name.trim().parse();
    name.map(parse).transpose().map_err(|_| ConfigError {
        name: "ATLAS_GUARD_CLIENT_HEADER",
        problem: "must be a header's name",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "a-secret-of-25-characters";

    fn config(values: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
        let found = |name| {
            values
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Config::from_env(found)
    }

    #[test]
    fn a_guard_without_a_credential_does_not_start() {
        let error = config(&[("ATLAS_PRESHARED_KEY", " ")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ATLAS_PRESHARED_KEY: neither it nor ATLAS_SIGNING_SECRET is set"
        );
        assert!(config(&[("ATLAS_SIGNING_SECRET", LONG)]).is_ok());
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused_or_warned_of() {
        for (name, secret) in [
            ("ATLAS_PRESHARED_KEY", "fifteen-bytes-x"),
            ("ATLAS_SIGNING_SECRET", "seven-b"),
            ("ATLAS_SIGNING_SECRET_NEXT", "seven-b"),
        ] {
            let error = config(&[("ATLAS_PRESHARED_KEY", LONG), (name, secret)][1..]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
            assert!(!error.to_string().contains(secret), "{error}");
        }
        let warned = config(&[("ATLAS_SIGNING_SECRET", "fifteen-bytes-x")]).unwrap();
        assert_eq!(warned.warnings().len(), 1);
        assert!(
            config(&[("ATLAS_SIGNING_SECRET", LONG)])
                .unwrap()
                .warnings()
                .is_empty()
        );
    }

    #[test]
    fn a_control_key_that_cannot_be_read_never_means_none() {
        let error = config(&[("ATLAS_PRESHARED_KEY", LONG), ("ATLAS_CONTROL_KEY", "x")]);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("ATLAS_CONTROL_KEY")
        );
    }

    #[test]
    fn a_setting_that_cannot_be_read_is_named_and_its_value_is_not_shown() {
        for name in [
            "ATLAS_GUARD_LISTEN",
            "ATLAS_GUARD_UPSTREAM",
            "ATLAS_GUARD_MAX_HEADER_BYTES",
            "ATLAS_GUARD_HEADER_TIMEOUT_SECS",
            "ATLAS_GUARD_PERMIT_SECS",
            "ATLAS_GUARD_UPSTREAM_HTTP2",
        ] {
            let error = config(&[("ATLAS_PRESHARED_KEY", LONG), (name, "nonsense")])
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(name) && !error.contains("nonsense"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_span_without_end_is_a_very_long_one() {
        let config = config(&[
            ("ATLAS_PRESHARED_KEY", LONG),
            ("ATLAS_GUARD_PERMIT_SECS", "18446744073709551615"),
        ])
        .unwrap();
        let permit = crate::Permit::new(config.permit());
        permit.renew();
        assert!(config.permit().unwrap() > Duration::from_secs(100 * 365 * 24 * 3600));
    }

    #[test]
    fn no_secret_shows_in_a_debug_print() {
        let config = config(&[
            ("ATLAS_PRESHARED_KEY", LONG),
            ("ATLAS_SIGNING_SECRET", LONG),
        ])
        .unwrap();
        assert!(!format!("{config:?}").contains(LONG));
    }

    #[test]
    fn localhost_needs_no_resolver() {
        let config = config(&[("ATLAS_PRESHARED_KEY", LONG)])
            .unwrap()
            .upstream("localhost:9")
            .unwrap();
        assert_eq!(config.upstream, "127.0.0.1:9".parse().unwrap());
    }
}
