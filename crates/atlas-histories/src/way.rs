//! The way from one process to a simulated cloud: places to crash at around every call, and a log of the deletions sent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use atlas_core::Timestamp;
use atlas_testkit::dialect::SimBody;
use atlas_testkit::world::World;
use http::{Request, Response};
use tower::Service;

use crate::process::{Places, Process};

/// The deletions that left any process: when, and of what.
pub(crate) type Deletions = Arc<Mutex<Vec<(Timestamp, String)>>>;

/// A dialect in the hands of one process.
#[derive(Clone, Debug)]
pub(crate) struct Way<S> {
    pub(crate) inner: S,
    pub(crate) cloud: &'static str,
    pub(crate) process: Process,
    pub(crate) places: Places,
    pub(crate) world: World,
    pub(crate) deletions: Deletions,
}

impl<S, B> Service<Request<B>> for Way<S>
where
    S: Service<Request<B>, Response = Response<SimBody>, Error = io::Error> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<SimBody>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<SimBody>, io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let way = (self.process.clone(), self.places.clone(), self.world.clone(), self.deletions.clone());
        let place = format!("{} {} {}", self.cloud, request.method(), shape(request.uri().path()));
        Box::pin(async move {
            let (process, places, world, deletions) = way;
            places.pass(&process, &format!("{place} before")).await;
            if request.method() == http::Method::DELETE || request.uri().path().ends_with("/terminate") {
                let target = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                deletions.lock().unwrap_or_else(PoisonError::into_inner).push((world.now(), target));
            }
            let answer = inner.call(request).await;
            places.pass(&process, &format!("{place} after")).await;
            answer
        })
    }
}

/// A path without what is different in each: ids.
fn shape(path: &str) -> String {
    let known = |segment: &str| segment.len() < 10 || segment.contains('-');
    path.split('/').map(|segment| if known(segment) { segment } else { "{id}" }).collect::<Vec<_>>().join("/")
}
