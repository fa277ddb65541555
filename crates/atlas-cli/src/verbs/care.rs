//! `atlas reap`, `audit` and `doctor`: what an operator looks after.

use std::collections::BTreeSet;

use atlas::owner::{Filter, Request};
use atlas::{AccountName, AnyProvider, CallContext, ListFilter};
use serde_json::{Value, json};

use crate::failure::{Done, Failure};
use crate::keeper::Keeper;
use crate::output::{self, Output};
use crate::setup::Setup;
use crate::view;

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
            "too many to end at once on {}: nothing was ended",
            stopped.join(", ")
        );
        return Err(Failure::new(why).goes_on_with("atlas reap --acknowledge"));
    }
    if !held.is_empty() {
        return Err(
            Failure::new("the store may have been rolled back: nothing was ended")
                .goes_on_with("atlas doctor"),
        );
    }
    Ok(())
}

/// What bills where, and whose it is as far as can be proved.
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
    for (name, scan) in report["accounts"].as_object_mut().into_iter().flatten() {
        let provider = setup.provider(&AccountName::new(name)?)?;
        let (machines, volumes) = belongings(&provider, &held).await?;
        *scan = json!({ "machines": machines, "network_volumes": volumes, "reaper": scan });
    }
    report["sessions"] = json!(sessions.as_array().map_or(0, Vec::len));
    out.answer(&report, || {
        let rows = accounts(&report).flat_map(|(account, of)| {
            of["machines"]
                .as_array()
                .into_iter()
                .flatten()
                .map(move |machine| {
                    let cell = |name: &str| view::plain(&machine[name]);
                    vec![
                        account.clone(),
                        cell("id"),
                        cell("status"),
                        cell("cost_per_hour"),
                        cell("whose"),
                        cell("name"),
                    ]
                })
        });
        let table = output::table(
            &["ACCOUNT", "MACHINE", "STATUS", "$/H", "WHOSE", "NAME"],
            rows,
        );
        format!("{table}\n\n$/h by cause: {}", view::plain(&report["risk"]))
    })?;
    match report["unreachable"]
        .as_object()
        .and_then(|silent| silent.iter().next())
    {
        Some((account, why)) => Err(Failure::new(format!(
            "{account} could not be looked at: {}",
            view::plain(why)
        ))),
        None => Ok(()),
    }
}

/// Every machine of an account, and its network volumes where it has such things.
async fn belongings(provider: &AnyProvider, held: &BTreeSet<&str>) -> Done<(Vec<Value>, Value)> {
    let cx = CallContext::new();
    let listing = provider.list_compute(&cx, &ListFilter::all()).await?;
    let machines = listing.computes.iter().map(|machine| {
        let whose = match (held.contains(machine.id.as_str()), machine.keys.key()) {
            (true, _) => "session",
            (false, Some(_)) => "key",
            (false, None) => "other",
        };
        json!({
            "id": machine.id, "name": machine.name, "status": machine.status, "cost_per_hour": machine.cost_per_hour,
            "whose": whose, "launch_key": machine.keys.key(),
        })
    });
    let machines = machines.collect();
    let volumes = match provider.network_volumes() {
        Some(volumes) => json!(volumes.list_network_volumes(&cx).await?),
        None => Value::Null,
    };
    Ok((machines, volumes))
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
    let silent: Vec<&String> = accounts(&health)
        .filter(|(_, seen)| seen["answers"] != true)
        .map(|(name, _)| name)
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
        return Err(Failure::new(format!("atlas holds: {why}"))
            .goes_on_with("atlas doctor --accept-store, if this is the surviving copy"));
    }
    if !silent.is_empty() {
        return Err(Failure::new(format!(
            "not every account answers: {silent:?}"
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

fn findings(reports: &Value) -> String {
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
