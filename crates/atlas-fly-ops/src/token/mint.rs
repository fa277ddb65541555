//! Tokens from `fly tokens create`: always with an expiry, a name and a scope, so that they can be
//! found and revoked.

use std::collections::BTreeSet;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result};

use crate::app_name::AppName;
use crate::cli::FlyCli;
use crate::token::form::FlyToken;

/// The scope of a minted token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MintScope {
    /// Reads everything of one organisation; `None`: the one that `FLY_ORG` names.
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
                words.extend(positional(org));
            }
            Self::DeployApp => words.extend(["deploy".into(), format!("--app={app}")]),
        }
        words
    }

    fn list(&self, app: &AppName) -> Vec<String> {
        let mut words = vec!["tokens".to_owned(), "list".to_owned()];
        match self {
            Self::ReadOrganisation(org) => {
                words.push("--scope=org".into());
                words.extend(positional(org));
            }
            Self::DeployApp => words.extend(["--scope=app".into(), format!("--app={app}")]),
        }
        words
    }

    /// `tokens create readonly` has no `--org`: the organisation is `FLY_ORG`, or the first word
    /// after the options for a `fly` that does not read that variable. Without one `fly` prompts
    /// for it, which cannot be answered here (docs/clouds/fly.md).
    fn cli(&self, cli: &FlyCli) -> FlyCli {
        match self {
            Self::ReadOrganisation(Some(org)) => cli.clone().env("FLY_ORG", org),
            _ => cli.clone(),
        }
    }

    /// What to do about a refusal that may be for want of an organisation.
    fn hint(&self) -> &'static str {
        match self {
            Self::ReadOrganisation(None) => {
                "; it needs an organisation, which ATLAS_FLY_ORG or FLY_ORG names"
            }
            _ => "",
        }
    }
}

/// An organisation as an argument. One that would be read as an option is left to the environment.
fn positional(org: &Option<String>) -> Option<String> {
    org.clone().filter(|org| !org.starts_with('-'))
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
    let answer = scope.cli(cli).run(words, limit).await?;
    if !answer.status.success() {
        let text = format!("fly refused to make a token{}", scope.hint());
        return Err(Error::new(ErrorKind::Provider, text));
    }
    FlyToken::from_output(&answer.stdout)
        .map_err(|_| Error::new(ErrorKind::Provider, "fly created no token"))
}

/// The result of revoking tokens.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// How many `fly` reports as revoked.
    pub(crate) count: usize,
    /// The ids of those that were not revoked.
    pub(crate) failed: Vec<String>,
}

/// Revokes the valid tokens with such a name. `fly tokens revoke` always exits with 0, so its
/// report of what it revoked decides.
pub(crate) async fn revoke(
    cli: &FlyCli,
    scope: &MintScope,
    app: &AppName,
    ours: impl Fn(&str) -> bool,
    limit: Duration,
) -> Result<Revoked> {
    let refused = |message: String| Error::new(ErrorKind::Provider, message);
    let cli = scope.cli(cli);
    let answer = cli.run(scope.list(app), limit).await?;
    if !answer.status.success() {
        let text = format!("fly refused to list tokens{}", scope.hint());
        return Err(refused(text));
    }
    let unread = || refused("fly's list of tokens could not be read".to_owned());
    let ids: Vec<String> = listed(&answer.stdout)
        .ok_or_else(unread)?
        .into_iter()
        .filter(|token| !token.revoked && ours(token.name))
        .map(|token| token.id.to_owned())
        .collect();
    // They go into an argument list.
    let plain = |id: &String| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !ids.iter().all(plain) {
        return Err(unread());
    }
    if ids.is_empty() {
        return Ok(Revoked::default());
    }
    let words = ["tokens".to_owned(), "revoke".to_owned()]
        .into_iter()
        .chain(ids.iter().cloned());
    let answer = cli.run(words, limit).await?;
    if !answer.status.success() {
        return Err(refused("fly refused to revoke tokens".to_owned()));
    }
    let done: BTreeSet<&str> = answer
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Revoked "))
        .collect();
    let (done, failed): (Vec<_>, Vec<_>) =
        ids.into_iter().partition(|id| done.contains(id.as_str()));
    let count = done.len();
    Ok(Revoked { count, failed })
}

/// A row of `fly tokens list`.
#[derive(Debug, PartialEq, Eq)]
struct Listed<'a> {
    id: &'a str,
    name: &'a str,
    revoked: bool,
}

/// Parses the table of `fly tokens list`, its only output format: a title, the column names, and a
/// row per token, with cells padded with blanks and separated by tabs. A row with another number of
/// cells (a name with a tab in it) belongs to another user. `None` if there is no such table.
fn listed(stdout: &str) -> Option<Vec<Listed<'_>>> {
    fn cells(line: &str) -> Vec<&str> {
        line.split('\t').map(str::trim).collect()
    }
    let mut lines = stdout.lines();
    let columns = lines.by_ref().map(cells).find(|cells| {
        cells
            .first()
            .is_some_and(|name| name.eq_ignore_ascii_case("id"))
    })?;
    let at = |name: &str| {
        columns
            .iter()
            .position(|cell| cell.eq_ignore_ascii_case(name))
    };
    let (name_at, revoked_at) = (at("name")?, at("revoked at"));
    let width = columns.iter().rposition(|cell| !cell.is_empty())? + 1;
    let rows = lines.map(cells).filter_map(|cells| {
        // An empty last cell may be left out, and one more tab may follow it.
        let fits = (width - 1..=width + 1).contains(&cells.len())
            && cells.get(width).is_none_or(|rest| rest.is_empty());
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        (fits && !cell(0).is_empty()).then(|| Listed {
            id: cell(0),
            name: cell(name_at),
            revoked: revoked_at.is_some_and(|at| !cell(at).is_empty()),
        })
    });
    Some(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_tokens_is_read_by_its_columns() {
        let row = |id, name, revoked| Listed { id, name, revoked };
        let today = "Update available\nTokens for organization \"acme\":\n\
            ID  \tNAME        \tCREATED BY   \tEXPIRES AT                   \tREVOKED AT \n\
            01JA\tflyctl token\tme@example.com\t2046-01-01 00:00:00 +0000 UTC\t           \t\n\
            01JB\tatlas-h.a.1 \tme@example.com\t2046-01-01 00:00:00 +0000 UTC\t2026-01-01 00:00:00 \
                +0000 UTC\n\
            01JC\tatlas-h.a.2 \tme@example.com\t2046-01-01 00:00:00 +0000 UTC\n\
            01JD\todd\tname   \tme@example.com\t2046-01-01 00:00:00 +0000 UTC\tx\ty\n\
            \tatlas-h.a.3 \t \t\t\n\n";
        let wanted = vec![
            row("01JA", "flyctl token", false),
            row("01JB", "atlas-h.a.1", true),
            row("01JC", "atlas-h.a.2", false),
        ];
        assert_eq!(listed(today), Some(wanted));
        let early = "ID\tNAME\tEXPIRES AT\t\nt1\tatlas-h.a.1\t2046\t\n";
        assert_eq!(listed(early), Some(vec![row("t1", "atlas-h.a.1", false)]));
        let none = "Tokens for app \"shop\":\nID\tNAME\tCREATED BY\tEXPIRES AT\tREVOKED AT \n\n";
        assert_eq!(listed(none), Some(Vec::new()));
        for strange in ["", "[]", "no tokens", "NAME\tID\n", "ID\tWHAT\n"] {
            assert_eq!(listed(strange), None, "{strange}");
        }
    }
}
