//! Walks: to the last page, or honestly incomplete.

use atlas_core::{CallContext, Completeness, ComputeStatus, ErrorKind, ListFilter, Listing};
use serde_json::{Value, json};

use crate::script::{Reply, Script, html, json as reply, problem};

fn pod(id: &str) -> Value {
    json!({"id": id, "name": format!("atlas-{id}"), "status": "RUNNING", "env": {}})
}

fn page(pods: &[Value], pagination: &Value) -> Reply {
    reply(200, &json!({"pods": pods, "pagination": pagination}))
}

fn more(cursor: &str) -> Value {
    json!({"hasNextPage": true, "nextCursor": cursor})
}

fn last() -> Value {
    json!({"hasNextPage": false, "nextCursor": null})
}

async fn walk(cloud: &Script) -> Result<Listing, atlas_core::Error> {
    cloud
        .provider()
        .list_compute(&CallContext::new().with_retries(0), &ListFilter::all())
        .await
}

fn ids(listing: &Listing) -> Vec<&str> {
    listing
        .computes
        .iter()
        .map(|compute| compute.id.as_str())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_walk_follows_every_cursor_and_names_each_pod_once() {
    let cloud = Script::new([
        page(&[pod("a"), pod("b")], &more("c=1&x")),
        page(&[pod("b"), pod("c")], &more("2")),
        page(&[pod("d")], &last()),
    ]);
    let listing = walk(&cloud).await.unwrap();
    assert_eq!(
        (ids(&listing), listing.is_complete()),
        (vec!["a", "b", "c", "d"], true)
    );
    assert_eq!(
        cloud.lines(),
        [
            "GET /v2/pods",
            "GET /v2/pods?cursor=c%3D1%26x",
            "GET /v2/pods?cursor=2"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_without_pagination_is_complete() {
    for pagination in [json!(null), last()] {
        let listing = walk(&Script::new([page(&[pod("a")], &pagination)]))
            .await
            .unwrap();
        assert_eq!((ids(&listing), listing.is_complete()), (vec!["a"], true));
    }
    let listing = walk(&Script::new([reply(200, &json!({"pods": []}))]))
        .await
        .unwrap();
    assert!(listing.computes.is_empty() && listing.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_hole_anywhere_after_the_first_page_makes_the_walk_incomplete() {
    let first = || page(&[pod("a")], &more("1"));
    let table: Vec<(&str, Vec<Reply>)> = vec![
        (
            "a cursor that is missing",
            vec![page(
                &[pod("a")],
                &json!({"hasNextPage": true, "nextCursor": null}),
            )],
        ),
        (
            "a cursor that comes again",
            vec![first(), page(&[], &more("2")), page(&[], &more("1"))],
        ),
        ("a page that failed", vec![first(), problem(500, "boom")]),
        ("a page of html", vec![first(), html(502)]),
        ("a success of html", vec![first(), html(200)]),
        (
            "a page cut off",
            vec![
                first(),
                Reply(200, "application/json", r#"{"pods":[{"id":"#.to_owned()),
            ],
        ),
        (
            "a page without pods",
            vec![first(), reply(200, &json!({"data": []}))],
        ),
        (
            "pods that are no list",
            vec![first(), reply(200, &json!({"pods": {}}))],
        ),
        (
            "a pagination that is none",
            vec![first(), page(&[], &json!({"hasNextPage": "yes"}))],
        ),
        (
            "a pod without an id",
            vec![page(
                &[pod("a"), json!({"name": "x", "status": "RUNNING"})],
                &last(),
            )],
        ),
        (
            "a key revoked midway",
            vec![first(), problem(401, "bad key")],
        ),
    ];
    for (what, replies) in table {
        let listing = walk(&Script::new(replies)).await.unwrap();
        assert!(
            matches!(listing.completeness, Completeness::Incomplete(_)),
            "{what}"
        );
        assert_eq!(ids(&listing), ["a"], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_page_that_cannot_be_read_is_an_error() {
    for (answer, kind) in [
        (problem(401, "bad key"), ErrorKind::Unauthorized),
        (html(502), ErrorKind::Unavailable),
        (html(200), ErrorKind::Provider),
        (reply(200, &json!({"pods": null})), ErrorKind::Provider),
        (reply(200, &json!([])), ErrorKind::Provider),
        (
            Reply(200, "application/json", String::new()),
            ErrorKind::Provider,
        ),
    ] {
        assert_eq!(walk(&Script::new([answer])).await.unwrap_err().kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn filters_are_ours_because_the_cloud_ignores_what_it_does_not_know() {
    let mut stopped = pod("b");
    stopped["status"] = json!("EXITED");
    let cloud = Script::new([reply(200, &json!({"pods": [pod("a"), stopped]}))]);
    let filter = ListFilter::all()
        .status(ComputeStatus::Stopped)
        .name_prefix("atlas-");
    let listing = cloud
        .provider()
        .list_compute(&CallContext::new(), &filter)
        .await
        .unwrap();
    assert_eq!(
        (ids(&listing), cloud.lines()),
        (vec!["b"], vec!["GET /v2/pods".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_catalogue_row_that_cannot_be_read_costs_one_row() {
    let good = json!({"id": "NVIDIA L40S", "name": "L40S", "memory": "48", "secure": true,
        "community": "false", "price": {"secure": "1.09"}, "maxCount": {"secure": 8},
        "availability": "HIGH", "dataCenters": [null, {"id": "EU-RO-1", "availability": "LOW"}]});
    let odd = json!({"id": {"new": 9000}, "memory": 96, "secure": true});
    let page = json!({"gpus": [odd.clone(), good]});
    let cloud = Script::new([reply(200, &page), reply(200, &page)]);
    let lines = cloud
        .provider()
        .list_gpu_types(&CallContext::new().with_retries(0))
        .await
        .unwrap();
    let ids: Vec<&str> = lines.iter().map(|line| line.native_id.as_str()).collect();
    assert_eq!(ids, ["NVIDIA L40S"]);
    let page = json!({"gpus": [odd]});
    let cloud = Script::new([reply(200, &page), reply(200, &page)]);
    let error = cloud
        .provider()
        .list_gpu_types(&CallContext::new().with_retries(0))
        .await
        .unwrap_err();
    assert!(error.message().contains("id: is not text"), "{error}");
}
