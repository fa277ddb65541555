//! Reports of machines to the nodes: progress, lines of their log, activity, the exit code. Some
//! arrive late, twice, or during a crash. Other senders report without a token, or with that of
//! another session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{Secret, Timestamp};
use atlas_http::Body;
use atlas_testkit::world::{Machine, MachineState, World};
use atlas_web::callback::{CallbackUrl, Reach, TOKEN_ENV, URL_ENV};
use http::{Method, Request, StatusCode};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::dice::Dice;
use crate::facts::Facts;
use crate::node::Node;
use crate::process::Places;

/// The reports of other senders; none of our machines ever sends them.
pub(crate) const FORGED: &str = "zzFORGEDzz";
/// The exit code that another sender reports.
pub(crate) const FORGED_CODE: i32 = 99;
/// How long a reporting machine waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The URL to which machines report.
pub(crate) fn url() -> CallbackUrl {
    CallbackUrl::check("https://app.example.com/callbacks", Reach::Public)
        .expect("an address that anybody could have")
}

/// The machines' side of callbacks. Clones share one state.
#[derive(Clone, Debug)]
pub(crate) struct Reporters(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    dice: Dice,
    /// The state of each machine with something to report.
    told: BTreeMap<String, Told>,
    sent: u64,
    forged: u64,
}

#[derive(Debug, Default)]
struct Told {
    /// When it starts to report the end of its command; separate connections may be late.
    exit_from: Option<Timestamp>,
    under_way: bool,
    /// How many more times it reports its end although it was answered.
    again: u64,
    done: bool,
}

/// One report to be sent.
struct Report {
    machine: String,
    path: String,
    token: Option<Secret>,
    body: String,
    kind: &'static str,
}

