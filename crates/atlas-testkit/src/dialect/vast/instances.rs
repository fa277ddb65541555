//! Instances: their JSON, and operations on them.

use std::time::Duration;

use atlas_core::{Protocol, Timestamp, Usd, UsdPerHour};
use http::Response;
use serde_json::{Map, Value, json};

use super::envelope::{Failure, ok};
use super::offers::dollars;
use super::stock::{self, NAME, STORAGE_NANOS};
use super::{Call, Note, Quirks, Vast};
use crate::dialect::SimBody;
use crate::world::{Machine, MachineState};

/// The message of a start whose GPU is in use by another renter.
const QUEUED: &str = "Required resources are currently unavailable, state change queued.";
/// How long a new instance has no status at all.
const NO_STATUS: Duration = Duration::from_secs(2);

impl Vast {
    /// One object under a plural name; `null` for an id that this account does not have.
    pub(super) fn get(&self, call: &Call<'_>, id: &str) -> Response<SimBody> {
        let machine = self.world.machine(NAME, &call.account, id, &call.arrival);
        ok(&json!({ "instances": machine.map(|machine| self.instance(&machine, false)) }))
    }

    /// A new state, or a new label.
    pub(super) fn put(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        if let Some(label) = body["label"].as_str() {
            if label.len() > 1024 {
                return Err(Failure::invalid("label is too long"));
            }
            self.world.update(NAME, &call.account, id, |machine| {
                label.clone_into(&mut machine.spec.name)
            })?;
            return Ok(ok(&json!({ "success": true })));
        }
        let machine = self.mine(call, id)?;
        match body["state"].as_str() {
            Some("stopped") => {
                if matches!(
                    machine.state,
                    MachineState::Provisioning | MachineState::Starting | MachineState::Running
                ) {
                    self.world.stop(NAME, &call.account, id)?;
                }
                self.note(id, |note| {
                    *note = Note {
                        stopped: true,
                        ..Note::default()
                    }
                });
                self.world
                    .update(NAME, &call.account, id, |machine| machine.preempted = false)?;
                Ok(ok(&json!({ "success": true })))
            }
            Some("running") if machine.state != MachineState::Stopped => {
                Ok(ok(&json!({ "success": true })))
            }
            Some("running") => self.start(call, &machine),
            _ => Err(Failure::invalid(format!("state or label, got {body}"))),
        }
    }

    fn start(&self, call: &Call<'_>, machine: &Machine) -> Result<Response<SimBody>, Failure> {
        self.solvent(&call.account)?;
        let free = Self::ask_of(machine).is_none_or(|ask| self.rentable(ask));
        let started = if free {
            self.world
                .start(NAME, &call.account, &machine.id, &call.arrival)
                .is_ok()
        } else {
            false
        };
        if !started {
            self.note(&machine.id, |note| {
                *note = Note {
                    queued: true,
                    ..Note::default()
                }
            });
            return Ok(ok(&json!({ "success": true, "msg": QUEUED })));
        }
        self.started(call, &machine.id);
        Ok(ok(&json!({ "success": true })))
    }

    fn started(&self, call: &Call<'_>, id: &str) {
        let now = self.world.now();
        self.note(id, |note| {
            *note = Note {
                started: Some(now),
                ..Note::default()
            }
        });
        // It is there, for it was just started.
        let _ = self
            .world
            .update(NAME, &call.account, id, |machine| machine.preempted = false);
    }

