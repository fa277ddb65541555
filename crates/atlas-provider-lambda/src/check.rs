//! What Lambda would refuse or silently drop, found before any request. Pure.

use atlas_core::{ComputeRequest, Error, Result};
use serde_json::Value;

use crate::candidates::{REGION_WITHOUT_FIREWALL, same_region};

/// Checks for what Lambda would refuse or silently drop, before any request.
pub(crate) fn check(request: &ComputeRequest) -> Result<()> {
    let hinted = !request.region_hints.is_empty()
        && request
            .region_hints
            .iter()
            .all(|hint| same_region(hint, Some(REGION_WITHOUT_FIREWALL)));
    let pinned = request
        .candidate
        .as_ref()
        .is_some_and(|at| at.region.as_deref() == Some(REGION_WITHOUT_FIREWALL));
    if !request.ports.is_empty() && (hinted || pinned) {
        return Err(Error::validation(
            if pinned { "candidate" } else { "region_hints" },
            "lambda applies no firewall rules in us-south-1, so no port can be opened there",
        ));
    }
    if request.image.is_none() && !request.command.is_empty() {
        return Err(Error::validation(
            "command",
            "lambda runs a command only inside an image",
        ));
    }
    if request.ports.iter().any(|port| port.is_symmetric()) {
        return Err(Error::validation(
            "ports",
            "every port of lambda is symmetric already: name the port itself",
        ));
    }
    if !matches!(&request.provider_opts, Value::Null | Value::Object(_)) {
        return Err(Error::validation("provider_opts", "must be an object"));
    }
    crate::cloud_init::script(request, &request.env, false).map(|_| ())
}
