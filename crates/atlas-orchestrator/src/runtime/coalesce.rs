//! Shares one call among all its callers. A caller during a running call gets the answer of the
//! next one, which started after the request, or joins the running one if its answer is new enough.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::spawner::Spawner;

type Run<T> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// A call whose answer is shared by many callers.
pub(crate) struct Coalesce<T>(Arc<Shared<T>>);

struct Shared<T> {
    run: Run<T>,
    spawner: Arc<dyn Spawner>,
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: Vec<oneshot::Sender<T>>,
    /// Callers that accept the answer of the running call.
    joined: Vec<oneshot::Sender<T>>,
    running: bool,
}

impl<T> State<T> {
    /// Records that no call is running.
    fn stop(&mut self) {
        self.running = false;
        self.joined.clear();
    }
}

impl<T: Clone + Send + 'static> Coalesce<T> {
    pub(crate) fn new(spawner: Arc<dyn Spawner>, run: Run<T>) -> Self {
        Self(Arc::new(Shared {
            run,
            spawner,
            state: Mutex::new(State {
                waiting: Vec::new(),
                joined: Vec::new(),
                running: false,
            }),
        }))
    }

    /// The answer of the running call, however long ago it started, or of one that starts now;
    /// `None` when the runtime is shutting down.
    pub(crate) async fn join(&self) -> Option<T> {
        let receiver = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running.then(|| {
                let (sender, receiver) = oneshot::channel();
                state.joined.push(sender);
                receiver
            })
        };
        match receiver {
            // If the call panicked, another is started.
            Some(receiver) => match receiver.await {
                Ok(answer) => Some(answer),
                Err(_) => self.ask().await,
            },
            None => self.ask().await,
        }
    }

    /// The answer of a call that starts after this request; `None` when the runtime is shutting
    /// down.
    pub(crate) async fn ask(&self) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let start = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.waiting.push(sender);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            let shared = self.0.clone();
            self.0.spawner.spawn("coalesce", Box::pin(shared.serve()));
        }
        receiver.await.ok()
    }
}

/// Frees the slot even when the call panics, so that the next caller starts another.
struct Running<T> {
    shared: Arc<Shared<T>>,
    done: bool,
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if !self.done {
            self.shared
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .stop();
        }
    }
}

impl<T: Clone + Send + 'static> Shared<T> {
    async fn serve(self: Arc<Self>) {
        let mut running = Running {
            shared: self.clone(),
            done: false,
        };
        loop {
            let waiting = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.waiting.is_empty() {
                    state.stop();
                    running.done = true;
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            let answer = (self.run)().await;
            let joined = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut state.joined)
            };
            for waiter in waiting.into_iter().chain(joined) {
                // A caller that stopped waiting needs no answer.
                let _ = waiter.send(answer.clone());
            }
        }
    }
}

impl<T> fmt::Debug for Coalesce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coalesce")
    }
}
