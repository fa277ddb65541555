//! Clusters, read-only: their members are hidden from the list of pods and end only with their
//! cluster.

use std::collections::BTreeMap;

use atlas_core::{CallContext, Compute, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::container::nullable;
use crate::RunPod;

const PATH: &str = "clusters";

/// A cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Cluster {
    /// The id assigned by RunPod.
    pub id: String,
    /// The cluster's name.
    pub name: String,
    /// `APPLICATION`, `TRAINING`, `SLURM`, `RAY`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The shape of each of its nodes.
    pub compute: ClusterShape,
    /// The data centre.
    #[serde(default)]
    pub data_center_id: Option<String>,
    /// Number of pods.
    #[serde(default, deserialize_with = "nullable")]
    pub pods: ClusterPods,
    /// When it was created.
    pub created_at: Timestamp,
}

/// The shape of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ClusterShape {
    /// RunPod's id of its GPUs.
    pub gpu_type_id: String,
    /// GPUs per pod.
    pub gpu_count_per_pod: u32,
    /// Number of pods.
    pub pod_count: u32,
}

/// Number of pods of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct ClusterPods {
    /// The total number.
    pub total: u32,
    /// Number of pods by RunPod's status.
    pub by_status: BTreeMap<String, u32>,
}

impl RunPod {
    /// Every cluster.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn list_clusters(&self, cx: &CallContext) -> Result<Vec<Cluster>> {
        self.control
            .all(cx, "list_clusters", &[PATH], &[], "clusters")
            .await
    }

    /// One cluster.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn cluster(&self, cx: &CallContext, id: &str) -> Result<Cluster> {
        self.control
            .fetch(cx, "get_cluster", &[PATH, id], &[])
            .await
    }

    /// A cluster's pods.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn cluster_pods(&self, cx: &CallContext, id: &str) -> Result<Vec<Compute>> {
        let walk = self
            .control
            .walk(cx, "cluster_pods", &["v2", PATH, id, "pods"], &[], "pods")
            .await?;
        walk.whole()?
            .into_iter()
            .map(|pod| self.compute(pod))
            .collect()
    }
}
