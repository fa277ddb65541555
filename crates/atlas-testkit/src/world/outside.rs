//! Events that the account did not order: other users' machines, manual changes, and actions of the
//! cloud.

use std::collections::BTreeMap;

use super::accounts::Account;
use super::machine::{Machine, MachineSpec};
use super::{Refusal, World};

impl World {
    /// Adds a machine that was made by other means in the same account, with the given name and
    /// tags: foreign, look-alike or of another realm. It is visible at once.
    ///
    /// # Errors
    /// A [`Refusal`], as for any order.
    pub fn plant_machine(
        &self,
        cloud: &str,
        account: &Account,
        spec: MachineSpec,
    ) -> Result<Machine, Refusal> {
        let lag = self.lag(cloud);
        self.set_lag(cloud, super::Lag::default());
        let made = self.create_machine(cloud, account, spec, &self.honest());
        self.set_lag(cloud, lag);
        made
    }

    /// Clones a machine, as another user might: another id with the same name, tags and
    /// environment.
    ///
    /// # Errors
    /// A [`Refusal`], as for any order.
    pub fn clone_machine(&self, cloud: &str, id: &str) -> Result<Machine, Refusal> {
        let original = self.truth(cloud, id).ok_or(Refusal::NotFound)?;
        let account = self.account(&original.account);
        self.plant_machine(cloud, &account, original.spec)
    }

    /// Renames a machine by hand. False if it does not exist.
    pub fn rename_machine(&self, cloud: &str, id: &str, name: &str) -> bool {
        self.change(cloud, id, |machine| name.clone_into(&mut machine.spec.name))
    }

    /// Edits a machine's tags and environment by hand: sets them, or removes all with `None`.
    pub fn retag_machine(
        &self,
        cloud: &str,
        id: &str,
        tags: Option<BTreeMap<String, String>>,
    ) -> bool {
        self.change(cloud, id, |machine| {
            machine.spec.tags = tags.unwrap_or_default();
            machine.spec.env.remove(atlas_core::LAUNCH_KEY_ENV);
        })
    }

    /// Locks or unlocks a machine by hand.
    pub fn lock_machine(&self, cloud: &str, id: &str, locked: bool) -> bool {
        self.change(cloud, id, |machine| machine.locked = locked)
    }

    /// Destroys a machine by hand, locked or not. False if there is no live one.
    pub fn destroy_machine(&self, cloud: &str, id: &str) -> bool {
        self.on_live(cloud, id, |state, now| state.end(cloud, id, now, false))
    }

    /// Stops a machine by hand. False if there is no live one.
    pub fn stop_machine(&self, cloud: &str, id: &str) -> bool {
        self.on_live(cloud, id, |state, now| state.halt(cloud, id, now))
    }

    /// The cloud takes a machine back. False if there is no live one.
    pub fn preempt_machine(&self, cloud: &str, id: &str) -> bool {
        self.on_live(cloud, id, |state, now| state.preempt(cloud, id, now))
    }

    /// A machine vanishes. False if there is no live one.
    pub fn vanish_machine(&self, cloud: &str, id: &str) -> bool {
        self.on_live(cloud, id, |state, now| state.end(cloud, id, now, true))
    }

    /// A machine breaks: it continues to bill, and never runs again by itself. False if there is no
    /// live one.
    pub fn fail_machine(&self, cloud: &str, id: &str) -> bool {
        self.on_live(cloud, id, |state, now| state.fail(cloud, id, now))
    }

    /// How many units a place has left from now on.
    pub fn set_stock(&self, cloud: &str, shape: &str, tier: &str, region: &str, free: u32) {
        if let Some(held) = self.lock().clouds.get_mut(cloud) {
            held.stock
                .insert((shape.to_owned(), tier.to_owned(), region.to_owned()), free);
        }
    }

    /// With a skewed catalogue, everything is said to be in plenty, whatever there is.
    pub fn skew_catalogue(&self, cloud: &str, skewed: bool) {
        if let Some(held) = self.lock().clouds.get_mut(cloud) {
            held.skewed = skewed;
        }
    }

    fn change(&self, cloud: &str, id: &str, change: impl FnOnce(&mut Machine)) -> bool {
        let (mut state, _) = self.at_now();
        state.machine_mut(cloud, id).map(change).is_some()
    }

    fn on_live(
        &self,
        cloud: &str,
        id: &str,
        act: impl FnOnce(&mut super::State, atlas_core::Timestamp),
    ) -> bool {
        let (mut state, now) = self.at_now();
        let live = state.machine(cloud, id).is_some_and(Machine::is_live);
        if live {
            act(&mut state, now);
        }
        live
    }
}
