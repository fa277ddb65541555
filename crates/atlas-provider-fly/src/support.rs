//! The supporting objects of a machine with its own app: the app, and the addresses of its ports.

use std::time::Duration;

use atlas_core::{
    CallContext, Claim, ComputeStatus, Error, ErrorKind, Next, Outcome, Result, Support,
    TrackedKey, UnreadableRow,
};
use http::StatusCode;

use crate::app::IpKind;
use crate::place::is_app_name;
use crate::{Fly, View, wire};

/// The kind of an app.
pub(crate) const APP: &str = "app";
/// The kind of an app's address.
pub(crate) const IP: &str = "ip";

/// How long a new app may be unknown, and how often it is read.
const APP_SHOWS: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_millis(500);

pub(crate) fn not_ours() -> Error {
    Error::validation("support", "is not a support object of fly")
}

fn app_name(support: &Support) -> Result<&str> {
    if is_app_name(&support.name) {
        Ok(&support.name)
    } else {
        Err(not_ours())
    }
}

fn address(support: &Support) -> Result<(&str, IpKind)> {
    let app = support.spec["app"]
        .as_str()
        .filter(|app| is_app_name(app))
        .ok_or_else(not_ours)?;
    let kind = support.spec["type"]
        .as_str()
        .and_then(IpKind::parse)
        .ok_or_else(not_ours)?;
    Ok((app, kind))
}

impl Fly {
    /// Names are unique among all apps of Fly: a taken name is ours if we can read the app.
    pub(crate) async fn ensure_app(&self, cx: &CallContext, support: &Support) -> Result<Support> {
        const OPERATION: &str = "ensure_support";
        let name = app_name(support)?;
        let org = match self.recent_view(cx).await?.view {
            View::Org(org) => org,
            View::Apps(_, apps) => {
                let apps = apps.join(", ");
                let text = format!(
                    "the token is for {apps} only, and a machine with ports needs an app of its \
                     own, which takes a token of the whole organisation"
                );
                let error = Error::new(ErrorKind::Forbidden, text);
                return Err(error.outcome_is(Outcome::NotApplied(Next::Stop)));
            }
        };
        let wanted = wire::CreateApp {
            name,
            org_slug: &org,
            network: support.spec["network"].as_str(),
            idempotency_key: name,
        };
        let answer = self.cloud.create_app(cx, OPERATION, &wanted).await?;
        let taken = answer.status() == StatusCode::UNPROCESSABLE_ENTITY;
        if taken && !crate::error::is_name_taken(answer.bytes()) {
            let said = crate::error::said(answer.bytes());
            let error = Error::new(
                ErrorKind::Validation,
                format!("the cloud refuses an app of that name: {said}"),
            );
            return Err(error
                .outcome_is(Outcome::NotApplied(Next::Stop))
                .with_status(422));
        }
        // A new app is unknown for some seconds: 404, or 401.
        let deadline = tokio::time::Instant::now() + APP_SHOWS;
        loop {
            let passing = |error: &Error| error.kind() == ErrorKind::Unauthorized && !taken;
            match self.cloud.app(cx, OPERATION, name).await {
                Ok(Some(app)) => {
                    let of_ours = app
                        .organization
                        .and_then(|organization| organization.slug)
                        .is_none_or(|slug| slug == org);
                    if of_ours {
                        return Ok(Support {
                            id: Some(app.name),
                            ..support.clone()
                        });
                    }
                    return Err(taken_by_others(name));
                }
                Err(error) if error.kind() == ErrorKind::Forbidden => {
                    return Err(taken_by_others(name));
                }
                Err(error) if !passing(&error) => return Err(error),
                Ok(None) | Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(ASK_AGAIN).await
                }
                Ok(None) | Err(_) => {
                    let error = Error::new(ErrorKind::Unavailable, "a new app does not show");
                    return Err(error.outcome_is(Outcome::Unknown(Vec::new())));
                }
            }
        }
    }

    /// Deleting an app also deletes every machine in it, so it is not done while the app contains a
    /// machine that was not destroyed. If that machine is ours, the release waits for it.
    pub(crate) async fn release_app(&self, cx: &CallContext, support: &Support) -> Result<()> {
        const OPERATION: &str = "release_support";
        let name = app_name(support)?;
        match self.cloud.app(cx, OPERATION, name).await {
            Ok(None) => return Ok(()),
            // The name belongs to another organisation now, so ours is gone.
            Err(error) if error.kind() == ErrorKind::Forbidden => return Ok(()),
            Err(error) => return Err(error),
            Ok(Some(_)) => {}
        }
        let walk = self.cloud.app_machines(cx, OPERATION, name).await?;
        let (mut ours, mut others, key) =
            (walk.missing.is_some(), false, TrackedKey::in_name(name));
        for (app, row) in walk.items {
            let machine = crate::translate::listed(&self.reader, app.as_deref(), row)
                .map_err(UnreadableRow::into_error)?;
            let lives = machine.status != ComputeStatus::Terminated;
            let claimed = key.is_some_and(|key| machine.keys.claim() == Claim::Whole(key));
            ours |= lives && claimed;
            others |= lives && !claimed;
        }
        if ours {
            let error = Error::new(
                ErrorKind::Conflict,
                format!("the app {name} still has machines, which would go with it"),
            );
            return Err(error.outcome_is(Outcome::NotApplied(Next::SameLater)));
        }
        if others {
            // A user put another machine in the app, which atlas will not delete. The app, which
            // costs nothing, is left in place.
            return Ok(());
        }
        crate::error::gone(&self.cloud.delete_app(cx, OPERATION, name).await?)
    }

    /// An app has one address of each kind, so one that a lost answer left is found again.
    pub(crate) async fn ensure_ip(&self, cx: &CallContext, support: &Support) -> Result<Support> {
        const OPERATION: &str = "ensure_support";
        let (app, kind) = address(support)?;
        let there = self.cloud.ips(cx, OPERATION, app).await?;
        let ip = match there.into_iter().find(|ip| IpKind::of(ip) == Some(kind)) {
            Some(ip) => ip,
            None => {
                self.cloud
                    .assign_ip(cx, OPERATION, app, kind.as_str())
                    .await?
            }
        };
        Ok(Support {
            id: Some(ip.ip),
            ..support.clone()
        })
    }

    /// Releases all addresses of the kind: a lost answer may have left two.
    pub(crate) async fn release_ip_support(
        &self,
        cx: &CallContext,
        support: &Support,
    ) -> Result<()> {
        const OPERATION: &str = "release_support";
        let (app, kind) = address(support)?;
        match self.cloud.app(cx, OPERATION, app).await {
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Forbidden => return Ok(()),
            Err(error) => return Err(error),
            Ok(Some(_)) => {}
        }
        for ip in self
            .cloud
            .ips(cx, OPERATION, app)
            .await?
            .iter()
            .filter(|ip| IpKind::of(ip) == Some(kind))
        {
            crate::error::gone(&self.cloud.release_ip(cx, OPERATION, app, &ip.ip).await?)?;
        }
        Ok(())
    }
}

fn taken_by_others(name: &str) -> Error {
    let error = Error::new(
        ErrorKind::Conflict,
        format!("the app name {name} is taken by another organization"),
    );
    error.outcome_is(Outcome::NotApplied(Next::Stop))
}
