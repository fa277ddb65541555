//! `atlas spawn` and `atlas run`: a session with a machine, its URL and its credential; or a task,
//! and how it ended.

use std::time::Duration;

use atlas::owner::{Await, Info, Sealed, SessionView, SpawnAs, Until};
use atlas::{
    AccountName, Clock as _, ComputeRequest, SessionId, SessionOptions, SessionState, SystemClock,
    SystemEntropy, TaskKind, span,
};

use crate::args::{RunArgs, SpawnArgs};
use crate::failure::{Done, Failure};
use crate::keeper::{Keeper, Slot};
use crate::order::MachineArgs;
use crate::output::Output;
use crate::probe;
use crate::setup::Setup;
use crate::verbs::session;
use crate::view;

/// How long `--wait-ready` waits: the slowest cloud's image pull, and more.
const READY: Duration = Duration::from_secs(20 * 60);
/// How long `run` waits for the proof that its machine is gone, after its command ended.
const PROOF: Duration = Duration::from_secs(20);
/// A limit ended the command first; as `timeout(1)` says it.
const TIMED_OUT: u8 = 124;
/// atlas itself failed; as container tools say it.
const ATLAS_FAILED: u8 = 125;

pub(crate) async fn spawn(args: SpawnArgs, setup: &Setup, slot: &mut Slot, out: Output) -> Done {
    let account = setup.account()?;
    let request = request(&args.machine, Vec::new(), setup, &account)?;
    // The mock's machines have no network: nothing in them can answer.
    let by_default = args.wait_ready && !setup.is_free(&account);
    let probe =
        probe::chosen(args.probe.as_ref(), by_default, &request.ports).map_err(Failure::given)?;
    let mut options = args.limits.options(setup.idle_ttl()).account(account);
    options.probe.clone_from(&probe);
    options.validate().map_err(Failure::given)?;
    let keeper = slot.insert(Keeper::find(setup).await?);
    let mut info = order(keeper, &request, options, false, out).await?;
    if args.wait_ready {
        info = ready(keeper, info, &probe::describe(probe.as_ref()), out).await?;
    }
    out.answer(&info, || view::describe(&info))?;
    warn_of_burn(&info, out);
    Ok(())
}

/// Runs a command to its end. Its exit code is the program's.
pub(crate) async fn run(args: RunArgs, setup: &Setup, slot: &mut Slot, out: Output) -> Done {
    let account = setup.account()?;
    let request = request(&args.machine, args.command, setup, &account)?;
    // The idle limit of the configuration is for sessions that people use. A task is used by
    // nobody, and ends by itself.
    let options = args.limits.options(None).account(account);
    options.validate().map_err(Failure::given)?;
    let info = task(setup, slot, &request, options, out)
        .await
        .map_err(|failure| failure.coded(ATLAS_FAILED))?;
    out.answer(&info, || describe_outcome(&info))?;
    let outcome = info.info.outcome;
    match (
        outcome.map(|outcome| outcome.kind),
        outcome.and_then(|outcome| outcome.exit_code),
    ) {
        (Some(TaskKind::Completed), None | Some(0)) => Ok(()),
        (Some(TaskKind::TimedOut), _) => Err(Failure::silent(TIMED_OUT)),
        (_, Some(code)) => Err(Failure::silent(
            u8::try_from(code)
                .ok()
                .filter(|code| *code != 0)
                .unwrap_or(1),
        )),
        _ => Err(Failure::new("the command did not complete").coded(ATLAS_FAILED)),
    }
}

/// What the command line asks for, checked before anything is opened.
fn request(
    machine: &MachineArgs,
    command: Vec<String>,
    setup: &Setup,
    account: &AccountName,
) -> Done<ComputeRequest> {
    machine
        .request(command, setup.is_free(account))
        .map_err(Failure::given)
}

