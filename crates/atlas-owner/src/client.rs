//! The client side: a process that sends requests to the process that holds the store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Outcome};
use atlas_orchestrator::store::StoreOwner;
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use crate::place;
use crate::wire::{self, Line, MAX_ANSWER, MAX_REQUEST, Read};

/// How long an owner may take to answer a ping. It answers at once unless it is stopped, or its
/// machine is overloaded.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// A connection to the process that holds a store.
#[derive(Debug)]
pub struct OwnerClient {
    path: PathBuf,
    store: PathBuf,
    /// The owner has answered on this connection.
    lives: bool,
    stream: BufReader<UnixStream>,
}

impl OwnerClient {
    /// Connects to the owner of this store. `None` if there is none: no store, no socket, or a
    /// socket that a dead owner left behind.
    ///
    /// # Errors
    /// `forbidden` when the socket belongs to another user; `unavailable` when it exists and cannot
    /// be connected to.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect(store: &Path) -> Result<Option<Self>, Error> {
        let Ok(path) = place::socket_of(store) else {
            return Ok(None);
        };
        if !path.exists() {
            return Ok(None);
        }
        place::check_directory(&path, store)?;
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            // Connection refused: a socket without a listener.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(place::failed(&path, "cannot be connected to", Some(e))),
        };
        let whose = stream
            .peer_cred()
            .map(|c| c.uid())
            .map_err(|e| place::failed(&path, "does not say whose it is", Some(e)))?;
        let (own, stores) = (place::own_uid().ok(), owner_of(store).ok());
        if Some(whose) != own && Some(whose) != stores {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("the socket {} is another user's", path.display()),
            ));
        }
        Ok(Some(Self {
            path,
            store: store.to_owned(),
            lives: false,
            stream: BufReader::new(stream),
        }))
    }

    /// Sends a request and passes each item that precedes the answer to `on_item`; an error from it
    /// ends the call.
    ///
    /// # Errors
    /// The owner's own error, with its kind and outcome. `unavailable` with an unknown outcome when
    /// the owner disconnected before it answered: the request may have been carried out. `timeout`
    /// when the owner does not answer a ping within seconds: it is stopped or hangs, and the
    /// request was not sent.
    ///
    /// # Cancel safety
    /// A dropped call may have been carried out; the connection cannot be used any more.
    pub async fn ask(
        &mut self,
        request: &Value,
        mut on_item: impl FnMut(Value) -> Result<(), Error>,
    ) -> Result<Value, Error> {
        let line = serde_json::to_vec(request)
            .map_err(|e| Error::validation("request", "is not JSON").with_source(e))?;
        if line.len() as u64 >= MAX_REQUEST {
            return Err(Error::validation(
                "request",
                format!("is longer than {MAX_REQUEST} bytes"),
            ));
        }
        self.see_it_live().await?;
        if let Err(e) = wire::write(self.stream.get_mut(), request).await {
            // The owner may have sent an error before it disconnected.
            if let Ok(Read::Line(Line::Error(fault))) =
                wire::read(&mut self.stream, MAX_ANSWER).await
            {
                return Err(fault.into());
            }
            return Err(self.gone().with_source(e));
        }
        loop {
            match wire::read(&mut self.stream, MAX_ANSWER).await {
                Ok(Read::Line(Line::Item(item))) => on_item(item)?,
                Ok(Read::Line(Line::Done(value))) => return Ok(value),
                Ok(Read::Line(Line::Error(fault))) => return Err(fault.into()),
                Ok(Read::End | Read::TooLong | Read::NotJson) => return Err(self.gone()),
                Err(e) => return Err(self.gone().with_source(e)),
            }
        }
    }

    /// Pings the owner before the first request of each connection.
    async fn see_it_live(&mut self) -> Result<(), Error> {
        if self.lives {
            return Ok(());
        }
        let first = async {
            // An owner that refuses this client has sent its error and closed its side.
            let _ = wire::write(self.stream.get_mut(), &wire::ping()).await;
            wire::read(&mut self.stream, MAX_ANSWER).await
        };
        match tokio::time::timeout(SIGN_OF_LIFE, first).await {
            Ok(Ok(Read::Line(Line::Done(_) | Line::Item(_)))) => {}
            // An owner of an older version does not know the ping, but its answer shows that it is
            // alive.
            Ok(Ok(Read::Line(Line::Error(fault)))) => match Error::from(fault) {
                error if error.field() == Some("request") => {}
                error => return Err(error),
            },
            Ok(Ok(Read::End | Read::TooLong | Read::NotJson)) => return Err(self.gone()),
            Ok(Err(e)) => return Err(self.gone().with_source(e)),
            Err(_) => return Err(self.hangs()),
        }
        self.lives = true;
        Ok(())
    }

    fn hangs(&self) -> Error {
        let (who, what_to_do) = match StoreOwner::of(&self.store) {
            Some(owner) => (
                format!("process {} ({})", owner.pid, owner.program),
                format!(
                    "continue it (kill -CONT {0}) or end it (kill {0})",
                    owner.pid
                ),
            ),
            None => (
                "the process".to_owned(),
                "continue it, or end it".to_owned(),
            ),
        };
        Error::new(
            ErrorKind::Timeout,
            format!(
                "{who} holds the store {} and has not answered its socket for {} s: it is \
                 stopped, or hangs; {what_to_do}",
                self.store.display(),
                SIGN_OF_LIFE.as_secs()
            ),
        )
        .outcome_is(Outcome::NeverSent)
    }

    fn gone(&self) -> Error {
        let message = format!(
            "the owner behind {} went away before it answered",
            self.path.display()
        );
        Error::new(ErrorKind::Unavailable, message).outcome_is(Outcome::Unknown(Vec::new()))
    }
}

fn owner_of(store: &Path) -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(store)?.uid())
}
