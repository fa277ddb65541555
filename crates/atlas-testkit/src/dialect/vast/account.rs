//! What an account has besides instances: a user, SSH keys, charges.

use std::collections::BTreeMap;

use atlas_core::{Timestamp, Usd, UsdPerHour};
use http::Response;
use serde_json::{Value, json};

use super::envelope::{Failure, answer, ok};
use super::offers::dollars;
use super::stock::{NAME, STORAGE_NANOS};
use super::volumes::Volume;
use super::{Call, Vast};
use crate::dialect::SimBody;
use crate::world::Account;

const CREATED: &str = "2026-10-01T00:00:00Z";

/// What one account has.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    keys: BTreeMap<u64, String>,
    instance_keys: BTreeMap<String, Vec<(u64, String)>>,
    pub(super) volumes: BTreeMap<u64, Volume>,
    /// When instances were destroyed: their volumes are held for a while more.
    pub(super) freed: BTreeMap<String, Timestamp>,
}

/// A number for an account, the same each time.
fn user_id(account: &Account) -> u64 {
    account
        .as_str()
        .bytes()
        .fold(7, |sum, byte| (sum * 31 + u64::from(byte)) % 900_000)
        + 100_000
}

fn shown(id: u64, user: u64, field: &str, key: &str) -> Value {
    let mut shown = json!({ "id": id, "user_id": user, "created_at": CREATED, "deleted_at": null });
    shown[field] = Value::from(key);
    shown
}

fn sent_key(call: &Call<'_>) -> Result<String, Failure> {
    let body = call.json()?;
    let key = body["ssh_key"]
        .as_str()
        .filter(|key| key.starts_with("ssh-"));
    key.map(str::to_owned)
        .ok_or_else(|| Failure::new(400, "no_ssh_key", "error 400/3801: ssh_key is missing"))
}

impl Vast {
    pub(super) fn holdings<T>(&self, call: &Call<'_>, with: impl FnOnce(&mut Holdings) -> T) -> T {
        with(
            self.shared()
                .holdings
                .entry(call.account.clone())
                .or_default(),
        )
    }

    pub(super) fn user(&self, call: &Call<'_>) -> Response<SimBody> {
        let id = user_id(&call.account);
        ok(
            &json!({ "id": id, "key_id": 4, "email": format!("{}@example.com",
                call.account.as_str()), "balance": 0.0,
            "credit": dollars(self.credit(&call.account)),
            "ssh_key": "", "sid": "zz-session" }),
        )
    }

    pub(super) fn keys(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let user = user_id(&call.account);
        let keys: Vec<Value> = self.holdings(call, |held| {
            held.keys
                .iter()
                .map(|(id, key)| shown(*id, user, "key", key))
                .collect()
        });
        if keys.is_empty() {
            return Err(Failure::new(404, "", "No SSH keys found").without("error"));
        }
        Ok(answer(http::StatusCode::OK, &Value::from(keys)))
    }

    pub(super) fn add_key(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let (key, id) = (sent_key(call)?, self.next_number());
        self.holdings(call, |held| held.keys.insert(id, key.clone()));
        Ok(ok(
            &json!({ "success": true, "key": shown(id, user_id(&call.account), "public_key",
                &key) }),
        ))
    }

    pub(super) fn put_key(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let (key, id) = (sent_key(call)?, id.parse().unwrap_or(0));
        let known = self.holdings(call, |held| {
            held.keys.get_mut(&id).map(|held| held.clone_from(&key))
        });
        known.ok_or_else(|| {
            Failure::new(400, "no_ssh_key", "error 400/3802: there is no such key")
        })?;
        Ok(ok(
            &json!({ "success": true, "key": { "id": id, "public_key": key } }),
        ))
    }

    pub(super) fn delete_key(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let gone = || Failure::new(400, "no_ssh_key", "error 400/3802: there is no such key");
        self.holdings(call, |held| held.keys.remove(&id.parse().unwrap_or(0)))
            .ok_or_else(gone)?;
        Ok(ok(&json!({ "success": true })))
    }

