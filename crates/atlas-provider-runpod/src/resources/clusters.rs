//! Clusters, read-only: their members are hidden from the list of pods and end only with their
//! cluster.

use std::collections::BTreeMap;

use atlas_core::{CallContext, Compute, Result, Timestamp};
use atlas_http::lenient;
use serde::{Deserialize, Serialize};

use super::read::{count, counts, readable, told};
use super::units::instant;
use crate::{RunPod, translate};

const PATH: &str = "clusters";

/// A cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Cluster {
    /// The id assigned by RunPod.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The cluster's name.
    #[serde(default, deserialize_with = "told")]
    pub name: String,
    /// `APPLICATION`, `TRAINING`, `SLURM`, `RAY`.
    #[serde(default, rename = "type", deserialize_with = "told")]
    pub kind: String,
    /// The shape of each of its nodes.
    #[serde(default, deserialize_with = "lenient::object")]
    pub compute: ClusterShape,
    /// The data centre.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub data_center_id: Option<String>,
    /// Number of pods.
    #[serde(default, deserialize_with = "lenient::object")]
    pub pods: ClusterPods,
    /// When it was created.
    #[serde(default, deserialize_with = "instant")]
    pub created_at: Option<Timestamp>,
}

/// The shape of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct ClusterShape {
    /// RunPod's id of its GPUs.
    #[serde(deserialize_with = "lenient::opt_text")]
    pub gpu_type_id: Option<String>,
    /// GPUs per pod.
    #[serde(deserialize_with = "lenient::opt_number")]
    pub gpu_count_per_pod: Option<u32>,
    /// Number of pods.
    #[serde(deserialize_with = "lenient::opt_number")]
    pub pod_count: Option<u32>,
}

/// Number of pods of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct ClusterPods {
    /// The total number.
    #[serde(deserialize_with = "count")]
    pub total: u32,
    /// Number of pods by RunPod's status.
    #[serde(deserialize_with = "counts")]
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
        let pods = walk.whole()?.into_iter();
        readable(
            "pods of a cluster",
            pods.map(|pod| translate::compute(&self.id, &self.proxy, pod)),
        )
    }
}
