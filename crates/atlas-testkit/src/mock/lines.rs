//! Streams of the mock: what is there already, and what comes while one waits.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use atlas_core::Result;
use futures_core::Stream;
use tokio::time::Sleep;

/// What a look at the source gave: new items, and whether more can come.
pub(super) struct Look<T> {
    pub(super) items: Vec<Result<T>>,
    pub(super) more: bool,
}

/// Looks at a source again and again until it says that nothing more comes.
pub(super) struct Polled<T> {
    look: Box<dyn FnMut() -> Look<T> + Send>,
    pause: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    queue: VecDeque<Result<T>>,
    more: bool,
}

impl<T> Polled<T> {
    pub(super) fn new(pause: Duration, look: impl FnMut() -> Look<T> + Send + 'static) -> Self {
        Self {
            look: Box::new(look),
            pause,
            waiting: None,
            queue: VecDeque::new(),
            more: true,
        }
    }
}

impl<T: Unpin> Stream for Polled<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(item) = this.queue.pop_front() {
                if item.is_err() {
                    this.more = false;
                    this.queue.clear();
                }
                return Poll::Ready(Some(item));
            }
            if !this.more {
                return Poll::Ready(None);
            }
            if let Some(waiting) = &mut this.waiting {
                ready!(waiting.as_mut().poll(cx));
                this.waiting = None;
            }
            let look = (this.look)();
            this.more = look.more;
            this.waiting = (look.more && look.items.is_empty())
                .then(|| Box::pin(tokio::time::sleep(this.pause)));
            this.queue.extend(look.items);
        }
    }
}
