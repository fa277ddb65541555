//! The control plane: one function per endpoint that a machine needs. `translate` interprets the
//! answers.

use atlas_core::{CallContext, CloudType, Error, ErrorKind, Result, RetryClass, Secret};
use atlas_http::{Answer, Call, Client, Page, Walk, lenient, walk};
use http::StatusCode;
use serde_json::{Value, json};

use crate::candidates::{Tier, cloud};
use crate::error::Refusal;
use crate::pages;
use crate::wire::{self, read};

/// No account has this many pages; a server that returns more is broken.
const MAX_PAGES: usize = 10_000;

/// REST v2 of one account.
#[derive(Clone, Debug)]
pub(crate) struct Control(pub(crate) Client);

impl Control {
    /// Reads a list to its last page.
    ///
    /// # Errors
    /// When not even the first page could be read.
    pub(crate) async fn walk(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        query: &[(&str, String)],
        field: &str,
    ) -> Result<Walk<Value>> {
        self.walk_with(cx, operation, path, query, |answer| {
            pages::rows(answer, field)
        })
        .await
    }

    /// The same with a custom parser of pages.
    ///
    /// # Errors
    /// Like [`Control::walk`].
    pub(crate) async fn walk_with<T>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        path: &[&str],
        query: &[(&str, String)],
        read: impl Fn(&Answer) -> Result<Page<T>>,
    ) -> Result<Walk<T>> {
        let read = &read;
        walk(MAX_PAGES, |cursor| async move {
            let mut call =
                Call::get(operation, RetryClass::Safe, path).query_opt("cursor", cursor.as_ref());
            for (name, value) in query {
                call = call.query(name, value);
            }
            read(&self.0.call(cx, call).await?)
        })
        .await
    }

    /// `POST /v2/pods`: sent once, and repeated only if it provably never left.
    pub(crate) async fn create_pod(
        &self,
        cx: &CallContext,
        body: &Value,
        secrets: Vec<Secret>,
    ) -> Result<Answer> {
        let call = Call::post("spawn_compute", RetryClass::Create, ["v2", "pods"])
            .json(body)
            .scrub(secrets);
        self.0.call(cx, call).await
    }

    /// `GET /v2/pods/{id}`. With `not_found_too`, a 404 is returned as an answer.
    pub(crate) async fn pod(
        &self,
        cx: &CallContext,
        operation: &'static str,
        id: &str,
        not_found_too: bool,
    ) -> Result<Answer> {
        let call = Call::get(operation, RetryClass::Safe, ["v2", "pods", id]);
        self.0
            .call(
                cx,
                if not_found_too {
                    call.accept_status(StatusCode::NOT_FOUND)
                } else {
                    call
                },
            )
            .await
    }

    /// `DELETE /v2/pods/{id}`: `None` when it is done or there is no such pod, else the refusal.
    pub(crate) async fn delete_pod(&self, cx: &CallContext, id: &str) -> Result<Option<Refusal>> {
        let call = Call::delete("terminate", RetryClass::Idempotent, ["v2", "pods", id]);
        let call = call
            .accept_status(StatusCode::NOT_FOUND)
            .accept_status(StatusCode::BAD_REQUEST);
        let answer = self.0.call(cx, call).await?;
        let refusal = Refusal::from(&answer);
        Ok((!answer.status().is_success() && !refusal.says_no_pod()).then_some(refusal))
    }

    /// `PATCH /v2/pods/{id}` with `{"locked": false}`.
    pub(crate) async fn unlock_pod(&self, cx: &CallContext, id: &str) -> Result<()> {
        let call = Call::patch("terminate", RetryClass::Idempotent, ["v2", "pods", id])
            .json(&json!({"locked": false}));
        self.0.call(cx, call).await.map(drop)
    }

    /// `POST /v2/pods/{id}/action`: `false` when the pod's state does not allow it.
    pub(crate) async fn act(
        &self,
        cx: &CallContext,
        operation: &'static str,
        id: &str,
        action: &str,
    ) -> Result<bool> {
        let call = Call::post(
            operation,
            RetryClass::Idempotent,
            ["v2", "pods", id, "action"],
        )
        .json(&json!({"action": action}));
        let answer = self
            .0
            .call(cx, call.accept_status(StatusCode::CONFLICT))
            .await?;
        Ok(answer.status() != StatusCode::CONFLICT)
    }

    /// `GET /v2/catalog/gpus` with one tier's stock for machines with this many GPUs.
    pub(crate) async fn gpus(
        &self,
        cx: &CallContext,
        operation: &'static str,
        tier: CloudType,
        count: u32,
    ) -> Result<Tier> {
        let query = [
            ("include", "AVAILABILITY".to_owned()),
            ("product", "POD".to_owned()),
            ("cloud", cloud(tier).to_owned()),
            ("count", count.to_string()),
        ];
        let gpus = self
            .walk(cx, operation, &["v2", "catalog", "gpus"], &query, "gpus")
            .await?
            .whole()?;
        let read = lenient::rows("gpus", gpus);
        Ok(Tier {
            tier,
            complete: read.unreadable.is_empty() && !read.rows.is_empty(),
            gpus: read.usable()?,
        })
    }

    /// `GET /v2/catalog/cpus` with the stock for pods with this many CPUs; and whether there are
    /// flavours and all of them could be read.
    pub(crate) async fn cpus(
        &self,
        cx: &CallContext,
        operation: &'static str,
        vcpus: u32,
    ) -> Result<(Vec<wire::CpuType>, bool)> {
        let query = [
            ("include", "AVAILABILITY".to_owned()),
            ("product", "POD".to_owned()),
            ("vcpuCount", vcpus.to_string()),
        ];
        let flavours = self
            .walk(cx, operation, &["v2", "catalog", "cpus"], &query, "cpus")
            .await?
            .whole()?;
        let read = lenient::rows("cpu flavours", flavours);
        let complete = read.unreadable.is_empty() && !read.rows.is_empty();
        Ok((read.usable()?, complete))
    }

    /// The ids of `GET /v2/catalog/datacenters`.
    ///
    /// # Errors
    /// Like any read; `provider` if an entry cannot be read, because the list would lack it.
    pub(crate) async fn data_centres(
        &self,
        cx: &CallContext,
        operation: &'static str,
    ) -> Result<Vec<String>> {
        let path = ["v2", "catalog", "datacenters"];
        let centres = self
            .walk(cx, operation, &path, &[], "dataCenters")
            .await?
            .whole()?;
        let ids = centres.iter().map(|centre| centre.get("id")?.as_str());
        ids.map(|id| id.map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Provider,
                    "a data centre in the catalogue has no id",
                )
            })
    }

    /// `GET /v2/network-volumes/{id}`.
    pub(crate) async fn volume(
        &self,
        cx: &CallContext,
        operation: &'static str,
        id: &str,
    ) -> Result<wire::Volume> {
        let call = Call::get(operation, RetryClass::Safe, ["v2", "network-volumes", id]);
        read(&self.0.json::<Value>(cx, call).await?)
    }
}
