//! The line with all URLs, and the time limits for clients of this simulator.

use std::time::Duration;

use atlas_testkit::dialect::cloud::SimulatedCloud;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// What the simulator prints when it is ready: the URLs of the admin and of every cloud. In JSON, a
/// cloud with one URL is a string; others are objects of their URLs by name.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The admin's base URL.
    pub admin: String,
    /// The delays of this simulator at its speed.
    pub bounds: Bounds,
    pub(crate) clouds: Vec<(&'static str, Urls)>,
}

/// The URLs of one cloud, by name; the first one is a provider's base URL.
#[derive(Clone, Debug)]
pub(crate) struct Urls(Vec<(&'static str, String)>);

impl Urls {
    /// Its URLs, where the listeners have these addresses.
    pub(crate) fn of(cloud: &SimulatedCloud, addresses: &[String]) -> Self {
        let address = |listener: &str| {
            let own = cloud.listeners.iter().zip(addresses);
            own.filter(|(name, _)| **name == listener)
                .map(|(_, address)| address.as_str())
                .next()
                .unwrap_or_default()
        };
        let urls = cloud.urls.iter();
        Self(
            urls.map(|url| (url.name, format!("{}{}", address(url.listener), url.path)))
                .collect(),
        )
    }
}

impl Serialize for Urls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [(_, only)] => serializer.serialize_str(only),
            several => serializer.collect_map(several.iter().map(|(name, url)| (name, url))),
        }
    }
}

impl Serialize for Ready {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("admin", &self.admin)?;
        map.serialize_entry("bounds", &self.bounds)?;
        for (cloud, urls) in &self.clouds {
            map.serialize_entry(cloud, urls)?;
        }
        map.end()
    }
}

/// The limits that a client configures for this simulator, in milliseconds of real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Bounds {
    /// How late a new machine may appear.
    pub visibility_bound_ms: u64,
    /// How long a call may take.
    pub call_deadline_ms: u64,
    /// How far apart calls should be, on average.
    pub call_interval_ms: u64,
    /// How old a machine must be before it may be reaped.
    pub grace_ms: u64,
    /// How often to look for machines to reap.
    pub reap_interval_ms: u64,
    /// How often to look after a machine.
    pub poll_interval_ms: u64,
}

impl Bounds {
    /// The bounds of real clouds, so much faster, and never faster than loopback and a scheduler
    /// are.
    #[must_use]
    pub fn at_speed(speed: f64) -> Self {
        let scaled = |seconds: f64, at_least: u64| {
            let span = Duration::try_from_secs_f64(seconds / speed).unwrap_or(Duration::MAX);
            u64::try_from(span.as_millis())
                .unwrap_or(u64::MAX)
                .max(at_least)
        };
        Self {
            visibility_bound_ms: scaled(120.0, 100),
            call_deadline_ms: scaled(30.0, 1000),
            call_interval_ms: scaled(0.1, 1),
            grace_ms: scaled(120.0, 200),
            reap_interval_ms: scaled(60.0, 200),
            poll_interval_ms: scaled(60.0, 200),
        }
    }
}

impl Ready {
    /// A URL of a cloud, by the name that the cloud's description gives it; empty if there is none.
    #[must_use]
    pub fn url(&self, cloud: &str, name: &str) -> &str {
        self.urls(cloud)
            .find(|(own, _)| *own == name)
            .map_or("", |(_, url)| url)
    }

    /// The URL that a provider of this cloud takes as its base URL; empty for an unknown cloud.
    #[must_use]
    pub fn base_url(&self, cloud: &str) -> &str {
        self.urls(cloud).next().map_or("", |(_, url)| url)
    }

    /// The environment variables that lead a client to this cloud, without the key's.
    #[must_use]
    pub fn variables(&self, cloud: &SimulatedCloud) -> Vec<(&'static str, &str)> {
        let own = cloud.client.urls.iter();
        own.map(|(variable, name)| (*variable, self.url(cloud.name, name)))
            .collect()
    }

    fn urls(&self, cloud: &str) -> impl Iterator<Item = (&'static str, &str)> {
        let own = self.clouds.iter().filter(move |(name, _)| *name == cloud);
        own.flat_map(|(_, urls)| urls.0.iter().map(|(name, url)| (*name, url.as_str())))
    }

    /// The line, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("URLs and numbers are plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_shrink_with_speed_and_not_below_what_loopback_needs() {
        assert_eq!(Bounds::at_speed(1.0).visibility_bound_ms, 120_000);
        assert_eq!(Bounds::at_speed(60.0).visibility_bound_ms, 2_000);
        assert_eq!(Bounds::at_speed(1e9).call_deadline_ms, 1000);
        assert_eq!(Bounds::at_speed(0.5).reap_interval_ms, 120_000);
    }
}
