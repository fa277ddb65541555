//! Where tokens outlive the process: the trait, its handle, and the store that forgets.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use atlas_core::{Result, Timestamp};

use crate::app_name::AppName;
use crate::token::form::FlyToken;

/// Which of an app's two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenSlot {
    /// A token that atlas had minted. It can be had again.
    Cached,
    /// A token that an operator gave. It cannot.
    Manual,
}

impl TokenSlot {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Manual => "manual",
        }
    }
}

/// A token as it is kept.
#[derive(Clone, Debug)]
pub struct StoredToken {
    /// The token.
    pub token: FlyToken,
    /// When it ends; `None` where that is not known.
    pub expires_at: Option<Timestamp>,
    /// The name it was minted under, by which it is found again to be revoked.
    pub name: Option<String>,
}

/// Keeps tokens. Use through [`AnyTokenStore`]; prove with the conformance suite.
pub trait TokenStore: Debug + Send + Sync + 'static {
    /// The record, if there is one. A `Cached` record that cannot be read is dropped and counts as
    /// none.
    ///
    /// # Errors
    /// When the store cannot answer, or a `Manual` record cannot be read: it is then left as it is.
    fn get(
        &self,
        app: &AppName,
        slot: TokenSlot,
    ) -> impl Future<Output = Result<Option<StoredToken>>> + Send;

    /// Keeps the record, over an earlier one; durable when it returns, where the store is.
    ///
    /// # Errors
    /// When it could not be kept; the earlier record then still stands.
    fn put(
        &self,
        app: &AppName,
        slot: TokenSlot,
        record: StoredToken,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Forgets the record; nothing happens where there is none.
    ///
    /// # Errors
    /// When the store cannot.
    fn delete(&self, app: &AppName, slot: TokenSlot) -> impl Future<Output = Result<()>> + Send;
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

trait Erased: Debug + Send + Sync {
    fn get<'a>(
        &'a self,
        app: &'a AppName,
        slot: TokenSlot,
    ) -> BoxFuture<'a, Result<Option<StoredToken>>>;
    fn put<'a>(
        &'a self,
        app: &'a AppName,
        slot: TokenSlot,
        record: StoredToken,
    ) -> BoxFuture<'a, Result<()>>;
    fn delete<'a>(&'a self, app: &'a AppName, slot: TokenSlot) -> BoxFuture<'a, Result<()>>;
}

impl<S: TokenStore> Erased for S {
    fn get<'a>(
        &'a self,
        app: &'a AppName,
        slot: TokenSlot,
    ) -> BoxFuture<'a, Result<Option<StoredToken>>> {
        Box::pin(TokenStore::get(self, app, slot))
    }

    fn put<'a>(
        &'a self,
        app: &'a AppName,
        slot: TokenSlot,
        record: StoredToken,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(TokenStore::put(self, app, slot, record))
    }

    fn delete<'a>(&'a self, app: &'a AppName, slot: TokenSlot) -> BoxFuture<'a, Result<()>> {
        Box::pin(TokenStore::delete(self, app, slot))
    }
}

/// Any store, ours or yours. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AnyTokenStore(Arc<dyn Erased>);

impl AnyTokenStore {
    /// Wraps a store.
    #[must_use]
    pub fn new(store: impl TokenStore) -> Self {
        Self(Arc::new(store))
    }

    /// See [`TokenStore::get`].
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, app: &AppName, slot: TokenSlot) -> Result<Option<StoredToken>> {
        self.0.get(app, slot).await
    }

    /// See [`TokenStore::put`].
    ///
    /// # Errors
    /// As there.
    pub async fn put(&self, app: &AppName, slot: TokenSlot, record: StoredToken) -> Result<()> {
        self.0.put(app, slot, record).await
    }

    /// See [`TokenStore::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, app: &AppName, slot: TokenSlot) -> Result<()> {
        self.0.delete(app, slot).await
    }
}

/// Keeps tokens for as long as the process lives.
#[derive(Debug, Default)]
pub struct MemoryTokenStore(Mutex<BTreeMap<(AppName, TokenSlot), StoredToken>>);

impl TokenStore for MemoryTokenStore {
    async fn get(&self, app: &AppName, slot: TokenSlot) -> Result<Option<StoredToken>> {
        Ok(self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(app.clone(), slot))
            .cloned())
    }

    async fn put(&self, app: &AppName, slot: TokenSlot, record: StoredToken) -> Result<()> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((app.clone(), slot), record);
        Ok(())
    }

    async fn delete(&self, app: &AppName, slot: TokenSlot) -> Result<()> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(app.clone(), slot));
        Ok(())
    }
}
