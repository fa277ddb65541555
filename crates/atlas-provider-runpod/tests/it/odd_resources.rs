//! Odd fields in the answers about resources: an odd row costs one row, an odd field nothing that
//! is not needed, and no odd answer is a refusal.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    AccountLimits, CallContext, CloudType, ComputeRequest, DiskSize, ErrorKind, Gpu, LaunchKey,
    Result, Secret, VolumeRequest,
};
use atlas_http::Transport;
use atlas_provider_runpod::{
    BillingQuery, Bucket, Container, EndpointGpu, EndpointRequest, RunPod, TemplateSource,
    TemplateSpec,
};
use atlas_testkit::dialect::mutated::{Case, Change, Mutated, Plans, under_every_change};
use atlas_testkit::dialect::runpod;
use atlas_testkit::world::{World, WorldClock};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tower::ServiceExt as _;

const KEY: &str = "sim-key";
const ARN: &str = "arn:aws:ecr:eu-west-1:123456789012:repository/worker";

fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

/// How much of an answer must survive an odd field.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    /// In a list below this field, a row is left out if its id is odd, and only then.
    Id(&'static str, &'static str),
    /// Every row of a list is needed.
    Every,
    /// One resource: only its id.
    One(&'static str),
}

/// Makes a read under every change, and describes what must not happen.
async fn judged<T: Debug, F: Future<Output = Result<T>>>(
    plans: &Plans,
    needs: Needs,
    rows: impl Fn(&T) -> usize,
    read: impl Fn() -> F,
) -> (usize, Vec<String>) {
    let (mut honest, mut wrong) = (0, Vec::new());
    let count = under_every_change(plans, read, |case: Option<&Case>, result| {
        let Some(case) = case else {
            honest = rows(&result.expect("an honest answer is read"));
            assert!(honest > 0, "an empty list shows nothing");
            return;
        };
        let lost = match (needs, &result) {
            (_, Err(error)) if error.kind() != ErrorKind::Provider => Some("a refusal"),
            // The answer as a whole, and the list itself.
            _ if case.pointer.matches('/').count() < 2 && needs != Needs::One("/id") => None,
            (Needs::Id(field, id), Ok(read)) => {
                let odd = case.pointer == format!("/{field}/0")
                    || case.pointer == format!("/{field}/0/{id}");
                (rows(read) + usize::from(odd) < honest).then_some("a row")
            }
            (Needs::Id(field, id), Err(_)) => {
                let odd = case.pointer == format!("/{field}/0")
                    || case.pointer == format!("/{field}/0/{id}");
                // Of one row nothing is left.
                let below = case.pointer.starts_with(&format!("/{field}/"));
                (below && !(odd && honest == 1)).then_some("the other rows")
            }
            (Needs::One(id), Err(_)) => (case.pointer != id).then_some("the resource"),
            (Needs::Every | Needs::One(_), _) => None,
        };
        if let Some(lost) = lost {
            wrong.push(format!("{lost} is lost: {case}: {result:?}"));
        }
        let list = case.pointer.matches('/').count() == 1 && case.pointer != "/pagination";
        if let (Needs::Id(field, _), Ok(read), true) = (needs, &result, list) {
            let none = rows(read) == 0 && case.pointer == format!("/{field}");
            if none && case.change != Change::EmptyList {
                wrong.push(format!("an odd answer reads as an empty list: {case}"));
            }
        }
    })
    .await;
    (count, wrong)
}

