//! Waiting for a machine to come to a state: a long poll of at most a minute.

use std::time::Duration;

use http::Response;
use serde_json::json;
use tokio::time::Instant;

use super::answer::{Failure, ok};
use super::machines::ulid;
use super::{Call, Fly};
use crate::dialect::SimBody;

const STATES: [&str; 6] = [
    "started",
    "stopped",
    "suspended",
    "destroyed",
    "failed",
    "settled",
];
/// How often the machine's state is checked, in simulated time.
const LOOK: Duration = Duration::from_millis(250);

impl Fly {
    pub(super) async fn wait(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let wanted: Vec<String> = call.query.list("state").map_or_else(
            || vec!["started".to_owned()],
            |list| list.into_iter().map(str::to_owned).collect(),
        );
        if let Some(wrong) = wanted
            .iter()
            .find(|state| !STATES.contains(&state.as_str()))
        {
            return Err(Failure::invalid(format!(
                "invalid_argument: unknown state {wrong}"
            )));
        }
        let seconds = call.number("timeout")?.unwrap_or(60);
        if !(1..=60).contains(&seconds) {
            return Err(Failure::invalid(
                "invalid_argument: timeout: value must be inside range [1s, 1m0s]",
            ));
        }
        let version = call
            .query
            .get("version")
            .or_else(|| call.query.get("instance_id"))
            .map(str::to_owned);
        if version.is_none()
            && wanted.iter().any(|state| state == "stopped")
            && self.shared().quirks.stopped_wait_needs_version
        {
            return Err(Failure::invalid(
                "invalid_argument: instance_id is required to wait for stopped",
            ));
        }
        let clock = self.world.clock();
        let deadline = Instant::now() + clock.real(Duration::from_secs(seconds));
        loop {
            let machine = self.seen(call, id)?;
            let state = self.state(&machine);
            let current = self.version(&machine);
            let settled = matches!(
                state,
                "created" | "started" | "stopped" | "suspended" | "failed" | "destroyed"
            );
            let pinned = version.as_ref().is_none_or(|version| *version == current);
            if pinned
                && wanted
                    .iter()
                    .any(|wanted| wanted == state || (wanted == "settled" && settled))
            {
                let event = ulid(self.shown(machine.created_at), state);
                return Ok(ok(
                    &json!({ "ok": true, "state": state, "event_id": event, "version": current }),
                ));
            }
            let now = Instant::now();
            if now >= deadline {
                let wanted = wanted.join(",");
                return Err(Failure::new(
                    408,
                    format!(
                        "deadline_exceeded: machine failed to reach desired state, {wanted}, \
                            currently {state}"
                    ),
                ));
            }
            tokio::time::sleep_until((now + clock.real(LOOK)).min(deadline)).await;
        }
    }
}
