//! Machines: create, read, list, change, destroy, and their JSON.

use std::collections::BTreeMap;

use atlas_core::Timestamp;
use http::{HeaderValue, Response};
use serde_json::{Value, json};

use super::answer::{Failure, answer, done, ok};
use super::lease::Lease;
use super::route::parts;
use super::stock::{self, Guest};
use super::{Call, Fly, NAME, NoRoom, config};
use crate::dialect::SimBody;
use crate::world::{FaultKind, Machine, MachineSpec, MachineState, Refusal};

/// Fly's own data about a machine, besides the world's.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// How many times its configuration was changed.
    pub(super) changes: u32,
    /// Earlier configurations, by their version.
    pub(super) versions: Vec<(String, Value)>,
    pub(super) updated_at: Option<Timestamp>,
    pub(super) cordoned: bool,
    pub(super) lease: Option<Lease>,
    /// How many times it was moved to another host.
    pub(super) moves: u32,
    /// It was created without being launched, and has not been started since.
    pub(super) held_back: bool,
    /// It was started after a stop.
    pub(super) relaunched: bool,
    pub(super) suspended: bool,
    /// Stopping or suspending until this instant.
    pub(super) leaving: Option<(&'static str, Timestamp)>,
    pub(super) memory_limit: Option<u64>,
}

/// A ULID of this instant: ten characters of time, sixteen of the seed.
pub(super) fn ulid(at: Timestamp, seed: &str) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digit = |bits: u64| char::from(DIGITS[usize::try_from(bits & 31).unwrap_or(0)]);
    let millis = u64::try_from(at.unix_millis()).unwrap_or(0);
    let time = (0..10).rev().map(|i| digit(millis >> (5 * i)));
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut tail = String::new();
    for round in 0..16_u8 {
        for byte in seed.bytes().chain([round]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        tail.push(digit(hash >> 20));
    }
    time.chain(tail.chars()).collect()
}

impl Fly {
    /// Reads or changes Fly's own data about a machine.
    pub(super) fn record<T>(&self, id: &str, with: impl FnOnce(&mut Record) -> T) -> T {
        with(self.shared().records.entry(id.to_owned()).or_default())
    }

    pub(super) fn is_cordoned(&self, id: &str) -> bool {
        self.record(id, |record| record.cordoned)
    }

    pub(super) fn create(&self, call: &Call<'_>, app: &str) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let read = config::read(&body["config"])?;
        let name = match &body["name"] {
            Value::Null => format!("sim-{}", self.world.word(8)),
            Value::String(name) if !name.is_empty() && name.len() <= 128 => name.clone(),
            _ => return Err(Failure::invalid("invalid machine name")),
        };
        let existing = self.world.all(NAME).into_iter().find(|machine| {
            machine.is_live()
                && parts(&machine.id).1 == app
                && machine.spec.name == name
                && machine.account == call.account.as_str()
        });
        if let Some(existing) = existing {
            let id = parts(&existing.id).0;
            return Err(Failure::new(
                409,
                format!(
                    "already_exists: unique machine name violation, machine ID {id} already exists \
                        with name \"{name}\""
                ),
            ));
        }
        let asked = body["region"].as_str();
        let mut regions = stock::regions(asked).ok_or_else(|| {
            Failure::invalid(format!("region {} not found", asked.unwrap_or_default()))
        })?;
        let volume = match &read.mount {
            Some(volume) => Some(self.mountable(call, app, volume)?),
            None => None,
        };
        if let Some((_, region)) = &volume {
            if !regions.contains(region) {
                return Err(Failure::invalid("volume not found in region"));
            }
            regions = vec![region.clone()];
        }
        let free = self.world.stock(NAME, &read.guest.preset(), "");
        let place = regions
            .iter()
            .find(|region| free.get(*region).is_some_and(|units| *units > 0))
            .cloned();
        let place = place.unwrap_or_else(|| regions.first().cloned().unwrap_or_default());
        let mut spec = MachineSpec::cpu(read.guest.preset(), 1).named(name);
        spec.tier = Some(String::new());
        spec.bid = Some(read.guest.price(&place));
        spec.regions = vec![place];
        spec.volume_gb = 1;
        spec.network_volume = volume.as_ref().map(|(id, _)| id.clone());
        spec.id_suffix = Some(format!(".{app}"));
        config::apply(&read.kept, &mut spec);
        spec.env.extend(self.secrets_for(app, &body)?);
        spec.extra = json!({ "config": read.kept });
        let made = self
            .world
            .create_machine(NAME, &call.account, spec, &call.arrival);
        let machine =
            made.map_err(|refusal| self.no_room(refusal, volume.is_some(), read.mount.as_deref()))?;
        if body["skip_launch"] == true {
            let _ = self.world.stop(NAME, &call.account, &machine.id);
            self.record(&machine.id, |record| record.held_back = true);
        }
        let mut shown = self.shown_machine(&machine, false);
        if let Some(seconds) = body["lease_ttl"].as_u64().filter(|seconds| *seconds > 0) {
            shown["nonce"] = Value::from(self.grant(&machine.id, seconds, ""));
        }
        Ok(ok(&shown))
    }