    /// Starts machines that waited for a GPU that is now free, and machines that were outbid and
    /// whose bid wins again.
    pub(super) fn settle(&self) {
        let now = self.world.now();
        let (resumes_after, unreachable) = {
            let shared = self.shared();
            (shared.quirks.resumes_after, shared.quirks.unreachable)
        };
        if unreachable {
            for machine in self
                .world
                .all(NAME)
                .into_iter()
                .filter(|machine| machine.warm_at.is_some())
            {
                // It is there, for it runs.
                let _ = self.world.update(
                    NAME,
                    &self.world.account(&machine.account),
                    &machine.id,
                    |machine| machine.warm_at = None,
                );
            }
        }
        if let Some(wait) = resumes_after {
            let outbid = self
                .world
                .all(NAME)
                .into_iter()
                .filter(|machine| machine.preempted && machine.state == MachineState::Stopped);
            let outbid: Vec<String> = outbid.map(|machine| machine.id).collect();
            for id in outbid {
                self.note(&id, |note| {
                    let since = *note.outbid.get_or_insert(now);
                    note.queued = now.since(since) >= wait;
                });
            }
        }
        let waiting: Vec<String> = self
            .shared()
            .notes
            .iter()
            .filter(|(_, note)| note.queued)
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            let Some(machine) = self.world.truth(NAME, &id) else {
                continue;
            };
            let account = self.world.account(&machine.account);
            let free = Self::ask_of(&machine).is_none_or(|ask| self.rentable(ask));
            if free
                && self
                    .world
                    .start(NAME, &account, &id, &self.world.honest())
                    .is_ok()
            {
                self.note(&id, |note| {
                    *note = Note {
                        started: Some(now),
                        ..Note::default()
                    }
                });
                // It is there, for it was just started.
                let _ = self
                    .world
                    .update(NAME, &account, &id, |machine| machine.preempted = false);
            }
        }
    }

    pub(super) fn delete(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id)?;
        let done = ok(&json!({ "success": true, "msg": format!("Instance {id} destroyed.") }));
        if self.shared().quirks.destroys_nothing {
            return Ok(done);
        }
        self.world.destroy(NAME, &call.account, id)?;
        let now = self.world.now();
        let mut shared = self.shared();
        shared.notes.remove(id);
        shared
            .holdings
            .entry(call.account.clone())
            .or_default()
            .freed
            .insert(id.to_owned(), now);
        Ok(done)
    }

    /// Both keep the card; the ports are new.
    pub(super) fn reboot(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id)?;
        self.world.restart(NAME, &call.account, id)?;
        self.started(call, id);
        Ok(ok(&json!({ "success": true })))
    }

    /// A changed bid. One that wins again resumes what was outbid, at once.
    pub(super) fn bid(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let machine = self.mine(call, id)?;
        let price = body["price"]
            .as_f64()
            .filter(|price| (0.001..=32.0).contains(price));
        let price = price
            .and_then(Usd::from_f64)
            .ok_or_else(|| Failure::invalid(format!("price must be 0.001 to 32, got {body}")))?;
        if !machine.spec.spot {
            return Err(Failure::invalid("the instance is not interruptible"));
        }
        self.world
            .reprice(NAME, &call.account, id, UsdPerHour::new(price))?;
        let enough = Self::ask_of(&machine)
            .is_none_or(|ask| UsdPerHour::new(price) >= ask.min_bid && self.rentable(ask));
        if machine.preempted && machine.state == MachineState::Stopped && enough {
            self.world
                .start(NAME, &call.account, id, &self.world.honest())?;
            self.started(call, id);
        }
        Ok(ok(&json!({ "success": true })))
    }

    pub(super) fn prepay(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id)?;
        let amount = call.json()?["amount"]
            .as_f64()
            .filter(|amount| *amount > 0.0);
        amount.ok_or_else(|| Failure::invalid("amount"))?;
        Ok(ok(
            &json!({ "success": true, "timescale": 1.0, "discount_rate": 0.1 }),
        ))
    }

    pub(super) fn balance(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id)?;
        Ok(ok(
            &json!({ "success": true, "refundable_deposit": 0.0, "total_discount": 0.0,
                "discount_months": 0 }),
        ))
    }

    /// The instance, where this account has it.
    pub(super) fn mine(&self, call: &Call<'_>, id: &str) -> Result<Machine, Failure> {
        let machine = self
            .world
            .machine(NAME, &call.account, id, &self.world.honest());
        machine
            .filter(Machine::is_live)
            .ok_or_else(|| Failure::no_instance(id))
    }

    pub(super) fn ask_of(machine: &Machine) -> Option<&'static stock::Ask> {
        stock::find(machine.spec.shape.parse().ok()?)
    }

    /// The instance object, of a point read or of the list.
    pub(super) fn instance(&self, machine: &Machine, listed: bool) -> Value {
        let quirks = self.shared().quirks.clone();
        let (now, note) = (self.world.now(), self.noted(&machine.id));
        let clock = self.world.clock();
        let seconds = |at: Timestamp| {
            let millis = clock.on_the_wire(at).unix_millis();
            #[expect(
                clippy::cast_precision_loss,
                reason = "an instant of this century in milliseconds is below 2^53"
            )]
            let seconds = millis as f64 / 1e3;
            seconds
        };
        let state = state(machine, note, &quirks, now);
        let spec = &machine.spec;
        let ask = Self::ask_of(machine);
        let storage = f64::from(spec.volume_gb) * dollars(Usd::from_nanos(STORAGE_NANOS));
        let base = dollars(machine.price.per_hour());
        let running = machine.state == MachineState::Running;
        let price = |gpu: f64| {
            json!({ "gpuCostPerHour": gpu, "diskHour": storage, "totalHour": gpu + storage,
                "discountTotalHour": 0,
                "discountedTotalPerHour": gpu + storage })
        };
        let start = seconds(machine.created_at);
        let mut shown = json!({
            "id": machine.id.parse::<u64>().unwrap_or(0),
            "actual_status": state.actual, "intended_status": state.intended,
                "cur_state": state.current, "next_state": state.next,
            "status_msg": state.message,
            "label": (!spec.name.is_empty()).then_some(spec.name.as_str()),
            "template_id": null, "template_hash_id": null, "template_name": null,
            "image_uuid": spec.image,
                "image_args": spec.extra["args"].as_array().cloned().unwrap_or_default(),
            "image_runtype": spec.extra["runtype"].as_str().unwrap_or("args"),
            "extra_env": extra_env(machine),
                "onstart": spec.extra["onstart"].as_str().unwrap_or_default(),
            "jupyter_token": format!("zz-jupyter-{}", machine.id),
            "ssh_host": "ssh4.vast.example", "ssh_port": 17_732, "ssh_idx": "4",
                "machine_dir_ssh_port": 5300,
            "local_ipaddrs": "10.2.202.31 172.17.0.1 \n",
        });
        let more = [
            hardware(machine, ask),
            json!({
                "dph_base": base, "dph_total": base + storage, "min_bid": ask.map_or(0.0,
                    |ask| dollars(ask.min_bid.per_hour())), "is_bid": spec.spot,
                "search": price(base), "instance": price(if running { base } else { 0.0 }),
                "storage_cost": 0.2, "storage_total_cost": storage,
                "machine_id": ask.map_or(0, |ask| ask.machine), "host_id": ask.map_or(0,
                    |ask| ask.host),
                "geolocation": ask.map_or("", |ask| ask.place.1),
                    "verification": if ask.is_none_or(|ask| ask.verified) { "verified" } else {
                        "unverified" },
                "reliability2": ask.map_or(0.9, |ask| ask.reliability),
                "start_date": start, "end_date": start + 5_184_000.0,
                    "duration": (seconds(now) - start).max(0.0), "uptime_mins": null,
                "disk_space": spec.volume_gb, "disk_usage": -1, "disk_util": -1, "mem_limit": null,
                    "mem_usage": null, "vmem_usage": null,
                "cpu_util": 0.0, "cpu_arch": if ask.is_some_and(|ask| ask.arm64) { "arm64" } else {
                    "amd64" }, "cpu_name": "AMD EPYC", "cpu_ram": 257_654,
                "direct_port_count": ask.map_or(0, |ask| ask.ports), "direct_port_start": -1,
                    "direct_port_end": -1, "static_ip": true,
                "rentable": false, "external": false, "credit_balance": null,
                    "credit_discount": null, "time_remaining": "", "time_remaining_isbid": "",
            }),
        ];
        if let Some(shown) = shown.as_object_mut() {
            shown.extend(
                more.into_iter()
                    .filter_map(|part| part.as_object().cloned())
                    .flatten(),
            );
        }
        // The reported text may be surrounded by white space.
        if machine.state != MachineState::Provisioning {
            shown["public_ipaddr"] = Value::from(format!(" {}\n", machine.ip));
        }
        if state.actual.as_deref() == Some("running") && machine.ports_announced(now) {
            shown["ports"] = ports(machine);
        }
        if listed {
            shown["volume_info"] = spec.extra["volume"]
                .as_u64()
                .map(|id| json!({ "id": id, "label": format!("V.{id}") }))
                .into_iter()
                .collect();
        } else {
            shown["hosting_type"] = Value::from(u32::from(ask.is_some_and(|ask| ask.datacenter)));
            shown["bundle_id"] = Value::from(617);
        }
        shown
    }
}

