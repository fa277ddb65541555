//! The catalogue of GPUs by atlas's canonical names, and what a cloud reports about each: price,
//! stock, memory.
//!
//! A cloud's own name for a GPU is defined in its provider crate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::ids::ProviderId;
use crate::money::UsdPerHour;
use crate::request::CloudType;
use crate::size::MemorySize;
use crate::time::Timestamp;

macro_rules! catalogue {
    ($($variant:ident $name:literal $gib:literal $([$($member:ident),+])?;)*) => {
        /// A GPU by its canonical name.
        ///
        /// Some names cover several models (`h100`): [`Gpu::variants`] lists them in the order in
        /// which they are tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Gpu {
            $(#[doc = concat!("`", $name, "`, ", stringify!($gib),
                " GB of memory each.")] $variant,)*
        }

        impl Gpu {
            /// Every canonical name.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The canonical name: `h100_sxm`, `rtx_4090`, ...
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Memory of one GPU; the smallest of its variants where they differ.
            #[must_use]
            pub const fn vram(self) -> MemorySize {
                match self { $(Self::$variant => MemorySize::gib($gib),)* }
            }

            /// The models this name covers, best first. The name of one model covers only itself.
            #[must_use]
            pub const fn variants(self) -> &'static [Self] {
                match self {
                    $(Self::$variant => catalogue!(@variants $variant $($($member),+)?),)* }
            }
        }
    };
    (@variants $variant:ident) => { &[Self::$variant] };
    (@variants $variant:ident $($member:ident),+) => { &[$(Self::$member),+] };
}

catalogue! {
    B300 "b300" 288;
    B300Mig34G "b300_mig_34g" 34;
    B200 "b200" 180;
    Gh200 "gh200" 96;
    H200 "h200" 141;
    H200Nvl "h200_nvl" 143;
    H100 "h100" 80 [H100Sxm, H100Pcie, H100Nvl];
    H100Sxm "h100_sxm" 80;
    H100Pcie "h100_pcie" 80;
    H100Nvl "h100_nvl" 94;
    A100_80G "a100_80g" 80 [A100_80GSxm, A100_80GPcie];
    A100_80GSxm "a100_80g_sxm" 80;
    A100_80GPcie "a100_80g_pcie" 80;
    A100_40G "a100_40g" 40 [A100_40GSxm, A100_40GPcie];
    A100_40GSxm "a100_40g_sxm" 40;
    A100_40GPcie "a100_40g_pcie" 40;
    Mi300X "mi300x" 192;
    Mi350X "mi350x" 294;
    L40S "l40s" 48;
    L40 "l40" 48;
    L4 "l4" 24;
    Rtx6000Ada "rtx_6000_ada" 48;
    Rtx5000Ada "rtx_5000_ada" 32;
    Rtx4000Ada "rtx_4000_ada" 20;
    Rtx4000SffAda "rtx_4000_sff_ada" 20;
    Rtx2000Ada "rtx_2000_ada" 16;
    A40 "a40" 48;
    A30 "a30" 24;
    A10 "a10" 24;
    A6000 "a6000" 48;
    A5000 "a5000" 24;
    A4500 "a4500" 20;
    A4000 "a4000" 16;
    A2000 "a2000" 6;
    RtxPro6000 "rtx_pro_6000" 96 [RtxPro6000Server, RtxPro6000Ws, RtxPro6000MaxQ];
    RtxPro6000Server "rtx_pro_6000_server" 96;
    RtxPro6000Ws "rtx_pro_6000_ws" 96;
    RtxPro6000MaxQ "rtx_pro_6000_maxq" 96;
    RtxPro6000Mig24G "rtx_pro_6000_mig_24g" 24;
    RtxPro6000Mig48G "rtx_pro_6000_mig_48g" 48;
    RtxPro4500 "rtx_pro_4500" 32;
    Rtx5090 "rtx_5090" 32;
    Rtx5080 "rtx_5080" 16;
    Rtx5070Ti "rtx_5070_ti" 16;
    Rtx4090 "rtx_4090" 24;
    Rtx4080 "rtx_4080" 16;
    Rtx4080Super "rtx_4080_super" 16;
    Rtx4070Ti "rtx_4070_ti" 12;
    Rtx3090 "rtx_3090" 24;
    Rtx3090Ti "rtx_3090_ti" 24;
    Rtx3080 "rtx_3080" 10;
    Rtx3080Ti "rtx_3080_ti" 12;
    Rtx3070 "rtx_3070" 8;
    Rtx8000 "rtx_8000" 48;
    Rtx6000 "rtx_6000" 24;
    V100 "v100" 16 [V100Sxm2_32G, V100Sxm2_16G, V100Pcie32G, V100Pcie16G, V100Fhhl16G];
    V100Sxm2_32G "v100_sxm2_32g" 32;
    V100Sxm2_16G "v100_sxm2_16g" 16;
    V100Pcie32G "v100_pcie_32g" 32;
    V100Pcie16G "v100_pcie_16g" 16;
    V100Fhhl16G "v100_fhhl_16g" 16;
    T4 "t4" 16;
}

