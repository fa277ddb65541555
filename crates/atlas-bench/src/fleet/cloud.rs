//! A cloud that does at once whatever it is asked, so that only our own work is measured.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use atlas_core::{
    CallContext, Candidate, Capabilities, Capability, Compute, ComputeId, ComputeRequest,
    ComputeStatus, Error, ErrorKind, GpuType, KeyCarriers, LaunchKey, ListFilter, Listing,
    Presence, Provider, ProviderId, Result,
};
use tokio::time::Instant;

/// What it has done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    made: u64,
    ended: BTreeSet<ComputeId>,
    last_end: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(crate) struct Obliging {
    id: ProviderId,
    done: Arc<Mutex<Done>>,
}

impl Obliging {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            id: ProviderId::new("mock")?,
            done: Arc::default(),
        })
    }

    /// How many machines were ended, and when the last of them was.
    pub(crate) fn ends(&self) -> (usize, Option<Instant>) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        (done.ended.len(), done.last_end)
    }

    fn running(&self, id: ComputeId) -> Compute {
        let mut compute = Compute::new(id, self.id.clone(), ComputeStatus::Running);
        compute.ready = Some(true);
        compute
    }
}

impl Provider for Obliging {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::from([
            Capability::Gpu,
            Capability::ContainerImage,
            Capability::HttpProxy,
            Capability::Prices,
        ])
    }

    async fn identity(&self, _cx: &CallContext) -> Result<String> {
        Ok("me".to_owned())
    }

    async fn candidates(
        &self,
        _cx: &CallContext,
        _request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        Ok(vec![Candidate::default()])
    }

    async fn spawn_compute(
        &self,
        cx: &CallContext,
        key: &LaunchKey,
        _request: &ComputeRequest,
    ) -> Result<Compute> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.made += 1;
        let mut compute = self.running(ComputeId::new(format!("made-{}", done.made))?);
        compute.keys = KeyCarriers::name_only(&key.machine_name(cx.name_prefix(), None));
        Ok(compute)
    }

    async fn get_compute(&self, _cx: &CallContext, id: &ComputeId) -> Result<Compute> {
        if self
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended
            .contains(id)
        {
            return Err(Error::new(ErrorKind::NotFound, "no such machine"));
        }
        Ok(self.running(id.clone()))
    }

    /// Machines under termination are gone from it at once; the others' sessions are not asked
    /// after.
    async fn list_compute(&self, _cx: &CallContext, _filter: &ListFilter) -> Result<Listing> {
        Ok(Listing::complete(Vec::new()))
    }

    async fn presence(&self, _cx: &CallContext, id: &ComputeId) -> Presence {
        let ended = self
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended
            .contains(id);
        if ended {
            Presence::Absent
        } else {
            Presence::Present
        }
    }

    async fn terminate(&self, _cx: &CallContext, id: &ComputeId) -> Result<()> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if done.ended.insert(id.clone()) {
            done.last_end = Some(Instant::now());
        }
        Ok(())
    }

    async fn list_gpu_types(&self, _cx: &CallContext) -> Result<Vec<GpuType>> {
        Ok(Vec::new())
    }
}
