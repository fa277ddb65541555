//! Resources of an account besides instances: SSH keys, file systems, firewall rules and rule sets,
//! and Lambda's public data.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::Timestamp;
use http::Response;
use serde_json::{Value, json};

use super::envelope::{Failure, data, json_answer};
use super::instances::{reached, region};
use super::stock::{NAME, REGIONS};
use super::{Call, Lambda};
use crate::dialect::SimBody;
use crate::world::{Machine, Refusal, World};

/// Firewall rules do not apply there.
const WITHOUT_FIREWALL: &str = "us-south-1";
const CREATED: &str = "2026-10-01T00:00:00Z";
const FAMILIES: &[(&str, &str)] = &[
    ("lambda-stack-24-04", "x86_64"),
    ("lambda-stack-22-04", "x86_64"),
    ("gpu-base-24-04", "x86_64"),
    ("lambda-stack-24-04", "arm64"),
];

/// What one account has.
#[derive(Debug)]
pub(super) struct Holdings {
    keys: BTreeMap<String, Value>,
    file_systems: BTreeMap<String, Value>,
    rules: Value,
    rulesets: BTreeMap<String, Value>,
}

impl Default for Holdings {
    /// One key, as in an account that was set up; SSH and ICMP are open.
    fn default() -> Self {
        let key = json!({ "id": "0".repeat(32), "name": "atlas-fleet",
            "public_key": "ssh-ed25519 AAAA fleet" });
        let rules = json!([
            { "protocol": "tcp", "port_range": [22, 22], "source_network": "0.0.0.0/0",
                "description": "ssh" },
            { "protocol": "icmp", "source_network": "0.0.0.0/0", "description": "ping" },
        ]);
        Self {
            keys: BTreeMap::from([("0".repeat(32), key)]),
            file_systems: BTreeMap::new(),
            rules,
            rulesets: BTreeMap::new(),
        }
    }
}

fn values(map: &BTreeMap<String, Value>) -> Value {
    map.values().cloned().collect()
}

fn live(world: &World, call: &Call<'_>) -> Vec<Machine> {
    world
        .all(NAME)
        .into_iter()
        .filter(|machine| machine.is_live() && machine.account == call.account.as_str())
        .collect()
}

/// Includes instances that ended recently.
fn live_or_lately(world: &World, call: &Call<'_>, lately: Duration) -> Vec<Machine> {
    let now = world.now();
    let there = |machine: &Machine| {
        machine.is_live()
            || machine
                .destroyed_at
                .is_some_and(|at| now.since(at) < lately)
    };
    world
        .all(NAME)
        .into_iter()
        .filter(|machine| there(machine) && machine.account == call.account.as_str())
        .collect()
}

fn name_of(body: &Value, longest: usize) -> Result<String, Failure> {
    let name = body["name"]
        .as_str()
        .filter(|name| (1..=longest).contains(&name.len()));
    name.map(str::to_owned)
        .ok_or_else(|| Failure::invalid(format!("name: 1 to {longest} characters")))
}

fn region_of(body: &Value) -> Result<String, Failure> {
    let known = body["region"]
        .as_str()
        .filter(|name| REGIONS.iter().any(|(id, _)| id == name));
    known
        .map(str::to_owned)
        .ok_or_else(|| Failure::unknown("region"))
}

fn checked_rules(rules: &Value) -> Result<Vec<Value>, Failure> {
    let rules = rules
        .as_array()
        .ok_or_else(|| Failure::invalid("rules: an array"))?;
    for rule in rules {
        let protocol = rule["protocol"].as_str().unwrap_or_default();
        let ranged = rule["port_range"]
            .as_array()
            .is_some_and(|range| range.len() == 2);
        let fits = match protocol {
            "icmp" => rule.get("port_range").is_none(),
            "tcp" | "udp" | "all" => ranged,
            _ => false,
        };
        if !fits || !rule["source_network"].is_string() || !rule["description"].is_string() {
            return Err(Failure::invalid(format!("rules: {rule}")));
        }
    }
    Ok(rules.clone())
}

