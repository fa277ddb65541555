//! Fly's API: one function per endpoint. `translate` interprets the answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use atlas_core::{CallContext, Error, ErrorKind, Next, Outcome, Result, RetryClass, Secret};
use atlas_http::lenient::{self, Cursor};
use atlas_http::{Answer, Call, Client, Page, Walk, walk};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config_wire::CreateMachine;
use crate::place::Place;
use crate::token::{self, Scheme};
use crate::wire;

/// The operations that Fly limits per machine or app, and whether they read one machine.
pub(crate) const PACED: &[(&str, bool)] = &[
    ("get_compute", true),
    ("presence", true),
    ("spawn_compute", false),
    ("list_compute", false),
    ("terminate", false),
    ("stop", false),
    ("start", false),
    ("suspend", false),
    ("restart", false),
    ("exec", false),
    ("lease", false),
    ("metadata", false),
    ("identity", false),
];

/// No organisation has this many pages; a server that returns more is broken.
const MAX_PAGES: usize = 1_000;
/// The maximum length of an organisation's name in an address.
const MOST_SLUG: usize = 255;
/// The requested number of rows per page.
const PAGE: &str = "500";
const CURSOR: &str = "fly-next-cursor";
const NONCE: HeaderName = HeaderName::from_static("fly-machine-lease-nonce");

/// A base URL with the version with which every path begins.
pub(crate) fn versioned(base: &str) -> String {
    format!("{}/v1", base.trim_end_matches('/'))
}

/// The API of one account.
#[derive(Clone, Debug)]
pub(crate) struct Cloud {
    pub(crate) own: Client,
    /// Clients for a call's own token, by its scheme.
    pub(crate) flyv1: Client,
    pub(crate) bearer: Client,
}

/// A row, with its app if the row does not name it.
pub(crate) type Row = (Option<String>, Value);

impl Cloud {
    pub(crate) async fn call(&self, cx: &CallContext, call: Call) -> Result<Answer> {
        // A call's own URL has the form of the builder's: without the version.
        let mut cx = Cow::Borrowed(cx);
        if let Some(url) = cx.base_url().map(versioned) {
            cx = Cow::Owned(cx.into_owned().with_base_url(url));
        }
        let Some(key) = cx.api_key() else {
            return self.own.call(&cx, call).await;
        };
        let (scheme, token) = token::read(key)?;
        let client = if scheme == Scheme::FlyV1 {
            &self.flyv1
        } else {
            &self.bearer
        };
        client
            .call(&cx.into_owned().with_api_key(token), call)
            .await
    }

    async fn json<T: DeserializeOwned>(&self, cx: &CallContext, call: Call) -> Result<T> {
        self.call(cx, call).await?.json()
    }

    // Tokens and the organisation.

    /// Describes the token. One operation for all callers, because Fly limits it as one action.
    pub(crate) async fn tokens(&self, cx: &CallContext) -> Result<Vec<wire::Token>> {
        let call = Call::get("identity", RetryClass::Safe, ["tokens", "current"]);
        let tokens = self.json::<wire::Tokens>(cx, call).await?.tokens;
        let odd = |token: &wire::Token| token.org_slug.len() > MOST_SLUG;
        if tokens.is_empty() || tokens.iter().any(odd) {
            return Err(Error::new(
                ErrorKind::Provider,
                "the answer does not say which organisation the token belongs to",
            )
            .outcome_is(Outcome::NotApplied(Next::SameLater)));
        }
        Ok(tokens)
    }

    /// Walks all machines of the organisation. A region in error hides its machines, so the walk is
    /// then incomplete.
    pub(crate) async fn org_machines(&self, cx: &CallContext, org: &str) -> Result<Walk<Row>> {
        let page = |cursor: Option<String>| async move {
            let call = Call::get("list_compute", RetryClass::Safe, ["orgs", org, "machines"])
                .query("limit", PAGE)
                .query_opt("cursor", cursor)
                .pace_key(org);
            let read: wire::OrgMachines = self.json(cx, call).await?;
            let untold = untold(&read.error_regions, read.machines.is_some());
            let items = read
                .machines
                .unwrap_or_default()
                .into_iter()
                .map(|row| (None, row))
                .collect();
            let page = Page::at(items, read.next_cursor);
            let missing = untold.or(page.missing);
            Ok(Page { missing, ..page })
        };
        walk(MAX_PAGES, page).await
    }

    /// Walks all machines of one app.
    pub(crate) async fn app_machines(
        &self,
        cx: &CallContext,
        operation: &'static str,
        app: &str,
    ) -> Result<Walk<Row>> {
        let page = |cursor: Option<String>| async move {
            let call = Call::get(operation, RetryClass::Safe, ["apps", app, "machines"])
                .query("limit", PAGE)
                .query_opt("cursor", cursor)
                .pace_key(app);
            let answer = self.call(cx, call).await?;
            let rows: Vec<Value> = answer.json()?;
            let next = answer
                .headers()
                .get(CURSOR)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            Ok(Page {
                items: rows
                    .into_iter()
                    .map(|row| (Some(app.to_owned()), row))
                    .collect(),
                next,
                missing: None,
            })
        };
        walk(MAX_PAGES, page).await
    }

