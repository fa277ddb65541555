//! Volumes: on one host, for one machine at a time, billed until they are deleted, and never
//! deleted with a machine.

use atlas_core::{
    CallContext, DiskSize, Error, NetworkVolume, Result, RetryClass, VolumeId, VolumeRequest,
};
use atlas_http::Call;
use http::StatusCode;

use crate::place::Place;
use crate::{APP_ENV, Fly, translate, wire};

/// A volume, as Fly describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Volume {
    /// The volume in the contract's terms.
    pub volume: NetworkVolume,
    /// Fly's name of the state.
    pub state: String,
    /// The machine that mounts it.
    pub attached_to: Option<String>,
}

fn told(app: &str, read: wire::Volume) -> Result<Volume> {
    Ok(Volume {
        volume: translate::volume(Some(app), &read)?,
        state: read.state.unwrap_or_default(),
        attached_to: read.attached_machine_id.filter(|id| !id.is_empty()),
    })
}

impl Fly {
    pub(crate) async fn create_volume(
        &self,
        cx: &CallContext,
        request: &VolumeRequest,
    ) -> Result<NetworkVolume> {
        let plain = (1..=30).contains(&request.name.len())
            && request
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !plain {
            return Err(Error::validation(
                "name",
                "must be 1 to 30 lower-case letters, digits and _",
            ));
        }
        let Some(app) = self.app.as_deref() else {
            return Err(Error::validation(
                "app",
                format!("a volume is of an app: name one in {APP_ENV}"),
            ));
        };
        let body = wire::CreateVolume {
            name: &request.name,
            region: &request.region,
            size_gb: request.size.as_gb(),
        };
        let call = Call::post(
            "create_network_volume",
            RetryClass::Create,
            ["apps", app, "volumes"],
        )
        .json(&body);
        let made: wire::Volume = self.cloud.read(cx, call).await?;
        // It bills from now on, so an unreadable field must not lose its id.
        let size = DiskSize::gb(made.size_gb.unwrap_or(request.size.as_gb()));
        let region = made.region.unwrap_or_else(|| request.region.clone());
        Ok(NetworkVolume::new(
            Place::new(app, made.id).volume_id()?,
            made.name.unwrap_or_else(|| request.name.clone()),
            size,
            region,
        ))
    }

    pub(crate) async fn delete_volume(&self, cx: &CallContext, id: &VolumeId) -> Result<()> {
        let at = Place::of_volume(id)?;
        let call = Call::delete(
            "delete_network_volume",
            RetryClass::Idempotent,
            ["apps", &at.app, "volumes", &at.id],
        );
        let answer = self
            .cloud
            .call(cx, call.accept_status(StatusCode::NOT_FOUND))
            .await?;
        if answer.status().is_success() {
            return Ok(());
        }
        crate::error::gone(&answer)?;
        self.cloud
            .known_app(cx, "delete_network_volume", &at.app)
            .await
    }

    /// The volumes of one app.
    ///
    /// # Errors
    /// Like any read.
    pub async fn volumes(&self, cx: &CallContext, app: &str) -> Result<Vec<Volume>> {
        let read = self.cloud.app_volumes(cx, "volumes", app).await?;
        read.into_iter().map(|volume| told(app, volume)).collect()
    }

    /// One volume.
    ///
    /// # Errors
    /// Like any read.
    pub async fn volume(&self, cx: &CallContext, id: &VolumeId) -> Result<Volume> {
        let at = Place::of_volume(id)?;
        let call = Call::get(
            "volume",
            RetryClass::Safe,
            ["apps", &at.app, "volumes", &at.id],
        );
        told(&at.app, self.cloud.read(cx, call).await?)
    }

    /// Enlarges a volume; a volume cannot be made smaller.
    ///
    /// # Errors
    /// `validation` for a smaller size.
    pub async fn extend_volume(
        &self,
        cx: &CallContext,
        id: &VolumeId,
        size: DiskSize,
    ) -> Result<Volume> {
        let at = Place::of_volume(id)?;
        let call = Call::put(
            "extend_volume",
            RetryClass::Idempotent,
            ["apps", &at.app, "volumes", &at.id, "extend"],
        );
        let call = call.json(&serde_json::json!({ "size_gb": size.as_gb() }));
        told(
            &at.app,
            self.cloud.read::<wire::Extended>(cx, call).await?.volume,
        )
    }

    /// Keeps snapshots of a volume for this many days, 1 to 60.
    ///
    /// # Errors
    /// Like any idempotent call.
    pub async fn keep_snapshots(
        &self,
        cx: &CallContext,
        id: &VolumeId,
        days: u32,
    ) -> Result<Volume> {
        let at = Place::of_volume(id)?;
        let call = Call::put(
            "keep_snapshots",
            RetryClass::Idempotent,
            ["apps", &at.app, "volumes", &at.id],
        );
        let call = call.json(&serde_json::json!({ "snapshot_retention": days.clamp(1, 60) }));
        told(&at.app, self.cloud.read(cx, call).await?)
    }
}
