//! `atlas reap`, `audit` and `doctor`: what an operator looks after.

use std::collections::BTreeSet;

use atlas::owner::{Filter, Request};
use atlas::{AccountName, AnyProvider, CallContext, Completeness, Compute, ListFilter};
use serde_json::{Value, json};

use crate::failure::{Done, Failure};
use crate::keeper::Keeper;
use crate::output::{self, Output, Page};
use crate::setup::Setup;
use crate::view;

/// The columns of a machine in an audit, after its account.
const MACHINE: [&str; 5] = ["id", "status", "cost_per_hour", "whose", "name"];
/// The columns of a volume in an audit, after its account.
const VOLUME: [&str; 4] = ["id", "size_gb", "region", "name"];

/// Scans now. The reaper ends only what it saw in more than one scan; what is not settled yet is
/// named.
pub(crate) async fn reap(
    keeper: &mut Keeper,
    setup: &Setup,
    dry_run: bool,
    acknowledge: bool,
    out: Output,
) -> Done {
    let request = Request::Reap {
        account: setup.named().cloned(),
        dry_run,
        acknowledge,
    };
    let answer = keeper.ask(request, |_| Ok(())).await?;
    out.answer(&answer, || findings(&answer["accounts"]))?;
    let of = |name: &str| {
        accounts(&answer)
            .filter(|(_, report)| report[name] == true)
            .map(|(account, _)| account.clone())
            .collect()
    };
    let (stopped, held): (Vec<String>, Vec<String>) = (of("breaker"), of("held"));
    if !stopped.is_empty() {
        let why = format!(
            "too many machines to delete at once on {}; none was deleted",
            stopped.join(", ")
        );
        return Err(Failure::new(why).goes_on_with("atlas reap --acknowledge"));
    }
    if !held.is_empty() {
        return Err(
            Failure::new("the store may have been rolled back; no machine was deleted")
                .goes_on_with("atlas doctor"),
        );
    }
    Ok(())
}

/// What bills on each account, and who it belongs to as far as can be proved. What could not be
/// looked at is named, and makes the exit code 1.
pub(crate) async fn audit(keeper: &mut Keeper, setup: &Setup, out: Output) -> Done {
    let mut report = keeper.ask(Request::Audit, |_| Ok(())).await?;
    let sessions = keeper
        .ask(Request::List(Filter::default()), |_| Ok(()))
        .await?;
    let held: BTreeSet<&str> = sessions
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|session| session["compute"]["id"].as_str())
        .collect();
    let mut unknown = Unknown::default();
    for (account, why) in report["unreachable"].as_object().into_iter().flatten() {
        unknown.missing(format!("{account} was not scanned: {}", view::plain(why)));
    }
    for session in report["unreadable"].as_array().into_iter().flatten() {
        let session = view::plain(session);
        unknown.missing(format!("the record of session {session} is unreadable"));
    }
    if let Some(count) = report["unpriced"].as_u64().filter(|count| *count > 0) {
        unknown.note(format!(
            "{count} machines may bill at an unknown price; the sums leave them out"
        ));
    }
    for (name, scan) in report["accounts"].as_object_mut().into_iter().flatten() {
        let provider = setup.provider(&AccountName::new(name)?)?;
        let known = unknown.missing.len();
        let mut account = belongings(name, &provider, &held, &mut unknown).await;
        if scan["complete"] != true && unknown.missing.len() == known {
            unknown.missing(format!("{name}: the scan of the machines is incomplete"));
        }
        account["reaper"] = scan.take();
        *scan = account;
    }
    report["sessions"] = json!(sessions.as_array().map_or(0, Vec::len));
    report["complete"] = json!(unknown.missing.is_empty());
    report["unknown"] = json!(unknown.all().collect::<Vec<_>>());
    out.answer(&report, || describe_audit(&report, &unknown))?;
    if unknown.missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the audit is incomplete: {}",
        unknown.missing.join("; ")
    )))
}

/// What an audit could not find out.
#[derive(Debug, Default)]
struct Unknown {
    /// What was not read although it exists: there may be more that bills.
    missing: Vec<String>,
    /// What no cloud tells.
    notes: Vec<String>,
}

impl Unknown {
    fn missing(&mut self, what: String) {
        self.missing.push(what);
    }

    fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.missing.iter().chain(&self.notes)
    }
}

fn describe_audit(report: &Value, unknown: &Unknown) -> Page {
    let rows = |field: &'static str, cells: &'static [&'static str]| {
        accounts(report).flat_map(move |(account, of)| {
            of[field].as_array().into_iter().flatten().map(move |row| {
                let cell = |name: &&str| match &row[*name] {
                    Value::Null if *name == "cost_per_hour" => "?".to_owned(),
                    value => view::plain(value),
                };
                std::iter::once(account.clone())
                    .chain(cells.iter().map(cell))
                    .collect::<Vec<String>>()
            })
        })
    };
    let machines: Vec<_> = rows("machines", &MACHINE).collect();
    let volumes: Vec<_> = rows("network_volumes", &VOLUME).collect();
    let mut page = output::table(
        &["ACCOUNT", "MACHINE", "STATUS", "$/H", "WHOSE", "NAME"],
        machines,
    );
    if !volumes.is_empty() {
        let heads = &["ACCOUNT", "VOLUME", "GB", "REGION", "NAME"];
        page = page.with("\n\n").and(output::table(heads, volumes));
    }
    page = page.with(&format!(
        "\n\n$/h by cause: {}",
        view::plain(&report["risk"])
    ));
    for what in unknown.all() {
        page = page.with(&format!("\nunknown: {what}"));
    }
    page
}

