//! Apps and their addresses. App names share one global name space.

use std::collections::BTreeMap;

use atlas_core::{Secret, Timestamp};
use http::Response;
use serde_json::{Value, json};

use super::answer::{Failure, answer, empty, ok};
use super::route::parts;
use super::{Call, Fly, NAME};
use crate::dialect::SimBody;

/// An app.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) org: String,
    pub(super) network: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) ips: Vec<Ip>,
    /// The secrets that its machines get as environment; no answer ever contains the values.
    pub(super) secrets: BTreeMap<String, Secret>,
    pub(super) secrets_version: u64,
    serial: u64,
}

/// An address of an app.
#[derive(Clone, Debug)]
pub(super) struct Ip {
    pub(super) kind: String,
    address: String,
    region: String,
    created_at: Timestamp,
}

impl App {
    pub(super) fn new(
        org: &str,
        network: Option<String>,
        created_at: Timestamp,
        serial: u64,
    ) -> Self {
        Self {
            org: org.to_owned(),
            network,
            created_at,
            ips: Vec::new(),
            secrets: BTreeMap::new(),
            secrets_version: 0,
            serial,
        }
    }
}

impl Fly {
    fn shown_app(&self, name: &str, app: &App) -> Value {
        let machines = self
            .world
            .all(NAME)
            .into_iter()
            .filter(|machine| machine.is_live() && parts(&machine.id).1 == name);
        let machines = machines.count();
        json!({
            "id": format!("{:012x}", app.serial + 0x5e0b_7c41), "name": name,
                "internal_numeric_id": 904_000 + app.serial,
            "machine_count": machines, "volume_count": self.disks_of(name),
                "network": app.network.as_deref().unwrap_or("default"),
            "network_cidr": format!("fdaa:2:{:x}::/48", app.serial),
            "status": if machines > 0 { "deployed" } else { "pending" },
            "organization": { "name": app.org, "slug": app.org, "internal_numeric_id": 5521 },
        })
    }

    pub(super) fn list_apps(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        call.query
            .get("org_slug")
            .ok_or_else(|| Failure::invalid("org_slug is required"))?;
        let mine: Vec<(String, App)> = {
            let shared = self.shared();
            let mine = shared
                .apps
                .iter()
                .filter(|(_, app)| app.org == call.account.as_str());
            mine.map(|(name, app)| (name.clone(), app.clone()))
                .collect()
        };
        let keys: Vec<String> = mine.iter().map(|(name, _)| name.clone()).collect();
        let (rows, next) = self.page(call, &keys)?;
        let shown: Vec<Value> = mine
            .iter()
            .filter(|(name, _)| rows.contains(name))
            .map(|(name, app)| self.shown_app(name, app))
            .collect();
        let mut body = json!({ "apps": shown, "total_apps": mine.len() });
        if let Some(next) = next {
            body["next_cursor"] = Value::from(next);
        }
        Ok(ok(&body))
    }

    pub(super) fn create_app(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let text = |field: &str| {
            body[field]
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        if text("org_slug").as_deref() != Some(call.account.as_str()) {
            return Err(Failure::new(404, "Could not find Organization"));
        }
        // The prose of the documentation calls it `app_name`.
        let name = text("name").or_else(|| text("app_name"));
        let key = text("idempotency_key");
        let now = self.world.now();
        let made_up = self.world.word(8);
        let mut shared = self.shared();
        let earlier = key
            .as_ref()
            .and_then(|key| shared.app_keys.get(key).cloned());
        if let Some(earlier) = earlier.filter(|earlier| shared.apps.contains_key(earlier)) {
            if name.as_ref().is_some_and(|name| *name != earlier) {
                return Err(Failure::new(
                    422,
                    "idempotency key was used for another app",
                ));
            }
            let app = shared.apps[&earlier].clone();
            drop(shared);
            return Ok(self.created_app(&app));
        }
        let name = name.unwrap_or(made_up);
        let plain = (1..=63).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-');
        if !plain {
            return Err(Failure::new(
                422,
                "Validation failed: Name may only contain numbers, lowercase letters and dashes",
            ));
        }
        if shared.apps.contains_key(&name) {
            return Err(
                Failure::new(422, "Validation failed: Name has already been taken")
                    .with_status("name_taken"),
            );
        }
        shared.serial += 1;
        let app = App::new(call.account.as_str(), text("network"), now, shared.serial);
        shared.apps.insert(name.clone(), app.clone());
        if let Some(key) = key {
            shared.app_keys.insert(key, name);
        }
        drop(shared);
        Ok(self.created_app(&app))
    }

    fn created_app(&self, app: &App) -> Response<SimBody> {
        let id = format!("{:012x}", app.serial + 0x5e0b_7c41);
        answer(
            201,
            &json!({ "id": id, "created_at": self.shown(app.created_at).unix_millis() }),
        )
    }

    pub(super) fn show_app(
        &self,
        _call: &Call<'_>,
        name: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let app = self
            .shared()
            .apps
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::no_app(name))?;
        Ok(ok(&self.shown_app(name, &app)))
    }

