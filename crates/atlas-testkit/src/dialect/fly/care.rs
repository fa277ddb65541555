//! Operations on existing machines: start, stop, signals, events, metadata.

use std::collections::BTreeMap;

use atlas_core::Timestamp;
use http::Response;
use serde_json::{Map, Value, json};

use super::answer::{Failure, done, empty, ok};
use super::machines::ulid;
use super::{Call, Fly, NAME, config};
use crate::dialect::SimBody;
use crate::world::{Machine, MachineState, Program, Refusal};

const SIGNALS: [&str; 14] = [
    "SIGABRT", "SIGALRM", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGKILL", "SIGPIPE", "SIGQUIT",
    "SIGSEGV", "SIGTERM", "SIGTRAP", "SIGUSR1", "SIGUSR2",
];
/// The maximum memory of a machine that can be suspended.
const MOST_SUSPENDED_MB: u64 = 2048;

impl Fly {
    pub(super) fn start(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let machine = self.seen(call, id)?;
        let before = self.state(&machine);
        match before {
            "started" | "starting" => {}
            "stopped" | "suspended" | "failed" => self.started(call, id)?,
            "created" if machine.state == MachineState::Stopped => self.started(call, id)?,
            state => {
                return Err(Failure::precondition(format!(
                    "unable to start machine from current state: '{state}'"
                )));
            }
        }
        Ok(ok(
            &json!({ "previous_state": before, "migrated": false, "new_host": "" }),
        ))
    }

    fn started(&self, call: &Call<'_>, id: &str) -> Result<(), Failure> {
        self.world
            .start(NAME, &call.account, id, &call.arrival)
            .map_err(|refusal| match refusal {
                Refusal::NoCapacity => Failure::new(
                    409,
                    "aborted: insufficient memory available to fulfill request",
                ),
                other => other.into(),
            })?;
        self.record(id, |record| {
            (record.held_back, record.suspended, record.relaunched) = (false, false, true)
        });
        Ok(())
    }