    /// The answer for no capacity, in the form this Fly uses.
    fn no_room(&self, refusal: Refusal, mounts: bool, volume: Option<&str>) -> Failure {
        let words = self.shared().quirks.no_room;
        match (refusal, words) {
            (Refusal::NoCapacity, NoRoom::Host) => Failure::new(
                409,
                "aborted: insufficient memory available to fulfill request",
            ),
            (Refusal::NoCapacity, NoRoom::Unavailable) => {
                Failure::new(503, "could not find a candidate host")
                    .with_status("insufficient_capacity")
            }
            (Refusal::NoCapacity, NoRoom::Volume) => Self::full_host(volume),
            (Refusal::NoCapacity, _) if mounts => Self::full_host(volume),
            (refusal, _) => refusal.into(),
        }
    }

    fn full_host(volume: Option<&str>) -> Failure {
        let volume = volume.unwrap_or("vol_unknown");
        let text = format!(
            "insufficient resources to create new machine with existing volume id '{volume}'"
        );
        Failure::new(412, text).with_status("volume_placement_capacity")
    }

    pub(super) fn get(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let machine = self.seen(call, id)?;
        Ok(ok(&self.shown_machine(
            &machine,
            call.query.get("include_leases") == Some("true"),
        )))
    }

    /// A bare array; if there is more, a header contains the cursor.
    pub(super) fn list_machines(
        &self,
        call: &Call<'_>,
        app: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let leases = call.query.get("include_leases") == Some("true");
        let machines = self.filtered(call, |machine| parts(&machine.id).1 == app)?;
        let keys: Vec<String> = machines.keys().cloned().collect();
        let (rows, next) = self.page(call, &keys)?;
        let rows: Vec<Value> = rows
            .iter()
            .map(|id| self.shown_machine(&machines[id], leases))
            .collect();
        let mut answer = ok(&Value::from(rows));
        if let Some(next) = next {
            answer.headers_mut().insert(
                "fly-next-cursor",
                HeaderValue::try_from(next).expect("letters and digits"),
            );
        }
        Ok(answer)
    }

    /// What a walk sees, by id, after the filters that both walks have.
    pub(super) fn filtered(
        &self,
        call: &Call<'_>,
        also: impl Fn(&Machine) -> bool,
    ) -> Result<BTreeMap<String, Machine>, Failure> {
        const STATES: [&str; 15] = [
            "created",
            "creating",
            "starting",
            "started",
            "stopping",
            "stopped",
            "suspending",
            "suspended",
            "failed",
            "destroying",
            "destroyed",
            "replacing",
            "updating",
            "restarting",
            "migrated",
        ];
        let states = call.query.list("state");
        if let Some(wrong) = states
            .iter()
            .flatten()
            .find(|state| !STATES.contains(state))
        {
            return Err(Failure::invalid(format!(
                "invalid_argument: unknown state {wrong}"
            )));
        }
        let regions = call.query.list("region");
        let deleted = call.query.get("include_deleted") == Some("true");
        let mut machines = self.world.machines(NAME, &call.account, &call.arrival);
        if deleted && !call.arrival.has(FaultKind::EmptyList) {
            let dead = self.world.all(NAME).into_iter();
            machines.extend(
                dead.filter(|machine| {
                    !machine.is_live() && machine.account == call.account.as_str()
                }),
            );
        }
        let wanted = |machine: &Machine| {
            states
                .as_ref()
                .is_none_or(|states| states.contains(&self.state(machine)))
                && regions
                    .as_ref()
                    .is_none_or(|regions| regions.contains(&machine.region.as_str()))
                && call.query.metadata().all(|(key, value)| {
                    machine.spec.tags.get(key).map(String::as_str) == Some(value)
                })
        };
        let kept = machines
            .into_iter()
            .filter(|machine| also(machine) && wanted(machine));
        Ok(kept.map(|machine| (machine.id.clone(), machine)).collect())
    }

