//! One priced shape that could be rented. Each create call is pinned to one.

use serde::{Deserialize, Serialize};

use crate::gpu::{Gpu, Stock};
use crate::money::UsdPerHour;
use crate::request::CloudType;

/// One offer to try: a shape in a region, or a variant of a GPU, with its price.
///
/// `Provider::candidates` lists them, best first. The orchestrator pins each attempt to one of
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Candidate {
    /// The cloud's id of the offer, for clouds that have offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// The cloud's id of the shape: a GPU type, an instance type, a preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_type: Option<String>,
    /// The GPU; `None` for a CPU machine or a GPU that the catalogue does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// The region, if the cloud names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The tier of data centre.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_type: Option<CloudType>,
    /// Price of the whole machine per hour while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<UsdPerHour>,
    /// How much of this shape the cloud says it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stock: Option<Stock>,
}