    // Machines.

    /// The call that makes a machine. `secrets` are removed from any error. A 409 is returned as an
    /// answer: it may name the machine that an earlier attempt made.
    pub(crate) async fn create(
        &self,
        cx: &CallContext,
        app: &str,
        body: &CreateMachine,
        secrets: Vec<Secret>,
    ) -> Result<Answer> {
        let call = Call::post(
            "spawn_compute",
            RetryClass::Create,
            ["apps", app, "machines"],
        )
        .json(body)
        .scrub(secrets);
        let call = call.pace_key(app).accept_status(StatusCode::CONFLICT);
        self.call(cx, call).await
    }

    /// One machine. With `absence`, a 404 is returned as an answer instead of an error.
    pub(crate) async fn machine(
        &self,
        cx: &CallContext,
        operation: &'static str,
        at: &Place,
        absence: bool,
    ) -> Result<Answer> {
        let call = Call::get(
            operation,
            RetryClass::Safe,
            ["apps", &at.app, "machines", &at.id],
        )
        .pace_key(&*at.id);
        self.call(
            cx,
            if absence {
                call.accept_status(StatusCode::NOT_FOUND)
            } else {
                call
            },
        )
        .await
    }

    /// Uses force, because Fly otherwise refuses to delete a running machine. A 404 is returned as
    /// an answer.
    pub(crate) async fn destroy(&self, cx: &CallContext, at: &Place) -> Result<Answer> {
        let call = Call::delete(
            "terminate",
            RetryClass::Idempotent,
            ["apps", &at.app, "machines", &at.id],
        )
        .query("force", "true");
        self.call(
            cx,
            call.pace_key(&*at.id).accept_status(StatusCode::NOT_FOUND),
        )
        .await
    }

    /// A POST below a machine's path, with or without a body.
    pub(crate) fn act(operation: &'static str, class: RetryClass, at: &Place, verb: &str) -> Call {
        Call::post(
            operation,
            class,
            ["apps", &at.app, "machines", &at.id, verb],
        )
        .pace_key(&*at.id)
    }

    /// A GET below a machine's path.
    pub(crate) fn look(operation: &'static str, at: &Place, verb: &str) -> Call {
        Call::get(
            operation,
            RetryClass::Safe,
            ["apps", &at.app, "machines", &at.id, verb],
        )
        .pace_key(&*at.id)
    }

    /// Adds the nonce of a lease's holder to a call.
    pub(crate) fn with_nonce(call: Call, nonce: &Secret) -> Result<Call> {
        let mut value = HeaderValue::from_str(nonce.expose())
            .map_err(|_| Error::validation("nonce", "is not a nonce of fly"))?;
        value.set_sensitive(true);
        Ok(call.header(NONCE, value))
    }

    // Apps and addresses.

