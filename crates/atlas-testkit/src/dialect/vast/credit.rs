//! Prepaid credit: what an account has used, and what happens to its machines when nothing is left.
//! It is evaluated at each call.

use atlas_core::{Usd, UsdPerHour};

use super::Vast;
use super::envelope::Failure;
use super::stock::NAME;
use crate::world::{Account, Machine, MachineState, Refusal};

/// What a host asks for each GB that is downloaded, in nano-dollars.
const DOWNLOAD_NANOS: i64 = 2_000_000;

impl Vast {
    /// The cost of pulling a machine's image: zero before it runs.
    pub(super) fn pulled(&self, machine: &Machine) -> Usd {
        let gb = self.shared().quirks.image_gb;
        if machine.ran() {
            Usd::from_nanos(DOWNLOAD_NANOS * i64::from(gb))
        } else {
            Usd::ZERO
        }
    }

    /// What is left of an account's money.
    pub(super) fn credit(&self, account: &Account) -> Usd {
        const ENOUGH: Usd = Usd::from_cents(2500);
        let Some(credit) = self.shared().quirks.credit else {
            return ENOUGH;
        };
        let now = self.world.now();
        let used: Usd = self
            .machines_of(account)
            .iter()
            .map(|machine| machine.billed(now) + self.pulled(machine))
            .sum();
        Usd::from_nanos((credit.nanos() - used.nanos()).max(0))
    }

    /// Fails if no credit is left.
    pub(super) fn solvent(&self, account: &Account) -> Result<(), Failure> {
        if self.credit(account) > Usd::ZERO {
            Ok(())
        } else {
            Err(Refusal::NoMoney.into())
        }
    }

    /// An account without credit has nothing running, and after a while no machines at all.
    pub(super) fn collect(&self, account: &Account) {
        if self.shared().quirks.credit.is_none() || self.credit(account) > Usd::ZERO {
            self.shared().broke.remove(account.as_str());
            return;
        }
        let now = self.world.now();
        let (since, kept) = {
            let mut shared = self.shared();
            (
                *shared
                    .broke
                    .entry(account.as_str().to_owned())
                    .or_insert(now),
                shared.quirks.keeps_unpaid,
            )
        };
        for machine in self
            .machines_of(account)
            .into_iter()
            .filter(Machine::is_live)
        {
            if now.since(since) >= kept {
                self.world.destroy_machine(NAME, &machine.id);
            } else if machine.burn() > UsdPerHour::ZERO && machine.state != MachineState::Stopped {
                self.world.stop_machine(NAME, &machine.id);
                self.note(&machine.id, |note| note.stopped = true);
            }
        }
    }

    fn machines_of(&self, account: &Account) -> Vec<Machine> {
        self.world
            .all(NAME)
            .into_iter()
            .filter(|machine| machine.account == account.as_str())
            .collect()
    }
}
