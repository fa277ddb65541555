//! Billed amounts by period, for each kind of resource. In arrears: a recent bucket can still grow.

use atlas_core::{CallContext, Result, Timestamp, Usd};
use atlas_http::lenient;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use super::units::{dollars, instant};
use crate::RunPod;

/// The length of the period of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Bucket {
    Hour,
    #[default]
    Day,
    Week,
    Month,
    Year,
}

/// The period to query; it is widened to whole buckets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BillingQuery {
    /// Start of the period.
    pub start: Timestamp,
    /// End of the period.
    pub end: Timestamp,
    /// The length of the period of one row.
    pub bucket: Bucket,
    /// Only this pod, endpoint, volume or cluster.
    pub id: Option<String>,
}

impl BillingQuery {
    /// This period, in rows of this length.
    #[must_use]
    pub const fn new(start: Timestamp, end: Timestamp, bucket: Bucket) -> Self {
        Self {
            start,
            end,
            bucket,
            id: None,
        }
    }

    fn parameters(&self, filter: Option<&'static str>) -> Vec<(&'static str, String)> {
        let bucket = match self.bucket {
            Bucket::Hour => "hour",
            Bucket::Day => "day",
            Bucket::Week => "week",
            Bucket::Month => "month",
            Bucket::Year => "year",
        };
        let mut parameters = vec![
            ("startTime", self.start.to_string()),
            ("endTime", self.end.to_string()),
            ("bucketSize", bucket.to_owned()),
        ];
        parameters.extend(filter.zip(self.id.clone()));
        parameters
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    instant(deserializer)?.ok_or_else(|| D::Error::custom("is not an instant"))
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Usd, D::Error> {
    dollars(deserializer)?.ok_or_else(|| D::Error::custom("is not an amount of dollars"))
}

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident $(of $id:ident $whose:literal)? {
        $($amount:ident $what:literal),* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct $name {
            /// Start of the period.
            #[serde(deserialize_with = "time")]
            pub start_time: Timestamp,
            /// End of the period.
            #[serde(deserialize_with = "time")]
            pub end_time: Timestamp,
            $(#[doc = $whose] #[serde(deserialize_with = "lenient::text")] pub $id: String,)?
            /// The total amount.
            #[serde(deserialize_with = "amount")]
            pub total_amount: Usd,
            $(#[doc = $what] #[serde(default, deserialize_with = "dollars")]
            pub $amount: Option<Usd>,)*
        }
    )*};
}

rows! {
    /// Everything, in one span.
    AccountBilling {
        pod_gpu_amount "GPUs of pods.",
        pod_cpu_amount "CPUs of pods.",
        pod_disk_amount "Disks of pods.",
        serverless_gpu_amount "GPUs of workers.",
        serverless_cpu_amount "CPUs of workers.",
        serverless_disk_amount "Disks of workers.",
        serverless_fee_amount "Fees of endpoints.",
        storage_standard_amount "Standard volumes.",
        storage_high_performance_amount "Fast volumes.",
        endpoint_amount "Public endpoints.",
        cluster_gpu_amount "GPUs of clusters.",
        cluster_disk_amount "Disks of clusters.",
        cluster_networking_amount "Networks of clusters."
    }
    /// A pod, in one span.
    PodBilling of pod_id "The pod." { gpu_amount "Its GPUs.", cpu_amount "Its CPUs.",
        disk_amount "Its disks." }
    /// A serverless endpoint, in one span.
    ServerlessBilling of serverless_id "The endpoint." {
        gpu_amount "Its GPUs.", cpu_amount "Its CPUs.", disk_amount "Its disks.",
            fee_amount "Its fees."
    }
    /// **Public** endpoints, in one span: a different product from serverless.
    PublicEndpointBilling {}
    /// A network volume, in one span.
    VolumeBilling of network_volume_id "The volume." {
        standard_amount "As a standard one.", high_performance_amount "As a fast one."
    }
    /// A cluster, in one span.
    ClusterBilling of cluster_id "The cluster." {
        gpu_amount "Its GPUs.", disk_amount "Its disks.", networking_amount "Its network."
    }
}

impl RunPod {
    async fn billing<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        kind: Option<&'static str>,
        filter: Option<&'static str>,
        query: &BillingQuery,
    ) -> Result<Vec<T>> {
        let path: Vec<_> = ["billing"].into_iter().chain(kind).collect();
        self.control
            .every(cx, "billing", &path, &query.parameters(filter), "records")
            .await
    }

    /// What the whole account was billed.
    ///
    /// # Errors
    /// Like any read; an incomplete list and an unreadable row are errors, because a sum over the
    /// rest would be wrong. Cancel safe.
    pub async fn account_billing(
        &self,
        cx: &CallContext,
        query: &BillingQuery,
    ) -> Result<Vec<AccountBilling>> {
        self.billing(cx, None, None, query).await
    }

    /// What pods were billed.
    ///
    /// # Errors
    /// See [`RunPod::account_billing`].
    pub async fn pod_billing(
        &self,
        cx: &CallContext,
        query: &BillingQuery,
    ) -> Result<Vec<PodBilling>> {
        self.billing(cx, Some("pods"), Some("podId"), query).await
    }

    /// What serverless endpoints were billed.
    ///
    /// # Errors
    /// See [`RunPod::account_billing`].
    pub async fn serverless_billing(
        &self,
        cx: &CallContext,
        query: &BillingQuery,
    ) -> Result<Vec<ServerlessBilling>> {
        self.billing(cx, Some("serverless"), Some("serverlessId"), query)
            .await
    }

    /// What the use of **public** endpoints was billed: a different product from serverless.
    ///
    /// # Errors
    /// See [`RunPod::account_billing`].
    pub async fn public_endpoint_billing(
        &self,
        cx: &CallContext,
        query: &BillingQuery,
    ) -> Result<Vec<PublicEndpointBilling>> {
        self.billing(cx, Some("endpoints"), None, query).await
    }

    /// What network volumes were billed.
    ///
    /// # Errors
    /// See [`RunPod::account_billing`].
    pub async fn volume_billing(
        &self,
        cx: &CallContext,
        query: &BillingQuery,
    ) -> Result<Vec<VolumeBilling>> {
        self.billing(cx, Some("network-volumes"), Some("networkVolumeId"), query)
            .await
    }

    /// What clusters were billed.
    ///
    /// # Errors
    /// See [`RunPod::account_billing`].
    pub async fn cluster_billing(
        &self,
        cx: &CallContext,
        query: &BillingQuery,
    ) -> Result<Vec<ClusterBilling>> {
        self.billing(cx, Some("clusters"), Some("clusterId"), query)
            .await
    }
}
