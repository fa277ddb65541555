//! The world's time: advanced by hand, or following tokio's clock, paused or real, at any speed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{Clock, Timestamp};
use tokio::time::Instant;

/// The start of a virtual world: 2026-11-21T00:00:00Z.
const EPOCH_SECONDS: i64 = 1_795_219_200;

/// The clock of a [`World`](super::World). Cheap to clone; clones show the same time.
#[derive(Clone, Debug)]
pub struct WorldClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: Timestamp,
    follow: Option<(Instant, f64)>,
    jumps: Mutex<Vec<Jump>>,
}

/// A manual advance: when, in simulated time, and how far.
#[derive(Clone, Copy, Debug)]
struct Jump {
    at: Timestamp,
    by: Duration,
    /// Whether the time passed for clients too.
    shown: bool,
}

impl WorldClock {
    /// Stands still until advanced by hand.
    #[must_use]
    pub fn manual() -> Self {
        Self::build(Timestamp::from_unix_seconds(EPOCH_SECONDS), None)
    }

    /// Follows tokio's clock from now on, with `speed` simulated seconds per second. With paused
    /// time this is exact and repeatable. A speed that is not a positive number counts as 1.
    #[must_use]
    pub fn following(speed: f64) -> Self {
        Self::following_from(Timestamp::from_unix_seconds(EPOCH_SECONDS), speed)
    }

    /// Like [`WorldClock::following`], starting at `epoch`.
    #[must_use]
    pub fn following_from(epoch: Timestamp, speed: f64) -> Self {
        let speed = if speed.is_finite() && speed > 0.0 {
            speed
        } else {
            1.0
        };
        Self::build(epoch, Some((Instant::now(), speed)))
    }

    fn build(epoch: Timestamp, follow: Option<(Instant, f64)>) -> Self {
        Self(Arc::new(Inner {
            epoch,
            follow,
            jumps: Mutex::new(Vec::new()),
        }))
    }

    fn jumps(&self) -> MutexGuard<'_, Vec<Jump>> {
        self.0.jumps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Advances simulated time manually, in addition to the clock it follows.
    pub fn advance(&self, by: Duration) {
        let mut jumps = self.jumps();
        let (at, shown) = (self.at(&jumps), false);
        jumps.push(Jump { at, by, shown });
    }

    /// Lets time pass while the followed clock stands still, like a monotonic clock while its host
    /// sleeps: clients' wall clocks show that it passed.
    pub fn sleep_through(&self, by: Duration) {
        let mut jumps = self.jumps();
        let (at, shown) = (self.at(&jumps), true);
        jumps.push(Jump { at, by, shown });
    }

    fn at(&self, jumps: &[Jump]) -> Timestamp {
        let followed = self.0.follow.map_or(Duration::ZERO, |(start, speed)| {
            scale(start.elapsed(), speed)
        });
        let jumped = jumps
            .iter()
            .map(|jump| jump.by)
            .fold(Duration::ZERO, Duration::saturating_add);
        self.0.epoch.saturating_add(followed).saturating_add(jumped)
    }

    /// Whether it follows a clock, and is not only advanced manually.
    #[must_use]
    pub fn keeps_pace(&self) -> bool {
        matches!(self.0.follow, Some((_, speed)) if speed == 1.0)
    }

    /// Simulated seconds per second of the followed clock; 1 when advanced manually.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.0.follow.map_or(1.0, |(_, speed)| speed)
    }

    /// How long a simulated span lasts on the followed clock.
    #[must_use]
    pub fn real(&self, simulated: Duration) -> Duration {
        scale(simulated, 1.0 / self.speed())
    }

    /// Converts a simulated instant to a client's own clock, as a dialect writes it on the wire.
    ///
    /// A client of a world at speed 60 lives sixty times slower, and does not see manual advances;
    /// timestamps in the world's own time would all be in its future. With manual advances only, or
    /// at speed 1, both times are equal.
    #[must_use]
    pub fn on_the_wire(&self, instant: Timestamp) -> Timestamp {
        let Some((_, speed)) = self.0.follow else {
            return instant;
        };
        let mut left = instant.since(self.0.epoch);
        for jump in self
            .jumps()
            .iter()
            .filter(|jump| !jump.shown && jump.at < instant)
        {
            left = left.saturating_sub(jump.by.min(instant.since(jump.at)));
        }
        if instant < self.0.epoch {
            instant
        } else {
            self.0.epoch.saturating_add(scale(left, 1.0 / speed))
        }
    }

    /// The simulated instant at which a client's own clock shows this time: the inverse of
    /// [`WorldClock::on_the_wire`].
    #[must_use]
    pub fn off_the_wire(&self, shown: Timestamp) -> Timestamp {
        let Some((_, speed)) = self.0.follow else {
            return shown;
        };
        if shown < self.0.epoch {
            return shown;
        }
        let mut instant = self
            .0
            .epoch
            .saturating_add(scale(shown.since(self.0.epoch), speed));
        for jump in self.jumps().iter() {
            if !jump.shown && jump.at < instant {
                instant = instant.saturating_add(jump.by);
            }
        }
        instant
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        self.at(&self.jumps())
    }
}

/// Exact at speed 1, which repeatable histories use.
fn scale(span: Duration, factor: f64) -> Duration {
    if (factor - 1.0).abs() < f64::EPSILON {
        span
    } else {
        Duration::try_from_secs_f64(span.as_secs_f64() * factor).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_following_clock_runs_at_its_speed_and_the_wire_shows_the_clients_time() {
        let clock = WorldClock::following(60.0);
        let epoch = clock.now();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now().since(epoch), Duration::from_secs(120));
        assert_eq!(
            clock.on_the_wire(clock.now()).since(epoch),
            Duration::from_secs(2)
        );
        assert_eq!(clock.real(Duration::from_secs(120)), Duration::from_secs(2));

        clock.advance(Duration::from_secs(3600));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            clock.now().since(epoch),
            Duration::from_secs(120 + 3600 + 60)
        );
        assert_eq!(
            clock.on_the_wire(clock.now()).since(epoch),
            Duration::from_secs(3)
        );
        assert_eq!(
            clock
                .on_the_wire(epoch.saturating_add(Duration::from_secs(1000)))
                .since(epoch),
            Duration::from_secs(2)
        );
        for shown in [1, 3] {
            let shown = epoch.saturating_add(Duration::from_secs(shown));
            assert_eq!(clock.on_the_wire(clock.off_the_wire(shown)), shown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_is_slept_through_passed_for_clients_too() {
        let clock = WorldClock::following(1.0);
        let before = clock.now();
        clock.sleep_through(Duration::from_secs(3600));
        tokio::time::advance(Duration::from_secs(1)).await;
        let now = clock.now();
        assert_eq!(now.since(before), Duration::from_secs(3601));
        assert_eq!(
            (clock.on_the_wire(now), clock.off_the_wire(now)),
            (now, now)
        );
        assert!(clock.keeps_pace());
    }

    #[test]
    fn a_clock_by_hand_shows_one_time_everywhere() {
        let clock = WorldClock::manual();
        let before = clock.now();
        clock.clone().advance(Duration::from_secs(5));
        assert_eq!(clock.now().since(before), Duration::from_secs(5));
        assert_eq!(clock.on_the_wire(clock.now()), clock.now());
    }
}
