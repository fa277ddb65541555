//! Queries about a whole organisation, and about the platform.

use http::Response;
use serde_json::{Value, json};

use super::answer::{Failure, ok};
use super::machines::asked_guest;
use super::route::parts;
use super::stock::{NEAREST, REGIONS};
use super::{Call, Fly, NAME, config};
use crate::dialect::SimBody;

impl Fly {
    /// Every machine of the organisation. Regions that do not answer are named, and their machines
    /// are missing.
    pub(super) fn org_machines(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let silent = self.shared().quirks.error_regions.clone();
        let machines = self.filtered(call, |machine| !silent.contains(&machine.region))?;
        let keys: Vec<String> = machines.keys().cloned().collect();
        let (rows, next) = self.page(call, &keys)?;
        let summary = call.query.get("summary") == Some("true");
        let rows: Vec<Value> = rows
            .iter()
            .map(|id| {
                let machine = &machines[id];
                let whole = self.shown_machine(machine, false);
                let config = config::shown(machine, false);
                let mut row = json!({ "app_name": parts(id).1 });
                for field in [
                    "id",
                    "name",
                    "state",
                    "region",
                    "version",
                    "private_ip",
                    "created_at",
                    "updated_at",
                ] {
                    row[field] = whole[field].clone();
                }
                if !summary {
                    row["config"] = json!({ "image": config["image"], "guest": config["guest"],
                        "metadata": config["metadata"] });
                }
                row
            })
            .collect();
        let last = rows.last().cloned().unwrap_or_default();
        let mut body = json!({
            "machines": rows, "next_cursor": next.unwrap_or_default(), "error_regions": silent,
            "last_machine_id": last["id"].as_str().unwrap_or_default(),
        });
        if let Some(at) = last["updated_at"].as_str() {
            body["last_updated_at"] = Value::from(at);
        }
        Ok(ok(&body))
    }

    /// One page of sorted keys, and the cursor of the next.
    pub(super) fn page(
        &self,
        call: &Call<'_>,
        keys: &[String],
    ) -> Result<(Vec<String>, Option<String>), Failure> {
        let (most, life) = {
            let shared = self.shared();
            (shared.quirks.page_size.max(1), shared.quirks.cursor_life)
        };
        let asked = call
            .number("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(most);
        let now = self.world.now();
        let bad = || Failure::invalid("invalid_argument: cursor is invalid or expired");
        let after = match call.query.get("cursor").filter(|cursor| !cursor.is_empty()) {
            None => None,
            Some(cursor) => {
                let (at, key) = cursor
                    .strip_prefix('c')
                    .and_then(|rest| rest.split_once('_'))
                    .ok_or_else(bad)?;
                let at = at.parse().map_err(|_| bad())?;
                if now.since(atlas_core::Timestamp::from_unix_millis(at)) > life {
                    return Err(bad());
                }
                Some(key.to_owned())
            }
        };
        let rest: Vec<&String> = keys
            .iter()
            .filter(|key| after.as_ref().is_none_or(|after| *key > after))
            .collect();
        let page: Vec<String> = rest
            .iter()
            .take(asked.clamp(1, most))
            .map(|key| (*key).clone())
            .collect();
        let more = page.len() < rest.len();
        let next = page
            .last()
            .filter(|_| more)
            .map(|last| format!("c{}_{last}", now.unix_millis()));
        Ok((page, next))
    }

    pub(super) fn regions(&self) -> Response<SimBody> {
        let capital = self.shared().quirks.capital_regions;
        let rows: Vec<Value> = REGIONS
            .iter()
            .map(|(code, name, latitude, longitude, group, _)| {
                json!({
                    "code": code, "name": name, "latitude": latitude, "longitude": longitude,
                        "gateway_available": true,
                    "requires_paid_plan": *code == "bom", "deprecated": false, "geo_region": group,
                })
            })
            .collect();
        ok(&if capital {
            json!({ "Nearest": NEAREST, "Regions": rows })
        } else {
            json!({ "nearest": NEAREST, "regions": rows })
        })
    }

    /// Regions with capacity, and for how many machines. A hint, not a reservation.
    pub(super) fn placements(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        if body["org_slug"].as_str() != Some(call.account.as_str()) {
            return Err(Failure::new(404, "Could not find Organization"));
        }
        let regions = super::stock::regions(body["region"].as_str())
            .ok_or_else(|| Failure::invalid("region not found"))?;
        let free = self
            .world
            .stock(NAME, &asked_guest(&body["compute"]).preset(), "");
        let wanted = body["count"].as_u64().unwrap_or(1);
        let rows: Vec<Value> = regions
            .iter()
            .map(|region| {
                let room = u64::from(free.get(region).copied().unwrap_or(0));
                json!({ "region": region, "count": room.min(wanted), "concurrency": 1 })
            })
            .collect();
        Ok(ok(&json!({ "regions": rows })))
    }
}
