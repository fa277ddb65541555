//! Supporting objects of a machine: Vast needs none.
//!
//! An instance's ports are flags of its order, mapped by the host, and its disk is a part of it
//! (docs/clouds/vast.md). A volume that an order would create with it is refused in `check`,
//! because nothing would delete it. So there is nothing to make before an instance and to delete
//! after it.

use atlas_core::{ComputeRequest, LaunchKey, Support};

/// The supporting objects that a machine for this request needs: none.
pub(crate) const fn planned(_key: &LaunchKey, _request: &ComputeRequest) -> Vec<Support> {
    Vec::new()
}
