//! The side of a process that wants something of whoever holds the store.

use std::io;
use std::path::{Path, PathBuf};

use atlas_core::{Error, ErrorKind, Outcome};
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::place;
use super::wire::{self, Line, MAX_ANSWER, MAX_REQUEST, Read};

/// A connection to the process that holds a store.
#[derive(Debug)]
pub struct OwnerClient {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl OwnerClient {
    /// Connects to the owner of this store. `None` when there is none: no store, no socket, or one
    /// that a dead owner left.
    ///
    /// # Errors
    /// `forbidden` when the socket is another user's; `unavailable` when it is there and cannot be
    /// connected to.
    ///
    /// # Cancel safety
    /// Yes.
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
            // Refused: a socket without a listener.
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
        let (own, store) = (place::own_uid().ok(), owner_of(store).ok());
        if Some(whose) != own && Some(whose) != store {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("the socket {} is another user's", path.display()),
            ));
        }
        Ok(Some(Self {
            path,
            stream: BufReader::new(stream),
        }))
    }

    /// Asks, and gives each item that comes before the answer to `on_item`, whose error ends the
    /// call.
    ///
    /// # Errors
    /// The owner's own error, with its kind and outcome. `unavailable` with an unknown outcome when
    /// the owner went away before it answered: what was asked may have been done.
    ///
    /// # Cancel safety
    /// A dropped call may have been done; the connection cannot be used any more.
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
        if let Err(e) = wire::write(self.stream.get_mut(), request).await {
            // It may have said why before it left.
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