    /// Replaces the whole configuration, and restarts the machine with it.
    pub(super) fn update(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let machine = self.seen(call, id)?;
        let version = self.version(&machine);
        if body["current_version"]
            .as_str()
            .is_some_and(|current| current != version)
        {
            return Err(Failure::new(
                409,
                format!("aborted: machine version does not match current version {version}"),
            ));
        }
        let fixed = |field: &str, is: &str| {
            body[field]
                .as_str()
                .is_some_and(|asked| !asked.is_empty() && asked != is)
        };
        if fixed("region", &machine.region) || fixed("name", &machine.spec.name) {
            return Err(Failure::invalid(
                "invalid_argument: region and name cannot be changed",
            ));
        }
        if machine.is_being_destroyed() || !machine.is_live() {
            return Err(Failure::precondition("machine is being destroyed"));
        }
        let read = config::read(&body["config"])?;
        let price = read.guest.price(&machine.region);
        let before = config::shown(&machine, false);
        let secrets = self.secrets_for(parts(id).1, &body)?;
        self.world.update(NAME, &call.account, id, |machine| {
            config::apply(&read.kept, &mut machine.spec);
            machine.spec.env.extend(secrets);
            machine.spec.extra["config"] = read.kept.clone();
            machine.price = price;
        })?;
        let now = self.world.now();
        self.record(id, |record| {
            record.changes += 1;
            record.versions.push((version, before));
            record.updated_at = Some(now);
        });
        if body["skip_launch"] != true && machine.state == MachineState::Running {
            let _ = self.world.restart(NAME, &call.account, id);
        }
        let machine = self.world.truth(NAME, id).ok_or_else(Failure::no_machine)?;
        Ok(ok(&self.shown_machine(&machine, false)))
    }