impl Lambda {
    fn holdings<T>(&self, call: &Call<'_>, with: impl FnOnce(&mut Holdings) -> T) -> T {
        with(
            self.shared()
                .holdings
                .entry(call.account.clone())
                .or_default(),
        )
    }

    pub(super) fn has_key(&self, call: &Call<'_>, name: &str) -> bool {
        self.holdings(call, |held| {
            held.keys.values().any(|key| key["name"] == name)
        })
    }

    pub(super) fn keys(&self, call: &Call<'_>) -> Response<SimBody> {
        data(&self.holdings(call, |held| values(&held.keys)))
    }

    pub(super) fn add_key(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let name = name_of(&body, 64)?;
        let id = self.next_id();
        let public = body["public_key"].as_str();
        let key = json!({ "id": id, "name": name,
            "public_key": public.unwrap_or("ssh-ed25519 AAAA made") });
        self.holdings(call, |held| held.keys.insert(id, key.clone()));
        let mut shown = key;
        if public.is_none() {
            shown["private_key"] = Value::from(
                "-----BEGIN OPENSSH PRIVATE KEY-----\nzz-private\n-----END OPENSSH PRIVATE \
                    KEY-----\n",
            );
        }
        Ok(data(&shown))
    }

    pub(super) fn delete_key(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        // The documentation has this code here, not the one of other missing objects.
        let missing = || Failure::new(404, "global/not-found", "Specified SSH key does not exist.");
        self.holdings(call, |held| held.keys.remove(id))
            .map(|_| data(&json!({})))
            .ok_or_else(missing)
    }

    pub(super) fn file_systems(&self, call: &Call<'_>) -> Response<SimBody> {
        let used = live(&self.world, call);
        let shown: Vec<Value> = self.holdings(call, |held| {
            let rows = held.file_systems.values().map(|row| {
                let mut row = row.clone();
                row["is_in_use"] = Value::from(used.iter().any(|machine| mounts(machine, &row)));
                row
            });
            rows.collect()
        });
        data(&Value::from(shown))
    }

    pub(super) fn add_file_system(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let (name, place) = (name_of(&body, 60)?, region_of(&body)?);
        let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !plain {
            return Err(Failure::invalid(format!("name: {name}")));
        }
        let id = self.next_id();
        let row = json!({
            "id": id, "name": name, "mount_point": format!("/lambda/nfs/{name}"),
                "created": CREATED,
            "created_by": { "id": "f".repeat(32), "email": "ops@example.com", "status": "active" },
            "is_in_use": false, "region": region(&place), "bytes_used": 0,
        });
        self.holdings(call, |held| {
            if held
                .file_systems
                .values()
                .any(|other| other["name"] == row["name"])
            {
                return Err(Failure::new(
                    400,
                    "global/duplicate",
                    "A file system of this name exists already.",
                ));
            }
            held.file_systems.insert(id, row.clone());
            Ok(data(&row))
        })
    }

    pub(super) fn delete_file_system(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let used = live(&self.world, call);
        self.holdings(call, |held| {
            let row = held
                .file_systems
                .get(id)
                .ok_or_else(|| Failure::missing("file system"))?;
            if used.iter().any(|machine| mounts(machine, row)) {
                return Err(Failure::new(
                    400,
                    "filesystems/filesystem-in-use",
                    "The file system is in use.",
                ));
            }
            held.file_systems.remove(id);
            Ok(data(&json!({ "deleted_ids": [id] })))
        })
    }

    /// Checks that a launch's file systems exist and are in its region.
    pub(super) fn attach_file_systems(
        &self,
        call: &Call<'_>,
        place: &str,
        names: &Value,
    ) -> Result<(), Failure> {
        self.holdings(call, |held| {
            for name in names.as_array().into_iter().flatten() {
                let row = held
                    .file_systems
                    .values()
                    .find(|row| row["name"] == *name)
                    .ok_or_else(|| Failure::unknown("file system"))?;
                if row["region"]["name"] != place {
                    return Err(Failure::new(
                        400,
                        "instance-operations/launch/file-system-in-wrong-region",
                        "Wrong region.",
                    ));
                }
            }
            Ok(())
        })
    }