    /// Also deletes everything in the app.
    pub(super) fn delete_app(
        &self,
        _call: &Call<'_>,
        name: &str,
    ) -> Result<Response<SimBody>, Failure> {
        for machine in self
            .world
            .all(NAME)
            .into_iter()
            .filter(|machine| machine.is_live() && parts(&machine.id).1 == name)
        {
            self.world.destroy_machine(NAME, &machine.id);
        }
        self.shared().apps.remove(name);
        Ok(empty(202))
    }

    /// Returns the values only to callers that request them and have the permission.
    pub(super) fn list_secrets(
        &self,
        call: &Call<'_>,
        name: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let app = self
            .shared()
            .apps
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::no_app(name))?;
        let mut rows = self.shown_secrets(&app);
        if call.query.get("show_secrets") == Some("true") && !call.scope.read_only {
            for row in &mut rows {
                row["value"] = row["name"]
                    .as_str()
                    .and_then(|name| app.secrets.get(name))
                    .map(Secret::expose)
                    .into();
            }
        }
        Ok(ok(&json!({ "secrets": rows })))
    }

    /// Sets entries with a value, and removes those without.
    pub(super) fn set_secrets(
        &self,
        call: &Call<'_>,
        name: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let values = body["values"]
            .as_object()
            .ok_or_else(|| Failure::invalid("values is required"))?;
        let plain = |name: &str| {
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty()
        };
        if let Some((odd, _)) = values
            .iter()
            .find(|(name, value)| !plain(name) || !(value.is_string() || value.is_null()))
        {
            return Err(Failure::invalid(format!("invalid secret: {odd}")));
        }
        let app = {
            let mut shared = self.shared();
            let app = shared
                .apps
                .get_mut(name)
                .ok_or_else(|| Failure::no_app(name))?;
            for (name, value) in values {
                match value.as_str() {
                    Some(value) => app.secrets.insert(name.clone(), Secret::new(value)),
                    None => app.secrets.remove(name),
                };
            }
            app.secrets_version += 1;
            app.clone()
        };
        Ok(ok(
            &json!({ "secrets": self.shown_secrets(&app), "version": app.secrets_version,
                "Version": app.secrets_version }),
        ))
    }

    fn shown_secrets(&self, app: &App) -> Vec<Value> {
        let at = self.shown(app.created_at);
        let row = |name: &String| {
            json!({ "name": name, "digest": "5f2c9a01", "created_at": at,
            "updated_at": at })
        };
        app.secrets.keys().map(row).collect()
    }

    /// The variables that machines of an app get besides their own environment, at this version or
    /// a later one.
    pub(super) fn secrets_for(
        &self,
        name: &str,
        body: &Value,
    ) -> Result<BTreeMap<String, Secret>, Failure> {
        let shared = self.shared();
        let app = shared.apps.get(name).ok_or_else(|| Failure::no_app(name))?;
        if body["min_secrets_version"]
            .as_u64()
            .is_some_and(|least| least > app.secrets_version)
        {
            return Err(Failure::invalid(
                "secrets are not available at that version",
            ));
        }
        Ok(if body["skip_secrets"] == true {
            BTreeMap::new()
        } else {
            app.secrets.clone()
        })
    }

    pub(super) fn list_ips(&self, name: &str) -> Result<Response<SimBody>, Failure> {
        let app = self
            .shared()
            .apps
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::no_app(name))?;
        let rows: Vec<Value> = app.ips.iter().map(|ip| self.shown_ip(ip)).collect();
        Ok(ok(&json!({ "ips": rows })))
    }

    fn shown_ip(&self, ip: &Ip) -> Value {
        json!({
            "ip": ip.address, "region": ip.region, "shared": ip.kind == "shared_v4",
                "egress": ip.kind.starts_with("egress"),
            "created_at": self.shown(ip.created_at),
        })
    }

    /// An app can have only one shared address: repeated requests return the same one. Others are
    /// new each time.
    pub(super) fn assign_ip(
        &self,
        call: &Call<'_>,
        name: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let kind = body["type"].as_str().unwrap_or_default().to_owned();
        let known = [
            "v4",
            "v6",
            "shared_v4",
            "private_v6",
            "egress_v4",
            "egress_v6",
        ];
        if !known.contains(&kind.as_str()) {
            return Err(Failure::invalid(format!("invalid ip type: {kind}")));
        }
        let now = self.world.now();
        let mut shared = self.shared();
        shared.serial += 1;
        let serial = shared.serial;
        let app = shared
            .apps
            .get_mut(name)
            .ok_or_else(|| Failure::no_app(name))?;
        let same = app
            .ips
            .iter()
            .find(|ip| kind == "shared_v4" && ip.kind == kind)
            .cloned();
        let ip = same.unwrap_or_else(|| {
            let address = match kind.as_str() {
                "shared_v4" => format!("198.51.100.{}", 1 + serial % 254),
                kind if kind.ends_with("v4") => format!("203.0.113.{}", 1 + serial % 254),
                "private_v6" => format!("fdaa:2:{serial:x}::3"),
                _ => format!("2001:db8:1::{serial:x}:0"),
            };
            let region = body["region"].as_str().unwrap_or("global").to_owned();
            let ip = Ip {
                kind,
                address,
                region,
                created_at: now,
            };
            app.ips.push(ip.clone());
            ip
        });
        drop(shared);
        Ok(ok(&self.shown_ip(&ip)))
    }

    pub(super) fn release_ip(
        &self,
        name: &str,
        address: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let mut shared = self.shared();
        let app = shared
            .apps
            .get_mut(name)
            .ok_or_else(|| Failure::no_app(name))?;
        let before = app.ips.len();
        app.ips.retain(|ip| ip.address != address);
        if app.ips.len() == before {
            Err(Failure::new(404, "ip not found"))
        } else {
            Ok(empty(204))
        }
    }

    /// The machine that a request to an app's public port reaches, and its inside port: a forced
    /// one, else any that runs. `None` if the app has no address.
    #[must_use]
    pub fn reached(&self, app: &str, external: u16, forced: Option<&str>) -> Option<(String, u32)> {
        if self.shared().apps.get(app)?.ips.is_empty() {
            return None;
        }
        let mut serving: Vec<_> = self
            .world
            .all(NAME)
            .into_iter()
            .filter(|machine| {
                machine.is_live() && parts(&machine.id).1 == app && !self.is_cordoned(&machine.id)
            })
            .filter(|machine| forced.is_none_or(|id| parts(&machine.id).0 == id))
            .filter_map(|machine| {
                Some((
                    machine.state,
                    machine.id.clone(),
                    super::config::inside(&machine.spec.extra["config"], external)?,
                ))
            })
            .collect();
        serving.sort_by_key(|(state, id, _)| {
            (*state != crate::world::MachineState::Running, id.clone())
        });
        serving.into_iter().next().map(|(_, id, port)| (id, port))
    }
}
