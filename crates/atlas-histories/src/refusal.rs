//! Temporary refusals of a cloud: a class of calls, and the form of the refusal. Unlike a world's
//! faults, which strike single calls, these last for minutes or hours.

use std::time::Duration;

use http::{Request, Response, StatusCode, Uri, header};
use serde_json::json;

use atlas_http::Body;
use atlas_testkit::dialect::SimBody;

use crate::cloud::Cloud;
use crate::dice::Dice;

/// A class of calls, and the answer to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Orders are answered 429 with this `Retry-After`, in seconds.
    BusyOrders(u64),
    /// Deletions are answered 429 with this `Retry-After`, in seconds.
    BusyDeletes(u64),
    /// Polls of single machines are answered 429 with this `Retry-After`, in seconds.
    BusyLooks(u64),
    /// Deletions are answered 403.
    ForbiddenDeletes,
    /// Orders and deletions are answered 403: the key may only read.
    ReadOnlyKey,
    /// Polls of single machines are answered 404, while listings continue to show them.
    BlindLooks,
    /// Deletions are answered at once, and carried out this many seconds later.
    LateDeletes(u64),
}

/// What happens to a call.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It goes to the cloud.
    Carried(Request<Body>),
    /// It gets this answer.
    Answered(Response<SimBody>),
    /// It gets a successful answer, and reaches the cloud this much later.
    Later(Request<Body>, Duration),
}

impl Refusal {
    /// A refusal and its duration.
    pub(crate) fn draw(dice: &Dice) -> (Self, Duration) {
        let wait = *dice.pick(&[0, 1, 30, 3_600, 21_600]);
        match dice.draw(0..7) {
            0 => (Self::BusyOrders(wait), dice.seconds(20..900)),
            1 => (Self::BusyDeletes(wait), dice.seconds(60..3600)),
            2 => (Self::BusyLooks(wait), dice.seconds(30..1800)),
            3 => (Self::ForbiddenDeletes, dice.seconds(60..3600)),
            4 => (Self::ReadOnlyKey, dice.seconds(60..1200)),
            5 => (Self::BlindLooks, dice.seconds(60..400)),
            _ => (Self::LateDeletes(dice.draw(2..40)), dice.seconds(300..3600)),
        }
    }

    /// Its name in a report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BusyOrders(_) => "busy-orders",
            Self::BusyDeletes(_) => "busy-deletes",
            Self::BusyLooks(_) => "busy-looks",
            Self::ForbiddenDeletes => "forbidden-deletes",
            Self::ReadOnlyKey => "read-only-key",
            Self::BlindLooks => "blind-looks",
            Self::LateDeletes(_) => "late-deletes",
        }
    }

    /// What happens to a call; `ends` says that it is one that deletes a machine.
    pub(crate) fn judge(self, cloud: Cloud, request: Request<Body>, ends: bool) -> Fate {
        let (method, path) = (request.method(), request.uri().path());
        let orders = cloud.orders(method, path);
        let looks = cloud.looks(method, path);
        match self {
            Self::BusyOrders(wait) if orders => Fate::Answered(busy(wait)),
            Self::BusyDeletes(wait) if ends => Fate::Answered(busy(wait)),
            Self::BusyLooks(wait) if looks => Fate::Answered(busy(wait)),
            Self::ForbiddenDeletes if ends => Fate::Answered(forbidden()),
            Self::ReadOnlyKey if ends || orders => Fate::Answered(forbidden()),
            Self::BlindLooks if looks => Fate::Carried(about_another(request)),
            Self::LateDeletes(seconds) if ends => {
                Fate::Later(request, Duration::from_secs(seconds))
            }
            _ => Fate::Carried(request),
        }
    }
}

/// The same call about a machine that does not exist: the cloud's own words for it.
fn about_another(mut request: Request<Body>) -> Request<Body> {
    let path = request.uri().path().to_owned();
    let trimmed = path.trim_end_matches('/');
    if let Some((before, id)) = trimmed.rsplit_once('/') {
        let other: String = id.chars().rev().collect();
        let query = request
            .uri()
            .query()
            .map_or_else(String::new, |query| format!("?{query}"));
        let end = &path[trimmed.len()..];
        if let Ok(uri) = format!("{before}/{other}{end}{query}").parse::<Uri>() {
            let mut parts = request.uri().clone().into_parts();
            parts.path_and_query = uri.path_and_query().cloned();
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request
}

fn answer(status: StatusCode, words: &str) -> Response<SimBody> {
    // Every name that a cloud has for a message.
    let body = json!({
        "title": words, "detail": words, "status": status.as_u16(), "msg": words,
        "error": { "code": "global/refused", "message": words }, "success": false,
    });
    let mut response = Response::new(SimBody::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    response
}

fn busy(retry_after: u64) -> Response<SimBody> {
    let mut response = answer(StatusCode::TOO_MANY_REQUESTS, "too many requests");
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, retry_after.into());
    response
}

fn forbidden() -> Response<SimBody> {
    answer(StatusCode::FORBIDDEN, "the key may not do this")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Cloud {
        name.parse().unwrap()
    }

    fn judged(refusal: Refusal, cloud: Cloud, method: &str, path: &str, ends: bool) -> Fate {
        let request = Request::builder().method(method).uri(path);
        refusal.judge(cloud, request.body(Body::empty()).unwrap(), ends)
    }

    #[test]
    fn orders_looks_and_deletions_are_told_apart_on_every_cloud() {
        for (cloud, order, look) in [
            (named("runpod"), ("POST", "/v2/pods"), "/v2/pods/k3x9q2m7"),
            (
                named("fly"),
                ("POST", "/v1/apps/a/machines"),
                "/v1/apps/a/machines/6e82",
            ),
            (
                named("lambda"),
                ("POST", "/api/v1/instance-operations/launch"),
                "/api/v1/instances/0a1b",
            ),
            (
                named("vast"),
                ("PUT", "/api/v0/asks/12/"),
                "/api/v0/instances/34/",
            ),
        ] {
            let (method, path) = order;
            let answered = |fate| matches!(fate, Fate::Answered(_));
            let busy = Refusal::BusyOrders(5);
            assert!(
                answered(judged(busy, cloud, method, path, false)),
                "{cloud}"
            );
            assert!(
                !answered(judged(busy, cloud, "GET", look, false)),
                "{cloud}"
            );
            let looks = Refusal::BusyLooks(5);
            assert!(
                answered(judged(looks, cloud, "GET", look, false)),
                "{cloud}"
            );
            assert!(
                !answered(judged(looks, cloud, method, path, false)),
                "{cloud}"
            );
            let read_only = Refusal::ReadOnlyKey;
            assert!(
                answered(judged(read_only, cloud, method, path, false)),
                "{cloud}"
            );
            assert!(
                answered(judged(read_only, cloud, "DELETE", look, true)),
                "{cloud}"
            );
            assert!(
                !answered(judged(read_only, cloud, "GET", look, false)),
                "{cloud}"
            );
        }
    }

    #[test]
    fn a_blind_look_is_about_another_machine_and_a_listing_is_not() {
        let path = |fate| match fate {
            Fate::Carried(request) => request.uri().to_string(),
            Fate::Answered(_) | Fate::Later(..) => "not carried".to_owned(),
        };
        let blind = |path: &str| judged(Refusal::BlindLooks, named("vast"), "GET", path, false);
        assert_eq!(
            path(blind("/api/v0/instances/34/?a=b")),
            "/api/v0/instances/43/?a=b"
        );
        assert_eq!(path(blind("/api/v0/instances/")), "/api/v0/instances/");
    }
}
