//! Network volumes: the contract's operations, and RunPod's further ones.

use atlas_core::{
    CallContext, DiskSize, Error, NetworkVolume, Result, UnreadableRow, VolumeId, VolumeRequest,
};
use atlas_http::lenient;
use serde_json::{Map, Value, json};

use super::container::put;
use super::read::readable;
use crate::{RunPod, wire};

const PATH: &str = "network-volumes";
/// The possible sizes of a volume.
const SIZES: std::ops::RangeInclusive<u32> = 10..=4096;

fn volume(value: &Value) -> Result<NetworkVolume> {
    described(value).map_err(UnreadableRow::into_error)
}

fn described(value: &Value) -> Result<NetworkVolume, UnreadableRow> {
    let volume: wire::Volume = lenient::row(value)?;
    let id =
        VolumeId::new(&volume.id).map_err(|error| UnreadableRow::of(value, error.message()))?;
    Ok(NetworkVolume::new(
        id,
        volume.name.unwrap_or_default(),
        DiskSize::gb(volume.size.unwrap_or(0)),
        volume.data_center,
    ))
}

impl RunPod {
    pub(crate) async fn volumes(&self, cx: &CallContext) -> Result<Vec<NetworkVolume>> {
        let walk = self
            .control
            .walk(
                cx,
                "list_network_volumes",
                &["v2", PATH],
                &[],
                "networkVolumes",
            )
            .await?;
        readable("network volumes", walk.whole()?.iter().map(described))
    }

    pub(crate) async fn create_volume(
        &self,
        cx: &CallContext,
        request: &VolumeRequest,
    ) -> Result<NetworkVolume> {
        if !SIZES.contains(&request.size.as_gb()) {
            return Err(Error::validation("size_gb", "must be 10 to 4096 GB"));
        }
        if request.name.is_empty() {
            return Err(Error::validation("name", "must not be empty"));
        }
        if request.region.is_empty() {
            return Err(Error::validation("region", "must not be empty"));
        }
        let body = json!({"name": request.name, "size": request.size.as_gb(),
            "dataCenter": request.region});
        volume(
            &self
                .control
                .make(cx, "create_network_volume", &[PATH], &body, Vec::new())
                .await?,
        )
        .map_err(|error| error.outcome_is(atlas_core::Outcome::Unknown(Vec::new())))
    }

    pub(crate) async fn delete_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<()> {
        self.control
            .remove(cx, "delete_network_volume", &[PATH, id.as_str()])
            .await
    }

    /// One network volume.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn network_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<NetworkVolume> {
        volume(
            &self
                .control
                .fetch(cx, "get_network_volume", &[PATH, id.as_str()], &[])
                .await?,
        )
    }

    /// Renames a network volume or enlarges it. It cannot be made smaller.
    ///
    /// # Errors
    /// `validation` when there is nothing to change, or for an impossible size. A dropped call may
    /// have changed it.
    pub async fn update_network_volume(
        &self,
        cx: &CallContext,
        id: &VolumeId,
        name: Option<&str>,
        size: Option<DiskSize>,
    ) -> Result<NetworkVolume> {
        if name.is_none_or(str::is_empty) && size.is_none() {
            return Err(Error::validation("name", "name or size must be given"));
        }
        if size.is_some_and(|size| !SIZES.contains(&size.as_gb())) {
            return Err(Error::validation("size_gb", "must be 10 to 4096 GB"));
        }
        let mut body = Map::new();
        put(&mut body, "name", name);
        put(&mut body, "size", size.map(DiskSize::as_gb));
        let path = [PATH, id.as_str()];
        volume(
            &self
                .control
                .change(
                    cx,
                    "update_network_volume",
                    &path,
                    &Value::Object(body),
                    Vec::new(),
                )
                .await?,
        )
    }
}
