//! The documented calls that this Lambda does not serve, because no machine of atlas needs them:
//! each is answered 501 with the name that Lambda's document gives it.

use http::Method;

use crate::dialect::unserved::documented;

/// Method, path after `/api/v1/` (`*` for one segment) and operation id, as in Lambda's document.
const CALLS: &[(&str, &str, &str)] = &[
    ("POST", "fabric", "createFabricPartition"),
    ("DELETE", "fabric/*", "deleteFabricPartition"),
    ("POST", "fabric/*", "updateFabricPartition"),
    ("GET", "tickets", "listTickets"),
    ("POST", "tickets", "createTicket"),
    ("GET", "tickets/*", "getTicket"),
    ("PATCH", "tickets/*", "updateTicket"),
    ("GET", "tickets/*/attachments", "listAttachments"),
    ("POST", "tickets/*/attachments", "initiateAttachmentUpload"),
    ("DELETE", "tickets/*/attachments/*", "deleteAttachment"),
    (
        "POST",
        "tickets/*/attachments/*/complete",
        "completeAttachmentUpload",
    ),
    (
        "GET",
        "tickets/*/attachments/*/download",
        "getAttachmentDownloadUrl",
    ),
];

/// The name of a call that is documented and not served.
pub(super) fn name(method: &Method, path: &str) -> Option<&'static str> {
    documented(CALLS, method, path.strip_prefix("/api/v1/")?)
}
