//! Tokens from `fly tokens create`: always with an end, a name and a scope, and findable again to
//! be revoked.

use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::app_name::AppName;
use crate::cli::FlyCli;
use crate::token::form::FlyToken;

/// What a minted token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MintScope {
    /// Reads everything of one organisation; `None`: the only one the user has.
    ReadOrganisation(Option<String>),
    /// Manages the one app. The log API may refuse it.
    DeployApp,
}

impl MintScope {
    fn create(&self, app: &AppName) -> Vec<String> {
        let mut words = vec!["tokens".to_owned(), "create".to_owned()];
        match self {
            Self::ReadOrganisation(org) => {
                words.push("readonly".into());
                words.extend(org.iter().map(|org| format!("--org={org}")));
            }
            Self::DeployApp => words.extend(["deploy".into(), format!("--app={app}")]),
        }
        words
    }

    fn list(&self, app: &AppName) -> Vec<String> {
        let mut words = vec!["tokens".to_owned(), "list".to_owned(), "--json".to_owned()];
        match self {
            Self::ReadOrganisation(org) => {
                words.push("--scope=org".into());
                words.extend(org.iter().map(|org| format!("--org={org}")));
            }
            Self::DeployApp => words.extend(["--scope=app".into(), format!("--app={app}")]),
        }
        words
    }
}

/// Mints one.
pub(crate) async fn create(
    cli: &FlyCli,
    scope: &MintScope,
    app: &AppName,
    name: &str,
    expiry: Duration,
    limit: Duration,
) -> Result<FlyToken> {
    let mut words = scope.create(app);
    words.extend([
        format!("--name={name}"),
        format!("--expiry={}s", expiry.as_secs()),
        "--json".into(),
    ]);
    let answer = cli.run(words, limit).await?;
    if !answer.status.success() {
        return Err(Error::new(
            ErrorKind::Provider,
            "fly refused to make a token",
        ));
    }
    FlyToken::from_output(&answer.stdout)
        .map_err(|_| Error::new(ErrorKind::Provider, "fly made no token"))
}

/// Revokes those of such a name that are not revoked yet; says how many there were.
pub(crate) async fn revoke(
    cli: &FlyCli,
    scope: &MintScope,
    app: &AppName,
    ours: impl Fn(&str) -> bool,
    limit: Duration,
) -> Result<usize> {
    #[derive(Deserialize)]
    struct Listed {
        #[serde(alias = "ID", alias = "Id")]
        id: String,
        #[serde(alias = "Name", default)]
        name: Option<String>,
        #[serde(alias = "RevokedAt", alias = "revokedAt", default)]
        revoked_at: Option<String>,
    }
    let refused = |message: &str| Error::new(ErrorKind::Provider, message);
    let answer = cli.run(scope.list(app), limit).await?;
    if !answer.status.success() {
        return Err(refused("fly refused to list tokens"));
    }
    let listed: Vec<Listed> = serde_json::from_str(&answer.stdout)
        .map_err(|_| refused("fly's list of tokens could not be read"))?;
    let ids: Vec<String> = listed
        .into_iter()
        .filter(|listed| listed.revoked_at.is_none() && listed.name.as_deref().is_some_and(&ours))
        .map(|listed| listed.id)
        .collect();
    // They go into an argument list.
    if ids.iter().any(|id| id.starts_with('-') || id.is_empty()) {
        return Err(refused("fly's list of tokens could not be read"));
    }
    if ids.is_empty() {
        return Ok(0);
    }
    let count = ids.len();
    let words = ["tokens".to_owned(), "revoke".to_owned()]
        .into_iter()
        .chain(ids);
    if cli.run(words, limit).await?.status.success() {
        Ok(count)
    } else {
        Err(refused("fly refused to revoke a token"))
    }
}
