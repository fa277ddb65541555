//! `atlas demo`: the main job from end to end over simulated clouds, a crash at the worst moment
//! included.
//!
//! This process plays the clouds and the browsers. The orchestrator of each cloud is a child
//! process, so that it can be killed as nothing can be killed from within: SIGKILL, between the
//! moment a create is committed at the cloud and the moment its answer is recorded.

mod call;
mod hand;
mod story;
pub(crate) mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atlas::owner::{Await, Filter, Info, List, Sealed, SessionView, Spawn, Stop, Touch, Until};
use atlas::{Auth, Limit, Port, Reason, Secret, SessionId, SessionOptions, SessionState};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::hand::{Clouds, Hand};
use self::story::{Ledger, Story};
use crate::demo_cloud::DemoCloud;
use crate::failure::{Done, Failure};
use crate::keeper::Keeper;
use crate::output::Output;
use crate::view::plain;

/// Simulated seconds for each real one.
const SPEED_UP: u32 = 60;
const SPEED: f64 = 60.0;
/// How often a watched thing is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long anything in the demo may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(40);

/// One cloud's part of the demo.
#[derive(Clone)]
struct Stage {
    story: Story,
    clouds: Arc<Clouds>,
    place: DemoCloud,
}

impl Stage {
    fn keeper(&self) -> Keeper {
        self.clouds.keeper(self.place)
    }

    /// How many machines its cloud ever made.
    async fn created(&self) -> Done<u64> {
        let answer = call::get(&self.clouds.ledger_url()).await?;
        Ok(Ledger::of(&answer)?.cloud(self.place.name())?.created)
    }
}

/// A user's session, as the demo's browser knows it.
struct Pod {
    user: &'static str,
    session: SessionId,
    /// Its machine's URL and the token for it, where the simulator serves one.
    door: Option<(String, Secret)>,
}

/// Runs it. Fails when a step does not do what it must, and when the clouds' ledger shows a live
/// machine at the end.
pub(crate) async fn run(places: Vec<DemoCloud>, out: Output) -> Done {
    let story = Story::begin(out);
    let places: BTreeSet<DemoCloud> = places.into_iter().collect();
    let clouds = Arc::new(Clouds::start(SPEED, &places).await?);
    let names: Vec<&str> = places.iter().map(|place| place.name()).collect();
    story.tell(
        "sim",
        format!(
            "answers on loopback as {}; its time runs {SPEED:.0} times as fast",
            names.join(", ")
        ),
    )?;
    let mut telling = JoinSet::new();
    for place in &places {
        let story = if places.len() > 1 {
            story.of(place.name())
        } else {
            story
        };
        let stage = Stage {
            story,
            clouds: Arc::clone(&clouds),
            place: *place,
        };
        telling.spawn(async move {
            tell(&stage)
                .await
                .map_err(|why| Failure::new(format!("{}: {why}", stage.place.name())))
        });
    }
    let told = telling
        .join_all()
        .await
        .into_iter()
        .collect::<Done<Vec<()>>>();
    let answer = call::get(&clouds.ledger_url()).await?;
    if told.is_ok() {
        story.tell("sim", "the clouds' own ledger:")?;
    }
    let ledger = Ledger::of(&answer)?;
    out.answer(&answer, || ledger.table())?;
    told?;
    for place in places {
        let made = ledger.cloud(place.name())?.created;
        expect(made > 0, || format!("{} made no machine", place.name()))?;
    }
    match ledger.live() {
        0 => Ok(()),
        live => Err(Failure::new(format!(
            "{live} machines are alive after the demo"
        ))),
    }
}