impl Reporters {
    pub(crate) fn new(seed: u64) -> Self {
        let dice = Dice::new(seed, "callbacks");
        Self(Arc::new(Mutex::new(State {
            dice,
            told: BTreeMap::new(),
            sent: 0,
            forged: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many reports were sent, and how many by other senders.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.sent, state.forged)
    }

    /// Lets each of these machines send its due reports to running nodes.
    pub(crate) fn speak(
        &self,
        machines: &[Machine],
        nodes: &[Node],
        facts: &Facts,
        world: &World,
        places: &Places,
    ) {
        let up: Vec<&Node> = nodes
            .iter()
            .filter(|node| node.callbacks().is_some())
            .collect();
        if up.is_empty() {
            return;
        }
        for report in self.due(machines, world.now()) {
            let node = (*self.state().dice.pick(&up)).clone();
            drop(tokio::spawn(self.clone().send(
                report,
                node,
                facts.clone(),
                world.clone(),
                places.clone(),
            )));
        }
    }

    fn due(&self, machines: &[Machine], now: Timestamp) -> Vec<Report> {
        let mut due = Vec::new();
        let mut state = self.state();
        let state = &mut *state;
        let able: Vec<(&Machine, &str, &Secret)> = machines.iter().filter_map(able).collect();
        for (machine, session, token) in &able {
            let told = state.told.entry(machine.id.clone()).or_default();
            let mut say = |kind: &'static str, body: String| {
                let path = format!("/{session}/{kind}");
                due.push(Report {
                    machine: machine.id.clone(),
                    path,
                    token: Some((*token).clone()),
                    body,
                    kind,
                });
            };
            match machine.exit_code {
                Some(code) if !told.done && !told.under_way => {
                    let late = if state.dice.percent(70) {
                        Duration::ZERO
                    } else {
                        state.dice.seconds(1..200)
                    };
                    if *told.exit_from.get_or_insert(now.saturating_add(late)) <= now {
                        told.under_way = true;
                        say("exit", code.to_string());
                    }
                }
                None if machine.state == MachineState::Running && state.dice.percent(6) => {
                    match state.dice.draw(0..9) {
                        0..4 => say("progress", format!("{{\"of\":\"{}\"}}", machine.id)),
                        4..8 => say("log", format!("line of {}", machine.id)),
                        _ => say("activity", String::new()),
                    }
                }
                _ => {}
            }
        }
        if let Some((_, session, token)) = able.first().filter(|_| state.dice.percent(1)) {
            // A token of another session, an altered one, or none.
            let others = able
                .iter()
                .find(|(_, other, _)| other != session)
                .map(|(_, _, token)| (*token).clone());
            let token = match state.dice.draw(0..3) {
                0 => others,
                1 => Some(Secret::new(format!("{}A", token.expose()))),
                _ => None,
            };
            let (kind, body) = match state.dice.draw(0..3) {
                0 => ("exit", FORGED_CODE.to_string()),
                1 => ("log", FORGED.to_owned()),
                _ => ("activity", String::new()),
            };
            state.forged += 1;
            due.push(Report {
                machine: FORGED.to_owned(),
                path: format!("/{session}/{kind}"),
                token,
                body,
                kind,
            });
        }
        state.sent += due.iter().filter(|report| report.machine != FORGED).count() as u64;
        due
    }

    async fn send(self, report: Report, node: Node, facts: Facts, world: World, places: Places) {
        let latency = self.state().dice.draw(1..120);
        sleep(Duration::from_millis(latency)).await;
        let Some(callbacks) = node.callbacks() else {
            return self.answered(&report, None);
        };
        let Ok(mut request) = Request::builder()
            .method(Method::POST)
            .uri(report.path.as_str())
            .body(Body::from(report.body.clone()))
        else {
            return;
        };
        if let Some(value) = report
            .token
            .as_ref()
            .and_then(|token| format!("Bearer {}", token.expose()).parse().ok())
        {
            request
                .headers_mut()
                .insert(http::header::AUTHORIZATION, value);
        }
        let before = world.now();
        let (process, place) = (node.process.clone(), format!("callback {}", report.kind));
        let taking = node.process.task(async move {
            places.pass(&process, &format!("{place} before")).await;
            let answer = callbacks.service().oneshot(request).await;
            places.pass(&process, &format!("{place} after")).await;
            answer
        });
        let answer = timeout(PATIENCE, taking).await.ok();
        let status = answer.map(|answer| match answer {
            Ok(answer) => answer.status(),
            Err(never) => match never {},
        });
        if report.machine == FORGED {
            if status.is_some_and(|status| status.is_success()) {
                facts.seen().forged_taken.push(report.path.clone());
            }
            return;
        }
        if report.kind == "activity"
            && let Some(session) = report
                .path
                .split('/')
                .nth(1)
                .and_then(|session| session.parse().ok())
        {
            let mut seen = facts.seen();
            let sort = if status == Some(StatusCode::NO_CONTENT) {
                &mut seen.touches
            } else {
                &mut seen.deferred
            };
            sort.entry(session).or_default().push(before);
        }
        self.answered(&report, status);
    }

    /// An end that no node accepted is reported again; some machines also repeat one that was
    /// accepted.
    fn answered(&self, report: &Report, status: Option<StatusCode>) {
        if report.kind != "exit" {
            return;
        }
        let mut state = self.state();
        let state = &mut *state;
        let Some(told) = state.told.get_mut(&report.machine) else {
            return;
        };
        told.under_way = false;
        let taken = matches!(
            status,
            Some(StatusCode::NO_CONTENT | StatusCode::GONE | StatusCode::UNAUTHORIZED)
        );
        if taken {
            told.again += 1;
            told.done = told.again > 2 || state.dice.percent(60);
        }
    }
}

/// A machine that knows the URL for its reports, its session, and its token.
fn able(machine: &Machine) -> Option<(&Machine, &str, &Secret)> {
    let token = machine.spec.env.get(TOKEN_ENV)?;
    let session = machine.spec.env.get(URL_ENV)?.expose().rsplit('/').next()?;
    Some((machine, session, token))
}
