//! Volumes: disk on one machine, held by one instance at a time, billed until deleted.

use std::time::Duration;

use atlas_core::Timestamp;
use http::Response;
use serde_json::{Value, json};

use super::envelope::{Failure, ok};
use super::stock::{self, NAME};
use super::{Call, Vast};
use crate::dialect::SimBody;

/// How long a volume is held after its instance is gone.
const HELD: Duration = Duration::from_secs(30);

/// A volume.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    machine: u64,
    size: u64,
    name: String,
    created: Timestamp,
}

impl Vast {
    pub(super) fn volume_offers(&self, call: &Call<'_>) -> Response<SimBody> {
        let body = call.json().unwrap_or_default();
        let mut machines: Vec<&stock::Ask> = stock::asks().iter().collect();
        machines.dedup_by_key(|ask| ask.machine);
        let wanted = &body["machine_id"];
        let offers: Vec<Value> = machines
            .into_iter()
            .filter(|ask| {
                !wanted.is_object() || super::offers::fits(&Value::from(ask.machine), wanted)
            })
            .take(
                body["limit"]
                    .as_u64()
                    .and_then(|limit| usize::try_from(limit).ok())
                    .unwrap_or(64)
                    .min(64),
            )
            .map(|ask| {
                json!({ "id": offer_id(ask.machine), "ask_contract_id": offer_id(ask.machine),
                    "machine_id": ask.machine, "host_id": ask.host,
                    "disk_space": 200.0, "storage_cost": 0.1, "geolocation": ask.place.1,
                        "reliability2": ask.reliability,
                    "verification": if ask.verified { "verified" } else { "unverified" },
                        "inet_down": ask.inet_down, "static_ip": true })
            })
            .collect();
        ok(&json!({ "offers": offers }))
    }

    pub(super) fn volumes(&self, call: &Call<'_>) -> Response<SimBody> {
        let holders = self.holders(call);
        let clock = self.world.clock();
        let rows: Vec<Value> = self.holdings(call, |held| {
            let row = |(id, volume): (&u64, &Volume)| {
                let instances: Vec<Value> = holders
                    .iter()
                    .filter(|(_, held)| held == id)
                    .map(|(instance, _)| json!({ "id": instance.parse::<u64>().ok() }))
                    .collect();
                json!({ "id": id, "status": if instances.is_empty() { "created" } else {
                    "in-use" }, "machine_id": volume.machine,
                    "disk_space": volume.size, "label": volume.name, "instances": instances,
                    "start_date": clock.on_the_wire(volume.created).unix_seconds(),
                        "storage_total_cost": 0.0 })
            };
            held.volumes.iter().map(row).collect()
        });
        ok(&json!({ "volumes": rows }))
    }

    pub(super) fn add_volume(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let ask = body["id"]
            .as_u64()
            .and_then(|id| stock::of_machine(id.checked_sub(offer_id(0))?));
        let ask = ask.ok_or_else(|| Failure::invalid("id is no volume offer"))?;
        let size = body["size"].as_u64().unwrap_or(15);
        let name = body["name"].as_str().unwrap_or("volume").to_owned();
        let plain = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !plain {
            return Err(Failure::new(
                422,
                "invalid_args",
                "error 422: name: String should match pattern",
            ));
        }
        let id = 880 + self.next_number();
        let created = self.world.now();
        self.holdings(call, |held| {
            held.volumes.insert(
                id,
                Volume {
                    machine: ask.machine,
                    size,
                    name,
                    created,
                },
            )
        });
        Ok(ok(
            &json!({ "success": true, "volume_name": format!("V.{id}") }),
        ))
    }

    /// Refused while an instance has it, and for a while after.
    pub(super) fn delete_volume(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let given = call
            .query
            .get("id")
            .and_then(|id| id.parse().ok())
            .or_else(|| call.json().ok()?["id"].as_u64());
        let id: u64 = given.ok_or_else(|| Failure::invalid("id"))?;
        let missing = || {
            Failure::new(
                404,
                "no_such_volume",
                format!("error 404/3900: Volume {id} not found."),
            )
        };
        if !self.holdings(call, |held| held.volumes.contains_key(&id)) {
            return Err(missing());
        }
        if self.holders(call).iter().any(|(_, volume)| *volume == id) {
            return Err(Failure::invalid("the volume is in use"));
        }
        self.holdings(call, |held| held.volumes.remove(&id))
            .ok_or_else(missing)?;
        Ok(ok(&json!({ "success": true })))
    }

    /// A create may mount it: it is there, on this machine, and free.
    pub(super) fn check_volume(
        &self,
        call: &Call<'_>,
        id: u64,
        machine: u64,
    ) -> Result<(), Failure> {
        let volume = self
            .holdings(call, |held| held.volumes.get(&id).cloned())
            .ok_or_else(|| Failure::invalid("volume_info: no such volume"))?;
        if volume.machine != machine {
            return Err(Failure::invalid(
                "volume_info: the volume is on another machine",
            ));
        }
        if self.holders(call).iter().any(|(_, held)| *held == id) {
            return Err(Failure::invalid("volume_info: the volume is in use"));
        }
        Ok(())
    }

    /// Instances with their volumes, those that went a moment ago among them.
    fn holders(&self, call: &Call<'_>) -> Vec<(String, u64)> {
        let now = self.world.now();
        let freed = self.holdings(call, |held| held.freed.clone());
        let lately = |id: &str| freed.get(id).is_some_and(|at| now.since(*at) < HELD);
        let all = self
            .world
            .all(NAME)
            .into_iter()
            .filter(|machine| machine.account == call.account.as_str());
        all.filter(|machine| machine.is_live() || lately(&machine.id))
            .filter_map(|machine| {
                Some((machine.id.clone(), machine.spec.extra["volume"].as_u64()?))
            })
            .collect()
    }
}

const fn offer_id(machine: u64) -> u64 {
    5_000_000 + machine
}
