//! Session keys: at most one session that is not ending has a key.
//!
//! A row of [`Table::Keys`] names the session that holds the key. It is written in the batch that
//! records the session, guarded to be absent, and deleted in the batch that commits the end of the
//! session. A row whose session does not hold the key is left over, for instance from a release
//! that does not know of keys; the next session takes it over under a guard on both rows.

use std::collections::BTreeMap;

use atlas_core::{ComputeRequest, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::core::{Core, Loaded};
use crate::ids::SessionId;
use crate::kernel::SessionRecord;
use crate::realm::Realm;
use crate::store::{Batch, Table};

/// Names of environment variables that atlas sets itself begin so; their values differ between two
/// requests that mean the same.
const OWN_VARIABLES: &str = "ATLAS_";

/// What a request asks for: a digest of each field, so that two requests can be compared by field
/// without storing secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Intent(BTreeMap<String, String>);

impl Intent {
    /// The intent of a request as the caller made it. Limits and labels are no part of it, nor is
    /// what atlas adds: the credential and the candidate.
    pub(crate) fn of(realm: &Realm, request: &ComputeRequest, record: &SessionRecord) -> Self {
        let mut fields = BTreeMap::new();
        let mut add = |name: String, value: &Value| {
            let digest = realm.digest(format!("{name}\n{value}").as_bytes());
            fields.insert(name, digest);
        };
        add(
            "kind".to_owned(),
            &serde_json::to_value(record.kind).unwrap_or_default(),
        );
        add("account".to_owned(), &Value::from(record.account.as_str()));
        let Value::Object(request) = request.expose() else {
            return Self(fields);
        };
        for (name, value) in request {
            match (name.as_str(), value) {
                ("credential" | "candidate" | "ends_with_command", _) => {}
                ("env", Value::Object(variables)) => {
                    for (variable, value) in variables {
                        if !variable.starts_with(OWN_VARIABLES) {
                            add(format!("env.{variable}"), &value);
                        }
                    }
                }
                (_, value) => add(name, &value),
            }
        }
        Self(fields)
    }

    /// The first field in which two intents differ.
    fn difference<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let names = self.0.keys().chain(other.0.keys());
        let mut differing: Vec<&str> = names
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(String::as_str)
            .collect();
        differing.sort_unstable();
        differing.first().copied()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyRow {
    session: SessionId,
    intent: Intent,
}

/// The state of a session key in the store.
#[derive(Debug)]
pub(crate) enum Holder {
    /// A session has it.
    Session(Box<SessionRecord>, Intent),
    /// No session has it. `guards` must still hold when it is taken.
    None(Guards),
}

/// The versions of the rows that show that a key is free.
#[derive(Debug)]
pub(crate) struct Guards {
    row: Option<u64>,
    session: Option<(SessionId, Option<u64>)>,
}

/// Reads who holds a key.
pub(crate) async fn holder(core: &Core, key: &str) -> Result<Holder> {
    let free = |row, session| Ok(Holder::None(Guards { row, session }));
    let Some(row) = core.store.get(Table::Keys, key.as_bytes()).await? else {
        return free(None, None);
    };
    let held: KeyRow = serde_json::from_slice(&row.value).map_err(|_| {
        Error::new(
            ErrorKind::Unavailable,
            "the row of this session key cannot be read",
        )
    })?;
    match core.load(held.session).await? {
        Some(Loaded { record, .. }) if record.held_key() == Some(key) => {
            Ok(Holder::Session(Box::new(record), held.intent))
        }
        Some(loaded) => free(
            Some(row.version),
            Some((held.session, Some(loaded.version))),
        ),
        None => free(Some(row.version), Some((held.session, None))),
    }
}

/// Takes a key for a session in the batch that records it.
pub(crate) fn take(
    batch: &mut Batch,
    key: &str,
    guards: &Guards,
    session: SessionId,
    intent: &Intent,
) {
    batch.guard(Table::Keys, key.as_bytes(), guards.row);
    if let Some((session, version)) = guards.session {
        batch.guard(Table::Sessions, *session.as_bytes(), version);
    }
    let row = KeyRow {
        session,
        intent: intent.clone(),
    };
    let row = serde_json::to_vec(&row).unwrap_or_default();
    batch.put(Table::Keys, key.as_bytes(), row);
}

/// The error when a key is taken and its session is not what the caller wants.
pub(crate) fn taken(key: &str, holder: &SessionRecord) -> Error {
    let state = if holder.ending.is_some() {
        "whose machines are not proved absent yet"
    } else {
        "which is alive"
    };
    Error::new(
        ErrorKind::Conflict,
        format!(
            "the session key {key:?} belongs to session {}, {state}",
            holder.id
        ),
    )
}

/// Checks that the session that holds a key is what the caller asks for.
pub(crate) fn check_intent(
    key: &str,
    holder: &SessionRecord,
    theirs: &Intent,
    ours: &Intent,
) -> Result<()> {
    if holder.ending.is_some() {
        return Err(taken(key, holder));
    }
    match ours.difference(theirs) {
        None => Ok(()),
        Some(field) => {
            let (id, message) = (holder.id, "differs from that of session");
            let message = format!("{message} {id}, which has the session key {key:?}");
            Err(Error::new(ErrorKind::Conflict, message).with_field(field))
        }
    }
}
