//! The simulated clouds over TCP: serves the dialects of `atlas-testkit` over real HTTP, with an
//! admin interface.
//!
//! ```no_run
//! # async fn demo() -> std::io::Result<()> {
//! let sim = atlas_sim::serve(atlas_sim::Options::default()).await?;
//! println!("{}", sim.ready().line());
//! sim.stop().await;
//! # Ok(()) }
//! ```
//!
//! Deliberately absent: the clouds' answers (they are in the dialects) and the simulated state (it
//! is in the world).

mod admin;
mod args;
mod deliver;
mod proxy;
mod ready;
mod record;
mod server;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use atlas_core::{Clock, SystemClock};
use atlas_testkit::dialect::fly::{self, Fly};
use atlas_testkit::dialect::fly_logs::{FlyLogs, Rights};
use atlas_testkit::dialect::lambda::{self, Lambda, Quirks, Rates};
use atlas_testkit::dialect::runpod::{self, RunPod};
use atlas_testkit::dialect::vast::{self, Vast};
use atlas_testkit::world::{Fault, FaultPlan, World, WorldClock};
use tokio::net::TcpListener;

use admin::Admin;
pub use args::{Command, FaultFile, parse};
use proxy::Proxy;
pub use ready::{Bounds, FlyUrls, Ready, RunPodUrls};
use record::{Log, Recorder, Recording};
use server::Serving;

/// The key that is valid on every simulated cloud; any other is answered like a bad key of that
/// cloud.
pub const KEY: &str = "sim-key";
/// The account it belongs to.
pub const ACCOUNT: &str = "sim";

/// How long connections may finish their answers when the simulator stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What to simulate, and where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where the admin listens. With port 0 every listener gets a free port, else those after it.
    pub listen: SocketAddr,
    /// The seed of the world's randomness.
    pub seed: u64,
    /// Simulated seconds for each second.
    pub speed: f64,
    /// Faults waiting from the beginning.
    pub faults: Vec<Fault>,
    /// Faults that may come with any call, by chance.
    pub plans: Vec<FaultPlan>,
    /// How many calls Lambda takes; `None` for any number, which a suite about other things likes.
    pub lambda_rates: Option<Rates>,
    /// How many calls Fly takes; `None` for any number.
    pub fly_rates: Option<fly::Rates>,
    /// How often each endpoint of Vast may be called; `None` for any number.
    pub vast_rates: Option<vast::Rates>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 1,
            speed: 1.0,
            faults: Vec::new(),
            plans: Vec::new(),
            lambda_rates: Some(Rates::default()),
            fly_rates: Some(fly::Rates::default()),
            vast_rates: Some(vast::Rates::default()),
        }
    }
}

/// A running simulator. Dropped without [`Sim::stop`], its listeners and connections end with it.
#[derive(Debug)]
pub struct Sim {
    world: World,
    ready: Ready,
    serving: Serving,
}

impl Sim {
    /// The URLs of everything.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The world behind it.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Accepts no more connections, lets existing ones finish their answers for a second, and
    /// stops.
    ///
    /// # Cancel safety
    /// If cancelled, it stops at once.
    pub async fn stop(self) {
        self.serving.stop(LAST_WORDS).await;
    }
}