/// Other spellings that the clouds and ex_atlas use for a canonical name.
const ALIASES: &[(&str, Gpu)] = &[
    ("h200_sxm", Gpu::H200),
    ("rtx_a6000", Gpu::A6000),
    ("rtx_a5000", Gpu::A5000),
    ("rtx_a4500", Gpu::A4500),
    ("rtx_a4000", Gpu::A4000),
    ("rtx_a2000", Gpu::A2000),
];

impl FromStr for Gpu {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let folded = text.trim().to_ascii_lowercase().replace([' ', '-'], "_");
        Self::ALL
            .iter()
            .map(|gpu| (gpu.as_str(), *gpu))
            .chain(ALIASES.iter().copied())
            .find_map(|(name, gpu)| (name == folded).then_some(gpu))
            .ok_or_else(|| {
                Error::validation(
                    "gpu",
                    format!("{text:?} is not a known GPU; `atlas gpus` lists them"),
                )
            })
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Gpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Gpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// How much stock of a GPU a cloud reports. Only a hint: a create can still find it sold out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stock {
    /// Sold out.
    None,
    /// Low stock.
    Low,
    /// Medium stock.
    Medium,
    /// High stock.
    High,
}

/// One line of a cloud's price list: a GPU in one tier and region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GpuType {
    /// The provider whose price list this is.
    pub provider: ProviderId,
    /// The canonical name, if the catalogue has one.
    pub gpu: Option<Gpu>,
    /// The cloud's own id, unchanged.
    pub native_id: String,
    /// The cloud's display name.
    pub display_name: String,
    /// Memory of one GPU.
    pub vram: MemorySize,
    /// The tier, where the cloud has tiers.
    pub cloud_type: Option<CloudType>,
    /// The region, if the entry is for one region.
    pub region: Option<String>,
    /// On-demand price of one GPU.
    pub price: Option<UsdPerHour>,
    /// Interruptible (spot) price of one GPU.
    pub spot_price: Option<UsdPerHour>,
    /// The stock that the cloud reports.
    pub stock: Option<Stock>,
    /// The maximum number of these GPUs in one machine.
    pub max_count: Option<u32>,
    /// When the cloud reported this.
    pub observed_at: Timestamp,
}

impl GpuType {
    /// An entry with only the fields that every cloud reports.
    pub fn new(
        provider: ProviderId,
        native_id: impl Into<String>,
        vram: MemorySize,
        observed_at: Timestamp,
    ) -> Self {
        let native_id = native_id.into();
        Self {
            provider,
            gpu: None,
            display_name: native_id.clone(),
            native_id,
            vram,
            cloud_type: None,
            region: None,
            price: None,
            spot_price: None,
            stock: None,
            max_count: None,
            observed_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_every_variant_is_a_card() {
        for gpu in Gpu::ALL {
            assert_eq!(gpu.as_str().parse::<Gpu>().unwrap(), *gpu);
            for card in gpu.variants() {
                assert_eq!(card.variants(), [*card], "{gpu} expands to a family");
                assert!(card.vram() >= gpu.vram(), "{gpu}");
            }
        }
    }

    #[test]
    fn aliases_and_loose_spellings_are_understood_and_the_unknown_is_named() {
        assert_eq!("H100-SXM".parse::<Gpu>().unwrap(), Gpu::H100Sxm);
        assert_eq!("rtx a6000".parse::<Gpu>().unwrap(), Gpu::A6000);
        let error = "h101".parse::<Gpu>().unwrap_err();
        assert_eq!(
            (error.field(), error.kind()),
            (Some("gpu"), crate::ErrorKind::Validation)
        );
    }
}