    /// Stops or suspends. A machine that is already stopped or stopping does not change.
    pub(super) fn stop(
        &self,
        call: &Call<'_>,
        id: &str,
        suspend: bool,
    ) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        if body["signal"]
            .as_str()
            .is_some_and(|signal| !SIGNALS.contains(&signal))
        {
            return Err(Failure::invalid("invalid signal"));
        }
        let machine = self.seen(call, id)?;
        let memory = config::shown(&machine, false)["guest"]["memory_mb"]
            .as_u64()
            .unwrap_or(256);
        if suspend && memory > MOST_SUSPENDED_MB {
            return Err(Failure::precondition(
                "unable to suspend machine, it has more than 2048 MB of memory",
            ));
        }
        match self.state(&machine) {
            "started" | "starting" | "created" if machine.state != MachineState::Stopped => {
                if machine.locked {
                    return Err(Refusal::Locked.into());
                }
                let at = self
                    .world
                    .now()
                    .saturating_add(self.shared().quirks.stopping);
                let word = if suspend { "suspending" } else { "stopping" };
                self.record(id, |record| {
                    record.leaving = Some((word, at));
                    record.suspended = suspend;
                });
                self.world.stop_at(NAME, id, at);
            }
            "destroying" | "destroyed" => {
                return Err(Failure::precondition("machine is being destroyed"));
            }
            _ => {}
        }
        Ok(done())
    }

    pub(super) fn restart(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let machine = self.seen(call, id)?;
        match machine.state {
            MachineState::Running => drop(self.world.restart(NAME, &call.account, id)?),
            MachineState::Stopped | MachineState::Failed => self.started(call, id)?,
            _ => {
                return Err(Failure::precondition(format!(
                    "unable to restart machine from current state: '{}'",
                    self.state(&machine)
                )));
            }
        }
        Ok(done())
    }

    /// A signal that ends a program stops the machine; others pass.
    pub(super) fn signal(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let signal = body["signal"]
            .as_str()
            .filter(|signal| SIGNALS.contains(signal))
            .ok_or_else(|| Failure::invalid("invalid signal"))?;
        let machine = self.seen(call, id)?;
        if machine.state != MachineState::Running {
            return Err(Failure::precondition("machine is not running"));
        }
        if matches!(signal, "SIGKILL" | "SIGTERM" | "SIGINT" | "SIGQUIT") {
            self.world.stop(NAME, &call.account, id)?;
        }
        Ok(done())
    }

    pub(super) fn cordon(
        &self,
        call: &Call<'_>,
        id: &str,
        cordoned: bool,
    ) -> Result<Response<SimBody>, Failure> {
        self.seen(call, id)?;
        self.record(id, |record| record.cordoned = cordoned);
        Ok(done())
    }

    /// Runs a command of the world's small table.
    pub(super) fn exec(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let words: Vec<String> = match (&body["command"], &body["cmd"]) {
            (Value::Array(words), _) => words
                .iter()
                .filter_map(|word| word.as_str().map(str::to_owned))
                .collect(),
            (_, Value::String(line)) => crate::world::split(line),
            _ => Vec::new(),
        };
        if words.is_empty() {
            return Err(Failure::invalid("command is required"));
        }
        let machine = self.seen(call, id)?;
        if machine.state != MachineState::Running {
            return Err(Failure::precondition("machine is not running"));
        }
        let program = Program::of(&words);
        let stdout: String = program
            .lines
            .iter()
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        let (code, stderr) = match program.end {
            Some((_, code)) => (code, ""),
            None => (127, "command not found\n"),
        };
        Ok(ok(
            &json!({ "exit_code": code, "exit_signal": 0, "stdout": stdout, "stderr": stderr }),
        ))
    }

    pub(super) fn ps(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let machine = self.seen(call, id)?;
        let sockets: Vec<Value> = machine
            .spec
            .ports
            .iter()
            .map(|port| json!({ "proto": "tcp", "address": format!("[::]:{}", port.number()) }))
            .collect();
        let running = machine.state == MachineState::Running;
        let row = json!({
            "pid": 312, "command": machine.spec.command.join(" "), "directory": "/", "cpu": 2,
                "rss": 73_400_320, "rtime": 41,
            "stime": 7, "listen_sockets": sockets,
        });
        Ok(ok(&Value::from(if running {
            vec![row]
        } else {
            Vec::new()
        })))
    }

    pub(super) fn list_events(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let most = usize::try_from(call.number("limit")?.unwrap_or(20).clamp(1, 50)).unwrap_or(20);
        let mut events = self.events(&self.seen(call, id)?);
        events.truncate(most);
        Ok(ok(&Value::from(events)))
    }

    /// What happened to a machine, newest first, in milliseconds.
    pub(super) fn events(&self, machine: &Machine) -> Vec<Value> {
        let event = |at: Timestamp, kind: &str, status: &str, source: &str| {
            json!({
                "id": ulid(self.shown(at), &format!("{}{kind}{status}", machine.id)), "type": kind,
                    "status": status, "source": source,
                "timestamp": self.shown(at).unix_millis(), "request": null,
            })
        };
        let now = self.world.now();
        let mut events = vec![event(machine.created_at, "launch", "created", "user")];
        for (at, state) in machine.history().iter().filter(|(at, _)| *at <= now) {
            match state {
                MachineState::Provisioning => {}
                MachineState::Starting => events.push(event(*at, "start", "starting", "flyd")),
                MachineState::Running => events.push(event(*at, "start", "started", "flyd")),
                MachineState::Stopped => {
                    let mut exit = event(*at, "exit", "stopped", "flyd");
                    exit["request"] = self.exit(machine, *at);
                    events.push(exit);
                }
                MachineState::Failed => events.push(event(*at, "launch", "failed", "flyd")),
                MachineState::Destroyed => events.push(event(*at, "destroy", "destroyed", "flyd")),
            }
        }
        events.reverse();
        events
    }

    /// Both shapes of an exit are seen: about every other machine has the newer one.
    fn exit(&self, machine: &Machine, at: Timestamp) -> Value {
        let code = machine.exit_code.unwrap_or(0);
        let exit = json!({
            "exit_code": code, "guest_exit_code": code, "guest_signal": -1, "signal": -1,
            "oom_killed": code == 137, "requested_stop": machine.exit_code.is_none(),
                "restarting": false,
            "exited_at": self.shown(at), "error": "",
        });
        if machine
            .id
            .bytes()
            .map(u32::from)
            .sum::<u32>()
            .is_multiple_of(2)
        {
            json!({ "restart_count": machine.restarts(), "exit_event": exit })
        } else {
            json!({ "restart_count": machine.restarts(), "MonitorEvent": { "exit_event": exit } })
        }
    }

    pub(super) fn metadata(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        Ok(ok(&json!(self.seen(call, id)?.spec.tags)))
    }

    pub(super) fn metadata_key(
        &self,
        call: &Call<'_>,
        id: &str,
        key: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let machine = self.seen(call, id)?;
        let value = machine
            .spec
            .tags
            .get(key)
            .ok_or_else(|| Failure::new(404, "metadata key not found"))?;
        Ok(ok(&json!({ "value": value })))
    }

    pub(super) fn set_metadata_key(
        &self,
        call: &Call<'_>,
        id: &str,
        key: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let value = call.json()?["value"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::invalid("value is required"))?;
        self.tag(call, id, |tags| drop(tags.insert(key.to_owned(), value)))
    }

    pub(super) fn drop_metadata_key(
        &self,
        call: &Call<'_>,
        id: &str,
        key: &str,
    ) -> Result<Response<SimBody>, Failure> {
        self.tag(call, id, |tags| drop(tags.remove(key)))
    }

    /// Sets entries with a value, and removes those without.
    pub(super) fn patch_metadata(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let changes: Map<String, Value> = body["metadata"]
            .as_object()
            .cloned()
            .ok_or_else(|| Failure::invalid("metadata is required"))?;
        if changes
            .values()
            .any(|value| !value.is_string() && !value.is_null())
        {
            return Err(Failure::invalid("metadata values must be strings"));
        }
        let machine = self.seen(call, id)?;
        if body["machine_version"]
            .as_str()
            .is_some_and(|version| version != self.version(&machine))
        {
            return Err(Failure::precondition("machine version does not match"));
        }
        self.tag(call, id, |tags| {
            for (key, value) in changes {
                match value.as_str().filter(|text| !text.is_empty()) {
                    Some(text) => tags.insert(key, text.to_owned()),
                    None => tags.remove(&key),
                };
            }
        })
    }

    /// Makes no new version and restarts nothing.
    fn tag(
        &self,
        call: &Call<'_>,
        id: &str,
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Result<Response<SimBody>, Failure> {
        self.world.update(NAME, &call.account, id, |machine| {
            change(&mut machine.spec.tags)
        })?;
        Ok(empty(204))
    }
}
