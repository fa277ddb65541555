//! `atlas reap`, `audit` and `doctor`: what an operator looks after.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use atlas::owner::{
    Accept, AcceptAccount, Audit, Filter, Health, HealthReport, List, Reap, ReapReports,
};
use atlas::{
    AccountName, AnyProvider, CallContext, Completeness, Compute, ComputeId, ComputeStatus,
    ListFilter, NetworkVolume, ReapReport, Risk, SessionId, Support, TrackedKey, UsdPerHour,
};
use atlas_orchestrator::AcceptReport;
use serde::Serialize;

use crate::failure::{Done, Failure};
use crate::keeper::Keeper;
use crate::output::{self, Output, Page};
use crate::setup::Setup;
use crate::view;

/// A machine in an audit.
#[derive(Debug, Serialize)]
struct Machine {
    id: ComputeId,
    name: Option<String>,
    status: ComputeStatus,
    cost_per_hour: Option<UsdPerHour>,
    /// `session`, `key` or `other`: what is known of who it belongs to.
    whose: &'static str,
    launch_key: Option<TrackedKey>,
}

/// What an account has, in an audit.
#[derive(Debug, Serialize)]
struct Belongings {
    machines: Vec<Machine>,
    /// `None` where they could not be listed.
    network_volumes: Option<Vec<NetworkVolume>>,
    reaper: ReapReport,
}

/// The answer of `atlas audit`.
#[derive(Debug, Serialize)]
struct AuditReport {
    accounts: BTreeMap<AccountName, Belongings>,
    unreachable: BTreeMap<AccountName, String>,
    supports: Vec<(SessionId, Support)>,
    unreadable: Vec<SessionId>,
    risk: Risk,
    unpriced: usize,
    sessions: usize,
    complete: bool,
    unknown: Vec<String>,
}

/// The answer of `atlas doctor`.
#[derive(Debug, Serialize)]
struct Diagnosis {
    store: PathBuf,
    accepted: Option<AcceptReport>,
    #[serde(flatten)]
    health: HealthReport,
}