#[tokio::test(start_paused = true)]
async fn no_odd_field_hides_a_resource_or_reads_as_a_refusal() {
    let world = World::new(7, WorldClock::following(1.0)).with_cloud(runpod::cloud());
    let account = world.add_key(runpod::NAME, KEY, "me");
    runpod::add_endpoint(&world, &account);
    let dialect = runpod::RunPod::new(world.clone());
    let order = json!({ "name": "fleet", "type": "TRAINING", "image": "x/y:1", "disk": 20,
        "compute": { "gpuTypeId": "NVIDIA L4", "gpuCountPerPod": 2, "podCount": 2 } });
    let request = Request::post("https://api.runpod.io/v2/clusters")
        .header("authorization", format!("Bearer {KEY}"))
        .header("user-agent", "test")
        .body(Full::new(Bytes::from(order.to_string())))
        .unwrap();
    let made = dialect.clone().oneshot(request).await.unwrap();
    assert_eq!(made.status(), 201);

    let mutated = Mutated::new(dialect);
    let plans = mutated.plans();
    let mut limits = AccountLimits::default();
    (limits.call_interval, limits.burst) = (Duration::ZERO, 1_000_000);
    let runpod = RunPod::builder()
        .api_key(KEY)
        .transport(Transport::new(mutated))
        .clock(Arc::new(world.clock().clone()))
        .limits(limits)
        .build()
        .unwrap();
    let cx = cx();
    let template = TemplateSpec::new("template", "x/y:1");
    let template = runpod.create_template(&cx, &template).await.unwrap();
    let other = TemplateSpec::new("other", "x/y:2");
    runpod.create_template(&cx, &other).await.unwrap();
    let password = Secret::new("a password");
    for name in ["one", "two"] {
        let made = runpod.create_registry(&cx, name, "bot", &password).await;
        made.unwrap();
        let mut queue = EndpointRequest::queue(name);
        queue.container = Container::image("x/y:1");
        queue.gpu = Some(EndpointGpu::pools(["ADA_24"]));
        runpod.create_endpoint(&cx, &queue).await.unwrap();
    }
    runpod.create_delegation(&cx, ARN, None).await.unwrap();
    let provider = atlas_core::AnyProvider::new(runpod.clone());
    let volumes = provider.network_volumes().unwrap();
    let mut volume = None;
    for name in ["one", "two"] {
        let request = VolumeRequest {
            name: name.to_owned(),
            size: DiskSize::gb(20),
            region: "EU-RO-1".to_owned(),
        };
        volume = Some(volumes.create_network_volume(&cx, &request).await.unwrap());
    }
    let volume = volume.unwrap();
    let request = ComputeRequest::gpu(Gpu::Rtx4090).image("x/y:1");
    let pod = provider
        .spawn_compute(&cx, &LaunchKey::untracked(), &request)
        .await;
    pod.unwrap();
    tokio::time::sleep(Duration::from_secs(30 * 3600)).await;
    let keys = ["ssh-ed25519 AAAA me".to_owned()];
    runpod.set_ssh_keys(&cx, &keys).await.unwrap();
    let now = atlas_core::Clock::now(world.clock());
    let start = now.saturating_sub(Duration::from_secs(40 * 3600));
    let query = BillingQuery::new(start, now, Bucket::Day);
    let endpoint = runpod.list_endpoints(&cx).await.unwrap()[0].id.clone();
    let cluster = runpod.list_clusters(&cx).await.unwrap()[0].id.clone();

    let (mut count, mut wrong) = (0, Vec::new());
    macro_rules! judge {
        ($needs:expr, $rows:expr, $runpod:ident => $call:expr) => {{
            let $runpod = &runpod;
            let (changes, found) = judged(&plans, $needs, $rows, || $call).await;
            count += changes;
            wrong.extend(found);
        }};
        (list $field:literal $id:literal $runpod:ident => $call:expr) => {
            judge!(Needs::Id($field, $id), Vec::len, $runpod => $call)
        };
        (one $runpod:ident => $call:expr) => {
            judge!(Needs::One("/id"), |_| 1, $runpod => $call)
        };
        (every $runpod:ident => $call:expr) => {
            judge!(Needs::Every, Vec::len, $runpod => $call)
        };
    }
    judge!(list "gpus" "id" r => r.catalog_gpus(&cx, CloudType::Secure));
    judge!(one r => r.catalog_gpu(&cx, "NVIDIA L4", CloudType::Secure));
    judge!(list "cpus" "id" r => r.catalog_cpus(&cx));
    judge!(one r => r.catalog_cpu(&cx, "cpu3g"));
    judge!(list "dataCenters" "id" r => r.data_centres(&cx));
    judge!(one r => r.data_centre(&cx, "EU-RO-1"));
    judge!(list "templates" "id" r => r.list_templates(&cx));
    judge!(one r => r.template(&cx, &template.id));
    let official = TemplateSource::Official;
    judge!(list "templates" "id" r => r.list_public_templates(&cx, official));
    judge!(list "registries" "id" r => r.list_registries(&cx));
    judge!(list "delegations" "id" r => r.list_delegations(&cx));
    judge!(list "endpoints" "id" r => r.list_endpoints(&cx));
    judge!(one r => r.endpoint(&cx, &endpoint));
    judge!(Needs::Every, |_| 1, r => r.endpoint_workers(&cx, runpod::ENDPOINT));
    judge!(Needs::Every, |_| 1, r => r.endpoint_releases(&cx, &endpoint));
    judge!(list "clusters" "id" r => r.list_clusters(&cx));
    judge!(one r => r.cluster(&cx, &cluster));
    judge!(list "pods" "id" r => r.cluster_pods(&cx, &cluster));
    judge!(list "networkVolumes" "id" _r => volumes.list_network_volumes(&cx));
    judge!(one r => r.network_volume(&cx, &volume.id));
    judge!(every r => r.ssh_keys(&cx));
    judge!(every r => r.account_billing(&cx, &query));
    judge!(every r => r.pod_billing(&cx, &query));
    judge!(every r => r.volume_billing(&cx, &query));
    judge!(every r => r.cluster_billing(&cx, &query));
    println!("runpod's resources: {count} changes");
    assert!(count > 2_000, "{count}");
    assert!(
        wrong.is_empty(),
        "{}: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_billing_row_without_its_amount_makes_no_smaller_sum() {
    let rows = json!({ "records": [
        { "podId": "a", "startTime": "2026-09-01T00:00:00Z", "endTime": "2026-09-02T00:00:00Z",
            "totalAmount": "1.5" },
        { "podId": "b", "startTime": "2026-09-01T00:00:00Z", "endTime": "2026-09-02T00:00:00Z",
            "totalAmount": null },
    ] });
    let cloud = crate::script::Script::new([crate::script::json(200, &rows)]);
    let start = "2026-09-01T00:00:00Z".parse().unwrap();
    let end = "2026-09-02T00:00:00Z".parse().unwrap();
    let query = BillingQuery::new(start, end, Bucket::Day);
    let error = cloud.runpod().pod_billing(&cx(), &query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider);
}
