//! When a session ends by itself, and what an order may cost.

use std::time::Duration;

use atlas_core::{Candidate, Timestamp, Usd, UsdPerHour};

use super::glance::Glance;
use super::input::{Activity, Cx};
use super::record::{SessionRecord, Warned};
use super::step::Stepper;
use crate::event::{Death, EventKind, Lead, Limit, Reason};
use crate::session::{Deadline, SessionKind};

/// A limit, when to warn of it, and when it ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub limit: Limit,
    /// When its warning is due, where it has one.
    pub warn_at: Option<Timestamp>,
    /// When it ends the session.
    pub end_at: Timestamp,
}

/// Every limit that runs now, with the newest known activity.
#[must_use]
pub fn limits(record: &SessionRecord, activity: Timestamp, cx: &Cx<'_>) -> Vec<Due> {
    let mut due = Vec::new();
    if record.ending.is_some() {
        return due;
    }
    if let Some(ttl) = record.options.idle_ttl
        && !cx.held
    {
        let flush = cx.policy.flush_of(ttl);
        let newest = activity.max(record.own_activity());
        let margin = if cx.policy.safeguards.idle_margin {
            flush
        } else {
            Duration::ZERO
        };
        let end_at = newest
            .saturating_add(ttl)
            .saturating_add(margin)
            .max(cx.adopted_at.saturating_add(margin))
            .max(record.not_idle_before.unwrap_or(newest));
        due.push(Due {
            limit: Limit::IdleTtl,
            warn_at: Some(end_at.saturating_sub(Lead::of(ttl).0)),
            end_at,
        });
    }
    if let Some(limit) = record.options.max_runtime {
        due.push(Due {
            limit: Limit::MaxRuntime,
            warn_at: None,
            end_at: record.created_at.saturating_add(limit),
        });
    }
    if let Some(timeout) = record.options.ready_timeout
        && record.ready_at.is_none()
        && let Some(from) = record.serving().and_then(|a| a.calling_at)
    {
        due.push(Due {
            limit: Limit::ReadyTimeout,
            warn_at: None,
            end_at: from.saturating_add(timeout),
        });
    }
    if let Some(cap) = record.options.max_cost
        && !cx.held
    {
        let (spent, burn) = record.under_cap(cx.now);
        let reserve = if cx.policy.safeguards.cost_margin {
            cx.policy.tick + cx.bounds.delete_bound()
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
                warn_at: Some(end_at.saturating_sub(lead)),
                end_at,
            });
        }
    }
    due
}

/// When the limits of a session that only limits can end have to be looked at: not later than
/// [`next_look`] says.
#[must_use]
pub fn next_look_of(glance: &Glance<'_>, activity: Timestamp, cx: &Cx<'_>) -> Option<Timestamp> {
    let idle = glance.idle_ttl.filter(|_| !cx.held).map(|ttl| {
        let idle_at = activity.max(glance.own_activity).saturating_add(ttl);
        idle_at
            .max(glance.not_idle_before.unwrap_or(idle_at))
            .saturating_sub(Lead::of(ttl).0)
    });
    idle.into_iter().chain(glance.ends_at).min()
}

/// When the limits have to be looked at again.
#[must_use]
pub fn next_look(record: &SessionRecord, activity: Timestamp, cx: &Cx<'_>) -> Option<Timestamp> {
    limits(record, activity, cx)
        .into_iter()
        .map(|due| match due.warn_at {
            Some(warn_at) if !is_warned(record, &due) => warn_at,
            _ => due.end_at,
        })
        .min()
}

/// The next limit, for people.
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

fn is_warned(record: &SessionRecord, due: &Due) -> bool {
    // A cost's end moves by rounding; a second is not another moment.
    let near = |a: Timestamp, b: Timestamp| a.since(b).max(b.since(a)) < Duration::from_secs(1);
    record
        .warned
        .iter()
        .any(|warned| warned.limit == due.limit && near(warned.at, due.end_at))
}

/// Whether an order's hold fits under the session's cap.
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
    // From the call until its machine is gone, had it to be ended at once.
    let shortest = cx.bounds.limits.call_deadline + cx.policy.tick + cx.bounds.delete_bound();
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
            // Nobody is idle who may have been touched while this waited for the store.
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
            if due.warn_at.is_some_and(|at| at <= now) && !is_warned(&self.step.record, &due) {
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
