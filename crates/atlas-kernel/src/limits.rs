//! When a session ends because of a limit, and what an order may cost.

use std::time::Duration;

use atlas_core::{Candidate, Timestamp, Usd, UsdPerHour};

use super::glance::Glance;
use super::input::{Activity, Cx};
use super::record::{SessionRecord, Warned};
use super::step::Stepper;
use crate::event::{Death, EventKind, Lead, Limit, Reason};
use crate::session::{Deadline, SessionKind};

/// How soon a limit is re-evaluated that may not end a session before its account has been listed.
const UNSEEN: Duration = Duration::from_secs(10);

/// A limit, with the time of its warning and of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The limit.
    pub limit: Limit,
    /// When its warning is due, if it has one.
    pub warn_at: Option<Timestamp>,
    /// When it ends the session.
    pub end_at: Timestamp,
    /// Whether its warning was given.
    pub warned: bool,
}

/// Every limit that applies now, given the latest known activity.
///
/// A limit is reached when every clock agrees that it is. A process that was away ends nothing for
/// idleness, cost or a late start before it has listed the account.
#[must_use]
pub fn limits(record: &SessionRecord, activity: Timestamp, cx: &Cx<'_>) -> Vec<Due> {
    let mut due = Vec::new();
    if record.ending.is_some() {
        return due;
    }
    let doubt = cx.trust.doubt;
    let unseen = !cx.trust.looked && record.created_at < cx.trust.returned_at;
    let once_seen = |end_at: Timestamp| {
        if unseen {
            end_at.max(cx.now.saturating_add(UNSEEN))
        } else {
            end_at
        }
    };
    if let Some(ttl) = record.options.idle_ttl
        && !cx.held
    {
        let idle = idle(record, ttl, activity, cx);
        due.push(Due {
            end_at: once_seen(idle.end_at),
            ..idle
        });
    }
    if let Some(limit) = record.options.max_runtime {
        let from = cx.believed(record.created_at);
        due.push(Due {
            limit: Limit::MaxRuntime,
            warn_at: None,
            end_at: from.saturating_add(limit).saturating_add(doubt),
            warned: false,
        });
    }
    if let Some(timeout) = record.options.ready_timeout
        && record.ready_at.is_none()
        && let Some(from) = record.serving().and_then(|a| a.calling_at)
    {
        let from = cx.believed(from);
        due.push(Due {
            limit: Limit::ReadyTimeout,
            warn_at: None,
            end_at: once_seen(from.saturating_add(timeout).saturating_add(doubt)),
            warned: false,
        });
    }
    if let Some(cap) = record.options.max_cost
        && !cx.held
    {
        let (spent, burn) = record.under_cap(cx.certain());
        let reserve = if cx.policy.safeguards().cost_margin {
            cx.policy.tick.saturating_add(cx.bounds.delete_bound())
        } else {
            Duration::ZERO
        };
        let room = cap - spent - burn.cost_of(reserve).unwrap_or(cap);
        if let Some(lasts) = burn.lasts(room) {
            let end_at = if room <= Usd::ZERO {
                cx.now
            } else {
                cx.now.saturating_add(lasts)
            };
            let lead = Lead::of(end_at.since(record.created_at)).0;
            due.push(Due {
                limit: Limit::MaxCost,
                // An end that is postponed gets no warning.
                warn_at: (!unseen).then(|| end_at.saturating_sub(lead)),
                end_at: once_seen(end_at),
                warned: is_warned(record, Limit::MaxCost, end_at),
            });
        }
    }
    due
}

/// When a session reaches its idle limit. However late that is noticed, the warning comes first,
/// and the end follows it by the full lead.
fn idle(record: &SessionRecord, ttl: Duration, activity: Timestamp, cx: &Cx<'_>) -> Due {
    let safeguards = &cx.policy.safeguards();
    let margin = if safeguards.idle_margin {
        cx.policy.flush_of(ttl)
    } else {
        Duration::ZERO
    };
    let newest = newest(activity, record.own_activity(), cx);
    let idle_at = newest.saturating_add(ttl);
    let end_at = idle_at
        .saturating_add(margin)
        .max(cx.trust.adopted_at.saturating_add(margin))
        .max(record.not_idle_before.unwrap_or(newest))
        .saturating_add(cx.trust.doubt);
    let lead = Lead::of(ttl).0;
    let soonest = cx.now.saturating_add(lead);
    // A warning that was based on older activity, or given by a clock that was ahead, does not
    // count.
    let given = record
        .warned
        .iter()
        .find(|warned| warned.limit == Limit::IdleTtl)
        .map(|warned| warned.at)
        .filter(|at| *at >= idle_at && *at <= soonest.saturating_add(NEAR));
    let end_at = match given {
        Some(announced) => end_at.max(announced),
        None if safeguards.announced_ends && end_at < soonest => soonest,
        None => end_at,
    };
    Due {
        limit: Limit::IdleTtl,
        warn_at: Some(end_at.saturating_sub(lead)),
        end_at,
        warned: given.is_some(),
    }
}

