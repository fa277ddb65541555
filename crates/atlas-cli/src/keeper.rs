//! The process that holds the store: this one, or another one behind the owner's socket. Both
//! answer the same requests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atlas::owner::{Answer, Call, Info, Items, OwnerClient, Request, SessionView};
use atlas::{
    Atlas, Error, ErrorKind, Next, Outcome, SessionFilter, SessionId, SessionInfo, SessionState,
    Shutdown,
};
use atlas_orchestrator::AttemptPhase;
use atlas_orchestrator::store::StoreOwner;
use tokio::time::Instant;

use crate::failure::{Done, Failure};
use crate::setup::{LONGEST_WAIT, Setup};

const AHEAD: usize = 16;
/// A holder that is busy asks for a shorter wait than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether the store's holder listens, or has let go of it.
const LOOK: Duration = Duration::from_millis(100);
/// After this long somebody is told what is waited for.
const QUIETLY: Duration = Duration::from_secs(3);
/// How long a process that leaves the store works on ends and orders that are still open, so that
/// what it was asked for has left for the cloud.
const PARTING: Duration = Duration::from_secs(3);

/// Where a verb's keeper is put once it was needed, so that the caller of the verb can release the
/// store, however the verb ended.
pub(crate) type Slot = Option<Keeper>;

/// The store's holder.
pub(crate) enum Keeper {
    /// This process.
    Here(Atlas),
    /// Another process. It is looked up for each request, because it may leave in between; then
    /// this process takes over.
    There(Box<Setup>),
    /// The process that listens beside this store, and no other.
    Only(PathBuf),
}

impl Keeper {
    /// Finds the holder, or becomes it. One that does not listen yet, or not any more, is waited
    /// for.
    pub(crate) async fn find(setup: &Setup) -> Done<Self> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            if OwnerClient::connect(setup.store()).await?.is_some() {
                return Ok(Self::There(Box::new(setup.clone())));
            }
            if let Some(store) = setup.take().await? {
                return Ok(Self::Here(setup.start(store).await?));
            }
            let waited = begun.elapsed();
            if waited >= LONGEST_WAIT {
                return Err(Failure::new(silent(setup.store(), waited)));
            }
            if waited >= QUIETLY && !told {
                tracing::warn!("{}; waiting", silent(setup.store(), waited));
                told = true;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks. What comes before the answer goes to `item`.
    pub(crate) async fn ask<C: Call>(
        &mut self,
        call: C,
        mut item: impl FnMut(C::Item) -> Done,
    ) -> Done<C::Answer>
    where
        Atlas: Answer<C>,
    {
        // An order under an id of its own is there once, however often it is asked for.
        let repeatable = !matches!(call.clone().into(), Request::Spawn(_));
        let begun = Instant::now();
        loop {
            let told = match self {
                Self::Here(atlas) => return here(atlas, call, item).await,
                Self::There(setup) => there(setup.store(), call.clone(), &mut item).await?,
                Self::Only(store) => there(store, call.clone(), &mut item).await?,
            };
            match (told, &*self) {
                (Told::Answer(answer), _) => return Ok(answer),
                (Told::Busy(wait, _), _) if begun.elapsed() < LONGEST_WAIT => {
                    tokio::time::sleep(wait).await;
                }
                (Told::Busy(_, error), _) => return Err(error.into()),
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
    pub(crate) async fn info(&mut self, session: SessionId) -> Done<SessionView> {
        let secrets = false;
        self.ask(Info { session, secrets }, |_| Ok(())).await
    }

    /// Lets go of the store; every machine stays as it is. What is still open is worked on for a
    /// moment before, and named.
    pub(crate) async fn leave(self) -> Done {
        if let Self::Here(atlas) = self {
            say_what_is_left(&atlas).await;
            let report = atlas.shutdown(Shutdown::Handover).await?;
            if !report.flushed {
                return Err(Failure::new("not every touch could be put on record"));
            }
        }
        Ok(())
    }
}

/// Waits a moment for ends and orders of unknown outcome, and says which are left.
async fn say_what_is_left(atlas: &Atlas) {
    let until = Instant::now() + PARTING;
    let left = loop {
        let Ok(sessions) = atlas.list(SessionFilter::live()).await else {
            return;
        };
        let open: Vec<SessionInfo> = sessions.into_iter().filter(is_open).collect();
        if open.is_empty() {
            return;
        }
        if Instant::now() >= until {
            break open;
        }
        tokio::time::sleep(LOOK).await;
    };
    let ids: Vec<String> = left.iter().map(|info| info.id.to_string()).collect();
    tracing::warn!(
        "{} session(s) are not settled: ends to be proved, or orders of unknown outcome. They are \
         worked on only while an atlas process has this store open, such as atlas events \
         --follow: {}",
        ids.len(),
        ids.join(" ")
    );
}

/// Whether something is left to be done that nobody but an atlas process does.
fn is_open(info: &SessionInfo) -> bool {
    let unsettled = |phase| matches!(phase, AttemptPhase::Calling | AttemptPhase::Unknown);
    info.state == SessionState::Terminating
        || info.attempts.iter().any(|attempt| {
            unsettled(attempt.phase)
                || attempt.terminating.is_some() && attempt.phase == AttemptPhase::Live
        })
}

/// What is known of a holder that does not answer.
fn silent(store: &Path, waited: Duration) -> String {
    let who = StoreOwner::of(store).map_or_else(
        || "a process that left no note".to_owned(),
        |owner| {
            format!(
                "process {} ({}), since {}",
                owner.pid, owner.program, owner.since
            )
        },
    );
    format!(
        "the store {} is held by {who}, which has not answered on its socket for {} s: it is \
         starting or leaving, or it is stopped or hangs",
        store.display(),
        waited.as_secs()
    )
}

async fn here<C: Call>(
    atlas: &Atlas,
    call: C,
    mut item: impl FnMut(C::Item) -> Done,
) -> Done<C::Answer>
where
    Atlas: Answer<C>,
{
    let (sender, mut items) = Items::channel(AHEAD);
    let mut answer = std::pin::pin!(atlas.answer(call, sender));
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

enum Told<T> {
    Answer(T),
    Gone(Error),
    /// The holder answers too many clients, and asks to be asked again after this time.
    Busy(Duration, Error),
}

async fn there<C: Call>(
    store: &Path,
    call: C,
    item: &mut impl FnMut(C::Item) -> Done,
) -> Done<Told<C::Answer>> {
    let Some(mut client) = OwnerClient::connect(store).await? else {
        return Ok(Told::Gone(Error::new(
            ErrorKind::Unavailable,
            "the process that held the store has ended",
        )));
    };
    let mut stopped = None;
    let answer = client
        .ask(call, |value| {
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
        Err(error) => match (error.outcome(), error.retry_after()) {
            (Outcome::NotApplied(Next::SameLater), Some(wait)) if wait <= LONGEST_PAUSE => {
                Ok(Told::Busy(wait, error))
            }
            _ => Err(error.into()),
        },
    }
}