/// Scans now. The reaper ends only what it saw in more than one scan; what is not settled yet is
/// named.
pub(crate) async fn reap(
    keeper: &mut Keeper,
    setup: &Setup,
    dry_run: bool,
    acknowledge: bool,
    out: Output,
) -> Done {
    let request = Reap {
        account: setup.named().cloned(),
        dry_run,
        acknowledge,
    };
    let answer = keeper.ask(request, |_| Ok(())).await?;
    out.answer(&answer, || findings(&answer))?;
    let of = |is_so: fn(&ReapReport) -> bool| -> Vec<&str> {
        let found = answer.accounts.iter().filter(|(_, report)| is_so(report));
        found.map(|(account, _)| account.as_str()).collect()
    };
    let (stopped, held) = (of(|report| report.breaker), of(|report| report.held));
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
    let audit = keeper.ask(Audit {}, |_| Ok(())).await?;
    let sessions = keeper.ask(List(Filter::default()), |_| Ok(())).await?;
    let held: BTreeSet<&ComputeId> = sessions
        .iter()
        .filter_map(|session| session.info.compute.as_ref())
        .map(|compute| &compute.id)
        .collect();
    let mut unknown = Unknown::default();
    for (account, why) in &audit.unreachable {
        unknown.missing(format!("{account} was not scanned: {}", view::plain(why)));
    }
    for session in &audit.unreadable {
        unknown.missing(format!("the record of session {session} is unreadable"));
    }
    if audit.unpriced > 0 {
        unknown.note(format!(
            "{} machines may bill at an unknown price; the sums leave them out",
            audit.unpriced
        ));
    }
    let mut accounts = BTreeMap::new();
    for (name, scan) in audit.accounts {
        let provider = setup.provider(&name)?;
        let known = unknown.missing.len();
        let complete = scan.complete;
        let account = belongings(&name, &provider, &held, scan, &mut unknown).await;
        if !complete && unknown.missing.len() == known {
            unknown.missing(format!("{name}: the scan of the machines is incomplete"));
        }
        accounts.insert(name, account);
    }
    let report = AuditReport {
        accounts,
        unreachable: audit.unreachable,
        supports: audit.supports,
        unreadable: audit.unreadable,
        risk: audit.risk,
        unpriced: audit.unpriced,
        sessions: sessions.len(),
        complete: unknown.missing.is_empty(),
        unknown: unknown.all().cloned().collect(),
    };
    out.answer(&report, || describe_audit(&report))?;
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

fn describe_audit(report: &AuditReport) -> Page {
    let machines = report.accounts.iter().flat_map(|(account, of)| {
        of.machines.iter().map(|machine| {
            let price = machine.cost_per_hour.as_ref();
            vec![
                account.to_string(),
                machine.id.to_string(),
                machine.status.to_string(),
                price.map_or_else(|| "?".to_owned(), view::plain),
                machine.whose.to_owned(),
                view::plain(&machine.name),
            ]
        })
    });
    let volumes: Vec<_> = report
        .accounts
        .iter()
        .flat_map(|(account, of)| {
            of.network_volumes.iter().flatten().map(|volume| {
                vec![
                    account.to_string(),
                    view::plain(&volume.id),
                    view::plain(&volume.size),
                    view::plain(&volume.region),
                    view::plain(&volume.name),
                ]
            })
        })
        .collect();
    let mut page = output::table(
        &["ACCOUNT", "MACHINE", "STATUS", "$/H", "WHOSE", "NAME"],
        machines,
    );
    if !volumes.is_empty() {
        let heads = &["ACCOUNT", "VOLUME", "GB", "REGION", "NAME"];
        page = page.with("\n\n").and(output::table(heads, volumes));
    }
    page = page.with(&format!("\n\n$/h by cause: {}", view::plain(&report.risk)));
    for what in &report.unknown {
        page = page.with(&format!("\nunknown: {what}"));
    }
    page
}

/// Every machine of an account, and its network volumes where it has such things. What cannot be
/// read is added to `unknown`.
async fn belongings(
    account: &AccountName,
    provider: &AnyProvider,
    held: &BTreeSet<&ComputeId>,
    reaper: ReapReport,
    unknown: &mut Unknown,
) -> Belongings {
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
    let network_volumes = match provider.network_volumes() {
        Some(volumes) => match volumes.list_network_volumes(&cx).await {
            Ok(found) => {
                if !found.is_empty() {
                    unknown.note(format!("{account}: the price of {} volumes", found.len()));
                }
                Some(found)
            }
            Err(error) => {
                unknown.missing(format!("{account}: the volumes were not listed: {error}"));
                None
            }
        },
        None => {
            unknown.note(format!(
                "{account}: volumes, which atlas does not list there"
            ));
            None
        }
    };
    Belongings {
        machines,
        network_volumes,
        reaper,
    }
}

fn describe_machine(machine: &Compute, held: &BTreeSet<&ComputeId>) -> Machine {
    let whose = match (held.contains(&machine.id), machine.keys.key()) {
        (true, _) => "session",
        (false, Some(_)) => "key",
        (false, None) => "other",
    };
    Machine {
        id: machine.id.clone(),
        name: machine.name.clone(),
        status: machine.status.clone(),
        cost_per_hour: machine.cost_per_hour,
        whose,
        launch_key: machine.keys.key(),
    }
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
        Some(keeper.ask(Accept {}, |_| Ok(())).await?)
    } else {
        None
    };
    if let Some(account) = accepts.account {
        keeper.ask(AcceptAccount { account }, |_| Ok(())).await?;
    }
    let diagnosis = Diagnosis {
        store: setup.store().to_owned(),
        accepted,
        health: keeper.ask(Health {}, |_| Ok(())).await?,
    };
    let health = &diagnosis.health;
    let silent: Vec<&str> = health
        .accounts
        .iter()
        .filter(|(_, seen)| !seen.answers)
        .map(|(name, _)| name.as_str())
        .collect();
    out.answer(&diagnosis, || {
        let mut lines = vec![
            format!("store     {}", setup.store().display()),
            format!("sessions  {}", health.sessions),
        ];
        lines.push(format!(
            "hold      {}",
            health.hold.as_deref().unwrap_or("no")
        ));
        let differing = &health.clocks.differing;
        lines.push(format!(
            "clocks    {}",
            if differing.is_empty() {
                "agree".to_owned()
            } else {
                differing.join("; ")
            }
        ));
        lines.extend(
            health
                .accounts
                .iter()
                .map(|(name, seen)| format!("account   {name}: {}", view::plain(seen))),
        );
        lines.join("\n")
    })?;
    if let Some(why) = &health.hold {
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
    if let Some(first) = health.clocks.differing.first() {
        return Err(Failure::new(format!(
            "{first}: correct the clock of the host that keeps the store"
        )));
    }
    Ok(())
}

fn findings(reports: &ReapReports) -> Page {
    let mut rows = Vec::new();
    for (account, report) in &reports.accounts {
        for (kind, findings) in [
            ("victims", &report.victims),
            ("quarantined", &report.quarantined),
            ("ambiguous", &report.ambiguous),
        ] {
            for one in findings {
                rows.push(vec![
                    account.to_string(),
                    kind.to_owned(),
                    view::plain(&one.compute),
                    view::plain(&one.burn),
                    view::plain(&one.why),
                ]);
            }
        }
        let complete = if report.complete {
            "complete"
        } else {
            "incomplete"
        };
        rows.push(vec![
            account.to_string(),
            "scanned".to_owned(),
            report.scanned.to_string(),
            String::new(),
            complete.to_owned(),
        ]);
    }
    output::table(&["ACCOUNT", "WHAT", "MACHINE", "$/H", "WHY"], rows)
}