/// The latest activity: what is recorded, and the return of a process that was away.
fn newest(activity: Timestamp, own: Timestamp, cx: &Cx<'_>) -> Timestamp {
    let recorded = cx.believed(activity).max(cx.believed(own));
    recorded.max(cx.trust.touched_at.unwrap_or(recorded))
}

/// When the limits of a quiet session have to be evaluated, from its row's header: not later than
/// [`next_look`] of the full record.
#[must_use]
pub fn next_look_of(glance: &Glance<'_>, activity: Timestamp, cx: &Cx<'_>) -> Option<Timestamp> {
    let idle = glance.idle_ttl.filter(|_| !cx.held).map(|ttl| {
        let idle_at = newest(activity, glance.own_activity, cx).saturating_add(ttl);
        idle_at
            .max(glance.not_idle_before.unwrap_or(idle_at))
            .saturating_sub(Lead::of(ttl).0)
    });
    idle.into_iter().chain(glance.ends_at).min()
}

/// When the limits have to be evaluated next.
#[must_use]
pub fn next_look(record: &SessionRecord, activity: Timestamp, cx: &Cx<'_>) -> Option<Timestamp> {
    limits(record, activity, cx)
        .into_iter()
        .map(|due| match due.warn_at {
            Some(warn_at) if !due.warned => warn_at,
            _ => due.end_at,
        })
        .min()
}

/// The next limit, for display.
#[must_use]
pub fn next_deadline(record: &SessionRecord, activity: Timestamp, cx: &Cx<'_>) -> Option<Deadline> {
    limits(record, activity, cx)
        .into_iter()
        .min_by_key(|due| due.end_at)
        .map(|due| Deadline {
            limit: due.limit,
            at: due.end_at,
        })
}

/// The end of a cost limit moves by rounding; a difference below a second is ignored.
const NEAR: Duration = Duration::from_secs(1);

fn is_warned(record: &SessionRecord, limit: Limit, of: Timestamp) -> bool {
    let near = |at: Timestamp| at.since(of).max(of.since(at)) < NEAR;
    record
        .warned
        .iter()
        .any(|warned| warned.limit == limit && near(warned.at))
}

/// Whether the maximum cost of an order fits under the session's cap.
pub(super) fn fits(
    record: &SessionRecord,
    candidate: &Candidate,
    cx: &Cx<'_>,
) -> Result<(), &'static str> {
    let Some(cap) = record.options.max_cost else {
        return Ok(());
    };
    let Some(price) = candidate.price else {
        return Err("max_cost needs a price, and this offer has none");
    };
    if !super::record::is_plausible_price(price, None) {
        return Err("max_cost needs a price, and that of this offer is not plausible");
    }
    let (spent, burning) = record.under_cap(cx.now);
    let burn: UsdPerHour = burning + price;
    // From the call until the machine is gone, if it had to be ended at once.
    let call = cx.bounds.limits.call_deadline;
    let shortest = call
        .saturating_add(cx.policy.tick)
        .saturating_add(cx.bounds.delete_bound());
    match burn.cost_of(shortest) {
        Some(hold) if spent + hold <= cap => Ok(()),
        _ => Err("the hold for another machine does not fit under max_cost"),
    }
}

impl Stepper<'_> {
    pub(super) fn limits(&mut self, activity: &Activity) {
        let now = self.cx.now;
        if self.step.record.ending.is_some() {
            return;
        }
        let reported = self
            .step
            .record
            .heartbeat
            .unwrap_or(self.step.record.created_at);
        if activity.at > reported && self.step.record.kind == SessionKind::Interactive {
            self.step.record.heartbeat = Some(activity.at);
            self.emit(EventKind::Heartbeat {
                last_activity: activity.at,
            });
        }
        for due in limits(&self.step.record, activity.at, self.cx) {
            // A session that may have been touched while this waited for the store is not idle.
            let known_until = if due.limit == Limit::IdleTtl {
                activity.asked_at
            } else {
                now
            };
            if due.end_at <= known_until {
                let newest = activity.at.max(self.step.record.own_activity());
                self.decide(format!(
                    "{:?} reached at {}; last activity {newest} ({})",
                    due.limit, due.end_at, activity.source
                ));
                match (due.limit, self.step.record.serving().map(|a| a.id)) {
                    (Limit::ReadyTimeout, Some(serving)) => self.died(serving, Death::NeverReady),
                    (limit, _) => self.end(Reason::Limit { limit }),
                }
                return;
            }
            if due.warn_at.is_some_and(|at| at <= now) && !due.warned {
                self.step
                    .record
                    .warned
                    .retain(|warned| warned.limit != due.limit);
                self.step.record.warned.push(Warned {
                    limit: due.limit,
                    at: due.end_at,
                });
                self.emit(EventKind::Warning {
                    limit: due.limit,
                    due: due.end_at,
                });
            }
        }
    }
}
