//! Secrets of the account: their values are written, and never read back.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::page::whole;
use super::pods::wire_time;
use super::problem::{Problem, json as answer, no_content};
use super::{Call, RunPod};
use crate::dialect::SimBody;
use crate::dialect::check::Check;

const KIND: &str = "secrets";
/// The longest name, description and value.
const MAX_NAME: usize = 191;
const MAX_DESCRIPTION: usize = 65_535;
const MAX_VALUE: usize = 16_777_215;

type Reply = Result<Response<SimBody>, Problem>;

impl RunPod {
    pub(super) fn list_secrets(&self, call: &Call<'_>) -> Reply {
        let name = call.query.get("name").map(str::to_ascii_lowercase);
        let wanted = |secret: &&Value| {
            let held = secret["name"].as_str().unwrap_or_default();
            name.as_ref()
                .is_none_or(|name| *name == held.to_ascii_lowercase())
        };
        let secrets = self.with_store(call, |store| {
            store.all(KIND).rev().filter(wanted).cloned().collect()
        });
        Ok(whole(KIND, secrets))
    }

    pub(super) fn create_secret(&self, call: &Call<'_>) -> Reply {
        let body = call.json()?;
        let sent = checked(&body, &["name", "value", "description"], &["name", "value"])?;
        let now = wire_time(&self.world, self.world.now());
        let made = json!({
            "id": self.world.word(12), "name": sent["name"],
            "description": sent.get("description").cloned().unwrap_or(Value::Null),
            "createdAt": now, "valueLastUpdatedAt": now,
        });
        self.with_store(call, |store| {
            if store.all(KIND).any(|held| held["name"] == made["name"]) {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "a secret with this name already exists",
                ));
            }
            store.add(KIND, made.clone());
            Ok(answer(StatusCode::CREATED, &made))
        })
    }

    pub(super) fn get_secret(&self, call: &Call<'_>, id: &str) -> Reply {
        let held = self.with_store(call, |store| store.get(KIND, id).cloned());
        let held = held.ok_or_else(|| Problem::not_found("secret"))?;
        Ok(answer(StatusCode::OK, &held))
    }

    pub(super) fn update_secret(&self, call: &Call<'_>, id: &str) -> Reply {
        let body = call.json()?;
        let sent = checked(&body, &["value", "description"], &[])?;
        let now = wire_time(&self.world, self.world.now());
        self.with_store(call, |store| {
            let held = store
                .change(KIND, id)
                .ok_or_else(|| Problem::not_found("secret"))?;
            if sent.contains_key("value") {
                held["valueLastUpdatedAt"] = now.into();
            }
            if let Some(description) = sent.get("description") {
                held["description"] = description.clone();
            }
            Ok(answer(StatusCode::OK, held))
        })
    }

    pub(super) fn delete_secret(&self, call: &Call<'_>, id: &str) -> Reply {
        if self.with_store(call, |store| store.remove(KIND, id)) {
            Ok(no_content())
        } else {
            Err(Problem::not_found("secret"))
        }
    }
}

fn checked(
    body: &Value,
    allowed: &[&str],
    required: &[&str],
) -> Result<Map<String, Value>, Problem> {
    let mut check = Check::default();
    let Some(object) = check.object("$", body, allowed, required) else {
        return Err(Problem::invalid(check.errors));
    };
    if object.is_empty() {
        check.wrong("$", "minProperties: got 0, want 1");
    }
    for (field, least, most) in [
        ("name", 1, MAX_NAME),
        ("value", 1, MAX_VALUE),
        ("description", 0, MAX_DESCRIPTION),
    ] {
        let path = format!("$.{field}");
        let text = check.string(&path, object.get(field), least);
        if let Some(len) = text.map(str::len).filter(|len| *len > most) {
            check.wrong(&path, format!("maxLength: got {len}, want {most}"));
        }
    }
    if let Some(name) = object.get("name").and_then(Value::as_str)
        && !well_named(name)
    {
        let pattern = r"^[a-zA-Z_][a-zA-Z0-9_.\\-/]*$";
        check.wrong(
            "$.name",
            format!("'{name}' does not match pattern '{pattern}'"),
        );
    }
    if check.errors.is_empty() {
        let reserved = object.get("name").and_then(Value::as_str);
        if reserved.is_some_and(|name| name.to_ascii_uppercase().starts_with("RUNPOD")) {
            return Err(Problem::bad("secret names must not begin with RUNPOD"));
        }
        Ok(object.clone())
    } else {
        Err(Problem::invalid(check.errors))
    }
}

fn well_named(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c))
}
