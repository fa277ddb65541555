//! Leases: the right to change a machine, and its expiry.

use std::time::Duration;

use atlas_core::Timestamp;
use http::Response;
use serde_json::{Value, json};

use super::answer::{Failure, answer, ok};
use super::route::parts;
use super::{Call, Fly};
use crate::dialect::SimBody;

/// The lease of a machine.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    nonce: String,
    pub(super) owner: String,
    pub(super) description: String,
    pub(super) expires_at: Timestamp,
}

const OWNER: &str = "ci@acme.example";

impl Fly {
    /// The lease that is currently valid.
    pub(super) fn held_lease(&self, id: &str) -> Option<Lease> {
        let now = self.world.now();
        self.record(id, |record| record.lease.clone())
            .filter(|lease| lease.expires_at > now)
    }

    /// Fails if another client holds the machine: a change then needs the nonce.
    pub(super) fn unheld(&self, call: &Call<'_>, id: &str) -> Result<(), Failure> {
        match self.held_lease(id) {
            Some(lease) if call.nonce.as_deref() != Some(&*lease.nonce) => {
                Err(self.held_by(id, &lease))
            }
            _ => Ok(()),
        }
    }

    fn held_by(&self, id: &str, lease: &Lease) -> Failure {
        let until = self.shown(lease.expires_at);
        Failure::lease_held(parts(id).0, &format!("{}, expires at {until}", lease.owner))
    }

    /// A new lease, and its nonce.
    pub(super) fn grant(&self, id: &str, seconds: u64, description: &str) -> String {
        let nonce = self.hex(12);
        let lease = Lease {
            nonce: nonce.clone(),
            owner: OWNER.to_owned(),
            description: description.to_owned(),
            expires_at: self
                .world
                .now()
                .saturating_add(Duration::from_secs(seconds)),
        };
        self.record(id, |record| record.lease = Some(lease));
        nonce
    }

    pub(super) fn lease(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        self.seen(call, id)?;
        let lease = self.held_lease(id).ok_or_else(|| {
            Failure::shaped(
                404,
                json!({ "status": "error", "message": "lease not found" }),
            )
        })?;
        Ok(ok(
            &json!({ "status": "success", "data": self.told(&lease, id, false) }),
        ))
    }

    pub(super) fn take_lease(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let machine = self.seen(call, id)?;
        let seconds = body["ttl"]
            .as_u64()
            .or(call.number("ttl")?)
            .filter(|seconds| *seconds > 0);
        let seconds = seconds.ok_or_else(|| Failure::invalid("ttl must be positive"))?;
        let held = self.held_lease(id);
        if let Some(other) = held
            .as_ref()
            .filter(|lease| call.nonce.as_deref() != Some(&*lease.nonce))
        {
            return Err(self.held_by(&machine.id, other));
        }
        let description = body["description"].as_str().unwrap_or_default();
        match held {
            Some(lease) => {
                let expires_at = self
                    .world
                    .now()
                    .saturating_add(Duration::from_secs(seconds));
                self.record(id, |record| {
                    record.lease = Some(Lease {
                        expires_at,
                        ..lease
                    })
                });
            }
            None => drop(self.grant(id, seconds, description)),
        }
        let lease = self.held_lease(id).ok_or_else(Failure::no_machine)?;
        Ok(answer(
            201,
            &json!({ "status": "success", "data": self.told(&lease, id, true) }),
        ))
    }

    pub(super) fn drop_lease(
        &self,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Response<SimBody>, Failure> {
        self.seen(call, id)?;
        self.unheld(call, id)?;
        self.record(id, |record| record.lease = None);
        Ok(ok(&json!({ "status": "success", "data": { "ok": true } })))
    }

    fn told(&self, lease: &Lease, id: &str, nonce: bool) -> Value {
        let version = self
            .world
            .truth(super::NAME, id)
            .map(|machine| self.version(&machine))
            .unwrap_or_default();
        json!({
            "nonce": if nonce { lease.nonce.as_str() } else { "" },
                "expires_at": self.shown(lease.expires_at).unix_seconds(),
            "owner": lease.owner, "description": lease.description, "version": version,
        })
    }
}
