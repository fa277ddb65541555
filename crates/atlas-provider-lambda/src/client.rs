//! Lambda's API: one function per endpoint. `translate` interprets the answers.

use std::collections::BTreeMap;

use atlas_core::{CallContext, ErrorKind, Result, RetryClass, Secret, UnreadableRow};
use atlas_http::lenient::{self, Rows};
use atlas_http::{Answer, Call, Client, Page, Walk, walk};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error;
use crate::network::Region;
use crate::wire::{
    CreateFileSystem, CreateRuleset, Envelope, FileSystem, GlobalRuleset, InstanceIds,
    InstanceTypeItem, InstanceTypes, Launched, Ruleset, SshKey,
};

/// No account has this many pages; a server that returns more is broken.
const MAX_PAGES: usize = 1_000;

/// The API of one account.
#[derive(Clone, Debug)]
pub(crate) struct Cloud(pub(crate) Client);

impl Cloud {
    pub(crate) async fn data<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        call: Call,
    ) -> Result<T> {
        Ok(self.0.json::<Envelope<T>>(cx, call).await?.data)
    }

    pub(crate) async fn instance_types(
        &self,
        cx: &CallContext,
        operation: &'static str,
    ) -> Result<InstanceTypes> {
        let call = Call::get(operation, RetryClass::Safe, ["instance-types"]);
        let listed: Map<String, Value> = self.data(cx, call).await?;
        let read = lenient::named_rows::<InstanceTypeItem>("instance types", listed);
        let mut complete = read.unreadable.is_empty() && !read.rows.is_empty();
        let (mut types, mut odd) = (BTreeMap::new(), Vec::new());
        for (name, item) in read.usable()? {
            if item.instance_type.is_called(&name) {
                types.insert(name, item);
            } else {
                let reason = "its name or its number of gpus contradicts its key";
                odd.push(UnreadableRow {
                    id: Some(name),
                    ..UnreadableRow::of(&Value::Null, reason)
                });
            }
        }
        lenient::warn("instance types", &odd);
        if let Some(row) = odd.pop() {
            complete = false;
            if types.is_empty() {
                return Err(row.into_error());
            }
        }
        Ok(InstanceTypes { types, complete })
    }

    /// Walks the instances to the last page. The published document has no pages, the live API does
    /// (docs/clouds/lambda.md).
    pub(crate) async fn instances(&self, cx: &CallContext) -> Result<Walk<Value>> {
        self.pages(cx, |token| {
            Call::get("list_compute", RetryClass::Safe, ["instances"])
                .query_opt("page_token", token)
        })
        .await
    }

    /// Walks a list, with one call per page token.
    pub(crate) async fn pages<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        call: impl Fn(Option<String>) -> Call,
    ) -> Result<Walk<T>> {
        let call = &call;
        let page = |token: Option<String>| async move {
            let read: Envelope<Vec<T>> = self.0.json(cx, call(token)).await?;
            Ok(Page::at(read.data, read.page_token))
        };
        walk(MAX_PAGES, page).await
    }

    /// One instance. With `absence`, a 404 is returned as an answer instead of an error.
    pub(crate) async fn instance(
        &self,
        cx: &CallContext,
        operation: &'static str,
        id: &str,
        absence: bool,
    ) -> Result<Answer> {
        let call = Call::get(operation, RetryClass::Safe, ["instances", id]);
        self.0
            .call(
                cx,
                if absence {
                    call.accept_status(StatusCode::NOT_FOUND)
                } else {
                    call
                },
            )
            .await
    }

    /// The call that makes a machine. `secrets` are removed from any error, because Lambda echoes
    /// what it refuses.
    pub(crate) async fn launch(
        &self,
        cx: &CallContext,
        body: &Value,
        secrets: Vec<Secret>,
    ) -> Result<Answer> {
        let call = Call::post(
            "spawn_compute",
            RetryClass::Create,
            ["instance-operations", "launch"],
        )
        .json(body)
        .scrub(secrets);
        self.0.call(cx, call).await
    }

    pub(crate) fn launched(answer: &Answer) -> Result<Launched> {
        Ok(answer.json::<Envelope<Launched>>()?.data)
    }

    /// One id per call, because an unknown one may make all others fail. A 404 is returned as an
    /// answer.
    pub(crate) async fn terminate(&self, cx: &CallContext, id: &str) -> Result<Answer> {
        let call = Call::post(
            "terminate",
            RetryClass::Idempotent,
            ["instance-operations", "terminate"],
        )
        .json(&InstanceIds { instance_ids: [id] })
        .accept_status(StatusCode::NOT_FOUND);
        self.0.call(cx, call).await
    }

    pub(crate) async fn restart(&self, cx: &CallContext, id: &str) -> Result<()> {
        let call = Call::post(
            "restart",
            RetryClass::Create,
            ["instance-operations", "restart"],
        )
        .json(&InstanceIds { instance_ids: [id] });
        self.0.call(cx, call).await.map(drop)
    }

    /// A list without pages, parsed row by row.
    async fn rows<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        operation: &'static str,
        what: &'static str,
        path: &'static str,
    ) -> Result<Rows<T>> {
        let call = Call::get(operation, RetryClass::Safe, [path]);
        Ok(lenient::rows(what, self.data(cx, call).await?))
    }

    pub(crate) async fn ssh_keys(&self, cx: &CallContext) -> Result<Vec<SshKey>> {
        self.rows(cx, "spawn_compute ssh-keys", "ssh keys", "ssh-keys")
            .await?
            .usable()
    }

    /// Every region, with or without a free machine.
    pub(crate) async fn regions(
        &self,
        cx: &CallContext,
        operation: &'static str,
    ) -> Result<Vec<Region>> {
        self.data(cx, Call::get(operation, RetryClass::Safe, ["regions"]))
            .await
    }

    /// The name of the global rule set, which contains the workspace; `None` if the key may not
    /// read it or there is none.
    pub(crate) async fn global_rules(&self, cx: &CallContext) -> Result<Option<String>> {
        let path = ["firewall-rulesets", "global"];
        let read = self
            .data::<GlobalRuleset>(cx, Call::get("identity", RetryClass::Safe, path))
            .await;
        match read {
            Ok(rules) => Ok(rules.name),
            Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::NotFound) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn rulesets(
        &self,
        cx: &CallContext,
        operation: &'static str,
    ) -> Result<Vec<Ruleset>> {
        self.rows(cx, operation, "firewall rule sets", "firewall-rulesets")
            .await?
            .usable()
    }

    pub(crate) async fn create_ruleset(
        &self,
        cx: &CallContext,
        body: &CreateRuleset<'_>,
    ) -> Result<Ruleset> {
        self.data(
            cx,
            Call::post("ensure_support", RetryClass::Create, ["firewall-rulesets"]).json(body),
        )
        .await
    }

    pub(crate) async fn delete_ruleset(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.delete(cx, "release_support", ["firewall-rulesets", id])
            .await
    }

    /// A 404 from Lambda itself is a success.
    pub(crate) async fn delete(
        &self,
        cx: &CallContext,
        operation: &'static str,
        segments: [&str; 2],
    ) -> Result<()> {
        let call = Call::delete(operation, RetryClass::Idempotent, segments)
            .accept_status(StatusCode::NOT_FOUND);
        error::gone(&self.0.call(cx, call).await?)
    }

    /// The list is `/file-systems`; create and delete are `/filesystems` (docs/clouds/lambda.md).
    pub(crate) async fn file_systems(
        &self,
        cx: &CallContext,
        operation: &'static str,
    ) -> Result<Rows<FileSystem>> {
        self.rows(cx, operation, "file systems", "file-systems")
            .await
    }

    pub(crate) async fn create_file_system(
        &self,
        cx: &CallContext,
        body: &CreateFileSystem<'_>,
    ) -> Result<FileSystem> {
        self.data(
            cx,
            Call::post("create_network_volume", RetryClass::Create, ["filesystems"]).json(body),
        )
        .await
    }

    pub(crate) async fn delete_file_system(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.delete(cx, "delete_network_volume", ["filesystems", id])
            .await
    }
}
