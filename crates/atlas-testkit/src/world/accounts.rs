//! Permissions: API keys, the accounts they belong to, and the restrictions of an account.

use super::World;

/// An account of a cloud.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(String);

impl Account {
    /// The account's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The restrictions of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// No restriction.
    #[default]
    Good,
    /// Reading only: the key lacks the right to change anything.
    ReadOnly,
    /// No new machines, because the balance is used up.
    NoMoney,
    /// At most this many live machines.
    Quota(u32),
}

impl World {
    /// An account by its name, with or without a key.
    #[must_use]
    pub fn account(&self, name: &str) -> Account {
        Account(name.to_owned())
    }

    /// Gives a new key to an account, which is created if necessary; returns the account.
    pub fn add_key(&self, cloud: &str, key: &str, account: &str) -> Account {
        if let Some(cloud) = self.lock().clouds.get_mut(cloud) {
            cloud.keys.insert(key.to_owned(), account.to_owned());
        }
        Account(account.to_owned())
    }

    /// The account of this key; `None` for a bad or revoked one.
    #[must_use]
    pub fn authorize(&self, cloud: &str, key: &str) -> Option<Account> {
        let state = self.lock();
        let cloud = state.clouds.get(cloud)?;
        let account = cloud
            .keys
            .get(key)
            .filter(|_| !cloud.revoked.contains(key))?;
        Some(Account(if cloud.swapped.contains(key) {
            format!("{account}-other")
        } else {
            account.clone()
        }))
    }

    /// Makes a key invalid.
    pub fn revoke_key(&self, cloud: &str, key: &str) {
        if let Some(cloud) = self.lock().clouds.get_mut(cloud) {
            cloud.revoked.insert(key.to_owned());
        }
    }

    /// Makes a revoked key valid again, and undoes a swap of its account.
    pub fn restore_key(&self, cloud: &str, key: &str) {
        if let Some(cloud) = self.lock().clouds.get_mut(cloud) {
            cloud.revoked.remove(key);
            cloud.swapped.remove(key);
        }
    }

    /// Moves the key to another account; a second call moves it back to the first one.
    pub fn swap_account(&self, cloud: &str, key: &str) {
        if let Some(cloud) = self.lock().clouds.get_mut(cloud)
            && !cloud.swapped.remove(key)
        {
            cloud.swapped.insert(key.to_owned());
        }
    }

    /// Sets the restrictions of an account.
    pub fn set_standing(&self, cloud: &str, account: &Account, standing: Standing) {
        if let Some(cloud) = self.lock().clouds.get_mut(cloud) {
            cloud.standings.insert(account.0.clone(), standing);
        }
    }

    /// The restrictions of an account.
    #[must_use]
    pub fn standing(&self, cloud: &str, account: &Account) -> Standing {
        self.lock()
            .clouds
            .get(cloud)
            .and_then(|cloud| cloud.standings.get(&account.0).copied())
            .unwrap_or_default()
    }
}
