//! Everything besides pods and jobs: what is asked, and that the documents' answers are understood.

use std::time::Duration;

use atlas_core::{
    CallContext, CloudType, ComputeId, DiskSize, ErrorKind, MemorySize, Outcome, Secret, Usd,
    VolumeId, VolumeRequest,
};
use atlas_provider_runpod::{
    BillingQuery, Bucket, Container, EndpointGpu, EndpointRequest, EndpointUpdate, PodUpdate,
    TemplateSource, TemplateSpec,
};
use serde_json::{Value, json};

use crate::script::{Reply, Script, json as reply, problem};

fn cx() -> CallContext {
    CallContext::new().with_retries(0)
}

fn empty() -> Reply {
    Reply(204, "text/plain", String::new())
}

/// Answers once, and tells what was asked: line and body.
macro_rules! asked {
    ($answer:expr, $runpod:ident => $call:expr) => {{
        let cloud = Script::new([$answer]);
        let $runpod = cloud.runpod();
        let result = $call.await.unwrap();
        let [asked] = <[_; 1]>::try_from(cloud.asked()).unwrap();
        (result, asked.line, asked.body)
    }};
}

fn endpoint() -> Value {
    json!({"id": "e1", "name": "n", "type": "QUEUE", "image": "x", "args": "", "disk": 20,
        "env": {}, "ports": [], "registry": null,
        "requestUrls": {"run": "r"}, "gpu": {"pools": ["ADA_24"], "count": 1,
            "allowedCudaVersions": [], "minCudaVersion": null},
        "workers": {"min": 0, "max": 3, "idleTimeout": 10}, "scaling": {"type": "QUEUE_DELAY",
            "queueDelay": 4.5}, "dataCenterIds": [],
        "networkVolumes": [], "timeout": 600_000, "flashboot": "OFF",
            "createdAt": "2026-09-03T10:15:22.607Z"})
}

fn template() -> Value {
    json!({"id": "r7n2c0k5xe", "name": "t", "image": "x", "args": "", "disk": 40, "mounts": {},
        "ports": ["8000/http"], "env": {},
        "registry": null, "serverless": false, "public": false, "category": "NVIDIA",
            "startSsh": true, "startJupyter": false,
        "allowedCudaVersions": []})
}

