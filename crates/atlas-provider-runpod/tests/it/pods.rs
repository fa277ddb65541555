//! Orders, reads and ends of pods.

use atlas_core::{
    CallContext, Candidate, CloudType, ComputeId, ComputeRequest, ComputeStatus, ErrorKind, Gpu,
    LaunchKey, Next, Outcome, Presence,
};
use serde_json::{Value, json};

use crate::script::{KEY, Reply, Script, html, json as reply, problem};

const LAUNCH: &str = "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc";

fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

fn key() -> LaunchKey {
    LaunchKey::Tracked(LAUNCH.parse().unwrap())
}

fn id() -> ComputeId {
    ComputeId::new("q8d2m5x0c7hn4v").unwrap()
}

fn pod(status: &str) -> Value {
    json!({"id": "q8d2m5x0c7hn4v", "name": format!("atlas-session-{LAUNCH}"), "status": status,
        "image": "x/y:1", "ports": [],
        "env": {"ATLAS_LAUNCH_KEY": LAUNCH}, "cloud": "SECURE", "gpu": {"id": "NVIDIA L40S",
            "count": 1}, "cost": 1.09, "runtime": null})
}

fn request() -> ComputeRequest {
    let mut candidate = Candidate::default();
    candidate.native_type = Some("NVIDIA L40S".to_owned());
    candidate.cloud_type = Some(CloudType::Community);
    candidate.region = Some("EU-RO-1".to_owned());
    ComputeRequest::gpu(Gpu::L40S)
        .image("x/y:1")
        .env("SECRET", "zz-canary-env")
        .at(candidate)
}

#[tokio::test(start_paused = true)]
async fn a_tasks_wrapper_is_the_entrypoint_and_its_words_are_the_cmd() {
    let pods = [pod("PROVISIONING"), pod("PROVISIONING")];
    let cloud = Script::new(pods.map(|pod| reply(201, &pod)));
    let session = request().command(["echo", "it's $HOME"]);
    for request in [session.clone().ends_with_command(true), session] {
        cloud
            .provider()
            .spawn_compute(&cx(), &key(), &request)
            .await
            .unwrap();
    }
    let [task, session] = &cloud.asked()[..] else {
        panic!("two orders");
    };
    let entrypoint = task.body["entrypoint"].as_array().unwrap();
    assert_eq!(
        (&entrypoint[0], &entrypoint[3]),
        (&json!("sh"), &json!("atlas-task"))
    );
    for body in [&task.body, &session.body] {
        assert_eq!(
            (&body["cmd"], body.get("args")),
            (&json!(["echo", "it's $HOME"]), None)
        );
    }
    assert_eq!(session.body.get("entrypoint"), None, "the image's own runs");
}

