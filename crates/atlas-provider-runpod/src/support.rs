//! Supporting objects of a machine: RunPod needs none.
//!
//! A pod's ports are opened by its own order, HTTP through RunPod's proxy and TCP by a mapping on
//! the host (docs/clouds/runpod.md), and its volume is a part of the pod. So there is nothing that
//! would have to be made before a pod and deleted after it.

use atlas_core::{ComputeRequest, LaunchKey, Support};

/// The supporting objects that a machine for this request needs: none.
pub(crate) const fn planned(_key: &LaunchKey, _request: &ComputeRequest) -> Vec<Support> {
    Vec::new()
}