async fn tell(stage: &Stage) -> Done {
    let story = &stage.story;
    let mut hand = Hand::start(&stage.clouds, stage.place).await?;
    story.tell(
        "atlas",
        format!("the orchestrator runs as process {}", hand.process()),
    )?;

    let mut company = JoinSet::new();
    let ana = async {
        let pod = spawn(stage, "ana").await?;
        company.spawn(keep_company(stage.keeper(), pod.session));
        Ok(pod)
    };
    let (ben, eva) = (spawn(stage, "ben"), spawn(stage, "eva"));
    let (ana, ben, eva) = tokio::try_join!(ana, ben, eva)?;

    let answer = hand
        .ask(Stop {
            session: eva.session,
        })
        .await?;
    story.tell(
        eva.user,
        format!(
            "is done and stops the session by hand: {}",
            answer.outcome.state().as_str()
        ),
    )?;

    let begun = Instant::now();
    let idle = Some(Reason::Limit {
        limit: Limit::IdleTtl,
    });
    loop {
        let info = info(&mut hand, ben.session).await?;
        if info.info.reason == idle {
            break;
        }
        expect(begun.elapsed() < PATIENCE, || {
            format!("nobody ended {}'s idle session: {}", ben.user, plain(&info))
        })?;
        sleep(LOOK).await;
    }
    story.tell(
        ben.user,
        format!(
            "was idle for {:?}: the session is being ended",
            stage.place.idle(SPEED_UP)
        ),
    )?;
    let touched = info(&mut hand, ana.session).await?;
    expect(touched.info.reason.is_none(), || {
        format!("{}'s session is being ended: {}", ana.user, plain(&touched))
    })?;
    story.tell(ana.user, "was touched all the while, and keeps the machine")?;

    crash(stage, hand).await?;

    let mut hand = Hand::start(&stage.clouds, stage.place).await?;
    story.tell(
        "atlas",
        format!(
            "starts again as process {}, on the same store",
            hand.process()
        ),
    )?;
    recovered(story, &mut hand, &ana).await?;

    story.tell(
        "atlas",
        "terminate_all: ends every machine, and proves its absence",
    )?;
    let report = hand.terminate_all().await?;
    expect(report.unsettled.is_empty(), || {
        format!("not everything could be ended: {}", plain(&report))
    })?;
    story.tell("atlas", "every machine it ever had is proved to be gone")
}

/// Orders a machine for one more user, and kills the orchestrator when the cloud has made it and
/// before anybody can know.
async fn crash(stage: &Stage, mut hand: Hand) -> Done {
    let before = stage.created().await?;
    let fault = json!([{"cloud": stage.place.name(), "operation": "spawn_compute",
        "kind": "commit-then-timeout", "count": 1}]);
    call::post(&stage.clouds.faults_url(), &fault).await?;
    let (mut keeper, place) = (stage.keeper(), stage.place);
    let ordering = tokio::spawn(async move {
        keeper
            .ask(order(place, "zoe", 20 * place.idle(SPEED_UP)), |_| Ok(()))
            .await
    });
    let begun = Instant::now();
    while stage.created().await? == before {
        expect(begun.elapsed() < PATIENCE, || {
            "the order never reached the cloud".to_owned()
        })?;
        sleep(LOOK / 10).await;
    }
    let killed = hand.process();
    hand.kill().await?;
    expect(!matches!(ordering.await, Ok(Ok(_))), || {
        "the lost order was answered".to_owned()
    })?;
    stage.story.tell(
        "zoe",
        format!(
            "the cloud has made a machine; process {killed} died by SIGKILL before it was told"
        ),
    )
}

/// Waits until the machine of the lost answer is known again, and checks that the others still are.
async fn recovered(story: &Story, hand: &mut Hand, ana: &Pod) -> Done {
    let begun = Instant::now();
    let found = loop {
        let all = hand.ask(List(Filter::default())).await?;
        let zoe = all
            .iter()
            .find(|one| one.info.options.user_id.as_deref() == Some("zoe"));
        if let Some(machine) = zoe.and_then(|one| one.info.compute.as_ref()) {
            break machine.id.clone();
        }
        expect(begun.elapsed() < PATIENCE, || {
            format!(
                "the machine of the lost answer was not found again: {}",
                plain(&all)
            )
        })?;
        sleep(LOOK).await;
    };
    story.tell(
        "zoe",
        format!("machine {found} was found by its launch key, and is the session's"),
    )?;
    let Some((url, token)) = &ana.door else {
        let kept = info(hand, ana.session).await?;
        expect(kept.info.state == SessionState::Ready, || {
            format!(
                "{}'s session is not ready after the crash: {}",
                ana.user,
                plain(&kept)
            )
        })?;
        return story.tell(ana.user, format!("still has machine {}", machine_of(&kept)));
    };
    let status = call::status(url, Some(token)).await?;
    expect(status == 200, || {
        format!("{url} answered {status} after the crash")
    })?;
    story.tell(
        ana.user,
        format!("still has the machine: {status} with the same token"),
    )
}

