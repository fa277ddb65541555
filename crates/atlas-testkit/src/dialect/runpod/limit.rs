//! RunPod's rate limits: three fixed windows for each key, announced on every authenticated answer.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::Timestamp;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// How many calls a key may make in a minute, an hour and a day of simulated time.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// In a minute.
    pub minute: u32,
    /// In an hour.
    pub hour: u32,
    /// In a day.
    pub day: u32,
}

impl Default for Quota {
    /// Larger than the document's examples, as live answers are.
    fn default() -> Self {
        Self {
            minute: 1_200,
            hour: 60_000,
            day: 1_000_000,
        }
    }
}

/// The windows of one key.
#[derive(Debug, Default)]
pub(super) struct Windows(BTreeMap<&'static str, (Timestamp, u32)>);

/// Where a key stands after a call.
pub(super) struct Stand {
    remaining: Vec<(&'static str, u32, u64, u32, u64)>,
    /// The window that is used up, and how many seconds until the next.
    pub(super) exceeded: Option<(&'static str, u64)>,
}

impl Windows {
    /// Counts a call.
    pub(super) fn count(&mut self, quota: Quota, now: Timestamp) -> Stand {
        let mut stand = Stand {
            remaining: Vec::new(),
            exceeded: None,
        };
        for (name, most, seconds) in [
            ("minute", quota.minute, 60),
            ("hour", quota.hour, 3600),
            ("day", quota.day, 86_400),
        ] {
            let (since, used) = self.0.entry(name).or_insert((now, 0));
            if now.since(*since) >= Duration::from_secs(seconds) {
                (*since, *used) = (now, 0);
            }
            let resets = seconds - now.since(*since).as_secs();
            if *used >= most {
                stand.exceeded.get_or_insert((name, resets));
            } else {
                *used += 1;
            }
            stand
                .remaining
                .push((name, most - *used, resets, most, seconds));
        }
        stand
    }
}

impl Stand {
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        let live: Vec<String> = self
            .remaining
            .iter()
            .map(|(name, r, t, ..)| format!("\"{name}\";r={r};t={t}"))
            .collect();
        let policy: Vec<String> = self
            .remaining
            .iter()
            .map(|(name, _, _, q, w)| format!("\"{name}\";q={q};w={w}"))
            .collect();
        for (name, value) in [("ratelimit", live), ("ratelimit-policy", policy)] {
            if let Ok(value) = HeaderValue::from_str(&value.join(", ")) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}
