//! The client side: a process that sends requests to the process that holds the store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Outcome};
use atlas_orchestrator::store::StoreOwner;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use crate::call::Call;
use crate::place;
use crate::request::Request;
use crate::wire::{self, Ask, Hello, Line, MAX_ANSWER, MAX_REQUEST, PROTOCOL, Read};

/// How long an owner may take to answer a hello. It answers at once unless it is stopped, or its
/// machine is overloaded.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// A connection to the process that holds a store.
#[derive(Debug)]
pub struct OwnerClient {
    path: PathBuf,
    store: PathBuf,
    /// The owner has answered on this connection, and speaks our version of the protocol.
    greeted: bool,
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
            greeted: false,
            stream: BufReader::new(stream),
        }))
    }

    /// Sends a request and passes each item that precedes the answer to `on_item`; an error from it
    /// ends the call.
    ///
    /// # Errors
    /// The owner's own error, with its kind and outcome. `unavailable` with an unknown outcome when
    /// the owner disconnected before it answered: the request may have been carried out. `timeout`
    /// when the owner does not answer a hello within seconds: it is stopped or hangs.
    /// `unsupported` when it speaks another version of the protocol. In both cases the request was
    /// not sent.
    ///
    /// # Cancel safety
    /// A dropped call may have been carried out; the connection cannot be used any more.
    pub async fn ask<C: Call>(
        &mut self,
        call: C,
        mut on_item: impl FnMut(C::Item) -> Result<(), Error>,
    ) -> Result<C::Answer, Error> {
        let request: Request = call.into();
        let answer = self
            .ask_for(request, |item| on_item(readable(item)?))
            .await?;
        readable(answer)
    }

    /// The same, for any kind of request.
    pub(crate) async fn ask_for(
        &mut self,
        request: impl Serialize,
        mut on_item: impl FnMut(Value) -> Result<(), Error>,
    ) -> Result<Value, Error> {
        let request = Ask::Request(request);
        let line = serde_json::to_vec(&request)
            .map_err(|e| Error::validation("request", "is not JSON").with_source(e))?;
        if line.len() as u64 >= MAX_REQUEST {
            return Err(Error::validation(
                "request",
                format!("is longer than {MAX_REQUEST} bytes"),
            ));
        }
        self.greet().await?;
        if let Err(e) = wire::write(self.stream.get_mut(), &request).await {
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
                Ok(Read::Line(Line::Hello(_)) | Read::End | Read::TooLong | Read::NotJson) => {
                    return Err(self.gone());
                }
                Err(e) => return Err(self.gone().with_source(e)),
            }
        }
    }

    /// Tells the owner which version of the protocol this side speaks, before the first request of
    /// each connection, and checks the owner's.
    async fn greet(&mut self) -> Result<(), Error> {
        if self.greeted {
            return Ok(());
        }
        let first = async {
            let hello = Ask::<Request>::Hello(Hello::OURS);
            // An owner that refuses this client has sent its error and closed its side.
            let _ = wire::write(self.stream.get_mut(), &hello).await;
            wire::read(&mut self.stream, MAX_ANSWER).await
        };
        match tokio::time::timeout(SIGN_OF_LIFE, first).await {
            Ok(Ok(Read::Line(Line::Hello(theirs)))) if theirs == Hello::OURS => {}
            Ok(Ok(Read::Line(Line::Hello(theirs)))) => {
                return Err(self.speaks(&format!("version {}", theirs.protocol)));
            }
            // An owner from before the hello refuses it as a request that it does not know.
            Ok(Ok(Read::Line(Line::Error(fault)))) => match Error::from(fault) {
                error if error.field() == Some("request") => {
                    return Err(self.speaks("a version before 1"));
                }
                error => return Err(error),
            },
            Ok(Ok(Read::Line(Line::Done(_) | Line::Item(_)))) => {
                return Err(self.speaks("a version before 1"));
            }
            Ok(Ok(Read::End | Read::TooLong | Read::NotJson)) => return Err(self.gone()),
            Ok(Err(e)) => return Err(self.gone().with_source(e)),
            Err(_) => return Err(self.hangs()),
        }
        self.greeted = true;
        Ok(())
    }

    /// The owner, for a message: by its note if it left one, and how to name it in a command.
    fn owner(&self) -> (String, Option<u32>) {
        match StoreOwner::of(&self.store) {
            Some(owner) => (
                format!("process {} ({})", owner.pid, owner.program),
                Some(owner.pid),
            ),
            None => ("the process".to_owned(), None),
        }
    }

    fn speaks(&self, theirs: &str) -> Error {
        let (who, _) = self.owner();
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "{who} that holds the store {} speaks {theirs} of the owner protocol, this \
                 command version {PROTOCOL}: restart that process with the release of atlas that \
                 this command is from, or use the command of its release",
                self.store.display()
            ),
        )
        .outcome_is(Outcome::NeverSent)
    }

    fn hangs(&self) -> Error {
        let (who, pid) = self.owner();
        let what_to_do = match pid {
            Some(pid) => format!("continue it (kill -CONT {pid}) or end it (kill {pid})"),
            None => "continue it, or end it".to_owned(),
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

/// Reads an item or an answer of an owner that speaks our version.
fn readable<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| {
        Error::new(
            ErrorKind::Unknown,
            "the process that holds the store sent an answer that this command cannot read",
        )
        .with_source(error)
        .outcome_is(Outcome::Unknown(Vec::new()))
    })
}
