//! What an account's handle remembers of its own actions, because Vast's answers do not contain it:
//! hosts that failed, and our starts and stops.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{Clock, ComputeId, Timestamp};

/// How long a host that failed is avoided; it would remain the cheapest.
const BAD_FOR: Duration = Duration::from_secs(3600);
/// How long the old `exited` may be shown after a start.
const EXITED_FOR: Duration = Duration::from_secs(240);
/// The maximum number of entries of each kind.
const MOST: usize = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct Memory {
    clock: Arc<dyn Clock>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    bad_hosts: BTreeMap<u64, Timestamp>,
    started: BTreeMap<ComputeId, Timestamp>,
    stopped: BTreeMap<ComputeId, Timestamp>,
}

fn remember<K: Ord + Clone>(map: &mut BTreeMap<K, Timestamp>, key: K, now: Timestamp) {
    map.insert(key, now);
    if map.len() > MOST
        && let Some(oldest) = map
            .iter()
            .min_by_key(|(_, at)| **at)
            .map(|(key, _)| key.clone())
    {
        map.remove(&oldest);
    }
}

impl Memory {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            inner: Arc::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn host_failed(&self, machine: u64) {
        remember(&mut self.inner().bad_hosts, machine, self.clock.now());
    }

    pub(crate) fn is_bad(&self, machine: u64) -> bool {
        self.inner()
            .bad_hosts
            .get(&machine)
            .is_some_and(|at| self.clock.now().since(*at) < BAD_FOR)
    }

    pub(crate) fn started(&self, id: &ComputeId) {
        let mut inner = self.inner();
        inner.stopped.remove(id);
        remember(&mut inner.started, id.clone(), self.clock.now());
    }

    pub(crate) fn stopped(&self, id: &ComputeId) {
        let mut inner = self.inner();
        inner.started.remove(id);
        remember(&mut inner.stopped, id.clone(), self.clock.now());
    }

    pub(crate) fn gone(&self, id: &ComputeId) {
        let mut inner = self.inner();
        inner.started.remove(id);
        inner.stopped.remove(id);
    }

    /// We started it a moment ago: `exited` may still be the old state.
    pub(crate) fn lately_started(&self, id: &ComputeId) -> bool {
        self.inner()
            .started
            .get(id)
            .is_some_and(|at| self.clock.now().since(*at) < EXITED_FOR)
    }

    /// We stopped it: it was not outbid.
    pub(crate) fn stopped_by_us(&self, id: &ComputeId) -> bool {
        self.inner().stopped.contains_key(id)
    }
}