    pub(super) fn destroy(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let machine = self.seen(call, id)?;
        let forced = ["force", "kill"]
            .iter()
            .any(|name| call.query.get(name) == Some("true"));
        let at_rest = matches!(
            self.state(&machine),
            "stopped" | "suspended" | "failed" | "destroying" | "destroyed"
        );
        if !forced && !at_rest {
            return Err(Failure::precondition(
                "unable to destroy machine, not currently stopped, suspended, failed, or pending",
            ));
        }
        if machine.is_live() && !self.shared().quirks.destroys_nothing {
            match self.world.destroy(NAME, &call.account, id) {
                Ok(()) | Err(Refusal::NotFound) => {}
                Err(Refusal::Locked) => {
                    return Err(Failure::lease_held(parts(id).0, "ops@acme.example"));
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(done())
    }

    /// Fly's name of the machine's state.
    pub(super) fn state(&self, machine: &Machine) -> &'static str {
        if let Some(stuck) = self.shared().quirks.stuck.filter(|_| machine.is_live()) {
            return stuck;
        }
        let now = self.world.now();
        let (held_back, relaunched, suspended, leaving) = self.record(&machine.id, |record| {
            let leaving = record
                .leaving
                .filter(|(_, until)| *until > now)
                .map(|(word, _)| word);
            (
                record.held_back,
                record.relaunched,
                record.suspended,
                leaving,
            )
        });
        match machine.state {
            MachineState::Destroyed => "destroyed",
            _ if machine.is_being_destroyed() => "destroying",
            MachineState::Provisioning if relaunched => "starting",
            MachineState::Provisioning => "created",
            MachineState::Starting => "starting",
            MachineState::Running => leaving.unwrap_or("started"),
            MachineState::Stopped if held_back => "created",
            MachineState::Stopped if suspended => "suspended",
            MachineState::Stopped => "stopped",
            MachineState::Failed => "failed",
        }
    }

    /// The version of its configuration: new with every change.
    pub(super) fn version(&self, machine: &Machine) -> String {
        let (changes, updated) =
            self.record(&machine.id, |record| (record.changes, record.updated_at));
        ulid(
            self.shown(updated.unwrap_or(machine.created_at)),
            &format!("{}/{changes}", machine.id),
        )
    }

    /// The machine object.
    pub(super) fn shown_machine(&self, machine: &Machine, leases: bool) -> Value {
        let (id, _) = parts(&machine.id);
        let (unreachable, as_bool) = {
            let shared = self.shared();
            (
                shared.quirks.unreachable.contains(&machine.region),
                shared.quirks.autostop_as_bool,
            )
        };
        let (cordoned, moves, updated) = self.record(&machine.id, |record| {
            (record.cordoned, record.moves, record.updated_at)
        });
        let version = self.version(machine);
        let image = machine.spec.image.as_str();
        let (repository, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        let mut shown = json!({
            "id": id, "name": machine.spec.name, "state": self.state(machine),
                "region": machine.region,
            "instance_id": version, "version": version,
            "private_ip": format!("fdaa:2:9c1e:a7b:{:x}:{moves}:{}:2", machine.order(),
                id.get(..4).unwrap_or("0")),
            "created_at": self.shown(machine.created_at),
                "updated_at": self.shown(updated.unwrap_or(machine.created_at)),
            "host_status": "ok", "cordoned": cordoned,
            "image_ref": { "registry": "registry-1.docker.io", "repository": repository,
                "tag": tag, "digest": "sha256:4f0c" },
            "config": config::shown(machine, as_bool), "events": self.events(machine),
        });
        if unreachable {
            shown["host_status"] = Value::from("unreachable");
            let mut config = shown["config"].take();
            config.as_object_mut().map(|config| config.remove("env"));
            shown.as_object_mut().map(|shown| shown.remove("config"));
            shown["incomplete_config"] = config;
        }
        if leases && let Some(lease) = self.held_lease(&machine.id) {
            shown["lease"] = json!({
                "owner": lease.owner, "description": lease.description,
                    "expires_at": self.shown(lease.expires_at).unix_seconds(),
            });
        }
        shown
    }

    pub(super) fn memory(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let machine = self.seen(call, id)?;
        let whole = config::shown(&machine, false)["guest"]["memory_mb"]
            .as_u64()
            .unwrap_or(256);
        let limit = self
            .record(id, |record| record.memory_limit)
            .unwrap_or(whole);
        Ok(ok(&json!({ "limit_mb": limit, "available_mb": limit / 2 })))
    }

    pub(super) fn set_memory(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let limit = call.json()?["limit_mb"]
            .as_u64()
            .ok_or_else(|| Failure::invalid("limit_mb is required"))?;
        self.seen(call, id)?;
        self.record(id, |record| record.memory_limit = Some(limit));
        self.memory(call, id)
    }

    pub(super) fn versions(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let machine = self.seen(call, id)?;
        let now = (self.version(&machine), config::shown(&machine, false));
        let mut all = self.record(id, |record| record.versions.clone());
        all.push(now);
        let rows: Vec<Value> = all
            .iter()
            .rev()
            .map(|(version, config)| json!({ "version": version, "user_config": config }))
            .collect();
        Ok(answer(200, &Value::from(rows)))
    }
}

/// The guest of a placement question.
pub(super) fn asked_guest(compute: &Value) -> Guest {
    let number = |field: &str, otherwise: u32| {
        compute[field]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(otherwise)
    };
    let performance = compute["cpu_kind"].as_str() != Some("shared");
    let cpus = number("cpus", 1);
    Guest {
        performance,
        cpus,
        memory_mb: number(
            "memory_mb",
            if performance { 2048 * cpus } else { 256 * cpus },
        ),
    }
}
