//! Tasks whose machine tries to delete itself when the command has ended.

use atlas_core::{Capability, ComputeRequest};

use super::account::Account;
use crate::options::SessionOptions;
use crate::session::SessionKind;

/// The request of a session as it will be ordered, and whether its machine deletes itself after its
/// command. A task asks for that if the account's provider offers it for this request.
pub(crate) fn request_self_ending(
    account: &Account,
    request: ComputeRequest,
    kind: SessionKind,
    options: &SessionOptions,
) -> (ComputeRequest, bool) {
    let offered = account.provider.capabilities();
    let mut request = request;
    if kind == SessionKind::Task
        && !options.keep_finished
        && offered.has(Capability::EndsWithCommand)
    {
        let asked = request.clone().ends_with_command(true);
        if account.check(&asked).is_ok() {
            request = asked;
        }
    }
    // If the cloud reports how a container ended, the machine stays so that it can be asked.
    let ends_itself = request.ends_with_command && !offered.has(Capability::ExitCodes);
    (request, ends_itself)
}
