//! The in-house cloud itself, in memory, with controls for the conformance suite. A real one is
//! reached over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas::testkit::conformance::{BoxFuture, Control, LedgerEntry, Rewrite, Subject};
use atlas::testkit::world::FaultKind;
use atlas::{AnyProvider, Clock, ComputeId, ComputeRequest, Result, SystemClock, Timestamp};
use serde_json::{Value, json};

use super::provider::InHouse;

/// The only API key that this cloud accepts.
pub(crate) const KEY: &str = "good-key";

/// The ways in which this cloud can be made to fail.
const FAULTS: [FaultKind; 15] = [
    FaultKind::CommitThen500,
    FaultKind::CommitThenReset,
    FaultKind::CommitThenTimeout,
    FaultKind::DuplicateCommit,
    FaultKind::Html502,
    FaultKind::NeverReady,
    FaultKind::NoCapacity,
    FaultKind::QuotaExceeded,
    FaultKind::ResetBeforeCommit,
    FaultKind::Slow,
    FaultKind::Status429,
    FaultKind::Status429ForHours,
    FaultKind::Status500,
    FaultKind::Truncated,
    FaultKind::Vanish,
];

/// A machine room with one key and one account. Clones share the same room.
#[derive(Clone, Default)]
pub(crate) struct Room(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    machines: BTreeMap<String, Value>,
    calls: Vec<String>,
    torn: bool,
    rewrite: Option<Rewrite>,
    faults: Vec<(String, FaultKind)>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

impl Room {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A status and a body, or `None` when the connection broke.
    pub(crate) async fn http(
        &self,
        key: &str,
        operation: &str,
        id: &str,
        body: Value,
    ) -> Option<(u16, Value)> {
        let fault = self.books().begin(operation);
        let answer = match fault {
            Some(FaultKind::Status500) => (500, Value::Null),
            Some(FaultKind::Status429) => (429, Value::Null),
            Some(FaultKind::Status429ForHours) => (
                429,
                json!({ "retry_after": FaultKind::LONG_WAIT.as_secs() }),
            ),
            Some(FaultKind::QuotaExceeded) => (402, Value::Null),
            Some(FaultKind::NoCapacity) => (409, Value::Null),
            Some(FaultKind::ResetBeforeCommit) => return None,
            _ if key != KEY => (401, Value::Null),
            _ => self.books().act(fault, operation, id, body),
        };
        match fault {
            Some(FaultKind::CommitThen500 | FaultKind::Html502) => Some((502, Value::Null)),
            Some(FaultKind::Truncated) => Some((200, Value::Null)),
            Some(FaultKind::CommitThenReset) => None,
            Some(FaultKind::CommitThenTimeout | FaultKind::Slow) => std::future::pending().await,
            _ => Some(answer),
        }
    }
}

impl Books {
    fn begin(&mut self, operation: &str) -> Option<FaultKind> {
        self.calls.push(operation.to_owned());
        let due = self.faults.iter().position(|(name, _)| name == operation)?;
        Some(self.faults.remove(due).1)
    }

    fn act(
        &mut self,
        fault: Option<FaultKind>,
        operation: &str,
        id: &str,
        mut order: Value,
    ) -> (u16, Value) {
        if matches!(
            (operation, fault),
            ("terminate", _) | (_, Some(FaultKind::Vanish))
        ) {
            self.machines
                .entry(id.to_owned())
                .and_modify(|machine| machine["state"] = json!("terminated"));
        }
        let live = |machine: &&Value| machine["state"] != "terminated";
        let shown = |machine: &Value| {
            let mut machine = machine.clone();
            self.rewrite
                .iter()
                .for_each(|rewrite| rewrite.apply(&mut machine));
            machine
        };
        match operation {
            "identity" => (200, json!("the-machine-room/team-a")),
            "list_compute" => {
                let torn = std::mem::take(&mut self.torn).then_some(Value::Null);
                (
                    200,
                    self.machines
                        .values()
                        .filter(live)
                        .map(shown)
                        .chain(torn)
                        .collect(),
                )
            }
            "spawn_compute" => {
                for _ in 0..=u8::from(fault == Some(FaultKind::DuplicateCommit)) {
                    order["id"] = json!(format!("m{}", self.machines.len()));
                    order["state"] = json!(match fault {
                        Some(FaultKind::NeverReady) => "provisioning",
                        _ => "running",
                    });
                    self.machines
                        .insert(format!("m{}", self.machines.len()), order.clone());
                }
                (200, order)
            }
            _ => self
                .machines
                .get(id)
                .filter(live)
                .map_or((404, Value::Null), |machine| (200, shown(machine))),
        }
    }
}

impl Subject for Room {
    fn fresh(&self) -> BoxFuture<'_, Result<AnyProvider>> {
        *self.books() = Books::default();
        Box::pin(async { Ok(AnyProvider::new(InHouse::new(self, KEY)?)) })
    }

    fn with_bad_key(&self) -> Option<AnyProvider> {
        InHouse::new(self, "bad-key").ok().map(AnyProvider::new)
    }

    fn request(&self) -> ComputeRequest {
        ComputeRequest::cpu(2).image("in-house/worker:1")
    }

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn wait(&self, span: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(span))
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }

    fn secrets(&self) -> Vec<String> {
        vec![KEY.to_owned(), "bad-key".to_owned()]
    }
}

impl Control for Room {
    fn inject<'a>(
        &'a self,
        operation: &'a str,
        fault: FaultKind,
        count: u32,
    ) -> BoxFuture<'a, bool> {
        let known = fault.concerns(operation) && FAULTS.contains(&fault);
        self.books().faults.extend(
            (0..count)
                .filter(|_| known)
                .map(|_| (operation.to_owned(), fault)),
        );
        Box::pin(async move { known })
    }

    fn break_listing(&self) -> BoxFuture<'_, bool> {
        self.books().torn = true;
        Box::pin(async { true })
    }

    fn rewrite_machines(&self, rewrite: Option<Rewrite>) -> bool {
        self.books().rewrite = rewrite;
        true
    }

    fn ledger(&self) -> BoxFuture<'_, Vec<LedgerEntry>> {
        let entries = self.books().machines.values().filter_map(entry).collect();
        Box::pin(async { entries })
    }

    fn requests<'a>(&'a self, operation: Option<&'a str>) -> BoxFuture<'a, u64> {
        let count = self
            .books()
            .calls
            .iter()
            .filter(|call| operation.is_none_or(|wanted| wanted == *call))
            .count();
        Box::pin(async move { u64::try_from(count).unwrap_or(u64::MAX) })
    }
}

fn entry(machine: &Value) -> Option<LedgerEntry> {
    Some(LedgerEntry {
        id: ComputeId::new(machine["id"].as_str()?).ok()?,
        live: machine["state"] != "terminated",
        launch_key: machine["tag"].as_str().and_then(|key| key.parse().ok()),
        env: serde_json::from_value(machine["env"].clone()).ok(),
    })
}