/// The machine it is on.
fn hardware(machine: &Machine, ask: Option<&stock::Ask>) -> Value {
    let spec = &machine.spec;
    json!({
            "gpu_name": spec.extra["gpu_name"].as_str().or(ask.map(|ask| ask.gpu_name)),
            "num_gpus": ask.map_or(1, |ask| ask.num_gpus), "gpu_ram": ask.map_or(0,
                |ask| ask.gpu_ram),
            "gpu_totalram": ask.map_or(0, |ask| ask.gpu_ram * ask.num_gpus), "gpu_util": null,
                "gpu_temp": null, "gpu_arch": "nvidia",
            "gpu_frac": ask.map_or(1.0, |ask| f64::from(ask.num_gpus) / f64::from(ask.of)),
    })
}

/// Docker's map: each port twice, by family, its outside number a string.
fn ports(machine: &Machine) -> Value {
    let mut map = Map::new();
    for port in machine
        .spec
        .ports
        .iter()
        .filter(|port| port.protocol() == Protocol::Tcp)
    {
        let rows = machine.external.get(&port.number()).map(|outside| {
            ["0.0.0.0", "::"]
                .map(|family| json!({ "HostIp": family, "HostPort": outside.to_string() }))
        });
        map.insert(
            format!("{}/tcp", port.number()),
            rows.map_or(Value::Null, |rows| rows.into_iter().collect()),
        );
    }
    // Exposed by the image, but neither requested nor published.
    map.insert("9999/tcp".to_owned(), Value::Null);
    Value::Object(map)
}

