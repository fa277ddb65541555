//! Wall-clock instants and the injected clock.

use std::fmt::{self, Debug};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A point in time, UTC. RFC 3339 on the wire; arithmetic saturates at the ends of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(jiff::Timestamp::UNIX_EPOCH);

    /// Converts milliseconds since the epoch, clamped to the calendar.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        let edge = if millis < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        };
        Self(jiff::Timestamp::from_millisecond(millis).unwrap_or(edge))
    }

    /// Converts whole seconds since the epoch, clamped to the calendar.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub fn unix_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Adds a duration; the result is at most the end of the calendar.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(
                    jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX),
                )
                .unwrap_or(jiff::Timestamp::MAX),
        )
    }

    /// Subtracts a duration; the result is at least the start of the calendar.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(
                    jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX),
                )
                .unwrap_or(jiff::Timestamp::MIN),
        )
    }

    /// The time since `earlier`; zero if `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0.duration_since(earlier.0)).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse()
            .map(Self)
            .map_err(|_| Error::validation("timestamp", "not an RFC 3339 timestamp"))
    }
}

/// The source of the current time. It is injected everywhere, so that time can be simulated.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current wall-clock time.
    fn now(&self) -> Timestamp;

    /// The time since the host started, including the time it was suspended. `None` if the host
    /// cannot tell. This clock is never set, so it distinguishes a suspended host from a changed
    /// wall clock.
    fn since_boot(&self) -> Option<Duration> {
        None
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp(
            jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(jiff::Timestamp::MAX),
        )
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn since_boot(&self) -> Option<Duration> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Some(Duration::new(
            u64::try_from(now.tv_sec).ok()?,
            u32::try_from(now.tv_nsec).ok()?,
        ))
    }
}

type Answered = Box<dyn FnOnce(Timestamp) + Send>;

/// Receives the dates of a cloud's answers. Set it as an extension of a
/// [`CallContext`](crate::CallContext): transports report the `Date` header of each answer to it.
#[derive(Clone)]
pub struct DateListener(Arc<dyn Fn() -> Answered + Send + Sync>);

impl DateListener {
    /// `asked` is called just before a request leaves; the function it returns is called with the
    /// date of the answer, if there is one. The cloud's clock showed that date between the two
    /// calls.
    #[must_use]
    pub fn new<F>(asked: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: FnOnce(Timestamp) + Send + 'static,
    {
        Self(Arc::new(move || Box::new(asked())))
    }

    /// A request is about to leave. Call what this returns with the date of its answer.
    pub fn asked(&self) -> impl FnOnce(Timestamp) + Send + use<> {
        (self.0)()
    }
}

impl Debug for DateListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DateListener").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_panicking() {
        let end = Timestamp::from_unix_millis(i64::MAX);
        assert_eq!(end.saturating_add(Duration::MAX), end);
        assert_eq!(Timestamp::UNIX_EPOCH.since(end), Duration::ZERO);
        assert_eq!(
            Timestamp::from_unix_seconds(5).since(Timestamp::UNIX_EPOCH),
            Duration::from_secs(5)
        );
    }
}