/// Starts the simulated clouds; they run in tasks of their own on the current runtime.
///
/// # Errors
/// When a listener cannot be bound.
///
/// # Cancel safety
/// If cancelled, nothing is left running.
pub async fn serve(options: Options) -> io::Result<Sim> {
    let clock = WorldClock::following_from(SystemClock.now(), options.speed);
    let world = World::new(options.seed, clock)
        .with_cloud(runpod::cloud())
        .with_cloud(lambda::cloud())
        .with_cloud(fly::cloud());
    let world = world.with_cloud(vast::cloud());
    furnish(&world);
    world.inject(options.faults);
    world.plan_faults(options.plans);

    let mut ports = Ports {
        next: options.listen,
    };
    let (admin_listener, admin) = ports.bind().await?;
    let (control_listener, control) = ports.bind().await?;
    let (runtime_listener, runtime) = ports.bind().await?;
    let (proxy_listener, proxy) = ports.bind().await?;
    let (lambda_listener, lambda_at) = ports.bind().await?;
    let (fly_logs_listener, fly_logs_at) = ports.bind().await?;
    let (fly_listener, fly_at) = ports.bind().await?;
    let (fly_proxy_listener, fly_proxy_at) = ports.bind().await?;
    let (vast_listener, vast_at) = ports.bind().await?;
    let (vast_results_listener, vast_results_at) = ports.bind().await?;

    let recorder = Recorder::default();
    let mut quirks = Quirks::default();
    quirks.rates = options.lambda_rates;
    let (runpod, lambda) = (
        RunPod::new(world.clone()),
        Lambda::new(world.clone()).with_quirks(quirks),
    );
    let mut vast_quirks = vast::Quirks::default();
    (vast_quirks.rates, vast_quirks.results_url) =
        (options.vast_rates, format!("http://{vast_results_at}/s3"));
    let vast = Vast::new(world.clone()).with_quirks(vast_quirks);
    let mut fly_quirks = fly::Quirks::default();
    fly_quirks.rates = options.fly_rates;
    let fly = Fly::new(world.clone()).with_quirks(fly_quirks);
    let fly_logs = FlyLogs::new(world.clone());
    fly_logs.add_token(KEY, Rights::Read);
    fly_logs.add_machines_of(&fly);
    write_logs(&fly_logs);
    let ready = Ready {
        admin: format!("http://{admin}"),
        bounds: Bounds::at_speed(world.clock().speed()),
        runpod: RunPodUrls {
            control: format!("http://{control}"),
            runtime: format!("http://{runtime}/v2"),
            graphql: format!("http://{control}/graphql"),
            proxy: format!("http://{proxy}/{{id}}/{{port}}"),
        },
        fly: FlyUrls {
            machines: format!("http://{fly_at}"),
            logs: format!("http://{fly_logs_at}"),
            proxy: format!("http://{fly_proxy_at}/{{app}}"),
        },
        lambda: format!("http://{lambda_at}/api/v1"),
        vast: format!("http://{vast_at}"),
    };
    let mut serving = Serving::default();
    let afresh = {
        let (world, recorder, runpod, lambda) = (
            world.clone(),
            recorder.clone(),
            runpod.clone(),
            lambda.clone(),
        );
        let (fly, fly_logs, vast) = (fly.clone(), fly_logs.clone(), vast.clone());
        move || {
            world.reset();
            runpod.reset();
            lambda.reset();
            vast.reset();
            fly.reset();
            fly_logs.reset();
            write_logs(&fly_logs);
            recorder.clear();
            furnish(&world);
        }
    };
    serving.add(
        admin_listener,
        Admin::new(world.clone(), recorder.clone(), afresh),
    );
    let log = |api| Log::new(recorder.clone(), world.clock().clone(), api);
    serving.add(
        runtime_listener,
        Recording::new(runpod.runtime(), log("runpod/runtime")),
    );
    serving.add(
        control_listener,
        Recording::new(runpod, log("runpod/control")),
    );
    serving.add(lambda_listener, Recording::new(lambda, log("lambda")));
    serving.add(
        vast_results_listener,
        Recording::new(vast.results(), log("vast/results")),
    );
    serving.add(vast_listener, Recording::new(vast, log("vast")));
    serving.add(
        fly_listener,
        Recording::new(fly.clone(), log("fly/machines")),
    );
    serving.add(fly_logs_listener, Recording::new(fly_logs, log("fly/logs")));
    serving.run(deliver::deliver(world.clone()));
    serving.add(proxy_listener, Proxy::new(world.clone(), runpod::NAME));
    serving.add(fly_proxy_listener, Proxy::of_apps(fly));
    Ok(Sim {
        world,
        ready,
        serving,
    })
}

/// What every fresh simulator holds: the key, and on RunPod the endpoint `sim-endpoint`.
fn furnish(world: &World) {
    let account = world.add_key(runpod::NAME, KEY, ACCOUNT);
    runpod::add_endpoint(world, &account);
    world.add_key(lambda::NAME, KEY, ACCOUNT);
    world.add_key(vast::NAME, KEY, ACCOUNT);
    world.add_key(fly::NAME, KEY, fly::ORG);
}

/// The Fly app `sim-app` has written this when a simulator begins.
fn write_logs(logs: &FlyLogs) {
    for line in ["Starting machine", "listening on :8080", "GET /healthz 200"] {
        logs.print("sim-app", line);
    }
}

/// Addresses for the listeners: the one asked for, then those after it, or free ones.
struct Ports {
    next: SocketAddr,
}

impl Ports {
    async fn bind(&mut self) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(self.next).await?;
        let bound = listener.local_addr()?;
        if self.next.port() != 0 {
            let next = self
                .next
                .port()
                .checked_add(1)
                .ok_or_else(|| io::Error::other("no port left after the one asked for"))?;
            self.next.set_port(next);
        }
        Ok((listener, bound))
    }
}
