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
use atlas_testkit::dialect::CLOUDS;
use atlas_testkit::dialect::cloud::{Served, Setting, Started};
use atlas_testkit::world::{Fault, FaultPlan, World, WorldClock};
use tokio::net::TcpListener;

use admin::Admin;
pub use args::{Command, FaultFile, parse};
use proxy::Proxy;
use ready::Urls;
pub use ready::{Bounds, Ready};
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
    /// Whether the clouds limit the rate of calls. A test about something else turns it off.
    pub rates: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 1,
            speed: 1.0,
            faults: Vec::new(),
            plans: Vec::new(),
            rates: true,
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
    let mut world = World::new(options.seed, clock);
    for cloud in CLOUDS {
        world = world.with_cloud((cloud.spec)());
    }
    furnish(&world);
    world.inject(options.faults);
    world.plan_faults(options.plans);

    let mut ports = Ports {
        next: options.listen,
    };
    let (admin_listener, admin) = ports.bind().await?;
    let mut ready = Ready {
        admin: format!("http://{admin}"),
        bounds: Bounds::at_speed(world.clock().speed()),
        clouds: Vec::new(),
    };
    let recorder = Recorder::default();
    let mut serving = Serving::default();
    let mut resets = Vec::new();
    for cloud in CLOUDS {
        let (mut listeners, mut setting) = (Vec::new(), Setting::default());
        for _ in cloud.listeners {
            let (listener, address) = ports.bind().await?;
            setting.addresses.push(format!("http://{address}"));
            listeners.push(listener);
        }
        (setting.key, setting.rates) = (Some(KEY.to_owned()), options.rates);
        ready
            .clouds
            .push((cloud.name, Urls::of(cloud, &setting.addresses)));
        let Started { services, reset } = (cloud.start)(&world, &setting);
        resets.push(reset);
        for ((name, listener), service) in cloud.listeners.iter().zip(listeners).zip(services) {
            match service {
                Served::Api(api) => {
                    let log = Log::new(recorder.clone(), world.clock().clone(), cloud.name, name);
                    serving.add(listener, Recording::new(api, log));
                }
                Served::Ports(reach) => {
                    serving.add(listener, Proxy::new(world.clone(), cloud.name, reach));
                }
            }
        }
    }
    let afresh = {
        let (world, recorder) = (world.clone(), recorder.clone());
        move || {
            world.reset();
            resets.iter().for_each(|reset| reset());
            recorder.clear();
            furnish(&world);
        }
    };
    serving.add(admin_listener, Admin::new(world.clone(), recorder, afresh));
    serving.run(deliver::deliver(world.clone()));
    Ok(Sim {
        world,
        ready,
        serving,
    })
}

/// Adds what every new simulator has: the key, and what the cloud's accounts come with.
fn furnish(world: &World) {
    for cloud in CLOUDS {
        let account = world.add_key(cloud.name, KEY, cloud.account.unwrap_or(ACCOUNT));
        (cloud.furnish)(world, &account);
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
