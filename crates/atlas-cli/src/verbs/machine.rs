//! `atlas stop` and `atlas start`: machines that no session holds.

use atlas::owner::{Filter, List};
use atlas::{CallContext, ComputeId};
use serde_json::json;

use crate::failure::{Done, Failure};
use crate::keeper::Keeper;
use crate::output::Output;
use crate::setup::Setup;

/// What to do with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Stop,
    Start,
}

/// Stops or starts a machine. One that serves a session is refused: a stopped machine is a dead one
/// to its session, which would end it.
pub(crate) async fn act(
    keeper: &mut Keeper,
    setup: &Setup,
    act: Act,
    machine: &ComputeId,
    out: Output,
) -> Done {
    let sessions = keeper.ask(List(Filter::default()), |_| Ok(())).await?;
    let holder = sessions.iter().find(|session| {
        let compute = session.info.compute.as_ref();
        compute.is_some_and(|compute| compute.id == *machine)
    });
    if let Some(holder) = holder {
        let session = holder.info.id;
        return Err(Failure::new(format!(
            "{machine} belongs to session {session}; stopping it would end the session"
        ))
        .goes_on_with(format!("atlas rm {session}")));
    }
    let provider = setup.provider(&setup.account()?)?;
    let cx = CallContext::new();
    match act {
        Act::Stop => provider.stop(&cx, machine).await?,
        Act::Start => provider.start(&cx, machine).await?,
    }
    let now = provider.get_compute(&cx, machine).await?;
    out.answer(&json!({ "compute": now }), || {
        format!("{machine}  {}", now.status)
    })
}
