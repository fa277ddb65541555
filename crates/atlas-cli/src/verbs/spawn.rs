//! `atlas spawn` and `atlas run`: a session with a machine, its URL and its credential; or a task,
//! and how it ended.

use std::time::Duration;

use atlas::owner::{Request, Sealed, Until};
use atlas::{ComputeRequest, SessionId, SessionOptions, UsdPerHour, span};
use serde_json::Value;

use crate::args::{RunArgs, SpawnArgs};
use crate::failure::{Done, Failure};
use crate::keeper::{Keeper, Slot};
use crate::order::{LimitArgs, MachineArgs};
use crate::output::Output;
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
    let (request, options) = wanted(&args.machine, &args.limits, Vec::new(), setup)?;
    let keeper = slot.insert(Keeper::find(setup).await?);
    let mut info = order(keeper, &request, options, false, out).await?;
    if args.wait_ready {
        info = usable(keeper, info).await?;
    }
    out.answer(&info, || view::describe(&info))?;
    warn_of_burn(&info, out);
    Ok(())
}

/// Runs a command to its end. Its exit code is the program's.
pub(crate) async fn run(args: RunArgs, setup: &Setup, slot: &mut Slot, out: Output) -> Done {
    let (request, options) = wanted(&args.machine, &args.limits, args.command, setup)?;
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
        _ => Err(Failure::new("the command did not run to its end").coded(ATLAS_FAILED)),
    }
}

/// What the command line asks for, checked before anything is opened.
fn wanted(
    machine: &MachineArgs,
    limits: &LimitArgs,
    command: Vec<String>,
    setup: &Setup,
) -> Done<(ComputeRequest, SessionOptions)> {
    let account = setup.account()?;
    let request = machine
        .request(command, setup.is_free(&account))
        .map_err(Failure::given)?;
    let options = options(limits).account(account);
    options.validate().map_err(Failure::given)?;
    Ok((request, options))
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
            "the machine's end is on record; to see it proved: atlas rm {session} --wait"
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
    let order = Request::Spawn {
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
        let failure = Failure::new(format!("no machine: {}", view::plain(&info["reason"])));
        let open = info["state"] != "terminated";
        return Err(if open {
            failure.goes_on_with(format!("atlas rm {} --wait", id(&info)?))
        } else {
            failure
        });
    }
    Ok(info)
}

async fn usable(keeper: &mut Keeper, spawned: Value) -> Done<Value> {
    let session = id(&spawned)?;
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
    waited.map_err(|failure| failure.goes_on_with(format!("atlas show {session}")))?;
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
        .ok_or_else(|| Failure::new("an answer without a session"))?;
    Ok(text.parse::<SessionId>()?)
}

fn options(limits: &LimitArgs) -> SessionOptions {
    let mut options = match limits.idle_ttl {
        Some(ttl) => SessionOptions::new().idle_ttl(ttl),
        None => SessionOptions::new().no_idle_ttl(),
    };
    options.max_runtime = limits.longest();
    options.max_cost = limits.max_cost;
    options.user_id.clone_from(&limits.user);
    options.hedge = limits.hedge;
    options
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
            || "more than can be written".to_owned(),
            |most| format!("${most}"),
        );
        out.progress(format!(
            "at ${price}, its limit of {} is {most}",
            span::show(limit)
        ));
        out.progress(format!(
            "limits are kept while an atlas process has this store open; to end it: atlas rm {}",
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
