//! The line with all URLs, and the time limits for clients of this simulator.

use std::time::Duration;

use serde::Serialize;

/// What the simulator prints when it is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// The admin's base URL.
    pub admin: String,
    /// The delays of this simulator at its speed.
    pub bounds: Bounds,
    /// RunPod's URLs.
    pub runpod: RunPodUrls,
    /// Fly's URLs.
    pub fly: FlyUrls,
    /// Lambda's URL, including its `/api/v1`.
    pub lambda: String,
    /// Vast's URL, without its `/api/v0`.
    pub vast: String,
}

/// RunPod's URLs, as the override variables and official clients take them.
#[derive(Clone, Debug, Serialize)]
pub struct RunPodUrls {
    /// REST v2, without its path.
    pub control: String,
    /// The job runtime, with its `/v2`.
    pub runtime: String,
    /// GraphQL, with its `/graphql`.
    pub graphql: String,
    /// A pod's HTTP port, with the placeholders `{id}` and `{port}`.
    pub proxy: String,
}

/// Fly's URLs, as the override variables take them.
#[derive(Clone, Debug, Serialize)]
pub struct FlyUrls {
    /// The Machines API, without its `/v1`.
    pub machines: String,
    /// The log API's base.
    pub logs: String,
    /// An app's public port, with `{app}` to fill in; a port other than https' follows the app's
    /// name.
    pub proxy: String,
}

/// The limits that a client configures for this simulator, in milliseconds of real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
