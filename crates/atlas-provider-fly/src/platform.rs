//! Fly's public platform data: its regions, and where there is room.

use atlas_core::{CallContext, ComputeRequest, Error, Result, RetryClass};
use atlas_http::Call;

use crate::config_wire::Guest;
use crate::{Fly, candidates, preset, wire};

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// Its code: `fra`.
    pub code: String,
    /// The display name.
    pub name: String,
}

/// How many machines a region has room for. Only a hint: nothing is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The region.
    pub region: String,
    /// The number; zero if there is no room, or because of a limit of the organisation.
    pub count: u32,
}

impl Fly {
    /// The regions.
    ///
    /// # Errors
    /// Like any read.
    pub async fn regions(&self, cx: &CallContext) -> Result<Vec<Region>> {
        let read: wire::Regions = self
            .cloud
            .read(
                cx,
                Call::get("regions", RetryClass::Safe, ["platform", "regions"]),
            )
            .await?;
        Ok(read
            .regions
            .into_iter()
            .map(|region| Region {
                code: region.code,
                name: region.name,
            })
            .collect())
    }

    /// Refuses a region that Fly does not have, and names those that it has. Regions in the price
    /// table are not looked up.
    pub(crate) async fn check_regions(
        &self,
        cx: &CallContext,
        operation: &'static str,
        request: &ComputeRequest,
    ) -> Result<()> {
        let hints = request.region_hints.iter();
        let doubtful: Vec<String> = hints
            .map(|hint| hint.to_ascii_lowercase())
            .filter(|region| !preset::is_known_region(region))
            .collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        let call = Call::get(operation, RetryClass::Safe, ["platform", "regions"]);
        let known = self.cloud.read::<wire::Regions>(cx, call).await?.regions;
        let there = |region: &&String| {
            let mut codes = known.iter().map(|one| &one.code);
            codes.any(|code| code.eq_ignore_ascii_case(region))
        };
        let Some(unknown) = doubtful.iter().find(|region| !there(region)) else {
            return Ok(());
        };
        let codes: Vec<&str> = known.iter().map(|region| region.code.as_str()).collect();
        if codes.is_empty() {
            return Ok(());
        }
        Err(Error::validation(
            "region_hints",
            format!("fly has no region {unknown:?}: it has {}", codes.join(", ")),
        ))
    }

    /// Regions with room for this many machines of the request's cheapest shape.
    ///
    /// # Errors
    /// Like any read; `unsupported` when no machine of Fly fits the request.
    pub async fn placements(
        &self,
        cx: &CallContext,
        request: &ComputeRequest,
        count: u32,
    ) -> Result<Vec<Placement>> {
        let org = self.org(cx).await?;
        let cheapest = candidates::candidates(request)?
            .into_iter()
            .next()
            .unwrap_or_default();
        let (preset, _) = Self::pinned(&request.clone().at(cheapest))?;
        let regions = (!request.region_hints.is_empty()).then(|| request.region_hints.join(","));
        let compute = Guest {
            cpu_kind: Some(preset.kind.as_str().to_owned()),
            cpus: Some(preset.cpus),
            memory_mb: Some(preset.memory_mb),
            ..Guest::default()
        };
        let body = wire::AskPlacement {
            org_slug: &org,
            region: regions.as_deref(),
            count,
            compute,
        };
        let call =
            Call::post("placements", RetryClass::Safe, ["platform", "placements"]).json(&body);
        let read: wire::Placements = self.cloud.read(cx, call).await?;
        let found = read.regions.unwrap_or_default();
        Ok(found
            .into_iter()
            .map(|place| Placement {
                region: place.region,
                count: place.count,
            })
            .collect())
    }
}
