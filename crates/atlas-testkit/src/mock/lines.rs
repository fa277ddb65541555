//! Streams of the mock: existing items, then new ones as they appear.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use atlas_core::Result;
use futures_core::Stream;
use tokio::time::Sleep;

/// The result of reading the source: new items, and whether more can follow.
pub(super) struct Look<T> {
    pub(super) items: Vec<Result<T>>,
    pub(super) more: bool,
}

/// Reads a source repeatedly until it reports that no more items follow.
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
