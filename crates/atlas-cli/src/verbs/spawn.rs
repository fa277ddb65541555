//! `atlas spawn` and `atlas run`: a session with a machine, its URL and its credential; or a task,
//! and how it ended.

use std::time::Duration;

use atlas::owner::{Request, Sealed, Until};
use atlas::{
    AccountName, Clock as _, ComputeRequest, SessionId, SessionOptions, SystemClock, SystemEntropy,
    UsdPerHour, span,
};
use serde_json::Value;

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
    let outcome = &info["outcome"];
    match (outcome["kind"].as_str(), outcome["exit_code"].as_i64()) {
        (Some("completed"), None | Some(0)) => Ok(()),
        (Some("timed_out"), _) => Err(Failure::silent(TIMED_OUT)),
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
) -> Done<Value> {
    let keeper = slot.insert(Keeper::find(setup).await?);
    let session = id(&order(keeper, request, options, true, out).await?)?;
    let until = Request::Await {
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
        view::plain(&ended["outcome"])
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
) -> Done<Value> {
    // Drawn here, so that the order can be asked for again should the store's holder leave.
    let order = Request::SpawnAs {
        session: SessionId::new(SystemClock.now(), &SystemEntropy::new()),
        request: Sealed::new(request),
        options,
        task,
    };
    let info = keeper
        .ask(order, |item| {
            out.progress(format!(
                "session {}: {}",
                view::plain(&item["session"]),
                view::plain(&item["progress"])
            ));
            Ok(())
        })
        .await?;
    if info["compute"].is_null() {
        let failure = Failure::new(format!(
            "no machine was rented: {}",
            view::plain(&info["reason"])
        ));
        let open = info["state"] != "terminated";
        return Err(if open {
            failure.goes_on_with(format!("atlas rm {} --wait", id(&info)?))
        } else {
            failure
        });
    }
    Ok(info)
}

/// Waits until the machine is ready, and says what it waits for.
async fn ready(keeper: &mut Keeper, spawned: Value, what: &str, out: Output) -> Done<Value> {
    let session = id(&spawned)?;
    out.progress(format!("session {session}: waiting for {what}"));
    let longest_ms = u64::try_from(READY.as_millis()).unwrap_or(u64::MAX);
    let waited = keeper
        .ask(
            Request::Await {
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
            Request::Info {
                session,
                secrets: true,
            },
            |_| Ok(()),
        )
        .await
}

fn id(info: &Value) -> Done<SessionId> {
    let text = info["session"]
        .as_str()
        .ok_or_else(|| Failure::new("the store's owner answered without a session id"))?;
    Ok(text.parse::<SessionId>()?)
}

fn describe_outcome(info: &Value) -> String {
    format!(
        "session  {}\noutcome  {}",
        view::plain(&info["session"]),
        view::plain(&info["outcome"])
    )
}

/// Limits are kept by whatever atlas process has the store open; between processes nobody keeps
/// them.
fn warn_of_burn(info: &Value, out: Output) {
    let price = [&info["cost"]["observed"], &info["cost"]["quoted"]]
        .into_iter()
        .find_map(|price| price.as_str());
    let price = price
        .and_then(|text| text.parse().ok())
        .map(UsdPerHour::new);
    let limit = [
        &info["options"]["max_runtime_ms"],
        &info["options"]["idle_ttl_ms"],
    ]
    .into_iter()
    .find_map(Value::as_u64);
    if let (Some(price), Some(limit)) = (price, limit.map(Duration::from_millis)) {
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
            view::plain(&info["session"])
        ));
        out.progress(if info["unattended"]["ends_with_command"] == true {
            format!(
                "without one the machine tries to end itself once its command has ended; \
                 until then, or if it cannot, it burns ${price}"
            )
        } else {
            format!("without one nothing ends it, and it burns ${price}")
        });
    }
}
