//! One call for everybody who waits: who asks while one is under way gets the next, which began
//! after they asked, or joins the one under way where its answer is new enough.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::spawner::Spawner;

type Run<T> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// A call that many want the answer of.
pub(crate) struct Coalesce<T>(Arc<Shared<T>>);

struct Shared<T> {
    run: Run<T>,
    spawner: Arc<dyn Spawner>,
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: Vec<oneshot::Sender<T>>,
    /// Those who take the answer of the call under way.
    joined: Vec<oneshot::Sender<T>>,
    running: bool,
}

impl<T> State<T> {
    /// No call is under way any more.
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

    /// The answer of the call under way, however long ago it began, or of one that begins now;
    /// `None` when the runtime is being torn down.
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
            // Where the call panicked, another is begun.
            Some(receiver) => match receiver.await {
                Ok(answer) => Some(answer),
                Err(_) => self.ask().await,
            },
            None => self.ask().await,
        }
    }

    /// The answer of a call that begins after now; `None` when the runtime is being torn down.
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

/// Frees the slot also when the call panics, so that the next asker starts another.
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
                // Who stopped waiting needs no answer.
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
