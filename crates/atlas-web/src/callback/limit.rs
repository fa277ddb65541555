//! Rate limits per session and kind of report. Memory is bounded: only callers with a valid token
//! have an entry.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atlas_orchestrator::SessionId;
use tokio::time::Instant;

use super::core::Kind;

/// A burst, then one report per interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The burst size; at least 1.
    pub burst: u32,
    /// The interval until one more is accepted.
    pub every: Duration,
}

/// The rate limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Limit for `progress`.
    pub progress: Rate,
    /// Limit for `log`, each of which may contain many lines.
    pub log: Rate,
    /// Limit for `activity`.
    pub activity: Rate,
    /// Limit for `exit`.
    pub exit: Rate,
    /// How long receiving a body may take.
    pub body_timeout: Duration,
    /// The maximum number of entries (session and kind). Beyond it, the entry that was quiet
    /// longest is dropped.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let rate = |burst, seconds| Rate {
            burst,
            every: Duration::from_secs(seconds),
        };
        Self {
            progress: rate(5, 5),
            log: rate(20, 1),
            activity: rate(5, 5),
            exit: rate(5, 5),
            body_timeout: Duration::from_secs(10),
            remembered: 65_536,
        }
    }
}

impl Limits {
    fn rate(&self, kind: Kind) -> Rate {
        match kind {
            Kind::Progress => self.progress,
            Kind::Log => self.log,
            Kind::Activity => self.activity,
            Kind::Exit => self.exit,
        }
    }
}

/// The instant at which each pair will have its whole burst again: one word tells how much of it is
/// left.
#[derive(Debug, Default)]
pub(super) struct Meters(Mutex<BTreeMap<(SessionId, Kind), Instant>>);

impl Meters {
    /// Takes one, or says how long until there is one.
    pub(super) fn take(
        &self,
        limits: &Limits,
        session: SessionId,
        kind: Kind,
        now: Instant,
    ) -> Result<(), Duration> {
        let rate = limits.rate(kind);
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (session, kind);
        let full_at = meters.get(&key).copied().unwrap_or(now).max(now) + rate.every;
        let allowed = now + rate.every * rate.burst.max(1);
        if full_at > allowed {
            return Err(full_at - allowed);
        }
        if !meters.contains_key(&key) && meters.len() >= limits.remembered.max(1) {
            meters.retain(|_, full_at| *full_at > now);
            if meters.len() >= limits.remembered.max(1) {
                let quietest = meters
                    .iter()
                    .min_by_key(|(_, full_at)| **full_at)
                    .map(|(key, _)| *key);
                quietest.and_then(|key| meters.remove(&key));
            }
        }
        meters.insert(key, full_at);
        Ok(())
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> SessionId {
        SessionId::from_bytes([n; 16])
    }

    #[test]
    fn a_burst_then_one_in_each_span_and_kinds_do_not_share() {
        let (limits, meters, now) = (Limits::default(), Meters::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        for _ in 0..5 {
            meters.take(&limits, id(1), Kind::Progress, now).unwrap();
        }
        assert_eq!(
            meters.take(&limits, id(1), Kind::Progress, now),
            Err(Duration::from_secs(5))
        );
        assert_eq!(
            meters.take(&limits, id(1), Kind::Progress, after(4)),
            Err(Duration::from_secs(1))
        );
        meters
            .take(&limits, id(1), Kind::Progress, after(5))
            .unwrap();
        assert!(
            meters
                .take(&limits, id(1), Kind::Progress, after(5))
                .is_err()
        );
        meters.take(&limits, id(1), Kind::Exit, after(5)).unwrap();
        meters
            .take(&limits, id(2), Kind::Progress, after(5))
            .unwrap();
    }

    #[test]
    fn memory_stays_bounded_whoever_reports() {
        let limits = Limits {
            remembered: 3,
            ..Limits::default()
        };
        let (meters, now) = (Meters::default(), Instant::now());
        for n in 0..200 {
            meters.take(&limits, id(n), Kind::Log, now).unwrap();
            assert!(meters.len() <= 3);
        }
    }
}