/// Gives a user a machine, and calls its URL, where it has one, as a browser would, with its token
/// and without.
async fn spawn(stage: &Stage, user: &'static str) -> Done<Pod> {
    let (story, mut keeper) = (&stage.story, stage.keeper());
    let made = keeper
        .ask(order(stage.place, user, stage.place.idle(SPEED_UP)), |_| {
            Ok(())
        })
        .await?;
    let session = made.info.id;
    story.tell(
        user,
        format!("has session {session}, machine {}", machine_of(&made)),
    )?;
    let ready = Await {
        session,
        until: Until::Ready,
        longest_ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
    };
    keeper.ask(ready, |_| Ok(())).await?;
    let made = keeper
        .ask(
            Info {
                session,
                secrets: true,
            },
            |_| Ok(()),
        )
        .await?;
    if !stage.place.has_url() {
        expect(made.info.state == SessionState::Ready, || {
            format!(
                "{user}'s session is not ready: {}",
                made.info.state.as_str()
            )
        })?;
        story.tell(
            user,
            format!(
                "machine {} is ready; it is an address and no URL",
                machine_of(&made)
            ),
        )?;
        return Ok(Pod {
            user,
            session,
            door: None,
        });
    }
    let ports = made.info.compute.map(|compute| compute.ports);
    let url = ports.and_then(|ports| ports.into_iter().next()?.url);
    let token = made.auth.and_then(|auth| auth.token);
    let (Some(url), Some(token)) = (url, token) else {
        return Err(Failure::new("a ready session without URL or token"));
    };
    let token = Secret::new(token.expose());
    let with = usable(&url, &token).await?;
    let without = call::status(&url, None).await?;
    expect(without == 401, || {
        format!("{url} answered {without} without its token")
    })?;
    story.tell(
        user,
        format!("calls {url}: {with} with the token, {without} without"),
    )?;
    Ok(Pod {
        user,
        session,
        door: Some((url, token)),
    })
}

/// Touches a session as long as the demo lasts, as a page that is open does. The orchestrator is
/// killed meanwhile: a touch that does not arrive is followed by the next.
async fn keep_company(mut keeper: Keeper, session: SessionId) {
    loop {
        let _ = keeper.ask(Touch { session }, |_| Ok(())).await;
        sleep(LOOK).await;
    }
}

fn order(place: DemoCloud, user: &str, idle: Duration) -> Spawn {
    let request = (place.0.usage.machine)()
        .image("ghcr.io/atlas-rs/echo:1")
        .name(user)
        .port(Port::http(8000))
        .auth(Auth::Bearer);
    Spawn {
        request: Sealed::new(&request),
        options: SessionOptions::new().user(user).idle_ttl(idle),
        task: false,
    }
}

/// The id of a session's machine.
fn machine_of(session: &SessionView) -> String {
    plain(&session.info.compute.as_ref().map(|compute| &compute.id))
}

async fn info(hand: &mut Hand, session: SessionId) -> Done<SessionView> {
    hand.ask(Info {
        session,
        secrets: false,
    })
    .await
}

/// Calls until the machine's server answers; a cloud's proxy answers before its server does.
async fn usable(url: &str, token: &Secret) -> Done<u16> {
    let begun = Instant::now();
    loop {
        let status = call::status(url, Some(token)).await?;
        if status == 200 {
            return Ok(status);
        }
        expect(begun.elapsed() < PATIENCE, || {
            format!("{url} answers {status} with its token")
        })?;
        sleep(LOOK).await;
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Done {
    if holds {
        Ok(())
    } else {
        Err(Failure::new(otherwise()))
    }
}