    /// An app; `None` if Fly itself says that there is none.
    ///
    /// A 403 means that another organisation has the name.
    pub(crate) async fn app(
        &self,
        cx: &CallContext,
        operation: &'static str,
        name: &str,
    ) -> Result<Option<wire::App>> {
        let call = Call::get(operation, RetryClass::Safe, ["apps", name])
            .accept_status(StatusCode::NOT_FOUND);
        let answer = self.call(cx, call).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return crate::error::gone(&answer).map(|()| None);
        }
        let app: wire::App = answer.json()?;
        if app.name == name {
            Ok(Some(app))
        } else {
            Err(answer.misunderstood("the answer is about another app"))
        }
    }

    /// Proves that an app is visible to this token. Only then is a 404 about its contents
    /// meaningful.
    pub(crate) async fn known_app(
        &self,
        cx: &CallContext,
        operation: &'static str,
        name: &str,
    ) -> Result<()> {
        match self.app(cx, operation, name).await? {
            Some(_) => Ok(()),
            None => {
                let text = format!(
                    "the app {name} is not there, or this token may not see it: nothing in it is \
                        proved gone"
                );
                Err(Error::new(ErrorKind::NotFound, text)
                    .outcome_is(Outcome::NotApplied(Next::SameLater))
                    .with_status(404))
            }
        }
    }

    /// A 422 is returned as an answer: the name may be taken, possibly by us.
    pub(crate) async fn create_app(
        &self,
        cx: &CallContext,
        operation: &'static str,
        app: &wire::CreateApp<'_>,
    ) -> Result<Answer> {
        let call = Call::post(operation, RetryClass::Idempotent, ["apps"]).json(app);
        self.call(cx, call.accept_status(StatusCode::UNPROCESSABLE_ENTITY))
            .await
    }

    /// A 404 is returned as an answer.
    pub(crate) async fn delete_app(
        &self,
        cx: &CallContext,
        operation: &'static str,
        name: &str,
    ) -> Result<Answer> {
        let call = Call::delete(operation, RetryClass::Idempotent, ["apps", name])
            .accept_status(StatusCode::NOT_FOUND);
        self.call(cx, call).await
    }

    /// Every app of the organisation; an error if the list is incomplete.
    pub(crate) async fn apps(
        &self,
        cx: &CallContext,
        operation: &'static str,
        org: &str,
    ) -> Result<Vec<wire::App>> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..MAX_PAGES {
            let call = Call::get(operation, RetryClass::Safe, ["apps"])
                .query("org_slug", org)
                .query_opt("cursor", cursor.as_ref());
            let answer = self.call(cx, call).await?;
            let read: wire::Apps = answer.json()?;
            all.extend(
                read.apps
                    .ok_or_else(|| answer.misunderstood("the answer has no apps field"))?,
            );
            match read.next_cursor {
                Cursor::Next(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                Cursor::End
                    if read
                        .total_apps
                        .is_none_or(|total| usize::try_from(total) == Ok(all.len())) =>
                {
                    return Ok(all);
                }
                _ => return Err(answer.misunderstood("not every app was told")),
            }
        }
        Err(
            Error::new(ErrorKind::Provider, "the list of apps does not end")
                .outcome_is(Outcome::NotApplied(Next::SameLater)),
        )
    }

    pub(crate) async fn ips(
        &self,
        cx: &CallContext,
        operation: &'static str,
        app: &str,
    ) -> Result<Vec<wire::Ip>> {
        let call = Call::get(operation, RetryClass::Safe, ["apps", app, "ip_assignments"]);
        Ok(self
            .json::<wire::Ips>(cx, call)
            .await?
            .ips
            .unwrap_or_default())
    }

    pub(crate) async fn assign_ip(
        &self,
        cx: &CallContext,
        operation: &'static str,
        app: &str,
        kind: &str,
    ) -> Result<wire::Ip> {
        let call = Call::post(
            operation,
            RetryClass::Create,
            ["apps", app, "ip_assignments"],
        )
        .json(&wire::AssignIp { kind });
        self.json(cx, call).await
    }

    /// A 404 is returned as an answer.
    pub(crate) async fn release_ip(
        &self,
        cx: &CallContext,
        operation: &'static str,
        app: &str,
        ip: &str,
    ) -> Result<Answer> {
        let call = Call::delete(
            operation,
            RetryClass::Idempotent,
            ["apps", app, "ip_assignments", ip],
        );
        self.call(cx, call.accept_status(StatusCode::NOT_FOUND))
            .await
    }

    /// Sets an app's secrets, which its machines get as environment; returns their version.
    /// Idempotent.
    pub(crate) async fn set_secrets(
        &self,
        cx: &CallContext,
        operation: &'static str,
        app: &str,
        values: &BTreeMap<String, Secret>,
    ) -> Result<Option<u64>> {
        let body = wire::SetSecrets {
            values: values
                .iter()
                .map(|(name, value)| (name.as_str(), value.expose()))
                .collect(),
        };
        let call = Call::post(operation, RetryClass::Idempotent, ["apps", app, "secrets"])
            .json(&body)
            .scrub(values.values().cloned());
        let set: wire::SecretsSet = self.json(cx, call).await?;
        Ok(set.version.or(set.old_version))
    }

    // Volumes.

    /// Every volume of the organisation; an error if the list is incomplete.
    pub(crate) async fn app_volumes(
        &self,
        cx: &CallContext,
        operation: &'static str,
        app: &str,
    ) -> Result<Vec<wire::Volume>> {
        let call = Call::get(operation, RetryClass::Safe, ["apps", app, "volumes"]);
        self.read(cx, call).await
    }

    pub(crate) async fn org_volumes(
        &self,
        cx: &CallContext,
        org: &str,
    ) -> Result<Vec<wire::Volume>> {
        let page = |cursor: Option<String>| async move {
            let call = Call::get(
                "list_network_volumes",
                RetryClass::Safe,
                ["orgs", org, "volumes"],
            )
            .query_opt("cursor", cursor);
            let read: wire::OrgVolumes = self.json(cx, call).await?;
            let untold = untold(&read.error_regions, read.volumes.is_some());
            let page = Page::at(read.volumes.unwrap_or_default(), read.next_cursor);
            let missing = untold.or(page.missing);
            Ok(Page { missing, ..page })
        };
        lenient::rows("volumes", walk(MAX_PAGES, page).await?.whole()?).usable()
    }

    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        call: Call,
    ) -> Result<T> {
        self.json(cx, call).await
    }
}

/// What is missing in a page of the organisation's list. An unreadable list of regions in error
/// counts as regions in error.
fn untold(silent: &Value, has_rows: bool) -> Option<String> {
    match silent {
        Value::Array(regions) if !regions.is_empty() => {
            let names: Vec<&str> = regions.iter().filter_map(Value::as_str).collect();
            Some(format!("regions in error: {}", names.join(", ")))
        }
        Value::Null | Value::Array(_) => (!has_rows).then(|| "a page has no rows".to_owned()),
        _ => Some("which regions are in error could not be read".to_owned()),
    }
}