async fn task(
    setup: &Setup,
    slot: &mut Slot,
    request: &ComputeRequest,
    options: SessionOptions,
    out: Output,
) -> Done<SessionView> {
    let keeper = slot.insert(Keeper::find(setup).await?);
    let session = order(keeper, request, options, true, out).await?.info.id;
    let until = Await {
        session,
        until: Until::Outcome,
        longest_ms: u64::MAX,
    };
    let ended = keeper
        .ask(until, |_| Ok(()))
        .await
        .map_err(|failure| failure.goes_on_with(format!("atlas show {session}")))?;
    out.progress(format!(
        "the command ended: {}",
        view::plain(&ended.info.outcome)
    ));
    if !session::gone(keeper, session, PROOF).await? {
        out.warn(format!(
            "the deletion of the machine is under way; to wait for it: atlas rm {session} --wait"
        ));
    }
    keeper.info(session).await
}

/// Orders, and answers when it is known that there is a machine.
async fn order(
    keeper: &mut Keeper,
    request: &ComputeRequest,
    options: SessionOptions,
    task: bool,
    out: Output,
) -> Done<SessionView> {
    // Drawn here, so that the order can be asked for again should the store's holder leave.
    let order = SpawnAs {
        session: SessionId::new(SystemClock.now(), &SystemEntropy::new()),
        request: Sealed::new(request),
        options,
        task,
    };
    let info = keeper
        .ask(order, |item| {
            out.progress(format!(
                "session {}: {}",
                item.session,
                view::plain(&item.progress)
            ));
            Ok(())
        })
        .await?;
    if info.info.compute.is_none() {
        let failure = Failure::new(format!(
            "no machine was rented: {}",
            view::plain(&info.info.reason)
        ));
        let open = info.info.state != SessionState::Terminated;
        return Err(if open {
            failure.goes_on_with(format!("atlas rm {} --wait", info.info.id))
        } else {
            failure
        });
    }
    Ok(info)
}

/// Waits until the machine is ready, and says what it waits for.
async fn ready(
    keeper: &mut Keeper,
    spawned: SessionView,
    what: &str,
    out: Output,
) -> Done<SessionView> {
    let session = spawned.info.id;
    out.progress(format!("session {session}: waiting for {what}"));
    let longest_ms = u64::try_from(READY.as_millis()).unwrap_or(u64::MAX);
    let waited = keeper
        .ask(
            Await {
                session,
                until: Until::Ready,
                longest_ms,
            },
            |_| Ok(()),
        )
        .await;
    waited.map_err(|failure| {
        failure
            .about(format!(
                "the machine is not ready; atlas waited for {what} (see --probe)"
            ))
            .goes_on_with(format!("atlas show {session}, or atlas rm {session}"))
    })?;
    out.progress(format!("session {session}: ready"));
    keeper
        .ask(
            Info {
                session,
                secrets: true,
            },
            |_| Ok(()),
        )
        .await
}

fn describe_outcome(view: &SessionView) -> String {
    format!(
        "session  {}\noutcome  {}",
        view.info.id,
        view::plain(&view.info.outcome)
    )
}

/// Limits are kept by whatever atlas process has the store open; between processes nobody keeps
/// them.
fn warn_of_burn(spawned: &SessionView, out: Output) {
    let info = &spawned.info;
    let limit = info.options.max_runtime.or(info.options.idle_ttl);
    if let (Some(price), Some(limit)) = (view::price(spawned), limit) {
        let most = price.cost_of(limit).map_or_else(
            || "more than any budget".to_owned(),
            |most| format!("${most}"),
        );
        out.progress(format!(
            "at ${price}, the session costs {most} at most in {}",
            span::show(limit)
        ));
        out.progress(format!(
            "limits are enforced only while an atlas process has this store open; to end the \
             session: atlas rm {}",
            info.id
        ));
        out.progress(if info.unattended.ends_with_command {
            format!(
                "without one the machine tries to end itself once its command has ended; \
                 until then, or if it cannot, it burns ${price}"
            )
        } else {
            format!("without one nothing ends it, and it burns ${price}")
        });
    }
}
