//! What ties a request to its items and its answer.

use std::fmt::Debug;
use std::future::Future;

use atlas_core::{Error, ErrorKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::request::Request;
use crate::server::RawItems;

/// A request, with the types of what comes back.
pub trait Call:
    Clone + Debug + Serialize + DeserializeOwned + Into<Request> + Send + Sync + 'static
{
    /// What the owner sends before the answer: progress, or the entries of a stream.
    type Item: Serialize + DeserializeOwned + Send + 'static;
    /// The answer.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
}

/// The item of a request that is answered without items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoItem {}

/// An owner's answer to one kind of request.
pub trait Answer<C: Call> {
    /// Answers a request; what precedes the answer is sent to `items`.
    ///
    /// The future is dropped when the client disconnects, so it must be cancel safe; work that must
    /// continue has to be spawned.
    fn answer(
        &self,
        call: C,
        items: Items<C::Item>,
    ) -> impl Future<Output = Result<C::Answer, Error>> + Send;
}

/// Where an owner sends the items of one request.
#[derive(Debug)]
pub struct Items<T>(Sink<T>);

#[derive(Debug)]
enum Sink<T> {
    Channel(mpsc::Sender<T>),
    Line(RawItems),
}

impl<T: Serialize> Items<T> {
    /// Items for a reader in the same process, of which at most `ahead` wait for it.
    #[must_use]
    pub fn channel(ahead: usize) -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(ahead);
        (Self(Sink::Channel(sender)), receiver)
    }

    pub(crate) fn lines(items: RawItems) -> Self {
        Self(Sink::Line(items))
    }

    /// Sends an item, and waits while too many are unread.
    ///
    /// # Errors
    /// `unavailable` when the client has disconnected.
    ///
    /// # Cancel safety
    /// A dropped call has sent the item completely or not at all.
    pub async fn send(&self, item: T) -> Result<(), Error> {
        match &self.0 {
            Sink::Channel(sender) => sender
                .send(item)
                .await
                .map_err(|_| Error::new(ErrorKind::Unavailable, "the client has gone")),
            Sink::Line(items) => items.send(to_json(&item)?).await,
        }
    }
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(value).map_err(|error| {
        Error::new(ErrorKind::Unknown, "an answer could not be encoded").with_source(error)
    })
}
