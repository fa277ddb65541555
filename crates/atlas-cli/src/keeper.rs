//! Whoever holds the store: this process, or another one behind the owner's socket. Both answer the
//! same requests.

use std::path::{Path, PathBuf};

use atlas::owner::{self, Request};
use atlas::{Atlas, Error, ErrorKind, SessionId, Shutdown};
use atlas_orchestrator::owner::OwnerClient;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::failure::{Done, Failure};
use crate::setup::Setup;

const AHEAD: usize = 16;

/// Where a verb's keeper is put once it was needed, so that whoever runs the verb can let go of the
/// store, however the verb ended.
pub(crate) type Slot = Option<Keeper>;

/// The store's holder.
pub(crate) enum Keeper {
    /// This process.
    Here(Atlas),
    /// Another process, asked anew each time: it may leave in between, and this one takes over.
    There(Box<Setup>),
    /// The process that listens beside this store, and no other.
    Only(PathBuf),
}

impl Keeper {
    /// Finds the holder, or becomes it.
    pub(crate) async fn find(setup: &Setup) -> Done<Self> {
        if OwnerClient::connect(setup.store()).await?.is_some() {
            return Ok(Self::There(Box::new(setup.clone())));
        }
        Ok(Self::Here(setup.open().await?))
    }

    /// Asks. What comes before the answer goes to `item`.
    pub(crate) async fn ask(
        &mut self,
        request: Request,
        mut item: impl FnMut(Value) -> Done,
    ) -> Done<Value> {
        let repeatable = !matches!(request, Request::Spawn { .. });
        loop {
            let told = match self {
                Self::Here(atlas) => return here(atlas, request, item).await,
                Self::There(setup) => there(setup.store(), &request, &mut item).await?,
                Self::Only(store) => there(store, &request, &mut item).await?,
            };
            match (told, &*self) {
                (Told::Answer(answer), _) => return Ok(answer),
                // The holder ended. What may be asked twice is asked of the next holder, or done
                // here.
                (Told::Gone(_), Self::There(setup)) if repeatable => {
                    *self = Self::find(&setup.clone()).await?
                }
                (Told::Gone(error), _) => {
                    return Err(Failure::from(error)
                        .goes_on_with("atlas ls, which shows whether there is a session"));
                }
            }
        }
    }

    /// What is known of a session.
    pub(crate) async fn info(&mut self, session: SessionId) -> Done<Value> {
        self.ask(
            Request::Info {
                session,
                secrets: false,
            },
            |_| Ok(()),
        )
        .await
    }

    /// Lets go of the store; every machine stays as it is.
    pub(crate) async fn leave(self) -> Done {
        if let Self::Here(atlas) = self {
            let report = atlas.shutdown(Shutdown::Handover).await?;
            if !report.flushed {
                return Err(Failure::new("not every touch could be put on record"));
            }
        }
        Ok(())
    }
}

async fn here(atlas: &Atlas, request: Request, mut item: impl FnMut(Value) -> Done) -> Done<Value> {
    let (sender, mut items) = mpsc::channel(AHEAD);
    let mut answer = std::pin::pin!(owner::answer(atlas, request, sender));
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            next = items.recv(), if open => match next {
                Some(value) => item(value)?,
                None => open = false,
            },
            done = &mut answer => {
                while let Ok(value) = items.try_recv() {
                    item(value)?;
                }
                return Ok(done?);
            }
        }
    }
}

enum Told {
    Answer(Value),
    Gone(Error),
}

async fn there(
    store: &Path,
    request: &Request,
    item: &mut impl FnMut(Value) -> Done,
) -> Done<Told> {
    let Some(mut client) = OwnerClient::connect(store).await? else {
        return Ok(Told::Gone(Error::new(
            ErrorKind::Unavailable,
            "the process that held the store has ended",
        )));
    };
    let request = serde_json::to_value(request).map_err(|error| Failure::new(error.to_string()))?;
    let mut stopped = None;
    let answer = client
        .ask(&request, |value| {
            item(value).map_err(|failure| {
                stopped = Some(failure);
                Error::new(ErrorKind::Unknown, "not wanted any more")
            })
        })
        .await;
    if let Some(failure) = stopped {
        return Err(failure);
    }
    match answer {
        Ok(answer) => Ok(Told::Answer(answer)),
        // The answer itself never has an unknown outcome of this kind without a provider.
        Err(error) if error.kind() == ErrorKind::Unavailable && error.outcome().is_unknown() => {
            Ok(Told::Gone(error))
        }
        Err(error) => Err(error.into()),
    }
}
