//! The simulated cloud that a demo runs on.

use std::time::Duration;

use atlas::testkit::dialect::cloud::SimulatedCloud;
use atlas::testkit::dialect::{CLOUDS, cloud_named};
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// A cloud that the demo can run on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DemoCloud(pub(crate) &'static SimulatedCloud);

impl DemoCloud {
    /// Reads a cloud's name from the command line.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        let names = PossibleValuesParser::new(CLOUDS.iter().map(|cloud| cloud.name));
        names.map(|name| Self(cloud_named(&name).expect("only names of the list are accepted")))
    }

    /// Its name, as accounts and the ledger have it.
    pub(crate) const fn name(self) -> &'static str {
        self.0.name
    }

    /// How long a session may be idle in the demo, whose time runs this many times as fast: well
    /// longer than the slowest way from an order to a usable machine.
    pub(crate) fn idle(self, speed: u32) -> Duration {
        let timing = (self.0.spec)().timing;
        let slowest = timing.provisioning.1 + timing.starting.1 + timing.ports.1 + timing.warm_up.1;
        (3 * slowest / speed).max(Duration::from_secs(5))
    }

    /// Whether its machines have a URL that the simulator serves. Those of the others are bare
    /// addresses, of machines that do not exist.
    pub(crate) fn has_url(self) -> bool {
        self.0.urls.iter().any(|url| url.name == "proxy")
    }
}

impl PartialEq for DemoCloud {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for DemoCloud {}

impl PartialOrd for DemoCloud {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DemoCloud {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name().cmp(other.name())
    }
}