    /// The same by id, each at a valid mount path.
    pub(super) fn mount_file_systems(
        &self,
        call: &Call<'_>,
        place: &str,
        mounts: &Value,
    ) -> Result<(), Failure> {
        for mount in mounts.as_array().into_iter().flatten() {
            let point = mount["mount_point"].as_str().unwrap_or_default();
            let there = ["/home", "/lambda/nfs", "/data"]
                .iter()
                .any(|root| point.starts_with(root));
            let plain = point
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-'));
            if !there || !plain || point.len() > 256 {
                return Err(Failure::invalid(format!("file_system_mounts: {mount}")));
            }
            let id = mount["file_system_id"].as_str().unwrap_or_default();
            let name = self.holdings(call, |held| {
                held.file_systems.get(id).map(|row| row["name"].clone())
            });
            let name = name.ok_or_else(|| Failure::unknown("file system"))?;
            self.attach_file_systems(call, place, &json!([name]))?;
        }
        Ok(())
    }

    pub(super) fn rules(&self, call: &Call<'_>) -> Response<SimBody> {
        data(&self.holdings(call, |held| held.rules.clone()))
    }

    /// Replaces all rules.
    pub(super) fn put_rules(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let rules = Value::from(checked_rules(&call.json()?["data"])?);
        self.holdings(call, |held| held.rules = rules.clone());
        self.apply_rules(call);
        Ok(data(&rules))
    }

    pub(super) fn rulesets(&self, call: &Call<'_>) -> Response<SimBody> {
        let used = live(&self.world, call);
        let rows: Vec<Value> = self.holdings(call, |held| {
            held.rulesets
                .values()
                .map(|row| attached(row, &used))
                .collect()
        });
        data(&Value::from(rows))
    }

    pub(super) fn add_ruleset(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let (name, place, rules) = (
            name_of(&body, 64)?,
            region_of(&body)?,
            checked_rules(&body["rules"])?,
        );
        let id = self.next_id();
        let row = json!({ "id": id, "name": name, "region": region(&place), "rules": rules,
            "created": CREATED, "instance_ids": [] });
        self.holdings(call, |held| held.rulesets.insert(id, row.clone()));
        Ok(data(&row))
    }

    pub(super) fn get_ruleset(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        if id == "global" {
            let name = format!("{} Global Rules", self.shared().quirks.workspace);
            return Ok(data(&self.holdings(
                call,
                |held| json!({ "id": "global", "name": name, "rules": held.rules }),
            )));
        }
        let used = live(&self.world, call);
        let row = self.holdings(call, |held| {
            held.rulesets.get(id).map(|row| attached(row, &used))
        });
        row.map(|row| data(&row))
            .ok_or_else(|| Failure::missing("firewall ruleset"))
    }

    pub(super) fn patch_ruleset(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let rules = body
            .get("rules")
            .map(checked_rules)
            .transpose()?
            .map(Value::from);
        if id == "global" {
            self.holdings(call, |held| held.rules = rules.unwrap_or(held.rules.take()));
            self.apply_rules(call);
            return self.get_ruleset(call, id);
        }
        let name = body.get("name").map(|_| name_of(&body, 64)).transpose()?;
        let changed = self.holdings(call, |held| {
            let row = held.rulesets.get_mut(id)?;
            if let Some(rules) = rules {
                row["rules"] = rules;
            }
            if let Some(name) = name {
                row["name"] = Value::from(name);
            }
            Some(())
        });
        changed.ok_or_else(|| Failure::missing("firewall ruleset"))?;
        self.apply_rules(call);
        self.get_ruleset(call, id)
    }

