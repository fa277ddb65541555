//! `atlas ls`, `show`, `touch`, `rm` and `events`: sessions on record.

use std::time::Duration;

use atlas::owner::{Await, Events, Filter, Info, List, Stop, Stopped, Touch, Until};
use atlas::{SessionId, SessionState, StopOutcome};
use tokio::time::Instant;

use crate::failure::{Done, FAILED, Failure};
use crate::keeper::Keeper;
use crate::output::Output;
use crate::view;

const LOOK: Duration = Duration::from_millis(300);

pub(crate) async fn ls(keeper: &mut Keeper, filter: Filter, out: Output) -> Done {
    let ended = filter.ended;
    let sessions = keeper.ask(List(filter), |_| Ok(())).await?;
    out.answer(&sessions, || view::table(&sessions))?;
    if !ended {
        out.progress("sessions that ended are left out; --all lists them too");
    }
    Ok(())
}

pub(crate) async fn show(
    keeper: &mut Keeper,
    session: SessionId,
    secrets: bool,
    out: Output,
) -> Done {
    let info = keeper.ask(Info { session, secrets }, |_| Ok(())).await?;
    out.answer(&info, || view::describe(&info))
}

pub(crate) async fn touch(keeper: &mut Keeper, session: SessionId, out: Output) -> Done {
    let answer = keeper.ask(Touch { session }, |_| Ok(())).await?;
    out.answer(&answer, || view::plain(&answer.touch))?;
    match answer.touch {
        atlas::Touch::Recorded => Ok(()),
        atlas::Touch::Deferred => Err(Failure::new("the touch is not stored yet")
            .goes_on_with(format!("atlas touch {session}"))),
        _ => Err(Failure::silent(FAILED)),
    }
}

/// Ends a session. Its end is on record and final when this returns; with `wait` also proved.
pub(crate) async fn rm(
    keeper: &mut Keeper,
    session: SessionId,
    wait: Option<Duration>,
    out: Output,
) -> Done {
    let mut answer = stop(keeper, session).await?;
    if let Some(longest) = wait {
        let begun = Instant::now();
        while !is_over(&answer) && begun.elapsed() < longest {
            tokio::time::sleep(LOOK).await;
            answer = stop(keeper, session).await?;
        }
    }
    out.answer(&answer, || {
        format!("{session}  {}", answer.outcome.state().as_str())
    })?;
    if is_over(&answer) {
        return Ok(());
    }
    let next = format!("atlas rm {session} --wait");
    match answer.outcome {
        StopOutcome::Terminating {
            stuck: Some(stuck),
            burn,
        } => Err(Failure::new(format!(
            "the deletion is stuck ({}), and the machine may bill ${burn} an hour",
            view::plain(&stuck),
        ))
        .goes_on_with(next)),
        _ if wait.is_none() => {
            out.progress(format!(
                "the machine is being deleted; to wait until it is proved gone: {next}"
            ));
            Ok(())
        }
        _ => Err(
            Failure::new("the machine is being deleted and not proved gone yet").goes_on_with(next),
        ),
    }
}

async fn stop(keeper: &mut Keeper, session: SessionId) -> Done<Stopped> {
    keeper.ask(Stop { session }, |_| Ok(())).await
}

fn is_over(answer: &Stopped) -> bool {
    answer.outcome == StopOutcome::Terminated
}

pub(crate) async fn events(
    keeper: &mut Keeper,
    session: Option<SessionId>,
    since: u64,
    follow: bool,
    out: Output,
) -> Done {
    let request = Events {
        session,
        since,
        follow,
    };
    keeper
        .ask(request, |event| out.item(&event, || view::event(&event)))
        .await?;
    Ok(())
}

/// Waits until every machine of a session is proved to be gone, at most so long; says whether it is
/// so.
pub(crate) async fn gone(keeper: &mut Keeper, session: SessionId, longest: Duration) -> Done<bool> {
    let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    let info = keeper
        .ask(
            Await {
                session,
                until: Until::Terminated,
                longest_ms,
            },
            |_| Ok(()),
        )
        .await?;
    Ok(info.info.state == SessionState::Terminated)
}