/// Every machine of an account, and its network volumes where it has such things. What cannot be
/// read is added to `unknown`.
async fn belongings(
    account: &str,
    provider: &AnyProvider,
    held: &BTreeSet<&str>,
    unknown: &mut Unknown,
) -> Value {
    let cx = CallContext::new();
    let mut machines = Vec::new();
    match provider.list_compute(&cx, &ListFilter::all()).await {
        Ok(listing) => {
            if let Completeness::Incomplete(why) = &listing.completeness {
                unknown.missing(format!(
                    "{account}: the list of machines is incomplete: {why}"
                ));
            }
            let unpriced = listing
                .computes
                .iter()
                .filter(|machine| machine.cost_per_hour.is_none());
            let unpriced = unpriced.count();
            if unpriced > 0 {
                unknown.note(format!("{account}: the price of {unpriced} machines"));
            }
            machines.extend(
                listing
                    .computes
                    .iter()
                    .map(|machine| describe_machine(machine, held)),
            );
        }
        Err(error) => unknown.missing(format!("{account}: the machines were not listed: {error}")),
    }
    let volumes = match provider.network_volumes() {
        Some(volumes) => match volumes.list_network_volumes(&cx).await {
            Ok(found) => {
                if !found.is_empty() {
                    unknown.note(format!("{account}: the price of {} volumes", found.len()));
                }
                json!(found)
            }
            Err(error) => {
                unknown.missing(format!("{account}: the volumes were not listed: {error}"));
                Value::Null
            }
        },
        None => {
            unknown.note(format!(
                "{account}: volumes, which atlas does not list there"
            ));
            Value::Null
        }
    };
    json!({ "machines": machines, "network_volumes": volumes })
}

fn describe_machine(machine: &Compute, held: &BTreeSet<&str>) -> Value {
    let whose = match (held.contains(machine.id.as_str()), machine.keys.key()) {
        (true, _) => "session",
        (false, Some(_)) => "key",
        (false, None) => "other",
    };
    json!({
        "id": machine.id, "name": machine.name, "status": machine.status,
        "cost_per_hour": machine.cost_per_hour, "whose": whose, "launch_key": machine.keys.key(),
    })
}

/// What the operator says of the world outside.
#[derive(Debug)]
pub(crate) struct Accepts {
    /// The store is the surviving copy.
    pub(crate) store: bool,
    /// This account's key is of the same account as before.
    pub(crate) account: Option<AccountName>,
}

/// What is in the way; exit 1 when something is.
pub(crate) async fn doctor(
    keeper: &mut Keeper,
    setup: &Setup,
    accepts: Accepts,
    out: Output,
) -> Done {
    let accepted = if accepts.store {
        keeper.ask(Request::Accept, |_| Ok(())).await?
    } else {
        Value::Null
    };
    if let Some(account) = accepts.account {
        keeper
            .ask(Request::AcceptAccount { account }, |_| Ok(()))
            .await?;
    }
    let mut health = keeper.ask(Request::Health, |_| Ok(())).await?;
    health["store"] = json!(setup.store());
    health["accepted"] = accepted;
    let silent: Vec<&str> = accounts(&health)
        .filter(|(_, seen)| seen["answers"] != true)
        .map(|(name, _)| name.as_str())
        .collect();
    out.answer(&health, || {
        let mut lines = vec![
            format!("store     {}", setup.store().display()),
            format!("sessions  {}", health["sessions"]),
        ];
        lines.push(format!(
            "hold      {}",
            health["hold"].as_str().unwrap_or("no")
        ));
        let differing: Vec<String> = differing(&health).map(|text| text.to_owned()).collect();
        lines.push(format!(
            "clocks    {}",
            if differing.is_empty() {
                "agree".to_owned()
            } else {
                differing.join("; ")
            }
        ));
        lines.extend(
            accounts(&health)
                .map(|(name, seen)| format!("account   {name}: {}", view::plain(seen))),
        );
        lines.join("\n")
    })?;
    if let Some(why) = health["hold"].as_str() {
        return Err(
            Failure::new(format!("atlas deletes and rents nothing: {why}"))
                .goes_on_with("atlas doctor --accept-store, if this is the surviving copy"),
        );
    }
    if !silent.is_empty() {
        return Err(Failure::new(format!(
            "accounts that do not answer: {}",
            silent.join(", ")
        )));
    }
    if let Some(first) = differing(&health).next() {
        return Err(Failure::new(format!(
            "{first}: correct the clock of the host that keeps the store"
        )));
    }
    Ok(())
}

/// The clocks that differ, in words.
fn differing(health: &Value) -> impl Iterator<Item = &str> {
    let differing = health["clocks"]["differing"].as_array();
    differing.into_iter().flatten().filter_map(Value::as_str)
}

fn accounts(answer: &Value) -> impl Iterator<Item = (&String, &Value)> {
    answer["accounts"].as_object().into_iter().flatten()
}

fn findings(reports: &Value) -> Page {
    let mut rows = Vec::new();
    for (account, report) in reports.as_object().into_iter().flatten() {
        for kind in ["victims", "quarantined", "ambiguous"] {
            for one in report[kind].as_array().into_iter().flatten() {
                let cell = |name: &str| view::plain(&one[name]);
                rows.push(vec![
                    account.clone(),
                    kind.to_owned(),
                    cell("compute"),
                    cell("burn"),
                    cell("why"),
                ]);
            }
        }
        let complete = if report["complete"] == true {
            "complete"
        } else {
            "incomplete"
        };
        rows.push(vec![
            account.clone(),
            "scanned".to_owned(),
            view::plain(&report["scanned"]),
            String::new(),
            complete.to_owned(),
        ]);
    }
    output::table(&["ACCOUNT", "WHAT", "MACHINE", "$/H", "WHY"], rows)
}
