//! Volumes: on one host, for one machine at a time, and billed until they are deleted.

use atlas_core::Timestamp;
use http::Response;
use serde_json::{Value, json};

use super::answer::{Failure, empty, ok};
use super::route::{VolumeVerb, parts};
use super::{Call, Fly, NAME, stock};
use crate::dialect::SimBody;
use crate::world::{Refusal, Volume};

/// Fly's own data about a volume, besides the world's.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    app: String,
    encrypted: bool,
    retention: u64,
    backup: bool,
    snapshots: Vec<Value>,
    deleted_at: Option<Timestamp>,
}

const PREFIX: &str = "vol_";

fn shown_id(id: &str) -> String {
    format!("{PREFIX}{id}")
}

impl Fly {
    pub(super) fn disks_of(&self, app: &str) -> usize {
        self.shared()
            .disks
            .values()
            .filter(|disk| disk.app == app && disk.deleted_at.is_none())
            .count()
    }

    /// A volume of this app that a new machine may mount: its id in the world, and its region.
    pub(super) fn mountable(
        &self,
        call: &Call<'_>,
        app: &str,
        id: &str,
    ) -> Result<(String, String), Failure> {
        let (volume, disk) = self
            .volume(call, app, id)
            .map_err(|_| Failure::invalid("volume not found"))?;
        if disk.deleted_at.is_some() {
            return Err(Failure::invalid("volume not found"));
        }
        if self.attached(&volume.id).is_some() {
            return Err(Failure::precondition(format!(
                "volume {id} is already attached to a machine"
            )));
        }
        Ok((volume.id, volume.region))
    }

    fn attached(&self, id: &str) -> Option<String> {
        let mut machines = self.world.all(NAME).into_iter();
        let holder = machines.find(|machine| {
            machine.is_live() && machine.spec.network_volume.as_deref() == Some(id)
        })?;
        Some(parts(&holder.id).0.to_owned())
    }

    fn volume(&self, call: &Call<'_>, app: &str, id: &str) -> Result<(Volume, Disk), Failure> {
        let missing = || Failure::new(404, "volume not found");
        let inner = id.strip_prefix(PREFIX).ok_or_else(missing)?;
        let found = self
            .mine(call, |disk| disk.app == app)
            .into_iter()
            .find(|(volume, _)| volume.id == inner);
        found.ok_or_else(missing)
    }

    fn shown_volume(&self, volume: &Volume, disk: &Disk) -> Value {
        json!({
            "id": shown_id(&volume.id), "name": volume.name, "state": self.disk_state(disk),
                "size_gb": volume.size_gb, "region": volume.region,
            "zone": "c2a9", "encrypted": disk.encrypted,
                "attached_machine_id": self.attached(&volume.id).unwrap_or_default(),
            "created_at": self.shown(volume.created_at), "snapshot_retention": disk.retention,
            "auto_backup_enabled": disk.backup, "fstype": "ext4", "host_status": "ok",
        })
    }

    fn mine(&self, call: &Call<'_>, also: impl Fn(&Disk) -> bool) -> Vec<(Volume, Disk)> {
        let volumes = self.world.all_volumes(NAME, &call.account);
        let (now, shared) = (self.world.now(), self.shared());
        let remembers = shared.quirks.volume_remembers;
        let also =
            |disk: &Disk| also(disk) && disk.deleted_at.is_none_or(|at| now.since(at) < remembers);
        volumes
            .into_iter()
            .rev()
            .filter_map(|volume| {
                Some((
                    shared
                        .disks
                        .get(&volume.id)
                        .filter(|disk| also(disk))?
                        .clone(),
                    volume,
                ))
            })
            .map(|(disk, volume)| (volume, disk))
            .collect()
    }