#[tokio::test(start_paused = true)]
async fn an_order_is_one_call_with_the_candidates_shape() {
    let cloud = Script::new([reply(201, &pod("PROVISIONING"))]);
    let made = cloud
        .provider()
        .spawn_compute(&cx(), &key(), &request())
        .await
        .unwrap();
    assert_eq!((made.id, made.status), (id(), ComputeStatus::Provisioning));
    let asked = cloud.asked();
    assert_eq!(cloud.lines(), ["POST /v2/pods"]);
    assert_eq!(
        asked[0].body,
        json!({"name": format!("atlas-session-{LAUNCH}"), "image": "x/y:1",
            "gpu": {"id": "NVIDIA L40S", "count": 1},
            "cloud": "COMMUNITY", "dataCenterIds": ["EU-RO-1"], "disk": 50,
            "env": {"SECRET": "zz-canary-env", "ATLAS_LAUNCH_KEY": LAUNCH}})
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_order_says_whether_a_pod_may_exist_and_is_never_repeated() {
    let stock = "There are no longer any instances available with the requested specifications. \
        Please refresh and try again.";
    let not = Outcome::NotApplied;
    let echo = json!({"title": "T", "status": 422, "detail": "no",
        "errors": [format!("$.env.SECRET: 'zz-canary-env' {KEY}")]});
    let table = [
        (
            problem(400, stock),
            ErrorKind::NoCapacity,
            not(Next::NextCandidate),
        ),
        (
            problem(401, "missing bearer token"),
            ErrorKind::Unauthorized,
            not(Next::Stop),
        ),
        (
            problem(402, "insufficient balance"),
            ErrorKind::Quota,
            not(Next::Stop),
        ),
        (
            problem(403, "access denied"),
            ErrorKind::Forbidden,
            not(Next::NextCandidate),
        ),
        (
            Reply(422, "application/problem+json", echo.to_string()),
            ErrorKind::Validation,
            not(Next::Stop),
        ),
        (
            problem(429, "rate limit exceeded for the minute window"),
            ErrorKind::RateLimited,
            not(Next::SameLater),
        ),
        (
            problem(500, "boom"),
            ErrorKind::Unavailable,
            Outcome::Unknown(vec![]),
        ),
        (html(502), ErrorKind::Unavailable, Outcome::Unknown(vec![])),
        (
            Reply(
                201,
                "application/json",
                r#"{"id":"q8d2m5x0c7hn4v","na"#.to_owned(),
            ),
            ErrorKind::Provider,
            Outcome::Unknown(vec![id()]),
        ),
        (html(201), ErrorKind::Provider, Outcome::Unknown(vec![])),
        (
            Reply(201, "application/json", String::new()),
            ErrorKind::Provider,
            Outcome::Unknown(vec![]),
        ),
        (
            reply(200, &json!({"status": "RUNNING"})),
            ErrorKind::Provider,
            Outcome::Unknown(vec![]),
        ),
    ];
    for (answer, kind, outcome) in table {
        let shown = format!("{answer:?}");
        let cloud = Script::new([answer]);
        let cx = CallContext::new().with_retries(5);
        let error = cloud
            .provider()
            .spawn_compute(&cx, &key(), &request())
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (kind, &outcome),
            "{shown}: {error}"
        );
        assert!(cloud.lines().len() == 1, "{shown}: {:?}", cloud.lines());
        let text = format!("{error} {error:?}");
        assert!(
            !text.contains("zz-canary") && !text.contains(KEY) && !text.contains("zz-page"),
            "{text}"
        );
        assert_eq!(error.provider().map(|id| id.as_str()), Some("runpod"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_violation_names_the_field_and_the_clouds_request_id() {
    let body = json!({"title": "T", "status": 422, "detail": "Request validation failed.",
        "errors": ["$.disk: must be at least 1"]});
    let cloud = Script::new([Reply(422, "application/problem+json", body.to_string())]);
    let error = cloud
        .provider()
        .spawn_compute(&cx(), &key(), &request())
        .await
        .unwrap_err();
    assert_eq!(
        (error.field(), error.request_id(), error.status()),
        (Some("container_disk_gb"), Some("req-7"), Some(422))
    );
}

fn catalogue(secure: &str, community: &str) -> [Reply; 2] {
    [secure, community].map(|word| {
        reply(
            200,
            &json!({"gpus": [{"id": "NVIDIA H100 80GB HBM3", "name": "H100 SXM", "pool": null,
                "manufacturer": "NVIDIA", "memory": 80,
                "secure": true, "community": true, "price": {"secure": 3.49, "community": 2.69},
                "maxCount": {"secure": 8, "community": 8}, "availability": word}]}),
        )
    })
}

#[tokio::test(start_paused = true)]
async fn without_a_candidate_the_catalogue_decides_and_the_order_is_still_one_call() {
    let [secure, community] = catalogue("LOW", "HIGH");
    let cloud = Script::new([secure, community, reply(201, &pod("PROVISIONING"))]);
    cloud
        .provider()
        .spawn_compute(&cx(), &key(), &ComputeRequest::gpu(Gpu::H100).image("x"))
        .await
        .unwrap();
    let query = "include=AVAILABILITY&product=POD";
    assert_eq!(
        cloud.lines(),
        [
            format!("GET /v2/catalog/gpus?{query}&cloud=SECURE&count=1"),
            format!("GET /v2/catalog/gpus?{query}&cloud=COMMUNITY&count=1"),
            "POST /v2/pods".to_owned()
        ]
    );
    assert_eq!(
        (
            &cloud.asked()[2].body["cloud"],
            &cloud.asked()[2].body["gpu"]["id"]
        ),
        (&json!("COMMUNITY"), &json!("NVIDIA H100 80GB HBM3"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_catalogue_that_shows_nothing_orders_nothing() {
    let cloud = Script::new(catalogue("NONE", "NONE"));
    let error = cloud
        .provider()
        .spawn_compute(&cx(), &key(), &ComputeRequest::gpu(Gpu::H100).image("x"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (
            ErrorKind::NoCapacity,
            &Outcome::NotApplied(Next::NextCandidate)
        )
    );
    assert!(cloud.lines().iter().all(|line| line.starts_with("GET")));
    let unread = Script::new([html(502)]);
    let error = unread
        .provider()
        .spawn_compute(&cx(), &key(), &ComputeRequest::gpu(Gpu::H100).image("x"))
        .await
        .unwrap_err();
    assert!(
        !error.outcome().is_unknown(),
        "no order left, so none can have been taken: {error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn spot_and_what_runpod_does_not_offer_are_refused_before_any_request() {
    let cloud = Script::default();
    for request in [
        ComputeRequest::gpu(Gpu::H100).image("x").spot(true),
        ComputeRequest::gpu(Gpu::A10).image("x"),
    ] {
        let error = cloud
            .provider()
            .spawn_compute(&cx(), &key(), &request)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert!(cloud.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_network_volume_pins_the_order_to_its_data_centre() {
    let volume = reply(
        200,
        &json!({"id": "k3v9q0w1za", "name": "m", "size": 120, "dataCenter": "EU-RO-1",
            "type": "STANDARD"}),
    );
    let centres = json!([{"id": "US-KS-2", "name": "x", "availability": "HIGH"}, {"id": "EU-RO-1",
        "name": "x", "availability": "LOW"}]);
    let gpus = json!({"gpus": [{"id": "NVIDIA L40S", "name": "L40S", "memory": 48, "secure": true,
        "community": false,
        "price": {"secure": 1.09, "community": 0.5}, "maxCount": {"secure": 8, "community": 0},
            "availability": "HIGH", "dataCenters": centres}]});
    let request = ComputeRequest::gpu(Gpu::L40S)
        .image("x")
        .network_volume(atlas_core::VolumeId::new("k3v9q0w1za").unwrap());
    let cloud = Script::new([volume.clone(), reply(200, &gpus)]);
    let found = cloud.provider().candidates(&cx(), &request).await.unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|c| (c.cloud_type, c.region.as_deref()))
        .collect();
    assert_eq!(shown, [(Some(CloudType::Secure), Some("EU-RO-1"))]);
    let elsewhere = Script::new([volume]);
    let error = elsewhere
        .provider()
        .candidates(&cx(), &request.region("US"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Validation, Some("region_hints"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_region_is_taken_in_any_case_and_an_unknown_one_is_refused() {
    let flavours = reply(
        200,
        &json!({"cpus": [{"id": "cpu3c", "ramGbPerVcpu": 2.0, "vcpu": {"min": 2, "max": 32},
            "price": {"securePerVcpu": 0.03}, "availability": "HIGH",
            "dataCenters": [{"id": "EU-RO-1", "name": "x", "availability": "HIGH"}]}]}),
    );
    let centres = |ids: &[&str]| {
        let list: Vec<_> = ids
            .iter()
            .map(|id| json!({"id": id, "name": "x"}))
            .collect();
        reply(200, &json!({"dataCenters": list}))
    };
    let ask = async |region: &str, more: Vec<Reply>| {
        let cloud = Script::new([vec![flavours.clone()], more].concat());
        let request = ComputeRequest::cpu(2).image("x").region(region);
        cloud.provider().candidates(&cx(), &request).await
    };
    for region in ["EU-RO-1", "eu-ro-1", "ro"] {
        let found = ask(region, Vec::new()).await.unwrap();
        assert_eq!(found[0].region.as_deref(), Some("EU-RO-1"), "{region}");
    }
    let both = ["EU-RO-1", "AP-JP-1"];
    let sold_out = ask("jp", vec![centres(&both)]).await.unwrap();
    assert!(sold_out.is_empty(), "waited for");
    for unknown in ["XX", "eu-no-99", "europe"] {
        let error = ask(unknown, vec![centres(&both)]).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::Validation, Some("region_hints"))
        );
        assert!(error.message().contains("EU-RO-1, AP-JP-1"), "{error}");
    }
    let unreadable = reply(200, &json!({"dataCenters": [{"id": 7}, "x"]}));
    for answer in [problem(500, "down"), centres(&[]), unreadable] {
        assert!(ask("XX", vec![answer]).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_point_read_proves_only_what_the_cloud_itself_says() {
    let other = json!({"id": "another", "name": "n", "status": "RUNNING"});
    let table = [
        (reply(200, &pod("RUNNING")), "present"),
        (reply(200, &pod("EXITED")), "present"),
        (reply(200, &pod("TERMINATED")), "absent"),
        (problem(404, "pod not found"), "absent"),
        (problem(404, "The requested path was not found."), "nothing"),
        (html(404), "nothing"),
        (problem(401, "bad key"), "nothing"),
        (problem(403, "access denied"), "nothing"),
        (problem(500, "pod not found"), "nothing"),
        (html(200), "nothing"),
        (reply(200, &json!({})), "nothing"),
        (reply(200, &other), "nothing"),
    ];
    for (answer, proved) in table {
        let shown = format!("{answer:?}");
        let told = match Script::new([answer])
            .provider()
            .presence(&cx(), &id())
            .await
        {
            Presence::Present => "present",
            Presence::Absent => "absent",
            Presence::NoAnswer(_) => "nothing",
        };
        assert_eq!(told, proved, "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn terminate_is_done_when_the_pod_is_gone_and_not_when_anything_else_is_said() {
    for done in [
        Reply(204, "text/plain", String::new()),
        problem(404, "pod not found"),
    ] {
        Script::new([done])
            .provider()
            .terminate(&cx(), &id())
            .await
            .unwrap();
    }
    for (refused, kind) in [
        (html(404), ErrorKind::NotFound),
        (
            problem(404, "The requested path was not found."),
            ErrorKind::NotFound,
        ),
        (problem(400, "something else"), ErrorKind::Validation),
        (
            problem(409, "pod belongs to a cluster"),
            ErrorKind::Conflict,
        ),
        (problem(401, "bad key"), ErrorKind::Unauthorized),
        (problem(500, "boom"), ErrorKind::Unavailable),
    ] {
        assert_eq!(
            Script::new([refused])
                .provider()
                .terminate(&cx(), &id())
                .await
                .unwrap_err()
                .kind(),
            kind
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_pod_is_unlocked_and_then_ended() {
    let cloud = Script::new([
        problem(400, "Pod is locked"),
        reply(200, &pod("RUNNING")),
        Reply(204, "text/plain", String::new()),
    ]);
    cloud.provider().terminate(&cx(), &id()).await.unwrap();
    let path = "/v2/pods/q8d2m5x0c7hn4v";
    assert_eq!(
        cloud.lines(),
        [
            format!("DELETE {path}"),
            format!("PATCH {path}"),
            format!("DELETE {path}")
        ]
    );
    assert_eq!(cloud.asked()[1].body, json!({"locked": false}));
    let stubborn = Script::new([
        problem(400, "Pod is locked"),
        reply(200, &pod("RUNNING")),
        problem(400, "Pod is locked"),
    ]);
    assert_eq!(
        stubborn
            .provider()
            .terminate(&cx(), &id())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_what_is_stopped_is_done_and_a_start_without_gpus_is_no_capacity() {
    let wrong_state = || problem(409, "action not valid");
    Script::new([wrong_state(), reply(200, &pod("EXITED"))])
        .provider()
        .stop(&cx(), &id())
        .await
        .unwrap();
    Script::new([wrong_state(), reply(200, &pod("STARTING"))])
        .provider()
        .start(&cx(), &id())
        .await
        .unwrap();
    let error = Script::new([wrong_state(), reply(200, &pod("TERMINATED"))])
        .provider()
        .stop(&cx(), &id())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let full = Script::new([problem(
        400,
        "There are not enough free GPUs on the host machine to start this pod.",
    )]);
    assert_eq!(
        full.provider()
            .start(&cx(), &id())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NoCapacity
    );
    let ok = Script::new([reply(200, &pod("EXITED"))]);
    ok.provider().stop(&cx(), &id()).await.unwrap();
    assert_eq!(
        (ok.lines(), &ok.asked()[0].body),
        (
            vec!["POST /v2/pods/q8d2m5x0c7hn4v/action".to_owned()],
            &json!({"action": "stop"})
        )
    );
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_equal_for_equal_keys_and_shows_nothing_of_them() {
    let provider = Script::default().provider();
    let mine = provider.identity(&cx()).await.unwrap();
    let same = provider
        .identity(&cx().with_api_key(KEY.into()))
        .await
        .unwrap();
    let other = provider
        .identity(&cx().with_api_key("another".into()))
        .await
        .unwrap();
    assert!(
        mine == same && mine != other && !mine.contains("canary"),
        "{mine}"
    );
}

#[tokio::test(start_paused = true)]
async fn spend_is_read_row_by_row_and_half_of_it_is_an_error() {
    let query = atlas_core::SpendQuery {
        id: Some(id()),
        start: "2026-09-01T00:00:00Z".parse().unwrap(),
        end: "2026-09-02T00:00:00Z".parse().unwrap(),
    };
    let row = json!({"startTime": "2026-09-01T00:00:00Z", "endTime": "2026-09-01T01:00:00Z",
        "podId": "q8d2m5x0c7hn4v",
        "totalAmount": 8.31, "gpuAmount": 8.02, "cpuAmount": 0, "diskAmount": 0.29});
    let cloud = Script::new([reply(200, &json!({"records": [row], "metadata": {}}))]);
    let rows = cloud.provider().compute_spend(&cx(), &query).await.unwrap();
    assert_eq!(
        (rows.len(), rows[0].amount.to_string().as_str()),
        (1, "8.310000000")
    );
    assert_eq!(
        cloud.lines(),
        [
            "GET /v2/billing/pods?startTime=2026-09-01T00%3A00%3A00Z&endTime=2026-09-02T00%3A00%3A00Z&bucketSize=hour&podId=q8d2m5x0c7hn4v"
        ]
    );
    let more = json!({"records": [row], "pagination": {"hasNextPage": true, "nextCursor": "c"}});
    let torn = Script::new([reply(200, &more), problem(500, "boom")]);
    assert!(torn.provider().compute_spend(&cx(), &query).await.is_err());
}
