//! Informs sessions of what a walk over their account shows of their machines.

use std::sync::Arc;

use atlas_core::Compute;

use super::account::{Account, Listed};
use super::core::Core;
use super::plausible;
use super::slots::Open;
use crate::kernel::Input;

/// An FNV hash of what is written to it: the same in every run.
struct Hash(u32);

impl std::fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 = text.bytes().fold(self.0, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Ok(())
    }
}

/// A hash of what a session needs to know about its machine. Never 0, which stands for "not seen
/// yet".
fn fingerprint(machine: &Compute) -> u32 {
    use std::fmt::Write as _;
    let mut hash = Hash(0x811c_9dc5);
    let price = machine
        .cost_per_hour
        .map_or(-1, |price| price.per_hour().nanos());
    // Writing to a hash cannot fail.
    let _ = write!(
        hash,
        "{}|{}|{price}|{:?}|{:?}|{}",
        machine.id, machine.status, machine.ready, machine.exit_code, machine.preempted
    );
    for port in &machine.ports {
        let _ = write!(
            hash,
            "|{}:{:?}:{:?}",
            port.internal, port.external, port.url
        );
    }
    hash.0.max(1)
}

/// Informs every session of ours on this account of what a walk shows of its machine. Returns
/// whether the walk was complete and plausible.
pub(super) async fn observe(core: &Arc<Core>, account: &Arc<Account>, listed: &Listed) -> bool {
    let mut missing = Vec::new();
    for Open {
        attempt,
        session,
        seen,
        ..
    } in core.slots.open_attempts(core.account_index(&account.name))
    {
        let mut machines = listed.of_attempt(attempt);
        let (first, second) = (machines.next(), machines.next());
        let print = match (first, second) {
            (None, _) => {
                missing.push((attempt, session));
                continue;
            }
            (Some((_, one)), None) => fingerprint(one),
            // Several machines with one key: always reported.
            (Some(_), Some(_)) => 0,
        };
        if print != 0 && print == seen {
            continue;
        }
        let genuine: Vec<Compute> = listed
            .of_attempt(attempt)
            .filter(|(key, _)| core.is_genuine(key))
            .map(|(_, machine)| machine.clone())
            .collect();
        if genuine.is_empty() {
            missing.push((attempt, session));
            continue;
        }
        core.slots.saw(session, print);
        core.slots
            .tell(session, Some(Input::Found(attempt, genuine)));
    }
    let complete = listed.is_complete()
        && (missing.is_empty() || plausible::is_plausible(core, account, listed).await);
    if complete {
        for (attempt, session) in missing {
            core.slots
                .tell(session, Some(Input::Missing(attempt, listed.begun)));
        }
    }
    complete
}
