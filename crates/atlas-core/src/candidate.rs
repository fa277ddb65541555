//! One priced shape that could be rented: what a single create is pinned to.

use serde::{Deserialize, Serialize};

use crate::gpu::{Gpu, Stock};
use crate::money::UsdPerHour;
use crate::request::CloudType;

/// One thing to try: an offer, a region, a variant of a GPU, with its price.
///
/// `Provider::candidates` lists them, best first; each attempt of the orchestrator is pinned to
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Candidate {
    /// The cloud's id of the offer, where offers have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// The cloud's id of the shape: a GPU type, an instance type, a preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_type: Option<String>,
    /// The card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// The region it is in, where the cloud names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_type: Option<CloudType>,
    /// For the whole machine, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<UsdPerHour>,
    /// What the cloud says it has of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stock: Option<Stock>,
}
