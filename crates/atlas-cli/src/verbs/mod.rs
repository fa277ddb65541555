//! One file for each verb, or for each few that belong together.

pub(crate) mod care;
pub(crate) mod fly;
pub(crate) mod gpus;
pub(crate) mod job;
pub(crate) mod logs;
pub(crate) mod lost;
pub(crate) mod machine;
pub(crate) mod session;
pub(crate) mod sim;
pub(crate) mod spawn;
pub(crate) mod token;
pub(crate) mod url;

use std::future::poll_fn;

use atlas::BoxStream;

/// The next item of a stream; `None` at its end.
async fn next<T>(stream: &mut BoxStream<T>) -> Option<T> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}