    pub(super) fn delete_ruleset(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let lingers = self.shared().quirks.ruleset_lingers;
        let used = live_or_lately(&self.world, call, lingers);
        self.holdings(call, |held| {
            if !held.rulesets.contains_key(id) {
                return Err(Failure::missing("firewall ruleset"));
            }
            if used.iter().any(|machine| guarded_by(machine, id)) {
                return Err(Failure::new(
                    400,
                    "firewall-rulesets/firewall-ruleset-in-use",
                    "The ruleset is in use.",
                ));
            }
            held.rulesets.remove(id);
            Ok(data(&json!({})))
        })
    }

    /// The ports that a launch's rule sets and the account's rules open there; `None` where rules
    /// do not apply.
    pub(super) fn opened(
        &self,
        call: &Call<'_>,
        place: &str,
        rulesets: &[String],
    ) -> Result<Option<Vec<u16>>, Failure> {
        self.holdings(call, |held| {
            let mut rules: Vec<&Value> = held.rules.as_array().into_iter().flatten().collect();
            for id in rulesets {
                let row = held
                    .rulesets
                    .get(id)
                    .ok_or_else(|| Failure::unknown("firewall ruleset"))?;
                if row["region"]["name"] != place {
                    return Err(Failure::invalid(
                        "firewall_rulesets: the ruleset is of another region",
                    ));
                }
                rules.extend(row["rules"].as_array().into_iter().flatten());
            }
            if place == WITHOUT_FIREWALL {
                return Ok(None);
            }
            let bound = |rule: &Value, end: usize| {
                rule["port_range"][end]
                    .as_u64()
                    .and_then(|port| u16::try_from(port).ok())
            };
            let tcp = rules
                .into_iter()
                .filter(|rule| matches!(rule["protocol"].as_str(), Some("tcp" | "all")));
            let ranges = tcp.filter_map(|rule| Some(bound(rule, 0)?..=bound(rule, 1)?));
            Ok(Some(ranges.flatten().collect()))
        })
    }

    /// Updates the reachable ports of each machine to the current rules.
    fn apply_rules(&self, call: &Call<'_>) {
        for machine in live(&self.world, call) {
            let list = |field: &str| {
                machine.spec.extra[field]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            };
            let rulesets: Vec<String> = list("rulesets")
                .iter()
                .filter_map(|id| id.as_str().map(str::to_owned))
                .collect();
            let published: Vec<u16> = list("publishes")
                .iter()
                .filter_map(|port| port.as_u64().and_then(|port| u16::try_from(port).ok()))
                .collect();
            let Ok(opened) = self.opened(call, &machine.region, &rulesets) else {
                continue;
            };
            let ports = reached(&published, opened.as_deref());
            // It exists, because it was just read. One that reads do not show yet keeps its ports
            // from the launch.
            let _ = self
                .world
                .update(NAME, &call.account, &machine.id, |machine| {
                    machine.spec.ports = ports
                });
        }
    }

    /// Fails if the account has reached its maximum number of instances.
    pub(super) fn within_quota(&self, call: &Call<'_>) -> Result<(), Failure> {
        let quota = self.shared().quirks.quota;
        let used = live(&self.world, call).len();
        if quota.is_some_and(|most| used >= most) {
            Err(Refusal::Quota.into())
        } else {
            Ok(())
        }
    }

    /// A launch's image is one there: by family, or by the id of a line of the list.
    pub(super) fn has_image(image: &Value) -> bool {
        let line = |id: &str| {
            let digits = id
                .strip_prefix("00000000-0000-4000-8000-")
                .and_then(|digits| digits.parse::<usize>().ok());
            digits.is_some_and(|n| n / 10 < REGIONS.len() && n % 10 < FAMILIES.len())
        };
        match (image["family"].as_str(), image["id"].as_str()) {
            (Some(family), None) => FAMILIES.iter().any(|(known, _)| *known == family),
            (None, Some(id)) => line(id),
            (None, None) => image.is_null(),
            (Some(_), Some(_)) => false,
        }
    }

