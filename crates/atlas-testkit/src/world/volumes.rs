//! Network volumes: named storage in one region, billed until deleted, held by the machines that
//! mount it.

use atlas_core::{Timestamp, Usd, UsdPerHour};

use super::accounts::Account;
use super::life::Refusal;
use super::machine::Machine;
use super::{State, World};

/// A network volume.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Volume {
    /// The volume's id.
    pub id: String,
    /// The account it belongs to.
    pub account: String,
    /// Its name; not unique.
    pub name: String,
    /// Its size, in GB.
    pub size_gb: u32,
    /// Where it is.
    pub region: String,
    /// What kind of storage, in the cloud's word.
    pub kind: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    sizes: Vec<(Timestamp, UsdPerHour)>,
}

/// What a gigabyte costs for an hour: $0.07 a month below a terabyte, $0.05 from there on
/// (docs/clouds/runpod.md).
fn rate(size_gb: u32) -> UsdPerHour {
    UsdPerHour::new(Usd::from_nanos(if size_gb < 1000 {
        95_890
    } else {
        68_493
    }))
    .times(size_gb)
}

impl Volume {
    /// What it cost between two instants.
    #[must_use]
    pub fn billed(&self, from: Timestamp, to: Timestamp) -> Usd {
        let end = self.deleted_at.map_or(to, |deleted| deleted.min(to));
        let ends = self.sizes.iter().skip(1).map(|(at, _)| *at).chain([end]);
        self.sizes
            .iter()
            .zip(ends)
            .filter_map(|((start, rate), until)| {
                rate.cost_of(until.min(end).since((*start).max(from)))
            })
            .sum()
    }
}

impl World {
    /// Makes a volume.
    ///
    /// # Errors
    /// [`Refusal::UnknownRegion`].
    pub fn create_volume(
        &self,
        cloud: &str,
        account: &Account,
        name: &str,
        size_gb: u32,
        region: &str,
        kind: &str,
    ) -> Result<Volume, Refusal> {
        let (mut state, now) = self.at_now();
        let held = state.clouds.get(cloud).ok_or(Refusal::NoSuchCloud)?;
        if held.spec.region(region).is_none() {
            return Err(Refusal::UnknownRegion(region.to_owned()));
        }
        let id = state.dice.word(b"abcdefghijklmnopqrstuvwxyz0123456789", 10);
        let volume = Volume {
            id: id.clone(),
            account: account.as_str().to_owned(),
            name: name.to_owned(),
            size_gb,
            region: region.to_owned(),
            kind: kind.to_owned(),
            created_at: now,
            deleted_at: None,
            sizes: vec![(now, rate(size_gb))],
        };
        if let Some(held) = state.clouds.get_mut(cloud) {
            held.volumes.insert(id, volume.clone());
        }
        Ok(volume)
    }

    /// A volume of an account.
    #[must_use]
    pub fn volume(&self, cloud: &str, account: &Account, id: &str) -> Option<Volume> {
        self.at_now().0.volume(cloud, account, id).cloned()
    }

    /// The volumes of an account, newest first.
    #[must_use]
    pub fn volumes(&self, cloud: &str, account: &Account) -> Vec<Volume> {
        let mut all = self.all_volumes(cloud, account);
        all.retain(|volume| volume.deleted_at.is_none());
        all.reverse();
        all
    }

    /// The volumes of an account, oldest first, deleted ones included.
    #[must_use]
    pub fn all_volumes(&self, cloud: &str, account: &Account) -> Vec<Volume> {
        let (state, _) = self.at_now();
        let volumes = state
            .clouds
            .get(cloud)
            .into_iter()
            .flat_map(|held| held.volumes.values());
        let mut mine: Vec<Volume> = volumes
            .filter(|volume| volume.account == account.as_str())
            .cloned()
            .collect();
        mine.sort_by(|a, b| {
            a.created_at
                .cmp(&b.created_at)
                .then_with(|| a.id.cmp(&b.id))
        });
        mine
    }

    /// Renames a volume, or makes it larger.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::NotNow`] for a smaller size.
    pub fn update_volume(
        &self,
        cloud: &str,
        account: &Account,
        id: &str,
        name: Option<&str>,
        size_gb: Option<u32>,
    ) -> Result<Volume, Refusal> {
        let (mut state, now) = self.at_now();
        let volume = state.volume(cloud, account, id).ok_or(Refusal::NotFound)?;
        if size_gb.is_some_and(|size| size < volume.size_gb) {
            return Err(Refusal::NotNow);
        }
        let volume = state
            .clouds
            .get_mut(cloud)
            .and_then(|held| held.volumes.get_mut(id))
            .ok_or(Refusal::NotFound)?;
        if let Some(name) = name {
            name.clone_into(&mut volume.name);
        }
        if let Some(size) = size_gb {
            volume.size_gb = size;
            volume.sizes.push((now, rate(size)));
        }
        Ok(volume.clone())
    }

    /// Deletes a volume and all that is on it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::NotNow`] while a machine mounts it.
    pub fn delete_volume(&self, cloud: &str, account: &Account, id: &str) -> Result<(), Refusal> {
        let (mut state, now) = self.at_now();
        state.volume(cloud, account, id).ok_or(Refusal::NotFound)?;
        let held = state.clouds.get_mut(cloud).ok_or(Refusal::NoSuchCloud)?;
        let mounts = |machine: &Machine| {
            machine.is_live() && machine.spec.network_volume.as_deref() == Some(id)
        };
        if held.machines.values().any(mounts) {
            return Err(Refusal::NotNow);
        }
        if let Some(volume) = held.volumes.get_mut(id) {
            volume.deleted_at = Some(now);
        }
        Ok(())
    }
}

impl State {
    pub(super) fn volume(&self, cloud: &str, account: &Account, id: &str) -> Option<&Volume> {
        let volume = self.clouds.get(cloud)?.volumes.get(id)?;
        (volume.account == account.as_str() && volume.deleted_at.is_none()).then_some(volume)
    }
}
