//! Apps and their addresses, beyond what the machines' own apps need.

use atlas_core::{CallContext, Error, ErrorKind, Next, Outcome, Result};
use http::StatusCode;

use crate::place::is_app_name;
use crate::{Fly, wire};

/// An app: the owner of a URL, a private network and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct App {
    /// Its name, which is unique among all apps of Fly.
    pub name: String,
    /// Its private network; apps of one network reach each other.
    pub network: Option<String>,
    /// How many machines it has, as Fly counts them.
    pub machines: Option<u64>,
}

/// A kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpKind {
    /// IPv4 for HTTP and TLS only, free.
    SharedV4,
    /// IPv6, free; raw TCP works, UDP does not.
    V6,
    /// A dedicated IPv4 address, two dollars a month.
    V4,
    /// IPv6 inside the organisation's network.
    PrivateV6,
}

impl IpKind {
    /// Fly's name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SharedV4 => "shared_v4",
            Self::V6 => "v6",
            Self::V4 => "v4",
            Self::PrivateV6 => "private_v6",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::SharedV4, Self::V6, Self::V4, Self::PrivateV6]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }

    /// Derives the kind of an address from its listing, which does not state it.
    pub(crate) fn of(ip: &wire::Ip) -> Option<Self> {
        match (ip.egress, ip.ip.contains(':'), ip.shared) {
            (true, ..) => None,
            // Private networks are in fd00::/8.
            (_, true, _) if ip.ip.starts_with("fd") => Some(Self::PrivateV6),
            (_, true, _) => Some(Self::V6),
            (_, false, true) => Some(Self::SharedV4),
            (_, false, false) => Some(Self::V4),
        }
    }
}

/// An address of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IpAddress {
    /// The address.
    pub ip: String,
    /// Its kind; `None` for an outbound-only address.
    pub kind: Option<IpKind>,
}

fn checked(name: &str) -> Result<&str> {
    if is_app_name(name) {
        Ok(name)
    } else {
        Err(Error::validation(
            "app",
            "must be up to 63 lower-case letters, digits and dashes",
        ))
    }
}

fn app(read: wire::App) -> App {
    App {
        name: read.name,
        network: read.network,
        machines: read.machine_count,
    }
}

fn address(read: wire::Ip) -> IpAddress {
    IpAddress {
        kind: IpKind::of(&read),
        ip: read.ip,
    }
}

impl Fly {
    /// Every app of the organisation.
    ///
    /// # Errors
    /// Like any read.
    pub async fn apps(&self, cx: &CallContext) -> Result<Vec<App>> {
        let org = self.org(cx).await?;
        Ok(self
            .cloud
            .apps(cx, "apps", &org)
            .await?
            .into_iter()
            .map(app)
            .collect())
    }

    /// Reads an app; `None` if no app of that name is visible to this token.
    ///
    /// # Errors
    /// `forbidden` if the name belongs to another organisation.
    pub async fn app(&self, cx: &CallContext, name: &str) -> Result<Option<App>> {
        Ok(self.cloud.app(cx, "app", checked(name)?).await?.map(app))
    }

    /// Makes an app, optionally on a separate network. If this organisation already has it, the
    /// call succeeds.
    ///
    /// # Errors
    /// `conflict` if another organisation has the name.
    pub async fn create_app(
        &self,
        cx: &CallContext,
        name: &str,
        network: Option<&str>,
    ) -> Result<()> {
        let org = self.org(cx).await?;
        let wanted = wire::CreateApp {
            name: checked(name)?,
            org_slug: &org,
            network,
            idempotency_key: name,
        };
        let answer = self.cloud.create_app(cx, "create_app", &wanted).await?;
        if answer.status() != StatusCode::UNPROCESSABLE_ENTITY {
            return Ok(());
        }
        let refused = |kind, text: &str| {
            Err(Error::new(kind, text)
                .outcome_is(Outcome::NotApplied(Next::Stop))
                .with_status(422))
        };
        if !crate::error::is_name_taken(answer.bytes()) {
            return refused(
                ErrorKind::Validation,
                "the cloud refuses an app of that name",
            );
        }
        match self.cloud.app(cx, "create_app", name).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => refused(
                ErrorKind::Conflict,
                "the name is taken, and this token cannot see by whom",
            ),
            Err(error) => Err(error),
        }
    }

    /// Deletes an app **and every machine in it**. If it is already gone, the call succeeds.
    ///
    /// # Errors
    /// Like any idempotent call.
    pub async fn delete_app(&self, cx: &CallContext, name: &str) -> Result<()> {
        crate::error::gone(
            &self
                .cloud
                .delete_app(cx, "delete_app", checked(name)?)
                .await?,
        )
    }

    /// The addresses of an app. An app without any has no public URL.
    ///
    /// # Errors
    /// Like any read.
    pub async fn ips(&self, cx: &CallContext, app: &str) -> Result<Vec<IpAddress>> {
        Ok(self
            .cloud
            .ips(cx, "ips", checked(app)?)
            .await?
            .into_iter()
            .map(address)
            .collect())
    }

    /// Allocates another address for an app. Class `Create`: a lost answer may have left one, which
    /// `ips` shows.
    ///
    /// # Errors
    /// The outcome says whether it may exist nevertheless.
    pub async fn allocate_ip(
        &self,
        cx: &CallContext,
        app: &str,
        kind: IpKind,
    ) -> Result<IpAddress> {
        Ok(address(
            self.cloud
                .assign_ip(cx, "allocate_ip", checked(app)?, kind.as_str())
                .await?,
        ))
    }

    /// Releases an address of an app. If it is already gone, the call succeeds.
    ///
    /// # Errors
    /// Like any idempotent call.
    pub async fn release_ip(&self, cx: &CallContext, app: &str, ip: &str) -> Result<()> {
        crate::error::gone(
            &self
                .cloud
                .release_ip(cx, "release_ip", checked(app)?, ip)
                .await?,
        )
    }
}
