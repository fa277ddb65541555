//! What ends a machine when no atlas process lives to do it.

use atlas_core::{Capability, ComputeRequest, Timestamp, Usd, UsdPerHour};
use serde::Serialize;

use crate::kernel::SessionRecord;
use crate::options::SessionOptions;
use crate::runtime::account::Account;
use crate::session::SessionKind;

/// What becomes of a session's machine if every atlas process stops now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unattended {
    /// What it burns meanwhile.
    pub burn: UsdPerHour,
    /// When the cloud itself ends it.
    pub ends_at: Option<Timestamp>,
    /// It ends itself once its command has ended.
    pub ends_with_command: bool,
    /// The most it can still burn. `None` where nothing bounds it: then only a living process ends
    /// it.
    pub at_most: Option<Usd>,
}

impl Unattended {
    /// Of a session, now.
    #[must_use]
    pub fn of(record: &SessionRecord, now: Timestamp) -> Self {
        let burn: UsdPerHour = record
            .attempts
            .iter()
            .map(crate::kernel::Attempt::burn)
            .sum();
        let at_most = match record.cloud_ends_at {
            _ if burn == UsdPerHour::ZERO => Some(Usd::ZERO),
            Some(at) => burn.cost_of(at.since(now)),
            None => None,
        };
        Self {
            burn,
            ends_at: record.cloud_ends_at,
            ends_with_command: record.ends_itself,
            at_most,
        }
    }
}

/// The nets of one session, as they go on record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nets {
    /// Its machine deletes itself once its command has ended.
    pub(crate) ends_itself: bool,
    /// Its cloud deletes it then.
    pub(crate) cloud_ends_at: Option<Timestamp>,
}

/// Asks for every net that the account's provider has for this request.
pub(crate) fn spread(
    account: &Account,
    request: ComputeRequest,
    kind: SessionKind,
    options: &SessionOptions,
    now: Timestamp,
) -> (ComputeRequest, Nets) {
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
    if let Some(limit) = options
        .max_runtime
        .filter(|_| request.ends_at.is_none() && offered.has(Capability::DeadMan))
    {
        // Late enough not to race with our own end, by whichever node: a net, not a limit.
        let late = account.bounds.settle();
        let asked = request
            .clone()
            .ends_at(Some(now.saturating_add(limit).saturating_add(late)));
        if account.check(&asked).is_ok() {
            request = asked;
        }
    }
    // Where the cloud says how a container ended, its machine waits to be asked.
    let nets = Nets {
        ends_itself: request.ends_with_command && !offered.has(Capability::ExitCodes),
        cloud_ends_at: request.ends_at,
    };
    (request, nets)
}
