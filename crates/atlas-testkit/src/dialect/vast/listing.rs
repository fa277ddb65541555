//! The list of instances: pages by an opaque token, filters on stored columns.

use data_encoding::BASE64;
use http::Response;
use serde_json::{Map, Value, json};

use super::envelope::{Failure, ok};
use super::offers::fits;
use super::stock::NAME;
use super::{Call, Vast};
use crate::dialect::SimBody;

/// Columns that are worked out for each answer and cannot be filtered by.
const COMPUTED: &[&str] = &[
    "dph_total",
    "dph_base",
    "num_gpus",
    "search",
    "instance",
    "ports",
    "duration",
    "is_bid",
];

impl Vast {
    pub(super) fn list(&self, call: &Call<'_>) -> Result<Response<SimBody>, Failure> {
        let refused =
            |error: &str, what: &str| Failure::new(400, error, format!("error 400: {what}")).bare();
        let parameter = |name: &str, default: Value| match call.query.get(name) {
            None => Ok(default),
            Some(text) => serde_json::from_str(text).map_err(|_| refused("invalid_request", name)),
        };
        let filters = parameter("select_filters", json!({}))?;
        for (name, wanted) in filters.as_object().into_iter().flatten() {
            if COMPUTED.contains(&name.as_str()) || !wanted.is_object() {
                return Err(refused(
                    "invalid_request",
                    &format!("{name} cannot be filtered by"),
                ));
            }
        }
        let order = parameter("order_by", json!([]))?;
        let falls = order[0]["col"] == "id" && order[0]["dir"] == "desc";
        let limit: i64 = call
            .query
            .get("limit")
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(25);
        let most = if limit <= 0 {
            5
        } else {
            usize::try_from(limit).unwrap_or(25)
        }
        .min(self.shared().quirks.page_size.clamp(1, 25));
        let after = match call
            .query
            .get("after_token")
            .filter(|token| !token.is_empty())
        {
            None => None,
            Some(token) => Some(
                last_id(token)
                    .ok_or_else(|| refused("invalid_token", "the token is not one of ours"))?,
            ),
        };

        let mut rows: Vec<Value> = self
            .world
            .machines(NAME, &call.account, &call.arrival)
            .iter()
            .map(|machine| self.instance(machine, true))
            .collect();
        let total = rows.len();
        rows.retain(|row| {
            filters
                .as_object()
                .into_iter()
                .flatten()
                .all(|(name, wanted)| fits(&row[name.as_str()], wanted))
        });
        rows.sort_by_key(|row| row["id"].as_u64());
        if falls {
            rows.reverse();
        }
        let found = rows.len();
        let mut labels = Map::new();
        for label in rows.iter().filter_map(|row| row["label"].as_str()) {
            let count = labels.get(label).and_then(Value::as_u64).unwrap_or(0);
            labels.insert(label.to_owned(), Value::from(count + 1));
        }
        if let Some(after) = after {
            rows.retain(|row| {
                row["id"]
                    .as_u64()
                    .is_some_and(|id| if falls { id < after } else { id > after })
            });
        }
        let more = rows.len() > most;
        rows.truncate(most);
        let token = rows.last().filter(|_| more).map(|row| {
            BASE64.encode(
                json!({ "values": { "id": row["id"] } })
                    .to_string()
                    .as_bytes(),
            )
        });
        let columns = parameter("select_cols", json!(["*"]))?;
        let columns: Vec<&str> = columns
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !columns.contains(&"*") {
            for row in rows.iter_mut().filter_map(Value::as_object_mut) {
                row.retain(|name, _| columns.contains(&name.as_str()) || name == "id");
            }
        }
        Ok(ok(&json!({
            "success": true, "instances_found": found, "total_instances": total,
                "label_counts": labels, "next_token": token,
            "instances": rows,
        })))
    }
}

fn last_id(token: &str) -> Option<u64> {
    let bytes = BASE64.decode(token.as_bytes()).ok()?;
    serde_json::from_slice::<Value>(&bytes).ok()?["values"]["id"].as_u64()
}