    /// A deleted volume disappears in two steps.
    fn disk_state(&self, disk: &Disk) -> &'static str {
        let Some(at) = disk.deleted_at else {
            return "created";
        };
        let gone = self.world.now().since(at) >= self.shared().quirks.volume_remembers / 2;
        if gone { "destroyed" } else { "pending_destroy" }
    }

    pub(super) fn list_volumes(
        &self,
        call: &Call<'_>,
        app: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let rows: Vec<Value> = self
            .mine(call, |disk| disk.app == app)
            .iter()
            .map(|(volume, disk)| self.shown_volume(volume, disk))
            .collect();
        Ok(ok(&Value::from(rows)))
    }

    pub(super) fn org_volumes(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let rows: Vec<Value> = self
            .mine(call, |_| true)
            .iter()
            .map(|(volume, disk)| {
                let mut row = self.shown_volume(volume, disk);
                row["app_name"] = Value::from(disk.app.as_str());
                row
            })
            .collect();
        let last = rows.last().map_or(Value::from(""), |row| row["id"].clone());
        Ok(ok(
            &json!({ "volumes": rows, "next_cursor": "", "last_volume_id": last }),
        ))
    }

    pub(super) fn create_volume(
        &self,
        call: &Call<'_>,
        app: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let name = body["name"].as_str().unwrap_or_default();
        let plain = (1..=30).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !plain {
            return Err(Failure::invalid(
                "name should be 1-30 characters of lowercase letters, digits and underscores",
            ));
        }
        let size = body["size_gb"].as_u64().unwrap_or(3);
        let size = u32::try_from(size)
            .ok()
            .filter(|size| (1..=500).contains(size));
        let size = size.ok_or_else(|| Failure::invalid("size_gb must be between 1 and 500"))?;
        let region = stock::regions(body["region"].as_str())
            .and_then(|regions| regions.into_iter().next())
            .ok_or_else(|| Failure::invalid("region not found"))?;
        let volume = self
            .world
            .create_volume(NAME, &call.account, name, size, &region, "local")?;
        let disk = Disk {
            app: app.to_owned(),
            encrypted: body["encrypted"].as_bool().unwrap_or(true),
            retention: body["snapshot_retention"].as_u64().unwrap_or(5),
            backup: body["auto_backup_enabled"].as_bool().unwrap_or(true),
            snapshots: Vec::new(),
            deleted_at: None,
        };
        self.shared().disks.insert(volume.id.clone(), disk.clone());
        Ok(ok(&self.shown_volume(&volume, &disk)))
    }

    pub(super) fn volume_call(
        &self,
        call: &Call<'_>,
        app: &str,
        id: &str,
        verb: VolumeVerb,
    ) -> Result<Response<SimBody>, Failure> {
        let (volume, disk) = self.volume(call, app, id)?;
        if disk.deleted_at.is_some() && verb != VolumeVerb::Get {
            return Err(Failure::new(404, "volume not found"));
        }
        match verb {
            VolumeVerb::Get => Ok(ok(&self.shown_volume(&volume, &disk))),
            VolumeVerb::Update => {
                let body = call.json()?;
                let disk = {
                    let mut shared = self.shared();
                    let disk = shared
                        .disks
                        .get_mut(&volume.id)
                        .ok_or_else(|| Failure::new(404, "volume not found"))?;
                    disk.retention = body["snapshot_retention"]
                        .as_u64()
                        .unwrap_or(disk.retention);
                    disk.backup = body["auto_backup_enabled"].as_bool().unwrap_or(disk.backup);
                    disk.clone()
                };
                Ok(ok(&self.shown_volume(&volume, &disk)))
            }
            VolumeVerb::Delete => {
                self.world
                    .delete_volume(NAME, &call.account, &volume.id)
                    .map_err(|refusal| match refusal {
                        Refusal::NotNow => Failure::precondition("volume is attached to a machine"),
                        other => other.into(),
                    })?;
                let disk = Disk {
                    deleted_at: Some(self.world.now()),
                    ..disk
                };
                self.shared().disks.insert(volume.id.clone(), disk.clone());
                Ok(ok(&self.shown_volume(&volume, &disk)))
            }
            VolumeVerb::Extend => {
                let size = call.json()?["size_gb"]
                    .as_u64()
                    .and_then(|size| u32::try_from(size).ok());
                let size = size.ok_or_else(|| Failure::invalid("size_gb is required"))?;
                let grown = self
                    .world
                    .update_volume(NAME, &call.account, &volume.id, None, Some(size))
                    .map_err(|refusal| match refusal {
                        Refusal::NotNow => Failure::invalid("volumes can only be made larger"),
                        other => other.into(),
                    })?;
                Ok(ok(
                    &json!({ "volume": self.shown_volume(&grown, &disk), "needs_restart": false }),
                ))
            }
            VolumeVerb::Snapshots => Ok(ok(&Value::from(disk.snapshots))),
            VolumeVerb::Snapshot => {
                let snapshot = json!({
                    "id": format!("vs_{}", self.world.word(14)),
                        "created_at": self.shown(self.world.now()), "digest": "4f0c",
                    "retention_days": disk.retention, "size": 0, "status": "created",
                        "volume_size": u64::from(volume.size_gb) << 30,
                });
                if let Some(disk) = self.shared().disks.get_mut(&volume.id) {
                    disk.snapshots.insert(0, snapshot);
                }
                Ok(empty(200))
            }
        }
    }
}