/// Pairs, with every secret in clear.
fn extra_env(machine: &Machine) -> Value {
    let env = machine
        .spec
        .env
        .iter()
        .map(|(name, value)| json!([name, value.expose()]));
    let flags = machine.spec.extra["flags"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| json!([name, value]));
    env.chain(flags).collect()
}

/// The five fields that describe a state.
struct State {
    actual: Option<String>,
    intended: &'static str,
    current: &'static str,
    next: &'static str,
    message: Option<String>,
}

fn state(machine: &Machine, note: Note, quirks: &Quirks, now: Timestamp) -> State {
    let say = |actual: &str,
               [intended, current, next]: [&'static str; 3],
               message: Option<String>| State {
        actual: Some(actual.to_owned()),
        intended,
        current,
        next,
        message,
    };
    const RUNS: [&str; 3] = ["running", "running", "running"];
    const STOPS: [&str; 3] = ["stopped", "stopped", "stopped"];
    let waiting = matches!(
        machine.state,
        MachineState::Provisioning | MachineState::Starting
    );
    let lately = note.started.is_some_and(|started| {
        started > machine.created_at && now.since(started) < quirks.exited_after_start
    });
    if let (true, Some((actual, message))) = (waiting, &quirks.boot) {
        return say(actual, RUNS, Some(message.clone()));
    }
    match machine.state {
        _ if note.queued => say(
            "scheduling",
            ["running", "stopped", "running"],
            Some(QUEUED.to_owned()),
        ),
        _ if lately => say("exited", RUNS, None),
        MachineState::Provisioning if now.since(machine.created_at) < NO_STATUS => State {
            actual: None,
            intended: "running",
            current: "running",
            next: "running",
            message: None,
        },
        MachineState::Provisioning => say(
            "created",
            RUNS,
            Some("Successfully created container.\n".to_owned()),
        ),
        MachineState::Starting => say(
            "loading",
            RUNS,
            Some(
                "error pulling image layer 1a2b: Retrying in 3 seconds\n5d6e: Downloading [=>  ]\n"
                    .to_owned(),
            ),
        ),
        MachineState::Running => say(
            "running",
            RUNS,
            Some(format!(
                "success, running {}/args\n",
                machine.spec.image.replace(':', "_")
            )),
        ),
        MachineState::Stopped if machine.exit_code.is_some() && !note.stopped => {
            say("exited", RUNS, None)
        }
        MachineState::Stopped if machine.preempted => say("stopped", STOPS, None),
        MachineState::Stopped => say("exited", STOPS, None),
        MachineState::Failed | MachineState::Destroyed => say("offline", RUNS, None),
    }
}
