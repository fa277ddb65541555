//! Precedence of settings: per call, then builder or file, then environment. Values are passed in;
//! this module reads nothing itself.

use crate::error::{Error, ErrorKind, Result};
use crate::ids::AccountName;
use crate::secret::Secret;

/// The origin of a setting. Errors name it, and never the value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Given with the call.
    Call,
    /// Set on a builder.
    Builder,
    /// Read from a file.
    File(String),
    /// Read from this environment variable.
    Environment(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call => f.write_str("the call"),
            Self::Builder => f.write_str("the builder"),
            Self::File(name) => f.write_str(name),
            Self::Environment(name) => f.write_str(name),
        }
    }
}

/// An API key and its origin.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The key.
    pub secret: Secret,
    /// Its origin, for errors.
    pub origin: Origin,
}

impl ApiKey {
    /// The first candidate that is set and not blank, in the given order.
    ///
    /// # Errors
    /// `unauthorized`, before any request, naming the `variable` to set.
    pub fn resolve(
        choices: impl IntoIterator<Item = (Origin, Option<Secret>)>,
        variable: &str,
    ) -> Result<Self> {
        choices
            .into_iter()
            .find_map(|(origin, secret)| {
                secret
                    .filter(|s| !s.expose().trim().is_empty())
                    .map(|s| Self {
                        secret: Secret::new(s.expose().trim()),
                        origin,
                    })
            })
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Unauthorized,
                    format!("no api key: set {variable}, or give one to the builder"),
                )
            })
    }
}

/// Chooses the account for a call: the named one, else the default, else the only one.
///
/// # Errors
/// `validation`, naming the accounts to choose from.
pub fn resolve_account(
    named: Option<&AccountName>,
    default: Option<&AccountName>,
    known: &[AccountName],
) -> Result<AccountName> {
    let wrong = |message: String| Err(Error::validation("provider", message));
    match (named.or(default), known) {
        (Some(name), _) if known.contains(name) => Ok(name.clone()),
        (Some(name), _) => wrong(format!("{name} is not configured")),
        (None, [only]) => Ok(only.clone()),
        (None, []) => wrong("none is configured".to_owned()),
        (None, _) => wrong("several are configured: name one, or set default_provider".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_that_is_set_counts_and_blanks_do_not() {
        let key = |text: &str| Some(Secret::new(text));
        let env = Origin::Environment("RUNPOD_API_KEY");
        let found = ApiKey::resolve(
            [
                (Origin::Call, None),
                (Origin::Builder, key(" ")),
                (env.clone(), key("k\n")),
            ],
            "RUNPOD_API_KEY",
        )
        .unwrap();
        assert_eq!((found.secret.expose(), found.origin), ("k", env));
        let error = ApiKey::resolve([(Origin::Call, None)], "RUNPOD_API_KEY").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(error.to_string().contains("RUNPOD_API_KEY"));
    }

    #[test]
    fn an_account_is_named_or_default_or_the_only_one() {
        let [a, b] = ["runpod", "runpod-eu"].map(|name| AccountName::new(name).unwrap());
        let both = [a.clone(), b.clone()];
        assert_eq!(resolve_account(Some(&b), Some(&a), &both).unwrap(), b);
        assert_eq!(resolve_account(None, Some(&a), &both).unwrap(), a);
        assert_eq!(
            resolve_account(None, None, std::slice::from_ref(&b)).unwrap(),
            b
        );
        assert_eq!(
            resolve_account(None, None, &both).unwrap_err().field(),
            Some("provider")
        );
        assert!(resolve_account(Some(&b), None, &[a]).is_err());
    }
}