    pub(super) fn images(&self) -> Response<SimBody> {
        let rows =
            REGIONS.iter().enumerate().flat_map(|(r, (id, _))| {
                FAMILIES.iter().enumerate().map(move |(f, (family, architecture))| {
                json!({
                    "id": format!("00000000-0000-4000-8000-{:012}", r * 10 + f),
                        "created_time": CREATED, "updated_time": CREATED,
                    "name": family, "description": family, "family": family, "version": "1.0.0",
                    "architecture": architecture, "region": region(id),
                })
            })
            });
        data(&rows.collect())
    }

    pub(super) fn regions(&self) -> Response<SimBody> {
        data(&REGIONS.iter().map(|(id, _)| region(id)).collect())
    }

    /// Launches in the account's audit log, the only place with a creation time. Oldest first, in
    /// pages.
    pub(super) fn audit(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let clock = self.world.clock();
        let bound = |name: &str| match call.query.get(name) {
            None => Ok(None),
            Some(text) => text
                .parse::<Timestamp>()
                .map(|at| Some(clock.off_the_wire(at)))
                .map_err(|_| Failure::invalid(format!("{name}: {text}"))),
        };
        let (start, end) = (bound("start")?, bound("end")?);
        let kind = call
            .query
            .get("resource_type")
            .is_none_or(|kind| kind == "cloud.instance");
        let page = self.shared().quirks.page_size.max(1);
        let from = match call
            .query
            .get("page_token")
            .filter(|token| !token.is_empty())
        {
            None => 0,
            Some(token) => token
                .strip_prefix('a')
                .and_then(|place| place.parse().ok())
                .ok_or_else(|| Failure::invalid(format!("page_token: {token}")))?,
        };
        let machines: Vec<Machine> = self
            .world
            .all(NAME)
            .into_iter()
            .filter(|machine| kind && machine.account == call.account.as_str())
            .filter(|machine| {
                start.is_none_or(|at| machine.created_at >= at)
                    && end.is_none_or(|at| machine.created_at <= at)
            })
            .collect();
        let rows: Vec<Value> = machines
            .iter()
            .skip(from)
            .take(page)
            .map(|machine| {
                json!({
                    "service_name": "cloud", "resource_name": "instance", "action": "launch",
                        "catalog_version": "1.0",
                    "event_id": format!("00000000-0000-4000-9000-{:0>12.12}", machine.id),
                        "event_time": clock.on_the_wire(machine.created_at),
                    "actor_lrn": "lrn:user", "resource_lrns": [format!("lrn:instance:{}",
                        machine.id)], "resource_owner_lrn": "lrn:account",
                    "request_api_key_lrn": "lrn:key",
                    "additional_details": { "instance_lrn": machine.id,
                        "instance_type": machine.spec.shape, "region": machine.region },
                })
            })
            .collect();
        let next = (from + page < machines.len()).then(|| format!("a{}", from + page));
        Ok(json_answer(
            http::StatusCode::OK,
            &json!({ "data": rows, "page_token": next }),
        ))
    }
}

fn mounts(machine: &Machine, row: &Value) -> bool {
    let extra = &machine.spec.extra;
    let by_id = |mount: &Value| mount["file_system_id"] == row["id"];
    extra["file_systems"]
        .as_array()
        .is_some_and(|names| names.contains(&row["name"]))
        || extra["mounts"]
            .as_array()
            .is_some_and(|list| list.iter().any(by_id))
}

fn guarded_by(machine: &Machine, id: &str) -> bool {
    machine.spec.extra["rulesets"]
        .as_array()
        .is_some_and(|ids| ids.iter().any(|own| own == id))
}

fn attached(row: &Value, used: &[Machine]) -> Value {
    let id = row["id"].as_str().unwrap_or_default();
    let mut row = row.clone();
    row["instance_ids"] = used
        .iter()
        .filter(|machine| guarded_by(machine, id))
        .map(|machine| machine.id.clone())
        .collect();
    row
}
