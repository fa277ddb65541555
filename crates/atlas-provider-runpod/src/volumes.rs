//! Network volumes: the contract's group, in RunPod's terms.

use atlas_core::{CallContext, DiskSize, Error, ErrorKind, NetworkVolume, Result, RetryClass, VolumeId, VolumeRequest};
use atlas_http::{Call, Client};
use http::StatusCode;
use serde_json::{Value, json};

use crate::client::Control;
use crate::error::{Refusal, unread_create};
use crate::translate::read;
use crate::wire;

/// The sizes a volume can have.
const SIZES: std::ops::RangeInclusive<u32> = 10..=4096;

fn volume(value: &Value) -> Result<NetworkVolume> {
    let volume: wire::Volume = read(value)?;
    let id = VolumeId::new(&volume.id).map_err(|_| Error::new(ErrorKind::Provider, "a volume in the answer has no usable id"))?;
    Ok(NetworkVolume::new(id, volume.name.unwrap_or_default(), DiskSize::gb(volume.size), volume.data_center))
}

pub(crate) async fn list(control: &Control, cx: &CallContext) -> Result<Vec<NetworkVolume>> {
    let walk = control.walk(cx, "list_network_volumes", &["v2", "network-volumes"], &[], "networkVolumes").await?;
    walk.whole()?.iter().map(volume).collect()
}

pub(crate) async fn create(client: &Client, cx: &CallContext, request: &VolumeRequest) -> Result<NetworkVolume> {
    if !SIZES.contains(&request.size.as_gb()) {
        return Err(Error::validation("size_gb", "must be 10 to 4096 GB"));
    }
    if request.name.is_empty() || request.region.is_empty() {
        return Err(Error::validation(if request.name.is_empty() { "name" } else { "region" }, "must not be empty"));
    }
    let body = json!({"name": request.name, "size": request.size.as_gb(), "dataCenter": request.region});
    let call = Call::post("create_network_volume", RetryClass::Create, ["v2", "network-volumes"]).json(&body);
    let answer = client.call(cx, call).await?;
    let read = answer.json::<Value>().and_then(|value| volume(&value));
    read.map_err(|cause| unread_create(answer.bytes(), &cause))
}

pub(crate) async fn delete(client: &Client, cx: &CallContext, id: &VolumeId) -> Result<()> {
    let call = Call::delete("delete_network_volume", RetryClass::Idempotent, ["v2", "network-volumes", id.as_str()]);
    let call = call.accept_status(StatusCode::NOT_FOUND).accept_status(StatusCode::BAD_REQUEST);
    let answer = client.call(cx, call).await?;
    let refusal = Refusal::from(&answer);
    if answer.status().is_success() || refusal.says_not_found() {
        return Ok(());
    }
    // A volume that a pod mounts is refused with 400 (docs/clouds/runpod.md, "Network volumes").
    Err(if answer.status() == StatusCode::BAD_REQUEST {
        refusal.into_error_as(ErrorKind::Conflict)
    } else {
        refusal.into_error()
    })
}