    pub(super) fn instance_keys(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id)?;
        let keys = self.holdings(call, |held| {
            held.instance_keys.get(id).cloned().unwrap_or_default()
        });
        let keys: Vec<Value> = keys
            .iter()
            .map(|(id, key)| json!({ "id": id, "public_key": key }))
            .collect();
        // A text with JSON in it.
        Ok(ok(
            &json!({ "success": true, "ssh_keys": Value::from(keys).to_string() }),
        ))
    }

    pub(super) fn add_instance_key(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id)?;
        let (key, number) = (sent_key(call)?, self.next_number());
        self.holdings(call, |held| {
            held.instance_keys
                .entry(id.to_owned())
                .or_default()
                .push((number, key))
        });
        Ok(ok(
            &json!({ "success": true, "msg": "SSH key added to instance." }),
        ))
    }

    pub(super) fn delete_instance_key(
        &self,
        call: &Call<'_>,
        id: &str,
        key: &str,
    ) -> Result<Response<SimBody>, Failure> {
        self.mine(call, id)?;
        let wanted: u64 = key.parse().unwrap_or(0);
        let removed = self.holdings(call, |held| {
            let keys = held.instance_keys.entry(id.to_owned()).or_default();
            let before = keys.len();
            keys.retain(|(number, _)| *number != wanted);
            before != keys.len()
        });
        if !removed {
            return Err(Failure::new(
                404,
                "no_such_ssh_key",
                "error 404/3803: there is no such key",
            ));
        }
        Ok(ok(&json!({ "success": true, "msg": "SSH key removed." })))
    }

    /// A row for each instance, its amount with three decimals.
    pub(super) fn charges(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let filters: Value = call
            .query
            .get("select_filters")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let (Some(from), Some(to)) = (
            filters["day"]["gte"].as_i64(),
            filters["day"]["lte"].as_i64(),
        ) else {
            return Err(Failure::new(
                400,
                "invalid_args",
                "error 400: select_filters: day is required",
            ));
        };
        let limit: usize = call
            .query
            .get("limit")
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(100)
            .min(500);
        let after: u64 = call
            .query
            .get("after_token")
            .and_then(|token| token.strip_prefix('c')?.parse().ok())
            .unwrap_or(0);
        let clock = self.world.clock();
        let [start, end] =
            [from, to].map(|at| clock.off_the_wire(Timestamp::from_unix_seconds(at)));
        let end = end.min(self.world.now());
        let storage = UsdPerHour::new(Usd::from_nanos(STORAGE_NANOS));
        let three = |amount: Usd| (dollars(amount) * 1000.0).round() / 1000.0;
        let mut rows = Vec::new();
        for machine in self
            .world
            .all(NAME)
            .iter()
            .filter(|machine| machine.account == call.account.as_str())
        {
            let (gpu, disk) = machine.spent(start, end, storage, storage);
            let id: u64 = machine.id.parse().unwrap_or(0);
            // The image is pulled once, right after the order.
            let pulled = if (start..=end).contains(&machine.created_at) {
                self.pulled(machine)
            } else {
                Usd::ZERO
            };
            if gpu + disk + pulled == Usd::ZERO || id <= after {
                continue;
            }
            let item = |kind: &str, amount: Usd| {
                json!({ "start": from, "end": to, "type": kind,
                "source": null, "description": kind, "amount": three(amount), "metadata": {},
                    "items": [] })
            };
            let mut items = vec![item("gpu", gpu), item("disk", disk)];
            if pulled > Usd::ZERO {
                items.push(item("bwd", pulled));
            }
            rows.push((id, json!({
                "start": from, "end": to, "type": "instance", "source": format!("instance-{id}"),
                    "description": format!("Instance {id}"),
                "amount": three(gpu + disk + pulled), "metadata": { "label": machine.spec.name },
                    "items": items,
            })));
        }
        rows.sort_by_key(|(id, _)| *id);
        let total = rows.len();
        let more = total > limit;
        rows.truncate(limit);
        let token = rows.last().filter(|_| more).map(|(id, _)| format!("c{id}"));
        let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
        Ok(ok(
            &json!({ "success": true, "count": rows.len(), "total": total, "next_token": token,
                "results": rows }),
        ))
    }
}
