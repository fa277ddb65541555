//! Lambda's API, one function for each endpoint. What an answer means is `translate`'s.

use std::collections::BTreeSet;

use atlas_core::{CallContext, Result, RetryClass, Secret};
use atlas_http::{Answer, Call, Client};
use http::StatusCode;
use serde_json::Value;

use crate::error;
use crate::wire::{CreateFileSystem, CreateRuleset, Envelope, FileSystem, InstanceIds, InstanceTypes, Launched, Ruleset, SshKey};

/// No account has this many pages; a server that goes on for longer is broken.
pub(crate) const MAX_PAGES: usize = 1_000;

/// A walk over instances as far as it could be read.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) items: Vec<Value>,
    /// What is missing, and why; `None` when the end was reached.
    pub(crate) missing: Option<String>,
}

/// The API of one account.
#[derive(Clone, Debug)]
pub(crate) struct Cloud(pub(crate) Client);

impl Cloud {
    pub(crate) async fn data<T: serde::de::DeserializeOwned>(&self, cx: &CallContext, call: Call) -> Result<T> {
        Ok(self.0.json::<Envelope<T>>(cx, call).await?.data)
    }

    pub(crate) async fn instance_types(&self, cx: &CallContext, operation: &'static str) -> Result<InstanceTypes> {
        self.data(cx, Call::get(operation, RetryClass::Safe, ["instance-types"])).await
    }

    /// Walks the instances to the last page. The published document knows no pages, the live API does (docs/clouds/lambda.md).
    pub(crate) async fn instances(&self, cx: &CallContext) -> Result<Walk> {
        let mut walk = Walk { items: Vec::new(), missing: None };
        let (mut token, mut tokens) = (None::<String>, BTreeSet::new());
        for page in 0..MAX_PAGES {
            let call = Call::get("list_compute", RetryClass::Safe, ["instances"]).query_opt("page_token", token.as_ref());
            let read: Envelope<Vec<Value>> = match self.0.json(cx, call).await {
                Ok(read) => read,
                Err(error) if page == 0 => return Err(error),
                Err(error) => {
                    walk.missing = Some(format!("page {} failed: {error}", page + 1));
                    return Ok(walk);
                }
            };
            walk.items.extend(read.data);
            match read.page_token.filter(|next| !next.is_empty()) {
                None => return Ok(walk),
                Some(next) if !tokens.insert(next.clone()) => {
                    walk.missing = Some(format!("page {} leads back to an earlier one", page + 1));
                    return Ok(walk);
                }
                Some(next) => token = Some(next),
            }
        }
        walk.missing = Some("it does not end".to_owned());
        Ok(walk)
    }

    /// One instance. With `absence`, a 404 is given back instead of becoming an error.
    pub(crate) async fn instance(&self, cx: &CallContext, operation: &'static str, id: &str, absence: bool) -> Result<Answer> {
        let call = Call::get(operation, RetryClass::Safe, ["instances", id]);
        self.0.call(cx, if absence { call.accept_status(StatusCode::NOT_FOUND) } else { call }).await
    }

    /// The one call that makes a machine. `secrets` are kept out of whatever an error says: Lambda echoes what it refuses.
    pub(crate) async fn launch(&self, cx: &CallContext, body: &Value, secrets: Vec<Secret>) -> Result<Answer> {
        let call = Call::post("spawn_compute", RetryClass::Create, ["instance-operations", "launch"]).json(body).scrub(secrets);
        self.0.call(cx, call).await
    }

    pub(crate) fn launched(answer: &Answer) -> Result<Launched> {
        Ok(answer.json::<Envelope<Launched>>()?.data)
    }

    /// One id in a call: an unknown one may fail all others with it. A 404 is given back.
    pub(crate) async fn terminate(&self, cx: &CallContext, id: &str) -> Result<Answer> {
        let call = Call::post("terminate", RetryClass::Idempotent, ["instance-operations", "terminate"])
            .json(&InstanceIds { instance_ids: [id] })
            .accept_status(StatusCode::NOT_FOUND);
        self.0.call(cx, call).await
    }

    pub(crate) async fn restart(&self, cx: &CallContext, id: &str) -> Result<()> {
        let call = Call::post("restart", RetryClass::Create, ["instance-operations", "restart"])
            .json(&InstanceIds { instance_ids: [id] });
        self.0.call(cx, call).await.map(drop)
    }

    pub(crate) async fn ssh_keys(&self, cx: &CallContext) -> Result<Vec<SshKey>> {
        self.data(cx, Call::get("spawn_compute ssh-keys", RetryClass::Safe, ["ssh-keys"])).await
    }

    pub(crate) async fn rulesets(&self, cx: &CallContext, operation: &'static str) -> Result<Vec<Ruleset>> {
        self.data(cx, Call::get(operation, RetryClass::Safe, ["firewall-rulesets"])).await
    }

    pub(crate) async fn create_ruleset(&self, cx: &CallContext, body: &CreateRuleset<'_>) -> Result<Ruleset> {
        self.data(cx, Call::post("ensure_support", RetryClass::Create, ["firewall-rulesets"]).json(body)).await
    }

    pub(crate) async fn delete_ruleset(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.delete(cx, "release_support", ["firewall-rulesets", id]).await
    }

    /// A 404 in Lambda's own words is a success.
    pub(crate) async fn delete(&self, cx: &CallContext, operation: &'static str, segments: [&str; 2]) -> Result<()> {
        let call = Call::delete(operation, RetryClass::Idempotent, segments).accept_status(StatusCode::NOT_FOUND);
        error::gone(&self.0.call(cx, call).await?)
    }

    /// The list is `/file-systems`; create and delete are `/filesystems` (docs/clouds/lambda.md).
    pub(crate) async fn file_systems(&self, cx: &CallContext, operation: &'static str) -> Result<Vec<FileSystem>> {
        self.data(cx, Call::get(operation, RetryClass::Safe, ["file-systems"])).await
    }

    pub(crate) async fn create_file_system(&self, cx: &CallContext, body: &CreateFileSystem<'_>) -> Result<FileSystem> {
        self.data(cx, Call::post("create_network_volume", RetryClass::Create, ["filesystems"]).json(body)).await
    }

    pub(crate) async fn delete_file_system(&self, cx: &CallContext, id: &str) -> Result<()> {
        self.delete(cx, "delete_network_volume", ["filesystems", id]).await
    }
}