fn volume() -> Value {
    json!({"id": "k3v9q0w1za", "name": "m", "size": 120, "dataCenter": "EU-RO-1",
        "type": "STANDARD"})
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_asked_for_by_their_paths_and_read_with_units() {
    let mut order = EndpointRequest::queue("n");
    order.container = Container::image("x");
    order.gpu = Some(EndpointGpu::pools(["ADA_24"]));
    let (made, line, body) = asked!(reply(201, &endpoint()), r => r.create_endpoint(&cx(), &order));
    assert_eq!(
        (made.timeout, line.as_str()),
        (Some(Duration::from_secs(600)), "POST /v2/serverless")
    );
    assert_eq!(body["timeout"], json!(300_000));
    let (all, line, _) =
        asked!(reply(200, &json!({"endpoints": [endpoint()]})), r => r.list_endpoints(&cx()));
    assert_eq!((all.len(), line.as_str()), (1, "GET /v2/serverless"));
    let (_, line, _) = asked!(reply(200, &endpoint()), r => r.endpoint(&cx(), "e1"));
    assert_eq!(line, "GET /v2/serverless/e1");
    let mut update = EndpointUpdate::default();
    update.timeout = Some(Duration::from_secs(60));
    let (_, line, body) =
        asked!(reply(200, &endpoint()), r => r.update_endpoint(&cx(), "e1", &update));
    assert_eq!(
        (line.as_str(), body),
        ("PATCH /v2/serverless/e1", json!({"timeout": 60_000}))
    );
    let ((), line, _) = asked!(empty(), r => r.delete_endpoint(&cx(), "e1"));
    assert_eq!(line, "DELETE /v2/serverless/e1");
    let workers = json!({"workers": [{"id": "w", "status": "THROTTLED", "isStale": false,
        "gpuCount": 1, "uptimeSeconds": 5}],
        "summary": {"running": 0, "throttled": 1, "total": 1}, "endpointVersion": 3});
    let (workers, line, _) = asked!(reply(200, &workers), r => r.endpoint_workers(&cx(), "e1"));
    assert_eq!(
        (workers.workers[0].uptime, workers.summary["throttled"]),
        (Some(Duration::from_secs(5)), 1)
    );
    assert_eq!(line, "GET /v2/serverless/e1/workers");
    let releases = json!({"endpointVersion": 3, "rollout": {"inProgress": false,
        "workersOnLatest": 1, "workersTotal": 1, "percentOnLatest": 100},
        "releases": [{"id": "r", "version": 3, "source": "MANUAL", "workerCount": 1,
            "createdAt": "2026-09-03T10:15:22Z",
            "diff": [{"field": "env", "old": {}, "new": {"A": "zz-canary"}}]}]});
    let (releases, line, _) = asked!(reply(200, &releases), r => r.endpoint_releases(&cx(), "e1"));
    assert_eq!(
        (releases.releases[0].changed.as_slice(), line.as_str()),
        (
            ["env".to_owned()].as_slice(),
            "GET /v2/serverless/e1/releases"
        )
    );
    assert!(!format!("{releases:?}").contains("zz-canary"));
}

#[tokio::test(start_paused = true)]
async fn templates_are_asked_for_by_their_paths_and_one_in_use_is_a_conflict() {
    let (made, line, body) = asked!(reply(201, &template()), r => r.create_template(&cx(),
        &TemplateSpec::new("t", "x")));
    assert_eq!(
        (made.container.disk, line.as_str(), body),
        (
            Some(DiskSize::gb(40)),
            "POST /v2/templates",
            json!({"name": "t", "image": "x"})
        )
    );
    let (_, line, _) =
        asked!(reply(200, &json!({"templates": [template()]})), r => r.list_templates(&cx()));
    assert_eq!(line, "GET /v2/templates");
    let (_, line, _) = asked!(reply(200, &json!({"templates": []})),
        r => r.list_public_templates(&cx(), TemplateSource::Verified));
    assert_eq!(line, "GET /v2/catalog/templates?source=verified");
    let (_, line, _) = asked!(reply(200, &template()), r => r.template(&cx(), "r7n2c0k5xe"));
    assert_eq!(line, "GET /v2/templates/r7n2c0k5xe");
    let mut change = TemplateSpec::default();
    change.volume = Some((DiskSize::gb(20), "/data".to_owned()));
    let (_, line, body) =
        asked!(reply(200, &template()), r => r.update_template(&cx(), "t", &change));
    assert_eq!(
        (line.as_str(), body),
        (
            "PATCH /v2/templates/t",
            json!({"mounts": {"persistent": {"size": 20, "path": "/data"}}})
        )
    );
    let ((), line, _) =
        asked!(problem(404, "template not found"), r => r.delete_template(&cx(), "t"));
    assert_eq!(line, "DELETE /v2/templates/t");
    let used = Script::new([problem(400, "template is in use")]).runpod();
    assert_eq!(
        used.delete_template(&cx(), "t").await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(
        Script::default()
            .runpod()
            .create_template(&cx(), &TemplateSpec::default())
            .await
            .unwrap_err()
            .field(),
        Some("name")
    );
}

#[tokio::test(start_paused = true)]
async fn network_volumes_are_made_grown_and_deleted() {
    let order = VolumeRequest {
        name: "m".to_owned(),
        size: DiskSize::gb(120),
        region: "EU-RO-1".to_owned(),
    };
    let cloud = Script::new([
        reply(201, &volume()),
        reply(200, &json!({"networkVolumes": [volume()]})),
        empty(),
        problem(400, "volume is in use"),
    ]);
    let provider = cloud.provider();
    let volumes = provider.network_volumes().unwrap();
    let made = volumes.create_network_volume(&cx(), &order).await.unwrap();
    assert_eq!(
        (made.size, made.region.as_str()),
        (DiskSize::gb(120), "EU-RO-1")
    );
    assert_eq!(
        volumes.list_network_volumes(&cx()).await.unwrap(),
        std::slice::from_ref(&made)
    );
    volumes
        .delete_network_volume(&cx(), &made.id)
        .await
        .unwrap();
    assert_eq!(
        volumes
            .delete_network_volume(&cx(), &made.id)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    assert_eq!(
        cloud.asked()[0].body,
        json!({"name": "m", "size": 120, "dataCenter": "EU-RO-1"})
    );
    let id = VolumeId::new("k3v9q0w1za").unwrap();
    let (_, line, body) = asked!(reply(200, &volume()), r => r.update_network_volume(&cx(), &id,
        None, Some(DiskSize::gb(200))));
    assert_eq!(
        (line.as_str(), body),
        ("PATCH /v2/network-volumes/k3v9q0w1za", json!({"size": 200}))
    );
    let (_, line, _) = asked!(reply(200, &volume()), r => r.network_volume(&cx(), &id));
    assert_eq!(line, "GET /v2/network-volumes/k3v9q0w1za");
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_creation_was_not_answered_may_exist() {
    let order = VolumeRequest {
        name: "m".to_owned(),
        size: DiskSize::gb(120),
        region: "EU-RO-1".to_owned(),
    };
    for answer in [
        problem(500, "boom"),
        Reply(201, "application/json", "{".to_owned()),
        reply(201, &json!({"name": "m"})),
    ] {
        let provider = Script::new([answer]).provider();
        let error = provider
            .network_volumes()
            .unwrap()
            .create_network_volume(&cx(), &order)
            .await
            .unwrap_err();
        assert!(matches!(error.outcome(), Outcome::Unknown(_)), "{error}");
    }
    let small = VolumeRequest {
        size: DiskSize::gb(9),
        ..order
    };
    let provider = Script::default().provider();
    let error = provider
        .network_volumes()
        .unwrap()
        .create_network_volume(&cx(), &small)
        .await
        .unwrap_err();
    assert_eq!(error.field(), Some("size_gb"));
}

#[tokio::test(start_paused = true)]
async fn registries_and_delegations_are_made_and_forgotten() {
    let registry = json!({"id": "6v1r8s3t", "name": "acme-pull"});
    let password = Secret::new("zz-canary");
    let (_, line, body) =
        asked!(reply(201, &registry), r => r.create_registry(&cx(), "acme-pull", "bot", &password));
    assert_eq!(
        (line.as_str(), &body["password"]),
        ("POST /v2/registries", &json!("zz-canary"))
    );
    let (all, line, _) =
        asked!(reply(200, &json!({"registries": [registry]})), r => r.list_registries(&cx()));
    assert_eq!(
        (all[0].id.as_str(), line.as_str()),
        ("6v1r8s3t", "GET /v2/registries")
    );
    let (_, line, _) = asked!(reply(200, &registry), r => r.registry(&cx(), "6v1r8s3t"));
    assert_eq!(line, "GET /v2/registries/6v1r8s3t");
    let ((), line, _) = asked!(empty(), r => r.delete_registry(&cx(), "6v1r8s3t"));
    assert_eq!(line, "DELETE /v2/registries/6v1r8s3t");
    let delegation = json!({"id": "d", "name": null, "delegatorUserId": "u", "awsUser": "1",
        "repository": "r", "tag": "t",
        "awsRegion": "eu-west-1", "createdAt": "2026-09-03T10:15:22Z"});
    let arn = "arn:aws:ecr:eu-west-1:1:repository/r";
    let (_, line, body) =
        asked!(reply(201, &delegation), r => r.create_delegation(&cx(), arn, None));
    assert_eq!(
        (line.as_str(), body),
        ("POST /v2/registries/delegations", json!({"resource": arn}))
    );
    let (_, line, _) =
        asked!(reply(200, &json!({"delegations": [delegation]})), r => r.list_delegations(&cx()));
    assert_eq!(line, "GET /v2/registries/delegations");
    let ((), line, _) = asked!(empty(), r => r.revoke_delegation(&cx(), "d"));
    assert_eq!(line, "DELETE /v2/registries/delegations/d");
}

#[tokio::test(start_paused = true)]
async fn ssh_keys_are_replaced_as_a_whole_and_bad_ones_never_sent() {
    let keys = vec!["ssh-ed25519 AAAA me".to_owned()];
    let (kept, line, body) =
        asked!(reply(200, &json!({"keys": keys})), r => r.set_ssh_keys(&cx(), &keys));
    assert_eq!(
        (kept, line.as_str(), body),
        (
            keys.clone(),
            "PUT /v2/account/ssh-keys",
            json!({"keys": keys})
        )
    );
    let (_, line, _) = asked!(reply(200, &json!({"keys": []})), r => r.ssh_keys(&cx()));
    assert_eq!(line, "GET /v2/account/ssh-keys");
    for bad in ["rsa AAAA", "ssh-rsa", "ssh-rsa A\nssh-rsa B"] {
        assert_eq!(
            Script::default()
                .runpod()
                .set_ssh_keys(&cx(), &[bad.to_owned()])
                .await
                .unwrap_err()
                .field(),
            Some("keys")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn clusters_are_shown_with_their_pods() {
    let cluster = json!({"id": "c1", "name": "n", "type": "SLURM",
        "compute": {"gpuTypeId": "NVIDIA B200", "gpuCountPerPod": 8, "podCount": 2},
        "pods": {"total": 2, "byStatus": {"RUNNING": 2}}, "createdAt": "2026-09-03T10:15:22Z"});
    let (all, line, _) =
        asked!(reply(200, &json!({"clusters": [cluster]})), r => r.list_clusters(&cx()));
    assert_eq!(
        (all[0].compute.pod_count, line.as_str()),
        (Some(2), "GET /v2/clusters")
    );
    let (one, line, _) = asked!(reply(200, &cluster), r => r.cluster(&cx(), "c1"));
    assert_eq!(
        (one.pods.by_status["RUNNING"], line.as_str()),
        (2, "GET /v2/clusters/c1")
    );
    let (pods, line, _) = asked!(reply(200, &json!({"pods": [{"id": "p", "status": "RUNNING"}]})),
        r => r.cluster_pods(&cx(), "c1"));
    assert_eq!(
        (pods[0].id.as_str(), line.as_str()),
        ("p", "GET /v2/clusters/c1/pods")
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_changed_and_restarted() {
    let id = ComputeId::new("p").unwrap();
    let mut update = PodUpdate::default();
    update.name = Some("n".to_owned());
    let (_, line, body) = asked!(reply(200, &json!({"id": "p", "status": "RUNNING"})),
        r => r.update_pod(&cx(), &id, &update));
    assert_eq!(
        (line.as_str(), body),
        ("PATCH /v2/pods/p", json!({"name": "n"}))
    );
    let ((), line, body) = asked!(reply(200, &json!({"id": "p", "status": "RUNNING"})),
        r => r.restart_pod(&cx(), &id));
    assert_eq!(
        (line.as_str(), body),
        ("POST /v2/pods/p/action", json!({"action": "restart"}))
    );
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_is_read_with_units_and_reads_back() {
    let gpu = json!({"id": "NVIDIA L40S", "name": "L40S", "pool": "ADA_48_PRO",
        "manufacturer": "NVIDIA", "memory": 48, "secure": true,
        "community": false, "price": {"secure": 1.09, "community": 0.5, "serverless": 1.9},
            "maxCount": {"secure": 8, "community": 0},
        "availability": "LOW", "dataCenters": [{"id": "EU-RO-1", "name": "x",
            "availability": "LOW"}]});
    let query = "include=AVAILABILITY&product=POD";
    let (all, line, _) = asked!(reply(200, &json!({"gpus": [gpu]})), r => r.catalog_gpus(&cx(),
        CloudType::Community));
    assert_eq!(
        (all[0].memory.map(MemorySize::as_gib), line),
        (
            Some(48),
            format!("GET /v2/catalog/gpus?{query}&cloud=COMMUNITY")
        )
    );
    let (one, line, _) =
        asked!(reply(200, &gpu), r => r.catalog_gpu(&cx(), "NVIDIA L40S", CloudType::Secure));
    assert_eq!(
        (one.price.secure.unwrap().per_hour(), line),
        (
            Usd::from_cents(109),
            format!("GET /v2/catalog/gpus/NVIDIA%20L40S?{query}&cloud=SECURE")
        )
    );
    let back: atlas_provider_runpod::CatalogGpu =
        serde_json::from_value(serde_json::to_value(&one).unwrap()).unwrap();
    assert_eq!(back.price, one.price);
    let cpu = json!({"id": "cpu3g", "name": "g", "group": "g", "vcpu": {"min": 2, "max": 32},
        "ramGbPerVcpu": 4,
        "price": {"securePerVcpu": 0.04, "serverlessPerVcpu": 0.05}});
    let (_, line, _) = asked!(reply(200, &json!({"cpus": [cpu]})), r => r.catalog_cpus(&cx()));
    assert_eq!(line, format!("GET /v2/catalog/cpus?{query}"));
    let (_, line, _) = asked!(reply(200, &cpu), r => r.catalog_cpu(&cx(), "cpu3g"));
    assert_eq!(line, format!("GET /v2/catalog/cpus/cpu3g?{query}"));
    let centre = json!({"id": "EU-RO-1", "name": "x", "region": "EUROPE", "globalNetwork": true,
        "networkVolumeTypes": ["STANDARD"],
        "compliance": ["GDPR"], "gpuAvailability": [{"id": "NVIDIA L40S", "name": "x",
            "availability": "HIGH"}]});
    let (all, line, _) =
        asked!(reply(200, &json!({"dataCenters": [centre]})), r => r.data_centres(&cx()));
    assert_eq!(
        (all[0].gpu_availability.len(), line.as_str()),
        (
            1,
            "GET /v2/catalog/datacenters?include=GPU_AVAILABILITY%2CCPU_AVAILABILITY"
        )
    );
    let (_, line, _) = asked!(reply(200, &centre), r => r.data_centre(&cx(), "EU-RO-1"));
    assert_eq!(
        line,
        "GET /v2/catalog/datacenters/EU-RO-1?include=GPU_AVAILABILITY%2CCPU_AVAILABILITY"
    );
}

#[tokio::test(start_paused = true)]
async fn billing_of_every_kind_has_typed_rows() {
    let mut query = BillingQuery::new(
        "2026-09-01T00:00:00Z".parse().unwrap(),
        "2026-09-02T00:00:00Z".parse().unwrap(),
        Bucket::Day,
    );
    query.id = Some("x1".to_owned());
    let span = "startTime=2026-09-01T00%3A00%3A00Z&endTime=2026-09-02T00%3A00%3A00Z&bucketSize=day";
    let rows = |extra: Value| {
        let mut row = json!({"startTime": "2026-09-01T00:00:00Z",
            "endTime": "2026-09-02T00:00:00Z", "totalAmount": 8.31});
        row.as_object_mut()
            .unwrap()
            .extend(extra.as_object().cloned().unwrap());
        reply(200, &json!({"records": [row], "metadata": {}}))
    };
    let (all, line, _) =
        asked!(rows(json!({"podGpuAmount": 8.0})), r => r.account_billing(&cx(), &query));
    assert_eq!(
        (all[0].pod_gpu_amount, line),
        (
            Some(Usd::from_cents(800)),
            format!("GET /v2/billing?{span}")
        )
    );
    let (pods, line, _) = asked!(rows(json!({"podId": "x1", "gpuAmount": 8.02,
        "diskAmount": 0.29})), r => r.pod_billing(&cx(), &query));
    assert_eq!(
        (pods[0].disk_amount, line),
        (
            Some(Usd::from_cents(29)),
            format!("GET /v2/billing/pods?{span}&podId=x1")
        )
    );
    let (_, line, _) =
        asked!(rows(json!({"serverlessId": "x1"})), r => r.serverless_billing(&cx(), &query));
    assert_eq!(
        line,
        format!("GET /v2/billing/serverless?{span}&serverlessId=x1")
    );
    let (_, line, _) = asked!(rows(json!({})), r => r.public_endpoint_billing(&cx(), &query));
    assert_eq!(line, format!("GET /v2/billing/endpoints?{span}"));
    let (_, line, _) =
        asked!(rows(json!({"networkVolumeId": "x1"})), r => r.volume_billing(&cx(), &query));
    assert_eq!(
        line,
        format!("GET /v2/billing/network-volumes?{span}&networkVolumeId=x1")
    );
    let (_, line, _) =
        asked!(rows(json!({"clusterId": "x1"})), r => r.cluster_billing(&cx(), &query));
    assert_eq!(
        line,
        format!("GET /v2/billing/clusters?{span}&clusterId=x1")
    );
}
