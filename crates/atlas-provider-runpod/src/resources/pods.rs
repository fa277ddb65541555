//! Pod operations of RunPod beyond the contract: change, restart.

use atlas_core::{CallContext, Compute, ComputeId, Result};
use serde_json::{Map, Value};

use super::container::{Container, put};
use crate::RunPod;

/// Changes of a pod. `None` or an empty value leaves a field unchanged. Changing the container
/// restarts it; changing only the name does not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PodUpdate {
    /// Its name. The orchestrator recognises its machines by their names: a renamed one is only
    /// partly claimed and never reaped.
    pub name: Option<String>,
    /// The changes to the pod's container.
    pub container: Container,
    /// Locks the pod, so that stop, restart and delete are refused.
    pub locked: Option<bool>,
    /// Joins the account's private network at the next start.
    pub global_networking: Option<bool>,
}

impl RunPod {
    /// Changes a pod.
    ///
    /// # Errors
    /// `conflict` for a member of a cluster; otherwise like any idempotent call. A dropped call may
    /// have changed it.
    pub async fn update_pod(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        update: &PodUpdate,
    ) -> Result<Compute> {
        let mut body = Map::new();
        update.container.put(&mut body);
        put(&mut body, "name", update.name.as_ref());
        put(&mut body, "locked", update.locked);
        put(&mut body, "globalNetworking", update.global_networking);
        let path = ["pods", id.as_str()];
        let pod: Value = self
            .control
            .change(
                cx,
                "update_pod",
                &path,
                &Value::Object(body),
                update.container.secrets(),
            )
            .await?;
        self.compute(pod)
    }

    /// Restarts a running pod's container in place: its container disk is wiped and its TCP ports
    /// may change.
    ///
    /// # Errors
    /// `conflict` when it does not run. A dropped call may have restarted it.
    pub async fn restart_pod(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.act(cx, "restart", id, |_| false)
            .await
            .map_err(|error| error.during(&self.id, "restart"))
    }
}
